"""Bytes that all requests together may hold: a bound for the sum, where each one has its own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define, field

from controlplane.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

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
