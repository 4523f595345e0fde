"""Java sources: Maven projects, `.jar` files, and source files without a project.

1. An `entry_point` that is a `.jar` runs by `java -jar`, as does the root's only one where there are no sources.
2. A `pom.xml` is compiled by Maven, and its libraries are copied beside it; what runs is the main class: the request's
   `entry_point` (`com.example.Server`, or its file), else the `mainClass` of `pom.xml`, else the only class with a
   `main` method, or of several the only one with `Server`, `Main` or `Application` in its name.
3. Other `.java` files of the root and of `src` are compiled together, and the main class is found in the same way.

Dependencies belong into `pom.xml`. What is built in another way (Gradle, several modules, an own runtime) takes a
`build_command`, and the `.jar` that it makes as `entry_point`.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from runtimes import compiled, entry, requirements, shell
from runtimes.recipe import CannotPlan, Place, Recipe, Step, Wish

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("java",)
SUFFIXES: tuple[str, ...] = (".java", ".jar")
TOOLS: tuple[str, ...] = ("java", "javac", "mvn")
FILE_NAME = "Server.java"

CLASSES = f"{compiled.FOLDER}/classes"
LIBRARIES = f"{compiled.FOLDER}/lib"
MAX_SOURCES = 500
"""Files that are compiled or looked into; with more, it is time for a project."""
_POM = "pom.xml"
_GRADLE = ("build.gradle", "build.gradle.kts")
_MAIN = re.compile(r"\bstatic\s+void\s+main\s*\(")
_PACKAGE = re.compile(r"^\s*package\s+([\w.]+)\s*;", re.MULTILINE)
_MAIN_CLASS = re.compile(r"<(?:mainClass|start-class|exec\.mainClass)>\s*([\w.$]+)\s*</")
_CLASS = re.compile(r"[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*", re.ASCII)
_LIKELY = re.compile(r"Server|Main|Application")


def guess(tree: SourceTree) -> str | None:
    """By a `pom.xml` or a Gradle build."""
    name = tree.first(_POM, *_GRADLE)
    return f"there is a {name}" if name else None


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a Java source.

    Raises:
        CannotPlan: there is nothing to run, or a wish cannot be met.
    """
    requirements.none_of(wish.dependencies, "Java", _POM)
    if wish.build_command is not None:
        return _built_by_owner(wish, wish.build_command)
    named = wish.entry_point
    if named is not None and named.endswith(".jar"):
        return _jar(entry.named_file(named, tree))
    if _POM in tree:
        return _maven(tree, wish)
    sources = _sources(tree)
    if sources:
        return _compiled(tree, wish, sources)
    if tree.first(*_GRADLE) is None and (jar := tree.only_file(".jar")) is not None:
        return _jar(jar)
    raise _nothing(tree)


def _jar(path: str, steps: tuple[Step, ...] = ()) -> Recipe:
    return Recipe(language=NAMES[0], entry_point=path, steps=steps, argv=("java", "-jar", path), needs=("java",))


def _built_by_owner(wish: Wish, command: str) -> Recipe:
    named = entry.path_of(wish.entry_point) if wish.entry_point is not None else ""
    if not named.endswith(".jar"):
        raise entry.refusal("with a build_command, the entry point is the .jar that it makes", hint="name its path")
    return _jar(named, (shell.own_build(command),))


def _maven(tree: SourceTree, wish: Wish) -> Recipe:
    main = _main_class(tree, wish, _main_class_of_pom(tree))
    argv = (
        "mvn", "--batch-mode", "--no-transfer-progress", "-DskipTests",
        Place("cache", "maven", before="-Dmaven.repo.local="),
        "compile", "dependency:copy-dependencies", "-DincludeScope=runtime",
        Place("tree", LIBRARIES, before="-DoutputDirectory="),
    )  # fmt: skip
    return Recipe(
        language=NAMES[0],
        entry_point=wish.entry_point or main,
        steps=(Step(name="build", argv=argv),),
        argv=("java", "-cp", f"target/classes:{LIBRARIES}/*", main),
        needs=TOOLS,
        installed=(compiled.FOLDER, "target"),
    )


def _compiled(tree: SourceTree, wish: Wish, sources: list[str]) -> Recipe:
    main = _main_class(tree, wish, None)
    argv = ("javac", "-encoding", "UTF-8", "-d", CLASSES, *sources)
    return Recipe(
        language=NAMES[0],
        entry_point=wish.entry_point or main,
        steps=(Step(name="build", argv=argv),),
        argv=("java", "-cp", CLASSES, main),
        needs=("java", "javac"),
        installed=(compiled.FOLDER,),
    )


def _sources(tree: SourceTree) -> list[str]:
    """What is compiled without a project: the root's files, and all below `src` but tests."""
    found = [name for name in sorted(tree.files) if name.endswith(".java") and not name.startswith("-")]
    return [name for name in found if "/" not in name or (name.startswith("src/") and "/test/" not in name)][
        :MAX_SOURCES
    ]


def _main_class(tree: SourceTree, wish: Wish, declared: str | None) -> str:
    """Which class runs; see the module's list."""
    found = _main_classes(tree)
    if wish.entry_point is not None:
        return _named(tree, wish.entry_point, found)
    likely = [name for name in found if _LIKELY.search(name.rpartition(".")[2])]
    for choices in ([declared] if declared else [], list(found), likely):
        if len(choices) == 1:
            return choices[0]
    if found:
        names = ", ".join(list(found)[: entry.MAX_NAMED])
        raise entry.refusal("several classes have a main method", hint=f"name one as entry_point: {names}")
    raise _nothing(tree)


def _named(tree: SourceTree, name: str, found: dict[str, str]) -> str:
    if name.endswith(".java"):
        path = entry.named_file(name, tree)
        return next((main for main, file in found.items() if file == path), _class_of(tree, path))
    if not _CLASS.fullmatch(name):
        raise entry.missing(entry.path_of(name), tree, also=found)
    if found and name not in found:
        raise entry.refusal(f"no class {name} has a main method; there is: {', '.join(list(found)[: entry.MAX_NAMED])}")
    return name


def _main_classes(tree: SourceTree) -> dict[str, str]:
    """Classes with a `main` method, by their full names, and their files."""
    return {_class_of(tree, file): file for file in _sources(tree) if _MAIN.search(tree.text(file) or "")}


def _class_of(tree: SourceTree, file: str) -> str:
    package = _PACKAGE.search(tree.text(file) or "")
    stem = PurePosixPath(file).stem
    return f"{package[1]}.{stem}" if package else stem


def _main_class_of_pom(tree: SourceTree) -> str | None:
    match = _MAIN_CLASS.search(tree.text(_POM) or "")
    return match[1] if match else None


def _nothing(tree: SourceTree) -> CannotPlan:
    if (name := tree.first(*_GRADLE)) is not None:
        return CannotPlan(
            f"a {name} is not built here by itself",
            field="build_command",
            hint="give a build_command such as `./gradlew --no-daemon shadowJar`, and the .jar it makes as entry_point",
        )
    there = ", ".join(entry.nearest(FILE_NAME, tree)) or "no file at all"
    return entry.refusal(
        f"nothing says which class to run; there is: {there}",
        hint="name an entry_point; looked for: mainClass in pom.xml, a class with a main method, an only .jar",
    )
