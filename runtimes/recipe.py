"""What a source in some language needs to become a running command. Pure data.

A `Recipe` is worked out from names alone; running it is somebody else's job
(`controlplane/deploy`). Commands name tools (`python`, `node`), never paths.
"""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Recipe:
    """How to launch one source.

    `argv` runs in the source's folder; `env` is added below the owner's own variables.
    """

    language: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    needs: tuple[str, ...] = ()
    """Tools that must be on the instance's PATH."""


class UnknownLanguage(ValueError):
    """No runtime here runs this language."""
