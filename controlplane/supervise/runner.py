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
from collections.abc import Callable
from datetime import UTC, datetime
from random import random
from typing import TYPE_CHECKING

import trio
from attrs import define, evolve, field, frozen

from controlplane.core.lifecycle import SETTLED, Desired, State, advance
from controlplane.core.redact import redactor
from controlplane.core.restart import RestartAfter, RestartState, Stop
from controlplane.errors import BuildFailed, CorralError
from controlplane.protocol.handshake import Era
from controlplane.supervise import calls, refresh
from controlplane.supervise import evidence as post_mortem
from controlplane.supervise.catalogue import Catalogue
from controlplane.supervise.herald import Herald
from controlplane.supervise.incarnation import Ending, Incarnation, Owner
from controlplane.supervise.lane import Lane
from controlplane.supervise.lanes import Lanes
from controlplane.supervise.logbook import Logbook
from controlplane.supervise.meter import Meter
from controlplane.supervise.orders import Orders

if TYPE_CHECKING:
    from controlplane.cache import Cache
    from controlplane.config import Config
    from controlplane.hub import Hub
    from controlplane.model import Evidence, Instance, Sample, Section
    from controlplane.protocol.handshake import ProtocolFacts
    from controlplane.spawn.client import Spawner
    from controlplane.store.journal import Journal
    from controlplane.supervise.child import Child
    from controlplane.supervise.launch import Launch, Prepare
    from controlplane.supervise.scheduler import StartScheduler, StartSlot

RESPAWN_DELAY_S = 0.1
"""After the spawner was lost: the next one is there by then."""
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
    cache: Cache | None = None


@define(eq=False)
class Runner:
    """Supervises one instance. Public attributes are for reading; only `run` changes them."""

    instance: Instance
    around: Surroundings
    phase: str = field(default="pending", init=False)
    child: Child | None = field(default=None, init=False)
    lane: Lane | None = field(default=None, init=False)
    """The primary process, for MCP clients; set while it serves."""
    lanes: Lanes = field(init=False)
    launch: Launch | None = field(default=None, init=False)
    last_sample: Sample | None = field(default=None, init=False)
    catalogue: Catalogue = field(init=False)
    meter: Meter = field(factory=Meter, init=False)
    logbook: Logbook = field(init=False)
    herald: Herald = field(init=False)
    orders: Orders = field(factory=Orders, init=False)
    commands: trio.Lock = field(factory=trio.Lock, init=False)
    """Held while a wish is written and given: two never interleave."""
    calls_in_flight: int = field(default=0, init=False)
    """Those that wait for a start or for their turn included."""
    gone: trio.Event = field(factory=trio.Event, init=False)
    """Set when the instance has left: removed, or handed to the next life by a shutdown."""
    protocol: ProtocolFacts | None = field(default=None, init=False)
    """As found at the last handshake."""
    _restarts: RestartState = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.lanes = Lanes(self)
        self._restarts = RestartState(self.instance.spec.restart)
        redact = redactor(self.instance.spec.env)
        journal, hub = self.around.journal, self.around.hub
        self.logbook = Logbook(self.instance, journal, hub, redact)
        self.catalogue = Catalogue(self.instance.id, clock=trio.current_time)
        self.herald = Herald(self.instance, journal, hub, self.logbook, self.catalogue.told)

    # -- what others may read

    @property
    def state(self) -> State:
        return self.instance.state

    @property
    def serving(self) -> bool:
        """Whether calls are taken now."""
        return self.instance.state is State.RUNNING and self.child is not None

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

    async def relist(self, section: Section) -> None:
        """See `refresh.list_for_caller`."""
        await refresh.list_for_caller(self, section)

    def sampled(self, sample: Sample) -> None:
        """Take a look's result: for the list, the stream and the journal."""
        self.last_sample = sample
        self.herald.sampled(sample)

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
        self.orders.give(leaving=True)

    def replace(self, instance: Instance) -> None:
        """Take a changed spec or labels; what needs a new process waits for the next start."""
        self.instance = evolve(
            self.instance, spec=instance.spec, labels=instance.labels, updated_at=instance.updated_at
        )

    # -- waiting

    async def wait_settled(self, timeout_s: float) -> None:
        """Return once running, stopped or failed, and no command is being carried out, or at the time limit."""
        with trio.move_on_after(timeout_s):
            while not self.gone.is_set() and not self._is_settled():
                await self.orders.wait()

    async def wait_serving(self, timeout_s: float) -> bool:
        """Wait for a start that is under way; False if it does not come to serving in time."""
        with trio.move_on_after(timeout_s):
            while not self.serving and self._is_coming_up():
                await self.orders.wait()
        return self.serving

    async def wait_gone(self, timeout_s: float) -> bool:
        """Whether the instance has left within `timeout_s` seconds."""
        with trio.move_on_after(timeout_s):
            await self.gone.wait()
        return self.gone.is_set()

    def _is_settled(self) -> bool:
        return self.orders.obeyed == self.orders.newest and self.state in SETTLED

    def _is_coming_up(self) -> bool:
        if self.gone.is_set() or self.orders.leaving or self.instance.desired is not Desired.RUNNING:
            return False
        return self.orders.obeyed != self.orders.newest or self.state in (
            State.PENDING,
            State.PREPARING,
            State.STARTING,
        )

    # -- the one task

    async def run(self) -> None:
        """Service loop of this instance: carry out the wish, whatever happens. Never raises but for cancellation."""
        try:
            while not self.orders.leaving and self.instance.desired is not Desired.DELETED:
                order = self.orders.obey()
                await self._carry_out()
                while self.orders.stands(order):
                    await self.orders.wait()
            await self._depart()
        finally:
            self.gone.set()
            self.orders.tell()

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
        order = self.orders.newest
        self._restarts = RestartState(self.instance.spec.restart)
        self._move(State.PENDING, "waiting for a start slot")
        try:
            with self.orders.interruptible(order):
                await slot.acquire()
                self._move(State.PREPARING, "preparing")
                self.launch = await self._prepare()
            if not self.orders.stands(order) or await self._run_processes(slot, order):
                self._come_to_rest()
        finally:
            slot.release()

    async def _run_processes(self, slot: StartSlot, order: int) -> bool:
        """One primary after the other, and beside them what else clients need; whether the wish has changed."""
        assert self.launch is not None
        async with trio.open_nursery() as nursery:
            self.lanes.open(nursery, self.launch)
            try:
                while self.orders.stands(order):
                    ending = await self._incarnate(self.launch, slot, order)
                    if self.orders.stands(order) and not await self._goes_on(ending, slot, order):
                        return False
            finally:
                self.lanes.close()
        return True

    async def _prepare(self) -> Launch:
        limit = self.around.config.build_timeout_s
        with trio.move_on_after(limit):
            return await self.around.prepare.prepare(self.instance, _Told(self))
        raise BuildFailed(f"preparing took longer than {limit:g} s")

    async def _goes_on(self, ending: Ending, slot: StartSlot, order: int) -> bool:
        """Ask the restart policy and wait out its delay. False when the instance has come to rest."""
        self._keep(ending.failure)
        if ending.failure is not None and not self.instance.ever_ran and not ending.lost:
            # It never served: a wrong command does not mend itself, and its owner is waiting for the answer.
            self._fail(ending.failure)
            return False
        match self._decide(ending):
            case Stop(reason, failed, crash_loop):
                self._give_up(ending.failure, reason, failed=failed, crash_loop=crash_loop)
                return False
            case RestartAfter(delay_s, _, reason):
                self._move(State.BACKOFF, f"restarting in {delay_s:.2f} s: {reason}")
                with self.orders.interruptible(order):
                    await trio.sleep(delay_s)
                    if slot.must_wait:
                        self._move_phase(f"waiting for a start slot: {reason}")
                    await slot.acquire()
                    self.instance = evolve(self.instance, restarts=self.instance.restarts + 1)
        return True

    def _decide(self, ending: Ending) -> RestartAfter | Stop:
        if ending.lost:  # not the server's fault, so it does not count
            return RestartAfter(RESPAWN_DELAY_S, 0, "Corral's spawner was restarted")
        if ending.excused:  # or any caller could drive it into the crash loop
            return RestartAfter(RESPAWN_DELAY_S, 0, "a call ran out of time, and only a new process is in step again")
        now, jitter = trio.current_time(), random()
        self._restarts, decision = self._restarts.on_exit(ending.code, ran_s=ending.ran_s, now=now, jitter=jitter)
        return decision

    async def _incarnate(self, launch: Launch, slot: StartSlot, order: int) -> Ending:
        """Run one process to its end."""
        self.instance = evolve(self.instance, incarnation=self.instance.incarnation + 1, uid=launch.uid)
        self._move(State.STARTING, "spawning")
        incarnation = Incarnation(
            instance_id=self.instance.id,
            number=self.instance.incarnation,
            launch=launch,
            listener=self.herald,
            logbook=self.logbook,
            meter=self.meter,
            journal=self.around.journal,
            version=self.around.version,
            start_timeout_s=self.around.config.start_timeout_s,
        )

        def opened(child: Child, facts: ProtocolFacts) -> None:
            slot.release()
            self._open(child, facts)

        owner = Owner(
            opened=opened,
            closed=self._close,
            progress=self._move_phase,
            interruptible=lambda: self.orders.interruptible(order),
            has_changed_its_mind=lambda: not self.orders.stands(order),
            is_leaving=lambda: self.orders.leaving,
            end_by=lambda: self.orders.end_by,
        )
        try:
            return await incarnation.run(self.around.spawner, owner)
        finally:
            self.child = None
            self._end_lane("the instance's process ended")
            slot.release()

    def _open(self, child: Child, facts: ProtocolFacts) -> None:
        """The handshake is done: serve."""
        self.child, self.protocol = child, facts
        self.lane = Lane(child, facts)
        self.instance = evolve(self.instance, ever_ran=True)
        self._move(State.RUNNING, "running")
        self.catalogue.begin(facts)
        if facts.era is Era.BARE:
            self.logbook.system("warning", "the server answers without ids (bare dialect): calls run one at a time")

    def _close(self, *, wanted: bool) -> None:
        """The process serves no longer: no new calls."""
        self.catalogue.end()
        if wanted:
            self.lanes.close()
            self._move(State.DRAINING, "draining")
        else:
            self.child = None
        self._end_lane("the instance is stopping" if wanted else "the instance's process ended")

    def _end_lane(self, reason: str) -> None:
        lane, self.lane = self.lane, None
        if lane is not None:
            lane.retire()
            lane.session.audience.end(reason)

    async def _depart(self) -> None:
        if self.orders.leaving:
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
        self._announce()

    def _move_phase(self, phase: str) -> None:
        self.phase = phase
        self._announce()

    def _announce(self) -> None:
        self.herald.status(self.instance, self.phase, self.pid)
        self.orders.tell()

    def _come_to_rest(self) -> None:
        """The wish was to stop (or changed under way): be stopped, whatever the state is."""
        if self.state is State.STOPPED:
            self.orders.tell()
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
        if self.state is State.DRAINING:
            self._move(State.STOPPED, "stopped")
        if self.state is State.STOPPED:
            self._move(State.PENDING, "failing")
        if self.state is not State.FAILED:
            self._move(State.FAILED, failure.reason)

    def _keep(self, failure: Evidence | None) -> None:
        """Remember a post-mortem and tell everybody."""
        if failure is None or failure is self.instance.last_error:
            return
        self.instance = evolve(self.instance, last_error=failure)
        self.herald.failure(failure)

    def _give_up(self, failure: Evidence | None, reason: str, *, failed: bool, crash_loop: bool) -> None:
        if not failed:
            self._move(State.STOPPED, reason)
            return
        last = failure or self._plain("exited", reason)
        self._fail(post_mortem.of_crash_loop(last, reason) if crash_loop else last)

    # -- small parts

    def _obey(self, desired: Desired) -> None:
        if self.instance.desired is Desired.DELETED:
            return  # nothing brings a deleted instance back
        self.instance = evolve(self.instance, desired=desired, updated_at=_now())
        self.orders.give()

    def _plain(self, code: str, reason: str, *, hint: str | None = None) -> Evidence:
        seen = post_mortem.Seen(phase=self.phase, at=_now(), incarnation=self.instance.incarnation)
        return post_mortem.plain(seen, code, reason, hint=hint)


@frozen
class _Told:
    """Tells of preparing, in the instance's phase and log."""

    runner: Runner

    def phase(self, phase: str, detail: str) -> None:
        self.runner._move_phase(f"{phase}: {detail}" if detail else phase)

    def output(self, line: bytes) -> None:
        self.runner.logbook.printed("build", line)


def _now() -> datetime:
    return datetime.now(UTC)
