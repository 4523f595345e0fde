"""Processor time that a control group has counted: charged to the last process, however soon that was over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from attrs import define

from controlplane.model import Limits
from controlplane.spawn.cgroups import CpuCount
from controlplane.supervise.groupcpu import EVERY_S, GroupCpu, Seen, is_due, used_us
from controlplane.supervise.sampler import Sampler
from tests.supervise.conftest import open_yard

if TYPE_CHECKING:
    from pathlib import Path

    from controlplane.spawn.cgroups import GroupLimits
    from controlplane.supervise.runner import Runner

LINKS = 12
LINK_S = 0.15
CHAIN = b"""
import json, os, sys, time

def chain(left):
    # Each link is its own session's, outlives its parent, and is over before long.
    if os.fork() == 0:
        os.setsid()
        if left:
            end = time.process_time() + 0.15
            while time.process_time() < end:
                pass
            chain(left - 1)
        else:
            os.write(writer, b".")
        os._exit(0)

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "chain", "version": "1"}}
    elif message["method"] == "tools/call":
        reader, writer = os.pipe()
        if os.fork() == 0:
            chain(message["params"]["arguments"]["links"])
            os._exit(0)
        os.wait()
        os.read(reader, 1)
        answer["result"] = {"content": []}
    else:
        answer["error"] = {"code": -32601, "message": "no such method"}
    print(json.dumps(answer), flush=True)
"""


def seen(used_us: int = 300, *, rests: bool = False) -> Seen:
    return Seen("a.1", CpuCount(7, used_us), ticks=5, at=100.0, rests=rests)


@define
class Counting:
    """One group, and what its counter says each time it is read."""

    used_us: list[int]

    def cpu_count(self, _name: str, /) -> CpuCount | None:
        return CpuCount(7, self.used_us.pop(0))

    def events(self, _name: str, /) -> None:
        return None

    def make(self, _name: str, _limits: GroupLimits, /) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("last", "group", "count", "used"),
    [
        (None, "a.1", CpuCount(7, 500), 500),
        (seen(300), "a.1", CpuCount(7, 500), 200),
        (seen(300), "a.1", CpuCount(8, 500), 500),
        (seen(300), "a.2", CpuCount(9, 100), 100),
        (seen(300), "a.1", CpuCount(7, 299), 0),
    ],
    ids=["the first look", "the same group", "made anew", "another revision's", "never less than nothing"],
)
def test_a_group_counts_from_the_last_look_and_a_new_one_from_nothing(
    last: Seen | None, group: str, count: CpuCount, used: int
) -> None:
    assert used_us(last, group, count) == used


@pytest.mark.parametrize(
    ("last", "group", "ticks", "passed_s", "due"),
    [
        (None, "a.1", 0, 0.0, True),
        (seen(rests=True), "a.1", 5, 1.0, False),
        (seen(rests=True), "a.1", 6, 1.0, True),
        (seen(rests=False), "a.1", 5, 1.0, True),
        (seen(rests=True), "a.2", 5, 1.0, True),
        (seen(rests=True), "a.1", 5, EVERY_S, True),
    ],
    ids=["the first look", "it rests", "its processes work", "it has worked", "another revision's", "in its turn"],
)
def test_a_counter_is_read_at_once_of_what_works_and_in_turn_of_what_rests(
    last: Seen | None, group: str, ticks: int, passed_s: float, due: bool
) -> None:
    assert is_due(last, group, ticks, 100.0 + passed_s) is due


def test_what_a_resting_group_uses_unseen_is_charged_whole_when_its_turn_comes() -> None:
    used_us = [500_000, 500_000, 900_000, 1_500_000, 1_500_000]
    groups, seen, names, ticks = Counting(used_us), GroupCpu(), {"a": "a.1"}, {"a": 50}
    assert [seen.since(groups, names, ticks, now) for now in (0.0, 1.0, 2.0, 5.0, 6.0, 7.0, 8.0)] == [
        {"a": 0.5},
        {"a": 0.0},
        {"a": None},
        {"a": None},
        {"a": 0.4},
        {"a": 0.6},
        {"a": 0.0},
    ]


def test_a_group_that_has_gone_adds_nothing_and_one_that_counts_nothing_says_nothing() -> None:
    class Kept:
        counts: dict[str, CpuCount] = {"a.1": CpuCount(7, 2_000_000)}  # noqa: RUF012

        def cpu_count(self, name: str, /) -> CpuCount | None:
            return self.counts.get(name)

        def events(self, _name: str, /) -> None:
            return None

        def make(self, _name: str, _limits: GroupLimits, /) -> None:
            raise AssertionError

    groups, seen, names = Kept(), GroupCpu(), {"a": "a.1", "b": "b.1"}
    assert seen.since(groups, names, {}, 1.0) == {"a": 2.0}
    groups.counts = {}
    assert seen.since(groups, names, {}, 2.0) == {"a": 0.0}
    seen.keep({"b"})
    assert seen.since(groups, names, {}, 3.0) == {}
    assert seen.since(None, names, {}, 4.0) == {}


async def run_chain(runner: Runner, sampler: Sampler) -> float:
    """Have it use time in processes that are soon over; says what its owner was charged meanwhile."""
    await sampler.sample()
    before = runner.account.cpu_s
    params = json.dumps({"name": "chain", "arguments": {"links": LINKS}}).encode()
    await runner.call("tools/call", params, timeout_s=50)
    await sampler.sample()
    return runner.account.cpu_s - before


@pytest.mark.needs("cgroups")
async def test_a_chain_of_orphans_that_are_soon_over_is_charged_to_the_last(yard_folder: Path, toolchain: Any) -> None:
    with trio.fail_after(90):
        async with open_yard(yard_folder, toolchain, with_groups=True) as yard:
            runner = await yard.running(CHAIN, limits=Limits(cpu_percent=100))
            sampler = Sampler(yard.supervisor, 1.0)
            charged = await run_chain(runner, sampler)
            assert charged > LINKS * LINK_S * 0.95
            sample = runner.last_sample
            assert sample is not None
            assert sample.interval_s is not None
            assert sample.cpu_percent / 100 * sample.interval_s == pytest.approx(charged, rel=0.05)
            name = runner.launch.confinement.group.name if runner.launch and runner.launch.confinement.group else ""
            count = yard.around.groups.cpu_count(name) if yard.around.groups else None
            assert count is not None
            assert runner.account.cpu_s == pytest.approx(count.used_us / 1e6, abs=0.5), "from its first moment on"
