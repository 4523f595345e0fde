"""Corral's control plane: hosts MCP servers, supervises every process, serves them over HTTP."""
