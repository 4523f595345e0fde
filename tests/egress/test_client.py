"""The egress process itself, started by a real spawner, with sandboxes that reach out through it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, field

from controlplane.egress.client import MODULE, Egress, open_egress
from controlplane.egress.policy import Policy
from controlplane.spawn import proctree
from controlplane.spawn.client import Spawner, open_spawner
from tests.egress.sandbox import GREETING, TIMEOUT_S, greeter, run_python, started

pytestmark = pytest.mark.needs("user_namespaces")

HELLO = GREETING.decode()
ROOT = Path(__file__).parents[2]
CONNECT_WHEN_TOLD = """
    for line in sys.stdin:
        print(json.dumps(try_tcp("127.0.0.2", int(line))), flush=True)
    """


@define
class Heard:
    """What the egress process told."""

    refused: list[tuple[str, str, int, str]] = field(factory=list)


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    with trio.fail_after(120):
        async with open_spawner(marker=secrets.token_hex(8)) as opened:
            yield opened


@asynccontextmanager
async def opened(spawner: Spawner) -> AsyncIterator[tuple[Egress, Heard]]:
    heard = Heard()
    async with open_egress(
        spawner,
        environ=os.environ,
        on_refused=lambda *refusal: heard.refused.append(refusal),
    ) as egress:
        yield egress, heard


async def until(condition: Callable[[], Any]) -> Any:
    with trio.fail_after(TIMEOUT_S):
        while not (found := condition()):
            await trio.sleep(0.02)
    return found


def egress_processes() -> list[int]:
    """Those of this test: below it, and of that name."""
    procs = proctree.scan()

    def is_ours(pid: int) -> bool:
        while pid in procs:
            if pid == os.getpid():
                return True
            pid = procs[pid].ppid
        return False

    def words(pid: int) -> list[bytes]:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return file.read().split(b"\0")
        except OSError:
            return []

    return [pid for pid in procs if MODULE.encode() in words(pid) and procs[pid].is_live and is_ours(pid)]


async def ask(process: Any, port: int) -> str:
    await process.stdin.send_all(b"%d\n" % port)
    answer = b""
    while not answer.endswith(b"\n"):
        answer += await process.stdout.receive_some(999)
    return answer.decode().strip().strip('"')


async def test_a_sandbox_reaches_out_and_the_control_plane_hears_what_it_may_not(spawner: Spawner) -> None:
    async with greeter() as port, opened(spawner) as (egress, heard):
        policy = Policy(allow_private=(f"127.0.0.2:{port}",))
        got = await run_python(
            egress.admit("one", policy),
            policy,
            f'say(try_tcp("127.0.0.2", {port}), *(try_tcp("10.1.2.3", 80) for _ in range(5)))',
        )
        await until(lambda: heard.refused)
    assert got == [HELLO, *["ECONNRESET"] * 5]
    assert [refusal[:3] for refusal in heard.refused] == [("one", "10.1.2.3", 80)]


async def test_a_policy_of_many_hosts_gets_through_whole(spawner: Spawner) -> None:
    async with greeter() as port, opened(spawner) as (egress, heard):
        hosts = tuple(f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{number}x.test:{port}" for number in range(500))
        policy = Policy("allow", (*hosts, "127.0.0.2"), (f"127.0.0.2:{port}",))
        fd = egress.admit("many", policy)
        assert await run_python(fd, policy, f'say(try_tcp("127.0.0.2", {port}))') == [HELLO]
    assert heard.refused == []


async def test_a_process_that_is_killed_comes_back_and_sandboxes_go_on(spawner: Spawner) -> None:
    async with greeter() as port, opened(spawner) as (egress, _heard):
        policy = Policy(allow_private=(f"127.0.0.2:{port}",))
        async with started(egress.admit("one", policy), policy, CONNECT_WHEN_TOLD) as sandbox:
            assert await ask(sandbox, port) == HELLO
            (first,) = egress_processes()
            os.kill(first, signal.SIGKILL)
            assert await ask(sandbox, port) in (HELLO, "ECONNRESET")
            assert await ask(sandbox, port) == HELLO
            assert egress.restarts == 1
            (second,) = await until(egress_processes)
            assert second != first


async def test_a_dropped_sandbox_is_cut_off_and_another_of_its_key_is_not(spawner: Spawner) -> None:
    async with greeter() as port, opened(spawner) as (egress, _heard):
        policy = Policy(allow_private=(f"127.0.0.2:{port}",))
        egress.drop("nobody")
        async with started(egress.admit("one", policy), policy, CONNECT_WHEN_TOLD) as sandbox:
            assert await ask(sandbox, port) == HELLO
            fd = egress.admit("one", policy)
            assert await run_python(fd, policy, f'say(try_tcp("127.0.0.2", {port}))') == [HELLO]
            while await ask(sandbox, port) == HELLO:  # until the process has heard of it
                pass
            assert await ask(sandbox, port) == "ECONNREFUSED"


@pytest.mark.needs("landlock")
def test_the_process_gives_up_files_and_programs_and_can_still_look_names_up(tmp_path: Path) -> None:
    program = f"""
        import os, socket, subprocess
        from controlplane.egress.__main__ import shut_in
        from controlplane.spawn import linux

        def refused(attempt):
            try:
                attempt()
            except PermissionError:
                return True

        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        shut_in()
        print(
            refused(lambda: open({str(ROOT / "pyproject.toml")!r})),
            refused(lambda: os.listdir("/")),
            refused(lambda: open({str(tmp_path / "new")!r}, "w")),
            refused(lambda: linux.unshare(linux.CLONE_NEWUSER)),
            socket.getaddrinfo("localhost", 80, socket.AF_INET)[0][4][0],
        )
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.stdout.split() == [*["True"] * 4, "127.0.0.1"]


async def test_no_descriptor_and_no_process_is_left(spawner: Spawner) -> None:
    before = set(os.listdir("/proc/self/fd"))
    async with opened(spawner) as (egress, _heard):
        policy = Policy()
        for number in range(3):
            await run_python(egress.admit(f"ends{number}", policy), policy, "say()")
        os.close(egress.admit("never starts", policy))
        await run_python(egress.admit("none", Policy("none")), Policy("none"), "say()", gated=False)
        await until(egress_processes)
        await until(lambda: all(key.startswith("ends") for key in egress._sandboxes))
    assert egress_processes() == []
    with pytest.raises(OSError, match="closed"):
        egress.admit("late", policy)
    assert set(os.listdir("/proc/self/fd")) <= before
