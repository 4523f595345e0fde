"""One instance, from the owner's wish to a serving process and back.

A Runner owns its instance's state and everything that runs for it: it
prepares, has `Primary` run its processes, stops, and turns every failure of its
own into a `failed` instance with a reason. Nothing it does can fell another instance.

Commands (`want_running`, `want_stopped` …) only note the wish and interrupt
what is going on; the one task in `run` does the work. Each command has a number,
so a stage that was interrupted knows that the wish has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio
from attrs import Factory, define, evolve, field, frozen

from controlplane import tracing
from controlplane.core.lifecycle import SETTLED, Desired, State, advance
from controlplane.core.queueing import Priority
from controlplane.core.redact import redactor
from controlplane.errors import Conflict, CorralError, ShuttingDown
from controlplane.supervise import calls, refresh
from controlplane.supervise import evidence as post_mortem
from controlplane.supervise.accounts import Account, Accounts, of_operator
from controlplane.supervise.catalogue import Catalogue
from controlplane.supervise.herald import Herald
from controlplane.supervise.holding import held_to
from controlplane.supervise.lanes import Lanes
from controlplane.supervise.logbook import Logbook
from controlplane.supervise.meter import Meter
from controlplane.supervise.orders import Orders
from controlplane.supervise.preparing import Preparing
from controlplane.supervise.primary import Primary
from controlplane.supervise.start_trace import StartTrace
from controlplane.supervise.succession import Candidate, Succession
from controlplane.supervise.wiretap import Wiretap

if TYPE_CHECKING:
    from controlplane.cache import Cache
    from controlplane.config import Config
    from controlplane.hub import Hub
    from controlplane.model import Evidence, Instance, Sample, Section, Spec
    from controlplane.protocol.handshake import ProtocolFacts
    from controlplane.spawn.cgroups import GroupEvents
    from controlplane.spawn.client import Spawner
    from controlplane.store.journal import Journal
    from controlplane.supervise.child import Child
    from controlplane.supervise.lane import Lane
    from controlplane.supervise.launch import Launch, Prepare
    from controlplane.supervise.scheduler import StartScheduler, StartSlot
    from controlplane.supervise.watchdog import Groups

RETIRE_LIMIT_S = 30.0
"""For removing what a launch leaves: a command to the instance may wait for it, and its next start removes it as well."""
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
    groups: Groups | None = None
    """Who knows what is used in the control groups of launches; None: limits are soft."""
    accounts: Accounts = Factory(lambda self: Accounts(of_operator(self.config)), takes_self=True)


@define(eq=False)
class Runner:
    """Supervises one instance. Public attributes are for reading; only `run`, and what runs in it, changes them."""

    instance: Instance
    around: Surroundings
    priority: Priority = Priority.COMMAND
    """Of its first start; what comes later is its owner's command."""
    phase: str = field(default="pending", init=False)
    child: Child | None = field(default=None, init=False)
    lane: Lane | None = field(default=None, init=False)
    """The primary process, for MCP clients; set while it serves."""
    lanes: Lanes = field(init=False)
    launch: Launch | None = field(default=None, init=False)
    last_sample: Sample | None = field(default=None, init=False)
    catalogue: Catalogue = field(init=False)
    meter: Meter = field(factory=Meter, init=False)
    account: Account = field(init=False)
    """Its owner's."""
    logbook: Logbook = field(init=False)
    herald: Herald = field(init=False)
    wiretap: Wiretap = field(init=False)
    starts: StartTrace = field(factory=StartTrace, init=False)
    orders: Orders = field(factory=Orders, init=False)
    commands: trio.Lock = field(factory=trio.Lock, init=False)
    """Held while a wish is written and given: two never interleave."""
    calls_in_flight: int = field(default=0, init=False)
    """Those that wait for a start or for their turn included."""
    gone: trio.Event = field(factory=trio.Event, init=False)
    """Set when the instance has left: removed, or handed to the next life by a shutdown."""
    protocol: ProtocolFacts | None = field(default=None, init=False)
    """As found at the last handshake."""
    primary: Primary = field(init=False)
    succession: Succession | None = field(default=None, init=False)
    """The last change of revision: under way until it is `done`."""
    _nursery: trio.Nursery | None = field(default=None, init=False)
    _claim: StartSlot | None = field(default=None, init=False)
    _callers: int = field(default=0, init=False)
    """Those that wait for it to serve."""

    def __attrs_post_init__(self) -> None:
        self.lanes = Lanes(self)
        self.primary = Primary(self)
        redact = redactor(self.instance.spec.env)
        self.account = self.around.accounts.of(self.instance.owner)
        journal, hub = self.around.journal, self.around.hub
        self.logbook = Logbook(self.instance, journal, hub, redact)
        self.logbook.limit(self.instance.spec.limits.log_kb_s)
        self.wiretap = Wiretap(self.instance.id, hub)
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
    def started_at(self) -> datetime | None:
        """When the process that is there now was spawned."""
        return self.child.started_at if self.pid is not None and self.child is not None else None

    @property
    def notes(self) -> tuple[str, ...]:
        return self.launch.notes if self.launch is not None else ()

    @property
    def isolation(self) -> str:
        return self.launch.isolation if self.launch is not None else "process"

    def group_events(self, launch: Launch | None) -> GroupEvents | None:
        """What the control group of a launch tells; None where it has none. Two small files are read."""
        group = None if launch is None else launch.confinement.group
        if group is None or self.around.groups is None:
            return None
        return self.around.groups.events(group.name)

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
        self.herald.sampled(sample, self.meter.calls, self.meter.errors)

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

    def give_up(self) -> None:
        """Stop because another node holds the instance, or may; what becomes of it here is told to nobody."""
        if not self.herald.is_silent:
            self.logbook.system("warning", "this control plane lets go of the instance; another one may run it")
            self.herald.is_silent = True
        self.leave()

    def replace(self, instance: Instance) -> None:
        """Take a changed spec or labels; what needs a new process waits for the next start."""
        self._become(evolve(self.instance, spec=instance.spec, labels=instance.labels, updated_at=instance.updated_at))

    def succeed(
        self, spec: Spec, *, commit: Callable[[Spec], Awaitable[None]], failed: Callable[[Evidence], Awaitable[None]]
    ) -> Succession:
        """Begin to replace the revision in force; see `Succession` for the arguments.

        `commit` is awaited while `commands` is held, and cancelled if the control plane ends.

        Raises:
            Conflict: another one is under way, or the instance is being removed.
            ShuttingDown
        """
        if self.orders.leaving:
            raise ShuttingDown("the control plane is stopping", retry_after_s=5)
        if self.gone.is_set() or self._nursery is None or self.instance.desired is Desired.DELETED:
            raise Conflict("the instance is being removed")
        if self.succession is not None and not self.succession.done.is_set():
            raise Conflict(f"revision {self.succession.revision} is on its way already")
        self.succession = Succession(spec, commit, failed)
        candidate, order = Candidate(self, self.succession), self.orders.newest
        if self.serving and self.orders.obeyed == order and self.primary.nursery is not None:
            self.primary.nursery.start_soon(candidate.run_beside, order)
        else:
            self._nursery.start_soon(candidate.run_alone)
        return self.succession

    # -- waiting

    async def wait_settled(self, timeout_s: float) -> None:
        """Return once running, stopped or failed, and no command is being carried out, or at the time limit."""
        with trio.move_on_after(timeout_s):
            while not self.gone.is_set() and not self._is_settled():
                await self.orders.wait()

    async def wait_serving(self, timeout_s: float) -> bool:
        """Wait for a start that is under way, and have it go first; False if it does not come to serving in time."""
        self._callers += 1
        try:
            if self._claim is not None:
                self._claim.promote(Priority.CALL)
            with trio.move_on_after(timeout_s):
                while not self.serving and self._is_coming_up():
                    await self.orders.wait()
        finally:
            self._callers -= 1
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
        if self.orders.obeyed != self.orders.newest or self.state in (
            State.PENDING,
            State.PREPARING,
            State.STARTING,
        ):
            return True
        return self.primary.is_renewing and self.state in (State.RUNNING, State.BACKOFF)

    # -- the one task

    async def run(self) -> None:
        """Service loop of this instance: carry out the wish, whatever happens. Never raises but for cancellation."""
        self.starts.cause = tracing.take() or self.starts.cause
        try:
            async with trio.open_nursery() as self._nursery:
                while not self.orders.leaving and self.instance.desired is not Desired.DELETED:
                    order = self.orders.obey()
                    await self._carry_out()
                    while self.orders.stands(order):
                        await self.orders.wait()
                self._nursery.cancel_scope.cancel()
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
            self.fail(post_mortem.of_error(self._seen(), error, self.logbook.redact))
        except Exception as error:
            # Rule 1: one tenant's trouble, or our bug in handling it, never crosses the supervisor's nursery.
            log.exception("instance %s: internal error", self.instance.id)
            self.fail(self.plain("internal", f"an internal error: {type(error).__name__}"))

    async def _live(self) -> None:
        """Prepare once, then run process after process until the wish changes or the restart policy gives up."""
        slot = self.claim(self.priority, self._move_to_phase)
        self.priority = Priority.COMMAND
        order = self.orders.newest
        self.logbook.redact = redactor(self.instance.spec.env)  # no process is left that knows the secrets of another
        self.starts.begin("start" if self.instance.ever_ran else "deploy", self.instance)
        self.move(State.PENDING, "waiting for a start slot")
        try:
            with self.orders.interruptible(order):
                await slot.acquire()
                self.move(State.PREPARING, "preparing")
                prepared = await self._prepare(slot)
                self.launch = held_to(prepared, self.instance.spec.limits)  # they may have been patched meanwhile
            if not self.orders.stands(order) or await self.primary.run(self.launch, slot, order):
                self._come_to_rest()
        finally:
            slot.release()

    async def _prepare(self, slot: StartSlot) -> Launch:
        asked = self.instance.spec
        launch = await Preparing(self.around, slot, self._move_to_phase, self.logbook).run(self.instance)
        if launch.spec is not None:
            changed = self.instance.spec is not asked  # by a patch that came meanwhile
            self.take(evolve(self.instance.spec, resolved=launch.spec.resolved) if changed else launch.spec)
        return launch

    async def _depart(self) -> None:
        if self.orders.leaving:
            return
        self._move_to_stopped()
        try:
            await self.around.prepare.discard(self.instance)
        except Exception:
            log.exception("instance %s: its files could not be removed", self.instance.id)

    async def retire(self, launch: Launch) -> None:
        """Nothing runs of a launch beside the one in force, nor will: leave nothing of it. Bounded; never raises."""
        if self.orders.leaving or self.instance.desired is Desired.DELETED:  # whatever comes next removes it as well
            return
        with (
            trio.CancelScope(shield=True),
            trio.move_on_at(min(trio.current_time() + RETIRE_LIMIT_S, self.orders.end_by)),
        ):
            try:
                await self.around.prepare.retire(self.instance, launch)
            except Exception:
                log.exception("instance %s: what a launch used could not be cleared up", self.instance.id)

    # -- changes of state

    def take(self, spec: Spec, *, ever_ran: bool | None = None) -> None:
        """Have another spec from now on; `ever_ran` says whether it has served, None that this stays as it is."""
        if ever_ran is None:
            ever_ran = self.instance.ever_ran
        self._become(evolve(self.instance, spec=spec, ever_ran=ever_ran, updated_at=_now()))

    def _become(self, instance: Instance) -> None:
        before, self.instance = self.instance, instance
        self.logbook.limit(instance.spec.limits.log_kb_s)
        if (before.spec, before.labels) != (instance.spec, instance.labels):
            self.herald.changed(instance)

    def move(self, to: State, detail: str) -> None:
        """Go to another state."""
        self.instance = evolve(self.instance, state=advance(self.instance.state, to), updated_at=_now())
        self.phase = detail
        self.starts.moved(to, detail, self.instance)
        self._announce()

    def move_phase(self, phase: str) -> None:
        """Another phase of the same state."""
        self.phase = phase
        self.starts.phase(phase)
        self._announce()

    def _move_to_phase(self, phase: str) -> None:
        if phase != self.phase:
            self.move_phase(phase)

    def _announce(self) -> None:
        under_way = self.succession is not None and not self.succession.done.is_set()
        self.herald.status(self, self.succession if under_way else None)
        self.orders.tell()

    def announce_candidate(self, candidate: Succession | None) -> None:
        """The revision that is to take over is in another phase; None: there is none any more."""
        self.herald.candidate(self, candidate)
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
            self.move(State.DRAINING, "stopping")
        self.move(State.STOPPED, "stopped")

    def fail(self, failure: Evidence) -> None:
        """Come to rest, failed."""
        self.keep(failure)
        if self.state is State.DRAINING:
            self.move(State.STOPPED, "stopped")
        if self.state is State.STOPPED:
            self.move(State.PENDING, "failing")
        if self.state is not State.FAILED:
            self.move(State.FAILED, failure.reason)

    def keep(self, failure: Evidence | None) -> None:
        """Remember a post-mortem and tell everybody."""
        if failure is None or failure is self.instance.last_error:
            return
        self.instance = evolve(self.instance, last_error=failure)
        self.herald.failure(failure)

    # -- small parts

    def claim(self, priority: Priority, told: Callable[[str], None]) -> StartSlot:
        """What the next start of the process in charge needs; a caller who waits for that makes it urgent."""
        if self._callers:
            priority = Priority.CALL
        self._claim = self.around.scheduler.slot(self.instance.owner, priority, told)
        return self._claim

    def _obey(self, desired: Desired) -> None:
        if self.instance.desired is Desired.DELETED:
            return  # nothing brings a deleted instance back
        self.instance = evolve(self.instance, desired=desired, updated_at=_now())
        self.starts.cause = tracing.active.get()
        self.orders.give()

    def plain(self, code: str, reason: str) -> Evidence:
        """A post-mortem without a process."""
        return post_mortem.plain(self._seen(), code, reason)

    def _seen(self) -> post_mortem.Seen:
        return post_mortem.Seen(phase=self.phase, at=_now(), incarnation=self.instance.incarnation)


def _now() -> datetime:
    return datetime.now(UTC)
