"""Carry out a recipe in a workplace: write what is missing, run the steps, drop what only they needed."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import trio

from controlplane.deploy import trees
from controlplane.errors import BuildFailed

if TYPE_CHECKING:
    from controlplane.deploy.build.workplace import Workplace
    from runtimes.recipe import Recipe

EXECUTABLE = 0o700
PLAIN = 0o600


async def carry_out(recipe: Recipe, place: Workplace) -> None:
    """Build what stands in the workplace's tree.

    Raises:
        BuildFailed: a step failed.
        SourceRejected: a tool is missing.
    """
    await trio.to_thread.run_sync(_write_missing, place.tree, recipe)
    await trio.to_thread.run_sync(place.take_in)
    for step in recipe.steps:
        await place.run(step)
    for path in recipe.discarded:
        await trio.to_thread.run_sync(_discard, place.tree, path)


def _write_missing(tree: Path, recipe: Recipe) -> None:
    """Manifests that the source has none of. No step has run yet, so the tree is as it was unpacked: without links out."""
    for name, text in recipe.files:
        path = tree / name
        if os.path.lexists(path):
            continue
        path.parent.mkdir(mode=EXECUTABLE, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PLAIN)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)


def _discard(tree: Path, path: str) -> None:
    """Remove a part of a tree that hostile steps may have filled: no folder on the way to it may be a link."""
    here = tree
    for part in PurePosixPath(path).parts[:-1]:
        here = here / part
        try:
            if not stat.S_ISDIR(here.lstat().st_mode):
                raise BuildFailed(f"the build put something else in place of the folder {part}")
        except FileNotFoundError:
            return
    trees.remove(tree / path)
