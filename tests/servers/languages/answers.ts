const add = {
  name: "add",
  description: "Add two whole numbers",
  inputSchema: { type: "object", properties: { a: { type: "integer" }, b: { type: "integer" } } },
};

type Params = { arguments: { a: number; b: number } };

function result(method: string, params: Params, version: string): object | null {
  switch (method) {
    case "initialize":
      return { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "adder", version } };
    case "ping":
      return {};
    case "tools/list":
      return { tools: [add] };
    case "tools/call":
      return { content: [{ type: "text", text: String(params.arguments.a + params.arguments.b) }] };
    default:
      return null;
  }
}

/** The answer to a line; null for a notification. */
export function answered(line: string, version: string): string | null {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return null;
  const found = result(method, params, version);
  const outcome = found ? { result: found } : { error: { code: -32601, message: "Method not found" } };
  return JSON.stringify({ jsonrpc: "2.0", id, ...outcome });
}
