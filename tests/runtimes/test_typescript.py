"""What a TypeScript source becomes."""

from __future__ import annotations

import json

import pytest

from runtimes import jsonc, typescript
from runtimes.recipe import CannotPlan, Recipe, Wish
from runtimes.tree import SourceTree

INSTALL = "npm install --omit=dev --no-audit --no-fund"
INSTALL_ALL = "npm install --no-audit --no-fund"
COMPILER = "npm install --ignore-scripts --no-audit --no-fund"
BUILD = "npm run build"
PRUNE = "npm prune --omit=dev --ignore-scripts --no-audit --no-fund"
TSCONFIG = '{"compilerOptions": {"outDir": "./build",}, } // ours'
DEVELOPS: dict[str, object] = {"devDependencies": {"typescript": "5"}}


def planned(files: dict[str, str], package: dict[str, object] | None = None, **wish: object) -> Recipe:
    if package is not None:
        files = {**files, "package.json": json.dumps(package)}
    return typescript.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    """The steps; of esbuild's long line only what goes in and what comes out."""
    lines = [" ".join(word if isinstance(word, str) else word.path for word in step.argv) for step in recipe.steps]
    return [" ".join([line.split()[2], line.split()[-2]]) if "esbuild" in line else line for line in lines]


def test_a_single_file_is_compiled_by_a_pinned_compiler_that_goes_away_again() -> None:
    recipe = planned({"server.ts": ""})

    assert commands(recipe) == [COMPILER, "server.ts --outfile=server.mjs"]
    assert recipe.steps[0].cwd == ".corral/tools"
    assert json.loads(dict(recipe.files)[".corral/tools/package.json"])["dependencies"] == {"esbuild": "0.28.2"}
    assert recipe.argv == ("node", "server.mjs")
    assert recipe.entry_point == "server.ts"
    assert recipe.discarded == (".corral/tools",)
    assert recipe.installed == ()
    assert recipe.needs == ("node", "npm")


def test_dependencies_of_a_single_file_are_its_own() -> None:
    recipe = planned({"server.ts": ""}, dependencies=("zod@3",))

    assert commands(recipe) == [f"{INSTALL} -- zod@3", COMPILER, "server.ts --outfile=server.mjs"]
    assert "package.json" in dict(recipe.files)
    assert recipe.installed == ("node_modules",)
    with pytest.raises(CannotPlan):
        planned({"server.ts": ""}, dependencies=("zod@file:../x",))


@pytest.mark.parametrize(
    ("name", "text", "made"),
    [
        ("server.ts", "import x from 'x'", "server.mjs"),
        ("server.ts", "const x = require('x')", "server.cjs"),
        ("server.ts", "console.log(__dirname)", "server.cjs"),
        ("server.ts", "import x from 'x'\nexport = x", "server.cjs"),
        ("server.ts", "const require = createRequire(import.meta.url)\nrequire('x')", "server.mjs"),
        ("server.ts", "const __dirname = dirname(import.meta.url)", "server.mjs"),
        ("server.mts", "require('x')", "server.mjs"),
        ("server.cts", "", "server.cjs"),
    ],
)
def test_the_module_format_is_what_the_file_is_written_for(name: str, text: str, made: str) -> None:
    assert planned({name: text}).argv == ("node", made)


def test_no_file_of_the_source_is_overwritten() -> None:
    assert planned({"server.ts": "", "server.mjs": ""}).argv == ("node", "server.corral.mjs")


@pytest.mark.parametrize(
    ("files", "package", "steps", "ran"),
    [
        # The project builds itself.
        (
            {"tsconfig.json": TSCONFIG},
            {"bin": "build/index.js", "scripts": {"build": "tsc"}, **DEVELOPS},
            [INSTALL_ALL, BUILD, PRUNE],
            "build/index.js",
        ),
        ({}, {"main": "dist/x.js", "scripts": {"build": "tsup"}, **DEVELOPS}, [INSTALL_ALL, BUILD, PRUNE], "dist/x.js"),
        ({}, {"main": "dist/x.js", "scripts": {"prepare": "tsc"}, **DEVELOPS}, [INSTALL_ALL, PRUNE], "dist/x.js"),
        # It was built before.
        ({"build/index.js": ""}, {"main": "build/index.js", "scripts": {"build": "tsc"}}, [], "build/index.js"),
        # It does not say how, but tsc would write that file: by its own, or by ours.
        (
            {"tsconfig.json": TSCONFIG},
            {"main": "build/index.js", **DEVELOPS},
            [INSTALL_ALL, "node node_modules/typescript/bin/tsc -p tsconfig.json", PRUNE],
            "build/index.js",
        ),
        (
            {"tsconfig.json": TSCONFIG},
            {"main": "build/index.js"},
            [COMPILER, "node .corral/tools/node_modules/typescript/bin/tsc -p tsconfig.json"],
            "build/index.js",
        ),
        # `npm init` put a main there that tsc will not write.
        (
            {"tsconfig.json": TSCONFIG},
            {"main": "index.js", "scripts": {"build": "tsc"}, **DEVELOPS},
            [INSTALL, COMPILER, "src/index.ts --outfile=src/index.mjs"],
            "src/index.mjs",
        ),
        # It runs from its TypeScript.
        (
            {"src/main.ts": ""},
            {"scripts": {"start": "tsx src/main.ts --stdio"}, **DEVELOPS},
            [INSTALL, COMPILER, "src/main.ts --outfile=src/main.mjs"],
            "src/main.mjs --stdio",
        ),
        ({"tsconfig.json": ""}, None, [COMPILER, "src/index.ts --outfile=src/index.mjs"], "src/index.mjs"),
    ],
)
def test_how_a_project_becomes_javascript(
    files: dict[str, str], package: dict[str, object] | None, steps: list[str], ran: str
) -> None:
    recipe = planned({"src/index.ts": "", **files}, package)

    assert commands(recipe) == steps
    assert " ".join(map(str, recipe.argv)) == f"node {ran}"
    assert recipe.language == "typescript"


def test_a_build_command_replaces_the_compiler_and_says_what_it_makes() -> None:
    recipe = planned({"server.ts": ""}, build_command="make", entry_point="out/server.js")

    assert [step.argv[:2] for step in recipe.steps] == [("sh", "-c")]
    assert recipe.argv == ("node", "out/server.js")
    assert planned({"server.mts": ""}, build_command="make", entry_point="server.mts").argv == ("node", "server.mjs")
    assert planned({"src/server.ts": ""}, build_command="make").argv == ("node", "src/server.js")


@pytest.mark.parametrize(
    ("named", "ran"),
    [("src/x.ts", "src/x.mjs"), ("./src/x.ts", "src/x.mjs"), ("build/y.js", "build/y.js"), ("cow", "build/cow.js")],
)
def test_an_entry_point_is_a_source_a_program_or_what_the_build_makes(named: str, ran: str) -> None:
    package = {"bin": {"cow": "build/cow.js", "calf": "build/calf.js"}, "scripts": {"build": "tsc"}}

    assert planned({"src/x.ts": "", "tsconfig.json": TSCONFIG}, package, entry_point=named).argv == ("node", ran)


def test_a_missing_entry_point_is_refused_with_what_there_is() -> None:
    with pytest.raises(CannotPlan, match=r"there is no file src/y\.ts in the source; there is: src/x\.ts"):
        planned({"src/x.ts": ""}, entry_point="src/y.ts")
    with pytest.raises(CannotPlan, match=r"there is no file dist/x\.js"):
        planned({"src/x.ts": ""}, entry_point="dist/x.js")


@pytest.mark.parametrize("named", ["../x.ts", "/x.ts", "--x.ts"])
def test_an_entry_point_that_leads_elsewhere_is_refused(named: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"x.ts": ""}, entry_point=named)
    assert caught.value.field == "entry_point"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"tsconfig.json": ""}, "there is a tsconfig.json"),
        ({"package.json": '{"devDependencies": {"tsx": "4"}}'}, "package.json names tsx"),
        ({"package.json": "{}"}, None),
        ({"package.json": "{}", "tsconfig.json": "", "bun.lock": ""}, None),
        ({"deno.json": "", "tsconfig.json": ""}, None),
        ({"server.ts": ""}, None),
    ],
)
def test_a_manifest_tells_that_a_source_is_typescript(files: dict[str, str], why: str | None) -> None:
    assert typescript.guess(SourceTree.of(files)) == why


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a": 1, // x\n "b": [1, 2,], /* y, */ }', {"a": 1, "b": [1, 2]}),
        ('{"a": "// no, } comment", "b": "\\"/*"}', {"a": "// no, } comment", "b": '"/*'}),
        ("[1]", {}),
        ("{", {}),
        ("", {}),
    ],
)
def test_json_may_have_comments_and_trailing_commas(text: str, data: dict[str, object]) -> None:
    assert jsonc.loads(text) == data
