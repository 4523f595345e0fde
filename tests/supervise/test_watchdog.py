"""What takes too much, or answers no more: real processes with small limits, looked at by a real sampler."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.core import liveness
from controlplane.core.lifecycle import State
from controlplane.core.restart import RestartPolicy
from controlplane.errors import CorralError, InstanceCrashed
from controlplane.model import Limits
from controlplane.protocol.handshake import Era
from controlplane.supervise import footprint, watchdog
from controlplane.supervise.sampler import Sampler
from controlplane.supervise.watchdog import Figures, Watch
from tests.supervise.test_burst import read_until

if TYPE_CHECKING:
    from controlplane.model import Evidence
    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard

MIB = 2**20
QUICK = RestartPolicy(base_delay_s=0.05, max_delay_s=0.1)
INTERVAL_S = 0.1
LIMIT_S = 30.0
"""Hang guard; what is waited for takes a few seconds."""
GREEDY = b"""
import json, os, subprocess, sys, threading, time

HELD = []

def text(value):
    return {"content": [{"type": "text", "text": str(value)}]}

def call(name, n=0):
    if name.startswith("hold"):
        HELD.extend(bytearray(b"x" * (1 << 20)) for _ in range(n))
    if name == "hold_on":
        time.sleep(60)
    if name == "open":
        HELD.extend(open(os.devnull) for _ in range(n))
    if name == "write":
        with open(os.path.join(os.environ["HOME"], str(time.time())), "wb") as file:
            file.write(b"x" * (n << 20))
    if name == "hide":
        at = os.open(os.environ["HOME"], os.O_RDONLY)
        for depth in range(45):
            os.mkdir("d" * 200, dir_fd=at)
            at = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        for name in "ab":
            os.write(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=at), b"x" * (n << 20))
    if name == "unlink":
        for name in "ab":
            path = os.path.join(os.environ["HOME"], name)
            HELD.append(os.open(path, os.O_CREAT | os.O_WRONLY))
            os.unlink(path)
            os.write(HELD[-1], b"x" * (n << 20))
    if name == "litter":
        for number in range(n):
            open(os.path.join(os.environ["HOME"], "empty%d" % number), "wb").close()
    if name == "threads":
        for _ in range(n):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    if name == "print":
        end = time.monotonic() + n
        while time.monotonic() < end:
            sys.stderr.write("a line that nobody needs\\n" * 1000)
            sys.stderr.flush()
    if name == "spin":
        end = time.monotonic() + n
        while time.monotonic() < end:
            pass
    if name == "sleep":
        time.sleep(n)
    if name == "child":
        HELD.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return text(HELD[-1].pid)
    return text(os.getpid())

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, params = message["method"], message.get("params") or {}
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "greedy", "version": "1"}}
    elif method == "tools/call":
        answer["result"] = call(params["name"], **params.get("arguments") or {})
    elif method == "ping":
        answer["result"] = {}
    else:
        answer["error"] = {"code": -32601, "message": "no such method"}
    sys.stdout.write(json.dumps(answer) + "\\n")
    sys.stdout.flush()
"""


async def do(runner: Runner, name: str, n: float = 0, timeout_s: float = LIMIT_S) -> str:
    """Call one of its tools."""
    params = json.dumps({"name": name, "arguments": {"n": n} if n else {}}).encode()
    member = await runner.call("tools/call", params, timeout_s=timeout_s)
    return str(json.loads(b"{%b}" % member)["result"]["content"][0]["text"])


async def overdo(runner: Runner, name: str, n: int) -> None:
    """The same; it may be ended before it has answered."""
    with suppress(InstanceCrashed):
        await do(runner, name, n)


async def until(looks: Any, what: str) -> Any:
    with trio.move_on_after(LIMIT_S):
        while not (found := looks()):
            await trio.sleep(0.02)
        return found
    pytest.fail(f"waited {LIMIT_S:g} s for {what}")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence counts ten times."""
    for name in ("PING_AFTER_S", "WARN_S", "GRACE_S", "KILL_MIN_S", "DEAF_S"):
        monkeypatch.setattr(liveness, name, getattr(liveness, name) / 10)
    monkeypatch.setattr(watchdog, "TIDY_S", 1.5)


@pytest.fixture
async def sampled(yard: Yard) -> Any:
    """The yard, and a sampler that looks at it ten times a second."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Sampler(yard.supervisor, INTERVAL_S).run)
        yield yard
        nursery.cancel_scope.cancel()


def mortem(runner: Runner, code: str) -> Evidence | None:
    last = runner.instance.last_error
    return last if last is not None and last.code == code else None


async def test_what_uses_far_too_much_memory_is_ended_at_once_and_serves_again(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, limits=Limits(memory_mb=64), restart=QUICK)
    before = runner.pid
    await overdo(runner, "hold", 120)
    found = await until(lambda: mortem(runner, "memory_limit"), "the post-mortem")
    assert " of 64 MiB of memory" in found.reason
    assert found.samples
    assert found.samples[-1]["memory_mb"] > 64
    assert found.peak_memory_mb > 64
    await until(lambda: runner.serving, "the next process")
    assert await do(runner, "pid") != str(before)


async def test_a_call_in_flight_when_memory_runs_out_is_told_why(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, limits=Limits(memory_mb=64), restart=QUICK)
    with pytest.raises(InstanceCrashed) as crash:
        await do(runner, "hold_on", 120)
    assert " of 64 MiB of memory" in str(crash.value)


async def test_what_uses_a_little_too_much_is_replaced_when_its_calls_are_answered(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, limits=Limits(memory_mb=100), restart=QUICK)
    before, used = runner.pid, (await until(lambda: runner.last_sample, "a sample")).memory_mb
    results: list[str] = []

    async def wait_for_it() -> None:
        results.append(await do(runner, "sleep", 1))

    async with trio.open_nursery() as nursery:
        await do(runner, "hold", int(103 - used))
        await until(lambda: runner.child is None or runner.child.condemned, "its retirement")
        nursery.start_soon(wait_for_it)
    found = await until(lambda: mortem(runner, "memory_limit"), "the post-mortem")
    assert "of 100 MiB of memory for 3 s" in found.reason
    assert results[0] != str(before)
    assert runner.instance.restarts == 1


async def test_calls_that_run_when_it_is_replaced_are_answered_by_the_old_process(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, restart=QUICK)
    child, results = runner.child, []
    assert child is not None

    async def sleep() -> None:
        results.append(await do(runner, "sleep", 1))

    async def come_later() -> None:
        results.append(await do(runner, "pid"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep)
        await until(lambda: child.session.pending, "the call")
        child.retire("the server uses too much", "memory_limit")
        await until(lambda: runner.child is None, "the end of its service")
        nursery.start_soon(come_later)
    assert results[0] == str(child.job.pid)
    assert results[1] != results[0]
    assert child.exit is not None
    assert child.exit.code == 0, "its stdin was closed, and it left by itself"


async def test_one_that_is_told_to_stop_while_it_drains_stops(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, restart=QUICK)
    assert runner.child is not None
    runner.child.retire("the server uses too much", "memory_limit")
    runner.want_stopped()
    await runner.wait_settled(LIMIT_S)
    assert runner.state is State.STOPPED


async def test_threads_count_as_processes_and_too_many_are_a_reason(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, limits=Limits(processes=20), restart=QUICK)
    await do(runner, "threads", 18)
    found = await until(lambda: mortem(runner, "process_limit"), "the post-mortem")
    assert "has 19 of 20 processes and threads for 10 s" in found.reason


async def test_open_files_are_counted_and_a_server_that_has_no_more_is_replaced(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, limits=Limits(open_files=128), restart=QUICK)
    await do(runner, "open", 124)
    found = await until(lambda: opened(runner), "the count")
    assert 120 < found <= 128
    event = await until(lambda: told(sampled, "files open in one process"), "the warning")
    assert event.startswith("watchdog: it has 12")
    ended = await until(lambda: mortem(runner, "open_files_limit"), "the post-mortem")
    assert "of 128 files open in one process for 10 s" in ended.reason


async def test_what_fills_the_disk_is_ended_again_and_again_until_it_rests(sampled: Yard) -> None:
    policy = RestartPolicy(base_delay_s=0.05, max_delay_s=0.1, burst=1)
    runner = await sampled.running(GREEDY, limits=Limits(disk_mb=24), restart=policy)
    for _ in range(2):
        await overdo(runner, "write", 20)
    found = await until(lambda: mortem(runner, "disk_limit"), "the post-mortem")
    assert "of 24 MiB of disk" in found.reason
    assert found.samples[-1]["disk_mb"] > 24
    await until(lambda: runner.state is State.FAILED, "its rest")
    assert runner.instance.last_error is not None
    assert runner.instance.last_error.code == "crash_loop"


@pytest.mark.parametrize("how", ["hide", "unlink"])
async def test_what_fills_the_disk_out_of_sight_is_ended_too(sampled: Yard, how: str) -> None:
    """Below a path that is too long, and in a file without a name."""
    runner = await sampled.running(GREEDY, limits=Limits(disk_mb=24), restart=QUICK)
    await overdo(runner, how, 20)
    found = await until(lambda: mortem(runner, "disk_limit"), "the post-mortem")
    assert "of 24 MiB of disk" in found.reason
    assert found.samples[-1]["disk_mb"] > 24


async def test_more_files_than_are_counted_are_over_the_disk_limit(
    sampled: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "ENTRIES_MAX", 500)
    monkeypatch.setattr(footprint, "WALK_EVERY_S", 0.2)
    runner = await sampled.running(GREEDY, restart=QUICK)
    await overdo(runner, "litter", 600)
    found = await until(lambda: mortem(runner, "disk_limit"), "the post-mortem")
    assert "the server has more than 500 files and folders, beyond which its disk is not counted" in found.reason


async def test_a_flood_of_output_is_told_once_and_the_server_is_left_alone(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, limits=Limits(log_kb_s=16), restart=QUICK)
    before = runner.pid
    await do(runner, "print", 8)
    assert told(sampled, "KiB/s for 5 s, of which 16 are kept")
    assert runner.pid == before
    assert len([line for line in sampled.journal.messages("system") if "KiB/s" in line]) == 1
    kept = sum(len(line.message) for line in sampled.journal.logs if line.stream == "stderr")
    assert kept < 16 * 1024 * 30


async def test_a_server_that_answers_neither_calls_nor_a_ping_is_replaced(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, limits=Limits(call_timeout_s=1.0), restart=QUICK)
    before = runner.pid
    with pytest.raises(CorralError):
        await do(runner, "sleep", 60, timeout_s=1.0)
    found = await until(lambda: mortem(runner, "hung"), "the post-mortem")
    assert "does not answer a ping" in found.reason
    assert told(sampled, "does not answer a ping")
    await until(lambda: runner.serving, "the next process")
    assert runner.pid != before


async def test_one_that_spins_instead_is_ended_for_that(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, limits=Limits(call_timeout_s=1.0, cpu_percent=20), restart=QUICK)
    with pytest.raises(CorralError):
        await do(runner, "spin", 60, timeout_s=1.0)
    found = await until(lambda: mortem(runner, "cpu_spin"), "the post-mortem")
    assert "it spins at" in found.reason


async def test_a_slow_call_within_its_time_is_waited_for(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, restart=QUICK)
    assert await do(runner, "sleep", 4) == str(runner.pid)
    assert runner.instance.last_error is None
    assert told(sampled, "does not answer a ping, while 1 call waits")
    await until(lambda: told(sampled, "answers again"), "the warning to be taken back")


async def test_a_frozen_server_is_replaced_whichever_process_of_it_stands_still(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, restart=QUICK)
    helper = int(await do(runner, "child"))
    os.kill(helper, signal.SIGSTOP)
    assert await do(runner, "sleep", 0.2) == str(runner.pid), "a helper that stands still harms nobody"
    assert runner.pid is not None
    os.kill(runner.pid, signal.SIGSTOP)
    with pytest.raises(InstanceCrashed) as crash:
        await do(runner, "pid")
    assert "stopped by a signal" in str(crash.value)
    found = await until(lambda: mortem(runner, "hung"), "the post-mortem")
    assert found.signal == "SIGKILL" or found.exit_code is None


async def test_the_event_has_the_numbers(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY, limits=Limits(memory_mb=64), restart=QUICK)
    with sampled.hub.subscribe(instance_id=runner.instance.id) as subscription, trio.fail_after(LIMIT_S):
        await overdo(runner, "hold", 120)
        events = await read_until(subscription, "watchdog", 1)
    event = next(event for event in events if event["type"] == "watchdog")
    members = {name: event[name] for name in ("what", "step", "limit", "unit")}
    assert members == {"what": "memory", "step": "kill", "limit": 64, "unit": "MiB"}
    assert event["value"] > event["limit"]
    assert event["reason"].startswith("uses ")


async def test_what_spins_for_long_gives_way_to_others_until_it_is_calm(yard: Yard) -> None:
    runner = await yard.running(GREEDY, limits=Limits(cpu_percent=50))
    watch = Watch(runner, runner.pid or 0)
    look = partial(watch.look, stopped={}, share_of=lambda _what, _child: 0.0)
    busy = Figures(memory_mb=10.0, cpu_percent=100.0, processes=1, threads=1)
    for second in range(31):
        look(busy, now=float(second))
    assert watch.nice == watchdog.NICE
    for second in range(31, 42):
        look(Figures(memory_mb=10.0, cpu_percent=1.0, processes=1, threads=1), now=float(second))
    assert watch.nice == 0
    assert runner.child is not None
    assert runner.child.condemned is None


async def test_threads_of_what_spins_are_reniced(sampled: Yard) -> None:
    runner = await sampled.running(GREEDY)
    await do(runner, "threads", 2)
    sampler = Sampler(sampled.supervisor, INTERVAL_S)
    await sampler.sample()
    sampler._pasts[str(runner.instance.id)].watch.nice = watchdog.NICE
    await sampler.sample()
    threads = [int(thread.name) for thread in Path(f"/proc/{runner.pid}/task").iterdir()]
    assert len(threads) == 3
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {watchdog.NICE}


async def test_a_server_without_ids_is_never_asked_whether_it_is_there(sampled: Yard) -> None:
    bare = b"""
import json, sys, time
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "tools/call":
        time.sleep(4)
    print(json.dumps({"result": {"seen": message.get("method")}}), flush=True)
"""
    runner = await sampled.running(bare)
    assert runner.protocol is not None
    assert runner.protocol.era is Era.BARE
    assert b"tools/call" in await runner.call("tools/call", b'{"name":"x"}', timeout_s=LIMIT_S)
    assert b"tools/list" in await runner.call("tools/list", None, timeout_s=LIMIT_S)


def opened(runner: Runner) -> int | None:
    """What the last sample says of open files, from the time on when there are many."""
    sample = runner.last_sample
    return sample.open_files if sample is not None and (sample.open_files or 0) > 100 else None


def told(yard: Yard, words: str) -> str | None:
    """The first line of the watchdog's with these words."""
    lines = [line for line in yard.journal.messages("system") if line.startswith("watchdog: ")]
    return next((line for line in lines if words in line), None)
