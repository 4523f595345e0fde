"""Small MCP servers for tests: plain scripts, and the one of the conformance suite, which needs the official SDK."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from controlplane.deploy import toolchain

HERE = Path(__file__).parent
CONFORMANCE = HERE / "conformance"
ROOT = HERE.parents[1]
INSTALL_LIMIT_S = 120
"""For 10 MB from an index; measured 2 s."""


def source(name: str) -> bytes:
    """The script itself, for `source_type: direct`."""
    return (HERE / name).read_bytes()


def conformance(era: str = "dual") -> dict[str, Any]:
    """The `mcp_config` that deploys the conformance server as one of this era (`dual`, `legacy`, `modern`)."""
    folder = _for_any_user()
    return {"command": str(folder / "python/bin/python"), "args": [str(folder / CONFORMANCE.name), era]}


@functools.cache
def _for_any_user() -> Path:
    """The conformance server with a Python that has the SDK, where every user gets to them.

    The interpreter of the tests may be in somebody's home, and so may this checkout; instances run as other users.
    """
    folder = Path(tempfile.mkdtemp(prefix="corral-sdk-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    _uv("venv", "--python", str(_python_for_all()), str(folder / "python"))
    packages = ["--constraints", str(ROOT / "requirements-test.txt"), "mcp", "attrs"]
    # Compiled here, as nobody who runs it may write there.
    _uv("pip", "install", "--python", str(folder / "python"), "--compile-bytecode", *packages)
    shutil.copytree(CONFORMANCE, folder / CONFORMANCE.name)
    return folder


def _python_for_all() -> Path:
    own = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *toolchain.SYSTEM_PATH]
    others = [Path(folder) / f"python3.{minor}" for minor in (13, 12, 11, 14) for folder in folders]
    return next(python for python in (own, *others) if toolchain.is_reachable(python, by_others=True))


def _uv(*arguments: str) -> None:
    uv = str(Path(sys.prefix) / "bin/uv")
    subprocess.run([uv, "--quiet", *arguments], check=True, timeout=INSTALL_LIMIT_S)
