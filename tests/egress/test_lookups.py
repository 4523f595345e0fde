"""Look-ups for many sandboxes, with a resolver that hangs: nobody's can stop another's."""

from __future__ import annotations

import socket
import threading
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field

from controlplane.egress.lookups import MAX_PLACES, OWN_PLACES, SHARED_PLACES, Busy, Lookups, Unknown, may_begin
from controlplane.egress.outside import Outside, Refused
from controlplane.egress.policy import Policy
from tests.egress.sandbox import GREETING, TIMEOUT_S, greeter

LIMIT_S = 10.0
FOUND = ("93.184.216.34",)


@define
class Hanging:
    """A resolver that knows any name, and is silent about those below `hang.test` until it is let go."""

    asked: list[str] = field(factory=list)
    let_go: trio.Event = field(factory=trio.Event)

    async def __call__(self, host: str, *_rest: Any, **_options: Any) -> list[Any]:
        self.asked.append(host)
        if host.endswith("hang.test"):
            await self.let_go.wait()
        if host.startswith("no."):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 0)) for address in FOUND]


async def outcome(lookups: Lookups, sandbox: str, name: str, into: list[Any]) -> None:
    try:
        into.append(await lookups.addresses(sandbox, name, LIMIT_S))
    except (OSError, Unknown) as failure:
        into.append(type(failure))


async def ask(lookups: Lookups, sandbox: str, *names: str) -> list[Any]:
    """What becomes of look-ups at once, in any order."""
    outcomes: list[Any] = []
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(outcome, lookups, sandbox, name, outcomes)
    return outcomes


def hanging(count: int, of: str = "a") -> list[str]:
    return [f"{number}.{of}.hang.test" for number in range(count)]


async def test_a_look_up_under_way_is_shared_by_all_who_ask_and_its_answer_stands_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    resolver = Hanging()
    lookups = Lookups(resolver)
    async with trio.open_nursery() as nursery:
        got: list[Any] = []
        for number in range(50):
            nursery.start_soon(outcome, lookups, f"sandbox {number % 2}", "one.hang.test", got)
        await trio.testing.wait_all_tasks_blocked()
        resolver.let_go.set()
    assert got == [FOUND] * 50
    assert await ask(lookups, "another", "one.hang.test") == [FOUND]
    assert resolver.asked == ["one.hang.test"]


async def test_a_name_that_nobody_has_is_told_to_all_who_wait_and_asked_for_anew() -> None:
    resolver = Hanging()
    lookups = Lookups(resolver)
    assert await ask(lookups, "a", "no.such.test", "no.such.test") == [Unknown, Unknown]
    assert await ask(lookups, "a", "no.such.test") == [Unknown]
    assert resolver.asked == ["no.such.test"] * 2


async def test_a_place_is_held_until_the_look_up_ends_however_long_ago_it_was_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    resolver = Hanging()
    lookups = Lookups(resolver)
    first = await ask(lookups, "a", *hanging(30))
    assert (first.count(TimeoutError), first.count(Busy)) == (MAX_PLACES, 30 - MAX_PLACES)
    assert await ask(lookups, "a", *hanging(30, of="b"), "fine.test") == [Busy] * 31
    assert len(resolver.asked) == MAX_PLACES
    assert await ask(lookups, "neighbour", "fine.test") == [FOUND]

    resolver.let_go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert await ask(lookups, "a", *hanging(30, of="c")) == [FOUND] * 30
    assert (lookups._held, lookups._borrowed, lookups._waiting, lookups._flying) == ({}, 0, {}, {})


async def test_more_look_ups_than_places_take_turns() -> None:
    resolver = Hanging()
    assert await ask(Lookups(resolver), "a", *(f"{number}.test" for number in range(100))) == [FOUND] * 100
    assert len(resolver.asked) == 100


async def test_who_waits_for_a_place_is_served_when_a_name_lands_that_others_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    resolver = Hanging()
    lookups = Lookups(resolver)
    async with trio.open_nursery() as nursery:
        got: list[Any] = []
        for names in (hanging(MAX_PLACES), ("same.test", "same.test", "other.test")):
            for name in names:
                nursery.start_soon(outcome, lookups, "a", name, got)
            await trio.testing.wait_all_tasks_blocked()
        assert got == []
        resolver.let_go.set()
    assert got == [FOUND] * (MAX_PLACES + 3)
    assert resolver.asked.count("same.test") == 1


async def test_two_hundred_sandboxes_that_want_all_there_is_leave_a_place_for_every_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    resolver = Hanging()
    lookups = Lookups(resolver)
    greedy = 200
    async with trio.open_nursery() as nursery:
        for number in range(greedy):
            nursery.start_soon(partial(ask, lookups, f"greedy {number}", *hanging(20, of=f"{number}")))
    assert len(resolver.asked) <= SHARED_PLACES + greedy * OWN_PLACES
    for number in range(50):
        assert await ask(lookups, f"fair {number}", f"{number}.test", f"{number}.other.test") == [FOUND] * 2


@pytest.mark.parametrize(
    ("held", "free", "is_so"),
    [
        (0, 0, True),
        (OWN_PLACES - 1, 0, True),
        (OWN_PLACES, 0, False),
        (OWN_PLACES, 1, True),
        (OWN_PLACES + 3, 3, False),
        (OWN_PLACES + 3, 4, True),
        (MAX_PLACES - 1, SHARED_PLACES, True),
        (MAX_PLACES, SHARED_PLACES, False),
    ],
)
def test_a_sandbox_borrows_fewer_places_than_are_free(held: int, free: int, is_so: bool) -> None:
    assert may_begin(held, free) == is_so


async def test_threads_that_hang_for_one_sandbox_are_few_and_stop_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.egress.outside.RESOLVE_LIMIT_S", 0.05)
    let_go = threading.Event()
    at_it: list[str] = []

    def resolve(host: str) -> list[Any]:
        at_it.append(host)
        let_go.wait(TIMEOUT_S)
        return []

    async def stalling(host: str, *_rest: Any, **_options: Any) -> list[Any]:
        if host == "fine.test":
            return await trio.to_thread.run_sync(lambda: [(0, 0, 0, "", (FOUND[0], 0))])
        return await trio.to_thread.run_sync(resolve, host, abandon_on_cancel=True)

    outside = Outside(lookups=Lookups(stalling))

    async def connect(name: str) -> None:
        with pytest.raises(OSError, match="looked up"):
            await outside.connect_by_name("hostile", Policy(), name, 443)

    try:
        with trio.fail_after(TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for name in hanging(256):
                    nursery.start_soon(connect, name)
            monkeypatch.setattr("controlplane.egress.outside.RESOLVE_LIMIT_S", float(TIMEOUT_S))
            assert await outside.look_up("neighbour", Policy(), "fine.test") == FOUND
        assert len(at_it) == MAX_PLACES
    finally:
        let_go.set()


async def test_a_connection_that_is_refused_asks_nobody_and_tries_what_the_look_up_found() -> None:
    resolver = Hanging()
    outside = Outside(lookups=Lookups(resolver))
    async with greeter("127.0.0.3") as port:
        policy = Policy(allow_private=(f"two.hang.test:{port}",))
        found = ("127.0.0.2", "169.254.1.1", "127.0.0.3")
        with trio.fail_after(TIMEOUT_S):
            stream = await outside.connect("a", policy, "127.0.0.2", port, names=("two.hang.test",), others=found)
            async with stream:
                await stream.send_eof()
                assert await stream.receive_some(99) == GREETING
            for names, others in ((("two.hang.test",), found[:2]), (("two.hang.test", "b.test"), found), ((), found)):
                with pytest.raises((ConnectionRefusedError, Refused)):
                    await outside.connect("a", policy, "127.0.0.2", port, names=names, others=others)
    assert resolver.asked == []


async def test_the_name_of_a_proxy_is_looked_up_once_for_all_connections(
    autojump_clock: trio.testing.MockClock,
) -> None:
    resolver = Hanging()
    outside = Outside({"HTTPS_PROXY": "http://proxy.hang.test:3128"}, Lookups(resolver))

    async def connect() -> None:
        with pytest.raises(TimeoutError):
            await outside.connect("a", Policy(), "93.184.216.34", 443)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(connect)
    assert resolver.asked == ["proxy.hang.test"]


async def test_behind_a_proxy_a_name_that_found_no_place_is_asked_for_when_there_is_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    resolver = Hanging()
    outside = Outside({"HTTPS_PROXY": "http://127.0.0.1:3128"}, Lookups(resolver))
    await ask(outside.lookups, "a", *hanging(MAX_PLACES))
    assert await outside.look_up("a", Policy(), "fine.test") == ()
    assert await outside.look_up("neighbour", Policy(), "fine.test") == FOUND
