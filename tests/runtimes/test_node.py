"""What a Node.js source becomes."""

from __future__ import annotations

import json

import pytest

from runtimes import node
from runtimes.recipe import CannotPlan, Place, Recipe, Wish
from runtimes.tree import SourceTree

INSTALL = "npm install --omit=dev --no-audit --no-fund"
INSTALL_ALL = "npm install --no-audit --no-fund"
CI = "npm ci --omit=dev --no-audit --no-fund"
CI_ALL = "npm ci --no-audit --no-fund"
BUILD = "npm run build"
PRUNE = "npm prune --omit=dev --ignore-scripts --no-audit --no-fund"
ESM = 'import { z } from "zod";\n'


def planned(files: dict[str, str], package: dict[str, object] | None = None, **wish: object) -> Recipe:
    if package is not None:
        files = {**files, "package.json": json.dumps(package)}
    return node.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    return [" ".join(word if isinstance(word, str) else word.path for word in step.argv) for step in recipe.steps]


def test_a_single_file_needs_node_and_nothing_else() -> None:
    assert planned({"server.js": "console.log(1)"}) == Recipe(
        language="node", entry_point="server.js", argv=("node", "server.js"), needs=("node",)
    )


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("server.js", ESM, {"private": True, "type": "module"}),
        ("server.js", "await main()\n", {"private": True, "type": "module"}),
        ("server.js", "export {}\n", {"private": True, "type": "module"}),
        ("server.js", "const z = require('zod')\nimport('x')", None),
        ("server.mjs", ESM, None),
        ("server.cjs", "", None),
    ],
)
def test_a_single_es_module_is_said_to_be_one(name: str, text: str, kind: dict[str, object] | None) -> None:
    files = planned({name: text}).files

    assert [(path, json.loads(written)) for path, written in files] == ([("package.json", kind)] if kind else [])


def test_a_single_file_with_dependencies_gets_a_manifest_so_that_npm_stays_in_its_folder() -> None:
    recipe = planned({"server.js": "require('zod')"}, dependencies=("zod@^3.25", "@scope/x"))

    assert [(path, json.loads(text)) for path, text in recipe.files] == [("package.json", {"private": True})]
    assert commands(recipe) == [f"{INSTALL} -- zod@^3.25 @scope/x"]
    assert recipe.installed == ("node_modules",)
    assert recipe.needs == ("node", "npm")
    assert recipe.path == (Place("tree", "node_modules/.bin"),)


@pytest.mark.parametrize(
    ("files", "package", "steps"),
    [
        ({}, {}, []),
        ({}, {"dependencies": {"zod": "3"}}, [INSTALL]),
        ({}, {"workspaces": ["a"]}, [INSTALL]),
        ({"package-lock.json": ""}, {"dependencies": {"zod": "3"}}, [CI]),
        ({"npm-shrinkwrap.json": ""}, {"dependencies": {"zod": "3"}}, [CI]),
        ({"yarn.lock": ""}, {"dependencies": {"zod": "3"}}, [INSTALL]),
        # What runs is there: nothing to build.
        ({}, {"dependencies": {"zod": "3"}, "scripts": {"build": "x"}}, [INSTALL]),
        # A script of npm's own runs at installation, with its development tools.
        ({}, {"devDependencies": {"husky": "9"}, "scripts": {"prepare": "husky"}}, [INSTALL_ALL, PRUNE]),
    ],
)  # fmt: skip
def test_what_is_installed_follows_from_the_manifests(
    files: dict[str, str], package: dict[str, object], steps: list[str]
) -> None:
    assert commands(planned({"server.js": "", **files}, package)) == steps


BUILDS: dict[str, object] = {
    "main": "dist/index.js",
    "scripts": {"build": "tsc"},
    "devDependencies": {"typescript": "5"},
}


def test_a_build_has_its_tools_and_leaves_none() -> None:
    assert commands(planned({}, BUILDS)) == [INSTALL_ALL, BUILD, PRUNE]
    assert commands(planned({"package-lock.json": ""}, BUILDS)) == [CI_ALL, BUILD, PRUNE]
    assert planned({}, BUILDS).argv == ("node", "dist/index.js")


def test_what_was_built_before_is_not_built_again() -> None:
    assert commands(planned({"dist/index.js": ""}, BUILDS)) == [INSTALL]


def test_a_file_that_reaches_into_what_is_not_built_yet_needs_the_build() -> None:
    package = {**BUILDS, "bin": "bin/cli.js"}

    assert BUILD in commands(planned({"bin/cli.js": "require('../dist/index.js')"}, package))
    assert BUILD not in commands(planned({"bin/cli.js": "require('../dist/a')", "dist/a.js": ""}, package))


def test_a_prepare_script_that_builds_is_the_build() -> None:
    package = {**BUILDS, "scripts": {"build": "tsc", "prepare": "npm run build"}}

    assert commands(planned({}, package)) == [INSTALL_ALL, PRUNE]
    assert planned({}, {**package, "scripts": {"prepare": "tsc"}}).argv == ("node", "dist/index.js")


def test_a_build_command_replaces_the_build_script_and_not_the_installation() -> None:
    recipe = planned({"dist/index.js": ""}, BUILDS, build_command="make")

    assert commands(recipe) == [INSTALL_ALL, 'sh -c export PATH="$PWD/node_modules/.bin:$PATH"\nmake', PRUNE]


def test_wanted_packages_come_on_top_of_a_lock() -> None:
    package = {"dependencies": {"zod": "3"}}
    recipe = planned({"server.js": "", "package-lock.json": ""}, package, dependencies=("left-pad",))

    assert commands(recipe) == [CI, f"{INSTALL} -- left-pad"]


@pytest.mark.parametrize(
    ("files", "package", "argv"),
    [
        ("a.js b.js", {"name": "x", "bin": "./a.js"}, "a.js"),
        ("a.js b.js", {"name": "x", "bin": {"moo": "a.js"}}, "a.js"),
        ("a.js b.js", {"name": "@s/moo", "bin": {"cow": "a.js", "moo": "b.js"}}, "b.js"),
        ("a.js b.js", {"name": "x", "bin": {"cow": "a.js", "moo": "b.js"}, "main": "b"}, "b.js"),
        ("a.js b.js", {"name": "x", "bin": {"cow": "gone.js"}, "main": "b"}, "b.js"),
        ("lib/index.js x.js", {"main": "lib"}, "lib/index.js"),
        ("a.js b.js", {"main": "index.js", "exports": "./b.js"}, "b.js"),
        ("a.js b.js", {"exports": {".": {"import": {"types": "x.d.ts", "default": "./b.js"}}}}, "b.js"),
        ("a.js b.js", {"main": "a.js", "scripts": {"start": "node b.js"}}, "b.js"),
        ("a.js b.js", {"scripts": {"start": "node --no-warnings b.js --stdio 'x y'"}}, "--no-warnings b.js --stdio x y"),
        ("a.js b.js index.js", {"scripts": {"start": "tsc && node b.js"}}, "index.js"),
        ("a.js b.js index.js", {"scripts": {"start": "node -r x b.js"}}, "index.js"),
        ("a.js b.js index.js", {"scripts": {"start": "node 'b.js"}}, "index.js"),
        ("a.js index.js server.mjs", {}, "server.mjs"),
        ("a.js app.cjs", {}, "app.cjs"),
        ("a.js eslint.config.js", {}, "a.js"),
        ("src/index.js src/x.js", {}, "src/index.js"),
        ("a.js b.js index.js", {"bin": "../a.js", "main": "/a.js", "exports": "-x"}, "index.js"),
    ],
)  # fmt: skip
def test_what_runs_is_guessed_from_the_manifest_and_the_files(
    files: str, package: dict[str, object], argv: str
) -> None:
    recipe = planned(dict.fromkeys(files.split(), ""), package)

    assert " ".join(map(str, recipe.argv)) == f"node {argv}"


def test_the_variables_of_a_start_script_are_kept() -> None:
    recipe = planned({"a.js": "", "b.js": ""}, {"scripts": {"start": "NODE_ENV=production node b.js"}})

    assert recipe.env == (("NODE_ENV", "production"),)


@pytest.mark.parametrize(("named", "file"), [("lib/x.mjs", "lib/x.mjs"), ("./lib/x.mjs", "lib/x.mjs"), ("cow", "a.js")])
def test_an_entry_point_is_a_file_or_a_program(named: str, file: str) -> None:
    recipe = planned({"lib/x.mjs": "", "a.js": ""}, {"bin": {"cow": "a.js", "calf": "b.js"}}, entry_point=named)

    assert recipe.argv == ("node", file)


def test_an_entry_point_may_be_what_the_build_makes() -> None:
    assert planned({}, BUILDS, entry_point="dist/other.js").argv == ("node", "dist/other.js")
    with pytest.raises(CannotPlan, match=r"there is no file dist/other\.js in the source; there is: index\.js"):
        planned({"index.js": ""}, {}, entry_point="dist/other.js")


@pytest.mark.parametrize("named", ["../x.js", "/x.js", "--eval", "C:/x.js", ""])
def test_an_entry_point_that_leads_elsewhere_is_refused(named: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"x.js": ""}, entry_point=named)
    assert caught.value.field == "entry_point"


def test_nothing_to_run_is_refused_with_what_was_looked_for() -> None:
    with pytest.raises(CannotPlan, match=r"there is: a\.js, b\.js") as caught:
        planned({"a.js": "", "b.js": ""})
    assert "scripts.start" in str(caught.value.hint)


@pytest.mark.parametrize(
    "wanted",
    [
        "--registry=https://evil", "-g", "git+ssh://x/y", "user/repo", "github:user/repo", "x@npm:y", "x@file:../y", "x@..",
        "x@https://x/y.tgz", "./x", "../x", "/x", "~/x", "x.tgz", "x@y.tar.gz", "@scope/../..", "@../x", "x;y", "", "x@",
    ],
)  # fmt: skip
def test_only_plain_requirements_may_be_named(wanted: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"server.js": ""}, dependencies=("zod", wanted))
    assert caught.value.field == "dependencies"


@pytest.mark.parametrize(
    "wanted", ["zod", "zod@3", "@a/b@^1.2 || ~2.0.0", "x@>=1 <2", "x@latest", "JSONStream@*", "a.b_c"]
)
def test_plain_requirements_are_taken_as_they_are(wanted: str) -> None:
    assert planned({"server.js": ""}, dependencies=(wanted,)).steps[0].argv[-1] == wanted


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "[" * 100_000])
def test_a_manifest_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(CannotPlan, match=r"package\.json"):
        planned({"server.js": "", "package.json": text})


@pytest.mark.parametrize(
    "package",
    [
        {"bin": 3},
        {"bin": {"x": None}},
        {"main": []},
        {"exports": [1]},
        {"scripts": {"start": 1}},
        {"dependencies": "x"},
    ],
)
def test_what_makes_no_sense_in_a_manifest_is_passed_over(package: dict[str, object]) -> None:
    assert planned({"index.js": ""}, package).argv == ("node", "index.js")


def test_locks_of_other_tools_are_said_to_be_passed_over() -> None:
    assert planned({"index.js": "", "pnpm-lock.yaml": ""}, {}).notes == (
        "pnpm-lock.yaml is not read: npm resolves package.json anew",
    )


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"package.json": "{}"}, "there is a package.json"),
        ({"package.json": "{}", "tsconfig.json": ""}, None),
        ({"package.json": '{"devDependencies": {"typescript": "5"}}'}, None),
        ({"package.json": "{}", "bun.lock": ""}, None),
        ({"package.json": "{}", "bun.lock": "", "package-lock.json": ""}, "there is a package.json"),
        ({"package.json": "{}", "deno.json": ""}, "there is a package.json"),
        ({"server.js": ""}, None),
    ],
)
def test_a_manifest_tells_that_a_source_is_for_node(files: dict[str, str], why: str | None) -> None:
    assert node.guess(SourceTree.of(files)) == why
