"""How a package of a registry is locked, installed and launched."""

from __future__ import annotations

import json

import pytest

from runtimes import packages
from runtimes.commands import PackageCommand, package_of
from runtimes.recipe import CannotPlan, Place


def command(line: str) -> PackageCommand:
    name, *args = line.split()
    found = package_of(name, tuple(args))
    assert found is not None
    return found


def reader(files: dict[str, str | bytes]) -> packages.Read:
    return lambda name: text.encode() if isinstance(text := files.get(name), str) else text


def typed(words: tuple[object, ...]) -> str:
    return " ".join(word.path if isinstance(word, Place) else str(word) for word in words)


def test_an_npm_package_is_locked_without_running_anything_of_it() -> None:
    recipe = packages.lock(command("npx -y --package=@s/cow@^1 --package=calf moo"))

    assert [(name, json.loads(text)["dependencies"]) for name, text in recipe.files] == [
        ("package.json", {"@s/cow": "^1", "calf": "*"})
    ]
    assert [typed(step.argv) for step in recipe.steps] == [
        "npm install --package-lock-only --ignore-scripts --no-audit --no-fund"
    ]
    assert recipe.needs == ("node", "npm")


def test_a_pypi_package_is_locked_with_hashes_for_the_python_that_was_asked_for() -> None:
    recipe = packages.lock(command("uvx --python 3.12 --with calf cow@1"))

    assert recipe.files == (("requirements.in", "cow==1\ncalf\n"),)
    (step,) = recipe.steps
    assert "--generate-hashes" in step.argv
    assert step.argv[-5:] == ("--python", "3.12", "--output-file", "requirements.lock", "requirements.in")
    assert packages.lock_file(command("uvx cow")) == "requirements.lock"
    assert packages.lock_file(command("npx cow")) == "package-lock.json"


def test_the_same_lock_is_the_same_install_whatever_the_arguments() -> None:
    one, other = command("npx -y cow a b"), command("npx cow")

    assert packages.install(one, "{}") == packages.install(other, "{}")
    assert packages.install(command("uvx cow a"), "x") == packages.install(command("uvx cow"), "x")


def test_an_npm_lock_is_installed_as_npx_does_and_shared() -> None:
    recipe = packages.install(command("npx cow"), "{}")

    assert [typed(step.argv) for step in recipe.steps] == ["npm ci --omit=dev --no-audit --no-fund"]
    assert recipe.files[1] == ("package-lock.json", "{}")
    assert recipe.installed == ("node_modules",)


def test_a_pypi_lock_is_installed_into_an_environment_of_its_own_and_by_hash() -> None:
    recipe = packages.install(command("uvx cow"), "cow==1\n")

    assert [typed(step.argv) for step in recipe.steps] == [
        "uv venv --relocatable --clear --no-project --python python .venv",
        "uv pip sync --require-hashes --no-build --python .venv/bin/python requirements.lock",
    ]
    assert recipe.installed == (".venv",)
    assert all(("UV_PYTHON_DOWNLOADS", "never") in step.env for step in recipe.steps)


@pytest.mark.parametrize(
    ("line", "lock", "version"),
    [
        ("npx cow", '{"packages": {"": {}, "node_modules/cow": {"version": "1.2.3"}}}', "1.2.3"),
        ("npx @s/cow@latest", '{"packages": {"node_modules/@s/cow": {"version": "2.0.0-rc.1"}}}', "2.0.0-rc.1"),
        ("npx cow", '{"packages": {"node_modules/calf": {"version": "1"}}}', None),
        ("npx cow", '{"packages": []}', None),
        ("npx cow", "", None),
        ("uvx cow", "calf==1 \\\n    --hash=sha256:0\ncow==2.0 \\\n    --hash=sha256:1\n", "2.0"),
        ("uvx --from Cow_Bell[x] moo", "cow-bell[x]==3 \\\n", "3"),
        ("uvx cow", "cow-bell==1\n", None),
    ],
)
def test_a_lock_says_which_version_it_is(line: str, lock: str, version: str | None) -> None:
    if version is not None:
        assert packages.version(command(line), lock) == version
        return
    with pytest.raises(CannotPlan, match="does not say which version"):
        packages.version(command(line), lock)


NODE = "#!/usr/bin/env node\n"


@pytest.mark.parametrize(
    ("line", "name", "bins", "ran"),
    [
        ("npx cow a", "cow", "dist/x.js", "node node_modules/cow/dist/x.js a"),
        ("npx @s/cow", "@s/cow", {"moo": "./x.js"}, "node node_modules/@s/cow/x.js"),
        ("npx @s/cow", "@s/cow", {"moo": "x.js", "cow": "y.js"}, "node node_modules/@s/cow/y.js"),
        ("npx cow", "cow", {"a": "x.js", "b": "./x.js"}, "node node_modules/cow/x.js"),
        ("npx cow", "cow", {"a": "x.js", "b": "y.js"}, None),
        ("npx cow", "cow", None, None),
        ("npx cow", "cow", "../x.js", None),
        ("npx cow", "cow", "gone.js", None),
        ("npx -p cow moo -v", "cow", {"cow": "x.js", "moo": "y.js"}, "node node_modules/cow/y.js -v"),
        ("npx -p calf -p cow moo", "cow", {"moo": "y.js"}, "node node_modules/cow/y.js"),
        ("npx -p cow other", "cow", {"moo": "y.js"}, None),
    ],
)
def test_a_program_is_found_as_npx_finds_it(line: str, name: str, bins: object, ran: str | None) -> None:
    folder = f"node_modules/{name}"
    files = {f"{folder}/{file}": NODE for file in ("dist/x.js", "x.js", "y.js")}
    read = reader({**files, f"{folder}/package.json": json.dumps({"name": name, "bin": bins})})

    if ran is None:
        with pytest.raises(CannotPlan):
            packages.launch(command(line), read)
    else:
        assert typed(packages.launch(command(line), read)) == ran


@pytest.mark.parametrize(
    ("beginning", "ran"),
    [
        ("#!/usr/bin/env node", "node FILE"),
        ("#! /usr/bin/env node\r\n", "node FILE"),
        ("#!/usr/bin/env -S node --no-warnings --import=x\n", "node --no-warnings --import=x FILE"),
        ("#!/usr/local/bin/node --harmony\n", "node --harmony FILE"),
        ("#!/usr/bin/env node --flag\n", "FILE"),
        ("#!/usr/bin/env -S\n", "FILE"),
        ("#!/usr/bin/env\n", "FILE"),
        ("#!/bin/sh\n", "FILE"),
        ("#!/usr/bin/env bash\n", "FILE"),
        ("#!/usr/bin/env 'node\n", "FILE"),
        ("#!/usr/bin/env nodejs-wrapper\n", "FILE"),
        (b"\x7fELF\x02\x01", "FILE"),
        ("console.log(1)\n", None),
        ("", None),
        ("#!\n", "FILE"),
    ],
)
def test_what_runs_a_program_is_what_its_first_line_says(beginning: str | bytes, ran: str | None) -> None:
    file = "node_modules/cow/x.js"
    read = reader({file: beginning, "node_modules/cow/package.json": '{"bin": "x.js"}'})

    if ran is None:
        with pytest.raises(CannotPlan, match="does not say what runs it"):
            packages.launch(command("npx cow"), read)
    else:
        assert typed(packages.launch(command("npx cow"), read)) == ran.replace("FILE", file)


RELOCATABLE = "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n"


@pytest.mark.parametrize(
    ("beginning", "ran"),
    [
        (RELOCATABLE, ".venv/bin/python .venv/bin/moo -x"),
        ("#!/stage/.venv/bin/python\n", ".venv/bin/python .venv/bin/moo -x"),
        ("#!/stage/.venv/bin/python3.12\n", ".venv/bin/python .venv/bin/moo -x"),
        ("#!/bin/sh\necho\n", ".venv/bin/moo -x"),
        (b"\x7fELF", ".venv/bin/moo -x"),
        (None, None),
    ],
)
def test_a_python_program_runs_on_its_environments_python(beginning: str | bytes | None, ran: str | None) -> None:
    read = reader({} if beginning is None else {".venv/bin/moo": beginning})

    if ran is None:
        with pytest.raises(CannotPlan, match="cow has no program moo"):
            packages.launch(command("uvx --from cow moo -x"), read)
    else:
        assert typed(packages.launch(command("uvx --from cow moo -x"), read)) == ran


def test_nothing_of_a_launch_depends_on_the_folder_that_it_runs_in() -> None:
    read = reader({"node_modules/cow/x.js": NODE, "node_modules/cow/package.json": '{"bin": "x.js"}'})

    assert packages.launch(command("npx cow"), read) == ("node", Place("tree", "node_modules/cow/x.js"))
