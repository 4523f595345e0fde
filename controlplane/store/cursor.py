"""Where a page of history ends, as an opaque word that a client hands back."""

from __future__ import annotations

import base64
import binascii
import struct
from datetime import UTC, datetime, timedelta

from attrs import frozen

from controlplane.errors import FieldError, InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMAT = struct.Struct(">qq")


@frozen
class Cursor:
    """The last row that was given out; `id` orders rows of one instant."""

    at: datetime
    id: int = 0

    def encode(self) -> str:
        micros = (self.at - _EPOCH) // timedelta(microseconds=1)
        return base64.urlsafe_b64encode(_FORMAT.pack(micros, self.id)).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Read a cursor that `encode` wrote.

        Raises:
            InvalidRequest: it is none of ours.
        """
        try:
            micros, row_id = _FORMAT.unpack(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            return cls(_EPOCH + timedelta(microseconds=micros), row_id)
        except (binascii.Error, ValueError, struct.error, OverflowError):
            message = "is not a cursor that this server gave out"
            raise InvalidRequest(
                f"cursor {message}", hint="leave it out to start anew", errors=(FieldError("?cursor", message),)
            ) from None
