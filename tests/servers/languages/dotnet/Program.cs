// A legacy MCP server that adds two numbers.
using System.Text.Json.Nodes;

static JsonNode? Result(string method, JsonNode? call) => method switch
{
    "initialize" => JsonNode.Parse("""
        {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "adder", "version": "1"}}
        """),
    "ping" => new JsonObject(),
    "tools/list" => JsonNode.Parse("""
        {"tools": [{"name": "add", "description": "Add two whole numbers", "inputSchema": {"type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}}]}
        """),
    "tools/call" => JsonNode.Parse($$$"""
        {"content": [{"type": "text", "text": "{{{(long)call!["arguments"]!["a"]! + (long)call["arguments"]!["b"]!}}}"}]}
        """),
    _ => null,
};

while (Console.ReadLine() is { } line)
{
    var request = JsonNode.Parse(line)!.AsObject();
    if (!request.ContainsKey("id")) continue;
    var answer = new JsonObject { ["jsonrpc"] = "2.0", ["id"] = request["id"]!.DeepClone() };
    var found = Result((string)request["method"]!, request["params"]);
    if (found is not null) answer["result"] = found;
    else answer["error"] = new JsonObject { ["code"] = -32601, ["message"] = "Method not found" };
    Console.WriteLine(answer.ToJsonString());
}
