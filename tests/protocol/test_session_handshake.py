"""Handshakes over real pipes: what is written, and when the session gives up waiting."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import trio

from controlplane.errors import InstanceCrashed
from controlplane.protocol.greeting import PROBE_TIMEOUT_S
from controlplane.protocol.handshake import Era
from controlplane.protocol.session import HandshakeRefused
from tests.protocol.conftest import WAIT_S, Talk

DISCOVERED = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}


async def test_the_probe_comes_first_and_carries_the_modern_envelope(talk: Talk) -> None:
    talk.nursery.start_soon(talk.session.shake_hands)

    probe = await talk.peer.hear()

    assert probe["method"] == "server/discover"
    assert set(probe["params"]["_meta"]) == {
        "io.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/clientCapabilities",
        "io.modelcontextprotocol/clientInfo",
    }
    assert talk.peer.heard_nothing()


@pytest.mark.parametrize(
    ("how", "era", "version"),
    [("legacy", Era.LEGACY, "2025-11-25"), ("modern", Era.MODERN, "2026-07-28"), ("bare", Era.BARE, None)],
)
async def test_each_kind_of_server_is_recognised(talk: Talk, how: str, era: Era, version: str | None) -> None:
    await talk.shake_hands(how)

    assert talk.session.facts is not None
    assert (talk.session.facts.era, talk.session.facts.version) == (era, version)
    assert talk.peer.heard_nothing()


async def test_a_server_that_ignores_the_probe_is_asked_to_initialize(
    talk: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    talk.nursery.start_soon(talk.session.shake_hands)
    await talk.peer.hear()
    with trio.fail_after(2 * PROBE_TIMEOUT_S):
        while not await readable(talk):
            pass
    initialize = await talk.peer.hear()

    assert initialize["method"] == "initialize"
    assert trio.current_time() - began == pytest.approx(PROBE_TIMEOUT_S)
    await talk.peer.answer(initialize, {"protocolVersion": "2024-11-05"})
    assert (await talk.peer.hear())["method"] == "notifications/initialized"


async def readable(talk: Talk) -> bool:
    with trio.move_on_after(PROBE_TIMEOUT_S / 2):
        await trio.lowlevel.wait_readable(talk.peer.stdin.reads)
        return True
    return False


@pytest.mark.parametrize("babble", [1, 40])
async def test_babble_before_the_answer_hides_nothing(talk: Talk, babble: int) -> None:
    async def serve() -> None:
        probe = await talk.peer.hear()
        lines = [{"jsonrpc": "2.0", "id": 1000 + n, "result": {}} for n in range(babble)]
        lines.append({"jsonrpc": "2.0", "id": probe["id"], "result": DISCOVERED})
        await talk.peer.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            facts = await talk.session.shake_hands()
    assert facts.era is Era.MODERN


async def test_babble_does_not_end_the_wait_for_the_probe(talk: Talk, autojump_clock: trio.testing.MockClock) -> None:
    async def serve() -> None:
        await talk.peer.hear()
        await talk.peer.say({"jsonrpc": "2.0", "id": 99, "result": {}})
        while not await readable(talk):
            pass
        await talk.peer.answer(await talk.peer.hear(), {"protocolVersion": "2025-11-25"})

    with trio.fail_after(3 * PROBE_TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            facts = await talk.session.shake_hands()
    assert facts.era is Era.LEGACY


async def test_a_late_answer_to_the_probe_still_counts(talk: Talk, autojump_clock: trio.testing.MockClock) -> None:
    async def serve() -> None:
        probe = await talk.peer.hear()
        while not await readable(talk):
            pass
        initialize = await talk.peer.hear()
        await talk.peer.answer(probe, DISCOVERED)
        await talk.peer.refuse(initialize, -32022)

    with trio.fail_after(3 * PROBE_TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            facts = await talk.session.shake_hands()
    assert facts.era is Era.MODERN
    assert talk.peer.heard_nothing()


async def test_a_refusal_is_said_in_a_sentence(talk: Talk) -> None:
    async def serve() -> None:
        await talk.peer.refuse(await talk.peer.hear(), -32022, data={"supported": ["2027-01-01"]})

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with pytest.raises(HandshakeRefused, match=r"it offers: 2027-01-01"):
                await talk.session.shake_hands()


async def test_what_a_server_prints_and_asks_before_its_answer_is_heard(talk: Talk) -> None:
    async def serve() -> None:
        probe = await talk.peer.hear()
        await talk.peer.say(b"npm warn deprecated")
        await talk.peer.say(b'{"level":"error","error":"just a log line"}')
        await talk.peer.say({"method": "notifications/message", "params": {}})
        await talk.peer.say({"id": 1, "method": "ping"})
        assert await talk.peer.hear() == {"jsonrpc": "2.0", "id": 1, "result": {}}
        await talk.peer.answer(probe, DISCOVERED)

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            facts = await talk.session.shake_hands()
    assert facts.era is Era.MODERN
    assert talk.ears.noise == [b"npm warn deprecated", b'{"level":"error","error":"just a log line"}']
    assert talk.ears.notifications == [("notifications/message", b"{}")]


@pytest.mark.parametrize("end", ["stdin", "stdout"])
async def test_a_server_that_ends_during_its_handshake_breaks_the_session(talk: Talk, end: str) -> None:
    if end == "stdin":
        talk.peer.stdin.close_reads()
    else:
        talk.peer.stdout.close_writes()

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_to_shake_hands, talk)
            await talk.session.broken.wait()
            nursery.cancel_scope.cancel()

    assert talk.session.broken_reason == f"the server closed its {end}"


async def try_to_shake_hands(talk: Talk) -> None:
    with suppress(InstanceCrashed):
        await talk.session.shake_hands()
