"""What a Deno source becomes."""

from __future__ import annotations

import pytest

from runtimes import deno
from runtimes.recipe import CannotPlan, Place, Recipe, Wish
from runtimes.tree import SourceTree


def planned(files: dict[str, str], **wish: object) -> Recipe:
    return deno.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    return [" ".join(map(str, step.argv)) for step in recipe.steps]


def test_all_that_is_imported_is_fetched_before_and_nothing_after() -> None:
    recipe = planned({"server.ts": ""})

    assert commands(recipe) == ["deno cache server.ts"]
    assert recipe.argv == ("deno", "run", "--allow-all", "--cached-only", "--no-prompt", "--quiet", "server.ts")
    assert dict(recipe.env)["DENO_DIR"] == dict(recipe.steps[0].env)["DENO_DIR"] == Place("tree", ".corral/deno")
    assert recipe.installed == (".corral/deno",)
    assert recipe.needs == ("deno",)


@pytest.mark.parametrize(
    ("files", "wanted", "steps"),
    [
        ({"deno.lock": ""}, (), ["deno cache --frozen server.ts"]),
        (
            {},
            ("npm:zod@^3", "jsr:@std/path@1"),
            ["deno add --quiet npm:zod@^3 jsr:@std/path@1", "deno cache server.ts"],
        ),
        ({"deno.lock": ""}, ("npm:zod",), ["deno add --quiet npm:zod", "deno cache server.ts"]),
        ({"package.json": "{}"}, (), ["deno install", "deno cache server.ts"]),
    ],
)
def test_what_is_installed_follows_from_the_manifests(
    files: dict[str, str], wanted: tuple[str, ...], steps: list[str]
) -> None:
    assert commands(planned({"server.ts": "", **files}, dependencies=wanted)) == steps


def test_packages_of_a_package_json_are_shared_too() -> None:
    assert planned({"server.ts": "", "package.json": "{}"}).installed == (".corral/deno", "node_modules")


@pytest.mark.parametrize(
    ("files", "file"),
    [
        ({"deno.json": '{"exports": "./b.ts"}'}, "b.ts"),
        ({"deno.json": '{"exports": {".": "b.ts"}}'}, "b.ts"),
        ({"deno.jsonc": '{"tasks": {"start": "deno run -A --watch b.ts"}} // ours'}, "b.ts"),
        ({"deno.json": '{"tasks": {"start": {"command": "deno run ./b.ts"}}}'}, "b.ts"),
        ({"deno.json": '{"exports": "./gone.ts"}', "main.ts": ""}, "main.ts"),
        ({"deno.json": '{"exports": 1, "tasks": []}', "server.js": ""}, "server.js"),
        ({"mod.ts": ""}, "mod.ts"),
        ({"src/index.ts": ""}, "src/index.ts"),
    ],
)
def test_what_runs_is_guessed_from_the_manifest_and_the_files(files: dict[str, str], file: str) -> None:
    assert planned({"a.ts": "", "b.ts": "", **files}).entry_point == file


def test_nothing_to_run_is_refused_with_what_there_is() -> None:
    with pytest.raises(CannotPlan, match=r"there is: a\.ts, b\.ts"):
        planned({"a.ts": "", "b.ts": ""})
    with pytest.raises(CannotPlan, match=r"there is no file c\.ts in the source"):
        planned({"a.ts": ""}, entry_point="c.ts")


@pytest.mark.parametrize("named", ["../x.ts", "/x.ts", "--eval", "https://x/y.ts"])
def test_an_entry_point_that_leads_elsewhere_is_refused(named: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"x.ts": ""}, entry_point=named)
    assert caught.value.field == "entry_point"


def test_a_build_command_may_make_what_runs() -> None:
    recipe = planned({"a.ts": ""}, build_command="deno task build", entry_point="out/x.js")

    assert commands(recipe) == ["sh -c deno task build", "deno cache out/x.js"]


@pytest.mark.parametrize(
    "wanted", ["zod", "npm:../x", "jsr:x", "https://x/y.ts", "--global", "npm:x@npm:y", "npm:@s/../x", ""]
)
def test_only_plain_requirements_may_be_named(wanted: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"server.ts": ""}, dependencies=(wanted,))
    assert caught.value.field == "dependencies"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"deno.json": ""}, "there is a deno.json"),
        ({"deno.lock": ""}, "there is a deno.lock"),
        ({"deno.json": "", "package.json": "{}"}, None),
        ({"server.ts": 'import { z } from "npm:zod@3";'}, "its imports are Deno's"),
        ({"server.ts": 'await import("jsr:@std/path")'}, "its imports are Deno's"),
        ({"server.ts": "#!/usr/bin/env -S deno run\n"}, "its imports are Deno's"),
        ({"server.ts": 'import { z } from "zod";'}, None),
        ({}, None),
    ],
)
def test_a_manifest_or_its_imports_tell_that_a_source_is_for_deno(files: dict[str, str], why: str | None) -> None:
    assert deno.guess(SourceTree.of(files)) == why
