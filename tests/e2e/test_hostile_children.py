"""Servers that will not read, answer, listen or leave: bounded, told, gone at the end, and no neighbour's business."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests import servers
from tests.e2e.load import canary, until
from tests.e2e.plane import below, is_alive, text_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.e2e.plane import Plane, Process

MIB = 2**20
REMOVE_S = 25
"""For a DELETE of whatever it is."""
MAX_PROCESSES = 256
"""The default of an instance."""
SERVICES = ("postgres", "valkey", "corral-egress")
in_thread = trio.to_thread.run_sync


@pytest.fixture(scope="module")
def yard(plane: Plane) -> Plane:
    """A control plane with one well-behaved server in it."""
    plane.deploy("neighbour")
    return plane


@pytest.fixture
def hostile(yard: Plane) -> Iterator[Callable[..., str]]:
    """Deploys a mode of `hostile.py`; at the end it is removed in time and nothing is left of it."""
    names: list[str] = []

    def deploy(mode: str) -> str:
        names.append(mode)
        yard.deploy(mode, f"MODE = {mode!r}\n".encode() + servers.source("hostile.py"))
        return mode

    yield deploy
    for name in names:
        if yard.request("GET", f"/instances/{name}").status_code == 200:
            assert_removable(yard, name)
    yard.assert_no_orphans()


def assert_removable(plane: Plane, name: str) -> None:
    """DELETE it: answered in time, and nothing that it ever started lives on."""
    others = {row["pid"] for row in plane.instances() if row["name"] != name and row["pid"]}
    began = time.monotonic()
    answer = plane.request("DELETE", f"/instances/{name}")
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began < REMOVE_S
    wait_until(lambda: not strays(plane, others), 5, f"the end of all that {name} had")


def with_offspring(pid: int) -> set[int]:
    return {pid, *(process.pid for process in below(pid))}


def strays(plane: Plane, others: set[int]) -> list[Process]:
    """Processes below the control plane that belong to none of these instances, no service and not to the spawner."""
    known = {pid for leader in others for pid in with_offspring(leader)}
    mine = below(plane.pid)
    known |= {process.pid for process in mine if process.ppid == plane.pid}
    return [p for p in mine if p.pid not in known and not p.command.startswith(SERVICES)]


def call(plane: Plane, name: str, timeout_s: float = 60) -> httpx.Response:
    return plane.execute(name, "tools/call", {"name": "x", "arguments": {}}, timeout_s=timeout_s)


# -- deaf, frozen, mute, shut


async def test_a_server_that_never_reads_costs_its_own_callers_only(
    yard: Plane, hostile: Callable[..., str], figure: Callable[..., None]
) -> None:
    await in_thread(hostile, "deaf")
    answers: list[tuple[int, str]] = []

    async def call_with_a_megabyte() -> None:
        body = {"method": "tools/call", "params": {"name": "x", "arguments": {"a": "x" * MIB}}, "timeout_s": 2}
        async with yard.aclient() as http:
            answer = await http.post("/mcp/deaf/execute", json=body)
        answers.append((answer.status_code, answer.json()["code"]))

    with trio.fail_after(60):
        began = trio.current_time()
        async with canary(yard, "neighbour") as bird, trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(call_with_a_megabyte)
        took_s = trio.current_time() - began

    assert set(answers) == {(504, "call_timeout"), (503, "busy")}
    assert 4 <= answers.count((503, "busy")) <= 5, "8 MiB may wait, and the pipe holds a little more"
    assert took_s < 20
    bird.assert_undisturbed()
    figure("12 callers with 1 MiB each and 2 s, all answered after", took_s, "s")


def test_a_frozen_server_is_replaced_when_calls_wait_for_it(yard: Plane, figure: Callable[..., None]) -> None:
    pid = yard.deploy("frozen")["pid"]
    os.kill(pid, signal.SIGSTOP)

    began = time.monotonic()
    answer = yard.execute("frozen", "tools/call", {"name": "pid"})
    told_s = time.monotonic() - began

    assert (answer.status_code, answer.json()["code"]) == (502, "instance_crashed")
    assert "stopped by a signal" in answer.json()["detail"]
    wait_until(lambda: yard.execute("frozen", "ping").status_code == 200, 60, "serving again")
    assert not is_alive(pid)
    figure("told after", told_s, "s")
    assert_removable(yard, "frozen")


@pytest.mark.parametrize(("mode", "what"), [("mute", "stdout"), ("shut", "stdin")])
def test_a_server_that_closes_a_stream_and_lives_on_is_replaced(
    yard: Plane, hostile: Callable[..., str], mode: str, what: str
) -> None:
    name = hostile(mode)
    pid = yard.instance(name)["pid"]

    first = call(yard, name)
    problem = (call(yard, name) if mode == "shut" and first.status_code == 200 else first).json()

    assert problem["code"] in ("instance_crashed", "instance_unavailable")
    failed = wait_until(lambda: yard.instance(name)["last_error"], 25, "its post-mortem")
    assert failed["reason"] == f"the server closed its {what}"
    wait_until(lambda: not is_alive(pid), 25, "the end of the old process")
    wait_until(lambda: yard.instance(name)["pid"] not in (None, pid), 60, "a new process")
    yard.wait_status(name, "running")


# -- those that will not leave


def test_a_server_that_ignores_every_signal_is_killed_in_the_end(
    yard: Plane, hostile: Callable[..., str], figure: Callable[..., None]
) -> None:
    name = hostile("stubborn")
    pid = yard.instance(name)["pid"]

    began = time.monotonic()
    stopped = yard.request("POST", f"/instances/{name}/stop?wait=60")

    assert (stopped.status_code, stopped.json()["status"]) == (200, "stopped")
    assert not is_alive(pid)
    figure("stopped after", time.monotonic() - began, "s")


def test_daemons_with_an_empty_environment_go_with_their_server(yard: Plane) -> None:
    yard.deploy("demons")
    pids = [int(yard.tool("demons", "daemon")) for _ in range(3)] + json.loads(yard.tool("demons", "fork", n=4))
    assert all(is_alive(pid) for pid in pids)

    assert_removable(yard, "demons")

    assert not any(is_alive(pid) for pid in pids)
    yard.assert_no_orphans()


def test_an_exit_is_noticed_though_a_grandchild_holds_the_streams_open(
    yard: Plane, hostile: Callable[..., str], figure: Callable[..., None]
) -> None:
    name = hostile("heir")
    pid = yard.instance(name)["pid"]

    began = time.monotonic()
    answer = call(yard, name)
    told_s = time.monotonic() - began

    assert (answer.status_code, answer.json()["exit_code"]) == (502, 5)
    assert yard.wait_status(name, "running")["pid"] != pid
    figure("told after", told_s, "s")


@pytest.mark.needs("root")
async def test_a_fork_storm_stays_within_its_bound_and_ends_with_its_server(
    yard: Plane, hostile: Callable[..., str], figure: Callable[..., None]
) -> None:
    await in_thread(hostile, "storm")
    pid = yard.instance("storm")["pid"]
    with trio.fail_after(120):
        async with canary(yard, "neighbour") as bird:
            born = int(text_of(await in_thread(call, yard, "storm")))
            alive = len(with_offspring(pid))
            await until(lambda: (yard.instance("storm")["processes"] or 0) >= born, 30, "a sample of them")
            began = trio.current_time()
            await in_thread(assert_removable, yard, "storm")
            removed_s = trio.current_time() - began

    assert 100 < born < MAX_PROCESSES
    assert alive <= MAX_PROCESSES
    bird.assert_undisturbed()
    figure("processes in the storm", born)
    figure("removed after", removed_s, "s")


# -- too much of everything


def test_a_server_gets_no_more_files_than_its_limit(yard: Plane, hostile: Callable[..., str]) -> None:
    name = hostile("grabby")

    assert 900 < int(text_of(call(yard, name))) <= 1024


async def test_a_flood_on_stderr_is_thinned_out_and_the_server_still_answers(
    yard: Plane, hostile: Callable[..., str], figure: Callable[..., None]
) -> None:
    before_mb = yard.get("/stats")["control_plane"]["memory_mb"]
    await in_thread(hostile, "flood")

    def dropped() -> bool:
        assert call(yard, "flood").status_code == 200
        lines = yard.get("/instances/flood/logs", params={"stream": "system", "q": "prints faster"})["logs"]
        return any(line["message"].startswith("dropped ") for line in lines)

    with trio.fail_after(120):
        async with canary(yard, "neighbour") as bird:
            for _ in range(20):
                assert (await in_thread(call, yard, "flood")).status_code == 200
            await in_thread(partial(wait_until, dropped, 60, "the mark in its log"))
    stats = yard.get("/stats")
    grown_mb = stats["control_plane"]["memory_mb"] - before_mb

    assert grown_mb < 128
    bird.assert_undisturbed()
    figure("memory grew by", float(grown_mb), "MiB")
    figure("lines not kept", stats["dropped"]["log_lines"])


async def test_a_line_without_an_end_is_skipped_and_costs_no_more_memory_than_it_may(
    yard: Plane, hostile: Callable[..., str], figure: Callable[..., None]
) -> None:
    await in_thread(hostile, "endless")
    forget_peak(yard.pid)
    before_mb = peak_mb(yard.pid)

    with trio.fail_after(120):
        async with canary(yard, "neighbour") as bird:
            answer = await in_thread(call, yard, "endless")
    grown_mb = peak_mb(yard.pid) - before_mb

    assert (answer.status_code, answer.json()["code"]) == (502, "bad_child_message")
    assert call(yard, "endless").status_code == 200
    assert grown_mb < 3 * 16 + 64
    bird.assert_undisturbed()
    figure("memory's peak grew by", float(grown_mb), "MiB")


def forget_peak(pid: int) -> None:
    """Count the most memory from now on; without the right to, it counts from the beginning."""
    with suppress(PermissionError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> int:
    """The most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.parametrize(("size", "what"), [(60_000, "argument"), (4 * MIB, "argument"), (8 * MIB, "answer")])
def test_large_messages_pass_whole(yard: Plane, size: int, what: str, figure: Callable[..., None]) -> None:
    began = time.monotonic()
    if what == "argument":
        sent = "".join(chr(33 + number % 90) for number in range(1000)) * (size // 1000)
        assert yard.tool("neighbour", "echo", text=sent) == sent
    else:
        assert yard.tool("neighbour", "big", size=size) == "x" * size
    figure(f"{what} of {size} bytes took", time.monotonic() - began, "s")
