"""What an event means, in words: the same in an instance's timeline and in the fleet's. Pure.

An event alone often says too little: that an instance runs is worth knowing with what it was before. So a `Narrator`
is told events in their order, and puts each beside the one before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from controlplane.wire.text import clean
from controlplane.wire.units import in_unit, plain_name
from tui.board.alerts import SERVICES
from tui.board.cells import Cell, Tone

Data = Mapping[str, Any]

TELLING = 160
"""Characters that a sentence quotes of what a server itself said; the rest is in the event's data."""
TONES: Mapping[str, Tone] = {
    "running": "good",
    "failed": "bad",
    "restarting": "warn",
    "stopping": "warn",
    "stopped": "dim",
}
WATCHDOG: Mapping[str, tuple[Tone, str]] = {
    "warn": ("warn", ""),
    "restart": ("bad", ": it is replaced when its calls are answered"),
    "kill": ("bad", ": it is ended"),
    "calm": ("good", ""),
}
"""By the step that a watchdog takes: how grave it is, and what follows."""
SIGNS: Mapping[str, str] = {"good": "●", "bad": "✗", "warn": "!", "dim": "○", "accent": "◐", "": "·", "strong": "·"}
STATES = frozenset({"status"})
SPECS = frozenset({"deployed", "changed"})
SPEC_MEMBERS = ("language", "source_type")


def sentence(type_: str, data: Data, before: Data | None = None) -> Cell:
    """Say what an event means.

    Args:
        type_: Its type.
        data: Its members.
        before: The members of the event of its kind before it (of `status`; of `deployed` and `changed`); None: not known.
    """
    match type_:
        case "status":
            return _status(data, before or {})
        case "deployed":
            return Cell(f"deployed as revision {_word(data, 'revision', '1')}{_made_of(data)}", "accent")
        case "changed":
            return Cell(_changed(data, before), "accent")
        case "post_mortem":
            return Cell(f"failed {_while(data)}{_code(data)}: {_why(data)}", "bad")
        case "revision_failed":
            return Cell(f"revision {_word(data, 'revision', '?')} did not take over{_code(data)}: {_why(data)}", "bad")
        case "watchdog":
            tone, then = WATCHDOG.get(_word(data, "step"), ("warn", ""))
            return Cell(f"watchdog: it {_word(data, 'reason', 'says nothing more')}{then}", tone)
        case "deleted":
            return Cell("deleted: nothing is left of it but this history", "warn")
        case _:
            return _of_the_rest(type_, data)


def _of_the_rest(type_: str, data: Data) -> Cell:
    match type_:
        case "gap":
            return Cell(_gap(data), "warn")
        case "lagged":
            return Cell("this reader was too slow: what came meanwhile was left out", "warn")
        case "services":
            return _services(data)
        case "shutdown":
            return Cell("the control plane is stopping", "warn")
        case "tools_changed":
            return Cell("its tools are others than before", "accent")
        case "notification":
            return Cell(_notification(data), "dim")
        case _:
            return Cell(clean(type_).replace("_", " ") + _few(data), "")


@define
class Narrator:
    """Tells events in their order; remembers one of each kind per instance."""

    _last: dict[tuple[str, bool], Data] = field(factory=dict)

    def tell(self, type_: str, instance_id: str, data: Data) -> Cell:
        """Say what the next event means."""
        if type_ not in STATES and type_ not in SPECS:
            if type_ == "deleted":
                self._last.pop((instance_id, True), None)
                self._last.pop((instance_id, False), None)
            return sentence(type_, data)
        key = (instance_id, type_ in STATES)
        before = self._last.get(key)
        self._last[key] = data
        return sentence(type_, data, before)


def _status(data: Data, before: Data) -> Cell:
    status, was = _word(data, "status", "?"), _word(before, "status")
    candidate, earlier = data.get("candidate"), before.get("candidate")
    if isinstance(candidate, Mapping):
        number, phase = _word(candidate, "revision", "?"), _word(candidate, "phase")
        return Cell(f"revision {number} comes up beside the one in force: {phase or 'begun'}")
    if isinstance(earlier, Mapping) and status == was and data.get("revision") == before.get("revision"):
        return Cell(f"revision {_word(earlier, 'revision', '?')} is not on its way any more", "dim")
    move = f"{was} → {status}" if was and was != status else status
    return Cell(move + _detail(status, data), TONES.get(status, ""))


def _detail(status: str, data: Data) -> str:
    """What to know of a status besides its name."""
    phase = _word(data, "phase")
    if status in {"failed", "restarting"} and (reason := _word(data, "reason")):
        nth = f" (restart {_word(data, 'restarts')})" if data.get("restarts") else ""
        return f": {reason}{nth}"
    if status == "running" and data.get("pid") is not None:
        return f": process {_word(data, 'pid')}, revision {_word(data, 'revision', '?')}"
    return f": {phase}" if phase and phase != status else ""


def _changed(data: Data, before: Data | None) -> str:
    revision = _word(data, "revision", "?")
    if before is None:
        return f"changed: revision {revision}{_made_of(data)}"
    parts = [f"revision {revision} is in force"] if data.get("revision") != before.get("revision") else []
    parts += [
        _one_change(name, _word(before, name), _word(data, name))
        for name in SPEC_MEMBERS
        if _differ(data, before, name)
    ]
    parts += _changes(before.get("limits"), data.get("limits"), in_unit)
    if _differ(data, before, "labels"):
        parts.append("labels " + (_labels(data.get("labels")) or "taken away"))
    return "changed: " + (", ".join(parts) or "what is run")


def _changes(before: object, after: object, shown: Any) -> list[str]:
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return []
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return [
        _one_change(clean(plain_name(str(n))), clean(shown(str(n), before.get(n))), clean(shown(str(n), after.get(n))))
        for n in names
    ]


def _one_change(name: str, before: str, after: str) -> str:
    return f"{name.replace('_', ' ')} {before or 'none'} → {after or 'none'}"


def _differ(data: Data, before: Data, name: str) -> bool:
    return (data.get(name) or None) != (before.get(name) or None)


def _made_of(data: Data) -> str:
    words = [word for name in ("language", "source_type") if (word := _word(data, name))]
    return f" ({', '.join(words)})" if words else ""


def _labels(labels: object) -> str:
    if not isinstance(labels, Mapping):
        return ""
    return " ".join(f"{clean(name)}={clean(value)}" for name, value in sorted(labels.items()))


def _while(data: Data) -> str:
    phase = _word(data, "phase", "running")
    return "while running" if phase == "running" else f"during {phase}"


def _code(data: Data) -> str:
    return f" ({_word(data, 'code')})" if data.get("code") else ""


def _why(data: Data) -> str:
    return _word(data, "reason", "no reason is known")


def _gap(data: Data) -> str:
    missed, reason = data.get("missed"), _word(data, "reason")
    what = f"{missed:,} events are missing here" if isinstance(missed, int) else "events may be missing here"
    return f"{what}: {reason}" if reason else what


def _services(data: Data) -> Cell:
    status = _word(data, "status", "?")
    services = data.get("services")
    each = (
        [f"{SERVICES.get(n, clean(n))} {clean(v)}" for n, v in sorted(services.items())]
        if isinstance(services, Mapping)
        else []
    )
    tone: Tone = "good" if status == "healthy" else "bad" if status == "unhealthy" else "warn"
    return Cell(f"the control plane is {status}" + (f": {', '.join(each)}" if each else ""), tone)


def _notification(data: Data) -> str:
    method, params = _word(data, "method", "something"), data.get("params")
    name = method.removeprefix("notifications/")
    if name == "message" and isinstance(params, Mapping):
        return f"says ({_word(params, 'level', 'info')}): {_short(params.get('data'))}"
    return f"tells {name}" + (f": {_short(params)}" if params else "")


def _few(data: Data) -> str:
    plain = [f"{clean(n)}={_short(v)}" for n, v in data.items() if isinstance(v, (str, int, float)) and n not in OWN]
    return f": {' '.join(plain[:4])}" if plain else ""


OWN = frozenset({"type", "timestamp", "instance_id", "owner", "name"})
"""Members that every event has: no news."""


def _short(value: object) -> str:
    text = clean(value if isinstance(value, str) else _compact(value))
    return text if len(text) <= TELLING else text[: TELLING - 1] + "…"


def _compact(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_compact(inner)}" for name, inner in list(value.items())[:8])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_compact(item) for item in list(value)[:8])
    return str(value)[:TELLING]


def _word(data: Data, name: str, absent: str = "") -> str:
    value = data.get(name)
    return absent if value is None or value == "" else clean(value)
