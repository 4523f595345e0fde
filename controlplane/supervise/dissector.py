"""What passes between a server and Corral, told apart: which kind of message, and which request an answer is to.

Pure: lines and times in, values out. A dissector remembers the requests of both
sides until they are answered, `REMEMBERED` of each at most.
"""

from __future__ import annotations

from typing import Literal

from attrs import define, field, frozen

from controlplane.core import jsonrpc
from controlplane.core.jsonrpc import Garbled, Notification, Request, Response

Direction = Literal["to_server", "from_server"]
Kind = Literal["request", "response", "error", "notification", "noise"]

REMEMBERED = 1024
"""Requests of one side whose answer has not passed; the oldest is forgotten, and its answer says no method."""

_OTHER: dict[Direction, Direction] = {"to_server": "from_server", "from_server": "to_server"}


@frozen
class Dissected:
    """One message. `id` is raw JSON. Of an answer, `method` is that of its request, and `ms` the time since."""

    kind: Kind
    method: str | None = None
    id: bytes | None = None
    ms: float | None = None


@define(eq=False)
class Dissector:
    """Of one conversation."""

    _asked: dict[Direction, dict[int | bytes, tuple[str, float]]] = field(
        factory=lambda: {"to_server": {}, "from_server": {}}, init=False
    )

    def remember(self, direction: Direction, raw_id: bytes, method: str, at: float) -> None:
        """A request was sent at this time, in seconds."""
        asked = self._asked[direction]
        asked[_key(raw_id)] = method, at
        if len(asked) > REMEMBERED:
            del asked[next(iter(asked))]

    def read(self, direction: Direction, line: bytes, now: float) -> Dissected:
        """Tell one line apart; `now` in seconds."""
        match jsonrpc.parse(line):
            case Request(raw_id, method):
                self.remember(direction, raw_id, method, now)
                return Dissected("request", method, raw_id)
            case Notification(method):
                return Dissected("notification", method)
            case Response(raw_id, _, is_error):
                return self._answer("error" if is_error else "response", direction, raw_id, now)
            case Garbled(raw_id):
                return self._answer("noise", direction, raw_id, now)
        return Dissected("noise")

    def _answer(self, kind: Kind, direction: Direction, raw_id: bytes | None, now: float) -> Dissected:
        asked = self._asked[_OTHER[direction]]
        key = _key(raw_id) if raw_id is not None else next(iter(asked), None)  # without ids, answers come in order
        known = asked.pop(key, None) if key is not None else None
        if known is None:
            return Dissected(kind, None, raw_id)
        method, at = known
        return Dissected(kind, method, raw_id, round((now - at) * 1000, 3))


def _key(raw_id: bytes) -> int | bytes:
    """The same for an id however it is echoed."""
    own = jsonrpc.own_id(raw_id)
    return own if own >= 0 else raw_id
