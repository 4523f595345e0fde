"""What the dashboard's own process gives away to other processes of the same user: nothing."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes
from tui.__main__ import main
try:
    main(["--once"], standalone_mode=False)
except SystemExit:
    pass
print("dumpable", ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
"""Prints PR_GET_DUMPABLE (prctl(2)): 0 is a process whose memory and environment nobody of the same user may read."""


def test_a_hosted_server_of_the_same_user_cannot_read_the_tokens_in_its_environment() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"CORRAL_URL": "http://127.0.0.1:1", "CORRAL_TOKEN": "t"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "dumpable 0" in ran.stdout, ran.stderr
