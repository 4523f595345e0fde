"""Requests of a server to one legacy client, from when they are asked until they are answered.

Towards the client a question has an id of Corral's own, unique in the session:
servers choose theirs alike, and a shared one asks several clients. The id names
the session too, so that an answer posted to the wrong session is nobody's.
"""

from __future__ import annotations

import secrets
from typing import Any

from attrs import define, field

from controlplane.core.jsonrpc import decode_or_none, encode_text, one_line

OPEN_MAX = 64
"""Questions open at once in a session: as many as an instance has calls in flight, and each asks one at a time."""
NAME_BYTES = 6
"""Of the session's part of an id: enough that two sessions do not share it. It is no secret."""


class TooManyQuestions(Exception):
    """The client leaves too many questions unanswered; the server's request is to be answered with an error."""

    def __init__(self) -> None:
        super().__init__(f"The client has {OPEN_MAX} requests of its servers to answer already.")


@define(eq=False)
class Questions:
    """One session's table of own id -> who asked."""

    _prefix: str = field(factory=lambda: f"corral-{secrets.token_hex(NAME_BYTES)}-", init=False)
    _count: int = field(default=0, init=False)
    _open: dict[str, Any] = field(factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, asked_by: Any, method: str, params: bytes | None) -> tuple[str, bytes]:
        """Note a question; return its own id, and the request to send.

        Args:
            asked_by: What `answered` gives back; never None.
            method: Of the server's request.
            params: Its params, raw.

        Raises:
            TooManyQuestions: `OPEN_MAX` are open.
        """
        if len(self._open) >= OPEN_MAX:
            raise TooManyQuestions
        self._count += 1
        own_id = f"{self._prefix}{self._count}"
        self._open[own_id] = asked_by
        tail = b"" if params is None else b',"params":' + one_line(params)
        head = b'{"jsonrpc":"2.0","id":"%b","method":%b' % (own_id.encode(), encode_text(method))
        return own_id, head + tail + b"}"

    def answered(self, raw_id: bytes) -> Any | None:
        """Who asked what this response answers, once; None for an id that is not, or no longer, open here."""
        own_id = decode_or_none(raw_id)
        return self._open.pop(own_id, None) if isinstance(own_id, str) else None

    def withdraw(self, own_id: str) -> Any | None:
        """The server no longer waits: forget the question; an answer that still comes is nobody's."""
        return self._open.pop(own_id, None)

    def close(self) -> list[Any]:
        """Forget all open questions; return who asked them, in the order of asking."""
        unanswered = list(self._open.values())
        self._open.clear()
        return unanswered
