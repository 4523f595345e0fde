"""Programs that need no language: an executable for this machine, or a script that says what runs it.

What runs: the request's `entry_point`, else the root's only executable (ELF), else `server`, if it is a script with a
`#!` line. A `build_command` may make it first, in whatever way. It is made executable here: archives and uploads
often lose that it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtimes import entry, requirements, shell
from runtimes.recipe import Place, Recipe, Step, Wish

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("binary", "executable", "elf")
SUFFIXES: tuple[str, ...] = ()
TOOLS: tuple[str, ...] = ()
FILE_NAME = "server"

_ELF = b"\x7fELF"


def guess(tree: SourceTree) -> str | None:
    """By the root's only executable; of use where nothing else speaks for a language."""
    found = _programs(tree)
    return f"{found[0]} is an executable" if len(found) == 1 else None


def is_program(tree: SourceTree, name: str) -> bool:
    """Whether this file is an executable."""
    return name in tree and tree.read(name)[: len(_ELF)] == _ELF


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a program.

    Raises:
        CannotPlan: there is nothing to run, or a wish cannot be met.
    """
    requirements.none_of(wish.dependencies, "a program", "the source, as files beside it")
    program = _program(tree, wish)
    build = (shell.own_build(wish.build_command),) if wish.build_command is not None else ()
    place = Place("tree", program)
    return Recipe(
        language=NAMES[0],
        entry_point=program,
        steps=(*build, Step(name="make it executable", argv=("chmod", "+x", place))),
        argv=(place,),
    )


def _program(tree: SourceTree, wish: Wish) -> str:
    if wish.entry_point is not None and wish.build_command is not None:
        return entry.path_of(wish.entry_point)
    if wish.entry_point is not None:
        path = entry.named_file(wish.entry_point, tree)
        if not is_program(tree, path) and not tree.read(path).startswith(b"#!"):
            raise entry.refusal(f"{path} is neither an executable (ELF) nor a script with a #! line")
        return path
    found = _programs(tree)
    if len(found) == 1:
        return found[0]
    if FILE_NAME in tree and tree.read(FILE_NAME).startswith(b"#!"):
        return FILE_NAME
    there = ", ".join(found[: entry.MAX_NAMED] or entry.nearest(FILE_NAME, tree)) or "no file at all"
    raise entry.refusal(
        f"nothing says which program to run; there is: {there}",
        hint="name an entry_point; looked for: an only executable (ELF), a script called server",
    )


def _programs(tree: SourceTree) -> list[str]:
    return [name for name in tree.at_root() if is_program(tree, name) and not name.endswith((".so", ".o", ".node"))]
