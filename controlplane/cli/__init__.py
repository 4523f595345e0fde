"""The `corral` command: a thin client of the HTTP API, one file per command group.

Owns what an operator types and sees. Refuses to know anything that the API does not say: it imports the wire formats,
the error tree, an HTTP client and the terminal libraries, never the server.
"""

from controlplane.cli.app import main

__all__ = ["main"]
