"""The dashboard when what is between it and its control plane fails: cut, frozen, or answered by something else."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from tests.tui.cutting import wired
from tests.tui.driving import contexts_of, drive
from tui.panes.catalog import PANES

if TYPE_CHECKING:
    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver

BACK_S = 60.0
"""For the wire to be found mended: a hang guard."""
TABS = {name: str(place) for place, name in enumerate(PANES, 1)}
DEEP = b"[" * 100_000


def http(status: str, kind: str, body: bytes) -> bytes:
    """A whole answer of a server that then hangs up."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


HTML = b"<html><h1>Bad gateway</h1><script>alert(1)</script>\x1b]52;c;aGk=\x07</html>"
ANSWERS = {
    "a page of a proxy": http("200 OK", "text/html", HTML),
    "a 502": http("502 Bad Gateway", "text/html", HTML),
    "truncated JSON": http("200 OK", "application/json", b'{"instances": [{"id": "x"'),
    "fewer bytes than said": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a torn head": b"HTTP/1.1 200",
    "nothing at all": b"",
    "JSON of another": http("200 OK", "application/json", b'{"ok": true}'),
    "a list": http("200 OK", "application/json", b'[1, "two", null]'),
    "a word": http("200 OK", "application/json", b'"hello"'),
    "too deep": http("200 OK", "application/json", DEEP),
    "not UTF-8": http("200 OK", "application/json", b'{"instances": "\xff\xfe"}'),
    "half a gzip": http("200 OK", "application/json\r\nContent-Encoding: gzip", b"\x1f\x8b\x08\x00garbage"),
    "a redirect": http("302 Found\r\nLocation: http://login.invalid/", "text/html", b""),
    "a stream of nonsense": http(
        "200 OK",
        "text/event-stream",
        b"data: {]\n\ndata: [1]\n\nid: \xc3\xa9\nevent: \x1b[2J\ndata: {}\n\n\xff\xfe:\n\n",
    ),
    "a stream of what is no event": http(
        "200 OK",
        "text/event-stream",
        b"".join(
            b"data: " + json.dumps({"type": kind} | more).encode() + b"\n\n"
            for kind in ("connected", "log", "gap", "wire", "status", "sample", "health", "deleted", "lagged", "told")
            for more in ({}, {"instance_id": 7, "data": [], "ts": "never", "seq": "x", "missed": {}}, {"data": None})
        ),
    ),
    "a stream without end of a line": http("200 OK", "text/event-stream", b"data: " + b"x" * 20_000_000),
    "a 401 of a proxy": http("401 Unauthorized", "text/html", HTML),
    "a 403 in JSON": http(
        "403 Forbidden", "application/problem+json", b'{"title": "\x1b[2J", "errors": 7, "code": []}'
    ),
    "a 500 with nothing": http("500 Internal Server Error", "text/plain", b""),
}
WORST = ("a page of a proxy", "JSON of another", "a list", "too deep", "a stream of what is no event")
"""Of these, the ones that every view is shown."""


@pytest.mark.parametrize("tab", TABS)
def test_a_wire_that_is_cut_under_a_tab_is_told_and_found_mended(fleet: Plane, tab: str) -> None:
    with wired(fleet.url) as wire:

        async def script(person: Driver) -> None:
            await person.sees("live", "alpha")
            await person.command("open alpha")
            await person.sees("fleet › alpha", "1 Overview")
            await person.press(TABS[tab])
            await person.sees(f"fleet › alpha › {tab}", "● running")
            await asyncio.to_thread(wire.cut)
            await person.sees("away for", "This is the last picture", "● running")
            await asyncio.to_thread(wire.mend)
            await person.sees("● live", within_s=BACK_S)
            await person.sees_not("away for", within_s=BACK_S)

        drive(contexts_of(fleet, url=wire.url), script)


def test_a_wire_that_freezes_is_found_silent_and_then_mended(fleet: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.client.ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.setattr("tui.client.SILENCE_S", 2.0)
    with wired(fleet.url) as wire:

        async def script(person: Driver) -> None:
            await person.sees("live", "alpha")
            await asyncio.to_thread(wire.freeze)
            await person.sees("away for", "is silent", "alpha", within_s=BACK_S)
            await person.press("enter", "2")
            await person.sees("fleet › alpha › logs", "away for")
            await asyncio.to_thread(wire.mend)
            await person.sees("● live", "● following", within_s=BACK_S)
            await person.sees_not("away for", within_s=BACK_S)

        drive(contexts_of(fleet, url=wire.url), script)


@pytest.mark.parametrize("what", WORST)
def test_whatever_answers_instead_is_told_in_words_until_the_control_plane_answers_again(
    fleet: Plane, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.plane.REFUSED_AGAIN_S", 0.5)
    with wired(fleet.url) as wire:

        async def script(person: Driver) -> None:
            await person.sees("live", "alpha")
            await asyncio.to_thread(wire.answer, ANSWERS[what])
            await person.until(lambda: not person.app.plane.board.link.is_live, "a link that is not live")
            await person.sees("alpha", "This is the last picture")
            for place in ("alerts", "timeline", "host", "usage", "tokens"):
                await person.command(place)
                await person.until(lambda place=place: person.app.screen.place == place, place)  # type: ignore[attr-defined, misc]
            await person.command("open alpha")
            await person.sees("fleet › alpha", "1 Overview")
            for tab, key in TABS.items():
                await person.press(key)
                await person.sees(f"fleet › alpha › {tab}")
                await person.press("ctrl+r")
            await person.command("fleet")
            await person.press("n")
            await asyncio.to_thread(wire.mend)
            await person.sees("● live", within_s=BACK_S)

        drive(contexts_of(fleet, url=wire.url), script)


@pytest.mark.parametrize("what", ANSWERS)
def test_whatever_answers_from_the_start_is_told_in_place_of_a_table(
    fleet: Plane, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.plane.REFUSED_AGAIN_S", 0.5)
    with wired(fleet.url) as wire:

        async def script(person: Driver) -> None:
            await person.until(lambda: person.app.plane.board.link.state in {"away", "refused"}, "a failure")
            await person.press("enter", "l", "s")
            await asyncio.to_thread(wire.mend)
            await person.sees("● live", "alpha", within_s=BACK_S)

        wire.answer(ANSWERS[what])
        drive(contexts_of(fleet, url=wire.url), script)
