"""What a source in some language needs to become a running command. Pure data.

A `Recipe` is worked out from a listing and an owner's wishes; running it is
somebody else's job (`controlplane/deploy/build`). Commands name tools
(`python`, `npm`), never paths; a path that is known only when the recipe runs
is a `Place`.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Root = Literal["tree", "cache"]


@frozen
class Place:
    """A path that is known when the recipe runs.

    Args:
        root: `tree`, the source with all that is built into it, wherever it stands at that moment; or `cache`, the
            owner's folder of downloads and intermediate results, which only building may use.
        path: Below it, with `/`; empty means the root itself.
        before: Text in front of it, such as `--prefix=`.
    """

    root: Root
    path: str = ""
    before: str = ""


Word = str | Place
"""One argument, or one variable's value."""
Env = tuple[tuple[str, Word], ...]


@frozen(kw_only=True)
class Step:
    """One command of a build. It runs in `cwd`, a folder below the tree (empty: the tree itself)."""

    name: str
    """What is shown while it runs: `install dependencies`."""
    argv: tuple[Word, ...]
    env: Env = ()
    cwd: str = ""


@frozen(kw_only=True)
class Recipe:
    """How to build and launch one source.

    `argv` runs in the tree's `cwd`; `env` is added below the owner's own variables.
    """

    language: str
    entry_point: str | None = None
    """The file (or module) that runs, as asked for or guessed; None where the language has no such thing."""
    files: tuple[tuple[str, str], ...] = ()
    """Manifests to write where the source has none: path below the tree, text."""
    steps: tuple[Step, ...] = ()
    argv: tuple[Word, ...]
    env: Env = ()
    cwd: str = ""
    path: tuple[Place, ...] = ()
    """Folders that the server searches for programs before those of PATH: what it installed for itself."""
    needs: tuple[str, ...] = ()
    """Tools that must be there, to build and to run; their versions are part of the result's key."""
    installed: tuple[str, ...] = ()
    """Paths of the tree that steps fill and no server writes to (`node_modules`, `.venv`): instances share them, read-only. The rest is each instance's own copy."""
    discarded: tuple[str, ...] = ()
    """Paths of the tree that nothing needs once it is built (`target`)."""
    notes: tuple[str, ...] = ()
    """What the owner should know: what was guessed, and what was passed over."""


@frozen(kw_only=True)
class Wish:
    """What the owner says about a source; None and empty: to be guessed."""

    language: str | None = None
    entry_point: str | None = None
    dependencies: tuple[str, ...] = ()
    build_command: str | None = None


class UnknownLanguage(ValueError):
    """No runtime here runs this language."""


class CannotPlan(ValueError):
    """The source cannot be run as it is. `field` is the request's field to mend it with, `hint` what to do."""

    def __init__(self, message: str, *, field: str = "", hint: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint
