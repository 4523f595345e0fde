"""What a Java source becomes."""

from __future__ import annotations

import pytest

from runtimes import java
from runtimes.recipe import CannotPlan, Place, Recipe, Wish
from runtimes.tree import SourceTree

MAIN = "public class X { public static void main(String[] args) {} }"
MAVEN = ("java", "-cp", "target/classes:.corral/lib/*")


def in_package(name: str) -> str:
    return f"package {name};\n{MAIN}"


def planned(files: dict[str, str], **wish: object) -> Recipe:
    return java.plan(SourceTree.of(files), Wish(**wish))


def commands(recipe: Recipe) -> list[str]:
    return [
        " ".join(word if isinstance(word, str) else word.before + word.path for word in step.argv)
        for step in recipe.steps
    ]


def test_source_files_are_compiled_once_and_together() -> None:
    recipe = planned({"Server.java": MAIN, "Milk.java": "class Milk {}", "src/a/B.java": "", "src/test/T.java": MAIN})

    assert commands(recipe) == ["javac -encoding UTF-8 -d .corral/classes Milk.java Server.java src/a/B.java"]
    assert recipe.argv == ("java", "-cp", ".corral/classes", "Server")
    assert recipe.needs == ("java", "javac")
    assert recipe.installed == (".corral",)


def test_a_maven_project_is_compiled_with_its_libraries_beside_it() -> None:
    recipe = planned({"pom.xml": "", "src/main/java/a/App.java": in_package("a")})

    (step,) = recipe.steps
    assert step.argv[0] == "mvn"
    assert Place("cache", "maven", before="-Dmaven.repo.local=") in step.argv
    assert Place("tree", ".corral/lib", before="-DoutputDirectory=") in step.argv
    assert recipe.argv == (*MAVEN, "a.App")
    assert recipe.installed == (".corral", "target")
    assert recipe.needs == ("java", "javac", "mvn")


def test_a_jar_runs_as_it_is() -> None:
    assert planned({"moo.jar": ""}) == Recipe(
        language="java", entry_point="moo.jar", argv=("java", "-jar", "moo.jar"), needs=("java",)
    )
    assert planned({"pom.xml": "", "lib/moo.jar": ""}, entry_point="lib/moo.jar").argv == (
        "java",
        "-jar",
        "lib/moo.jar",
    )


SEVERAL = {
    "pom.xml": "",
    "src/main/java/a/One.java": in_package("a"),
    "src/main/java/a/Two.java": in_package("a"),
}


@pytest.mark.parametrize(
    ("files", "named", "main"),
    [
        ({**SEVERAL, "pom.xml": "<mainClass> a.Two </mainClass>"}, None, "a.Two"),
        ({**SEVERAL, "src/main/java/b/CowServer.java": in_package("b")}, None, "b.CowServer"),
        (SEVERAL, "a.Two", "a.Two"),
        (SEVERAL, "src/main/java/a/Two.java", "a.Two"),
        ({"pom.xml": ""}, "a.Anything", "a.Anything"),
    ],
)
def test_the_main_class_is_named_or_found(files: dict[str, str], named: str | None, main: str) -> None:
    recipe = planned(files, entry_point=named)

    assert recipe.argv == (*MAVEN, main)
    assert recipe.entry_point == (named or main)


@pytest.mark.parametrize(
    ("files", "wish", "message", "field"),
    [
        (SEVERAL, {}, "several classes have a main method", "entry_point"),
        (
            SEVERAL,
            {"entry_point": "a.Three"},
            r"no class a\.Three has a main method; there is: a\.One, a\.Two",
            "entry_point",
        ),
        (SEVERAL, {"entry_point": "a/Three.java"}, "there is no file a/Three.java", "entry_point"),
        (SEVERAL, {"entry_point": "../x"}, "leads out", "entry_point"),
        (SEVERAL, {"entry_point": "-version"}, "looks like an option", "entry_point"),
        (SEVERAL, {"dependencies": ("a:b:1",)}, "not installed by name", "dependencies"),
        ({"a.jar": "", "b.jar": ""}, {}, "nothing says which class to run", "entry_point"),
        ({"build.gradle": ""}, {}, "is not built here by itself", "build_command"),
        ({"build.gradle": ""}, {"build_command": "./gradlew jar"}, "the .jar that it makes", "entry_point"),
    ],
)
def test_what_cannot_be_is_refused(files: dict[str, str], wish: dict[str, object], message: str, field: str) -> None:
    with pytest.raises(CannotPlan, match=message) as caught:
        planned(files, **wish)
    assert caught.value.field == field


def test_a_build_command_makes_the_jar_that_runs() -> None:
    recipe = planned({"build.gradle": ""}, build_command="./gradlew jar", entry_point="build/moo.jar")

    assert commands(recipe) == ["sh -c ./gradlew jar"]
    assert recipe.argv == ("java", "-jar", "build/moo.jar")


@pytest.mark.parametrize(
    ("name", "why"),
    [("pom.xml", "there is a pom.xml"), ("build.gradle.kts", "there is a build.gradle.kts"), ("X.java", None)],
)
def test_a_manifest_tells_that_a_source_is_java(name: str, why: str | None) -> None:
    assert java.guess(SourceTree.of({name: ""})) == why
