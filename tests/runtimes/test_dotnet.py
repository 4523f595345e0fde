"""What a .NET source becomes."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from runtimes import dotnet
from runtimes.recipe import CannotPlan, Place, Recipe, Wish
from runtimes.tree import SourceTree


def planned(files: dict[str, str], **wish: object) -> Recipe:
    return dotnet.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    return [" ".join(word if isinstance(word, str) else word.path for word in step.argv) for step in recipe.steps]


def publish(project: str) -> str:
    return (
        f"dotnet publish {project} --configuration Release --output .corral/app -p:UseAppHost=false"
        " -p:PublishSingleFile=false"
    )


def test_a_project_is_published_into_the_tree() -> None:
    recipe = planned({"Moo.csproj": "<Project/>", "Program.cs": ""})

    assert commands(recipe) == [publish("Moo.csproj")]
    assert recipe.argv == ("dotnet", Place("tree", ".corral/app/Moo.dll"))
    assert recipe.installed == (".corral",)
    assert recipe.discarded == ("obj", "bin")
    assert recipe.needs == ("dotnet",)


def test_the_assembly_may_have_a_name_of_its_own() -> None:
    recipe = planned({"Moo.csproj": "<AssemblyName>Cow.Server</AssemblyName>"})

    assert recipe.argv == ("dotnet", Place("tree", ".corral/app/Cow.Server.dll"))


def test_a_single_file_gets_a_project() -> None:
    recipe = planned({"server.cs": "", "x.cs": ""}, dependencies=("ModelContextProtocol@0.4.0-preview.1", "A.B"))

    assert commands(recipe) == [publish("server.csproj")]
    assert recipe.entry_point == "server.cs"
    project = ET.fromstring(dict(recipe.files)["server.csproj"])
    assert [item.get("Include") for item in project.iter("Compile")] == ["server.cs"]
    assert [(item.get("Include"), item.get("Version")) for item in project.iter("PackageReference")] == [
        ("ModelContextProtocol", "0.4.0-preview.1"),
        ("A.B", "*"),
    ]


def test_dependencies_are_added_to_the_project_there_is() -> None:
    recipe = planned({"src/Moo.fsproj": ""}, dependencies=("A@1.2", "B"))

    assert commands(recipe) == [
        "dotnet add src/Moo.fsproj package A --version 1.2",
        "dotnet add src/Moo.fsproj package B",
        publish("src/Moo.fsproj"),
    ]
    assert recipe.discarded == ("src/obj", "src/bin")


@pytest.mark.parametrize(
    ("files", "named", "project"),
    [
        (["a/A.csproj", "b/B.csproj"], "b/B.csproj", "b/B.csproj"),
        (["a/A.csproj", "b/B.csproj"], "b", "b/B.csproj"),
        (["a/A.csproj", "b/B.csproj", "b/X.cs"], "b/X.cs", "b/B.csproj"),
        (["a/A.csproj", "tests/A.Tests.csproj"], None, "a/A.csproj"),
        (["A.csproj", "b/B.csproj"], None, "A.csproj"),
        (["Program.cs", "X.cs"], None, "server.csproj"),
        (["Cow.cs"], None, "server.csproj"),
    ],
)
def test_the_project_is_named_or_found(files: list[str], named: str | None, project: str) -> None:
    assert commands(planned(dict.fromkeys(files, ""), entry_point=named)) == [publish(project)]


@pytest.mark.parametrize(
    ("files", "named", "message"),
    [
        (["a/A.csproj", "b/B.csproj"], None, "several projects"),
        (["a/A.csproj"], "b", "there is no file b in the source; there is: a/A.csproj"),
        (["a/A.csproj"], "../b", "leads out"),
        (["A.cs", "B.cs"], None, r"there is: A\.cs, B\.cs"),
    ],
)
def test_what_cannot_be_is_refused(files: list[str], named: str | None, message: str) -> None:
    with pytest.raises(CannotPlan, match=message) as caught:
        planned(dict.fromkeys(files, ""), entry_point=named)
    assert caught.value.field == "entry_point"


def test_a_build_command_makes_what_runs() -> None:
    recipe = planned({"A.csproj": ""}, build_command="make", entry_point="out/A.dll")

    assert commands(recipe) == ["sh -c make"]
    assert recipe.argv == ("dotnet", Place("tree", "out/A.dll"))
    assert planned({"A.csproj": ""}, build_command="make").argv == (Place("tree", ".corral/bin/server"),)


@pytest.mark.parametrize("wanted", ["--source", "A@../x", "A B", 'A"/><X', "https://x", "a/b", "A@", ""])
def test_only_plain_requirements_may_be_named(wanted: str) -> None:
    with pytest.raises(CannotPlan) as caught:
        planned({"server.cs": ""}, dependencies=(wanted,))
    assert caught.value.field == "dependencies"


@pytest.mark.parametrize(
    ("name", "why"),
    [("A.csproj", "there is a A.csproj"), ("A.sln", "there is a A.sln"), ("a/A.csproj", None), ("A.cs", None)],
)
def test_a_project_file_tells_that_a_source_is_dotnet(name: str, why: str | None) -> None:
    assert dotnet.guess(SourceTree.of({name: ""})) == why
