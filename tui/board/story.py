"""What the overview has read of one instance: the last answers, and what could not be read. Pure.

A deleted instance's document is gone from the server; what was read before stays, so that a person can finish reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field

if TYPE_CHECKING:
    from tui.board.board import Board

Document = Mapping[str, Any]
FAILING = frozenset({"failed", "restarting"})
"""States in which the last post-mortem is the first thing to read."""


@define
class Story:
    """An instance's document, revisions and processes; newest first, as the API lists them."""

    document: Document | None = None
    revisions: Sequence[Document] = ()
    incarnations: Sequence[Document] = ()
    complaints: tuple[str, ...] = field(default=())
    """What could not be read the last time, in words."""
    is_gone: bool = False

    @property
    def last_post_mortem(self) -> Document | None:
        """Of the newest failure: the document's own, or the newest process's that has one."""
        document = self.document or {}
        told = document.get("post_mortem") or document.get("last_error")
        if isinstance(told, Mapping):
            return told
        kept = (process.get("post_mortem") for process in self.incarnations)
        return next((one for one in kept if isinstance(one, Mapping)), None)

    def incarnation(self, number: int) -> Document | None:
        return next((one for one in self.incarnations if one.get("number") == number), None)

    def revision(self, number: int) -> Document | None:
        return next((one for one in self.revisions if one.get("revision") == number), None)


def mark_of(board: Board, instance_id: str) -> tuple[object, ...]:
    """What, when it changes, makes the story worth reading again. Samples are not in it."""
    row = board.rows.get(instance_id)
    if row is None:
        return (None, board.link.state)
    trouble = row.trouble.at if row.trouble is not None else None
    return (row.status, row.incarnation, row.revision, row.candidate, row.pid, trouble, board.link.state)
