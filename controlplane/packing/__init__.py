"""What lies on somebody's machine, made into what the API takes: folders, files, addresses, `mcpServers` files.

Shared by the command line and the dashboard; knows neither of them, and nothing of the server.
"""
