# A legacy MCP server that adds two numbers.
require "json"

ADD = {
  name: "add",
  description: "Add two whole numbers",
  inputSchema: { type: "object", properties: { a: { type: "integer" }, b: { type: "integer" } } }
}.freeze

def answer(method, params)
  case method
  when "initialize"
    { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "adder", version: RUBY_VERSION } }
  when "ping" then {}
  when "tools/list" then { tools: [ADD] }
  when "tools/call"
    sum = params["arguments"]["a"] + params["arguments"]["b"]
    { content: [{ type: "text", text: sum.to_s }] }
  end
end

$stdout.sync = true
$stdin.each_line do |line|
  request = JSON.parse(line)
  next unless request.key?("id") && request.key?("method")

  result = answer(request["method"], request["params"] || {})
  outcome = result.nil? ? { error: { code: -32601, message: "Method not found" } } : { result: result }
  puts JSON.generate({ jsonrpc: "2.0", id: request["id"] }.merge(outcome))
end
