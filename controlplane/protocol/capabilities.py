"""What clients declare that they can be asked, as a small set; and what servers offer across a bridge.

Pure. A legacy client declares once, in `initialize`, a modern one in every
request. A legacy server must only be told what all its clients can do, so the
set is also what lanes are kept apart by.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from controlplane.core.rawjson import decode_or_none, encode
from controlplane.protocol.handshake import META, Era, ProtocolFacts
from controlplane.protocol.members import is_object, object_members

CapabilitySet = frozenset[str]
NONE: CapabilitySet = frozenset()
TASKS_EXTENSION = META + "tasks"
CACHED_MAX_BYTES = 1024
"""Longer declarations are read anew each time: the cache is bounded in entries, and so in bytes."""
CACHED_ENTRIES = 512
"""Of different clients; they are few programs."""
_FORM, _URL = "elicitation.form", "elicitation.url"


def capability_set(raw: bytes | None) -> CapabilitySet:
    """Read a client's raw capabilities object; features that Corral does not know are left out.

    `elicitation` means forms unless it names only URLs: it had no modes before 2025-11-25, and an SDK put other
    settings in it.

    Source: MCP 2025-11-25 and 2026-07-28, `ClientCapabilities`.
    """
    if raw is None:
        return NONE
    return _cached(raw) if len(raw) <= CACHED_MAX_BYTES else _read(raw)


def _read(raw: bytes) -> CapabilitySet:
    offered = _dict(decode_or_none(raw))
    found = {name for name in ("roots", "sampling") if isinstance(offered.get(name), dict)}
    if _dict(offered.get("roots")).get("listChanged") is True:
        found.add("roots.listChanged")
    sampling = _dict(offered.get("sampling"))
    found |= {f"sampling.{name}" for name in ("tools", "context") if isinstance(sampling.get(name), dict)}
    elicitation = offered.get("elicitation")
    if isinstance(elicitation, dict):
        modes = {f"elicitation.{name}" for name in ("form", "url") if isinstance(elicitation.get(name), dict)}
        found |= modes or {_FORM}
    return frozenset(found)


_cached = lru_cache(CACHED_ENTRIES)(_read)


def declared(capabilities: CapabilitySet) -> dict[str, Any]:
    """What Corral declares to a legacy server on behalf of clients with this set."""
    answer: dict[str, Any] = {}
    if "roots" in capabilities:
        answer["roots"] = {"listChanged": True} if "roots.listChanged" in capabilities else {}
    if "sampling" in capabilities:
        answer["sampling"] = {name: {} for name in ("tools", "context") if f"sampling.{name}" in capabilities}
    modes: dict[str, Any] = {mode.partition(".")[2]: {} for mode in (_FORM, _URL) if mode in capabilities}
    return answer | ({"elicitation": modes} if modes else {})


def needed_by(method: str, params: bytes | None) -> str | None:
    """The capability that a client must have declared to be asked this; None for what no client can be asked.

    `includeContext` needs none: servers only SHOULD NOT, and a client may ignore it. An elicitation mode that Corral
    does not know is named all the same, and is in no set.

    Args:
        method: Of the server's request, or of an entry of `inputRequests`.
        params: Its raw parameters.
    """
    if method == "roots/list":
        return "roots"
    if method == "sampling/createMessage":
        found = object_members(params)
        uses_tools = any(bytes(found.get(name, b"null")) != b"null" for name in ("tools", "toolChoice"))
        return "sampling.tools" if uses_tools else "sampling"
    if method == "elicitation/create":
        raw = object_members(params).get("mode")
        mode = None if raw is None else decode_or_none(bytes(raw))
        return _FORM if mode is None else f"elicitation.{mode}"
    return None


def for_modern_server(raw: bytes | None) -> bytes:
    """What a legacy client declared, as its requests carry it to a modern server.

    Tasks are left out, in both forms: the extension's results have no form in a legacy version, and the older ones
    have none in the modern era. `roots.listChanged` is gone with the notification.
    """
    if raw is None or not is_object(raw):
        return b"{}"
    found = object_members(raw)
    without_tasks(found)
    if "roots" in found:
        found["roots"] = {
            name: value for name, value in object_members(found["roots"]).items() if name != "listChanged"
        }
    return encode(found)


def without_tasks(found: dict[str, Any]) -> None:
    """Take tasks out of a capabilities object's raw members, core and extension."""
    found.pop("tasks", None)
    if "extensions" in found:
        extensions = object_members(found["extensions"])
        extensions.pop(TASKS_EXTENSION, None)
        found["extensions"] = extensions


def without_task_support(tool: dict[str, Any]) -> bool:
    """Take out of a tool's raw members that it may or must be called as a task; whether there was any."""
    execution = object_members(tool.get("execution"))
    if execution.pop("taskSupport", None) is None:
        return False
    if execution:
        tool["execution"] = execution
    else:
        del tool["execution"]
    return True


def offered(facts: ProtocolFacts, *, native: bool) -> dict[str, Any]:
    """What a server offers, as its clients are told.

    All but tasks cross the bridge. `completions` does as it is: servers of 2024-11-05 may complete without saying so,
    but nothing is promised that the server did not.

    Args:
        facts: What the handshake found. A server that knows no handshake (bare, or `initialize` unknown) offers
            nothing by itself: it is taken to have tools, or clients would never ask.
        native: Whether the clients are of the server's era.
    """
    if facts.era is Era.BARE or (facts.version is None and not facts.capabilities):
        return dict(facts.capabilities) or {"tools": {}}
    if native:
        return dict(facts.capabilities)
    answer = {name: value for name, value in facts.capabilities.items() if name != "tasks"}
    if TASKS_EXTENSION in _dict(answer.get("extensions")):
        answer["extensions"] = {name: value for name, value in answer["extensions"].items() if name != TASKS_EXTENSION}
    return answer


def offers(capabilities: Mapping[str, Any], section: str, feature: str) -> bool:
    """Whether a server's capabilities hold a feature that is a flag: `tools`, `listChanged`."""
    return _dict(capabilities.get(section)).get(feature) is True


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
