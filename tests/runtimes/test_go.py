"""What a Go source becomes."""

from __future__ import annotations

import pytest

from runtimes import go
from runtimes.recipe import CannotPlan, Place, Recipe, Wish
from runtimes.tree import SourceTree

MAIN = "package main\n"
MODULE = "module example.com/x/moo\n\ngo 1.24\n"
SERVER = Place("tree", ".corral/bin/server")


def planned(files: dict[str, str], **wish: object) -> Recipe:
    return go.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    return [" ".join(word if isinstance(word, str) else word.path for word in step.argv) for step in recipe.steps]


def build(package: str) -> str:
    return f"go build -trimpath -buildvcs=false -o .corral/bin/server {package}"


def test_a_module_is_built_into_a_program_of_the_tree() -> None:
    recipe = planned({"go.mod": MODULE, "go.sum": "", "main.go": MAIN})

    assert commands(recipe) == [build(".")]
    assert recipe.argv == (SERVER,)
    assert recipe.installed == (".corral",)
    assert recipe.needs == ("go",)
    assert recipe.entry_point is None


def test_a_single_file_becomes_a_module() -> None:
    recipe = planned({"main.go": MAIN}, dependencies=("github.com/a/b@v1.2.3", "example.org/c/v2"))

    assert commands(recipe) == [
        "go mod init corral.local/server",
        "go get github.com/a/b@v1.2.3 example.org/c/v2",
        "go mod tidy",
        build("."),
    ]
    assert commands(planned({"main.go": MAIN})) == ["go mod init corral.local/server", "go mod tidy", build(".")]


@pytest.mark.parametrize(
    ("files", "wanted", "flags"),
    [
        ({"go.sum": ""}, (), "-modcacherw"),
        ({"vendor/modules.txt": ""}, (), "-modcacherw"),
        ({}, (), "-modcacherw -mod=mod"),
        ({"go.sum": ""}, ("example.org/c",), "-modcacherw -mod=mod"),
    ],
)
def test_go_may_fill_in_its_sums_only_where_they_are_missing(
    files: dict[str, str], wanted: tuple[str, ...], flags: str
) -> None:
    recipe = planned({"go.mod": MODULE, "main.go": MAIN, **files}, dependencies=wanted)

    for step in recipe.steps:
        env = dict(step.env)
        assert env["GOFLAGS"] == flags
        assert env["GOTOOLCHAIN"] == "local"
        assert env["GOCACHE"] == Place("cache", "go-build")
        assert env["GOMODCACHE"] == Place("cache", "go-mod")


@pytest.mark.parametrize(
    ("mains", "package"),
    [
        (["main.go", "cmd/a/main.go"], "."),
        (["cmd/a/main.go"], "./cmd/a"),
        (["server/run.go"], "./server"),
        (["cmd/a/main.go", "cmd/moo/main.go"], "./cmd/moo"),
        (["cmd/a/main.go", "cmd/server/main.go"], "./cmd/server"),
        (["cmd/a/main.go", "cmd/a-mcp/main.go"], "./cmd/a-mcp"),
        (["cmd/a/main.go", "examples/b/main.go", "vendor/c/main.go"], "./cmd/a"),
        (["cmd/a/main.go", "main_test.go"], "./cmd/a"),
    ],
)
def test_the_package_to_build_is_guessed(mains: list[str], package: str) -> None:
    recipe = planned({"go.mod": MODULE, "lib.go": "package moo\n", **dict.fromkeys(mains, MAIN)})

    assert commands(recipe) == [build(package)]


def test_a_file_that_no_build_takes_is_no_server() -> None:
    files = {"go.mod": MODULE, "gen.go": f"//go:build ignore\n\n{MAIN}", "cmd/a/main.go": MAIN}

    assert commands(planned(files)) == [build("./cmd/a")]


@pytest.mark.parametrize(
    ("named", "package"),
    [("./cmd/b", "./cmd/b"), ("cmd/b", "./cmd/b"), ("cmd/b/main.go", "./cmd/b"), (".", "."), ("main.go", ".")],
)
def test_an_entry_point_is_a_package_or_a_file_of_one(named: str, package: str) -> None:
    recipe = planned({"go.mod": MODULE, "main.go": MAIN, "cmd/b/main.go": MAIN}, entry_point=named)

    assert commands(recipe) == [build(package)]
    assert recipe.entry_point == named


@pytest.mark.parametrize("named", ["../x", "/x", "-o", "a/../..", ""])
def test_an_entry_point_that_leads_elsewhere_is_refused(named: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"go.mod": MODULE, "main.go": MAIN}, entry_point=named)
    assert caught.value.field == "entry_point"


def test_what_is_not_there_is_refused_with_what_is() -> None:
    files = {"go.mod": MODULE, "cmd/a/main.go": MAIN, "cmd/b/main.go": MAIN}

    with pytest.raises(CannotPlan, match=r"no Go package cmd/c in the source; there is: \./cmd/a, \./cmd/b"):
        planned(files, entry_point="cmd/c")
    with pytest.raises(CannotPlan, match=r"no file cmd/a/mian\.go in the source; there is: cmd/a/main\.go"):
        planned(files, entry_point="cmd/a/mian.go")
    with pytest.raises(CannotPlan, match="several main packages") as caught:
        planned(files)
    assert caught.value.hint == "name one as entry_point: ./cmd/a, ./cmd/b"
    with pytest.raises(CannotPlan, match=r"no package main in the source; there is: lib\.go"):
        planned({"go.mod": MODULE, "lib.go": "package moo"})


def test_a_build_command_replaces_the_compiler_and_not_the_dependencies() -> None:
    recipe = planned({"main.go": MAIN}, build_command="make", dependencies=("example.org/c",), entry_point="out/moo")
    unnamed = planned({"go.mod": MODULE, "main.go": MAIN}, build_command="make", entry_point="main.go")

    assert commands(recipe)[1:] == ["go get example.org/c", "go mod tidy", "sh -c make"]
    assert recipe.argv == (Place("tree", "out/moo"),)
    assert recipe.installed == ()
    assert commands(unnamed) == ["sh -c make"]
    assert unnamed.argv == (SERVER,)
    assert ("GOTOOLCHAIN", "local") in unnamed.steps[0].env


@pytest.mark.parametrize(
    "wanted",
    ["-u", "./x", "../x", "/x", "x", "github.com/a/../b", "https://x.org/y", "x.org/y@../z", "x.org/y@v1;z", "git@x.org:y", ""],
)  # fmt: skip
def test_only_plain_requirements_may_be_named(wanted: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"main.go": MAIN}, dependencies=(wanted,))
    assert caught.value.field == "dependencies"


def test_a_manifest_tells_that_a_source_is_go() -> None:
    assert go.guess(SourceTree.of({"go.mod": ""})) == "there is a go.mod"
    assert go.guess(SourceTree.of({"main.go": ""})) is None
