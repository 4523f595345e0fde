"""List requests and what their answers look like: sections, methods, pages, hints. Pure.

An answer is looked into one level deep; the items stay the bytes that the server wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.core.rawjson import decode_or_none, items, members
from controlplane.model import Section
from controlplane.protocol.handshake import Era

if TYPE_CHECKING:
    import msgspec

    from controlplane.protocol.handshake import ProtocolFacts

TTL_MAX_S = 24 * 3600.0
"""However long a server says that its answer holds: it may be wrong, and a day is as good as for ever."""

METHODS: Mapping[Section, str] = {
    Section.TOOLS: "tools/list",
    Section.PROMPTS: "prompts/list",
    Section.RESOURCES: "resources/list",
    Section.RESOURCE_TEMPLATES: "resources/templates/list",
}
SECTIONS: Mapping[str, Section] = {method: section for section, method in METHODS.items()}
MEMBERS: Mapping[Section, str] = {section: section.value for section in Section} | {
    Section.RESOURCE_TEMPLATES: "resourceTemplates"
}
"""The member of a list result that holds the items."""
_CAPABILITY: Mapping[Section, str] = {section: section.value for section in Section} | {
    Section.RESOURCE_TEMPLATES: "resources"
}
_COMPLETE = b'"complete"'
LIST_CHANGED: Mapping[str, tuple[Section, ...]] = {
    "notifications/tools/list_changed": (Section.TOOLS,),
    "notifications/prompts/list_changed": (Section.PROMPTS,),
    "notifications/resources/list_changed": (Section.RESOURCES, Section.RESOURCE_TEMPLATES),
}


@frozen(kw_only=True)
class Page:
    """One answer to a list request. `cursor` is raw JSON, None on the last page."""

    items: list[bytes]
    cursor: bytes | None
    beside: dict[str, msgspec.Raw]
    """The other members of the result."""


def read_page(section: Section, member: bytes) -> Page | None:
    """Read a raw `"result":…` member; None where it is an error, or no list. One without items lists none."""
    name, _, raw = member.partition(b":")
    found = members(raw) if name == b'"result"' else None
    if found is None or bytes(found.get("resultType", _COMPLETE)) != _COMPLETE:
        return None  # it wants input first
    raw_items = bytes(found.pop(MEMBERS[section], b"null"))
    listed = [] if raw_items == b"null" else items(raw_items)
    if listed is None:
        return None
    return Page(
        items=[item for item in listed if item.lstrip().startswith(b"{")],
        cursor=_cursor(found.pop("nextCursor", None)),
        beside=found,
    )


def _cursor(raw: msgspec.Raw | None) -> bytes | None:
    """An empty cursor is none: serializers that write every member say it so, and would list for ever."""
    cursor = b"" if raw is None else bytes(raw)
    return cursor if cursor.startswith(b'"') and cursor != b'""' else None


def is_plain(params: bytes | None) -> bool:
    """Whether list parameters ask for all there is from the start: nothing but `_meta` in them."""
    if params is None or params in (b"{}", b"null"):
        return True
    found = members(params)
    return found is not None and found.keys() <= {"_meta"}


def offered(facts: ProtocolFacts) -> frozenset[Section]:
    """The sections that a server says it has; of one that had no chance to say so (no handshake), tools."""
    if facts.era is Era.BARE or facts.version is None:
        return frozenset({Section.TOOLS})
    return frozenset(section for section in Section if facts.capabilities.get(_CAPABILITY[section]) is not None)


def ttl_s(beside: Mapping[str, msgspec.Raw]) -> float:
    """Seconds for which a result may be given to anybody again; 0 for anything but a clear permission."""
    ttl_ms = decode_or_none(bytes(beside.get("ttlMs", b"0")))
    if decode_or_none(bytes(beside.get("cacheScope", b"null"))) != "public":
        return 0.0
    if isinstance(ttl_ms, bool) or not isinstance(ttl_ms, (int, float)):
        return 0.0
    return min(max(float(min(ttl_ms, TTL_MAX_S * 1000)), 0.0) / 1000, TTL_MAX_S)
