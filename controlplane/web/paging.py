"""Pages of what is held in memory: instances, tokens, users.

A cursor names the last row that was given out, by its place in the order, so
rows that come and go in between neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
from attrs import frozen

from controlplane.errors import FieldError
from controlplane.wire.fields import bounded
from controlplane.wire.wrong import invalid_request

MAX_LIMIT = 500
DEFAULT_LIMIT = 100
MAX_CURSOR_CHARS = 512

Key = tuple[str, ...]
T = TypeVar("T")

_decode = msgspec.json.Decoder(tuple[str, ...]).decode


@frozen(kw_only=True)
class PageQuery:
    """What every list takes."""

    limit: int = bounded(DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT, description="Rows of a page.")
    cursor: str | None = bounded(
        None, minLength=1, maxLength=MAX_CURSOR_CHARS, description="`next_cursor` of the page before."
    )


def page(
    rows: Iterable[T], key: Callable[[T], Key], query: PageQuery, *, has_more: bool = False
) -> tuple[list[T], str | None]:
    """The rows after the query's cursor, in the order of `key`, and the cursor of the next page.

    Args:
        rows: All, or the first pages of several lists that are merged.
        key: A row's place.
        query: Where the page begins, and how long it is.
        has_more: One of those lists has more rows than are here.

    Raises:
        InvalidRequest: the cursor is none of ours.
    """
    after = _decoded(query.cursor) if query.cursor is not None else None
    ordered = sorted(((key(row), row) for row in rows), key=lambda pair: pair[0])
    rest = [pair for pair in ordered if after is None or pair[0] > after]
    kept = rest[: query.limit]
    goes_on = bool(kept) and (has_more or len(rest) > query.limit)
    return [row for _, row in kept], _encoded(kept[-1][0]) if goes_on else None


def _encoded(key: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()


def _decoded(cursor: str) -> Key:
    try:
        return _decode(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise invalid_request([FieldError("?cursor", "is not a cursor that this server gave out")]) from None
