"""Which languages there are, and what their sources become."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes import catalog
from runtimes.recipe import Recipe, UnknownLanguage


@pytest.mark.parametrize(
    ("named", "language"),
    [
        ("python", "python"),
        ("Python3", "python"),
        ("py", "python"),
        ("node", "node"),
        ("nodejs", "node"),
        ("JavaScript", "node"),
        ("js", "node"),
    ],
)
def test_a_language_goes_by_several_names(named: str, language: str) -> None:
    assert catalog.normalize(named) == language


@pytest.mark.parametrize("named", ["cobol", "", "python2", "node ", "typescript"])
def test_a_language_that_is_not_run_from_source_is_refused_with_those_that_are(named: str) -> None:
    with pytest.raises(UnknownLanguage, match="languages: python, node"):
        catalog.normalize(named)
    with pytest.raises(UnknownLanguage):
        catalog.recipe(named, "x")


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("server.py", "python"),
        ("gui.pyw", "python"),
        ("SERVER.PY", "python"),
        ("index.js", "node"),
        ("index.mjs", "node"),
        ("a.b.cjs", "node"),
        ("index.ts", None),
        ("py", None),
        (".py", None),
        ("server", None),
        ("", None),
    ],
)
def test_a_files_suffix_tells_its_language(name: str, language: str | None) -> None:
    assert catalog.of_file(name) == language


@pytest.mark.parametrize(
    ("command", "language"),
    [
        ("npx", "node"),
        ("/usr/local/bin/npx", "node"),
        ("NODE", "node"),
        ("uvx", "python"),
        ("uv", "python"),
        ("python", "python"),
        ("/usr/bin/python3.13", "python"),
        ("deno", "deno"),
        ("go", "go"),
        ("cargo", "rust"),
        ("./server.py", "python"),
        ("/opt/cow", "binary"),
        ("", "binary"),
        ("..", "binary"),
    ],
)
def test_a_command_tells_what_it_most_likely_runs(command: str, language: str) -> None:
    assert catalog.of_command(command) == language


@given(st.text(max_size=30))
def test_any_name_has_an_answer(name: str) -> None:
    assert catalog.of_command(name)
    assert catalog.of_file(name) in (None, *catalog.LANGUAGES)


@pytest.mark.parametrize("language", catalog.LANGUAGES)
def test_a_recipe_names_tools_and_never_paths(language: str) -> None:
    recipe = catalog.recipe(language, "server.x")

    assert recipe.language == language
    assert recipe.argv[-1] == "server.x"
    assert recipe.needs
    assert recipe.argv[0] in recipe.needs
    assert not any("/" in word for word in recipe.argv)


def test_python_answers_at_once_and_leaves_no_bytecode() -> None:
    assert catalog.recipe("py", "a.py") == Recipe(
        language="python",
        argv=("python", "a.py"),
        env=(("PYTHONUNBUFFERED", "1"), ("PYTHONDONTWRITEBYTECODE", "1")),
        needs=("python",),
    )


def test_a_recipe_runs(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import sys; print('moo'); sys.stdin.read()")
    recipe = catalog.recipe("python", "a.py")

    with subprocess.Popen(
        [sys.executable, *recipe.argv[1:]],
        cwd=tmp_path,
        env=dict(recipe.env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "moo\n", "before it ends: unbuffered"
        process.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["a.py"]
