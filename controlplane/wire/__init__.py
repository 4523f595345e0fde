"""The API's payloads, shared by server, CLI and dashboard."""
