"""The fleet screen: what it shows, finds, sorts, marks and does, driven by keys against a real control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.tui.driving import contexts_of, drive

if TYPE_CHECKING:
    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver


def test_every_instance_is_in_the_table_with_its_status(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live", "3 instances")
        assert "● running" in person.line_with("alpha")
        assert "○ stopped" in person.line_with("gamma")

    drive(contexts_of(fleet), script)


def test_a_filter_takes_effect_as_it_is_typed_and_escape_takes_it_back(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("alpha", "beta")
        await person.press("slash")
        await person.type("bet")
        await person.sees_not("alpha")
        await person.sees("1 of 3")
        await person.press("escape")
        await person.sees("alpha", "gamma")

    drive(contexts_of(fleet), script)
