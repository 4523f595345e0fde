"""What the kernel does for the dashboard's process: ends it with its server, and lets nobody look into it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
PARENT = "CORRAL_TUI_SERVER"
"""Names the server's pid: it may be gone before this process could ask to be told."""


def end_with_server() -> None:
    """Have the kernel end this process with its server (prctl(2)); nothing outside of `--web`."""
    server = os.environ.pop(PARENT, "")
    if not server:
        return
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(server):
        sys.exit(0)


def hide_memory() -> None:
    """Keep other processes of the same user, which hosted servers may be, from reading the tokens in `/proc`."""
    if sys.platform == "linux":  # the dashboard runs elsewhere too, and servers are hosted here only
        _prctl(PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
