"""Which languages there are, and what their sources become."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes import catalog
from runtimes.recipe import CannotPlan, Recipe, UnknownLanguage, Wish
from runtimes.tree import SourceTree


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
        ("TS", "typescript"),
        ("golang", "go"),
        ("rs", "rust"),
        ("C#", "dotnet"),
        ("csharp", "dotnet"),
        ("rb", "ruby"),
        ("ELF", "binary"),
    ],
)
def test_a_language_goes_by_several_names(named: str, language: str) -> None:
    assert catalog.normalize(named) == language


@pytest.mark.parametrize("named", ["cobol", "", "python2", "node "])
def test_a_language_that_is_not_run_from_source_is_refused_with_those_that_are(named: str) -> None:
    with pytest.raises(UnknownLanguage, match="languages: python, node"):
        catalog.normalize(named)


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("server.py", "python"),
        ("gui.pyw", "python"),
        ("SERVER.PY", "python"),
        ("index.js", "node"),
        ("index.mjs", "node"),
        ("a.b.cjs", "node"),
        ("main.go", "go"),
        ("main.rs", "rust"),
        ("server.rb", "ruby"),
        ("server.php", "php"),
        ("Server.java", "java"),
        ("server.jar", "java"),
        ("Program.cs", "dotnet"),
        ("server.tsx", "deno"),
        ("index.ts", "typescript"),
        ("index.cob", None),
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
        ("bundle", "ruby"),
        ("ts-node", "typescript"),
        ("./server.jar", "java"),
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


def test_a_recipe_runs(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import sys; print('moo'); sys.stdin.read()")
    recipe = catalog.plan(SourceTree.of({"a.py": ""}), Wish())

    with subprocess.Popen(
        [sys.executable, *map(str, recipe.argv[1:])],
        cwd=tmp_path,
        env={name: str(value) for name, value in recipe.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "moo\n", "before it ends: unbuffered"
        process.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["a.py"]


def planned(*files: str, **wish: object) -> Recipe:
    contents = {
        "package.json": "{}",
        "Cargo.toml": "[package]\nname = 'x'",
        "moo": "\x7fELF",
        "jsr.ts": "import 'jsr:x'",
    }
    return catalog.plan(SourceTree.of({name: contents.get(name, "") for name in files}), Wish(**wish))


@pytest.mark.parametrize(
    ("files", "entry_point", "language"),
    [
        (["requirements.txt", "server.py", "x.js"], None, "python"),
        (["package.json", "index.js", "x.py"], None, "node"),
        (["server.py"], None, "python"),
        (["server.js", "README.md"], None, "node"),
        (["src/server.py", "README.md"], None, "python"),
        (["requirements.txt", "package.json", "server.py", "index.js"], "server.py", "python"),
        (["requirements.txt", "package.json", "server.py", "index.js"], "index.js", "node"),
        (["package.json", "index.js", "tool.py"], "tool.py", "python"),
        (["a.py", "b.js"], "b.js", "node"),
        (["package.json", "tsconfig.json", "index.ts"], None, "typescript"),
        (["package.json", "bun.lock", "index.ts"], None, "bun"),
        (["package.json", "bun.lock", "index.ts"], "index.ts", "bun"),
        (["deno.json", "main.ts"], None, "deno"),
        (["deno.json", "main.ts"], "main.ts", "deno"),
        (["jsr.ts"], None, "deno"),
        (["server.ts"], None, "typescript"),
        (["go.mod", "main.go", "moo"], "main.go", "go"),
        (["main.go"], "main.go", "go"),
        (["Cargo.toml", "src/main.rs"], None, "rust"),
        (["main.rs"], None, "rust"),
        (["Gemfile", "server.rb"], None, "ruby"),
        (["composer.json", "server.php"], None, "php"),
        (["moo.jar"], None, "java"),
        (["A.csproj"], None, "dotnet"),
        (["moo", "README.md"], None, "binary"),
        (["requirements.txt", "server.py", "moo"], None, "python"),
        (["server.py", "moo"], "moo", "binary"),
    ],
)
def test_the_language_is_guessed_from_manifests_then_from_what_runs_then_from_the_files(
    files: list[str], entry_point: str | None, language: str
) -> None:
    recipe = planned(*files, entry_point=entry_point)

    assert recipe.language == language
    assert recipe.notes[0].startswith(f"taken for {language}: ")


def test_a_named_language_is_not_questioned() -> None:
    assert planned("package.json", "server.py", language="PY").notes == ()
    assert planned("package.json", "server.py", language="PY").language == "python"


@pytest.mark.parametrize(
    ("files", "message", "field", "hint"),
    [
        (["requirements.txt", "package.json"], "may be python .*, node ", "language", "python or node"),
        (["a.py", "b.js"], r"several languages: a\.py, b\.js", "language", "python or node"),
        (["README.md"], "nothing in the source", "language", "pyproject.toml, .*package.json"),
        ([], "nothing in the source", "language", "pyproject.toml"),
        (["README.md", "services/api/package.json"], "nothing in the source", "source_subdir", "services/api"),
    ],
)
def test_what_nothing_or_too_much_speaks_for_is_refused_with_what_to_say(
    files: list[str], message: str, field: str, hint: str
) -> None:
    with pytest.raises(CannotPlan, match=message) as caught:
        planned(*files)
    assert caught.value.field == field
    assert re.search(hint, str(caught.value.hint))


def test_an_unknown_language_is_refused_by_its_field() -> None:
    with pytest.raises(CannotPlan, match="languages: python, node") as caught:
        planned("server.cob", language="cobol")
    assert caught.value.field == "language"


@pytest.mark.parametrize("language", catalog.LANGUAGES)
def test_every_language_says_what_it_needs_and_what_its_files_are_called(language: str) -> None:
    assert catalog.tools(language) or language == "binary"
    assert catalog.of_file(catalog.file_name(language)) in (None, *catalog.LANGUAGES)
