"""Everything that is wrong with one request, collected to be told at once. Pure."""

from __future__ import annotations

from attrs import define, field

from controlplane.errors import FieldError, InvalidRequest, SourceRejected

SHOWN = 3
"""Places that the detail names; `errors` has them all."""


@define
class Refusals:
    """Collects what is wrong with one request."""

    found: list[FieldError] = field(factory=list)
    hint: str | None = None
    _of_the_source: bool = field(default=False, init=False)

    def add(self, pointer: str, message: str, hint: str | None = None) -> None:
        """Something is wrong at `pointer`."""
        self.found.append(FieldError(pointer, message))
        self.hint = self.hint or hint

    def add_source(self, pointer: str, message: str, hint: str | None = None) -> None:
        """The source itself cannot be used, however well it is written down: its address is not allowed."""
        self.add(pointer, message, hint)
        self._of_the_source = True

    def raise_if_any(self) -> None:
        """Raise everything collected.

        Raises:
            SourceRejected: the source is among it.
            InvalidRequest: it is not.
        """
        if self.found:
            error = SourceRejected if self._of_the_source else InvalidRequest
            detail = "; ".join(f"{wrong.pointer or '/'}: {wrong.message}" for wrong in self.found[:SHOWN])
            raise error(detail, hint=self.hint, errors=tuple(self.found))
