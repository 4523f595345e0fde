"""Servers that do not listen, do not leave or do not stop: their owner is told, neighbours are not disturbed."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import below, is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane

CALM_S = 60

HANDSHAKE = b"""
import json, os, signal, sys, time
def answer(message, result):
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
def shake_hands():
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "server/discover":
            error = {"code": -32601, "message": "?"}
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}), flush=True)
        elif message.get("method") == "initialize":
            answer(message, {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}})
        elif message.get("method") == "notifications/initialized":
            return
shake_hands()
"""
DEAF = HANDSHAKE + b"while True: time.sleep(60)"
STUBBORN = HANDSHAKE + b"signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(60)"
MUTE = HANDSHAKE + b"sys.stdin.readline()\nos.close(1)\nwhile True: time.sleep(60)"
STORMY = (
    HANDSHAKE
    + b"""
end, made = time.monotonic() + 60, 0
while time.monotonic() < end and made < 1500:
    try:
        if os.fork() == 0:
            os.setsid() if made % 2 else None
            time.sleep(60)
            os._exit(0)
        made += 1
    except OSError:
        time.sleep(0.05)
"""
)


@pytest.fixture
def yard(plane: Plane) -> Iterator[Plane]:
    """A control plane with a well-behaved neighbour, which must be so at the end too."""
    plane.deploy("neighbour")
    yield plane
    assert plane.tool("neighbour", "echo", text="undisturbed") == "undisturbed"
    for row in plane.instances():
        assert plane.request("DELETE", f"/instances/{row['name']}").status_code == 200
    plane.assert_no_orphans()


def test_calls_to_a_deaf_server_end_in_time_and_what_is_queued_is_bounded(yard: Plane) -> None:
    yard.deploy("deaf", DEAF)
    statuses: list[int] = []

    def call() -> None:
        params = {"padding": "x" * 2**20}
        statuses.append(yard.execute("deaf", "tools/call", params, timeout_s=2).status_code)

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(statuses) == 12
    assert set(statuses) <= {503, 504}
    assert 503 in statuses  # beyond 8 MiB


def test_a_server_stopped_by_a_signal_is_replaced_while_a_call_waits(yard: Plane) -> None:
    first = yard.deploy("frozen")["pid"]
    os.kill(first, signal.SIGSTOP)

    answer = yard.execute("frozen", "tools/call", {"name": "echo", "arguments": {"text": "?"}}, timeout_s=60)

    assert (answer.status_code, answer.json()["code"]) == (502, "instance_crashed")
    assert "stopped by a signal" in answer.json()["detail"]
    assert yard.wait_status("frozen", "running")["pid"] != first
    assert not is_alive(first)


def test_a_server_that_closes_its_stdout_is_replaced(yard: Plane) -> None:
    first = yard.deploy("mute", MUTE)["pid"]

    answer = yard.execute("mute", "ping", timeout_s=60)

    assert (answer.status_code, answer.json()["code"]) == (502, "instance_crashed")
    wait_until(lambda: not is_alive(first), CALM_S, "the mute process is gone")


def test_a_server_that_ignores_sigterm_is_gone_after_its_removal(yard: Plane) -> None:
    pid = yard.deploy("stubborn", STUBBORN)["pid"]

    assert yard.request("DELETE", "/instances/stubborn").status_code == 200

    assert not is_alive(pid)


def test_daemons_with_an_empty_environment_do_not_outlive_their_instance(yard: Plane) -> None:
    yard.deploy("spawner")
    pids = [*json.loads(yard.tool("spawner", "fork", n=5)), int(yard.tool("spawner", "daemon"))]
    assert all(is_alive(pid) for pid in pids)

    assert yard.request("DELETE", "/instances/spawner").status_code == 200

    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.needs("root")
def test_a_fork_storm_stays_within_its_limit_and_ends_with_its_instance(
    yard: Plane, figure: Callable[..., None]
) -> None:
    uid = owner(yard.deploy("stormy", STORMY)["pid"])

    def processes() -> int:
        return sum(p.is_live and owner(p.pid) == uid for p in below(yard.pid))

    wait_until(lambda: processes() > 100, CALM_S, "a storm")
    figure("processes at most", max(processes() for _ in range(20)))
    assert processes() <= 256
    assert yard.tool("neighbour", "echo", text="in the storm") == "in the storm"

    assert yard.request("DELETE", "/instances/stormy", timeout=CALM_S).status_code == 200
    assert processes() == 0


def owner(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1


def test_a_flood_on_stderr_costs_its_own_log_only(yard: Plane) -> None:
    yard.deploy("loud")

    for _ in range(5):
        yard.tool("loud", "spam", lines=20_000, word="x" * 200)

    assert yard.tool("loud", "echo", text="heard") == "heard"
    assert yard.tool("neighbour", "echo", text="heard too") == "heard too"

    def said() -> list[dict[str, str]]:
        yard.tool("loud", "spam", lines=1)  # the next line that passes tells what did not
        lines: list[dict[str, str]] = yard.get(
            "/instances/loud/logs", params={"q": "prints faster", "stream": "system"}
        )["logs"]
        return lines

    cut = wait_until(said, CALM_S, "the log says what was dropped")
    assert "dropped" in cut[0]["message"]
