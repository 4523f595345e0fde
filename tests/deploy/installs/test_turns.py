"""One piece of work for all who want it, whoever of them leaves; and one who is alone where others are many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from controlplane.deploy.installs.turns import Flights, Gate
from controlplane.errors import BuildFailed, ShuttingDown


@define
class Work:
    """Takes ten virtual seconds, and five more to wind down when it is cancelled."""

    error: Exception | None = None
    begun: int = 0
    ended: int = 0
    cancelled: int = 0
    log: list[str] = field(factory=list)

    async def __call__(self) -> str:
        self.begun += 1
        number = self.begun
        self.log.append(f"{number} begins")
        try:
            await trio.sleep(10)
        except trio.Cancelled:
            self.cancelled += 1
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            raise
        finally:
            self.log.append(f"{number} ends")
        self.ended += 1
        if self.error is not None:
            raise self.error
        return f"result {number}"


def run(main: Callable[[trio.Nursery, Flights[str, str]], Awaitable[None]]) -> None:
    async def within() -> None:
        async with trio.open_nursery() as nursery:
            await main(nursery, Flights(nursery))

    trio.run(within, clock=MockClock(autojump_threshold=0))


def test_all_who_come_while_it_is_under_way_get_its_one_result() -> None:
    work, got = Work(), []

    async def main(nursery: trio.Nursery, flights: Flights[str, str]) -> None:
        async def ask(after_s: float) -> None:
            await trio.sleep(after_s)
            got.append((await flights.join("k", work), trio.current_time()))

        began = trio.current_time()
        async with trio.open_nursery() as asking:
            for number in range(10):
                asking.start_soon(ask, number * 0.9)
        assert {at - began for _, at in got} == {10.0}
        assert not flights.under_way()

    run(main)

    assert [result for result, _ in got] == ["result 1"] * 10
    assert work.begun == 1


def test_other_keys_do_not_wait() -> None:
    async def main(nursery: trio.Nursery, flights: Flights[str, str]) -> None:
        async with trio.open_nursery() as asking:
            for name in ("a", "b", "c"):
                asking.start_soon(flights.join, name, Work())
            await wait_all_tasks_blocked()
            assert flights.under_way() == {"a", "b", "c"}
        assert trio.current_time() == pytest.approx(10, abs=1)

    run(main)


def test_its_failure_is_everybodys_and_everybody_has_an_error_of_their_own() -> None:
    work = Work(error=BuildFailed("no", evidence={"exit_code": 1}))
    failures: list[BuildFailed] = []

    async def main(nursery: trio.Nursery, flights: Flights[str, str]) -> None:
        async def ask() -> None:
            with pytest.raises(BuildFailed, match=r"^no$") as caught:
                await flights.join("k", work)
            failures.append(caught.value)

        async with trio.open_nursery() as asking:
            for _ in range(3):
                asking.start_soon(ask)
        work.error = None
        assert await flights.join("k", work) == "result 2", "a failure is not remembered"

    run(main)

    assert [failure.evidence for failure in failures] == [{"exit_code": 1}] * 3
    assert len({id(failure) for failure in failures}) == 3


def test_a_bug_in_it_reaches_who_waits_and_harms_nobody_else() -> None:
    async def main(nursery: trio.Nursery, flights: Flights[str, str]) -> None:
        with pytest.raises(ZeroDivisionError):
            await flights.join("k", Work(error=ZeroDivisionError()))
        assert await flights.join("k", Work()) == "result 1"

    run(main)


def test_who_asked_first_may_leave_and_the_others_get_it() -> None:
    work, got = Work(), []

    async def main(nursery: trio.Nursery, flights: Flights[str, str]) -> None:
        async def ask() -> None:
            got.append(await flights.join("k", work))

        with trio.move_on_after(3):
            async with trio.open_nursery() as first:
                first.start_soon(ask)
                await wait_all_tasks_blocked()
                nursery.start_soon(ask)
        assert not got
        assert flights.under_way() == {"k"}

    run(main)

    assert got == ["result 1"]
    assert (work.begun, work.cancelled) == (1, 0)


def test_it_is_cancelled_with_the_last_who_waits() -> None:
    work = Work()

    async def main(nursery: trio.Nursery, flights: Flights[str, str]) -> None:
        with trio.move_on_after(3):
            async with trio.open_nursery() as asking:
                for _ in range(3):
                    asking.start_soon(flights.join, "k", work)
        await wait_all_tasks_blocked()
        assert work.cancelled == 1

    run(main)

    assert (work.begun, work.ended) == (1, 0)


def test_who_comes_while_it_winds_down_has_it_done_anew_after_that() -> None:
    work = Work()

    async def main(nursery: trio.Nursery, flights: Flights[str, str]) -> None:
        with trio.move_on_after(3):
            await flights.join("k", work)
        results = []

        async def ask() -> None:
            results.append(await flights.join("k", work))

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            asking.start_soon(ask)
        assert results == ["result 2"] * 2

    run(main)

    assert work.log == ["1 begins", "1 ends", "2 begins", "2 ends"]


def test_who_waits_when_the_nursery_ends_is_told_so() -> None:
    told = []

    async def main(nursery: trio.Nursery, flights: Flights[str, str]) -> None:
        async with trio.open_nursery() as builds:
            inner: Flights[str, str] = Flights(builds)

            async def ask() -> None:
                with pytest.raises(ShuttingDown):
                    await inner.join("k", Work())
                told.append("yes")

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            builds.cancel_scope.cancel()

    run(main)

    assert told == ["yes"]


def test_many_share_a_gate_and_who_is_alone_waits_for_them_and_keeps_others_out() -> None:
    log: list[str] = []

    async def main() -> None:
        gate = Gate()

        async def share(name: str, begin_s: float, for_s: float) -> None:
            await trio.sleep(begin_s)
            async with gate.shared():
                log.append(f"{name} in")
                await trio.sleep(for_s)
                log.append(f"{name} out")

        async def be_alone() -> None:
            await trio.sleep(1)
            async with gate.alone():
                log.append("alone in")
                await trio.sleep(5)
                log.append("alone out")

        assert gate.is_open
        async with trio.open_nursery() as nursery:
            nursery.start_soon(share, "a", 0, 2)
            nursery.start_soon(share, "b", 0.5, 3)
            nursery.start_soon(be_alone)
            nursery.start_soon(share, "c", 1.5, 1)
            await trio.sleep(1.2)
            assert not gate.is_open
        assert gate.is_open

    trio.run(main, clock=MockClock(autojump_threshold=0))

    assert log == ["a in", "b in", "a out", "b out", "alone in", "alone out", "c in", "c out"]


def test_who_gives_up_waiting_for_a_gate_leaves_it_open() -> None:
    async def main() -> None:
        gate = Gate()
        async with gate.shared():
            with trio.move_on_after(1) as gave_up:
                async with gate.alone():
                    raise AssertionError("two at once")
            assert gave_up.cancelled_caught
            async with gate.shared():
                pass
        async with gate.alone():
            pass
        assert gate.is_open

    trio.run(main, clock=MockClock(autojump_threshold=0))
