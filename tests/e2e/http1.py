"""HTTP/1.1 on bare Trio streams, for tests with many clients: cheap, and a connection is closed when the test says so."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import h11
import trio
from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.e2e.plane import Plane

READ_BYTES = 64 * 1024


class Broken(Exception):
    """The server closed the connection before the end of its answer."""


@define(eq=False)
class Connection:
    """One connection, used by one request at a time."""

    stream: trio.SocketStream
    state: h11.Connection = field(factory=lambda: h11.Connection(h11.CLIENT), init=False)

    async def event(self) -> Any:
        """What comes next; raises Broken."""
        try:
            while (event := self.state.next_event()) is h11.NEED_DATA:
                self.state.receive_data(await self.stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise Broken(str(error)) from None
        if isinstance(event, h11.ConnectionClosed):
            raise Broken("closed")
        return event


@define(eq=False)
class Answer:
    """An answer, as far as it has come."""

    status: int
    fields: Mapping[str, str]
    _connection: Connection
    is_whole: bool = field(default=False, init=False)

    async def chunk(self) -> bytes:
        """More of the body; empty at its end. Raises Broken."""
        event = None if self.is_whole else await self._connection.event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self.is_whole = True
        return b""

    async def body(self) -> bytes:
        """The rest of the body; raises Broken."""
        found = b""
        while chunk := await self.chunk():
            found += chunk
        return found

    @property
    def is_stream(self) -> bool:
        return self.fields.get("content-type", "").startswith("text/event-stream")


@define(eq=False)
class Http:
    """A client of one control plane, with a token; connections are kept and used again."""

    host: str
    port: int
    token: str
    _idle: list[Connection] = field(factory=list, init=False)

    @classmethod
    def of(cls, plane: Plane, token: str | None = None) -> Http:
        host, _, port = plane.url.removeprefix("http://").partition(":")
        return cls(host, int(port), token or plane.token)

    @asynccontextmanager
    async def sent(
        self, method: str, path: str, fields: Mapping[str, str] | None = None, document: Any = None
    ) -> AsyncIterator[Answer]:
        """The answer to a request as it begins; leaving the block before its end closes the connection."""
        body = b"" if document is None else json.dumps(document).encode()
        connection = self._idle.pop() if self._idle else Connection(await trio.open_tcp_stream(self.host, self.port))
        answer: Answer | None = None
        try:
            await connection.stream.send_all(self._request(connection, method, path, fields or {}, body))
            head = await connection.event()
            found = {name.decode(): value.decode("latin-1") for name, value in head.headers}
            answer = Answer(head.status_code, found, connection)
            yield answer
        finally:
            if answer is not None and answer.is_whole and connection.state.their_state is h11.DONE:
                connection.state.start_next_cycle()
                self._idle.append(connection)
            else:
                await trio.aclose_forcefully(connection.stream)

    def _request(self, connection: Connection, method: str, path: str, fields: Mapping[str, str], body: bytes) -> bytes:
        mine = {"Host": f"{self.host}:{self.port}", "Authorization": f"Bearer {self.token}"}
        if body:
            mine |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        send = connection.state.send
        request = h11.Request(method=method, target=path, headers=[*(mine | dict(fields)).items()])
        parts = [send(request), send(h11.Data(data=body)) if body else b"", send(h11.EndOfMessage())]
        return b"".join(part or b"" for part in parts)

    async def close(self) -> None:
        """Close what is kept."""
        for connection in self._idle:
            await trio.aclose_forcefully(connection.stream)
        self._idle.clear()


@asynccontextmanager
async def connected(plane: Plane, token: str | None = None) -> AsyncIterator[Http]:
    """A client for as long as the block lasts."""
    http = Http.of(plane, token)
    try:
        yield http
    finally:
        with trio.CancelScope(shield=True):
            await http.close()
