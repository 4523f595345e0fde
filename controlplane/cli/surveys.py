"""What a control plane would find on this host, from a program of its own: for `corral doctor` where none runs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def survey(program: str, timeout_s: float) -> dict[str, Any] | None:
    """Run a module that prints one JSON object; None if it failed, or took longer."""
    try:
        # -P: the folder that we happen to be in is not where our code comes from.
        run = subprocess.run([sys.executable, "-P", "-m", program], capture_output=True, timeout=timeout_s, check=True)
        document = json.loads(run.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return document if isinstance(document, dict) else None
