"""One plain request head, read strictly: the hot lane's only parser.

Pure: bytes in, a value out. It takes one shape of request and nothing else;
what it does not plainly understand is not refused but `NOT_PLAIN`, for
Hypercorn. That is what makes two parsers on one port safe: they never have to
agree on a doubtful request.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from attrs import frozen

from controlplane.errors import NotAcceptable
from controlplane.web.request import prefers_events

HEAD_MAX_BYTES = 16 * 1024

_START = b"POST /mcp/"
_NAME = rb"[A-Za-z0-9_-][A-Za-z0-9._-]*+"
# `/mcp/a/sse` is the route `sse` of `a`, never the endpoint of `sse` that belongs to `a`: as in `asgi_routes.match`.
_TARGET = rb"(/mcp/(" + _NAME + rb"(?:/(?!(?:execute|stream|sse|messages) )" + _NAME + rb")?)(/execute)?)"
_HEAD = re.compile(
    rb"POST " + _TARGET + rb" HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e]*+\r\n)++)\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,9}")
_NOT_PLAIN_FIELDS = frozenset(
    {
        b"transfer-encoding",
        b"content-encoding",
        b"content-range",
        b"te",
        b"trailer",
        b"expect",
        b"upgrade",
        b"http2-settings",
        b"proxy-connection",
        b"origin",  # a browser: CORS is the other door's
        b"access-control-request-method",
        b"access-control-request-headers",
    }
)


class NeedMore:
    """The head is not complete; so far it may still become plain."""


class NotPlain:
    """Not for this lane."""


NEED_MORE: Final = NeedMore()
NOT_PLAIN: Final = NotPlain()


@frozen(slots=True, eq=False)
class PlainHead:
    """A head that is fully understood. `raw` includes the empty line; `length` is the body's size in bytes."""

    raw: bytes
    route: Literal["execute", "mcp"]
    path: str
    ref: str
    fields: dict[bytes, bytes]
    length: int
    close: bool


def parse_head(data: bytes, start: int = 0) -> PlainHead | NeedMore | NotPlain:
    """Read one request head from `data[start:]` (RFC 9112, and much less of it).

    Only `POST /mcp/{ref}/execute HTTP/1.1` and `POST /mcp/{ref} HTTP/1.1` in
    origin-form without escapes or query, CRLF line ends, fields of visible ASCII
    that each come once, with Host and Content-Length, and none that changes how
    the body is framed. What an MCP client accepts is for its endpoint to judge.
    """
    match = _HEAD.match(data, start)
    if match is None:
        return _incomplete(data, start)
    fields: dict[bytes, bytes] = {}
    for line in match[4].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in fields:
            return NOT_PLAIN
        fields[name] = value.strip(b" \t")
    length = fields.get(b"content-length", b"")
    connection = fields.get(b"connection", b"keep-alive").lower()
    if (
        not _NOT_PLAIN_FIELDS.isdisjoint(fields)
        or not _LENGTH.fullmatch(length)
        or b"host" not in fields
        or connection not in {b"keep-alive", b"close"}
        or (match[3] is not None and not _wants_json(fields.get(b"accept")))
        or match.end() - start > HEAD_MAX_BYTES
    ):
        return NOT_PLAIN
    route: Literal["execute", "mcp"] = "mcp" if match[3] is None else "execute"
    return PlainHead(match[0], route, match[1].decode(), match[2].decode(), fields, int(length), connection == b"close")


def _incomplete(data: bytes, start: int) -> NeedMore | NotPlain:
    """More may come, unless what is there has gone wrong already."""
    rest = data[start : start + HEAD_MAX_BYTES + 1]
    if not rest.startswith(_START[: len(rest)]) or len(rest) > HEAD_MAX_BYTES or b"\r\n\r\n" in rest:
        return NOT_PLAIN
    bare = rest.count(b"\n") != rest.count(b"\r\n")
    return NOT_PLAIN if bare else NEED_MORE


def _wants_json(accept: bytes | None) -> bool:
    try:
        return not prefers_events(accept)
    except NotAcceptable:
        return False
