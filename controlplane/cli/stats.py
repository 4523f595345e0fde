"""`corral stats`: the fleet and the control plane in numbers."""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli.session import Session, json_option, pass_session
from controlplane.wire.units import in_unit, plain_name

AS_IDENTIFIERS = frozenset({"pid"})
"""Numbers that count nothing: no thousands separator."""
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
    rows = [(plain_name(title), _value(title, value)) for title, value in answer.document.items()]
    session.screen.facts(rows)


def _value(title: str, value: Any) -> str:
    return ", ".join(_flat(value)) or "-" if isinstance(value, dict) else in_unit(title, value)


def _flat(value: dict[str, Any], prefix: str = "", depth: int = FLAT_DEPTH) -> list[str]:
    parts = []
    for key, item in value.items():
        if isinstance(item, dict) and depth:
            parts += _flat(item, f"{prefix}{plain_name(key)} ", depth - 1)
        elif item is not None and key not in AS_IDENTIFIERS:
            parts.append(f"{prefix}{plain_name(key)} {in_unit(key, item)}")
        elif item is not None:
            parts.append(f"{prefix}{key} {item}")
    return parts
