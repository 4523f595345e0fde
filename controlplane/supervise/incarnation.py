"""One process of an instance, from spawn to burial.

An `Incarnation` here is the running thing; `model.Incarnation` is its record.
It reports to its owner through callbacks and ends in an `Ending`; what follows
from that is the owner's decision. Two of an instance may be there at a time: one
that serves, and one that is to take its place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import trio
from attrs import define, evolve, field, frozen

from controlplane import model
from controlplane.protocol.session import HandshakeRefused
from controlplane.spawn.client import LeftOvers, SpawnFailed
from controlplane.supervise import calls
from controlplane.supervise import evidence as post_mortem
from controlplane.supervise.child import Child, StartTooSlow, job_spec

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.errors import CorralError
    from controlplane.protocol.handshake import ProtocolFacts
    from controlplane.protocol.session import Listener
    from controlplane.spawn.cgroups import GroupEvents
    from controlplane.spawn.client import Spawner
    from controlplane.store.journal import Journal
    from controlplane.supervise.child import LaneName
    from controlplane.supervise.launch import Launch
    from controlplane.supervise.logbook import Logbook
    from controlplane.supervise.meter import Meter
    from controlplane.supervise.wiretap import Wiretap

FRAME_CHARS = 500
"""Of each last frame in a post-mortem; cut after redaction, or the start of a secret would stay."""


@frozen(kw_only=True)
class Ending:
    """How a process ended. `failure` is None for an end that was wanted, or a clean one.

    `code` is the exit status (negative: signal); `ran_s` how long it served, in seconds, 0 if
    never; `lost` says that it went down with the spawner; `excused`, that Corral gave it up over a caller's time limit.
    """

    failure: model.Evidence | None
    code: int
    ran_s: float = 0.0
    lost: bool = False
    excused: bool = False


class Closed(Protocol):
    """See `Owner.closed`."""

    def __call__(self, incarnation: Incarnation, /, *, wanted: bool) -> None: ...


@frozen(kw_only=True)
class Owner:
    """What an incarnation needs of the Runner it belongs to."""

    opened: Callable[[Incarnation], None]
    """The handshake is done."""
    closed: Closed
    """No new calls: the wish has changed or it was dismissed (`wanted`), or the process is over."""
    progress: Callable[[str], None]
    """A phase begins."""
    interruptible: Callable[[], AbstractContextManager[trio.CancelScope]]
    """Leave the block early when the wish changes."""
    has_changed_its_mind: Callable[[], bool]
    is_leaving: Callable[[], bool]
    """The control plane itself ends."""
    end_by: Callable[[], float]
    """Trio time by which the process must be gone."""


@define(eq=False)
class Incarnation:
    """Runs once. `child` and `facts` are set once there is a process, and once its handshake is done."""

    instance_id: UUID
    number: int
    launch: Launch
    listener: Listener
    logbook: Logbook
    meter: Meter
    journal: Journal
    version: str
    start_timeout_s: float
    wiretap: Wiretap
    memory_limit_mb: int
    events: Callable[[], GroupEvents | None] = lambda: None
    """What its control group tells, if it has one."""
    lane: LaneName = "primary"
    child: Child | None = field(default=None, init=False)
    facts: ProtocolFacts | None = field(default=None, init=False)
    settled: trio.Event = field(factory=trio.Event, init=False)
    """Set when the handshake is done, or will not be."""
    relieved: trio.Event = field(factory=trio.Event, init=False)
    """Set when it has ended, or need not be waited for: another has taken its place."""
    ended: trio.Event = field(factory=trio.Event, init=False)
    """Set when nothing of it is left."""
    ending: Ending | None = field(default=None, init=False)
    """How it ended; None before, or if an error of ours ended it."""
    is_dismissed: bool = field(default=False, init=False)
    _stage: trio.CancelScope | None = field(default=None, init=False)
    _phase: str = field(default="spawn", init=False)
    _serving_since: float | None = field(default=None, init=False)
    _kills_before: int = field(default=0, init=False)

    @property
    def is_serving(self) -> bool:
        """Whether it has answered, and runs on."""
        return self.facts is not None and self.child is not None and not self.child.over.is_set()

    def dismiss(self) -> None:
        """It is not needed any more: its calls in flight may finish, then it is stopped."""
        self.is_dismissed = True
        self.relieved.set()
        if self._stage is not None:
            self._stage.cancel()

    async def run(self, spawner: Spawner, owner: Owner) -> None:
        """Spawn, shake hands, serve until the end, and leave nothing behind. The end is in `ending`."""
        try:
            self.ending = await self._live(spawner, owner)
        finally:
            self.settled.set()
            self.relieved.set()
            self.ended.set()

    async def _live(self, spawner: Spawner, owner: Owner) -> Ending:
        self.logbook.begin(self.number)
        self.meter.forget_peaks()
        self._kills_before = self._oom_kills()
        try:
            job = await spawner.spawn(job_spec(self.launch))
        except SpawnFailed as failed:
            refused = post_mortem.of_spawn_failure(self._seen(), failed, self.launch.argv[0])
            return Ending(failure=refused, code=127, lost=failed.stage == "spawner")
        self.child = child = Child.of(job, self.listener, self.logbook, self.version, self.lane)
        self.wiretap.join(child)
        record = model.Incarnation(
            instance_id=self.instance_id,
            number=self.number,
            pid=job.pid,
            started_at=child.started_at,
            revision=self.launch.revision,
        )
        self.journal.incarnation(record)
        try:
            failure = await self._converse(child, owner)
        except BaseException:  # cancelled from above, or a bug of ours: the process goes all the same
            with trio.CancelScope(shield=True), suppress(LeftOvers):
                await child.job.kill_all()
            raise
        finally:
            self.wiretap.leave(child)
            child.job.close_fds()
        return self._bury(child, record, failure)

    async def _converse(self, child: Child, owner: Owner) -> model.Evidence | None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            failure = await self._serve(child, owner)
            child.session.fail_pending(lambda: self._epitaph(failure, owner))
            await child.stop(owner.end_by())
            nursery.cancel_scope.cancel()
        return failure

    async def _serve(self, child: Child, owner: Owner) -> model.Evidence | None:
        """Stay with the process to its end; returns why it failed, None for a wanted or clean end."""
        refusal = None
        with owner.interruptible() as self._stage:
            if self.is_dismissed:
                self._stage.cancel()
            refusal = await self._shake_hands(child, owner)
            if refusal is None and not child.over.is_set() and child.session.facts is not None:
                self._phase, self._serving_since = "running", trio.current_time()
                self.facts = child.session.facts
                owner.opened(self)
                self.settled.set()
                await child.leaving.wait()
        if self.is_dismissed or owner.has_changed_its_mind():
            owner.closed(self, wanted=True)
            await child.drain(lambda: self._epitaph(None, owner))
            return None
        owner.closed(self, wanted=False)
        failure = refusal or self._autopsy(child)
        if child.drains and not child.over.is_set():
            await child.drain(lambda: self._epitaph(failure, owner))
        return failure

    def _epitaph(self, failure: model.Evidence | None, owner: Owner) -> CorralError:
        return calls.crash(failure, leaving=owner.is_leaving(), replaced=self.is_dismissed)

    async def _shake_hands(self, child: Child, owner: Owner) -> model.Evidence | None:
        """Returns why the handshake did not come to be; None also when the process ended meanwhile."""
        self._phase = "handshake"
        owner.progress(self._phase)
        try:
            await child.shake_hands(self.start_timeout_s)
        except HandshakeRefused as refused:
            return post_mortem.of_refusal(self._seen(), self.logbook.redact(str(refused)))
        except StartTooSlow:
            return post_mortem.of_start_timeout(self._seen(), self.start_timeout_s)
        return None

    def _autopsy(self, child: Child) -> model.Evidence | None:
        ended = child.exit
        if ended is not None and ended.code == 0 and child.condemned is None and self._serving_since is not None:
            return None
        code = None if ended is None else ended.code
        lost = ended is not None and ended.lost
        has_own_code = child.code != post_mortem.CONDEMNED
        if not lost and not has_own_code and self._oom_kills() > self._kills_before:
            return post_mortem.of_memory_limit(self._seen(), code, self.memory_limit_mb)
        return post_mortem.of_exit(self._seen(), code, child.condemned, as_code=child.code, lost=lost)

    def _oom_kills(self) -> int:
        """Processes that the kernel has ended at the memory limit, since the limit was set."""
        events = self.events()
        return 0 if events is None else events.oom_kills or 0

    def _bury(self, child: Child, record: model.Incarnation, failure: model.Evidence | None) -> Ending:
        code = child.exit.code if child.exit is not None else -9
        self.journal.incarnation(
            evolve(
                record,
                ended_at=_now(),
                exit_code=code if code >= 0 else None,
                signal=post_mortem.signal_name(-code) if code < 0 else None,
                evidence=failure,
            )
        )
        return Ending(
            failure=failure,
            # A process that Corral gave up did not end well, whatever status it left with.
            code=1 if failure is not None and code == 0 else code,
            ran_s=0.0 if self._serving_since is None else trio.current_time() - self._serving_since,
            lost=child.exit is not None and child.exit.lost,
            excused=child.condemned is not None and child.session.gave_up,
        )

    def _seen(self) -> post_mortem.Seen:
        frames = self.child.session.last_frames if self.child is not None else []
        redact = self.logbook.redact
        since = self._serving_since
        return post_mortem.Seen(
            phase=self._phase,
            at=_now(),
            incarnation=self.number,
            stderr_tail=tuple(self.logbook.tail),
            last_frames=tuple(redact(frame.decode("utf-8", "backslashreplace"))[:FRAME_CHARS] for frame in frames),
            peak_memory_mb=self.meter.peak_memory_mb or None,
            peak_processes=self.meter.peak_processes or None,
            ran_s=None if since is None else round(trio.current_time() - since, 3),
            samples=self.meter.trail(trio.current_time()),
        )


def _now() -> datetime:
    return datetime.now(UTC)
