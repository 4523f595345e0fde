"""The processes that serve an instance's calls: one after the other, and a new revision's beside the last.

One of them is in charge. When it ends, the restart policy decides what follows.
A succession brings in another that is ready already: that one is in charge from
then on, and the one before finishes what it has begun and is stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from random import random
from typing import TYPE_CHECKING

import trio
from attrs import define, evolve, field

from controlplane.core.lifecycle import State
from controlplane.core.queueing import Priority
from controlplane.core.restart import RestartAfter, RestartState, Stop
from controlplane.protocol.handshake import Era
from controlplane.supervise import evidence as post_mortem
from controlplane.supervise.holding import hold_again
from controlplane.supervise.incarnation import Ending, Incarnation, Owner
from controlplane.supervise.lane import Lane
from controlplane.supervise.lanes import Lanes
from controlplane.supervise.meter import Meter

if TYPE_CHECKING:
    from controlplane.model import Evidence, Spec
    from controlplane.supervise.herald import Herald
    from controlplane.supervise.launch import Launch
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.scheduler import StartSlot

RESPAWN_DELAY_S = 0.1
"""After the spawner was lost: the next one is there by then."""
log = logging.getLogger("corral.supervise")


@define(eq=False)
class Primary:
    """Of one Runner, whose state and public attributes it keeps true while processes run."""

    runner: Runner
    nursery: trio.Nursery | None = field(default=None, init=False)
    """Of everything that runs for the instance; None while nothing does."""
    _in_charge: Incarnation | None = field(default=None, init=False)
    _pause: trio.CancelScope | None = field(default=None, init=False)
    """The wait before a restart."""
    _slot: StartSlot = field(init=False)
    """For the next start of the one in charge."""
    _restarts: RestartState = field(init=False)
    is_renewing: bool = field(default=False, init=False)
    """A watchdog has its process replaced in peace: who calls meanwhile waits for the next one."""

    def __attrs_post_init__(self) -> None:
        self._restarts = RestartState(self.runner.instance.spec.restart)

    async def run(self, launch: Launch, slot: StartSlot, order: int) -> bool:
        """Until the wish changes or the restart policy gives up; whether the wish has changed. Nothing is left then."""
        runner = self.runner
        self._restarts = RestartState(runner.instance.spec.restart)
        self._in_charge, self._slot = None, slot
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            runner.lanes.open(nursery, launch, runner.herald)
            try:
                return await self._one_after_the_other(order)
            finally:
                self.nursery = None
                runner.lanes.close()

    async def _one_after_the_other(self, order: int) -> bool:
        runner = self.runner
        while runner.orders.stands(order):
            current = self._in_charge or self._begin(order)
            await current.relieved.wait()
            if current is not self._in_charge:  # another has taken its place, and this one ends by itself
                continue
            self._in_charge = None
            if not runner.orders.stands(order):
                break
            if not await self._goes_on(current.ending, order) and not await self._is_succeeded(order):
                return False
        return True

    async def _goes_on(self, ending: Ending | None, order: int) -> bool:
        """Ask the restart policy and wait out its delay. False when the instance has come to rest."""
        runner = self.runner
        if ending is None:
            runner.fail(runner.plain("internal", "an internal error ended the process"))
            return False
        runner.keep(ending.failure)
        if ending.failure is not None and not runner.instance.ever_ran and not ending.lost:
            # It never served: a wrong command does not mend itself, and its owner is waiting for the answer.
            runner.fail(ending.failure)
            return False
        match self._decide(ending):
            case Stop(reason, failed, crash_loop):
                self._give_up(ending.failure, reason, failed=failed, crash_loop=crash_loop)
                return False
            case RestartAfter(delay_s, _, reason):
                runner.move(State.BACKOFF, f"restarting in {delay_s:.2f} s: {reason}")
                await self._pause_before_restart(delay_s, reason, order)
        return True

    async def _pause_before_restart(self, delay_s: float, reason: str, order: int) -> None:
        runner = self.runner
        self._slot = runner.claim(Priority.RESTART, lambda waiting: runner.move_phase(f"{waiting}: {reason}"))
        with runner.orders.interruptible(order) as self._pause:
            await trio.sleep(delay_s)
            await self._slot.acquire()
            runner.instance = evolve(runner.instance, restarts=runner.instance.restarts + 1)
        self._pause = None

    def _decide(self, ending: Ending) -> RestartAfter | Stop:
        if ending.lost:  # not the server's fault, so it does not count
            return RestartAfter(RESPAWN_DELAY_S, 0, "Corral's spawner was restarted")
        if ending.excused:  # or any caller could drive it into the crash loop
            return RestartAfter(RESPAWN_DELAY_S, 0, "a call ran out of time, and only a new process is in step again")
        now, jitter = trio.current_time(), random()
        self._restarts, decision = self._restarts.on_exit(ending.code, ran_s=ending.ran_s, now=now, jitter=jitter)
        return decision

    def _give_up(self, failure: Evidence | None, reason: str, *, failed: bool, crash_loop: bool) -> None:
        if not failed:
            self.runner.move(State.STOPPED, reason)
            return
        last = failure or self.runner.plain("exited", reason)
        self.runner.fail(post_mortem.of_crash_loop(last, reason) if crash_loop else last)

    async def _is_succeeded(self, order: int) -> bool:
        """Whether a new revision that is on its way takes over from one that has come to rest."""
        succession = self.runner.succession
        if succession is not None:
            with self.runner.orders.interruptible(order):
                await succession.done.wait()
        return self._in_charge is not None or not self.runner.orders.stands(order)

    # -- one process

    def _begin(self, order: int) -> Incarnation:
        """Start the next one of the revision in force."""
        runner, launch = self.runner, self.runner.launch
        assert launch is not None
        incarnation = self._in_charge = self._next(launch, runner.herald, runner.meter)
        runner.move(State.STARTING, "spawning")
        self._start(incarnation, self._slot, order, runner.move_phase)
        return incarnation

    def begin_beside(
        self, launch: Launch, herald: Herald, slot: StartSlot, order: int, progress: Callable[[str], None]
    ) -> Incarnation:
        """Start one that is in charge of nothing until `take_over`."""
        incarnation = self._next(launch, herald, Meter())
        incarnation.lane = "candidate"
        self._start(incarnation, slot, order, progress)
        return incarnation

    def _next(self, launch: Launch, herald: Herald, meter: Meter) -> Incarnation:
        runner = self.runner
        runner.instance = evolve(runner.instance, incarnation=runner.instance.incarnation + 1, uid=launch.uid)
        return Incarnation(
            instance_id=runner.instance.id,
            number=runner.instance.incarnation,
            launch=launch,
            listener=herald,
            logbook=herald.logbook,
            meter=meter,
            journal=runner.around.journal,
            version=runner.around.version,
            start_timeout_s=runner.around.config.start_timeout_s,
            wiretap=runner.wiretap,
            memory_limit_mb=runner.instance.spec.limits.memory_mb,
            events=partial(runner.group_events, launch),
        )

    def _start(self, incarnation: Incarnation, slot: StartSlot, order: int, progress: Callable[[str], None]) -> None:
        orders = self.runner.orders

        def opened(incarnation: Incarnation) -> None:
            slot.release()
            if incarnation is self._in_charge:
                self._open(incarnation)

        owner = Owner(
            opened=opened,
            closed=self._close,
            progress=progress,
            interruptible=lambda: orders.interruptible(order),
            has_changed_its_mind=lambda: not orders.stands(order),
            is_leaving=lambda: orders.leaving,
            end_by=lambda: orders.end_by,
        )
        assert self.nursery is not None
        self.nursery.start_soon(self._run, incarnation, owner, slot)

    async def _run(self, incarnation: Incarnation, owner: Owner, slot: StartSlot) -> None:
        """Run one process to its end. A bug of ours in handling it costs this process and no other."""
        try:
            await incarnation.run(self.runner.around.spawner, owner)
        except Exception:
            log.exception("instance %s: internal error in process %d", incarnation.instance_id, incarnation.number)
        finally:
            slot.release()
            if incarnation is self._in_charge:
                self.runner.child = None
                self._end_lane("the instance's process ended")

    def _open(self, incarnation: Incarnation, *, is_new: bool = False) -> None:
        """The handshake is done: serve."""
        runner, child, facts = self.runner, incarnation.child, incarnation.facts
        assert child is not None
        assert facts is not None
        runner.child, runner.protocol = child, facts
        self.is_renewing = False
        if incarnation.launch is not runner.launch and self.nursery is not None:
            self.nursery.start_soon(hold_again, runner)
        child.lane = "primary"
        runner.lane = Lane(child, facts)
        runner.instance = evolve(runner.instance, ever_ran=True)
        if runner.state is State.RUNNING:
            runner.move_phase("running")
        else:
            runner.move(State.RUNNING, "running")
        runner.catalogue.begin(facts, is_new=is_new)
        if facts.era is Era.BARE:
            runner.logbook.system("warning", "the server answers without ids (bare dialect): calls run one at a time")

    def _close(self, incarnation: Incarnation, *, wanted: bool) -> None:
        """The process serves no longer: no new calls."""
        if incarnation is not self._in_charge:
            return
        runner = self.runner
        runner.catalogue.end()
        if wanted:
            runner.lanes.close()
            runner.move(State.DRAINING, "draining")
        else:
            self.is_renewing = runner.child is not None and runner.child.drains
            runner.child = None
        self._end_lane("the instance is stopping" if wanted else "the instance's process ended")

    def _end_lane(self, reason: str) -> None:
        lane, self.runner.lane = self.runner.lane, None
        if lane is not None:
            lane.retire()
            lane.session.audience.end(reason)

    # -- another revision

    def take_over(self, incarnation: Incarnation, spec: Spec, herald: Herald) -> None:
        """From now on this one serves, which is ready; the one before finishes its calls and goes, and so do its lanes."""
        runner, before, lanes = self.runner, self._in_charge, self.runner.lanes
        assert self.nursery is not None
        assert runner.launch is not None
        self.nursery.start_soon(self._retire, runner.launch, before, lanes)
        self._in_charge = incarnation
        herald.logbook.follow(runner.logbook)
        herald.logbook.system("info", f"revision {spec.revision} takes over from {runner.instance.spec.revision}")
        runner.take(spec)
        runner.launch, runner.herald, runner.logbook = incarnation.launch, herald, herald.logbook
        incarnation.meter = runner.meter
        runner.meter.forget_peaks()
        self._restarts = RestartState(spec.restart)
        runner.lanes = Lanes(runner)
        runner.lanes.open(self.nursery, incarnation.launch, herald)
        lanes.close(replaced=True)
        self._end_lane("a new revision has taken over")
        if before is not None:
            before.dismiss()
        if self._pause is not None:
            self._pause.cancel()
        self._open(incarnation, is_new=True)

    async def _retire(self, launch: Launch, before: Incarnation | None, lanes: Lanes) -> None:
        """Clear up after a revision that was replaced, once nothing runs of it any more."""
        if before is not None:
            await before.ended.wait()
        await lanes.wait_gone()
        await self.runner.retire(launch)
