"""A message's raw members, where a bridge between the eras has to touch them.

Pure. Members are put in front of what an object holds, or single ones are
replaced; everything else stays the bytes that its author wrote. What nests too
deep to be read is passed on as far as possible, never refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from controlplane.core.rawjson import encode, items, members
from controlplane.protocol.handshake import META

SERVER_INFO = META + "serverInfo"
SUBSCRIPTION_ID = META + "subscriptionId"
EMPTY_RESULT = b'"result":{}'
_OPENING = re.compile(rb"\s*\{\s*(\})?")


def is_error(member: bytes) -> bool:
    """Whether this is an `"error":…` member."""
    return member.startswith(b'"error"')


def value(member: bytes) -> bytes:
    """What stands behind `"result":` or `"error":`."""
    return member[member.index(b":") + 1 :]


def error(code: int, message: str, data: Any = None) -> bytes:
    """An `"error":…` member of our own."""
    return b'"error":' + encode({"code": code, "message": message} | ({} if data is None else {"data": data}))


def is_object(raw: bytes) -> bool:
    """Whether raw JSON begins as an object."""
    return raw.lstrip()[:1] == b"{"


def in_front(first: bytes, raw: bytes) -> bytes:
    """Put members in front of an object's own, which are not looked into: `{"b":2}` becomes `{"a":1,"b":2}`.

    Args:
        first: Whole members without braces, `"a":1`.
        raw: A raw object.
    """
    opening = _OPENING.match(raw)
    assert opening is not None, "only objects have members"
    return b"".join((b"{", first, b"}" if opening[1] else b",", raw[opening.end() :]))


def object_members(raw: msgspec.Raw | bytes | None) -> dict[str, Any]:
    """An object's members, none for anything else."""
    return (None if raw is None else members(bytes(raw))) or {}


def with_meta(params: bytes | None, ours: dict[str, Any]) -> bytes:
    """Add members to the `_meta` of raw parameters; theirs of the same name give way."""
    raw = b"{}" if params is None or not is_object(params) else params
    found = members(raw)
    if found is None:  # nested too deep to read
        return in_front(b'"_meta":' + encode(ours), raw)
    meta = object_members(found.pop("_meta", None))
    return encode({"_meta": meta | ours} | found)


def without_meta(found: dict[str, Any], dropped: Callable[[str], bool]) -> bool:
    """Take members out of an object's `_meta`, and `_meta` itself when that leaves it empty; whether any went."""
    meta = object_members(found.get("_meta"))
    kept = {name: raw for name, raw in meta.items() if not dropped(name)}
    if len(kept) == len(meta):
        return False
    if kept:
        found["_meta"] = kept
    else:
        del found["_meta"]
    return True


def each_item(found: dict[str, Any], name: str, change: Callable[[dict[str, Any]], bool]) -> bool:
    """Change the objects in one of an object's lists; whether any was changed.

    Args:
        found: The object's members.
        name: Of the list.
        change: Changes an item's members in place, and says whether it did.
    """
    raw_items = items(bytes(found.get(name, b""))) or []
    changed = [_changed(raw, change) for raw in raw_items]
    if not any(changed):
        return False
    found[name] = [msgspec.Raw(was) if now is None else now for was, now in zip(raw_items, changed, strict=True)]
    return True


def _changed(raw: bytes, change: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    found = members(raw)
    return found if found is not None and change(found) else None
