"""Prometheus' text format 0.0.4, written by hand: a family at a time, escaped as the format wants it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import define, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]
Labels = Mapping[str, object]
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@define
class Exposition:
    """Collects families; `text` is the page."""

    _lines: list[str] = field(factory=list)

    def family(self, name: str, kind: Kind, help_text: str, samples: Iterable[tuple[Labels, float]]) -> None:
        """Add one family with all its samples; none at all leaves the family out."""
        rows = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
        if rows:
            self._head(name, kind, help_text)
            self._lines += rows

    def one(self, name: str, kind: Kind, help_text: str, value: float) -> None:
        """Add a family of one sample without labels."""
        self.family(name, kind, help_text, [({}, value)])

    def histogram(
        self, name: str, help_text: str, buckets: Iterable[tuple[float, int]], count: int, total: float
    ) -> None:
        """Add a histogram without labels.

        Args:
            buckets: Upper bound and cumulative count, ascending; `+Inf` is added.
        """
        self._head(name, "histogram", help_text)
        for bound, cumulative in (*buckets, (math.inf, count)):
            self._lines.append(f'{name}_bucket{{le="{_number(bound)}"}} {cumulative}')
        self._lines += [f"{name}_sum {_number(total)}", f"{name}_count {count}"]

    def text(self) -> str:
        return "\n".join([*self._lines, ""])

    def _head(self, name: str, kind: Kind, help_text: str) -> None:
        escaped = help_text.replace("\\", r"\\").replace("\n", r"\n")
        self._lines += [f"# HELP {name} {escaped}", f"# TYPE {name} {kind}"]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{str(value).translate(_ESCAPES)}"' for name, value in labels.items()) + "}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)
