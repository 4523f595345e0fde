"""A new revision takes the place of the one that serves, or leaves it alone.

Beside a process that serves, the new revision is prepared, started and greeted
as a candidate. Once it has answered it is written as the revision in force, and
takes over. Whatever goes wrong before that costs the candidate only. A command
to the instance ends the attempt.

Where nothing serves, there is nothing to spare: the revision is written, and
starts as any other does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio
from attrs import define, evolve, field

from controlplane import tracing
from controlplane.core.lifecycle import Desired
from controlplane.core.queueing import Priority
from controlplane.core.redact import redactor
from controlplane.errors import CorralError
from controlplane.supervise import evidence as post_mortem
from controlplane.supervise.herald import Herald
from controlplane.supervise.preparing import Preparing
from controlplane.supervise.start_trace import StartTrace

if TYPE_CHECKING:
    from controlplane.model import Evidence, Spec
    from controlplane.supervise.incarnation import Incarnation
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.scheduler import StartSlot

TELL_LIMIT_S = 5.0
"""For writing down that a revision failed: a command to the instance may wait for it."""
IN_FORCE = "in force"
COMMANDS = {Desired.RUNNING: "restarted", Desired.STOPPED: "stopped", Desired.DELETED: "removed"}
log = logging.getLogger("corral.supervise")


@define(eq=False)
class Succession:
    """One attempt. `failure` stays None where the revision is in force in the end.

    Where nothing had served, its start is the instance's own, and so is its failure: see `Runner.wait_settled`.

    Args:
        spec: The new revision; the one in force has `resolved` filled in, as its build found it.
        commit: Writes it as the revision in force, and the wish that the instance runs. A `CorralError` refuses it.
        failed: Writes down why it did not take over.
    """

    spec: Spec
    commit: Callable[[Spec], Awaitable[None]]
    failed: Callable[[Evidence], Awaitable[None]]
    phase: str = field(default="pending", init=False)
    failure: Evidence | None = field(default=None, init=False)
    done: trio.Event = field(factory=trio.Event, init=False)

    @property
    def revision(self) -> int:
        return self.spec.revision

    async def wait(self, timeout_s: float) -> bool:
        """Whether it is over within `timeout_s` seconds."""
        with trio.move_on_after(timeout_s):
            await self.done.wait()
        return self.done.is_set()

    def conclude(self) -> None:
        """It is in force."""
        self.phase = IN_FORCE
        self.done.set()


class _Failed(Exception):
    """The candidate does not take over."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence.reason)
        self.evidence = evidence


@define(eq=False)
class Candidate:
    """Carries out one succession."""

    runner: Runner
    succession: Succession
    herald: Herald = field(init=False)
    _trace: StartTrace = field(init=False)
    _preparing: Preparing | None = field(default=None, init=False)
    _process: Incarnation | None = field(default=None, init=False)
    _is_committing: bool = field(default=False, init=False)
    """Interrupted now, nobody knows which revision is in force."""

    def __attrs_post_init__(self) -> None:
        runner, around = self.runner, self.runner.around
        logbook = runner.logbook.beside(redactor(self.succession.spec.env))
        self.herald = Herald(runner.instance, around.journal, around.hub, logbook, runner.catalogue.told)
        self._trace = StartTrace(tracing.active.get())

    # -- the attempt

    async def run_beside(self, order: int) -> None:
        """Beside a process that serves. Never raises but for cancellation."""
        tracing.take()
        self._trace.begin("redeploy", self.runner.instance, self.succession.revision)
        await self._conclude(self._rise(order))
        self._trace.end(None)

    async def run_alone(self) -> None:
        """Where nothing serves. Never raises but for cancellation."""
        await self._conclude(self._replace())

    async def _conclude(self, attempt: Awaitable[None]) -> None:
        try:
            await attempt
        except _Failed as failed:
            await self._fail(failed.evidence)
        except CorralError as error:
            await self._fail(post_mortem.of_error(self._seen(), error, self.herald.logbook.redact))
        except trio.Cancelled:
            await self._fail(self._interrupted())
            raise
        except Exception as error:
            # One tenant's trouble, or our bug in handling it, never crosses the supervisor's nursery.
            log.exception("instance %s: internal error in a succession", self.runner.instance.id)
            await self._fail(post_mortem.plain(self._seen(), "internal", f"an internal error: {type(error).__name__}"))

    async def _rise(self, order: int) -> None:
        """Prepare, start, commit, take over.

        Raises:
            _Failed, CorralError: not so.
        """
        runner = self.runner
        slot = runner.around.scheduler.slot(runner.instance.owner, Priority.COMMAND, self._move_phase)
        try:
            with runner.orders.interruptible(order):
                process = await self._start(slot, order)
                async with runner.commands:
                    await self._check(process)
                    await self._commit()
                    self._take_over(process, order)
                return
        finally:
            slot.release()
        raise _Failed(self._interrupted())

    async def _replace(self) -> None:
        """Commit, and start as any other revision does."""
        runner = self.runner
        async with runner.commands:
            if runner.orders.leaving or runner.instance.desired is Desired.DELETED:
                raise _Failed(self._interrupted())
            await self._commit()
            self.succession.conclude()
            runner.take(self.succession.spec, ever_ran=False)
            runner.want_running()

    async def _start(self, slot: StartSlot, order: int) -> Incarnation:
        """Returns once the candidate has answered, or has ended."""
        runner, succession = self.runner, self.succession
        self._move_phase("waiting for a start slot")
        await slot.acquire()
        self._preparing = Preparing(runner.around, slot, self._move_phase, self.herald.logbook)
        launch = await self._preparing.run(evolve(runner.instance, spec=succession.spec))
        succession.spec = launch.spec or succession.spec
        self._move_phase("spawning")
        process = runner.primary.begin_beside(launch, self.herald, slot, order, self._move_phase)
        self._process = process
        await process.settled.wait()
        return process

    async def _check(self, process: Incarnation) -> None:
        if process.is_serving:
            return
        await process.ended.wait()
        ending = process.ending
        failure = ending.failure if ending is not None else None
        raise _Failed(failure or post_mortem.plain(self._seen(), "exited", "the process ended before it took over"))

    async def _commit(self) -> None:
        self._move_phase("commit")
        self._is_committing = True
        try:
            await self.succession.commit(self.succession.spec)
        except Exception:
            self._is_committing = False
            raise
        self._is_committing = False

    def _take_over(self, process: Incarnation, order: int) -> None:
        runner, spec = self.runner, self.succession.spec
        self.succession.conclude()
        if runner.orders.stands(order):
            runner.primary.take_over(process, spec, self.herald)
        else:  # it is in force, and whatever the instance was told is done with it
            runner.take(spec, ever_ran=True)

    async def _fail(self, failure: Evidence) -> None:
        """Leave nothing of the candidate, and tell everybody. Bounded, never cancelled half-way."""
        runner, succession = self.runner, self.succession
        self._trace.end(failure.code, failure.reason)
        with trio.CancelScope(shield=True):
            if self._process is not None:
                self._process.dismiss()
                await self._process.ended.wait()
            succession.failure = failure
            if not self._is_committing:
                with trio.move_on_at(min(trio.current_time() + TELL_LIMIT_S, runner.orders.end_by)):
                    await self._write_down(failure)
            succession.done.set()
            self.herald.revision_failed(succession.revision, failure)
            runner.announce_candidate(None)
            if self._preparing is not None and self._preparing.launch is not None and not self._is_committing:
                await runner.retire(self._preparing.launch)

    async def _write_down(self, failure: Evidence) -> None:
        try:
            await self.succession.failed(failure)
        except CorralError as error:
            log.warning("instance %s: a revision's failure was not kept: %s", self.runner.instance.id, error)
        except Exception:
            log.exception("instance %s: a revision's failure was not kept", self.runner.instance.id)

    # -- small parts

    def _move_phase(self, phase: str) -> None:
        if phase == self.succession.phase:
            return
        self.succession.phase = phase
        self._trace.phase(phase)
        self.herald.logbook.system("info", f"revision {self.succession.revision}: {phase}")
        self.runner.announce_candidate(self.succession)

    def _interrupted(self) -> Evidence:
        runner = self.runner
        command = "stopped with the control plane" if runner.orders.leaving else COMMANDS[runner.instance.desired]
        return post_mortem.of_interruption(self._seen(), self.succession.revision, command)

    def _seen(self) -> post_mortem.Seen:
        number = 0 if self._process is None else self._process.number
        return post_mortem.Seen(phase=self.succession.phase, at=datetime.now(UTC), incarnation=number)
