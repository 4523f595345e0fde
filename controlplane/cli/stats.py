"""`corral stats`: the fleet and the control plane in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.screen import clean
from controlplane.cli.session import Session, json_option, pass_session
from controlplane.cli.units import duration, mebibytes, millis, percent

if TYPE_CHECKING:
    from controlplane.cli.screen import Screen

FLAT_DEPTH = 2
"""Levels of nesting that are shown on one line; the API goes no deeper."""


@click.command(short_help="Show totals of the fleet and of the control plane.")
@json_option
@pass_session
def stats(session: Session, /) -> None:
    """Show totals: instances, calls, latency, use, restarts, subscribers, orphans, and facts of the host."""
    with session.screen.busy("asking"):
        answer = session.api.get("/stats")
    if session.shown_as_json(answer):
        return
    for title, value in answer.document.items():
        _show(session.screen, str(title).replace("_", " "), value)


def _show(screen: Screen, title: str, value: Any) -> None:
    if not isinstance(value, dict):
        screen.line((f"{clean(title):<16}", "bold"), _number(title, value))
        return
    parts = list(_flat(value))
    screen.line((f"{clean(title):<16}", "bold"), ", ".join(parts) or "-")


def _flat(value: dict[str, Any], prefix: str = "", depth: int = FLAT_DEPTH) -> list[str]:
    parts = []
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, dict) and depth:
            parts += _flat(item, f"{key} ", depth - 1)
        elif item is not None:
            parts.append(f"{_plain_name(name)} {_number(key, item)}")
    return parts


def _plain_name(name: str) -> str:
    for unit in (" ms", " mb", " percent", " s"):
        name = name.removesuffix(unit)
    return name


def _number(name: str, value: Any) -> str:
    """Return a value in the unit that its name ends in."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    for suffix, shown in (("_ms", millis), ("_mb", mebibytes), ("_percent", percent), ("_s", duration)):
        if name.endswith(suffix):
            return shown(value)
    return f"{value:,}" if isinstance(value, int) else clean(value)
