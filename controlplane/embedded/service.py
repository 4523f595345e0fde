"""One embedded service kept running: start, wait until it serves, start again when it dies, stop.

What a service is comes from its class (`Service`); this module knows no
database. Its output goes to a bounded log file beside its data.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import trio
from attrs import define, field

from controlplane.home import PRIVATE_FILE
from controlplane.spawn.client import Exit, Job, JobSpec, LeftOvers, Spawner, SpawnFailed

log = logging.getLogger(__name__)

READY_LIMIT_S = 60.0
"""From start to first answer: 0.1 s, unless Postgres has to recover after a crash, on a slow disk."""
READY_POLL_S = 0.01
TOOL_LIMIT_S = 120.0
"""For initdb and its like: under a second, on a slow disk many."""
STOP_LIMIT_S = 3.0
"""After its stop signal; then it is killed."""
FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 5.0
"""Pause before a service that died is started again; doubles."""
HEALTHY_S = 10.0
"""A run of this length makes the next pause the first one again."""
LOG_MAX_BYTES = 1 << 20
"""Then the file becomes `.1`, and a new one begins."""
TAIL_LINES = 12
"""Last lines shown when it fails."""
LAST_WORDS_S = 0.5
"""After its end: what it wrote is still in the pipe."""
READ_BYTES = 65536


class EmbeddedFailed(Exception):
    """An embedded service cannot be had; the message says why and what to do."""


FAILURES = (EmbeddedFailed, SpawnFailed, LeftOvers, OSError)
"""What a start may end in, and another one may cure."""


class Service(Protocol):
    """What `Keeper` needs to know. The address never changes while it lives; `variable` is the setting to do without."""

    name: str
    variable: str
    folder: Path
    stop_signal: int

    async def prepare(self) -> None:
        """Once, before the first start. Raises EmbeddedFailed."""

    def before_start(self) -> None:
        """Before each start, when nothing of an earlier run is left."""

    def spec(self) -> JobSpec: ...

    @property
    def stdin(self) -> bytes:
        """Written to it at its start; then comes the end of file."""

    async def is_ready(self, pid: int, /) -> bool: ...


@define(eq=False)
class Output:
    """A service's output: to a file that cannot grow for ever, its last lines in memory."""

    path: Path
    tail: deque[str] = field(factory=lambda: deque(maxlen=TAIL_LINES), init=False)

    async def collect(self, fd: int, scope: trio.CancelScope) -> None:
        """Until its end of file, or until the scope ends it. Takes over the descriptor."""
        with scope:
            async with trio.lowlevel.FdStream(fd) as stream:
                async for data in stream:
                    self.write(data)

    def write(self, data: bytes | bytearray) -> None:
        """Log files are of no use when the disk is full: then only the tail is kept."""
        self.tail.extend(data.decode(errors="replace").splitlines())
        try:
            if self.path.exists() and self.path.stat().st_size > LOG_MAX_BYTES:
                self.path.replace(self.path.with_suffix(".log.1"))
            with open(self.path, "ab", opener=_private) as file:
                file.write(data)
        except OSError:
            return

    def last_words(self) -> str:
        return "\n".join(self.tail) or "it printed nothing"


@define(eq=False)
class Keeper:
    """Keeps one service running, from `start` to `stop`."""

    service: Service
    spawner: Spawner
    output: Output = field(init=False)
    restarts: int = field(default=0, init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _finished: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.output = Output(self.service.folder / f"{self.service.name}.log")

    async def run(self, task_status: trio.TaskStatus[EmbeddedFailed | None] = trio.TASK_STATUS_IGNORED) -> None:
        """Service loop. Reports `None` once it serves, or why it never will."""
        try:
            with self._scope:
                try:
                    await self.service.prepare()
                    await self._run_once(task_status.started)
                except FAILURES as failure:
                    task_status.started(self._explain(failure))
                    return
                await self._restart_for_ever()
        finally:
            self._finished.set()

    async def stop(self) -> None:
        """Stop it and wait until it is gone."""
        self._scope.cancel()
        await self._finished.wait()

    def _explain(self, failure: Exception) -> EmbeddedFailed:
        service = self.service
        if service.variable in str(failure):
            return EmbeddedFailed(str(failure))
        return EmbeddedFailed(
            f"the embedded {service.name} cannot be started: {failure}\nOr set {service.variable} to one that runs."
        )

    async def _restart_for_ever(self) -> None:
        pause = FIRST_RETRY_S
        while True:
            await trio.sleep(pause)
            pause = min(pause * 2, LONGEST_RETRY_S)
            self.restarts += 1
            began = trio.current_time()
            try:
                await self._run_once(lambda: log.warning("%s serves again", self.service.name))
            except FAILURES as failure:
                log.error("%s", self._explain(failure))
            if trio.current_time() - began > HEALTHY_S:
                pause = FIRST_RETRY_S

    async def _run_once(self, on_ready: Callable[[], None]) -> None:
        """From start to end. The end while it serves is logged; before, it is an error."""
        await trio.to_thread.run_sync(self.service.before_start)
        job = await self.spawner.spawn(self.service.spec())
        collecting = [trio.CancelScope(shield=True), trio.CancelScope(shield=True)]  # until after the stop, below
        async with trio.open_nursery() as nursery:
            for fd, scope in zip((job.stdout_fd, job.stderr_fd), collecting, strict=True):
                nursery.start_soon(self.output.collect, fd, scope)
            try:
                failure = await self._feed_and_wait(job)
                if failure is None:
                    on_ready()
                    end = await job.wait()
                    log.error("%s ended (%s); starting it again", self.service.name, _how(end))
            finally:
                with trio.CancelScope(shield=True):  # bounded by STOP_LIMIT_S and kill_all's own limit
                    await self._stop(job)
                for scope in collecting:
                    scope.deadline = trio.current_time() + LAST_WORDS_S
        if failure is not None:
            raise EmbeddedFailed(f"{failure}. Its last words:\n{self.output.last_words()}")

    async def _feed_and_wait(self, job: Job) -> str | None:
        """Until it serves; a sentence if it does not."""
        with trio.move_on_after(READY_LIMIT_S):
            await feed(job, self.service.stdin)
            while not await self.service.is_ready(job.pid):
                if job.exit is not None:
                    return f"it ended at once ({_how(job.exit)})"
                await trio.sleep(READY_POLL_S)
            return None
        return f"it does not serve after {READY_LIMIT_S:g} s"

    async def _stop(self, job: Job) -> None:
        if job.exit is None:
            job.signal_nowait(self.service.stop_signal)
            with trio.move_on_after(STOP_LIMIT_S):
                await job.wait()
        try:
            await job.kill_all()
        except LeftOvers as left:
            log.error("%s: %s", self.service.name, left)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, PRIVATE_FILE)  # a database's log may quote what is in it


async def feed(job: Job, data: bytes) -> None:
    """Write all of a job's standard input and close it; a job that ends meanwhile is no error here."""
    fd, job.stdin_fd = job.stdin_fd, -1
    async with trio.lowlevel.FdStream(fd) as stream:
        try:
            await stream.send_all(data)
        except trio.BrokenResourceError:
            return


async def run_tool(spawner: Spawner, spec: JobSpec, data: bytes = b"") -> bytes:
    """Run a program to its end and return its standard output.

    Raises:
        EmbeddedFailed: it cannot be run, fails, or takes too long.
    """
    name = Path(spec.argv[0]).name
    try:
        job = await spawner.spawn(spec)
    except SpawnFailed as failure:
        raise EmbeddedFailed(f"{name} cannot be run: {failure.message}") from failure
    try:
        with trio.move_on_after(TOOL_LIMIT_S):
            output, errors, end = await _communicate(job, data)
            if end.code != 0:
                words = (errors or output).decode(errors="replace").strip()
                raise EmbeddedFailed(f"{name} failed ({_how(end)}):\n{words[-2000:]}")
            return output
        raise EmbeddedFailed(f"{name} does not end after {TOOL_LIMIT_S:g} s")
    finally:
        with trio.CancelScope(shield=True):  # bounded by kill_all's own limit
            await job.kill_all()


async def _communicate(job: Job, data: bytes) -> tuple[bytes, bytes, Exit]:
    parts: tuple[list[bytes], list[bytes]] = ([], [])

    async def read(fd: int, into: list[bytes]) -> None:
        async with trio.lowlevel.FdStream(fd) as stream:
            into.extend([bytes(chunk) async for chunk in stream])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, job, data)
        nursery.start_soon(read, job.stdout_fd, parts[0])
        nursery.start_soon(read, job.stderr_fd, parts[1])
        end = await job.wait()
    return b"".join(parts[0]), b"".join(parts[1]), end


def _how(end: Exit) -> str:
    return f"signal {-end.code}" if end.code < 0 else f"status {end.code}"
