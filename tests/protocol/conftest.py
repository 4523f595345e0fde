"""A session over real pipes, and the other side of it, scripted."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from attrs import define, field

from controlplane.core.framing import LineSplitter
from controlplane.protocol.handshake import INITIALIZE_ID, META, MODERN_VERSION, PROBE_ID
from controlplane.protocol.outbox import Outbox
from controlplane.protocol.session import Session

WAIT_S = 5.0
"""A hang guard: everything here takes milliseconds."""


@define
class Pipe:
    """`reads` and `writes` are descriptors; both are closed at the end, by whoever comes first."""

    reads: int
    writes: int

    @classmethod
    def open(cls) -> Pipe:
        return cls(*os.pipe())

    def close_reads(self) -> None:
        if self.reads >= 0:
            os.close(self.reads)
            self.reads = -1

    def close_writes(self) -> None:
        if self.writes >= 0:
            os.close(self.writes)
            self.writes = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe whose writing end does not block, as a child's stdin."""
    opened = Pipe.open()
    os.set_blocking(opened.writes, False)
    yield opened
    opened.close_reads()
    opened.close_writes()


def drain(fd: int) -> bytes:
    """Everything that a pipe holds now."""
    os.set_blocking(fd, False)
    data = b""
    with suppress(BlockingIOError):
        while chunk := os.read(fd, 2**20):
            data += chunk
    return data


@define(eq=False)
class Peer:
    """The child's side of the conversation."""

    stdin: Pipe
    stdout: Pipe
    _splitter: LineSplitter = field(factory=lambda: LineSplitter(2**26), init=False)
    _lines: list[bytes] = field(factory=list, init=False)

    async def line(self) -> bytes:
        """The next line that was written to stdin."""
        with trio.fail_after(WAIT_S):
            while not self._lines:
                await trio.lowlevel.wait_readable(self.stdin.reads)
                data = os.read(self.stdin.reads, 2**16)
                assert data, "stdin was closed"
                self._lines += [line for line in self._splitter.feed(data) if isinstance(line, bytes)]
        return self._lines.pop(0)

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(await self.line())
        return message

    def heard_nothing(self) -> bool:
        """Whether nothing more has been written than what was heard."""
        return not self._lines and not self._splitter.pending_bytes and not drain(self.stdin.reads)

    async def say(self, message: dict[str, Any] | bytes | str) -> None:
        """Write one line to stdout."""
        data = (
            message
            if isinstance(message, bytes)
            else (message if isinstance(message, str) else json.dumps(message)).encode()
        )
        await self.write(data + b"\n")

    async def write(self, data: bytes) -> None:
        with trio.fail_after(WAIT_S):
            while data:
                await trio.lowlevel.wait_writable(self.stdout.writes)
                data = data[os.write(self.stdout.writes, data) :]

    async def answer(self, request: dict[str, Any], value: Any = None) -> None:
        await self.say({"jsonrpc": "2.0", "id": request["id"], "result": {} if value is None else value})

    async def refuse(self, request: dict[str, Any], code: int = -32601, **data: Any) -> None:
        await self.say({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": "no", **data}})

    # -- handshakes

    async def be_legacy(self) -> None:
        probe = await self.hear()
        assert (probe["id"], probe["method"]) == (PROBE_ID, "server/discover")
        await self.refuse(probe)
        initialize = await self.hear()
        assert (initialize["id"], initialize["method"]) == (INITIALIZE_ID, "initialize")
        await self.answer(initialize, {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}})
        assert (await self.hear())["method"] == "notifications/initialized"

    async def be_modern(self) -> None:
        found = {"supportedVersions": [MODERN_VERSION], "capabilities": {}, "_meta": {META + "serverInfo": {}}}
        await self.answer(await self.hear(), found)

    async def be_bare(self) -> None:
        await self.hear()
        await self.say(b'{"error": {"code": -32601, "message": "Method not found"}}')


@define
class Ears:
    """A listener that remembers."""

    notifications: list[tuple[str, bytes | None]] = field(factory=list)
    requests: list[str] = field(factory=list)
    noise: list[bytes] = field(factory=list)
    oversized: list[int] = field(factory=list)

    def on_notification(self, method: str, params: bytes | None) -> None:
        if method == "deep":  # as a listener does that encodes what was nested to the limit
            raise RecursionError
        self.notifications.append((method, params))

    def on_child_request(self, method: str) -> None:
        self.requests.append(method)

    def on_noise(self, line: bytes) -> None:
        self.noise.append(line)

    def on_oversized(self, size_bytes: int) -> None:
        self.oversized.append(size_bytes)


@define(eq=False)
class Talk:
    """A session that runs, and its peer."""

    session: Session
    peer: Peer
    ears: Ears
    nursery: trio.Nursery

    async def shake_hands(self, how: str) -> None:
        with trio.fail_after(WAIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(getattr(self.peer, f"be_{how}"))
                await self.session.shake_hands()

    async def start(self, method: str, params: bytes | None = None, **options: Any) -> Outcome:
        """Begin a call, as far as it gets by itself; its outcome comes later."""
        outcome = Outcome()
        self.nursery.start_soon(outcome.of, self.session, method, params, options)
        await trio.testing.wait_all_tasks_blocked()
        return outcome


@define(eq=False)
class Outcome:
    """What a call comes to: `member`, or `error`."""

    member: bytes | None = None
    error: BaseException | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    _over: trio.Event = field(factory=trio.Event, init=False)

    async def of(self, session: Session, method: str, params: bytes | None, options: dict[str, Any]) -> None:
        try:
            with self.scope:
                self.member = await session.call(method, params, **{"timeout_s": WAIT_S, **options})
        except Exception as error:
            self.error = error
        finally:
            self._over.set()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    async def result(self) -> Any:
        with trio.fail_after(WAIT_S * 20):
            await self._over.wait()
        if self.error is not None:
            raise self.error
        assert self.member is not None
        name, _, raw = self.member.partition(b":")
        assert name == b'"result"', self.member
        return json.loads(raw)

    async def failure(self) -> BaseException:
        with trio.fail_after(WAIT_S * 20):
            await self._over.wait()
        assert self.error is not None, self.member
        return self.error


@asynccontextmanager
async def open_talk() -> AsyncIterator[Talk]:
    """A session on two new pipes. Descriptors and tasks end with the block."""
    stdin, stdout = Pipe.open(), Pipe.open()
    for fd in (stdin.writes, stdin.reads, stdout.reads, stdout.writes):
        os.set_blocking(fd, False)
    ears = Ears()
    session = Session(Outbox(stdin.writes, stdin.close_writes), stdout.reads, ears, "0.0.test")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            yield Talk(session, Peer(stdin, stdout), ears, nursery)
            nursery.cancel_scope.cancel()
    finally:
        for pipe in (stdin, stdout):
            pipe.close_reads()
            pipe.close_writes()


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    """A session before its handshake."""
    async with open_talk() as opened:
        yield opened
