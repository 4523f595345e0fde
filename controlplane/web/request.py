"""One request as both doors see it, and the strict reading of what it carries.

A `Head` is the request line and the fields; a body is bytes. Pure: no socket,
no framework, and nothing that a sender writes is trusted to be what it says.
"""

from __future__ import annotations

import itertools
import re
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from attrs import frozen

from controlplane.errors import FieldError, InvalidRequest, MalformedJson, NotAcceptable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
EVENT_STREAM = "text/event-stream"
JSON = "application/json"

_decode_value = msgspec.json.Decoder(strict=True).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_life = secrets.token_hex(6)
_serial = itertools.count(1)


@frozen(slots=True)
class Head:
    """Request line and fields.

    `path` is percent-decoded and holds no query; `fields` has lower-case names,
    a repeated field's values are joined by a comma (RFC 9110 section 5.3), so
    that a field that may come once only is malformed when it came twice.
    `peer` is the address of the other end of the socket.
    """

    method: str
    path: str
    query: bytes
    fields: Mapping[bytes, bytes]
    peer: str

    @classmethod
    def of(cls, method: str, path: str, query: bytes, pairs: Iterable[tuple[bytes, bytes]], peer: str) -> Head:
        """Build one from pairs of lower-case name and value."""
        fields: dict[bytes, bytes] = {}
        for name, value in pairs:
            fields[name] = fields[name] + b", " + value if name in fields else value
        return cls(method, path, query, fields, peer)

    @classmethod
    def of_scope(cls, scope: Mapping[str, Any]) -> Head:
        """Build one from an ASGI http scope."""
        client = scope.get("client")
        return cls.of(
            scope["method"],
            scope["path"],
            scope.get("query_string", b""),
            ((name.lower(), value) for name, value in scope["headers"]),
            client[0] if client else "",
        )

    def get(self, name: bytes) -> bytes | None:
        return self.fields.get(name)


def request_id_of(head: Head) -> str:
    """The client's own request id if it is sane, else a new one."""
    own = head.fields.get(b"x-request-id")
    return own.decode("ascii") if own is not None and REQUEST_ID.fullmatch(own) else new_request_id()


def new_request_id() -> str:
    """Unique within and across lives of the control plane; not a secret."""
    return f"{_life}-{next(_serial):x}"


def decode_json(body: bytes) -> Any:
    """Decode a body strictly: UTF-8 without a mark, no NaN, bounded nesting; of duplicate names the last wins.

    Raises:
        MalformedJson: it is not JSON.
    """
    _check_text(body)
    try:
        return _decode_value(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(error) from None


def decode_members(body: bytes) -> dict[str, msgspec.Raw]:
    """Decode a body that must be an object, leaving each member's value as the bytes that were sent.

    Raises:
        MalformedJson: it is not JSON.
        InvalidRequest: it is JSON, but no object.
    """
    _check_text(body)
    try:
        return _decode_members(body)
    except msgspec.ValidationError:
        raise InvalidRequest(
            "The body must be a JSON object.", errors=(FieldError("", "expected an object"),)
        ) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(error) from None


def _check_text(body: bytes) -> None:
    """The decoder does not look into values that it skips, so the whole body is checked here."""
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(f"The body is not UTF-8 (byte {error.start}).") from None


def _malformed(error: Exception) -> MalformedJson:
    if isinstance(error, RecursionError):
        return MalformedJson("The body is nested too deeply.")
    reason = str(error).removeprefix("JSON is malformed: ")
    return MalformedJson(f"The body is not valid JSON: {reason}.")


@lru_cache(maxsize=256)
def prefers_events(accept: bytes | None) -> bool:
    """Whether an Accept field asks for an event stream rather than for JSON (RFC 9110 section 12.5.1).

    JSON wins a tie, so a client that lists both gets a plain answer.

    Raises:
        NotAcceptable: it rules out both.
    """
    if accept is None or not accept.strip():
        return False
    ranges = [_media_range(part) for part in accept.decode("latin-1").split(",") if part.strip()]
    json, events = _quality(ranges, JSON), _quality(ranges, EVENT_STREAM)
    if json == events == 0:
        raise NotAcceptable(f"This route answers {JSON} or {EVENT_STREAM}.")
    return events > json


def accepts_events(accept: bytes | None) -> bool:
    """Whether an Accept field allows an event stream."""
    if accept is None or not accept.strip():
        return True
    ranges = [_media_range(part) for part in accept.decode("latin-1").split(",") if part.strip()]
    return _quality(ranges, EVENT_STREAM) > 0


def _media_range(text: str) -> tuple[str, float]:
    media, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media, max(0.0, min(1.0, float(parameter[2:])))
            except ValueError:
                return media, 0.0
    return media, 1.0


def _quality(ranges: list[tuple[str, float]], media: str) -> float:
    """Of the most specific range that fits; an event stream must be asked for by name or by its type."""
    wildcards = [media, media.partition("/")[0] + "/*", "*/*"]
    for wanted in wildcards:
        for name, quality in ranges:
            if name == wanted:
                return quality
    return 0.0
