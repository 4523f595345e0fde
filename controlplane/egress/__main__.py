"""`python -m controlplane.egress`, with the control socket as its standard input."""

from __future__ import annotations

import logging
import os
import resource
import socket

import trio

from controlplane.egress.outside import Outside
from controlplane.egress.service import Service
from controlplane.spawn import linux

LOOKUP_THREADS = 200
"""Look-ups at once, of all instances; they sleep in the system's resolver."""


def main() -> None:
    """Serve until the control plane has gone."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    linux.prctl(linux.PR_SET_DUMPABLE, 0)  # a sandbox of the same user shall not read it
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.socket(fileno=0) as control:
        control.setblocking(False)
        trio.run(_serve, control)


async def _serve(control: socket.socket) -> None:
    trio.to_thread.current_default_thread_limiter().total_tokens = LOOKUP_THREADS
    await Service(control, Outside(environ=dict(os.environ))).run()


if __name__ == "__main__":
    main()
