"""What a program that needs no language becomes."""

from __future__ import annotations

import pytest

from runtimes import binary
from runtimes.recipe import CannotPlan, Place, Recipe, Step, Wish
from runtimes.tree import SourceTree

ELF = b"\x7fELF\x02\x01\x01"


def planned(files: dict[str, bytes], **wish: object) -> Recipe:
    return binary.plan(SourceTree.of(files), Wish(**wish))


def test_an_executable_runs_from_its_place_and_is_made_executable() -> None:
    place = Place("tree", "moo")

    assert planned({"moo": ELF, "README.md": b""}) == Recipe(
        language="binary",
        entry_point="moo",
        steps=(Step(name="make it executable", argv=("chmod", "+x", place)),),
        argv=(place,),
    )


@pytest.mark.parametrize(
    ("files", "named", "program"),
    [
        ({"a": ELF, "b": ELF}, "b", "b"),
        ({"bin/a": ELF}, "bin/a", "bin/a"),
        ({"run.sh": b"#!/bin/sh\n", "a": ELF}, "./run.sh", "run.sh"),
        ({"server": b"#!/bin/sh\n"}, None, "server"),
        ({"a": ELF, "lib.so": ELF, "x.node": ELF}, None, "a"),
    ],
)
def test_the_program_is_named_or_found(files: dict[str, bytes], named: str | None, program: str) -> None:
    assert planned(files, entry_point=named).entry_point == program


@pytest.mark.parametrize(
    ("files", "wish", "field"),
    [
        ({"a": ELF, "b": ELF}, {}, "entry_point"),
        ({"a": b"text"}, {}, "entry_point"),
        ({"a": b"text"}, {"entry_point": "a"}, "entry_point"),
        ({"a": ELF}, {"entry_point": "b"}, "entry_point"),
        ({"a": ELF}, {"entry_point": "../a"}, "entry_point"),
        ({"a": ELF}, {"entry_point": "/bin/sh"}, "entry_point"),
        ({"a": ELF}, {"dependencies": ("b",)}, "dependencies"),
        ({"a": ELF}, {"build_command": ""}, "build_command"),
    ],
)
def test_what_cannot_be_is_refused(files: dict[str, bytes], wish: dict[str, object], field: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned(files, **wish)
    assert caught.value.field == field


def test_a_build_command_may_make_the_program() -> None:
    recipe = planned({"Makefile": b""}, build_command="make", entry_point="out/moo")

    assert [step.argv for step in recipe.steps] == [("sh", "-c", "make"), ("chmod", "+x", Place("tree", "out/moo"))]
    assert recipe.argv == (Place("tree", "out/moo"),)


def test_an_only_executable_tells_that_a_source_is_one() -> None:
    assert binary.guess(SourceTree.of({"moo": ELF})) == "moo is an executable"
    assert binary.guess(SourceTree.of({"moo": ELF, "cow": ELF})) is None
    assert binary.guess(SourceTree.of({"moo": b"#!/bin/sh"})) is None
