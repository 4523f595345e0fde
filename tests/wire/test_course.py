"""How a post-mortem's samples are told in a few lines."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.wire.course import course


def test_each_figure_is_told_from_its_first_to_its_last_value() -> None:
    samples = [
        {"ago_s": 3.0, "memory_mb": 210.4, "cpu_percent": 5.0, "processes": 3, "waiting": 0},
        {"ago_s": 2.0, "memory_mb": 900.0, "cpu_percent": 100.0, "processes": 3, "waiting": 0},
        {"ago_s": 1.0, "memory_mb": 812.0, "cpu_percent": 100.0, "processes": 3, "waiting": 0, "open_files": 9},
    ]
    assert course(samples) == [
        ("memory", "210M → 812M, at most 900M"),
        ("cpu", "5.0% → 100%"),
        ("processes", "3"),
        ("open files", "9"),
        ("taken", "3 samples, from 3.0s to 1.0s before the end"),
    ]


@pytest.mark.parametrize("samples", [None, [], "text", 7, [1, "x", None], [{}], [{"ago_s": 1.0}], [{"memory_mb": "x"}]])
def test_what_is_no_sample_has_no_course(samples: Any) -> None:
    assert course(samples) == []


def test_nothing_in_it_can_harm_the_terminal() -> None:
    said = course([{"\x1b[2Jevil\x07": 1, "memory_mb": float("nan"), "big": 10**400}])
    assert all(part.isprintable() for row in said for part in row)
