"""What a Bun source becomes."""

from __future__ import annotations

import json

import pytest

from runtimes import bun
from runtimes.recipe import CannotPlan, Recipe, Wish
from runtimes.tree import SourceTree

INSTALL = "bun install --backend=copyfile"


def planned(files: dict[str, str], package: dict[str, object] | None = None, **wish: object) -> Recipe:
    if package is not None:
        files = {**files, "package.json": json.dumps(package)}
    return bun.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    return [" ".join(map(str, step.argv)) for step in recipe.steps]


def test_a_single_file_runs_as_it_is_and_installs_nothing_by_itself() -> None:
    assert planned({"server.ts": ""}) == Recipe(
        language="bun", entry_point="server.ts", argv=("bun", "--no-install", "server.ts"), needs=("bun",)
    )


@pytest.mark.parametrize(
    ("files", "package", "wanted", "steps"),
    [
        ({}, {"dependencies": {"zod": "3"}}, (), [f"{INSTALL} --production"]),
        ({"bun.lock": ""}, {"dependencies": {"zod": "3"}}, (), [f"{INSTALL} --production --frozen-lockfile"]),
        ({"bun.lockb": ""}, {"devDependencies": {"x": "1"}}, (), [f"{INSTALL} --production --frozen-lockfile"]),
        ({}, None, ("zod@3",), ["bun add --backend=copyfile zod@3"]),
        ({}, {"dependencies": {"a": "1"}}, ("zod",), [f"{INSTALL} --production", "bun add --backend=copyfile zod"]),
        ({}, {"main": "out/x.js", "scripts": {"build": "x"}}, (), ["bun run build"]),
        ({"out/x.js": ""}, {"main": "out/x.js", "scripts": {"build": "x"}}, (), []),
    ],
)
def test_what_is_installed_follows_from_the_manifests(
    files: dict[str, str], package: dict[str, object] | None, wanted: tuple[str, ...], steps: list[str]
) -> None:
    recipe = planned({"server.ts": "", **files}, package, dependencies=wanted)

    assert commands(recipe) == steps
    assert recipe.installed == (("node_modules",) if any("add" in step or "install" in step for step in steps) else ())
    assert bool(recipe.files) == (package is None)


@pytest.mark.parametrize(
    ("files", "package", "argv"),
    [
        ("a.ts b.ts", {"bin": {"moo": "a.ts"}}, "a.ts"),
        ("a.ts b.ts", {"scripts": {"start": "bun run b.ts --stdio"}}, "b.ts --stdio"),
        ("a.ts b.ts", {"scripts": {"start": "bun b.ts"}}, "b.ts"),
        ("a.ts b.ts", {"main": "b.ts"}, "b.ts"),
        ("a.ts index.tsx", {}, "index.tsx"),
        ("src/server.ts x.md", {}, "src/server.ts"),
        ("cow.mjs", {}, "cow.mjs"),
    ],
)
def test_what_runs_is_guessed_from_the_manifest_and_the_files(
    files: str, package: dict[str, object], argv: str
) -> None:
    recipe = planned(dict.fromkeys(files.split(), ""), package)

    assert " ".join(map(str, recipe.argv)) == f"bun --no-install {argv}"


def test_nothing_to_run_is_refused_with_what_there_is() -> None:
    with pytest.raises(CannotPlan, match=r"there is: a\.ts, b\.ts"):
        planned({"a.ts": "", "b.ts": ""})
    with pytest.raises(CannotPlan, match=r"there is no file c\.ts in the source"):
        planned({"a.ts": ""}, entry_point="c.ts")


@pytest.mark.parametrize("named", ["../x.ts", "/x.ts", "-e"])
def test_an_entry_point_that_leads_elsewhere_is_refused(named: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"x.ts": ""}, entry_point=named)
    assert caught.value.field == "entry_point"


def test_a_build_command_runs_in_place_of_the_build_script() -> None:
    recipe = planned({"a.ts": ""}, {"main": "a.ts", "scripts": {"build": "x"}}, build_command="make")

    assert [step.argv[0] for step in recipe.steps] == ["sh"]


@pytest.mark.parametrize("wanted", ["--global", "git+https://x", "x@file:..", "../x", "@s/../..", ""])
def test_only_plain_requirements_may_be_named(wanted: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"server.ts": ""}, dependencies=(wanted,))
    assert caught.value.field == "dependencies"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"bun.lock": ""}, "there is a bun.lock"),
        ({"bun.lockb": "", "package.json": "{}"}, "there is a bun.lockb"),
        ({"bun.lock": "", "package-lock.json": "", "package.json": "{}"}, None),
        ({"bun.lock": "", "yarn.lock": ""}, None),
        ({"server.ts": ""}, None),
    ],
)
def test_a_lock_tells_that_a_source_is_for_bun(files: dict[str, str], why: str | None) -> None:
    assert bun.guess(SourceTree.of(files)) == why
