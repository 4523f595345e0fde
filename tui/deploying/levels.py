"""What the deploy form says of isolation levels, from what `GET /isolation` answered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.wire.text import clean


def labels(document: Mapping[str, Any]) -> dict[str, str]:
    """The words for each choice: what `auto` comes to, and which levels are not there."""
    found = {name: f"{name}, not here" for name in missing(document)}
    auto = document.get("auto")
    return found | {"auto": f"auto: {clean(auto)}" if auto else "auto, refused here"}


def missing(document: Mapping[str, Any]) -> dict[str, str]:
    """By level that the host cannot give, why, and what would unlock it."""
    levels = document.get("levels")
    found: dict[str, str] = {}
    for level in levels if isinstance(levels, list) else ():
        if isinstance(level, Mapping) and not level.get("available"):
            unlock = f" → {clean(level['unlock'])}" if level.get("unlock") else ""
            found[clean(level.get("name") or "")] = (
                f"this host cannot give it: {clean(level.get('why') or '-')}{unlock}"
            )
    return found
