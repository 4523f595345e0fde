"""What one of the official clients is to do with an endpoint, and the way to have it done."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from attrs import field, frozen

from tests import npm_packages
from tests.matrix import python_peer

HERE = Path(__file__).parent
OF_THE_SDK = (
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # to use it is the point
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),  # its HTTP library leaves them
)
"""Marks of tests that run the Python client: warnings that are the SDK's own."""
RUN_LIMIT_S = 180
"""For all features of one client; measured 4 s."""


@frozen
class Plan:
    """What is to be run, and where; `tool` and its arguments are what `one_call` calls.

    `kind` is the client: its language (and the generation of its SDK, from the second on), and the era that it prefers. `key` is what its calls are
    recognised by.
    """

    kind: str
    url: str
    token: str
    features: tuple[str, ...]
    key: str = "key"
    cut_url: str = ""
    tool: str = ""
    arguments: dict[str, Any] = field(factory=dict)

    @property
    def era(self) -> str:
        return self.kind.partition("-")[2]


async def run(plan: Plan) -> dict[str, Any]:
    """Return the outcome of each feature; of one that failed, how."""
    with trio.fail_after(RUN_LIMIT_S):
        return await (_typescript(plan) if plan.kind.startswith("typescript") else python_peer.run(plan))


async def _typescript(plan: Plan) -> dict[str, Any]:
    packages = await trio.to_thread.run_sync(npm_packages.installed, HERE / "clients", "clients")
    argument = json.dumps(attrs.asdict(plan) | {"era": plan.era, "packages": str(packages)})
    done = await trio.run_process(
        ["node", str(HERE / "driver.cjs"), argument],
        check=False,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
    )
    printed = done.stdout.decode()
    assert done.returncode == 0, printed
    said = [json.loads(line) for line in printed.splitlines()]
    return {one["feature"]: one.get("outcome", one.get("error")) for one in said}
