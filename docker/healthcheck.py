"""Whether the control plane in this container takes requests: exit status 0 or 1. Standard library only, no `curl`."""

import os
import socket
import sys

ANSWER_LIMIT_S = 4
"""Less than the health check's own limit, so that the reason gets out."""


def main() -> int:
    """Ask `/readyz` on the loopback interface; an outage of Postgres or Redis is not the container's ill health."""
    port = int(os.environ.get("PORT") or 8000)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_LIMIT_S) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            status = connection.makefile("rb").readline(256).decode("latin-1").strip()
    except OSError as error:
        status = str(error)
    print(status)
    return 0 if " 200 " in f"{status} " else 1


if __name__ == "__main__":
    sys.exit(main())
