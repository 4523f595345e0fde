"""Bytes that all requests together may hold: a bound for the sum, where each one has its own."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define, field

from controlplane.errors import Overloaded, RateLimited

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER_SHARE_BYTES = 16 * 2**20
"""Beside other bodies of its own, one is let in up to this sum: several of the usual size, or one large one."""
RETRY_AFTER_S = 5.0
"""A large body has arrived and been dealt with by then, on a line that is not slow."""
SMALL_BYTES = 64 * 1024
"""Bodies up to this size are not counted: the connection cap bounds them."""


@define(eq=False)
class Budget:
    """`limit_bytes` for all; `unknown_bytes` is reserved for a body that does not say its size."""

    limit_bytes: int
    unknown_bytes: int
    held_bytes: int = field(default=0, init=False)

    @contextmanager
    def reserved(self, size_bytes: int | None) -> Iterator[None]:
        """Hold room for a body while it is read and used.

        Raises:
            Overloaded: the bodies of other requests take all the room there is.
        """
        size = self.unknown_bytes if size_bytes is None else size_bytes
        if size <= SMALL_BYTES:
            yield
            return
        if self.held_bytes + size > self.limit_bytes:
            raise Overloaded("Too many large requests are being read.", retry_after_s=1)
        self.held_bytes += size
        try:
            yield
        finally:
            self.held_bytes -= size


@define(eq=False)
class SharedBudget:
    """A budget in which an owner holds one large body at a time, or several that come to `OWNER_SHARE_BYTES`."""

    budget: Budget
    _by_owner: Counter[str] = field(factory=Counter, init=False)

    @contextmanager
    def reserved(self, owner: str, size_bytes: int | None) -> Iterator[None]:
        """As `Budget.reserved`.

        Raises:
            RateLimited: the owner's other bodies take its share.
            Overloaded: all owners' take all the room there is.
        """
        size = self.budget.unknown_bytes if size_bytes is None else size_bytes
        if size <= SMALL_BYTES:
            yield
            return
        if self._by_owner[owner] and self._by_owner[owner] + size > OWNER_SHARE_BYTES:
            raise RateLimited(
                "Another large deploy of yours is under way.",
                hint="Send the archive as the part `source` of a multipart body, or wait for the other deploy.",
                retry_after_s=RETRY_AFTER_S,
            )
        with self.budget.reserved(size):
            self._by_owner[owner] += size
            try:
                yield
            finally:
                self._by_owner[owner] -= size
                if not self._by_owner[owner]:
                    del self._by_owner[owner]
