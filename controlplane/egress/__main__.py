"""`python -m controlplane.egress`, with the control socket as its standard input."""

from __future__ import annotations

import logging
import math
import os
import resource
import socket
import sys
import threading

import trio

from controlplane.egress.outside import Outside
from controlplane.egress.service import Service
from controlplane.spawn import landlock, linux, seccomp

log = logging.getLogger("egress")

NAME = "corral-egress"
"""What operators see in `ps`."""
STACK_BYTES = 512 * 1024
"""Of each thread, which sleeps in the system's resolver: there may be hundreds (see `lookups`), and libc's 8 MB are not needed."""


RESOLVER = ("/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")
"""What the system's resolver reads; whole folders, as such files are replaced while it runs."""
LIBRARIES = ("/usr", "/lib", "/lib32", "/lib64")


def main() -> None:
    """Serve until the control plane has gone."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    linux.set_name(NAME)
    shut_in()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.socket(fileno=0) as control:
        control.setblocking(False)
        trio.run(_serve, control)


def shut_in() -> None:
    """Give up all that the work does not take: it reads what strangers send, and may be root without capabilities.

    What the host lacks of it is told and done without: this process is no sandbox.
    """
    linux.prctl(linux.PR_SET_DUMPABLE, 0)  # a sandbox of the same user shall not read it
    readable = (*RESOLVER, *LIBRARIES, sys.prefix, sys.base_prefix)
    try:
        landlock.restrict(landlock.Ruleset(readable=readable, writable=()))
        seccomp.install(seccomp.program())
    except OSError as error:
        log.info("not as shut in as it could be: %s", error)


async def _serve(control: socket.socket) -> None:
    threading.stack_size(STACK_BYTES)
    # `Lookups` bounds them, each sandbox's apart.
    trio.to_thread.current_default_thread_limiter().total_tokens = math.inf
    await Service(control, Outside(environ=dict(os.environ))).run()


if __name__ == "__main__":
    main()
