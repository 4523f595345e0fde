# server.py
import asyncio
import json
from typing import Dict, Any

async def handle_request(request: Dict[str, Any]) -> Dict[str, Any]:
    method = request.get("method")
    params = request.get("params", {})

    if method == "tools/list":
        return {
            "result": {
                "tools": [
                    {"name": "calculator", "description": "Basic calculator"}
                ]
            }
        }

    return {"error": {"code": -32601, "message": "Method not found"}}

async def main():
    while True:
        try:
            line = input()
            request = json.loads(line)
            response = await handle_request(request)
            print(json.dumps(response))
        except EOFError:
            break
        except Exception as e:
            error_response = {
                "error": {"code": -32603, "message": str(e)}
            }
            print(json.dumps(error_response))

if __name__ == "__main__":
    asyncio.run(main())
