"""Leftovers of an earlier life: found by the owner's marker, and nobody else touched."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio

from controlplane.spawn import proctree
from controlplane.spawn.client import open_spawner
from controlplane.spawn.link import open_link
from controlplane.spawn.sweep import sweep
from tests.spawn.children import DAEMON_WITH_MARKER, LIFE_S, PYTHON, live_of, names_of


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def sleeper(started: list[subprocess.Popen[bytes]], **env: str) -> subprocess.Popen[bytes]:
    started.append(subprocess.Popen(["/bin/sleep", str(LIFE_S)], env=env, start_new_session=True))
    return started[-1]


def test_processes_of_the_same_owner_are_killed_and_of_another_one_left_alone(
    started: list[subprocess.Popen[bytes]], marker: str
) -> None:
    ours = [sleeper(started, CORRAL_OWNER=marker, OTHER="x") for _ in range(3)]
    others = [
        sleeper(started, CORRAL_OWNER=secrets.token_hex(8)),
        sleeper(started, CORRAL_OWNER=marker + "0"),
        sleeper(started, CORRAL_OWNER=marker[:-1]),
        sleeper(started, XCORRAL_OWNER=marker),
        sleeper(started),
    ]
    assert sweep(marker) == 3
    assert [process.wait(5) for process in ours] == [-signal.SIGKILL] * 3
    assert [process.poll() for process in others] == [None] * 5
    assert sweep(marker) == 0


def test_what_descends_from_a_leftover_goes_with_it_whatever_its_environment(
    started: list[subprocess.Popen[bytes]], marker: str
) -> None:
    program = f"import os, subprocess; p = subprocess.Popen(['/bin/sleep', '{LIFE_S}'], env={{}}); print(p.pid, flush=True); p.wait()"
    process = subprocess.Popen([PYTHON, "-c", program], env={"CORRAL_OWNER": marker}, stdout=subprocess.PIPE)
    started.append(process)
    assert process.stdout is not None
    names = names_of([int(process.stdout.readline())])
    assert sweep(marker) == 2
    assert live_of(names) == []


async def test_a_daemon_whose_parents_are_gone_is_found(started: list[subprocess.Popen[bytes]], marker: str) -> None:
    process = subprocess.Popen([PYTHON, "-c", DAEMON_WITH_MARKER], env={"CORRAL_OWNER": marker}, stdout=subprocess.PIPE)
    started.append(process)
    assert process.stdout is not None
    names = names_of([int(process.stdout.readline())])
    process.kill()
    process.wait()
    with trio.fail_after(20):
        async with open_spawner(marker=marker):  # a start sweeps
            assert live_of(names) == []


async def test_an_earlier_spawner_is_found_though_nobody_may_read_its_environment(marker: str) -> None:
    link = open_link(marker)  # its control socket stays open: it does not end by itself
    other = open_link(secrets.token_hex(8))
    try:
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(link._socket)  # it is up
            await trio.lowlevel.wait_readable(other._socket)
        assert sweep(marker) == 1
        assert link._process.wait(5) == -signal.SIGKILL
        assert other._process.poll() is None
    finally:
        link._socket.close()
        link._process.wait(5)
        with trio.fail_after(10):
            await other.reap(0)


def test_this_process_and_its_parents_are_spared_though_they_carry_the_marker(
    started: list[subprocess.Popen[bytes]], marker: str
) -> None:
    program = f"from controlplane.spawn.sweep import sweep; print(sweep('{marker}'))"
    process = subprocess.run(
        ["sh", "-c", f'"$0" -c "{program}"; echo parent lives', sys.executable],
        env={**os.environ, "CORRAL_OWNER": marker, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert process.stdout == "0\nparent lives\n"


def test_a_reused_pid_is_never_signalled(started: list[subprocess.Popen[bytes]]) -> None:
    stranger = sleeper(started)
    ((pid, start_ticks),) = names_of([stranger.pid])
    assert proctree.signal_exactly(pid, start_ticks - 1, signal.SIGKILL) is False
    assert proctree.signal_exactly(pid, start_ticks + 1, signal.SIGKILL) is False
    assert stranger.poll() is None
    assert proctree.signal_exactly(pid, start_ticks, signal.SIGKILL) is True
    assert stranger.wait(5) == -signal.SIGKILL
    assert proctree.signal_exactly(pid, start_ticks, signal.SIGKILL) is False


@pytest.mark.needs("root")
def test_another_users_leftover_is_found_without_the_right_to_trace(
    started: list[subprocess.Popen[bytes]], marker: str, uid: int
) -> None:
    """A default container's root lacks CAP_SYS_PTRACE, and may then not read another user's environment as root."""
    process = subprocess.Popen(["/bin/sleep", str(LIFE_S)], env={"CORRAL_OWNER": marker}, user=uid, group=uid)
    started.append(process)
    program = f"from controlplane.spawn.sweep import sweep; print(sweep('{marker}'))"
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_ptrace", sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout == "1\n"
    assert process.wait(5) == -signal.SIGKILL
