"""`/mcp/{id}`: the standard MCP endpoint of every instance, for clients of both eras."""
