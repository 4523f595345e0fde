"""Processor time that a control group has counted: charged to the last process, however soon that was over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.model import Limits
from controlplane.spawn.cgroups import CpuCount
from controlplane.supervise.groupcpu import GroupCpu, Seen, used_us
from controlplane.supervise.sampler import Sampler
from tests.supervise.conftest import open_yard

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.parametrize(
    ("last", "now", "used"),
    [
        (None, Seen("a.1", CpuCount(7, 500)), 500),
        (Seen("a.1", CpuCount(7, 300)), Seen("a.1", CpuCount(7, 500)), 200),
        (Seen("a.1", CpuCount(7, 300)), Seen("a.1", CpuCount(8, 500)), 500),
        (Seen("a.1", CpuCount(7, 300)), Seen("a.2", CpuCount(9, 100)), 100),
        (Seen("a.1", CpuCount(7, 300)), Seen("a.1", CpuCount(7, 299)), 0),
    ],
    ids=["the first look", "the same group", "made anew", "another revision's", "never less than nothing"],
)
def test_a_group_counts_from_the_last_look_and_a_new_one_from_nothing(last: Seen | None, now: Seen, used: int) -> None:
    assert used_us(last, now) == used


def test_a_group_that_has_gone_adds_nothing_and_one_that_counts_nothing_says_nothing() -> None:
    class Kept:
        counts: dict[str, CpuCount] = {"a.1": CpuCount(7, 2_000_000)}  # noqa: RUF012

        def cpu_count(self, name: str, /) -> CpuCount | None:
            return self.counts.get(name)

        def usage(self, _name: str, /) -> None:
            return None

    groups, seen, names = Kept(), GroupCpu(), {"a": "a.1", "b": "b.1"}
    assert seen.since(groups, names) == {"a": 2.0}
    groups.counts = {}
    assert seen.since(groups, names) == {"a": 0.0}
    seen.keep({"b"})
    assert seen.since(groups, names) == {}
    assert seen.since(None, names) == {}


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
            usage = yard.around.groups.usage(name) if yard.around.groups else None
            assert count is not None
            assert usage is not None
            assert usage.cpu_us is not None
            assert 0 <= usage.cpu_us - count.used_us < 500_000
            assert runner.account.cpu_s == pytest.approx(count.used_us / 1e6, abs=0.5), "from its first moment on"
