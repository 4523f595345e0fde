"""What languages have in common whose builds leave a program: where it goes, and how an owner's own build names it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtimes import entry, shell
from runtimes.recipe import Place, Recipe, Wish

if TYPE_CHECKING:
    from runtimes.recipe import Env, Step

FOLDER = ".corral"
"""Below the tree: what builds leave, all of it shared by instances."""
PROGRAMS = f"{FOLDER}/bin"
SERVER = Place("tree", f"{PROGRAMS}/server")


def built_by_owner(
    wish: Wish, *, language: str, suffixes: tuple[str, ...], before: tuple[Step, ...], env: Env, needs: tuple[str, ...]
) -> Recipe:
    """The request's `build_command` in place of the compiler.

    It makes the program that the entry point names; `.corral/bin/server`, if that is none, or names a source file.

    Args:
        wish: With a build command.
        language: Its name.
        suffixes: Of its source files.
        before: What brings the dependencies.
        env: Of the tools that the command may call.
        needs: Those tools.

    Raises:
        CannotPlan: the entry point is no path below the tree, or the command is none.
    """
    named = entry.path_of(wish.entry_point) if wish.entry_point is not None else SERVER.path
    program = SERVER.path if named.endswith(suffixes) else named
    return Recipe(
        language=language,
        entry_point=named if wish.entry_point is not None else None,
        steps=(*before, shell.own_build(wish.build_command or "", env=env)),
        argv=(Place("tree", program),),
        needs=needs,
        installed=(FOLDER,) if program == SERVER.path else (),
    )
