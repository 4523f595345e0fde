"""A tab's program ends with the server that started it, even where that was killed and could not say so."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PARENT = "CORRAL_TUI_SERVER"
"""Names the server's pid: it may be gone before this process could ask to be told."""


def end_with_server() -> None:
    """Have the kernel end this process with its server (prctl(2)); nothing outside of `--web`."""
    server = os.environ.pop(PARENT, "")
    if not server:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(server):
        sys.exit(0)
