"""How the endpoint answers one request, whichever door it came through.

Most answers are one `Reply`. A call that has more to say than its result, or
takes its time, becomes an event stream on the `Outlet`. Neither knows a socket
or a framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from controlplane.supervise.accounts import Account

Headers = tuple[tuple[bytes, bytes], ...]
JSON_FIELD = (b"content-type", b"application/json")


class ClientLeft(Exception):
    """The client closed the connection: there is nobody to write to."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A whole answer. A body is JSON; the door adds its type, length, request id and the steady fields."""

    status: int
    body: bytes = b""
    headers: Headers = ()

    @property
    def is_plain(self) -> bool:
        """Whether it is a success that is nothing but its body."""
        return self.status == 200 and self.body != b"" and not self.headers

    @property
    def fields(self) -> Headers:
        """Its header fields with those that say what the body is: 204 has none, and no length either (RFC 9110 8.6)."""
        if self.status == 204:
            return self.headers
        length = (b"content-length", b"%d" % len(self.body))
        return (JSON_FIELD, length, *self.headers) if self.body else (length, *self.headers)


class Outlet(Protocol):
    """The way back to one client, for an answer that comes in pieces."""

    account: Account | None
    """Of the instance's owner: what is sent counts there; None: not yet."""

    def is_gone(self) -> bool:
        """Whether the client has left, as far as anybody has seen."""
        ...

    def outlive(self) -> None:
        """Let the request go on although its client leaves: for the door, that is no reason to cancel it any more."""
        ...

    async def begin(self, headers: Headers = ()) -> None:
        """Send status 200 and the head of an event stream; once, before the first `send`."""
        ...

    async def send(self, frame: bytes) -> None:
        """Write bytes of the stream; raises ClientLeft. A client that takes nothing is cut by the door."""
        ...

    async def end(self) -> None:
        """End the stream in order."""
        ...
