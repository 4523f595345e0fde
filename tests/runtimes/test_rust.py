"""What a Rust source becomes."""

from __future__ import annotations

import tomllib

import pytest

from runtimes import rust
from runtimes.recipe import CannotPlan, Place, Recipe, Wish
from runtimes.tree import SourceTree

PACKAGE = '[package]\nname = "moo"\nversion = "1.0.0"\n'


def planned(files: dict[str, str], **wish: object) -> Recipe:
    return rust.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    return [" ".join(word if isinstance(word, str) else word.path for word in step.argv) for step in recipe.steps]


def build(program: str, folder: str = ".", *flags: str) -> str:
    return " ".join(["cargo install --path", folder, "--bin", program, "--root .corral --no-track --force", *flags])


def test_a_package_is_built_into_a_program_of_the_tree() -> None:
    recipe = planned({"Cargo.toml": PACKAGE, "src/main.rs": ""})

    assert commands(recipe) == [build("moo")]
    assert recipe.argv == (Place("tree", ".corral/bin/moo"),)
    assert recipe.installed == (".corral",)
    assert recipe.needs == ("cargo", "rustc", "cc")
    assert recipe.entry_point is None
    env = dict(recipe.steps[0].env)
    assert env["CARGO_HOME"] == Place("cache", "cargo")
    assert env["CARGO_TARGET_DIR"] == Place("cache", "cargo-target")


def test_a_lock_is_kept_to_unless_something_was_added() -> None:
    files = {"Cargo.toml": PACKAGE, "Cargo.lock": "", "src/main.rs": ""}

    assert commands(planned(files)) == [build("moo", ".", "--locked")]
    assert commands(planned(files, dependencies=("serde[derive,rc]@1.0", "anyhow", "x=0.1.2"))) == [
        "cargo add --manifest-path Cargo.toml serde@1.0 --features derive,rc",
        "cargo add --manifest-path Cargo.toml anyhow",
        "cargo add --manifest-path Cargo.toml x@0.1.2",
        build("moo"),
    ]


def test_a_single_file_gets_a_manifest() -> None:
    recipe = planned(
        {"main.rs": ""}, dependencies=("rmcp[server,transport-io]@0.8", "tokio[rt/full]", "a@>=1, <2", "b@=1.2.3")
    )

    assert commands(recipe) == [build("server")]
    assert recipe.entry_point == "main.rs"
    data = tomllib.loads(dict(recipe.files)["Cargo.toml"])
    assert data["package"]["name"] == "server"
    assert data["bin"] == [{"name": "server", "path": "main.rs"}]
    assert data["dependencies"] == {
        "rmcp": {"version": "0.8", "features": ["server", "transport-io"]},
        "tokio": {"version": "*", "features": ["rt/full"]},
        "a": {"version": ">=1, <2", "features": []},
        "b": {"version": "=1.2.3", "features": []},
    }


@pytest.mark.parametrize(
    ("files", "file"),
    [(["server.rs", "x.rs"], "server.rs"), (["src/main.rs", "src/x.rs"], "src/main.rs"), (["cow.rs"], "cow.rs"), (["a.rs", "b.rs"], None)],
)  # fmt: skip
def test_the_single_file_is_guessed(files: list[str], file: str | None) -> None:
    if file is None:
        with pytest.raises(CannotPlan, match=r"there is: a\.rs, b\.rs"):
            planned(dict.fromkeys(files, ""))
    else:
        assert planned(dict.fromkeys(files, "")).entry_point == file


WORKSPACE = {
    "Cargo.toml": '[workspace]\nmembers = ["a", "b"]\n',
    "a/Cargo.toml": PACKAGE.replace("moo", "a"),
    "a/src/lib.rs": "",
    "b/Cargo.toml": PACKAGE.replace("moo", "b"),
    "b/src/main.rs": "",
}


@pytest.mark.parametrize(
    ("files", "program", "folder"),
    [
        ({"Cargo.toml": PACKAGE, "src/lib.rs": "", "src/bin/cow.rs": ""}, "cow", "."),
        ({"Cargo.toml": PACKAGE, "src/main.rs": "", "src/bin/cow.rs": ""}, "moo", "."),
        ({"Cargo.toml": PACKAGE, "src/bin/a.rs": "", "src/bin/a-mcp/main.rs": ""}, "a-mcp", "."),
        ({"Cargo.toml": PACKAGE + 'default-run = "b"\n', "src/bin/a.rs": "", "src/bin/b.rs": ""}, "b", "."),
        ({"Cargo.toml": PACKAGE + '[[bin]]\nname = "cow"\npath = "src/main.rs"\n', "src/main.rs": ""}, "cow", "."),
        ({"Cargo.toml": PACKAGE + 'autobins = false\n[[bin]]\nname = "x"\n', "src/main.rs": "", "src/bin/y.rs": ""}, "x", "."),
        (WORKSPACE, "b", "b"),
        ({**WORKSPACE, "Cargo.toml": PACKAGE + "[workspace]\n", "src/main.rs": ""}, "moo", "."),
        ({**WORKSPACE, "tests/bad/Cargo.toml": "= ="}, "b", "b"),
    ],
)  # fmt: skip
def test_the_program_to_build_is_guessed(files: dict[str, str], program: str, folder: str) -> None:
    assert commands(planned(files)) == [build(program, folder)]


@pytest.mark.parametrize(
    ("named", "program", "folder"),
    [
        ("cow", "cow", "."),
        ("src/bin/cow.rs", "cow", "."),
        ("moo", "moo", "."),
        ("src/main.rs", "moo", "."),
        ("b", "b", "b"),
        ("b/src/main.rs", "b", "b"),
        ("./b", "b", "b"),
    ],
)
def test_an_entry_point_is_a_program_a_package_or_a_file(named: str, program: str, folder: str) -> None:
    files = {**WORKSPACE, "Cargo.toml": PACKAGE + "[workspace]\n", "src/main.rs": "", "src/bin/cow.rs": ""}
    recipe = planned(files, entry_point=named)

    assert commands(recipe) == [build(program, folder)]
    assert recipe.entry_point == named


def test_what_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(CannotPlan, match=r"no file cow in the source; there is: .*\bb\b"):
        planned(WORKSPACE, entry_point="cow")
    with pytest.raises(CannotPlan, match="describes a library"):
        planned({"Cargo.toml": PACKAGE, "src/lib.rs": ""})
    with pytest.raises(CannotPlan, match="several programs") as caught:
        planned({"Cargo.toml": PACKAGE, "src/bin/a.rs": "", "src/bin/b.rs": ""})
    assert caught.value.hint == "name one as entry_point: a, b"
    with pytest.raises(CannotPlan, match=r"Cargo\.toml cannot be read"):
        planned({"Cargo.toml": "= ="})


@pytest.mark.parametrize("named", ["../x", "/x", "--git", ""])
def test_an_entry_point_that_leads_elsewhere_is_refused(named: str) -> None:
    for files in ({"main.rs": ""}, {"Cargo.toml": PACKAGE, "src/main.rs": ""}):
        with pytest.raises(CannotPlan) as caught:
            planned(files, entry_point=named)
        assert caught.value.field == "entry_point"


def test_a_build_command_replaces_the_compiler_and_not_the_dependencies() -> None:
    recipe = planned(
        {"Cargo.toml": PACKAGE, "src/main.rs": ""}, build_command="make", dependencies=("x@1",), entry_point="out/moo"
    )

    assert commands(recipe) == ["cargo add --manifest-path Cargo.toml x@1", "sh -c make"]
    assert recipe.argv == (Place("tree", "out/moo"),)
    single = planned({"main.rs": ""}, build_command="make", dependencies=("x@1",), entry_point="main.rs")
    assert single.argv == (Place("tree", ".corral/bin/server"),)
    assert 'x = { version = "1"' in dict(single.files)["Cargo.toml"]


@pytest.mark.parametrize(
    "wanted",
    [
        "--git=x", "-p", "x@git+https://y", "x = { path = \"..\" }", "../x", "/x", "x[a\"]", "x@1\"", "x[]", "x@", "x y",
        "x@1\n[patch]", "x;y", "", "@scope/../..", "x[--git]",
    ],
)  # fmt: skip
def test_only_plain_requirements_may_be_named(wanted: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"main.rs": ""}, dependencies=(wanted,))
    assert caught.value.field == "dependencies"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"Cargo.toml": ""}, "there is a Cargo.toml"),
        ({"Cargo.toml": "", "pyproject.toml": '[build-system]\nbuild-backend = "maturin"'}, None),
        ({"main.rs": ""}, None),
    ],
)
def test_a_manifest_tells_that_a_source_is_rust(files: dict[str, str], why: str | None) -> None:
    assert rust.guess(SourceTree.of(files)) == why
