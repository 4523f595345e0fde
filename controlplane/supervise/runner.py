"""One instance, from the owner's wish to a serving process and back.

A Runner owns its instance's state and everything that runs for it: it
prepares, spawns, shakes hands, serves, restarts and stops, one process at a
time, and turns every failure of its own into a `failed` instance with a
reason. Nothing it does can fell another instance.

Commands (`want_running`, `want_stopped` …) only note the wish and interrupt
what is going on; the one task in `run` does the work. Each command has a number,
so a stage that was interrupted knows that the wish has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from random import random
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, evolve, field, frozen

from controlplane.core.jsonrpc import decode_or_none
from controlplane.core.lifecycle import PUBLIC_STATUS, SETTLED, Desired, State, advance
from controlplane.core.redact import redactor
from controlplane.core.restart import RestartAfter, RestartState, Stop
from controlplane.errors import CorralError
from controlplane.model import Evidence, Incarnation, Instance, Sample
from controlplane.protocol.session import HandshakeRefused
from controlplane.spawn.client import JobSpec, SpawnFailed
from controlplane.supervise import calls
from controlplane.supervise import evidence as post_mortem
from controlplane.supervise.child import Child
from controlplane.supervise.logbook import Logbook
from controlplane.supervise.meter import Meter

if TYPE_CHECKING:
    from controlplane.config import Config
    from controlplane.hub import Hub
    from controlplane.protocol.handshake import ProtocolFacts
    from controlplane.spawn.client import Spawner
    from controlplane.store.journal import Journal
    from controlplane.supervise.launch import Launch, Prepare
    from controlplane.supervise.scheduler import StartScheduler, StartSlot

DRAIN_S = 4.0
"""Calls in flight get this long to finish when their instance is asked to stop."""
_LEVELS = {"debug": "debug", "info": "info", "notice": "info", "warning": "warning"}
log = logging.getLogger("corral.supervise")


@frozen(kw_only=True)
class Surroundings:
    """What every Runner works with."""

    config: Config
    version: str
    spawner: Spawner
    prepare: Prepare
    scheduler: StartScheduler
    journal: Journal
    hub: Hub


@define(eq=False)
class Runner:
    """Supervises one instance. Public attributes are for reading; only `run` changes them."""

    instance: Instance
    around: Surroundings
    phase: str = field(default="pending", init=False)
    child: Child | None = field(default=None, init=False)
    launch: Launch | None = field(default=None, init=False)
    last_sample: Sample | None = field(default=None, init=False)
    tools: list[dict[str, Any]] | None = field(default=None, init=False)
    """The catalogue as last seen; None until somebody asked for it."""
    meter: Meter = field(factory=Meter, init=False)
    logbook: Logbook = field(init=False)
    gone: trio.Event = field(factory=trio.Event, init=False)
    """Set when the instance has left: removed, or handed to the next life by a shutdown."""
    serving: bool = field(default=False, init=False)
    protocol: ProtocolFacts | None = field(default=None, init=False)
    """As found at the last handshake."""
    _leaving: bool = field(default=False, init=False)
    _order: int = field(default=0, init=False)
    _scope: trio.CancelScope | None = field(default=None, init=False)
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _restarts: RestartState = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._restarts = RestartState(self.instance.spec.restart)
        redact = redactor(self.instance.spec.env)
        self.logbook = Logbook(self.instance, self.around.journal, self.around.hub, redact)

    # -- what others may read

    @property
    def state(self) -> State:
        return self.instance.state

    @property
    def pid(self) -> int | None:
        return self.child.job.pid if self.child is not None and self.child.exit is None else None

    @property
    def uptime_s(self) -> float | None:
        return trio.current_time() - self.child.started if self.pid is not None and self.child is not None else None

    @property
    def notes(self) -> tuple[str, ...]:
        return self.launch.notes if self.launch is not None else ()

    @property
    def isolation(self) -> str:
        return self.launch.isolation if self.launch is not None else "process"

    async def call(
        self,
        method: str,
        params: bytes | None,
        *,
        timeout_s: float | None = None,
        is_gone: Callable[[], bool] | None = None,
        on_notification: Callable[[str, bytes | None], None] | None = None,
    ) -> bytes:
        """See `calls.place`."""
        return await calls.place(
            self, method, params, timeout_s=timeout_s, is_gone=is_gone, on_notification=on_notification
        )

    async def list_tools(self) -> list[dict[str, Any]]:
        """See `calls.list_tools`."""
        return await calls.list_tools(self)

    def sampled(self, sample: Sample) -> None:
        """Take a look's result: for the list, the stream and the journal."""
        self.last_sample = sample
        self.around.journal.sample(self.instance.id, sample)
        data = {
            "cpu_percent": sample.cpu_percent,
            "memory_mb": sample.memory_mb,
            "processes": sample.processes,
            "calls": sample.calls,
            "errors": sample.errors,
            "p50_ms": sample.p50_ms,
            "p95_ms": sample.p95_ms,
        }
        self.around.hub.publish_nowait(
            "sample", instance_id=self.instance.id, owner=self.instance.owner, data=data, ring=False
        )

    # -- commands

    def want_running(self) -> None:
        """Start, or start again."""
        self._obey(Desired.RUNNING)

    def want_stopped(self) -> None:
        """Stop and stay."""
        self._obey(Desired.STOPPED)

    def want_removed(self) -> None:
        """Stop, delete every file, and leave."""
        self._obey(Desired.DELETED)

    def leave(self) -> None:
        """Stop for the control plane's own end; the wish stays as it is in the database."""
        self._leaving = True
        self._interrupt()

    def replace(self, instance: Instance) -> None:
        """Take a changed spec or labels; what needs a new process waits for the next start."""
        self.instance = evolve(instance, state=self.instance.state, uid=self.instance.uid)

    # -- waiting

    async def wait_settled(self, timeout_s: float) -> None:
        """Return once running, stopped or failed, and no command is being carried out, or at the time limit."""
        with trio.move_on_after(timeout_s):
            while not self.gone.is_set() and not self._is_settled():
                await self._changed.park()

    async def wait_serving(self, timeout_s: float) -> bool:
        """Wait for a start that is under way; False if it does not come to serving in time."""
        with trio.move_on_after(timeout_s):
            while not self.serving and self._is_coming_up():
                await self._changed.park()
        return self.serving

    async def wait_gone(self, timeout_s: float) -> bool:
        """Whether the instance has left within `timeout_s` seconds."""
        with trio.move_on_after(timeout_s):
            await self.gone.wait()
        return self.gone.is_set()

    def _is_settled(self) -> bool:
        return self._obeyed == self._order and self.state in SETTLED

    def _is_coming_up(self) -> bool:
        if self.gone.is_set() or self.instance.desired is not Desired.RUNNING:
            return False
        return self._obeyed != self._order or self.state in (State.PENDING, State.PREPARING, State.STARTING)

    _obeyed: int = field(default=-1, init=False)
    """Number of the last command whose work has begun; -1 before the first."""

    # -- the one task

    async def run(self) -> None:
        """Service loop of this instance: carry out the wish, whatever happens. Never raises but for cancellation."""
        try:
            while not self._leaving and self.instance.desired is not Desired.DELETED:
                self._obeyed = order = self._order
                await self._carry_out()
                await self._wait_order_after(order)
            await self._depart()
        finally:
            self.gone.set()
            self._changed.unpark_all()

    async def _carry_out(self) -> None:
        try:
            if self.instance.desired is Desired.RUNNING:
                await self._live()
            else:
                self._come_to_rest()
        except CorralError as error:
            self._fail(self._plain(error.code, error.detail or error.title, hint=error.hint))
        except Exception as error:
            # Rule 1: one tenant's trouble, or our bug in handling it, never crosses the supervisor's nursery.
            log.exception("instance %s: internal error", self.instance.id)
            self._fail(self._plain("internal", f"an internal error: {type(error).__name__}"))

    async def _live(self) -> None:
        """Prepare once, then run process after process until the wish changes or the restart policy gives up."""
        slot = self.around.scheduler.slot()
        order = self._order
        self._restarts = RestartState(self.instance.spec.restart)
        self._move(State.PENDING, "waiting for a start slot")
        try:
            with self._interruptible(order):
                await slot.acquire()
                self._move(State.PREPARING, "preparing")
                self.launch = await self._prepare()
            while self._order == order and not self._leaving:
                assert self.launch is not None
                failure, code, ran_s, lost = await self._incarnate(self.launch, slot, order)
                slot.release()
                if self._order != order or self._leaving:
                    break
                if not await self._may_go_on(failure, code, ran_s, lost, slot, order):
                    return
            self._come_to_rest()
        finally:
            slot.release()

    async def _prepare(self) -> Launch:
        limit = self.around.config.build_timeout_s
        with trio.move_on_after(limit):
            return await self.around.prepare.prepare(self.instance, self._report)
        raise CorralError(f"preparing took longer than {limit:g} s")

    async def _may_go_on(
        self, failure: Evidence | None, code: int, ran_s: float, lost: bool, slot: StartSlot, order: int
    ) -> bool:
        """Ask the restart policy; wait out its delay. False when the instance has come to rest."""
        if failure is not None and not self.instance.ever_ran:
            # It never served: a wrong command does not mend itself, and its owner is waiting for the answer.
            self._fail(failure)
            return False
        if lost:  # not the server's fault, so it does not count
            decision: RestartAfter | Stop = RestartAfter(0.1, 0, "Corral's spawner was restarted")
        else:
            now, jitter = trio.current_time(), random()
            self._restarts, decision = self._restarts.on_exit(code, ran_s=ran_s, now=now, jitter=jitter)
        match decision:
            case Stop(reason, failed, crash_loop):
                self._give_up(failure, reason, failed=failed, crash_loop=crash_loop)
                return False
            case RestartAfter(delay_s, _, reason):
                self._keep(failure)
                self._move(State.BACKOFF, f"restarting in {delay_s:.2f} s: {reason}")
                with self._interruptible(order):
                    await trio.sleep(delay_s)
                    await slot.acquire()
                if self._order == order and not self._leaving:
                    self.instance = evolve(self.instance, restarts=self.instance.restarts + 1)
        return True

    async def _incarnate(self, launch: Launch, slot: StartSlot, order: int) -> tuple[Evidence | None, int, float, bool]:
        """Run one process to its end.

        Returns:
            The post-mortem (None for a wanted end), the exit code, how long it served in seconds, and
            whether it was lost with the spawner.
        """
        self.instance = evolve(self.instance, incarnation=self.instance.incarnation + 1, uid=launch.uid)
        self.logbook.begin(self.instance.incarnation)
        self.meter.forget_peaks()
        self._move(State.STARTING, "spawning")
        try:
            job = await self.around.spawner.spawn(_job_spec(launch))
        except SpawnFailed as failure:
            return post_mortem.of_spawn_failure(self._seen(None), failure, launch.argv[0]), 127, 0.0, False
        self.child = child = Child.of(job, self, self.logbook, self.around.version)
        started = Incarnation(
            instance_id=self.instance.id, number=self.instance.incarnation, pid=job.pid, started_at=_now()
        )
        self.around.journal.incarnation(started)
        serving_since, failure_seen = None, None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            with self._interruptible(order):
                failure_seen = await self._shake_hands(child)
                if failure_seen is None and not child.over.is_set():
                    slot.release()
                    serving_since = trio.current_time()
                    self._open()
                    await child.over.wait()
            wanted = self._order != order or self._leaving
            if wanted:
                await self._drain(child)
            self.serving = False
            failure = None if wanted else failure_seen or self._autopsy(child, serving_since)
            child.session.fail_pending(lambda _call: calls.crash(failure))
            await child.stop()
            nursery.cancel_scope.cancel()
        return self._bury(child, started, failure, serving_since)

    async def _shake_hands(self, child: Child) -> Evidence | None:
        """Complete the handshake. Returns why it did not come to be; None also when the process ended meanwhile."""
        self._move_phase("handshake")
        limit = self.around.config.start_timeout_s
        outcome: list[Evidence] = []

        async def converse(done: trio.CancelScope) -> None:
            try:
                self.protocol = await child.session.shake_hands()
            except HandshakeRefused as refusal:
                outcome.append(post_mortem.of_refusal(self._seen(None), str(refusal)))
            except CorralError:
                await child.over.wait()  # it closed its stdin; how it ended is the better reason
            done.cancel()

        with trio.move_on_after(limit) as in_time:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(converse, nursery.cancel_scope)
                await child.over.wait()
                nursery.cancel_scope.cancel()
        if in_time.cancelled_caught:
            child.condemn(f"no handshake within {limit:g} s")
            return post_mortem.of_start_timeout(self._seen(None), limit)
        return outcome[0] if outcome else None

    def _open(self) -> None:
        """The handshake is done: serve."""
        self.serving = True
        self.instance = evolve(self.instance, ever_ran=True, last_error=None)
        self._move(State.RUNNING, "running")
        if self.protocol is not None and self.protocol.era.value == "bare":
            self.logbook.system("warning", "the server answers without ids (bare dialect): calls run one at a time")

    async def _drain(self, child: Child) -> None:
        """A wanted end: no new calls, and those in flight get their answers within the drain time."""
        self._move(State.DRAINING, "draining")
        self.serving = False
        with trio.CancelScope(shield=True), trio.move_on_after(DRAIN_S):
            while child.session.pending and not child.over.is_set():
                await trio.sleep(0.02)

    def _autopsy(self, child: Child, serving_since: float | None) -> Evidence | None:
        exit_code = child.exit.code if child.exit is not None else None
        if exit_code == 0 and child.condemned is None and serving_since is not None:
            return None
        lost = child.exit is not None and child.exit.lost
        return post_mortem.of_exit(self._seen(serving_since), exit_code, child.condemned, lost=lost)

    def _bury(
        self, child: Child, started: Incarnation, failure: Evidence | None, serving_since: float | None
    ) -> tuple[Evidence | None, int, float, bool]:
        child.job.close_fds()
        ended = child.exit
        code = ended.code if ended is not None else -9
        ran_s = 0.0 if serving_since is None else trio.current_time() - serving_since
        self.around.journal.incarnation(
            evolve(
                started,
                ended_at=_now(),
                exit_code=code if code >= 0 else None,
                signal=post_mortem.signal_name(-code) if code < 0 else None,
                evidence=failure,
            )
        )
        self.child = None
        # A process that Corral gave up did not end well, whatever status it left with.
        code = code if failure is None or code != 0 else 1
        return failure, code, ran_s, ended is not None and ended.lost

    async def _depart(self) -> None:
        if self._leaving:
            return
        self._move_to_stopped()
        try:
            await self.around.prepare.discard(self.instance)
        except Exception:
            log.exception("instance %s: its files could not be removed", self.instance.id)

    # -- changes of state

    def _move(self, to: State, detail: str) -> None:
        self.instance = evolve(self.instance, state=advance(self.instance.state, to), updated_at=_now())
        self.phase = detail
        self._announce(detail)

    def _move_phase(self, phase: str) -> None:
        self.phase = phase
        self._announce(phase)

    def _announce(self, detail: str) -> None:
        self.around.journal.observe(self.instance)
        self.logbook.system("info", f"{PUBLIC_STATUS[self.state]}: {detail}")
        data: dict[str, Any] = {
            "name": self.instance.name,
            "status": PUBLIC_STATUS[self.state],
            "phase": detail,
            "pid": self.pid,
            "restarts": self.instance.restarts,
            "incarnation": self.instance.incarnation,
        }
        if self.instance.last_error is not None:
            data["reason"] = self.instance.last_error.reason
        self._publish("status", data)
        self._changed.unpark_all()

    def _come_to_rest(self) -> None:
        """The wish was to stop (or changed under way): be stopped, whatever the state is."""
        if self.state is State.STOPPED:
            self._changed.unpark_all()
            return
        self._move_to_stopped()

    def _move_to_stopped(self) -> None:
        if self.state is State.STOPPED:
            return
        if self.state is not State.DRAINING:
            self._move(State.DRAINING, "stopping")
        self._move(State.STOPPED, "stopped")

    def _fail(self, failure: Evidence) -> None:
        self._keep(failure)
        if self.state is State.STOPPED:
            self._move(State.PENDING, "failing")
        if self.state is not State.FAILED:
            self._move(State.FAILED, failure.reason)

    def _keep(self, failure: Evidence | None) -> None:
        """Remember a post-mortem and tell everybody."""
        if failure is None:
            return
        failure = self._redacted(failure)
        self.instance = evolve(self.instance, last_error=failure)
        self.logbook.system("error", failure.reason)
        self._publish("post_mortem", {"code": failure.code, "reason": failure.reason, "phase": failure.phase})

    def _give_up(self, failure: Evidence | None, reason: str, *, failed: bool, crash_loop: bool) -> None:
        if not failed:
            self._move(State.STOPPED, reason)
            return
        last = failure or self._plain("exited", reason)
        self._fail(post_mortem.of_crash_loop(last, reason) if crash_loop else last)

    def _redacted(self, failure: Evidence) -> Evidence:
        redact = self.logbook.redact
        return evolve(
            failure, reason=redact(failure.reason), last_frames=tuple(redact(frame) for frame in failure.last_frames)
        )

    # -- what the child says (protocol.session.Listener)

    def on_notification(self, method: str, params: bytes | None) -> None:
        value = decode_or_none(params)
        if method == "notifications/message" and isinstance(value, Mapping):
            data = value.get("data")
            text = data if isinstance(data, str) else repr(data)
            self.logbook.said(_LEVELS.get(str(value.get("level")), "error"), text)
        if method == "notifications/tools/list_changed":
            self.tools = None
            self._publish("tools_changed", {})
        self._publish("notification", {"method": method, "params": value})

    def on_child_request(self, method: str) -> None:
        self.logbook.system("info", f"the server asked for {method}; refused: Corral declares no client capability")

    def on_noise(self, line: bytes) -> None:
        self.logbook.printed("stdout", line)

    def on_oversized(self, size_bytes: int) -> None:
        self.logbook.system("error", f"the server wrote a message of {size_bytes} bytes on stdout; it was skipped")

    # -- small parts

    def _obey(self, desired: Desired) -> None:
        self.instance = evolve(self.instance, desired=desired, updated_at=_now())
        self._interrupt()

    def _interrupt(self) -> None:
        self._order += 1
        if self._scope is not None:
            self._scope.cancel()
        self._changed.unpark_all()

    @contextmanager
    def _interruptible(self, order: int) -> Iterator[None]:
        """Leave the block early when a command comes; at once when it has come already."""
        with trio.CancelScope() as scope:
            self._scope = scope
            if self._order != order or self._leaving:
                scope.cancel()
            try:
                yield
            finally:
                self._scope = None

    async def _wait_order_after(self, order: int) -> None:
        while self._order == order and not self._leaving:
            await self._changed.park()

    def _report(self, phase: str, detail: str) -> None:
        self._move_phase(f"{phase}: {detail}" if detail else phase)

    def _publish(self, type_: str, data: dict[str, Any]) -> None:
        self.around.hub.publish_nowait(type_, instance_id=self.instance.id, owner=self.instance.owner, data=data)

    def _plain(self, code: str, reason: str, *, hint: str | None = None) -> Evidence:
        return post_mortem.plain(self._seen(None), code, reason, hint=hint)

    def _seen(self, serving_since: float | None) -> post_mortem.Seen:
        frames = self.child.session.last_frames if self.child is not None else []
        return post_mortem.Seen(
            phase=self.phase,
            at=_now(),
            incarnation=self.instance.incarnation,
            stderr_tail=tuple(self.logbook.tail),
            last_frames=tuple(frame.decode("utf-8", "backslashreplace") for frame in frames),
            peak_memory_mb=self.meter.peak_memory_mb or None,
            peak_processes=self.meter.peak_processes or None,
            ran_s=None if serving_since is None else round(trio.current_time() - serving_since, 3),
        )


def _job_spec(launch: Launch) -> JobSpec:
    return JobSpec(
        argv=launch.argv,
        env=launch.env,
        cwd=launch.cwd,
        kind="instance",
        uid=launch.uid,
        rlimits=launch.rlimits,
        private_tmp=launch.private_tmp,
    )


def _now() -> datetime:
    return datetime.now(UTC)
