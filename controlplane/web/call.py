"""What a handler gets and what it gives back; neither knows Quart.

A handler is `async def handler(call: Call) -> Reply`. Everything in a `Call`
has passed the guards and the parsers by the time the handler sees it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from attrs import field, frozen

from controlplane.web.problems import STEADY_HEADERS
from controlplane.wire.convert import unstructure

if TYPE_CHECKING:
    from controlplane.deploy.source.uploads import Upload
    from controlplane.model import Principal
    from controlplane.supervise.runner import Runner
    from controlplane.web.auditing import Entry
    from controlplane.web.problems import Headers
    from controlplane.web.request import Head
    from controlplane.web.services import Services

JSON_TYPE = "application/json"
HTML_TYPE = "text/html; charset=utf-8"
SSE_TYPE = "text/event-stream; charset=utf-8"


@frozen(kw_only=True)
class Call:
    """One request, checked and parsed.

    `query` and `body` are instances of the route's classes; `digest` is SHA-256
    of the body's JSON, whatever its white space and the order of its members, and
    of the file that came beside it. `upload` is that file, kept for as long as the
    handler runs, and for good if a revision comes to name it.
    """

    services: Services
    head: Head
    request_id: str
    path: Mapping[str, str] = field(factory=dict)
    query: Any = None
    body: Any = None
    digest: bytes = b""
    upload: Upload | None = None
    caller: Principal | None = None
    entry: Entry | None = None
    """What the audit log will say of it; None: nothing ever."""

    @property
    def principal(self) -> Principal:
        """Who is asking; only routes that need a role may."""
        assert self.caller is not None
        return self.caller

    def about(self, target: str, owner: str | None) -> None:
        """Tell the audit log what the request turned out to be about, and whose that is."""
        if self.entry is not None:
            self.entry.about(target, owner)

    def find_runner(self) -> Runner:
        """The instance that the path names.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        return self.services.supervisor.find(self.principal, self.path["id"])


@frozen
class Reply:
    """An answer: bytes, or a stream of them that has no time limit."""

    status: int
    body: bytes | AsyncGenerator[bytes, None]
    content_type: str = JSON_TYPE
    headers: Headers = STEADY_HEADERS


Handler = Callable[[Call], Awaitable[Reply]]


def json_reply(value: Any, status: int = 200, *, headers: Headers = ()) -> Reply:
    """Answer with an attrs instance of `wire/answers.py`, or any JSON value."""
    return Reply(status, encode(unstructure(value)), headers=(*STEADY_HEADERS, *headers))


def encode(value: Any) -> bytes:
    """JSON in UTF-8. What a child printed may hold lone surrogates: they become visible escapes."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(value))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case Mapping():
            return {_encodable(key): _encodable(member) for key, member in value.items()}
        case list() | tuple():
            return [_encodable(item) for item in value]
    return value


def as_uuid(text: str) -> UUID | None:
    """A UUID in its usual spelling of 36 characters; None for everything else."""
    if len(text) != 36:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
