"""The bridge matrix: official clients of each era, servers of each era, and everything that they have to say."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from mcp.client import streamable_http

from tests import npm_packages
from tests.matrix import python_peer
from tests.matrix.conftest import SERVERS
from tests.matrix.cutter import Cut, cutting
from tests.matrix.outcomes import expected
from tests.matrix.python_peer import Plan

if TYPE_CHECKING:
    from tests.e2e.plane import Plane

pytestmark = [
    pytest.mark.network,  # the fixture server's packages
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # to use it is the point
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),  # the client's HTTP library leaves them
]

HERE = Path(__file__).parent
RUN_LIMIT_S = 180
"""For all features of one client; measured 6 s."""
RECONNECT_MS = 200
"""After which a client comes back; theirs is a second, which is long for a test."""
CUTS = {
    "legacy": (Cut(b'"step 5"'), Cut(b"Counted to 3", loses=True), Cut(b"elicitation/create", loses=True)),
    "modern": (Cut(b'"waiting"'),),
    "sse": (),
}
"""By the era of the client: in the middle of a call, where its answer comes, and where the server asks something."""


async def typescript(plan: Plan) -> dict[str, Any]:
    """Run every feature with a TypeScript client."""
    packages = await trio.to_thread.run_sync(npm_packages.installed, HERE / "clients", "clients")
    era = plan.kind.removeprefix("typescript-")
    argument = json.dumps(attrs.asdict(plan) | {"era": era, "packages": str(packages)})
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = await trio.run_process(
        ["node", str(HERE / "driver.cjs"), argument],
        check=False,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    printed = done.stdout.decode()
    assert done.returncode == 0, printed
    said = [json.loads(line) for line in printed.splitlines()]
    return {one["feature"]: one.get("outcome", one.get("error")) for one in said}


def assert_as_expected(outcomes: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Each feature came to what it must; says of each that did not what it came to."""
    wrong = [f for f, outcome in wanted.items() if outcomes.get(f) != outcome]
    assert not wrong, "\n".join(f"{f}: {outcomes.get(f)}\n  not {wanted[f]}" for f in wrong)
    assert outcomes.keys() == wanted.keys()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    "client",
    [
        "python-legacy",
        "python-modern",
        "python-sse",
        pytest.param("typescript-legacy", marks=pytest.mark.needs("npm")),
        pytest.param("typescript-modern", marks=pytest.mark.needs("npm")),
    ],
)
async def test_every_feature_comes_through(
    deployed: Plane, client: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamable_http, "DEFAULT_RECONNECTION_DELAY_MS", RECONNECT_MS)
    era = client.partition("-")[2]
    key = secrets.token_hex(8)
    wanted = expected(era, key)
    drive = typescript if client.startswith("typescript") else python_peer.run
    port = int(deployed.url.rpartition(":")[2])

    with trio.fail_after(RUN_LIMIT_S):
        async with cutting(port, CUTS[era]) as cutter:
            url, cut_url = (f"{base}/mcp/{server}" for base in (deployed.url, cutter.url))
            outcomes = await drive(Plan(client, url, cut_url, deployed.token, key, tuple(wanted)))

    assert_as_expected(outcomes, wanted)
    assert not cutter.cuts, "a connection was not cut"
