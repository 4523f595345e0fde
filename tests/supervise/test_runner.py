"""One instance's life with real processes: start, serve, crash, restart, stop, remove."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.core.jsonrpc import encode, member_value
from controlplane.core.lifecycle import Desired, State
from controlplane.core.restart import RestartMode, RestartPolicy
from controlplane.errors import CallTimeout, InstanceCrashed, InstanceUnavailable, InvalidRequest, NotRunning
from controlplane.model import Limits, Section

if TYPE_CHECKING:
    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard


async def tool(runner: Runner, name: str, **arguments: Any) -> Any:
    params = encode({"name": name, "arguments": arguments})
    result = member_value(await runner.call("tools/call", params, timeout_s=20))
    return result["content"][0]["text"]


async def wait_until(condition: Any, timeout_s: float = 15) -> None:
    with trio.fail_after(timeout_s):
        while not condition():
            await trio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


async def test_a_server_answers_calls_once_its_handshake_is_done(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    assert await tool(runner, "echo", text="moo ☃") == "moo ☃"
    assert runner.protocol is not None
    assert runner.protocol.version == "2025-11-25"
    await runner.relist(Section.TOOLS)
    assert [tool["name"] for tool in runner.catalogue.tools() or []][:2] == ["echo", "pid"]


async def test_an_unknown_method_passes_the_servers_own_error_through(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    member = await runner.call("no/such", None)

    assert member == b'"error":{"code": -32601, "message": "Method not found"}'


async def test_a_notification_is_refused_because_nothing_answers_it(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    with pytest.raises(InvalidRequest):
        await runner.call("notifications/initialized", None)


async def test_a_call_to_a_starting_instance_waits_for_it(yard: Yard, echo: bytes) -> None:
    runner = yard.deploy(echo)

    assert await tool(runner, "echo", text="early") == "early"


async def test_callers_are_told_at_once_when_the_process_is_killed_and_it_serves_again(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    before = int(await tool(runner, "pid"))
    failures: list[InstanceCrashed] = []

    async def waits() -> None:
        with pytest.raises(InstanceCrashed) as caught:
            await tool(runner, "sleep", seconds=60)
        failures.append(caught.value)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(waits)
            await wait_until(lambda: len(runner.child.session.pending) == 6)
            os.kill(before, signal.SIGKILL)

    assert {failure.evidence["signal"] for failure in failures} == {"SIGKILL"}
    await wait_until(lambda: runner.serving)
    assert int(await tool(runner, "pid")) != before
    assert runner.instance.restarts == 1
    assert runner.instance.last_error is not None
    assert runner.instance.last_error.signal == "SIGKILL"


async def test_last_words_on_stderr_are_the_post_mortem(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    with pytest.raises(InstanceCrashed) as caught:
        await tool(runner, "exit", status=7, last_words="the barn is on fire")

    assert caught.value.evidence["exit_code"] == 7
    assert "the barn is on fire" in caught.value.evidence["stderr_tail"]


async def test_a_call_that_is_never_answered_times_out_and_others_go_on(yard: Yard) -> None:
    deaf = DEAF_TO_ONE_METHOD
    runner = await yard.running(deaf)

    with pytest.raises(CallTimeout):
        await runner.call("never", None, timeout_s=0.3)

    assert member_value(await runner.call("ping", None)) == {}
    assert "cancelled" in str(member_value(await runner.call("seen", None)))


async def test_a_server_that_exits_before_its_handshake_fails_with_its_last_words(yard: Yard) -> None:
    runner = yard.deploy(b"import sys; sys.exit('no database here')")
    await runner.wait_settled(20)

    assert runner.state is State.FAILED
    failure = runner.instance.last_error
    assert failure is not None
    assert (failure.exit_code, failure.stderr_tail) == (1, ("no database here",))
    with pytest.raises(InstanceUnavailable):
        await runner.call("tools/list", None)


async def test_a_server_that_says_nothing_fails_at_the_start_limit(yard_folder: Any, toolchain: Any) -> None:
    from tests.supervise.conftest import open_yard

    with trio.fail_after(60):
        async with open_yard(yard_folder, toolchain, start_timeout_s=1.0) as yard:
            runner = yard.deploy(b"import time\nwhile True: time.sleep(60)")
            await runner.wait_settled(20)

            assert runner.state is State.FAILED
            assert runner.instance.last_error is not None
            assert runner.instance.last_error.code == "start_timeout"


async def test_a_command_that_does_not_exist_fails_by_name(yard: Yard) -> None:
    from attrs import evolve

    from controlplane.model import Command, SourceType

    runner = yard.deploy(b"")
    runner.instance = evolve(
        runner.instance,
        spec=evolve(
            runner.instance.spec, source_type=SourceType.MCP_CONFIG, source=None, command=Command(command="no-such-cmd")
        ),
    )
    await runner.wait_settled(20)

    assert runner.state is State.FAILED
    assert runner.instance.last_error is not None
    assert "no-such-cmd" in runner.instance.last_error.reason


async def test_repeated_crashes_end_in_a_crash_loop_that_a_start_forgives(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo, restart=RestartPolicy(burst=2, base_delay_s=0.01))

    for _ in range(3):
        await wait_until(lambda: runner.serving or runner.state is State.FAILED)
        with pytest.raises(InstanceCrashed):
            await tool(runner, "exit", status=1)
    await wait_until(lambda: runner.state is State.FAILED)
    assert runner.instance.last_error is not None
    assert runner.instance.last_error.code == "crash_loop"

    await yard.supervisor.start(runner)
    await runner.wait_settled(20)
    assert runner.serving


async def test_a_clean_exit_is_a_stop_under_on_failure_and_a_restart_under_always(yard: Yard, echo: bytes) -> None:
    rests = await yard.running(echo)
    returns = await yard.running(echo, restart=RestartPolicy(mode=RestartMode.ALWAYS, base_delay_s=0.01))

    for runner in (rests, returns):
        with pytest.raises((InstanceCrashed, InstanceUnavailable)):
            await tool(runner, "exit", status=0)

    await wait_until(lambda: rests.state is State.STOPPED)
    await wait_until(lambda: returns.serving)
    with pytest.raises(NotRunning):
        await rests.call("ping", None)


async def test_stop_lets_a_call_in_flight_finish_and_start_serves_again(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    answers: list[str] = []

    async def call() -> None:
        answers.append(await tool(runner, "sleep", seconds=0.5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_until(lambda: len(runner.child.session.pending) == 1)
        await yard.supervisor.stop(runner)
        await runner.wait_settled(20)

    assert answers == ["slept"]
    assert runner.state is State.STOPPED
    assert yard.wishes.desired[runner.instance.id] is Desired.STOPPED
    with pytest.raises(NotRunning):
        await runner.call("ping", None)

    await yard.supervisor.start(runner)
    assert await tool(runner, "echo", text="back") == "back"


async def test_restart_gives_a_new_process(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    before = await tool(runner, "pid")

    await yard.supervisor.restart(runner)
    await runner.wait_settled(20)

    assert await tool(runner, "pid") != before
    assert runner.instance.restarts == 0


async def test_removal_leaves_no_process_and_no_file(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    children = json.loads(await tool(runner, "fork", n=4))
    daemon = int(await tool(runner, "daemon"))
    pids = [*children, daemon, int(await tool(runner, "pid"))]
    assert all(is_alive(pid) for pid in pids)

    await yard.supervisor.remove(runner)
    assert await runner.wait_gone(20)

    assert not any(is_alive(pid) for pid in pids)
    assert not (yard.folder / "instances" / str(runner.instance.id)).exists()


async def test_the_environment_is_the_specs_and_nothing_of_the_control_planes(
    yard: Yard, echo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "planted-secret-of-the-control-plane")
    runner = await yard.running(echo, env={"API_KEY": "a-secret-value"})

    environment = json.loads(await tool(runner, "env"))

    assert environment["API_KEY"] == "a-secret-value"
    assert "planted-secret" not in str(environment)
    assert environment["HOME"].startswith(str(yard.folder / "instances"))


async def test_environment_values_never_reach_the_log(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo, env={"API_KEY": "hunter2-hunter2"})

    await tool(runner, "spam", lines=3, word="hunter2-hunter2")

    await wait_until(lambda: len(yard.journal.messages("stderr")) >= 3)
    assert "line 1 [redacted:API_KEY]" in yard.journal.messages("stderr")
    assert not any("hunter2" in message for message in yard.journal.messages())


async def test_noise_on_stdout_is_logged_and_harms_no_call(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    assert await tool(runner, "noise") == "noisy"

    assert "this is not JSON" in yard.journal.messages("stdout")


async def test_a_flood_on_stderr_is_cut_and_says_so(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    await tool(runner, "spam", lines=20_000)
    await tool(runner, "echo", text="still here")

    await wait_until(
        lambda: (
            any("lines: the server prints faster" in m for m in yard.journal.messages("system"))
            or runner.logbook.dropped > 0
        )
    )
    assert len(yard.journal.messages("stderr")) < 10_000


async def test_half_a_line_and_an_exit_fail_the_call_and_the_next_process_serves(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    with pytest.raises(InstanceCrashed):
        await tool(runner, "half")

    await wait_until(lambda: runner.serving)
    assert await tool(runner, "echo", text="ok") == "ok"


async def test_answers_of_megabytes_arrive_whole(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    assert len(await tool(runner, "big", size=8 * 2**20)) == 8 * 2**20


async def test_an_instance_that_runs_as_root_is_never_seen(yard: Yard) -> None:
    source = b'import os, sys\nsys.exit(f\'uid {os.getuid()} caps {open("/proc/self/status").read().split("CapEff:")[1].split()[0]}\')'
    runner = yard.deploy(source)
    await runner.wait_settled(20)

    assert runner.instance.last_error is not None
    words = runner.instance.last_error.stderr_tail[-1].split()
    assert words[1] != "0"
    assert int(words[3], 16) == 0


async def test_spawner_loss_fails_pending_calls_and_everything_comes_back(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    spawner_pid = int(Path(f"/proc/{runner.pid}/stat").read_text().rpartition(")")[2].split()[1])

    async def waits() -> None:
        with pytest.raises(InstanceCrashed):
            await tool(runner, "sleep", seconds=60)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
        await wait_until(lambda: len(runner.child.session.pending) == 1)
        os.kill(spawner_pid, signal.SIGKILL)

    await wait_until(lambda: runner.serving)
    assert await tool(runner, "echo", text="again") == "again"


async def test_limits_of_the_spec_are_in_force(yard: Yard) -> None:
    source = b"import resource, sys\nsys.exit(str(resource.getrlimit(resource.RLIMIT_NOFILE)))"
    runner = yard.deploy(source, limits=Limits(open_files=123))
    await runner.wait_settled(20)

    assert runner.instance.last_error is not None
    assert runner.instance.last_error.stderr_tail == ("(123, 123)",)


DEAF_TO_ONE_METHOD = b"""
import json, sys
seen = []
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if "id" not in message:
        seen.append(method)
    elif method == "initialize":
        result = {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {"name": "deaf", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    elif method == "server/discover":
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32602, "message": "?"}}), flush=True)
    elif method != "never":
        result = {"seen": seen} if method == "seen" else {}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


async def test_instances_that_start_while_the_spawner_dies_start_all_the_same(yard: Yard, echo: bytes) -> None:
    runners = [yard.deploy(echo) for _ in range(8)]
    await wait_until(lambda: any(runner.state is State.STARTING for runner in runners))
    spawner = yard.around.spawner
    link = spawner._link
    assert link is not None
    os.kill(link.pid, signal.SIGKILL)

    for runner in runners:
        await runner.wait_settled(30)

    assert [(runner.phase, runner.instance.last_error) for runner in runners if not runner.serving] == []
    assert spawner.statistics().restarts == 1
