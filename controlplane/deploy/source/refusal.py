"""Why something in a source is refused, before it is known in whose words the request is answered."""

from __future__ import annotations

SHOWN_CHARACTERS = 96
"""Of a name in a message: enough to find the entry by, and no flood where a name is the attack."""


class Refused(ValueError):
    """A part of a source cannot be used.

    Args:
        reason: Says of the entry, or of the whole, what is wrong with it.
        entry: The entry's name as it stands in the source; None where it is about the whole.
        hint: What the owner can do.
    """

    def __init__(self, reason: str, *, entry: str | bytes | None = None, hint: str | None = None) -> None:
        super().__init__(reason if entry is None else f"{spelled(entry)} {reason}")
        self.hint = hint


def spelled(name: str | bytes) -> str:
    """A hostile name, safe to show anywhere: in quotes, shortened, everything unprintable escaped."""
    if len(name) <= SHOWN_CHARACTERS:
        return repr(name).removeprefix("b")
    half = SHOWN_CHARACTERS // 2
    return f"{repr(name[:half]).removeprefix('b')[:-1]}…{repr(name[-half:]).removeprefix('b')[1:]}"
