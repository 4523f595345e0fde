""".NET sources: projects, and single C# files.

What is built, by the first of these that there is:

1. the request's `entry_point`: a project file, its folder, or a C# file;
2. the root's only project file (`.csproj`, `.fsproj`), else the only one of the source that is no test;
3. `Program.cs`, `server.cs`, `main.cs`, the root's only C# file: it gets a project of its own.

`dotnet publish` puts it, with all it needs, into one folder of the tree, from where `dotnet` runs it. The request's
`dependencies` (`Name@1.2.3`) go into the new project, or are added to the one there is by `dotnet add package`.
A `build_command` takes the place of publishing, and makes the `.dll` (or the program) that `entry_point` names.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from attrs import evolve

from runtimes import compiled, entry, requirements
from runtimes.recipe import Env, Place, Recipe, Step, Wish, Word

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("dotnet", "csharp", "c#", "cs", ".net", "fsharp", "f#")
SUFFIXES: tuple[str, ...] = (".cs", ".csproj", ".fsproj")
TOOLS: tuple[str, ...] = ("dotnet",)
FILE_NAME = "server.cs"

PUBLISHED = f"{compiled.FOLDER}/app"
FRAMEWORK = "net8.0"
"""Of a single file: the oldest that is still supported; any newer runtime takes it, by `RollForward`."""
_PROJECTS = (".csproj", ".fsproj")
_FILES = ("Program.cs", "server.cs", "main.cs")
_TEST = re.compile(r"tests?\b", re.IGNORECASE)
_ASSEMBLY = re.compile(r"<AssemblyName>\s*([\w.-]+)\s*</AssemblyName>")
_ENV: Env = (
    ("DOTNET_CLI_HOME", Place("cache", "dotnet")),
    ("NUGET_PACKAGES", Place("cache", "nuget")),
    ("DOTNET_CLI_TELEMETRY_OPTOUT", "1"),
    ("DOTNET_NOLOGO", "1"),
    ("MSBUILDDISABLENODEREUSE", "1"),  # a build server would outlive the build
)


def guess(tree: SourceTree) -> str | None:
    """By a project file in the root."""
    name = next((name for name in tree.at_root() if name.endswith((*_PROJECTS, ".sln", ".slnx"))), None)
    return f"there is a {name}" if name else None


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a .NET source.

    Raises:
        CannotPlan: there is nothing to build, or a wish cannot be met.
    """
    wanted = requirements.checked(wish.dependencies, requirements.NUGET)
    if wish.build_command is not None:
        return _built_by_owner(wish)
    named = _named(tree, wish.entry_point) if wish.entry_point is not None else _main(tree)
    if named.endswith(".cs"):
        project = "server.csproj"
        return _published(project, "server", named, files=((project, _project(named, wanted)),))
    match = _ASSEMBLY.search(tree.text(named) or "")
    name = match[1] if match else PurePosixPath(named).stem
    return _published(named, name, wish.entry_point or named, before=_added(named, wanted))


def _built_by_owner(wish: Wish) -> Recipe:
    recipe = compiled.built_by_owner(wish, language=NAMES[0], suffixes=SUFFIXES, before=(), env=_ENV, needs=TOOLS)
    (program,) = recipe.argv
    assert isinstance(program, Place)
    return evolve(recipe, argv=("dotnet", program)) if program.path.endswith(".dll") else recipe


def _published(
    project: str,
    name: str,
    shown: str,
    *,
    before: tuple[Step, ...] = (),
    files: tuple[tuple[str, str], ...] = (),
) -> Recipe:
    argv: tuple[Word, ...] = (
        "dotnet", "publish", project, "--configuration", "Release", "--output", Place("tree", PUBLISHED),
        "-p:UseAppHost=false", "-p:PublishSingleFile=false",
    )  # fmt: skip
    folder = PurePosixPath(project).parent
    return Recipe(
        language=NAMES[0],
        entry_point=shown,
        files=files,
        steps=(*before, Step(name="build", argv=argv, env=_ENV)),
        argv=("dotnet", Place("tree", f"{PUBLISHED}/{name}.dll")),
        needs=TOOLS,
        installed=(compiled.FOLDER,),
        discarded=(str(folder / "obj"), str(folder / "bin")),
    )


def _added(project: str, wanted: tuple[str, ...]) -> tuple[Step, ...]:
    steps = []
    for text in wanted:
        name, _, version = text.partition("@")
        chosen = ("--version", version) if version else ()
        argv = ("dotnet", "add", project, "package", name, *chosen)
        steps.append(Step(name="add a dependency", argv=argv, env=_ENV))
    return tuple(steps)


def _project(file: str, wanted: tuple[str, ...]) -> str:
    """A project around one file; what requirements may hold is XML as it is."""
    parts = [text.partition("@") for text in wanted]
    packages = "".join(
        f'    <PackageReference Include="{name}" Version="{version or "*"}" />\n' for name, _, version in parts
    )
    return f"""<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <TargetFramework>{FRAMEWORK}</TargetFramework>
    <RollForward>Major</RollForward>
    <ImplicitUsings>enable</ImplicitUsings>
    <Nullable>enable</Nullable>
    <AssemblyName>server</AssemblyName>
    <EnableDefaultCompileItems>false</EnableDefaultCompileItems>
  </PropertyGroup>
  <ItemGroup>
    <Compile Include="{_escaped(file)}" />
{packages}  </ItemGroup>
</Project>
"""


def _escaped(text: str) -> str:
    for plain, written in (("&", "&amp;"), ("<", "&lt;"), ('"', "&quot;")):
        text = text.replace(plain, written)
    return text


def _named(tree: SourceTree, name: str) -> str:
    path = entry.path_of(name)
    if path in tree and path.endswith((*_PROJECTS, ".cs")):
        # A file of a project is built by the project.
        project = _only_project(tree, str(PurePosixPath(path).parent)) if path.endswith(".cs") else None
        return project or path
    if (project := _only_project(tree, path)) is not None:
        return project
    raise entry.missing(path, tree)


def _only_project(tree: SourceTree, folder: str) -> str | None:
    found = [name for name in tree.files if name.endswith(_PROJECTS) and str(PurePosixPath(name).parent) == folder]
    return found[0] if len(found) == 1 else None


def _main(tree: SourceTree) -> str:
    projects = [name for name in sorted(tree.files) if name.endswith(_PROJECTS) and not _TEST.search(name)]
    found = tree.only_file(*_PROJECTS) or (projects[0] if len(projects) == 1 else None)
    if found is None and len(projects) > 1:
        names = ", ".join(projects[: entry.MAX_NAMED])
        raise entry.refusal("the source has several projects", hint=f"name one as entry_point: {names}")
    found = found or tree.first(*_FILES) or tree.only_file(".cs")
    if found is None:
        there = ", ".join(entry.nearest(FILE_NAME, tree)) or "no file at all"
        raise entry.refusal(
            f"nothing says what to build; there is: {there}",
            hint="name an entry_point; looked for: a .csproj or .fsproj, Program.cs, server.cs, main.cs, an only .cs file",
        )
    return found
