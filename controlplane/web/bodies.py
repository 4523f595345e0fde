"""What a request carries, read the way its route takes it: nothing, JSON, or JSON with a file beside it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import trio
from attrs import define, field, frozen

from controlplane.errors import MalformedJson
from controlplane.web import guards
from controlplane.web.multipart import boundary_of, is_multipart, read_parts
from controlplane.web.request import decode_json
from controlplane.wire.convert import structure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quart.wrappers import Request

    from controlplane.deploy.inbox import Visit
    from controlplane.deploy.source.uploads import Upload
    from controlplane.model import Principal
    from controlplane.web.body_guard import BodyFlow
    from controlplane.web.request import Head
    from controlplane.web.route import Route
    from controlplane.web.services import Services

AT_ONCE_BYTES = 2**20
"""A larger body is read in a thread, so that calls go on between its steps: an archive in base64 takes a second."""
UPLOAD_WINDOW_BYTES = 256 * 1024
"""How far an upload may run ahead of the disk."""
UPLOAD_SILENCE_S = 30.0
"""A client that sends nothing for so long has left, whatever its socket says."""
UPLOAD_MAX_S = 900.0
"""A whole upload; 100 MiB by a line of 1 Mbit/s."""


@frozen
class Body:
    """`digest` is of what the request says, for its idempotency key; see `call.Call`."""

    value: Any = None
    digest: bytes = b""
    upload: Upload | None = None


class Where(Protocol):
    """What of a call is known before its body is read."""

    @property
    def head(self) -> Head: ...
    @property
    def path(self) -> Mapping[str, str]: ...
    @property
    def caller(self) -> Principal | None: ...
    @property
    def services(self) -> Services: ...


@asynccontextmanager
async def reading(route: Route, where: Where, request: Request, flow: BodyFlow) -> AsyncIterator[Body]:
    """The body, for as long as it is needed: a file that came with it is thrown away if what follows fails.

    Raises:
        CorralError: it is not what the route takes.
    """
    if route.body is None:
        yield Body()
    elif route.takes_upload and is_multipart(where.head):
        guards.check_encoding(where.head)
        boundary = boundary_of(where.head)
        assert where.caller is not None
        declared = guards.content_length(where.head)
        async with where.services.deployer.inbox.upload(_owner(where), where.caller.owner, declared) as visit:
            yield await _in_parts(route.body, boundary, request, flow, visit)
    elif route.may_be_empty and _says_that_it_is_empty(where.head):
        yield Body(route.body(), _digest({}))
    else:
        guards.check_content_type(where.head)
        guards.check_encoding(where.head)
        with _room(route, where):
            yield await _json(route.body, request)


def _owner(where: Where) -> str:
    """Whose the file will be: the instance's owner's, or the caller's where it is to make one."""
    assert where.caller is not None
    if "id" in where.path:
        return where.services.supervisor.find(where.caller, where.path["id"]).instance.owner
    return where.caller.owner


def _room(route: Route, where: Where) -> AbstractContextManager[None]:
    """Memory for the body, as long as it is held; a deploy never takes what calls need."""
    declared = guards.content_length(where.head)
    if route.takes_upload and where.caller is not None:
        return where.services.guards.deploy_bodies.reserved(where.caller.owner, declared)
    return where.services.guards.bodies.reserved(declared)


async def _json(cls: type[Any], request: Request) -> Body:
    raw = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    if len(raw) <= AT_ONCE_BYTES:
        return _read(raw, cls)
    return await trio.to_thread.run_sync(_read, raw, cls)


def _read(raw: bytes, cls: type[Any]) -> Body:
    value = decode_json(raw)
    return Body(structure(value, cls), _digest(value))


async def _in_parts(cls: type[Any], boundary: bytes, request: Request, flow: BodyFlow, visit: Visit) -> Body:
    spec = _Spec(cls)
    async with aclosing(_arriving(request, flow)) as chunks:
        upload = await read_parts(boundary, chunks, spec.take, visit.receive)
    digest = hashlib.sha256(spec.digest + bytes.fromhex(upload.sha256)).digest()
    return Body(spec.value, digest, upload)


@define
class _Spec:
    """Read as soon as it is there: a file that is meant for a wrong one need not arrive."""

    cls: type[Any]
    value: Any = field(default=None, init=False)
    digest: bytes = field(default=b"", init=False)

    def take(self, raw: bytes) -> None:
        decoded = decode_json(raw)
        self.value, self.digest = structure(decoded, self.cls), _digest(decoded)


async def _arriving(request: Request, flow: BodyFlow) -> AsyncGenerator[bytes, None]:
    """The body's chunks, no faster than they are used."""
    flow.hold(UPLOAD_WINDOW_BYTES)
    ends_at = trio.current_time() + UPLOAD_MAX_S
    chunks = aiter(request.body)
    while True:
        chunk: bytes | None = None
        with trio.move_on_at(min(ends_at, trio.current_time() + UPLOAD_SILENCE_S)) as scope:
            chunk = await anext(chunks, None)
        if scope.cancelled_caught:
            raise MalformedJson("The body did not arrive in time.")
        if chunk is None:
            return
        yield chunk
        flow.used(len(chunk))


def _says_that_it_is_empty(head: Head) -> bool:
    return head.get(b"transfer-encoding") is None and guards.content_length(head) in (None, 0)


def _digest(value: Any) -> bytes:
    """SHA-256 of the JSON, its members in order, so that a client may write them in any."""
    try:
        return hashlib.sha256(msgspec.json.encode(value, order="sorted")).digest()
    except UnicodeEncodeError:  # `structure` has taken it, so the lone surrogate is in a place that is only passed on
        raise MalformedJson("The body holds a lone surrogate.") from None
