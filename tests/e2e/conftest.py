"""Fixtures of the end-to-end tests: real control planes, driven from outside, and the figures that were measured.

Times are asserted as hang guards only; what they really were is listed at the end of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import plane, planes
from tests.e2e.sources import origin

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["origin", "plane", "planes"]

FIGURES = pytest.StashKey[list[tuple[str, str, str]]]()
"""(test, what, how much)"""


@pytest.fixture
def figure(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Records something measured: `figure("told after", 0.012, "s")`."""

    def record(what: str, value: float | str, unit: str = "") -> None:
        shown = (
            f"{value:.3g}"
            if isinstance(value, float) and value < 100
            else f"{value:.0f}"
            if isinstance(value, float)
            else f"{value}"
        )
        text = f"{shown} {unit}".strip()
        record_property(what, text)
        request.config.stash.setdefault(FIGURES, []).append((request.node.name, what, text))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash.get(FIGURES, [])
    if figures:
        terminalreporter.section("measured")
        for test, what, text in figures:
            terminalreporter.write_line(f"{test}: {what}: {text}")
