"""The terminal dashboard: a client of the HTTP API."""
