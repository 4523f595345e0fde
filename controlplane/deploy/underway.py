"""Uploads under way: how many of them one owner may have, and how much all of them may have on the disk.

An upload is under way from before its first byte until its archive has been
looked through, so that neither slow lines nor slow looks can pile archives up.
What counts is what has arrived, not what was declared: to keep others out one
would have to send it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define, field

from controlplane.errors import Overloaded, RateLimited

if TYPE_CHECKING:
    from controlplane.deploy.source.uploads import Upload

UPLOADS_PER_OWNER = 2
"""One that arrives while the one before it is looked through; a third would only wait."""
UPLOADS_MAX_BYTES = 2**30
"""Of all owners: ten archives of the largest size. A disk that Corral is content with has several times as much."""
RETRY_AFTER_S = 5.0
"""An archive of some MiB has arrived and been looked through by then."""


@define(eq=False)
class UnderWay:
    """The uploads under way of a control plane."""

    max_bytes: int = UPLOADS_MAX_BYTES
    held_bytes: int = field(default=0, init=False)
    _by_owner: Counter[str] = field(factory=Counter, init=False)
    _all: list[UploadUnderWay] = field(factory=list, init=False)

    @contextmanager
    def begin(self, owner: str, declared_bytes: int | None) -> Iterator[UploadUnderWay]:
        """Let an upload begin; it is over at the end of this, if it was not before.

        Args:
            owner: Who sends it.
            declared_bytes: What its request says of its size.

        Raises:
            RateLimited: its owner has as many under way as one may.
            Overloaded: those under way leave no room for it.
        """
        if self._by_owner[owner] >= UPLOADS_PER_OWNER:
            raise RateLimited(
                f"{UPLOADS_PER_OWNER} uploads of one owner may be under way at the same time.",
                hint="Send the next one when one of them has been answered.",
                retry_after_s=RETRY_AFTER_S,
            )
        self._check_room(declared_bytes or 0)
        upload = UploadUnderWay(self, owner)
        self._all.append(upload)
        self._by_owner[owner] += 1
        try:
            yield upload
        finally:
            upload.end()

    def looked_through(self, upload: Upload) -> None:
        """What was made of one under way is looked through: it stays on the disk, and is under way no more."""
        for one in [one for one in self._all if one.upload is upload]:
            one.end()

    def _check_room(self, size_bytes: int) -> None:
        if self.held_bytes + size_bytes > self.max_bytes:
            raise Overloaded("Too many uploads are under way.", retry_after_s=RETRY_AFTER_S)

    def _end(self, one: UploadUnderWay) -> None:
        if one not in self._all:
            return
        self._all.remove(one)
        self.held_bytes -= one.size_bytes
        self._by_owner[one.owner] -= 1
        if not self._by_owner[one.owner]:
            del self._by_owner[one.owner]


@define(eq=False)
class UploadUnderWay:
    """One of them."""

    _all: UnderWay
    owner: str
    size_bytes: int = field(default=0, init=False)
    upload: Upload | None = field(default=None, init=False)
    """Set once it is whole: the very one that is handed on."""

    def grow(self, size_bytes: int) -> None:
        """So much more of it arrived.

        Raises:
            Overloaded: there is no room for it.
        """
        self._all._check_room(size_bytes)
        self.size_bytes += size_bytes
        self._all.held_bytes += size_bytes

    def end(self) -> None:
        """It is under way no more; may be said again."""
        self._all._end(self)
