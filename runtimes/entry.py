"""What an owner may name as an entry point, and what is said where the source has no such file. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from runtimes.recipe import CannotPlan

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

MAX_LENGTH = 512
"""Characters of an entry point; paths of real projects stay below 200."""
MAX_NAMED = 6
"""Files that a refusal lists: enough to see what was mistyped, and one line of a terminal."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")


def path_of(named: str) -> str:
    """An entry point as a path below the tree, without `./`.

    Raises:
        CannotPlan: it is absolute, leads out of the tree, or would be read as an option.
    """
    path = named.strip().removeprefix("./")
    if not path or path == "." or len(path) > MAX_LENGTH or _UNSAFE.search(path):
        raise refusal("the entry point is not the path of a file")
    if path.startswith("-"):
        raise refusal(
            f"the entry point {named!r} looks like an option", hint="put ./ in front of it, or rename the file"
        )
    if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path):
        raise refusal(
            f"the entry point {named!r} is not below the source", hint="give it relative to the source's root"
        )
    if ".." in PurePosixPath(path).parts:
        raise refusal(
            f"the entry point {named!r} leads out of the source", hint="give it relative to the source's root"
        )
    return str(PurePosixPath(path))


def named_file(named: str, tree: SourceTree) -> str:
    """An entry point that must be a file of the source.

    Raises:
        CannotPlan: it is no path below the tree, or there is no such file.
    """
    path = path_of(named)
    if path not in tree:
        raise missing(path, tree)
    return path


def missing(path: str, tree: SourceTree, *, also: Iterable[str] = ()) -> CannotPlan:
    """That there is no such file, with those that may have been meant. `also`: names that would do as well."""
    found = nearest(path, tree)
    names = [name for name in also if name not in found]
    there = ", ".join([*found, *names][:MAX_NAMED]) or "nothing like it"
    return refusal(f"there is no file {path} in the source; there is: {there}")


def nearest(path: str, tree: SourceTree) -> list[str]:
    """The files most like `path`: first by name, then those with its suffix, nearest the root first."""
    by_name = {PurePosixPath(name).name: name for name in sorted(tree.files, reverse=True)}
    alike = difflib.get_close_matches(PurePosixPath(path).name, by_name, n=MAX_NAMED, cutoff=0.75)
    suffix = PurePosixPath(path).suffix
    same_kind = [name for name in tree.files if suffix and PurePosixPath(name).suffix == suffix]
    rest = sorted(same_kind or tree.files, key=lambda name: (name.count("/"), name))
    return list(dict.fromkeys([*(by_name[name] for name in alike), *rest]))[:MAX_NAMED]


def refusal(message: str, *, hint: str | None = None) -> CannotPlan:
    """An entry point that cannot be taken."""
    return CannotPlan(message, field="entry_point", hint=hint)
