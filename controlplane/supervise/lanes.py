"""The processes of one instance beside its primary: started when a client needs one, and let go when idle.

They are children of the same Runner: same command, user and limits, under the
same nursery as the primary's processes, and gone with them. A lane that crashes
costs its own clients their sessions, nobody else anything; it is not restarted
but started again when somebody needs it, later and later if it keeps failing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane import tracing
from controlplane.core import jsonrpc
from controlplane.core.queueing import Priority
from controlplane.errors import Busy, CorralError, InstanceCrashed, InstanceUnavailable
from controlplane.protocol.capabilities import declared
from controlplane.protocol.handshake import LEGACY_VERSIONS, Era, client_info
from controlplane.protocol.session import HandshakeRefused
from controlplane.spawn.client import SpawnFailed
from controlplane.supervise import calls, holding
from controlplane.supervise.child import Child, StartTooSlow, job_spec
from controlplane.supervise.evidence import signal_name
from controlplane.supervise.lane import Lane
from controlplane.supervise.lane_start import LaneStart, LegacyRefused

if TYPE_CHECKING:
    from controlplane.core.tracecontext import TraceContext
    from controlplane.protocol.capabilities import CapabilitySet
    from controlplane.supervise.herald import Herald
    from controlplane.supervise.launch import Launch
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.scheduler import StartSlot

LANES_MAX = 16
"""Processes of one instance beside its primary."""
MORE_MAX = 7
"""Of these for one set of capabilities, beside the first: one for each client that is waited for; then calls share."""
IDLE_S = 300.0
"""A shared process without clients is kept this long: the next one finds it warm."""
UNCLAIMED_S = 60.0
"""A process of its own whose client never came to have it: it left while the process was starting."""
SPARED_S = 60.0
"""A client's own process that was used this recently is not ended to make room."""
REAP_EVERY_S = 15.0
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
"""After a start that failed, the next one waits, twice as long each time."""
log = logging.getLogger("corral.supervise")


@define(eq=False)
class Lanes:
    """All of one instance's. `legacy` and `private` are for clients; the rest is for the Runner."""

    runner: Runner
    refuses_legacy: bool = field(default=False, init=False)
    """The server answered `initialize` with an error; known until the next launch."""
    children: set[Child] = field(factory=set, init=False)
    """The live processes, for those who measure them."""
    _nursery: trio.Nursery | None = field(default=None, init=False)
    _launch: Launch | None = field(default=None, init=False)
    _herald: Herald | None = field(default=None, init=False)
    """Its log hides the secrets of this launch, whatever comes after it."""
    _is_replaced: bool = field(default=False, init=False)
    _lanes: set[Lane] = field(factory=set, init=False)
    _starts: set[LaneStart] = field(factory=set, init=False)
    """All that have been begun and are not buried."""
    _places: trio.Semaphore = field(factory=partial(trio.Semaphore, LANES_MAX), init=False)
    """One that takes the place of an idle one waits until that is gone."""
    _shared: dict[CapabilitySet, LaneStart] = field(factory=dict, init=False)
    _more: dict[CapabilitySet, list[LaneStart]] = field(factory=dict, init=False)
    """Shared ones beside the first, for calls that would wait for somebody else's client there."""
    _spare: LaneStart | None = field(default=None, init=False)
    _closed: trio.Event = field(factory=trio.Event, init=False)
    _gone: trio.Event = field(factory=trio.Event, init=False)
    """Set when it is closed and nothing of it is left."""
    _failures: int = field(default=0, init=False)
    _not_before: float = field(default=0.0, init=False)

    def __len__(self) -> int:
        return len(self._lanes)

    def serving(self) -> list[Lane]:
        """Those that take calls, by the age of their process."""
        return sorted((lane for lane in self._lanes if lane.is_open), key=lambda lane: lane.child.started)

    # -- for clients

    async def legacy(self, capabilities: CapabilitySet) -> Lane:
        """The legacy process for clients with these capabilities, started if there is none.

        Raises:
            LegacyRefused: the server does not speak that era.
            InstanceUnavailable, Busy: none can be started now.
        """
        start = self._shared.get(capabilities)
        if start is None or not start.is_of_use:
            start = LaneStart()
            start.want(_introduction(self.runner, capabilities), capabilities)
            self._begin(start)
            self._shared[capabilities] = start
        return await start.lane_or_error()

    async def roomy(self, lane: Lane) -> Lane:
        """A process like this one where nobody waits for its client, for a call that may ask its own.

        Started if there is none; this one if none can be started.

        Args:
            lane: A shared one, or the primary.
        """
        if not lane.session.is_crowded():
            return lane
        starts = self._more.setdefault(lane.capabilities, [])
        starts[:] = [start for start in starts if start.is_of_use]
        for start in starts:
            if start.lane is not None and not start.lane.session.is_crowded():
                return start.lane
        try:
            coming = next((start for start in starts if not start.done.is_set()), None) or self._another(lane)
            return await coming.lane_or_error()
        except (CorralError, LegacyRefused):
            return lane

    def _another(self, lane: Lane) -> LaneStart:
        starts = self._more[lane.capabilities]
        if len(starts) >= MORE_MAX:
            raise Busy(f"{MORE_MAX} more processes like this one run already", retry_after_s=5)
        start = LaneStart()
        start.want(_introduction(self.runner, lane.capabilities), lane.capabilities)
        self._begin(start)
        starts.append(start)
        return start

    async def private(self, introduction: bytes, capabilities: CapabilitySet) -> Lane:
        """A legacy process for one client alone; see `legacy`. Another is started in advance for the next client.

        Args:
            introduction: The client's own parameters of `initialize`, raw.
            capabilities: What is in them.
        """
        start, self._spare = self._spare, None
        if start is None or start.done.is_set():
            start = LaneStart(is_private=True)
            self._begin(start)
        start.want(introduction, capabilities)
        lane = await start.lane_or_error()
        self._keep_spare()
        return lane

    def _keep_spare(self) -> None:
        """Start a process in advance, if there is none and room for it; a client then waits for its greeting alone."""
        if self._spare is None and not self._closed.is_set() and self._taken() < LANES_MAX:
            self._spare = LaneStart(is_private=True)
            self._begin(self._spare)

    def _begin(self, start: LaneStart) -> None:
        if self._nursery is None:
            raise InstanceUnavailable("the instance is not running", retry_after_s=1)
        wait_s = self._not_before - trio.current_time()
        if wait_s > 0:
            detail = "a process for this client could not be started a moment ago"
            raise InstanceUnavailable(detail, retry_after_s=wait_s)
        self._make_room()
        self._starts.add(start)
        self._nursery.start_soon(self._live, start)

    def _taken(self) -> int:
        """How many run or are on their way, without those that are about to go."""
        return sum(start.is_of_use for start in self._starts)

    def _make_room(self) -> None:
        if self._taken() < LANES_MAX:
            return
        if self._spare is not None:
            self._drop_spare(self._spare)
            return
        idle = [lane for lane in self._lanes if lane.is_open and (lane.is_idle or self._may_go(lane))]
        if not idle:
            raise Busy(
                f"the instance runs {LANES_MAX} processes for its clients already",
                retry_after_s=5,
                hint="end sessions that are no longer used, or deploy with sessions: shared",
            )
        min(idle, key=lambda lane: lane.used_at).retire()

    def _may_go(self, lane: Lane) -> bool:
        """A client's own process that it has not used for a while: its client initializes anew, and the other is served."""
        return lane.is_private and not lane.session.pending and trio.current_time() - lane.used_at > SPARED_S

    # -- for the Runner

    def open(self, nursery: trio.Nursery, launch: Launch, herald: Herald) -> None:
        """From now on processes may be started; they run in this nursery, and are told of by this herald."""
        self._nursery, self._launch, self._herald, self._closed = nursery, launch, herald, trio.Event()
        self._gone = trio.Event()
        self.refuses_legacy, self._failures, self._not_before = False, 0, 0.0
        nursery.start_soon(self._reap)

    def follow(self, launch: Launch) -> None:
        """Have processes that are started from now on be of the same launch with other limits."""
        if self._launch is not None:
            self._launch = launch

    def close(self, *, replaced: bool = False) -> None:
        """The instance stops, or others take over: calls in flight may finish, then every process ends."""
        self._is_replaced = replaced
        self._nursery = self._spare = None
        self._shared.clear()
        self._more.clear()
        self._closed.set()
        for lane in self._lanes:
            lane.retire()
        self._look_whether_gone()

    async def wait_gone(self) -> None:
        """Until every process has ended, after `close`."""
        await self._gone.wait()

    def _look_whether_gone(self) -> None:
        if self._closed.is_set() and not self._starts:
            self._gone.set()

    async def _reap(self) -> None:
        while not self._closed.is_set():
            with trio.move_on_after(REAP_EVERY_S):
                await self._closed.wait()
            now = trio.current_time()
            for lane in self._lanes:
                if lane.is_idle and now - lane.used_at > (UNCLAIMED_S if lane.is_private else IDLE_S):
                    lane.retire()
            spare = self._spare
            if spare is not None and now - spare.since > IDLE_S and not any(lane.is_private for lane in self._lanes):
                self._drop_spare(spare)

    def _drop_spare(self, spare: LaneStart) -> None:
        self._spare = None
        spare.dropped.set()

    # -- one lane

    async def _live(self, start: LaneStart) -> None:
        """From waiting for a place to burial. What goes wrong is told to those who wait, and goes no further."""
        cause = tracing.take()
        try:
            async with self._places:
                if not self._closed.is_set():
                    await self._live_in_place(start, cause)
        finally:
            self._starts.discard(start)
            start.fail(self._stopped())
            self._look_whether_gone()

    async def _live_in_place(self, start: LaneStart, cause: TraceContext | None) -> None:
        try:
            with tracing.during("spawn", parent=cause, attributes=self._described()):
                child = await self._spawn(start)
        except CorralError as error:
            start.fail(error)
            return
        self.children.add(child)
        self.runner.wiretap.join(child)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.run)
                await self._serve(start, child)
                child.session.fail_pending(lambda: self._ended(child))
                child.session.audience.end(_reason(child))
                await child.stop(self.runner.orders.end_by)
                nursery.cancel_scope.cancel()
        except Exception as error:
            # One tenant's trouble, or our bug in handling it, never crosses the supervisor's nursery.
            log.exception("instance %s: internal error in a lane", self.runner.instance.id)
            start.fail(InstanceUnavailable(f"an internal error: {type(error).__name__}", retry_after_s=1))
        finally:
            self.children.discard(child)
            self.runner.wiretap.leave(child)
            child.job.close_fds()

    def _described(self) -> dict[str, tracing.Value]:
        instance = self.runner.instance
        return {
            "corral.instance.id": str(instance.id),
            "corral.instance.name": instance.name,
            "corral.owner": instance.owner,
        }

    async def _spawn(self, start: LaneStart) -> Child:
        launch, herald, around = self._launch, self._herald, self.runner.around
        assert launch is not None
        assert herald is not None
        slot = around.scheduler.slot(
            self.runner.instance.owner, Priority.CALL if start.wanted.is_set() else Priority.RESTART
        )
        try:
            await _first(slot.acquire, self._closed.wait, partial(_promote_when_wanted, slot, start))
            if self._closed.is_set():
                raise self._stopped()
            job = await around.spawner.spawn(job_spec(launch))
            if launch is not self._launch:
                await holding.hold_again(self.runner)
        except SpawnFailed as failed:
            self._count_failure()
            raise InstanceUnavailable(
                f"a process for this client could not be started: {failed}", retry_after_s=1
            ) from None
        finally:
            slot.release()
        logbook = herald.logbook.beside(herald.logbook.redact)
        return Child.of(job, herald, logbook, around.version, "private" if start.is_private else "shared")

    async def _serve(self, start: LaneStart, child: Child) -> None:
        """Wait to be wanted, greet, and stay until the process is over or has to go, or the instance stops."""
        closed = self._closed
        await _first(start.wanted.wait, start.dropped.wait, child.over.wait, closed.wait)
        if closed.is_set() or not start.wanted.is_set() or child.over.is_set():
            start.fail(self._ended(child))
            return
        await _first(partial(self._welcome, start, child), closed.wait)
        lane, process = start.lane, f"process {child.job.pid}, for {start.whom}"
        if lane is None:
            start.fail(self._ended(child))
            return
        child.logbook.system("info", f"started {process}")
        await _first(lane.retired.wait, child.leaving.wait, closed.wait)
        if lane.retired.is_set():
            child.logbook.system("info", f"not needed any more: {process}")
        elif child.leaving.is_set():
            child.logbook.system("error", f"{_reason(child)}: {process}; its clients begin anew")
        self._lanes.discard(lane)
        lane.retire()
        await child.drain(lambda: self._ended(child))

    async def _welcome(self, start: LaneStart, child: Child) -> None:
        """Greet, and tell those who wait what came of it."""
        try:
            lane = await self._greet(start, child)
        except (CorralError, LegacyRefused) as error:
            child.logbook.system("warning", f"could not be used: process {child.job.pid}, for {start.whom}: {error}")
            start.fail(error)
            return
        self._lanes.add(lane)
        start.succeed(lane)

    async def _greet(self, start: LaneStart, child: Child) -> Lane:
        child.session.introduce(start.introduction, may_ask=bool(start.capabilities), is_private=start.is_private)
        try:
            await child.shake_hands(self.runner.around.config.start_timeout_s)
        except HandshakeRefused as refused:
            if self.runner.protocol is not None and self.runner.protocol.era is Era.MODERN:
                self.refuses_legacy = True
                raise LegacyRefused(str(refused)) from None
            self._count_failure()
            raise InstanceUnavailable(child.logbook.redact(str(refused)), retry_after_s=1) from None
        except StartTooSlow as slow:
            self._count_failure()
            raise InstanceUnavailable(str(slow), retry_after_s=1) from None
        facts = child.session.facts
        if facts is None:
            self._count_failure()
            raise self._ended(child)
        self._failures = 0
        return Lane(child, facts, start.capabilities, start.is_private)

    def _ended(self, child: Child) -> CorralError:
        if child.leaving.is_set() and not self.runner.orders.leaving:
            tail = list(child.logbook.tail)
            return InstanceCrashed(_reason(child), evidence={"stderr_tail": tail} if tail else {})
        return self._stopped()

    def _stopped(self) -> CorralError:
        return calls.crash(None, leaving=self.runner.orders.leaving, replaced=self._is_replaced)

    def _count_failure(self) -> None:
        delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2**self._failures)
        self._failures += 1
        self._not_before = trio.current_time() + delay_s


async def _promote_when_wanted(slot: StartSlot, start: LaneStart) -> None:
    """A spare one is started for nobody, until somebody comes."""
    await start.wanted.wait()
    slot.promote(Priority.CALL)
    await trio.sleep_forever()


def _introduction(runner: Runner, capabilities: CapabilitySet) -> bytes:
    return jsonrpc.encode(
        {
            "protocolVersion": LEGACY_VERSIONS[0],
            "capabilities": declared(capabilities),
            "clientInfo": client_info(runner.around.version),
        }
    )


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    """Wait until one of them returns."""
    async with trio.open_nursery() as nursery:

        async def until(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(until, wait)


def _reason(child: Child) -> str:
    if child.condemned is not None:
        return child.condemned
    if child.exit is None:
        return "the process ended"
    code = child.exit.code
    return f"the process was ended by {signal_name(-code)}" if code < 0 else f"the process ended with status {code}"
