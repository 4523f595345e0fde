"""What a Ruby source becomes."""

from __future__ import annotations

import pytest

from runtimes import ruby
from runtimes.recipe import CannotPlan, Place, Recipe, Wish
from runtimes.tree import SourceTree


def planned(files: dict[str, str], **wish: object) -> Recipe:
    return ruby.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    return [" ".join(map(str, step.argv)) for step in recipe.steps]


def test_a_single_file_needs_ruby_and_nothing_else() -> None:
    assert planned({"server.rb": ""}) == Recipe(
        language="ruby", entry_point="server.rb", argv=("ruby", "server.rb"), needs=("ruby",)
    )


def test_a_gemfile_is_installed_into_the_tree_and_found_there_wherever_it_stands() -> None:
    recipe = planned({"Gemfile": "", "server.rb": ""})

    assert commands(recipe) == ["bundle install"]
    assert recipe.argv == ("ruby", "-rbundler/setup", "server.rb")
    assert dict(recipe.env)["BUNDLE_PATH"] == dict(recipe.steps[0].env)["BUNDLE_PATH"] == Place("tree", "vendor/bundle")
    assert recipe.installed == ("vendor/bundle",)
    assert recipe.needs == ("ruby", "bundle")


def test_a_lock_is_kept_to_unless_something_was_added() -> None:
    files = {"Gemfile": "", "Gemfile.lock": "", "server.rb": ""}
    added = planned(files, dependencies=("mcp@~>0.3", "rack"))

    assert ("BUNDLE_FROZEN", "true") in planned(files).steps[0].env
    assert commands(added) == [
        "bundle add mcp --version=~>0.3 --skip-install",
        "bundle add rack --skip-install",
        "bundle install",
    ]
    assert "BUNDLE_FROZEN" not in dict(added.steps[-1].env)


def test_dependencies_of_a_single_file_get_a_gemfile() -> None:
    recipe = planned({"server.rb": ""}, dependencies=("mcp@~>0.3", "rack", "x:1.2"))

    assert (
        dict(recipe.files)["Gemfile"]
        == 'source "https://rubygems.org"\ngem "mcp", "~>0.3"\ngem "rack"\ngem "x", "1.2"\n'
    )
    assert commands(recipe) == ["bundle install"]


@pytest.mark.parametrize(
    ("files", "file"),
    [
        (["server.rb", "main.rb"], "server.rb"),
        (["cow.rb"], "cow.rb"),
        (["lib/server.rb", "lib/x.rb"], "lib/server.rb"),
        (["bin/moo", "lib/x.rb"], "bin/moo"),
        (["a.rb", "b.rb"], None),
    ],
)
def test_what_runs_is_guessed_from_the_files(files: list[str], file: str | None) -> None:
    if file is None:
        with pytest.raises(CannotPlan, match=r"there is: a\.rb, b\.rb"):
            planned(dict.fromkeys(files, ""))
    else:
        assert planned(dict.fromkeys(files, "")).entry_point == file


@pytest.mark.parametrize("named", ["../x.rb", "/x.rb", "-e", "gone.rb"])
def test_an_entry_point_that_is_not_there_is_refused(named: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"x.rb": ""}, entry_point=named)
    assert caught.value.field == "entry_point"


def test_a_build_command_runs_last_and_may_make_what_runs() -> None:
    recipe = planned({"Gemfile": ""}, build_command="rake", entry_point="out/x.rb")

    assert commands(recipe) == ["bundle install", "sh -c rake"]
    assert recipe.argv[-1] == "out/x.rb"


@pytest.mark.parametrize(
    "wanted", ["--source=x", "git://x", "x@git+https://y", "../x", "x@1; y", 'x", "y', "x@1\n", "#{x}", ""]
)
def test_only_plain_requirements_may_be_named(wanted: str) -> None:
    if wanted.strip() == "x@1":
        assert planned({"server.rb": ""}, dependencies=(wanted,)).files
        return
    with pytest.raises(CannotPlan) as caught:
        planned({"server.rb": ""}, dependencies=(wanted,))
    assert caught.value.field == "dependencies"


def test_a_manifest_tells_that_a_source_is_ruby() -> None:
    assert ruby.guess(SourceTree.of({"Gemfile": ""})) == "there is a Gemfile"
    assert ruby.guess(SourceTree.of({"server.rb": ""})) is None
