"""What importing a part brings along, seen in a fresh interpreter: the contracts in pyproject.toml see no deferred import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 60
FOREIGN = ("trio", "trio_asyncio", "quart", "quart_trio", "hypercorn", "asyncpg", "redis", "psutil", "textual", "httpx")
"""What a pure package must not bring along, and what no command may wait for without need."""

LOADED = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print(*sorted(sys.modules))
"""
"""Import the modules named and everything below them, and say what is loaded."""


def loaded_by(*names: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "name",
    [
        "controlplane.core",
        "controlplane.errors",
        "controlplane.model",
        "controlplane.config",
        "controlplane.wire",
        "controlplane.protocol.handshake",
        "controlplane.protocol.dialect",
        "controlplane.protocol.routing",
        "controlplane.spawn.pool",
        "controlplane.egress.policy",
        "controlplane.egress.dns",
        "controlplane.egress.names",
        "controlplane.egress.notices",
        "runtimes",
    ],
)
def test_a_pure_package_brings_no_io_along(name: str) -> None:
    loaded = loaded_by(name)

    assert name in loaded
    assert loaded & set(FOREIGN) == set()


def test_runtimes_know_nothing_of_corral() -> None:
    assert {name for name in loaded_by("runtimes") if name.partition(".")[0] == "controlplane"} == set()


@pytest.mark.parametrize("name", ["controlplane.cli", "tui"])
def test_what_runs_in_a_terminal_never_loads_what_changes_asyncio_for_the_whole_process(name: str) -> None:
    loaded = loaded_by(name)

    assert name in loaded
    assert loaded & {"trio_asyncio", "asyncpg", "redis", "quart", "hypercorn"} == set()
    ours = {module.split(".")[1] for module in loaded if module.startswith("controlplane.")}
    assert ours <= {"cli", "core", "packing", "wire", "errors"}  # the payloads stand on what is pure


def test_the_package_itself_is_empty() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import controlplane, sys; print(*[n for n in sys.modules if n.startswith('controlplane')])",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )

    assert done.stdout.split() == ["controlplane"]
