"""The official conformance suite, through Corral, against a server of each era: each client era meets each server era."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance import official
from tests.conformance.conftest import ERAS
from tests.conformance.expectations import CANNOT, OUT_OF_SCOPE, REQUIRED
from tests.conformance.forwarder import forwarding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conformance.official import Report
    from tests.e2e.plane import Plane

pytestmark = [pytest.mark.network, pytest.mark.needs("npm")]


DECLARED: tuple[dict[str, Any], ...] = (
    {},
    {"elicitation": {}},
    {"sampling": {}},
    {"elicitation": {}, "roots": {"listChanged": True}, "sampling": {}},
)
"""What the suite's clients can do, scenario by scenario."""


HOT_REQUESTS = "corral_http_hot_requests_total"
SLOWER_DOOR = "TE: trailers"
"""Says nothing that matters, and is more than Corral's own reader of requests wants to know: Hypercorn gets it."""


@asynccontextmanager
async def endpoint(plane: Plane, era: str, *fields: str) -> AsyncIterator[str]:
    """The URL of an instance's MCP endpoint, for a client that sends no token."""
    async with forwarding(int(plane.url.rpartition(":")[2]), plane.token, *fields) as url:
        yield f"{url}/mcp/{era}"


def warm(plane: Plane, era: str) -> None:
    """Call the server once for each set of capabilities that the suite declares.

    Corral starts a process for a set when it is first declared to it; the suite waits half a second for some answers.
    """
    for capabilities in DECLARED:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        }
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "test_simple_text", "arguments": {}, "_meta": meta},
        }
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": "test_simple_text",
        }
        answer = plane.request("POST", f"/mcp/{era}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text


def assert_passed(report: Report, era: str, revision: str) -> None:
    """All that can pass has, and what cannot has not."""
    cannot = CANNOT.get((era, revision), {}).keys() & report.scenarios.keys()
    wrong = report.not_passed - OUT_OF_SCOPE - cannot
    assert not wrong, "\n".join(line for name in sorted(wrong) for line in report.complaints(name))
    assert cannot <= report.not_passed, "listed among what cannot pass, and it did"


@pytest.mark.parametrize("revision", REQUIRED)
@pytest.mark.parametrize("era", ERAS)
async def test_it_passes_what_a_revision_requires_and_the_rest(deployed: Plane, era: str, revision: str) -> None:
    warm(deployed, era)
    async with endpoint(deployed, era) as url:
        report = await official.run(official.NEXT, url, "--requirements", revision)

    assert_passed(report, era, revision)
    assert report.scored == REQUIRED[revision]
    if not CANNOT.get((era, revision)):
        assert report.status == 0, "the suite itself counts something as failed"


@pytest.mark.parametrize("revision", REQUIRED)
async def test_it_passes_it_through_the_slower_door_as_well(deployed: Plane, revision: str) -> None:
    before = deployed.metric(HOT_REQUESTS)
    async with endpoint(deployed, "dual", SLOWER_DOOR) as url:
        report = await official.run(official.NEXT, url, "--requirements", revision)

    assert_passed(report, "dual", revision)
    assert report.scored == REQUIRED[revision]
    assert report.status == 0
    came_the_other_way = deployed.metric(HOT_REQUESTS) - before  # a few of the test before end and are counted only now
    assert came_the_other_way < len(report.scenarios), "each scenario makes several requests"


@pytest.mark.parametrize("era", ERAS)
async def test_it_passes_the_revision_before(deployed: Plane, era: str) -> None:
    async with endpoint(deployed, era) as url:
        report = await official.run(official.NEXT, url, "--suite", "all", "--spec-version", "2025-06-18")

    assert_passed(report, era, "2025-06-18")
    assert len(report.scenarios) == 27


@pytest.mark.parametrize("era", ERAS)
async def test_it_passes_the_suite_that_is_the_latest_on_npm(deployed: Plane, era: str) -> None:
    async with endpoint(deployed, era) as url:
        report = await official.run(official.LATEST, url, "--suite", "all")

    assert_passed(report, era, "2025-11-25")
    assert len(report.scenarios) == 32
