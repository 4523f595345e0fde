"""The samples of a post-mortem in a line each: how memory, CPU and the rest went before the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.wire.text import clean
from controlplane.wire.units import count, duration, in_unit, is_figure, plain_name

AGO = "ago_s"
"""When a sample was taken; everything else in it was read then."""
MEMBERS_MAX = 20
"""Of one sample: there are half as many, and the answer may be somebody else's server's."""


def course(samples: object) -> list[tuple[str, str]]:
    """Return a name and `first → last (most)` for each figure of the samples, and at last over what time they go.

    Args:
        samples: The `samples` of a post-mortem, as the API gave them; anything else has no course.
    """
    if not isinstance(samples, Sequence) or isinstance(samples, str):
        return []
    taken = [sample for sample in samples if isinstance(sample, Mapping)]
    names = list(dict.fromkeys(name for sample in taken for name in sample if name != AGO))[:MEMBERS_MAX]
    rows = [(clean(plain_name(str(name))), _from_to(str(name), _figures(taken, name))) for name in names]
    rows = [row for row in rows if row[1]]
    return [*rows, ("taken", _when(taken))] if rows else []


def _figures(samples: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    values = [sample.get(name) for sample in samples]
    return [float(value) for value in values if is_figure(value)]


def _from_to(name: str, figures: Sequence[float]) -> str:
    """Empty where nothing was ever read, or it was nothing all the time."""
    if not any(figures):
        return ""
    first, last, most = (_shown(name, value) for value in (figures[0], figures[-1], max(figures)))
    if first == last == most:
        return first
    return f"{first} → {last}" if most in (first, last) else f"{first} → {last}, at most {most}"


def _shown(name: str, value: float) -> str:
    return clean(in_unit(name, int(value) if value.is_integer() else value))


def _when(samples: Sequence[Mapping[str, Any]]) -> str:
    ages = _figures(samples, AGO)
    said = f"{count(len(samples))} sample{'' if len(samples) == 1 else 's'}"
    return f"{said}, from {duration(max(ages))} to {duration(min(ages))} before the end" if ages else said
