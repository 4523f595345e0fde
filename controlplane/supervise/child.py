"""One process of an instance: its pipes, its session, and the ladder by which it is stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Literal

import trio
from attrs import define, field

from controlplane.core.framing import LineSplitter, Oversized
from controlplane.errors import CorralError
from controlplane.protocol.outbox import Outbox
from controlplane.protocol.session import EVENTS_PER_TURN, READ_BYTES, HandshakeRefused, Listener, Session
from controlplane.spawn.client import JobSpec, LeftOvers
from controlplane.supervise.evidence import CONDEMNED
from controlplane.supervise.logbook import MAX_LINE_CHARS, Logbook

if TYPE_CHECKING:
    from controlplane.spawn.client import Exit, Job
    from controlplane.supervise.launch import Launch

LaneName = Literal["primary", "shared", "private", "candidate"]
"""Serves calls; clients that share it; one client; is to take over from the primary."""
STDIN_GRACE_S = 2.0
"""After its stdin is closed, a server may finish what it does (MCP, stdio shutdown)."""
TERM_GRACE_S = 2.0
LAST_WORDS_S = 0.2
"""After the process ended: what it wrote is still in the pipes, unless a grandchild holds them open."""
DRAIN_S = 4.0
"""Calls in flight get this long to finish when their process is to go."""
DRAIN_POLL_S = 0.02
STDERR_LINE_BYTES = MAX_LINE_CHARS * 4


class StartTooSlow(Exception):
    """The handshake was not done in time."""


@define(eq=False)
class Child:
    """A running process and the conversation with it.

    `over` is set when it cannot serve any more: it ended, or the conversation broke.
    """

    job: Job
    session: Session
    logbook: Logbook
    lane: LaneName = "primary"
    """What it is for."""
    started: float = field(factory=trio.current_time, init=False)
    started_at: datetime = field(factory=lambda: datetime.now(UTC), init=False)
    leaving: trio.Event = field(factory=trio.Event, init=False)
    """Set when it takes no new calls: it is over, or Corral replaces it in peace (`retire`)."""
    over: trio.Event = field(factory=trio.Event, init=False)
    exit: Exit | None = field(default=None, init=False)
    condemned: str | None = field(default=None, init=False)
    """Why Corral itself decided to end it."""
    code: str = field(default=CONDEMNED, init=False)
    """The same as a stable word, for the post-mortem."""
    drains: bool = field(default=False, init=False)
    """It goes in peace: its calls may finish, and it gets the whole stop ladder."""
    _silent: trio.Event = field(factory=trio.Event, init=False)

    @classmethod
    def of(cls, job: Job, listener: Listener, logbook: Logbook, version: str, lane: LaneName = "primary") -> Child:
        """Take a spawned job and its pipes."""
        outbox = Outbox(job.stdin_fd, job.close_stdin)
        return cls(job, Session(outbox, job.stdout_fd, listener, version), logbook, lane)

    async def run(self) -> None:
        """Service loop: converse, collect stderr, notice the end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._converse)
            nursery.start_soon(self._collect_stderr)
            nursery.start_soon(self._watch_session)
            self.exit = await self.job.wait()
            with trio.move_on_after(LAST_WORDS_S):
                await self._silent.wait()
            self._end()
            nursery.cancel_scope.cancel()

    def condemn(self, reason: str, code: str = CONDEMNED) -> None:
        """Decide that this process must go, at once."""
        if self.condemned is None:
            self.condemned, self.code = reason, code
        self.drains = False
        self._end()

    def retire(self, reason: str, code: str) -> None:
        """Decide that this process must go, once the calls in flight are answered; see `drain`."""
        if self.condemned is None and not self.over.is_set():
            self.condemned, self.code, self.drains = reason, code, True
            self.leaving.set()

    def _end(self) -> None:
        self.over.set()
        self.leaving.set()

    async def shake_hands(self, timeout_s: float) -> None:
        """Return once the handshake is done, or the process is over.

        Raises:
            HandshakeRefused: the server's answer cannot be used.
            StartTooSlow: it did not answer within `timeout_s` seconds; the process is given up.
        """
        refused: HandshakeRefused | None = None

        async def converse() -> None:
            nonlocal refused
            try:
                await self.session.shake_hands()
            except HandshakeRefused as refusal:
                refused = refusal
            except CorralError:
                return  # it closed its stdin; how it ends is the better reason
            nursery.cancel_scope.cancel()

        with trio.move_on_after(timeout_s) as in_time:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(converse)
                await self.over.wait()
                nursery.cancel_scope.cancel()
        if in_time.cancelled_caught:
            self.condemn("no handshake in time")
            raise StartTooSlow(f"no handshake within {timeout_s:g} s")
        if refused is not None:
            raise refused

    async def drain(self, ended: Callable[[], CorralError]) -> None:
        """Let the calls in flight finish, for `DRAIN_S` at most; subscriptions end now, as they never would."""
        self.session.end_subscriptions(ended)
        with trio.CancelScope(shield=True), trio.move_on_after(DRAIN_S):
            while self._is_waited_for() and not self.over.is_set():  # noqa: ASYNC110  (calls end one by one, a poll is simplest)
                await trio.sleep(DRAIN_POLL_S)

    def _is_waited_for(self) -> bool:
        """Whether a caller waits; an answer that is only owed, for the order's sake, is nobody's."""
        return any(call.outcome is None for call in self.session.pending) or self.session.has_queue

    async def stop(self, by: float = inf) -> None:
        """The stop ladder: stdin, SIGTERM, SIGKILL to everything it ever had. About 4 s at most, never cancelled half-way.

        Args:
            by: Trio time of the SIGKILL at the latest; the graces before it shrink to fit.
        """
        with trio.CancelScope(shield=True):
            self.session.outbox.close()
            is_urgent = self.condemned is not None and not self.drains
            if not is_urgent and not await self._ended_within(min(STDIN_GRACE_S, _left(by) / 2)):
                self.job.signal_nowait(signal.SIGTERM)
                await self._ended_within(min(TERM_GRACE_S, _left(by)))
            try:
                await self.job.kill_all()
            except LeftOvers as left:
                self.logbook.system("error", f"could not end every process: {left}")
            await self._ended_within(TERM_GRACE_S)

    async def _ended_within(self, seconds: float) -> bool:
        if self.exit is not None:
            return True
        with trio.move_on_after(seconds):
            self.exit = await self.job.wait()
        return self.exit is not None

    async def _converse(self) -> None:
        await self.session.run()
        self._silent.set()

    async def _watch_session(self) -> None:
        await self.session.broken.wait()
        # Most servers close stdout by ending; give the exit a moment, so that its status is the reason told.
        await trio.sleep(LAST_WORDS_S)
        self.condemn(self.session.broken_reason)

    async def _collect_stderr(self) -> None:
        splitter = LineSplitter(STDERR_LINE_BYTES)
        while True:
            try:
                data = os.read(self.job.stderr_fd, READ_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.job.stderr_fd)
                continue
            except OSError:
                data = b""
            for number, line in enumerate(splitter.feed(data) if data else splitter.close(), 1):
                if isinstance(line, Oversized):
                    self.logbook.system("warning", f"skipped a line of {line.size_bytes} bytes on stderr")
                else:
                    self.logbook.printed("stderr", line)
                if number % EVENTS_PER_TURN == 0:
                    await trio.lowlevel.checkpoint()
            if not data:
                return
            await trio.lowlevel.checkpoint()


def _left(by: float) -> float:
    return max(0.0, by - trio.current_time())


def job_spec(launch: Launch) -> JobSpec:
    """What to spawn for one process of an instance."""
    return JobSpec(
        argv=launch.argv,
        env=launch.env,
        cwd=launch.cwd,
        kind="instance",
        uid=launch.uid,
        rlimits=launch.rlimits,
        private_tmp=launch.private_tmp,
        confinement=launch.confinement,
        gate=launch.gate,
    )
