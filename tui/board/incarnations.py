"""The processes that an instance has had, and ways among them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from controlplane.wire.text import clean
from tui.board.reading import whole


@frozen(kw_only=True)
class Incarnation:
    """One process. `ending` is how it ended, in a few words."""

    number: int
    is_running: bool
    is_crash: bool
    ending: str


def read(documents: Iterable[Mapping[str, Any]]) -> list[Incarnation]:
    """Read what `GET /instances/{id}/incarnations` lists, newest first."""
    return [
        Incarnation(
            number=number,
            is_running=bool(document.get("is_running")),
            is_crash=document.get("reason") is not None,
            ending=_ending(document),
        )
        for document in documents
        if (number := whole(document.get("number"))) is not None
    ]


def _ending(document: Mapping[str, Any]) -> str:
    if document.get("is_running"):
        return "running"
    word = "crashed" if document.get("reason") is not None else "ended"
    if document.get("signal"):
        return f"{word}: {clean(document['signal'])}"
    code = document.get("exit_code")
    return word if code is None else f"{word}: exit {clean(code)}"


def heading(known: Sequence[Incarnation], number: int | None) -> str:
    """What is shown: of which process, of how many, and how it ended."""
    if number is None:
        return "all processes"
    newest = max([number, *(one.number for one in known)])
    ending = next((f" ({one.ending})" for one in known if one.number == number), "")
    return f"process {number} of {newest}{ending}"


def neighbour(known: Sequence[Incarnation], number: int | None, step: int) -> int | None:
    """The process before or after one; before all of them is the newest, after the newest are all (None)."""
    numbers = sorted(one.number for one in known)
    if not numbers:
        return None
    if number is None:
        return numbers[-1] if step < 0 else None
    if step < 0:
        return max((n for n in numbers if n < number), default=number)
    return min((n for n in numbers if n > number), default=None)


def crashed(known: Sequence[Incarnation]) -> int | None:
    """The newest that crashed, or else the newest that ended."""
    over = [one for one in known if not one.is_running]
    crashes = [one for one in over if one.is_crash]
    return max((one.number for one in crashes or over), default=None)
