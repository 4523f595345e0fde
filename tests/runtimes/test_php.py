"""What a PHP source becomes."""

from __future__ import annotations

import pytest

from runtimes import php
from runtimes.recipe import CannotPlan, Recipe, Wish
from runtimes.tree import SourceTree

RUN = ("php", "-d", "display_errors=stderr")
QUIET = "--no-interaction --no-progress"


def planned(files: dict[str, str], **wish: object) -> Recipe:
    return php.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    return [" ".join(map(str, step.argv)) for step in recipe.steps]


def test_a_single_file_needs_php_and_keeps_its_errors_out_of_the_protocol() -> None:
    assert planned({"server.php": ""}) == Recipe(
        language="php", entry_point="server.php", argv=(*RUN, "server.php"), needs=("php",)
    )


@pytest.mark.parametrize(
    ("files", "wanted", "steps", "written"),
    [
        ({"composer.json": "{}"}, (), [f"composer install --no-dev {QUIET}"], False),
        ({"composer.json": "{}", "composer.lock": ""}, (), [f"composer install --no-dev {QUIET}"], False),
        ({"composer.json": "{}"}, ("a/b:^1.0",), [f"composer require --update-no-dev {QUIET} a/b:^1.0"], False),
        ({}, ("a/b",), [f"composer require --update-no-dev {QUIET} a/b"], True),
    ],
)
def test_what_is_installed_follows_from_the_manifests(
    files: dict[str, str], wanted: tuple[str, ...], steps: list[str], written: bool
) -> None:
    recipe = planned({"server.php": "", **files}, dependencies=wanted)

    assert commands(recipe) == steps
    assert bool(recipe.files) is written
    assert recipe.installed == ("vendor",)
    assert recipe.needs == ("php", "composer")


@pytest.mark.parametrize(
    ("files", "file"),
    [
        ({"composer.json": '{"bin": ["bin/moo"]}', "bin/moo": "", "server.php": ""}, "bin/moo"),
        ({"composer.json": '{"bin": "bin/moo"}', "bin/moo": ""}, "bin/moo"),
        ({"composer.json": '{"bin": ["bin/a", "bin/b"]}', "bin/a": "", "index.php": ""}, "index.php"),
        ({"composer.json": "{", "index.php": "", "x.php": ""}, "index.php"),
        ({"cow.php": ""}, "cow.php"),
        ({"public/index.php": "", "lib/x.php": ""}, "public/index.php"),
        ({"a.php": "", "b.php": ""}, None),
    ],
)
def test_what_runs_is_guessed_from_the_files(files: dict[str, str], file: str | None) -> None:
    if file is None:
        with pytest.raises(CannotPlan, match=r"there is: a\.php, b\.php"):
            planned(files)
    else:
        assert planned(files).entry_point == file


@pytest.mark.parametrize("named", ["../x.php", "/x.php", "-r", "gone.php"])
def test_an_entry_point_that_is_not_there_is_refused(named: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"x.php": ""}, entry_point=named)
    assert caught.value.field == "entry_point"


def test_a_build_command_runs_after_the_installation() -> None:
    recipe = planned({"composer.json": "{}", "server.php": ""}, build_command="make")

    assert recipe.steps[-1].argv == ("sh", "-c", 'export PATH="$PWD/vendor/bin:$PATH"\nmake')
    assert commands(planned({"server.php": ""}, build_command="make")) == ["sh -c make"]


@pytest.mark.parametrize("wanted", ["--dev", "a", "../a", "a/../b", "https://x/y", "a/b:dev-x#1/..", "a/b;c", ""])
def test_only_plain_requirements_may_be_named(wanted: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"server.php": ""}, dependencies=(wanted,))
    assert caught.value.field == "dependencies"


def test_a_manifest_tells_that_a_source_is_php() -> None:
    assert php.guess(SourceTree.of({"composer.json": ""})) == "there is a composer.json"
    assert php.guess(SourceTree.of({"server.php": ""})) is None
