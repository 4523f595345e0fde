"""A new revision takes over without a call lost, or leaves no trace: real servers, and builds that can be slow or fail."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from controlplane.core.jsonrpc import member_value
from controlplane.core.lifecycle import State
from controlplane.core.queueing import Priority
from controlplane.core.restart import RestartPolicy
from controlplane.errors import (
    BuildFailed,
    Conflict,
    InstanceUnavailable,
    NotRunning,
    ShuttingDown,
    SourceRejected,
    StorageUnavailable,
)
from controlplane.model import Resolved, Section
from controlplane.supervise import child
from controlplane.supervise.succession import IN_FORCE, Succession
from tests.supervise.conftest import open_yard
from tests.supervise.test_runner import is_alive, tool, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.model import Evidence, Instance, Spec
    from controlplane.supervise.launch import Launch, Prepare, Progress
    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard

REDEPLOYS = 20
CALLERS = 6
ROUNDS = 50
SILENT = b"import sys\nfor line in sys.stdin: pass"
"""Answers nothing."""
CRASHING = b"import sys; sys.exit('no database here')"
WALLFLOWER = b"""
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "w", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
        sys.exit(0)
    elif "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
"""
"""Ends well as soon as it is greeted."""
BARE = b"""
import json, os, sys, time
for line in sys.stdin:
    if json.loads(line)["method"] == "slow":
        time.sleep(0.2)
    print(json.dumps({"result": {"revision": os.environ["REVISION"]}}), flush=True)
"""


@define
class Gate:
    """Stands before the real way to prepare: says what to do with each revision, and lets it wait."""

    inner: Prepare
    on_revision: dict[int, Callable[[Instance, Progress], Awaitable[None]]] = field(factory=dict)
    resolves: bool = False
    revisions_alive: Callable[[], set[str]] = set
    retired: list[tuple[str, int]] = field(factory=list)
    """Whose launch, and the revision in force."""
    problem: Exception | None = None

    async def prepare(self, instance: Instance, progress: Progress) -> Launch:
        act = self.on_revision.get(instance.spec.revision)
        if act is not None:
            await act(instance, progress)
        launch = await self.inner.prepare(instance, progress)
        if self.resolves and instance.spec.resolved is None:
            found = Resolved(language="python", facts={"lock": f"lock of {instance.spec.revision}"})
            launch = evolve(launch, spec=evolve(instance.spec, resolved=found))
        return launch

    async def retire(self, instance: Instance, launch: Launch) -> None:
        assert launch.env["REVISION"] not in self.revisions_alive()
        self.retired.append((launch.env["REVISION"], instance.spec.revision))
        if self.problem is not None:
            raise self.problem
        await self.inner.retire(instance, launch)

    async def discard(self, instance: Instance) -> None:
        await self.inner.discard(instance)


@define
class Books:
    """Takes the place of the database: which revisions were committed, and which were given up and why."""

    committed: list[Spec] = field(factory=list)
    given_up: list[Evidence] = field(factory=list)
    problem: Exception | None = None
    reached: trio.Event = field(factory=trio.Event)
    open: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.open.set()

    async def commit(self, spec: Spec) -> None:
        self.reached.set()
        await self.open.wait()
        if self.problem is not None:
            raise self.problem
        self.committed.append(spec)

    async def failed(self, evidence: Evidence) -> None:
        await trio.lowlevel.checkpoint()
        self.given_up.append(evidence)


@define
class Stage:
    """A yard whose builds can be held up."""

    yard: Yard
    gate: Gate
    books: Books = field(factory=Books)

    async def running(self, source: bytes, **spec: Any) -> Runner:
        return await self.yard.running(source, env={"REVISION": "1"}, **spec)

    def succeed(self, runner: Runner, source: bytes | None = None, **changes: Any) -> Succession:
        """Begin the next revision, which says its number by its environment."""
        spec, number = runner.instance.spec, runner.instance.spec.revision + 1
        changes = {"env": {"REVISION": str(number)}, **changes}
        if source is not None:  # in a file of its own: the one that serves needs its own
            changes |= {"source": source, "entry_point": f"revision{number}.py"}
        spec = evolve(spec, revision=number, cause="redeploy", **changes)
        return runner.succeed(spec, commit=self.books.commit, failed=self.books.failed)

    @property
    def processes(self) -> int:
        return self.yard.around.spawner.statistics().jobs


@pytest.fixture
async def stage(yard_folder: Path, toolchain: Any) -> AsyncIterator[Stage]:
    with trio.fail_after(120):
        async with open_yard(yard_folder, toolchain, start_concurrency=2) as yard:
            gate = Gate(yard.around.prepare)
            jobs = yard.around.spawner._jobs
            gate.revisions_alive = lambda: {job.spec.env["REVISION"] for job in jobs.values()}
            yard.supervisor.around = yard.around = evolve(yard.around, prepare=gate)
            yield Stage(yard, gate)


@pytest.fixture
async def hasty(yard_folder: Path, toolchain: Any) -> AsyncIterator[Stage]:
    """One that waits a second for a handshake."""
    with trio.fail_after(60):
        async with open_yard(yard_folder, toolchain, start_timeout_s=1.0) as yard:
            gate = Gate(yard.around.prepare)
            yard.supervisor.around = yard.around = evolve(yard.around, prepare=gate)
            yield Stage(yard, gate)


async def revision_of(runner: Runner) -> int:
    return int(json.loads(await tool(runner, "env"))["REVISION"])


async def over(succession: Succession, timeout_s: float = 30) -> Evidence | None:
    assert await succession.wait(timeout_s), succession.phase
    return succession.failure


# -- it takes over


async def test_no_call_fails_and_every_caller_sees_each_change_once(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    seen: list[list[int]] = [[] for _ in range(CALLERS)]
    is_over = trio.Event()

    async def call(answers: list[int], *, slow: bool) -> None:
        while not is_over.is_set():
            if slow:
                assert await tool(runner, "sleep", seconds=0.02) == "slept"
            answers.append(await revision_of(runner))

    async with trio.open_nursery() as nursery:
        for number, answers in enumerate(seen):
            nursery.start_soon(lambda answers=answers, slow=number == 0: call(answers, slow=slow))
        for _ in range(REDEPLOYS):
            assert await over(stage.succeed(runner)) is None
            assert await revision_of(runner) == runner.instance.spec.revision
        is_over.set()

    assert [spec.revision for spec in stage.books.committed] == list(range(2, REDEPLOYS + 2))
    assert all(answers == sorted(answers) for answers in seen)
    assert set().union(*seen) == set(range(1, REDEPLOYS + 2))
    assert runner.instance.restarts == 0
    assert runner.instance.ever_ran
    assert stage.books.given_up == []


async def test_a_call_in_flight_is_answered_by_the_process_that_has_it_and_the_next_by_the_new_one(
    stage: Stage, echo: bytes
) -> None:
    runner = await stage.running(echo)
    before = runner.child
    assert before is not None
    answers: list[str] = []

    async def call() -> None:
        answers.append(await tool(runner, "sleep", seconds=1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_until(lambda: len(before.session.pending) == 1)
        assert await over(stage.succeed(runner)) is None
        assert answers == []
        assert await revision_of(runner) == 2

    assert answers == ["slept"]
    await wait_until(lambda: before.exit is not None)
    assert before.exit is not None
    assert before.exit.code == 0
    assert runner.state is State.RUNNING


async def test_a_call_that_outlasts_the_drain_is_told_that_a_new_revision_serves(
    stage: Stage, echo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "DRAIN_S", 0.0)
    runner = await stage.running(echo)
    before = runner.child
    assert before is not None

    async def call() -> None:
        with pytest.raises(InstanceUnavailable, match="replaced by a new revision"):
            await tool(runner, "sleep", seconds=20)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_until(lambda: len(before.session.pending) == 1)
        assert await over(stage.succeed(runner)) is None


async def test_callers_that_wait_for_their_turn_at_a_bare_server_all_get_their_answers(stage: Stage) -> None:
    runner = await stage.running(BARE)
    before = runner.child
    answers: list[str] = []

    async def call() -> None:
        answers.append(member_value(await runner.call("slow", None, timeout_s=20))["revision"])

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(call)
        await wait_until(lambda: runner.calls_in_flight == 4)
        assert await over(stage.succeed(runner)) is None

    assert answers == ["1"] * 4
    assert runner.child is not before
    assert member_value(await runner.call("quick", None)) == {"revision": "2"}


async def test_what_follows_a_switch_is_the_new_revisions(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo, restart=RestartPolicy(base_delay_s=0.01))
    meter, number = runner.meter, runner.instance.incarnation
    lister = echo.replace(b'"echo",\n', b'"echo",\n    "ruminate",\n', 1)
    secret = {"REVISION": "2", "API_KEY": "hunter2-hunter2"}

    assert await over(stage.succeed(runner, lister, env=secret)) is None

    assert (runner.instance.spec.revision, runner.instance.spec.source) == (2, lister)
    assert runner.meter is meter
    assert runner.instance.incarnation == number + 1
    await wait_until(lambda: runner.catalogue.is_fresh(Section.TOOLS))
    assert "ruminate" in [tool["name"] for tool in runner.catalogue.tools() or []]
    await tool(runner, "spam", lines=3, word="hunter2-hunter2")
    await wait_until(lambda: "line 1 [redacted:API_KEY]" in stage.yard.journal.messages("stderr"))
    os.kill(runner.pid, signal.SIGKILL)
    await wait_until(lambda: runner.instance.restarts == 1 and runner.serving)
    assert await revision_of(runner) == 2


async def test_the_clients_of_other_processes_get_some_of_the_new_revision(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    before = await runner.lanes.legacy(frozenset({"roots"}))
    primary = runner.lane
    assert primary is not None

    assert await over(stage.succeed(runner)) is None

    after = await runner.lanes.legacy(frozenset({"roots"}))
    assert after is not before
    assert after.child.job.spec.env["REVISION"] == "2"
    assert primary.retired.is_set()
    assert before.retired.is_set()
    await wait_until(lambda: stage.processes == 2)


async def test_what_a_build_finds_is_part_of_the_revision(stage: Stage, echo: bytes) -> None:
    stage.gate.resolves = True
    runner = await stage.running(echo)
    assert runner.instance.spec.resolved is not None
    assert runner.instance.spec.resolved.facts == {"lock": "lock of 1"}

    assert await over(stage.succeed(runner, resolved=None)) is None

    assert runner.instance.spec.resolved.facts == {"lock": "lock of 2"}
    assert stage.books.committed == [runner.instance.spec]


async def test_what_a_build_finds_undoes_no_patch_that_came_meanwhile(stage: Stage, echo: bytes) -> None:
    stage.gate.resolves = True
    begun, go_on = trio.Event(), trio.Event()

    async def wait(instance: Instance, progress: Progress) -> None:
        begun.set()
        await go_on.wait()

    stage.gate.on_revision[1] = wait
    runner = stage.yard.deploy(echo, env={"REVISION": "1"})
    await begun.wait()
    patched = evolve(runner.instance.spec, revision=2, restart=RestartPolicy(burst=9))
    runner.replace(evolve(runner.instance, spec=patched))
    go_on.set()
    await runner.wait_settled(20)

    assert runner.instance.spec.revision == 2
    assert runner.instance.spec.restart.burst == 9
    assert runner.instance.spec.resolved is not None


async def test_the_way_is_told_while_the_instance_stays_what_it_is(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    events: list[dict[str, Any]] = []

    async def build(instance: Instance, progress: Progress) -> None:
        progress.phase("build", "churning butter")
        progress.output(b"butter: 100 %")

    async def listen() -> None:
        while True:
            data = await subscription.take()
            events.extend(json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: "))

    stage.gate.on_revision[2] = build
    with stage.yard.hub.subscribe(instance_id=runner.instance.id) as subscription:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            assert await over(stage.succeed(runner)) is None
            await wait_until(lambda: any(event.get("revision") == 2 for event in events))
            nursery.cancel_scope.cancel()

    told = [event for event in events if event["type"] == "status"]
    phases = [event["candidate"]["phase"] for event in told if "candidate" in event]
    assert {event["status"] for event in told} == {"running"}
    assert phases[0] == "waiting for a start slot"
    assert [phase for phase in phases if phase in ("build: churning butter", "spawning", "handshake", "commit")] == [
        "build: churning butter",
        "spawning",
        "handshake",
        "commit",
    ]
    assert all(event["candidate"]["revision"] == 2 for event in told if "candidate" in event)
    assert "candidate" not in told[-1]
    assert told[-1]["revision"] == 2
    assert "butter: 100 %" in stage.yard.journal.messages("build")


# -- it does not


async def assert_unharmed(stage: Stage, runner: Runner, pid: int | None) -> None:
    """The one before serves as if nothing had been."""
    assert runner.serving
    assert runner.pid == pid
    assert await revision_of(runner) == 1
    assert runner.instance.spec.revision == 1
    assert runner.instance.last_error is None
    assert runner.instance.restarts == 0
    assert stage.books.committed == []
    assert runner.succession is not None
    assert stage.books.given_up == [runner.succession.failure]
    assert stage.processes == 1


async def test_a_revision_that_crashes_at_its_start_leaves_the_one_before_alone(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    pid = runner.pid

    failure = await over(stage.succeed(runner, CRASHING))

    assert failure is not None
    assert (failure.code, failure.exit_code, failure.stderr_tail) == ("exited", 1, ("no database here",))
    assert failure.incarnation == 2
    await assert_unharmed(stage, runner, pid)
    assert any("revision 2 did not take over" in line for line in stage.yard.journal.messages("system"))
    assert {record.number for record in stage.yard.journal.incarnations if record.evidence} == {2}


async def test_a_revision_that_never_answers_is_given_up_at_the_start_limit(hasty: Stage, echo: bytes) -> None:
    runner = await hasty.running(echo)
    pid = runner.pid

    failure = await over(hasty.succeed(runner, SILENT))

    assert failure is not None
    assert (failure.code, failure.phase) == ("start_timeout", "handshake")
    await assert_unharmed(hasty, runner, pid)


async def test_a_revision_that_ends_as_soon_as_it_is_greeted_does_not_take_over(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    pid = runner.pid

    async with runner.commands:  # so that it has ended before it could be committed
        succession = stage.succeed(runner, WALLFLOWER)
        records = stage.yard.journal.incarnations
        await wait_until(lambda: any(record.number == 2 and record.ended_at is not None for record in records))
    failure = await over(succession)

    assert failure is not None
    assert failure.code == "exited"
    await assert_unharmed(stage, runner, pid)


@pytest.mark.parametrize(
    ("error", "phase", "code"),
    [
        (BuildFailed("npm ci failed", evidence={"exit_code": 7, "stderr_tail": ["no such hay"]}), "build", 7),
        (SourceRejected("this host has no cow"), "fetch", None),
    ],
)
async def test_a_revision_that_cannot_be_built_keeps_what_its_tool_said(
    stage: Stage, echo: bytes, error: BuildFailed, phase: str, code: int | None
) -> None:
    runner = await stage.running(echo)
    pid = runner.pid

    async def break_down(instance: Instance, progress: Progress) -> None:
        progress.phase("fetch", "")
        raise error

    stage.gate.on_revision[2] = break_down
    failure = await over(stage.succeed(runner))

    assert failure is not None
    assert (failure.code, failure.phase, failure.reason) == (error.code, phase, error.detail)
    assert (failure.exit_code, failure.stderr_tail) == (code, tuple(error.evidence.get("stderr_tail", ())))
    await assert_unharmed(stage, runner, pid)


async def test_a_first_build_that_fails_is_the_instances_own_post_mortem(stage: Stage, echo: bytes) -> None:
    async def break_down(instance: Instance, progress: Progress) -> None:
        evidence = {"exit_code": None, "signal": "SIGKILL", "stderr_tail": ["key is hunter2-hunter2"]}
        raise BuildFailed("go build was killed", evidence=evidence)

    stage.gate.on_revision[1] = break_down
    runner = stage.yard.deploy(echo, env={"API_KEY": "hunter2-hunter2"})
    await runner.wait_settled(20)

    failure = runner.instance.last_error
    assert failure is not None
    assert (failure.code, failure.phase, failure.signal) == ("build_failed", "build", "SIGKILL")
    assert failure.stderr_tail == ("key is [redacted:API_KEY]",)


async def test_a_build_that_takes_too_long_is_given_up(yard_folder: Path, toolchain: Any, echo: bytes) -> None:
    async with open_yard(yard_folder, toolchain, build_timeout_s=1.0) as yard:
        gate = Gate(yard.around.prepare)
        yard.supervisor.around = yard.around = evolve(yard.around, prepare=gate)
        stage = Stage(yard, gate)
        runner = await stage.running(echo)
        pid = runner.pid
        gate.on_revision[2] = lambda _instance, _progress: trio.sleep_forever()

        failure = await over(stage.succeed(runner))

        assert failure is not None
        assert (failure.code, failure.phase) == ("build_failed", "build")
        await assert_unharmed(stage, runner, pid)


async def test_a_bug_in_preparing_costs_the_candidate_only(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    pid = runner.pid

    async def stumble(instance: Instance, progress: Progress) -> None:
        raise RuntimeError("hay is None")

    stage.gate.on_revision[2] = stumble
    failure = await over(stage.succeed(runner))

    assert failure is not None
    assert failure.code == "internal"
    await assert_unharmed(stage, runner, pid)


@pytest.mark.parametrize("problem", [StorageUnavailable("the database is away"), ZeroDivisionError()])
async def test_a_revision_that_cannot_be_committed_does_not_take_over(
    stage: Stage, echo: bytes, problem: Exception
) -> None:
    runner = await stage.running(echo)
    pid = runner.pid
    stage.books.problem = problem

    failure = await over(stage.succeed(runner))

    assert failure is not None
    assert (failure.code, failure.phase) == (
        ("storage_unavailable", "commit") if isinstance(problem, StorageUnavailable) else ("internal", "commit")
    )
    await assert_unharmed(stage, runner, pid)
    stage.books.problem = None
    assert await over(stage.succeed(runner)) is None
    assert await revision_of(runner) == 2


async def test_a_failure_is_told_to_the_streams(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    told: list[Any] = []
    stage.yard.hub.keep = told.append

    failure = await over(stage.succeed(runner, CRASHING))

    assert failure is not None
    events = [event.data for event in told if event.type == "revision_failed"]
    assert events == [{"revision": 2, "code": failure.code, "reason": failure.reason, "phase": failure.phase}]
    assert "candidate" not in [event.data for event in told if event.type == "status"][-1]


async def test_one_at_a_time_and_none_once_the_instance_goes(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    succession = stage.succeed(runner, SILENT)

    with pytest.raises(Conflict, match="revision 2 is on its way"):
        stage.succeed(runner)
    await stage.yard.supervisor.remove(runner)
    with pytest.raises(Conflict, match="removed"):
        stage.succeed(runner)
    assert await runner.wait_gone(20)

    assert succession.failure is not None
    with pytest.raises(Conflict):
        stage.succeed(runner)


# -- commands meanwhile


@define
class Holding:
    """Keeps a candidate in one of its phases until it is let go."""

    stage: Stage
    runner: Runner
    succession: Succession
    let_go: Callable[[], None]

    @classmethod
    async def at(cls, phase: str, stage: Stage, runner: Runner) -> Holding:
        let_go: Callable[[], None] = lambda: None  # noqa: E731
        source = None
        if phase == "slot":
            slots = [stage.yard.around.scheduler.slot("bob", Priority.CALL) for _ in range(3)]
            for slot in slots:
                await slot.acquire()
            let_go = lambda: [slot.release() for slot in slots] and None  # noqa: E731
        elif phase == "build":
            stage.gate.on_revision[2] = lambda _instance, _progress: trio.sleep_forever()
        elif phase == "handshake":
            source = SILENT
        else:
            stage.books.open = trio.Event()
            let_go = stage.books.open.set
        succession = stage.succeed(runner, source)
        marks = {"slot": "waiting", "build": "waiting", "handshake": "handshake", "commit": "commit"}
        await wait_until(lambda: succession.phase.startswith(marks[phase]))
        await trio.testing.wait_all_tasks_blocked(0.01)
        return cls(stage, runner, succession, let_go)


async def stop(stage: Stage, runner: Runner) -> None:
    await stage.yard.supervisor.stop(runner)
    await wait_until(lambda: runner.state is State.STOPPED)


async def restart(stage: Stage, runner: Runner) -> None:
    await stage.yard.supervisor.restart(runner)


async def remove(stage: Stage, runner: Runner) -> None:
    await stage.yard.supervisor.remove(runner)
    assert await runner.wait_gone(20)


async def leave(stage: Stage, runner: Runner) -> None:
    runner.leave()
    assert await runner.wait_gone(20)


WORDS = {stop: "stopped", restart: "restarted", remove: "removed", leave: "stopped with the control plane"}


@pytest.mark.parametrize("command", list(WORDS))
@pytest.mark.parametrize("phase", ["slot", "build", "handshake"])
async def test_a_command_ends_it_in_any_phase(
    stage: Stage, echo: bytes, phase: str, command: Callable[[Stage, Runner], Awaitable[None]]
) -> None:
    runner = await stage.running(echo)
    held = await Holding.at(phase, stage, runner)

    await command(stage, runner)
    failure = await over(held.succession)

    assert failure is not None
    assert failure.code == "interrupted"
    assert failure.reason == f"the instance was {WORDS[command]} before revision 2 could take over"
    assert stage.books.given_up == [failure]
    assert stage.books.committed == []
    held.let_go()
    if command is restart:
        await runner.wait_settled(20)
        assert await revision_of(runner) == 1
    await wait_until(lambda: stage.processes == (1 if command is restart else 0))


async def test_a_stop_waits_for_a_commit_under_way_and_finds_the_new_revision(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    held = await Holding.at("commit", stage, runner)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.yard.supervisor.stop, runner)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert stage.yard.wishes.desired == {}
        held.let_go()
    assert await over(held.succession) is None

    await wait_until(lambda: runner.state is State.STOPPED)
    assert runner.instance.spec.revision == 2
    await wait_until(lambda: stage.processes == 0)
    await stage.yard.supervisor.start(runner)
    await runner.wait_settled(20)
    assert await revision_of(runner) == 2


async def test_the_end_of_the_control_plane_waits_for_no_commit_and_writes_down_no_failure(
    stage: Stage, echo: bytes
) -> None:
    runner = await stage.running(echo)
    held = await Holding.at("commit", stage, runner)

    await leave(stage, runner)

    assert held.succession.failure is not None
    assert stage.books.given_up == []  # it may have been committed
    assert stage.processes == 0


async def test_a_command_that_comes_without_waiting_finds_what_was_committed(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    stage.books.open = trio.Event()

    async def commit(spec: Spec) -> None:
        await stage.books.commit(spec)
        runner.want_stopped()

    stage.books.open.set()
    spec = evolve(runner.instance.spec, revision=2, env={"REVISION": "2"})
    succession = runner.succeed(spec, commit=commit, failed=stage.books.failed)

    assert await over(succession) is None
    await wait_until(lambda: runner.state is State.STOPPED)
    assert runner.instance.spec.revision == 2
    await wait_until(lambda: stage.processes == 0)


# -- the one before has its own troubles


async def kill_until(runner: Runner, state: State) -> None:
    while runner.state is not state:
        os.kill(runner.pid, signal.SIGKILL)
        await wait_until(lambda: not runner.serving)
        await wait_until(lambda: runner.state is state or runner.serving)


async def test_one_that_is_killed_meanwhile_is_restarted_and_then_replaced(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo, restart=RestartPolicy(base_delay_s=0.01))
    go_on = trio.Event()

    async def wait(instance: Instance, progress: Progress) -> None:
        await go_on.wait()

    stage.gate.on_revision[2] = wait
    succession = stage.succeed(runner)
    os.kill(runner.pid, signal.SIGKILL)
    await wait_until(lambda: runner.instance.restarts == 1 and runner.serving)
    assert await revision_of(runner) == 1
    go_on.set()

    assert await over(succession) is None
    assert await revision_of(runner) == 2
    await wait_until(lambda: stage.processes == 1)


@pytest.mark.parametrize(
    ("policy", "state"),
    [
        (RestartPolicy(base_delay_s=600, max_delay_s=600), State.BACKOFF),
        (RestartPolicy(burst=1, base_delay_s=0.01), State.FAILED),
    ],
)
async def test_one_that_is_down_when_its_successor_is_ready_is_replaced_at_once(
    stage: Stage, echo: bytes, policy: RestartPolicy, state: State
) -> None:
    runner = await stage.running(echo, restart=policy)
    stage.books.open = trio.Event()
    succession = stage.succeed(runner)
    await stage.books.reached.wait()
    await kill_until(runner, state)
    stage.books.open.set()

    assert await over(succession) is None

    assert runner.state is State.RUNNING
    assert await revision_of(runner) == 2
    assert stage.processes == 1
    os.kill(runner.pid, signal.SIGKILL)
    await wait_until(lambda: runner.state in (State.BACKOFF, State.STARTING))


async def test_one_that_ended_by_itself_is_replaced_all_the_same(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    stage.books.open = trio.Event()
    succession = stage.succeed(runner)
    await stage.books.reached.wait()
    with pytest.raises(InstanceUnavailable):
        await tool(runner, "exit", status=0)
    await wait_until(lambda: runner.state is State.STOPPED)
    stage.books.open.set()

    assert await over(succession) is None
    assert await revision_of(runner) == 2


async def test_one_that_gave_up_stays_so_when_its_successor_fails_too(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo, restart=RestartPolicy(burst=1, base_delay_s=0.01))
    stage.books.open = trio.Event()
    stage.books.problem = StorageUnavailable("away")
    succession = stage.succeed(runner)
    await stage.books.reached.wait()
    await kill_until(runner, State.FAILED)
    stage.books.open.set()

    assert await over(succession) is not None
    assert runner.state is State.FAILED
    assert stage.processes == 0
    await stage.yard.supervisor.start(runner)
    await runner.wait_settled(20)
    assert await revision_of(runner) == 1


async def test_one_that_is_killed_with_the_spawner_takes_its_successor_along_and_returns(
    stage: Stage, echo: bytes
) -> None:
    runner = await stage.running(echo)
    held = await Holding.at("handshake", stage, runner)
    link = stage.yard.around.spawner._link
    assert link is not None
    os.kill(link.pid, signal.SIGKILL)

    failure = await over(held.succession)

    assert failure is not None
    assert failure.code == "spawner_lost"
    await wait_until(lambda: runner.serving and runner.pid is not None)
    assert await revision_of(runner) == 1


# -- nothing serves


async def test_a_stopped_instance_gets_its_new_revision_and_starts(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    await stop(stage, runner)

    succession = stage.succeed(runner)
    assert await over(succession) is None
    assert succession.phase == IN_FORCE
    await runner.wait_settled(20)

    assert await revision_of(runner) == 2
    assert [spec.revision for spec in stage.books.committed] == [2]


async def test_a_failed_instance_gets_its_new_revision_whose_failure_is_its_own(stage: Stage, echo: bytes) -> None:
    runner = stage.yard.deploy(CRASHING)
    await runner.wait_settled(20)
    assert runner.state is State.FAILED

    assert await over(stage.succeed(runner, b"import sys; sys.exit('still none')")) is None
    await runner.wait_settled(20)
    assert runner.state is State.FAILED
    assert runner.instance.last_error is not None
    assert runner.instance.last_error.stderr_tail == ("still none",)
    assert not runner.instance.ever_ran

    assert await over(stage.succeed(runner, echo)) is None
    await runner.wait_settled(20)
    assert await revision_of(runner) == 3


async def test_one_that_is_still_starting_starts_anew_with_the_new_revision(stage: Stage, echo: bytes) -> None:
    runner = stage.yard.deploy(SILENT)
    await wait_until(lambda: runner.phase == "handshake")
    pid = stage.yard.around.spawner.roots()[0].pid

    assert await over(stage.succeed(runner, echo)) is None
    await runner.wait_settled(20)

    assert await revision_of(runner) == 2
    await wait_until(lambda: not is_alive(pid))


async def test_the_secrets_of_a_revision_that_is_about_to_go_stay_hidden(stage: Stage) -> None:
    source = b"import os, sys, time\nsys.stdin.read()\ntime.sleep(0.3)\nprint(os.environ['KEY'], file=sys.stderr)"
    runner = stage.yard.deploy(source, env={"KEY": "hunter2-hunter2"})
    await wait_until(lambda: runner.phase == "handshake")

    assert await over(stage.succeed(runner, CRASHING)) is None
    await runner.wait_settled(20)

    assert "[redacted:KEY]" in stage.yard.journal.messages("stderr")
    assert not any("hunter2" in message for message in stage.yard.journal.messages())


async def test_a_stopped_instance_whose_revision_cannot_be_written_stays_stopped(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    await stop(stage, runner)
    stage.books.problem = StorageUnavailable("away")

    failure = await over(stage.succeed(runner))

    assert failure is not None
    assert failure.code == "storage_unavailable"
    assert (runner.state, runner.instance.spec.revision) == (State.STOPPED, 1)
    with pytest.raises(NotRunning):
        await runner.call("ping", None)


async def test_a_stopped_instance_leaves_while_its_revision_is_written(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    await stop(stage, runner)
    stage.books.open = trio.Event()
    succession = stage.succeed(runner)
    await stage.books.reached.wait()

    await leave(stage, runner)

    assert succession.failure is not None
    assert succession.failure.code == "interrupted"
    with pytest.raises(ShuttingDown):
        stage.succeed(runner)


# -- nothing is left


def trees(stage: Stage, runner: Runner) -> list[str]:
    assert runner.launch is not None
    folder = Path(runner.launch.env["HOME"]).parent
    return sorted(name for name in os.listdir(folder) if "app-" in name)


async def wait_retired(stage: Stage, runner: Runner, *retired: tuple[str, int]) -> None:
    """Until these are all, and only what is in force has a tree."""
    assert runner.launch is not None
    cwd = Path(runner.launch.cwd)
    await wait_until(lambda: stage.gate.retired == [*retired] and trees(stage, runner) == [cwd.name])


async def test_what_was_made_for_a_revision_that_failed_goes_with_it(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)

    assert await over(stage.succeed(runner, CRASHING)) is not None
    await wait_retired(stage, runner, ("2", 1))
    stage.books.problem = StorageUnavailable("away")
    assert await over(stage.succeed(runner, echo)) is not None

    await wait_retired(stage, runner, ("2", 1), ("2", 1))
    assert await revision_of(runner) == 1


async def test_what_was_made_for_a_revision_goes_once_its_last_process_has_ended(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    lane = await runner.lanes.legacy(frozenset({"roots"}))
    before = runner.child
    assert before is not None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: tool(runner, "sleep", seconds=0.5))
        await wait_until(lambda: len(before.session.pending) == 1)
        assert await over(stage.succeed(runner, echo)) is None
        assert stage.gate.retired == []

    await wait_retired(stage, runner, ("1", 2))
    assert lane.child.exit is not None
    assert await over(stage.succeed(runner, echo)) is None
    await wait_retired(stage, runner, ("1", 2), ("2", 3))
    assert await revision_of(runner) == 3


async def test_a_tree_that_both_revisions_use_stays(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)

    for number in (2, 3):
        assert await over(stage.succeed(runner)) is None
        await wait_retired(stage, runner, *[(str(before), before + 1) for before in range(1, number)])
    assert (
        await over(stage.succeed(runner, env={"REVISION": "4"}, entry_point="server.py", source=CRASHING)) is not None
    )

    await wait_retired(stage, runner, ("1", 2), ("2", 3), ("4", 3))
    os.kill(runner.pid, signal.SIGKILL)
    await wait_until(lambda: runner.instance.restarts == 1 and runner.serving)
    assert await revision_of(runner) == 3


async def test_what_cannot_be_cleared_up_harms_nobody(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    stage.gate.problem = RuntimeError("a bug in clearing up")

    assert await over(stage.succeed(runner, CRASHING)) is not None
    assert await over(stage.succeed(runner, echo)) is None

    await wait_until(lambda: stage.gate.retired == [("2", 1), ("1", 2)])
    assert await revision_of(runner) == 2
    await stage.yard.supervisor.restart(runner)
    await wait_until(lambda: runner.serving and len(trees(stage, runner)) == 1)


@pytest.mark.parametrize("phase", ["slot", "build", "handshake"])
async def test_a_revision_that_is_interrupted_leaves_no_tree(stage: Stage, echo: bytes, phase: str) -> None:
    runner = await stage.running(echo)
    held = await Holding.at(phase, stage, runner)

    await stop(stage, runner)
    held.let_go()

    assert await over(held.succession) is not None
    await wait_retired(stage, runner, *([("2", 1)] if phase == "handshake" else []))


async def test_one_that_waits_for_a_slot_when_it_is_interrupted_is_cleared_up_too(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)
    slots = [stage.yard.around.scheduler.slot("bob", Priority.CALL) for _ in range(3)]
    built = trio.Event()

    async def build(instance: Instance, progress: Progress) -> None:
        await progress.begin_work()
        for slot in slots:
            await slot.acquire()
        built.set()

    stage.gate.on_revision[2] = build
    succession = stage.succeed(runner, echo)
    await built.wait()
    await wait_until(lambda: len(trees(stage, runner)) == 2)
    await trio.testing.wait_all_tasks_blocked(0.01)

    await stop(stage, runner)
    for slot in slots:
        slot.release()

    assert await over(succession) is not None
    await wait_retired(stage, runner, ("2", 1))


async def test_fifty_successions_leave_nothing_behind(stage: Stage, echo: bytes) -> None:
    runner = await stage.running(echo)

    async def redeploy(source: bytes | None = None) -> None:
        await over(stage.succeed(runner, source))
        await wait_until(lambda: stage.processes == 1)

    def left() -> tuple[int, int, int]:
        return (
            len(os.listdir("/proc/self/fd")),
            trio.lowlevel.current_statistics().tasks_living,
            len(runner.orders._stages),
        )

    await redeploy()
    await trio.testing.wait_all_tasks_blocked(0.1)
    before = left()
    for number in range(ROUNDS):
        await redeploy(CRASHING if number % 5 == 4 else None)
        if number % 5 == 4:
            stage.succeed(runner, SILENT)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await stage.yard.supervisor.restart(runner)
            await runner.wait_settled(20)
    await wait_until(lambda: stage.processes == 1)

    await wait_until(lambda: left() == before)
    assert stage.yard.around.spawner.statistics().orphans == 0
    assert await revision_of(runner) == runner.instance.spec.revision == ROUNDS - ROUNDS // 5 + 2
