"""What a member of a document is good for: foreign values of any type in, values of the right one out. Pure.

A board is fed by whatever calls itself a control plane. A member that is not what it should be is taken for absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controlplane.wire.text import clean
from controlplane.wire.units import is_figure

LATEST = 2.5e11
"""Seconds since the epoch, in the year 9892: what is later may have no local time."""
TEXT_CHARS = 2_000
"""Of one text on the board: more than a screen line shows, less than a reason that somebody filled with a file."""
MAX_LABELS = 64


def text(value: object) -> str:
    """A text, clean and bounded; empty for what is none."""
    return clean(value[:TEXT_CHARS]) if isinstance(value, str) else ""


def word(value: object) -> str:
    """A text or a number as one clean text; empty for what is neither."""
    is_number = isinstance(value, (int, float)) and number(value) is not None
    return clean(value) if is_number else text(value)


def number(value: object) -> float | None:
    """A figure; None for what is none, for NaN and for what is beyond all bounds."""
    return value if is_figure(value) and not isinstance(value, bool) else None


def whole(value: object) -> int | None:
    """A whole number; None for what is none."""
    return value if isinstance(value, int) and number(value) is not None else None


def seconds_of(timestamp: object) -> float | None:
    """Return an API timestamp as seconds since the epoch; None for none, or for what is no time."""
    if not isinstance(timestamp, str):
        return None
    try:
        found = datetime.fromisoformat(timestamp).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return found if 0 <= found < LATEST else None


def mapping(value: object) -> Mapping[str, Any]:
    """An object; empty for what is none."""
    return value if isinstance(value, Mapping) else {}


def labels_of(value: object) -> dict[str, str]:
    """Labels, clean and not too many."""
    return {text(name): word(said) for name, said in list(mapping(value).items())[:MAX_LABELS]}
