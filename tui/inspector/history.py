"""What was sent from the inspector, per instance: newest first, bounded, without what is secret. Pure.

A record is a JSON document of its own making and may have been edited since; what does not look like one is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from controlplane.wire.redact import redact_text
from tui.inspector.jsontext import compact
from tui.inspector.schema_form import is_secret

KEPT = 100
"""Requests per instance; those with a name of their own stay until they are removed, up to this as well."""
KEPT_INSTANCES = 200
"""Instances; the one that was longest not called goes first."""
MAX_PARAMS_CHARS = 64 * 1024
"""Of one request as JSON; the parameters of a longer one are not kept, and it says so."""
MAX_DEPTH = 64
VERSION = 1


@frozen(kw_only=True)
class Entry:
    """One request. `at` is seconds since the epoch, `elapsed_s` how long its answer took, `came_to` what it was."""

    at: float
    method: str
    params: Mapping[str, Any] | None = None
    name: str = ""
    came_to: str = ""
    elapsed_s: float = 0.0
    cut: bool = False
    """The parameters were too long to keep."""

    @property
    def subject(self) -> str:
        """What was asked for: the tool, the prompt or the resource."""
        return subject_of(self.params)

    def is_same_request(self, other: Entry) -> bool:
        return (self.method, compact(self.params)) == (other.method, compact(other.params))


def subject_of(params: Mapping[str, Any] | None) -> str:
    """What a request is for: the tool, the prompt or the resource; empty where it names none."""
    given = params or {}
    return str(given.get("name") or given.get("uri") or "")


Histories = Mapping[str, Sequence[Entry]]
"""Entries by instance, newest first; instances in the order of last use, oldest first."""


def added(histories: Histories, key: str, entry: Entry) -> dict[str, list[Entry]]:
    """Put a request at the head of an instance's history; the same one from before gives way, and leaves its name."""
    before = list(histories.get(key, ()))
    twins = [one for one in before if one.is_same_request(entry)]
    name = next((one.name for one in twins if one.name), entry.name)
    entries = [evolve(entry, name=name), *(one for one in before if one not in twins)]
    found = {other: list(those) for other, those in histories.items() if other != key}
    found[key] = _bounded(entries)
    return dict(list(found.items())[-KEPT_INSTANCES:])


def named(histories: Histories, key: str, entry: Entry, name: str) -> dict[str, list[Entry]]:
    """Give a request a name, or take it away."""
    found = {other: list(those) for other, those in histories.items()}
    found[key] = [evolve(one, name=name) if one is entry else one for one in found.get(key, [])]
    return found


def removed(histories: Histories, key: str, entry: Entry) -> dict[str, list[Entry]]:
    """Forget a request."""
    found = {other: list(those) for other, those in histories.items()}
    found[key] = [one for one in found.get(key, []) if one is not entry]
    return found


def entry_of(at: float, method: str, params: Mapping[str, Any] | None, schema: Any = None) -> Entry:
    """A request as it may be kept: without what is secret by its name, its schema or its shape."""
    kept = None if params is None else without_secrets(params, {"properties": {"arguments": schema}})
    too_long = len(compact(kept)) > MAX_PARAMS_CHARS
    if too_long and kept is not None:
        kept = {
            name: value
            for name, value in kept.items()
            if name in ("name", "uri") and len(str(value)) < MAX_PARAMS_CHARS
        }
    return Entry(at=at, method=method, params=kept, cut=too_long)


def without_secrets(value: Any, schema: Any, depth: int = 0) -> Any:
    """A value without what must not be kept; what is nested too deeply to look at is not kept either."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, list):
        items = schema.get("items") if isinstance(schema, dict) else None
        return [without_secrets(item, items, depth + 1) for item in value]
    if isinstance(value, str):
        return redact_text(value)
    if not isinstance(value, dict):
        return value
    rules = schema.get("properties") if isinstance(schema, dict) else None
    rules = rules if isinstance(rules, dict) else {}
    return {
        name: without_secrets(inner, rules.get(name), depth + 1)
        for name, inner in value.items()
        if not is_secret(name, rules.get(name))
    }


def document_of(histories: Histories) -> dict[str, Any]:
    """As it is written down."""
    written = {key: [_written(entry) for entry in entries] for key, entries in histories.items() if entries}
    return {"version": VERSION, "instances": written}


def read(document: Any) -> dict[str, list[Entry]]:
    """What was written down, as far as it can be understood."""
    instances = document.get("instances") if isinstance(document, dict) else None
    found: dict[str, list[Entry]] = {}
    for key, items in list(instances.items())[-KEPT_INSTANCES:] if isinstance(instances, dict) else ():
        entries = [entry for item in items if (entry := _read(item)) is not None] if isinstance(items, list) else []
        found[key] = _bounded(entries)
    return found


def _bounded(entries: list[Entry]) -> list[Entry]:
    """The newest, and before them those with a name."""
    if len(entries) <= KEPT:
        return entries
    spare = len(entries) - KEPT
    unnamed = [entry for entry in reversed(entries) if not entry.name][:spare]
    return [entry for entry in entries if not any(entry is one for one in unnamed)][:KEPT]


def _written(entry: Entry) -> dict[str, Any]:
    found = {"at": entry.at, "method": entry.method, "params": entry.params, "came_to": entry.came_to}
    more = {"name": entry.name, "elapsed_s": round(entry.elapsed_s, 4), "cut": entry.cut}
    return found | {name: value for name, value in more.items() if value}


def _read(item: Any) -> Entry | None:
    if not isinstance(item, dict) or not isinstance(item.get("method"), str):
        return None
    params, at, elapsed = item.get("params"), item.get("at"), item.get("elapsed_s", 0.0)
    if not isinstance(params, dict | None) or not isinstance(at, int | float) or not isinstance(elapsed, int | float):
        return None
    return Entry(
        at=float(at),
        method=item["method"],
        params=params,
        name=str(item.get("name", "")),
        came_to=str(item.get("came_to", "")),
        elapsed_s=float(elapsed),
        cut=item.get("cut") is True,
    )
