"""The fixture server alone: what the suite says through Corral counts only if it says the same without."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conformance import official
from tests.conformance.expectations import OUT_OF_SCOPE, REQUIRED
from tests.servers import CONFORMANCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FIXTURE = str(CONFORMANCE)
START_LIMIT_S = 30
"""Measured 1.5 s."""
END_LIMIT_S = 10
"""After its input has ended."""
ENVELOPE = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
HANDSHAKE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """The fixture over the SDK's own HTTP transport, which knows both eras."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.run_process, [sys.executable, FIXTURE, "--http", str(port)])
        with trio.fail_after(START_LIMIT_S):
            while True:
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    await trio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
        nursery.cancel_scope.cancel()


@pytest.mark.network
@pytest.mark.needs("npm")
@pytest.mark.parametrize("revision", REQUIRED)
async def test_it_passes_all_that_a_revision_requires_without_corral(suite: None, revision: str) -> None:
    async with served() as url:
        report = await official.run(official.NEXT, url, "--requirements", revision)

    polling = {"server-sse-polling"}  # the SDK's transport keeps no events unless told to
    assert report.not_passed - OUT_OF_SCOPE - polling == set()
    assert (report.status, report.scored) == (0, REQUIRED[revision])


def answers(era: str, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """What the fixture answers over stdio, one request after the other."""
    with subprocess.Popen([sys.executable, FIXTURE, era], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        found = []
        for number, request in enumerate(requests):
            server.stdin.write(json.dumps({"jsonrpc": "2.0", "id": number, **request}).encode() + b"\n")
            server.stdin.flush()
            found.append(json.loads(server.stdout.readline()))
        server.stdin.close()
        assert server.wait(END_LIMIT_S) == 0
    return found


def test_as_a_legacy_server_it_has_never_heard_of_the_modern_era() -> None:
    discovered, initialized = answers(
        "legacy",
        {"method": "server/discover", "params": {"_meta": ENVELOPE}},
        {"method": "initialize", "params": HANDSHAKE},
    )

    assert discovered["error"]["code"] == -32601
    assert initialized["result"]["protocolVersion"] == "2025-11-25"


def test_as_a_modern_server_it_knows_no_handshake() -> None:
    initialized, pinged, discovered = answers(
        "modern",
        {"method": "initialize", "params": HANDSHAKE},
        {"method": "ping"},
        {"method": "server/discover", "params": {"_meta": ENVELOPE}},
    )

    assert initialized["error"]["code"] == -32022
    assert pinged["error"]["code"] == -32602
    assert discovered["result"]["supportedVersions"] == ["2026-07-28"]
