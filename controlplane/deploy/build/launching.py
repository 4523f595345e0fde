"""How a built tree is run, as it is kept beside the tree: the part of a recipe that outlives the build. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from runtimes.recipe import Place

if TYPE_CHECKING:
    from runtimes.recipe import Env, Recipe, Word

LAUNCH = "launch"
"""The fact that holds it."""


@frozen(kw_only=True)
class BuiltLaunch:
    """What runs in a built tree; see `Recipe` for the fields."""

    language: str
    entry_point: str | None = None
    argv: tuple[Word, ...]
    env: Env = ()
    cwd: str = ""
    path: tuple[Place, ...] = ()
    installed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe) -> BuiltLaunch:
        return cls(
            language=recipe.language,
            entry_point=recipe.entry_point,
            argv=recipe.argv,
            env=recipe.env,
            cwd=recipe.cwd,
            path=recipe.path,
            installed=recipe.installed,
            notes=recipe.notes,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BuiltLaunch:
        """Read what `to_json` wrote.

        Raises:
            ValueError, LookupError, TypeError: it is something else.
        """
        members = json.loads(text)
        return cls(
            language=members["language"],
            entry_point=members["entry_point"],
            argv=tuple(map(_word, members["argv"])),
            env=tuple((name, _word(value)) for name, value in members["env"]),
            cwd=members["cwd"],
            path=tuple(Place(**place) for place in members["path"]),
            installed=tuple(members["installed"]),
            notes=tuple(members["notes"]),
        )

    def in_tree(self, tree: Path, search_path: str) -> tuple[tuple[str, ...], dict[str, str], str]:
        """The command, its variables and its folder, where the tree stands now.

        Args:
            tree: The instance's own.
            search_path: PATH as it is without the tree.
        """
        argv = tuple(placed(word, tree) for word in self.argv)
        env = {name: placed(value, tree) for name, value in self.env}
        if self.path:
            env["PATH"] = ":".join([*(placed(place, tree) for place in self.path), search_path])
        return argv, env, str(tree / self.cwd if self.cwd else tree)


def placed(word: Word, tree: Path, cache: Path | None = None) -> str:
    """A word with its place made a path.

    Args:
        word: What a recipe has.
        tree: Where the tree stands.
        cache: The owner's cache; None where nothing is built, and nothing may name it.
    """
    if not isinstance(word, Place):
        return word
    root = tree if word.root == "tree" else cache
    assert root is not None, "only a build may use the cache"
    return word.before + str(root / word.path if word.path else root)


def _word(value: str | Mapping[str, Any]) -> Word:
    return value if isinstance(value, str) else Place(**value)
