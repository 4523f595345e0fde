"""The bridge matrix: official clients of each era, servers of each era, and everything that they have to say."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest
from mcp.client import streamable_http

from tests.matrix.conftest import PRIVATE, SERVERS
from tests.matrix.cutter import Cut, cutting
from tests.matrix.outcomes import expected
from tests.matrix.plan import OF_THE_SDK, Plan, run

if TYPE_CHECKING:
    from tests.e2e.plane import Plane

pytestmark = [pytest.mark.network, *OF_THE_SDK]  # the fixture server's packages come from an index

RECONNECT_MS = 200
"""After which a client comes back; theirs is a second, which is long for a test."""
CUTS = {
    "legacy": (
        Cut(b'"step 5"'),
        Cut(b"Counted to 3", loses=True),
        Cut(b"elicitation/create", loses=True),
        Cut(b"resources/updated", loses=True),
    ),
    "modern": (Cut(b'"waiting"'),),
    "sse": (),
}
"""By the era of the client: in the middle of a call, and where its answer, a question or a piece of news gets lost."""


def assert_as_expected(outcomes: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Each feature came to what it must; says of each that did not what it came to."""
    wrong = [f for f, outcome in wanted.items() if outcomes.get(f) != outcome]
    assert not wrong, "\n".join(f"{f}: {outcomes.get(f)}\n  not {wanted[f]}" for f in wrong)
    assert outcomes.keys() == wanted.keys()


CLIENTS = (
    "python-legacy",
    "python-modern",
    "python-sse",
    "typescript-legacy",  # the SDK's first generation
    "typescript2-legacy",  # its second, as it is unless told otherwise
    "typescript2-modern",
)
WITH_SESSION = ("python-legacy", "python-sse", "typescript-legacy")
CELLS = [(client, server) for client in CLIENTS for server in SERVERS] + [(client, PRIVATE) for client in WITH_SESSION]


@pytest.mark.parametrize(
    ("client", "server"),
    [
        pytest.param(*cell, marks=[pytest.mark.needs("npm")] if cell[0].startswith("typescript") else [])
        for cell in CELLS
    ],
)
async def test_every_feature_comes_through(
    deployed: Plane, client: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamable_http, "DEFAULT_RECONNECTION_DELAY_MS", RECONNECT_MS)
    era = client.partition("-")[2]
    key = secrets.token_hex(8)
    wanted = expected(era, key)
    port = int(deployed.url.rpartition(":")[2])

    async with cutting(port, CUTS[era]) as cutter:
        url, cut_url = (f"{base}/mcp/{server}" for base in (deployed.url, cutter.url))
        outcomes = await run(Plan(client, url, deployed.token, tuple(wanted), key, cut_url))

    assert_as_expected(outcomes, wanted)
    assert not cutter.cuts, "a connection was not cut"
