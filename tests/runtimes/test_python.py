"""What a Python source becomes."""

from __future__ import annotations

import pytest

from runtimes import python
from runtimes.recipe import CannotPlan, Place, Recipe, Wish
from runtimes.tree import SourceTree

VENV_PYTHON = Place("tree", ".venv/bin/python")
PROJECT = '[project]\nname = "Moo_Server"\nversion = "1"\n'
BUILDS = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
DEPENDS = 'dependencies = ["mcp"]\n'


def planned(files: dict[str, str], **wish: object) -> Recipe:
    return python.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    """The steps as one would type them in the tree."""
    words = [[word if isinstance(word, str) else word.path or "." for word in step.argv] for step in recipe.steps]
    return [" ".join(line) for line in words]


def test_a_single_file_answers_at_once_and_leaves_no_bytecode() -> None:
    assert planned({"a.py": ""}) == Recipe(
        language="python",
        entry_point="a.py",
        argv=("python", "a.py"),
        env=(("PYTHONUNBUFFERED", "1"), ("PYTHONDONTWRITEBYTECODE", "1")),
        needs=("python",),
    )


MAKE = "uv venv --relocatable --clear --no-project --python python .venv"
INSTALL = "uv pip install --python .venv/bin/python"
SYNC = "uv sync --frozen --no-dev --no-editable"


@pytest.mark.parametrize(
    ("files", "steps"),
    [
        ({}, []),
        ({"requirements.txt": "mcp\n"}, [MAKE, f"{INSTALL} -r requirements.txt"]),
        ({"requirements.txt": "# none yet\n\n"}, []),
        ({"pylock.toml": "", "requirements.txt": "mcp"}, [MAKE, f"{INSTALL} -r pylock.toml"]),
        ({"setup.py": ""}, [MAKE, f"{INSTALL} ."]),
        ({"pyproject.toml": "[tool.ruff]\n"}, []),
        ({"pyproject.toml": "[tool.ruff]\n", "requirements.txt": "mcp"}, [MAKE, f"{INSTALL} -r requirements.txt"]),
        ({"pyproject.toml": PROJECT}, []),
        ({"pyproject.toml": PROJECT + DEPENDS}, [MAKE, f"{INSTALL} -r pyproject.toml"]),
        ({"pyproject.toml": PROJECT, "requirements.txt": "mcp"}, [MAKE, f"{INSTALL} -r requirements.txt"]),
        ({"pyproject.toml": PROJECT + DEPENDS, "requirements.txt": "x"}, [MAKE, f"{INSTALL} -r pyproject.toml"]),
        ({"pyproject.toml": PROJECT + BUILDS}, [MAKE, f"{INSTALL} ."]),
        ({"pyproject.toml": PROJECT + BUILDS, "requirements.txt": "x"}, [MAKE, f"{INSTALL} -r requirements.txt ."]),
        ({"pyproject.toml": PROJECT + DEPENDS + BUILDS, "requirements.txt": "x"}, [MAKE, f"{INSTALL} ."]),
        ({"pyproject.toml": PROJECT + "[tool.uv]\npackage = true\n"}, [MAKE, f"{INSTALL} ."]),
        ({"pyproject.toml": PROJECT + DEPENDS, "uv.lock": ""}, [MAKE, SYNC]),
        ({"uv.lock": "", "requirements.txt": "mcp"}, [MAKE, f"{INSTALL} -r requirements.txt"]),
    ],
)
def test_what_is_installed_follows_from_the_manifests(files: dict[str, str], steps: list[str]) -> None:
    recipe = planned({"server.py": "", **files})

    assert commands(recipe) == steps
    assert recipe.argv == (VENV_PYTHON if steps else "python", "server.py")
    assert recipe.needs == (("python", "uv") if steps else ("python",))
    assert recipe.installed == ((".venv",) if steps else ())


def test_wanted_dependencies_are_resolved_together_with_the_rest_and_come_after_a_lock() -> None:
    wanted = ("httpx>=0.27", " rich [jupyter] ")

    alone = planned({"server.py": ""}, dependencies=wanted)
    listed = planned({"server.py": "", "requirements.txt": "mcp"}, dependencies=wanted)
    locked = planned({"server.py": "", "pyproject.toml": PROJECT, "uv.lock": ""}, dependencies=wanted)

    assert commands(alone) == [MAKE, f"{INSTALL} -- httpx>=0.27 rich [jupyter]"]
    assert commands(listed) == [MAKE, f"{INSTALL} -r requirements.txt -- httpx>=0.27 rich [jupyter]"]
    assert commands(locked) == [MAKE, SYNC, f"{INSTALL} -- httpx>=0.27 rich [jupyter]"]


HEADER = '# /// script\n# requires-python = ">=3.12"\n# dependencies = [\n#   "mcp",\n# ]\n# ///\nprint()\n'


def test_a_files_own_header_goes_before_the_folders_manifests() -> None:
    recipe = planned({"server.py": HEADER, "requirements.txt": "other"}, dependencies=("rich",))

    assert commands(recipe) == [MAKE.replace("--python python", "--python >=3.12"), f"{INSTALL} -r server.py -- rich"]


def test_a_header_without_dependencies_still_chooses_the_python() -> None:
    recipe = planned({"server.py": '# /// script\n# requires-python = "==3.13.*"\n# ///\n'})

    assert commands(recipe) == [MAKE.replace("--python python", "--python ==3.13.*")]
    assert recipe.argv == (VENV_PYTHON, "server.py")


@pytest.mark.parametrize("text", ["# /// script\n# dependencies = [\n# ///\n", HEADER + "\n" + HEADER])
def test_a_broken_header_is_refused(text: str) -> None:
    with pytest.raises(CannotPlan, match="header") as caught:
        planned({"server.py": text})
    assert caught.value.field == "entry_point"


@pytest.mark.parametrize(
    ("versions", "asked"),
    [
        (">=3.10", ">=3.10"),
        (">=3.10, <4", ">=3.10, <4"),
        ("~=3.11", "~=3.11"),
        ("--help", "python"),
        ("^3.9", "python"),
    ],
)
def test_the_projects_range_of_versions_chooses_the_python(versions: str, asked: str) -> None:
    recipe = planned({"server.py": "", "pyproject.toml": f'{PROJECT}requires-python = "{versions}"\n{DEPENDS}'})

    assert recipe.steps[0].argv[-2:] == (asked, ".venv")


def test_no_python_is_downloaded_and_no_cache_is_linked_to() -> None:
    recipe = planned({"server.py": "", "requirements.txt": "mcp"})

    for step in recipe.steps:
        assert {
            ("UV_PYTHON_DOWNLOADS", "never"),
            ("UV_LINK_MODE", "copy"),
            ("UV_CACHE_DIR", Place("cache", "uv")),
        } <= set(step.env)


def test_a_source_without_history_builds_where_its_version_comes_from_there() -> None:
    files = {"server.py": "", "pyproject.toml": PROJECT + BUILDS}
    name = "SETUPTOOLS_SCM_PRETEND_VERSION"

    assert name in dict(planned(files).steps[-1].env)
    assert name not in dict(planned({**files, ".git/HEAD": ""}).steps[-1].env)


def scripts(*names: str) -> str:
    lines = "".join(f'{name} = "moo:main"\n' for name in names)
    return f"{PROJECT}[project.scripts]\n{lines}{BUILDS}"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["cow"], "cow"),
        (["cow", "moo-server"], "moo-server"),
        (["cow", "cow-mcp"], "cow-mcp"),
        (["a-mcp", "b-mcp"], None),
    ],
)
def test_a_projects_script_runs_if_it_is_the_obvious_one(names: list[str], chosen: str | None) -> None:
    files = {"pyproject.toml": scripts(*names), "src/moo/__init__.py": ""}
    if chosen is None:
        with pytest.raises(CannotPlan, match="several scripts") as caught:
            planned(files)
        assert caught.value.field == "entry_point"
        assert caught.value.hint == "one of: a-mcp, b-mcp"
        return
    recipe = planned(files)
    assert recipe.argv == (VENV_PYTHON, Place("tree", f".venv/bin/{chosen}"))
    assert recipe.entry_point == chosen


def test_scripts_of_a_project_that_is_not_installed_do_not_run() -> None:
    text = PROJECT + DEPENDS + '[project.scripts]\nmoo = "moo:main"\n'

    assert planned({"pyproject.toml": text, "main.py": ""}).argv == (VENV_PYTHON, "main.py")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["server.py", "main.py", "x.py"], ["server.py"]),
        (["main.py", "x.py"], ["main.py"]),
        (["app.py", "x.py"], ["app.py"]),
        (["__main__.py", "x.py"], ["__main__.py"]),
        (["cow.py", "setup.cfg"], ["cow.py"]),
        (["cow.py", "conftest.py", "test_cow.py", "setup.py"], ["cow.py"]),
        (["src/server.py", "src/x.py"], ["src/server.py"]),
        (["cow/__init__.py", "cow/server.py", "tests/__init__.py"], ["cow/server.py"]),
        (["src/cow/__init__.py", "src/cow/__main__.py", "src/cow/server.py"], ["src/cow/__main__.py"]),
    ],
)
def test_what_runs_is_guessed_from_the_files(files: list[str], words: list[str]) -> None:
    assert list(planned(dict.fromkeys(files, "")).argv[1:]) == words


@pytest.mark.parametrize(
    ("file", "text", "words", "import_from"),
    [
        ("cow/server.py", "from .milk import pour", ["-m", "cow.server"], None),
        ("cow/server.py", "import cow.milk", ["-m", "cow.server"], None),
        ("cow/server.py", "import milk", ["cow/server.py"], None),
        ("cow/__main__.py", "from cow import run", ["-m", "cow"], None),
        ("src/cow/server.py", "    from . import milk", ["-m", "cow.server"], "src"),
        ("src/cow/server.py", "import cowbell", ["src/cow/server.py"], None),
    ],
)
def test_a_file_that_imports_from_its_own_package_runs_as_a_module(
    file: str, text: str, words: list[str], import_from: str | None
) -> None:
    recipe = planned({file: text, f"{file.rpartition('/')[0]}/__init__.py": ""}, entry_point=file)

    assert list(recipe.argv[1:]) == words
    assert recipe.entry_point == file
    assert dict(recipe.env).get("PYTHONPATH") == (Place("tree", import_from) if import_from else None)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("tools/x.py", ["tools/x.py"]),
        ("./tools/x.py", ["tools/x.py"]),
        ("cow", [Place("tree", ".venv/bin/cow")]),
        ("calf", ["calf/__main__.py"]),
        ("calf.milk", ["-m", "calf.milk"]),
        ("moo", ["-m", "moo"]),
    ],
)
def test_an_entry_point_is_a_file_a_script_or_a_module(named: str, words: list[object]) -> None:
    files = ["tools/x.py", "calf/__init__.py", "calf/__main__.py", "calf/milk.py", "src/moo/__main__.py", "server.py"]
    recipe = planned({**dict.fromkeys(files, ""), "pyproject.toml": scripts("cow")}, entry_point=named)

    assert list(recipe.argv[1:]) == words


@pytest.mark.parametrize(
    "named", ["../server.py", "/etc/passwd", "-m", "a/../../b.py", "", ".", "~/x.py", "a\\b.py", "a\0"]
)
def test_an_entry_point_that_leads_elsewhere_is_refused(named: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"server.py": ""}, entry_point=named)
    assert caught.value.field == "entry_point"


def test_a_missing_entry_point_is_refused_with_what_there_is() -> None:
    with pytest.raises(CannotPlan, match=r"there is no file sever.py in the source; there is: a/server.py, x.py"):
        planned({"a/server.py": "", "x.py": "", "README.md": ""}, entry_point="sever.py")


def test_nothing_to_run_is_refused_with_what_was_looked_for() -> None:
    with pytest.raises(CannotPlan, match=r"there is: a.py, b.py") as caught:
        planned({"a.py": "", "b.py": ""})
    assert caught.value.hint is not None
    assert "main.py" in caught.value.hint


@pytest.mark.parametrize(
    "wanted",
    [
        "--index-url=https://evil", "-e .", "-r x.txt", "git+https://x/y", "x @ https://x/y.whl", "https://x/y.whl",
        "./local", "../up", "/abs", "x; os_name == 'nt'", "x>=1 --hash=sha256:0", "x\n-e .", "", "x y", "x=1", "@scope/../..",
    ],
)  # fmt: skip
def test_only_plain_requirements_may_be_named(wanted: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"server.py": ""}, dependencies=("mcp", wanted))
    assert caught.value.field == "dependencies"


@pytest.mark.parametrize(
    "wanted", ["mcp", "mcp[cli]>=1.2,<2", "a==1.*", "A.b_c~=1.0", "x === 1!2+local", "zope.interface"]
)
def test_plain_requirements_are_taken_as_they_are(wanted: str) -> None:
    assert planned({"server.py": ""}, dependencies=(wanted,)).steps[-1].argv[-1] == wanted


def test_there_may_not_be_any_number_of_dependencies() -> None:
    assert planned({"server.py": ""}, dependencies=("a",) * 500).steps
    with pytest.raises(CannotPlan, match="501 dependencies are too many"):
        planned({"server.py": ""}, dependencies=("a",) * 501)


def test_a_build_command_runs_last_with_the_environments_programs() -> None:
    recipe = planned({"server.py": "", "requirements.txt": "mcp"}, build_command="make data")
    bare = planned({"server.py": ""}, build_command="make data")

    assert recipe.steps[-1].argv == ("sh", "-c", 'export PATH="$PWD/.venv/bin:$PATH"\nmake data')
    assert [step.argv for step in bare.steps] == [("sh", "-c", "make data")]
    with pytest.raises(CannotPlan):
        planned({"server.py": ""}, build_command=" ")


def test_what_is_passed_over_is_said() -> None:
    recipe = planned({"server.py": "", "Pipfile": "", "poetry.lock": ""})

    assert [note.split()[0] for note in recipe.notes] == ["poetry.lock", "Pipfile"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"pyproject.toml": PROJECT}, "there is a pyproject.toml"),
        ({"pyproject.toml": "[tool.black]"}, None),
        ({"requirements.txt": ""}, "there is a requirements.txt"),
        ({"server.py": ""}, None),
        ({}, None),
    ],
)
def test_a_manifest_tells_that_a_source_is_python(files: dict[str, str], why: str | None) -> None:
    assert python.guess(SourceTree.of(files)) == why


def test_a_manifest_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(CannotPlan, match=r"pyproject.toml cannot be read"):
        planned({"server.py": "", "pyproject.toml": "= ="})
