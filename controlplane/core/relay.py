"""Events on their way from one control plane to the others: what waits, how it is written, and what was lost.

Every node writes to one channel and reads it. A message is a line that says who
writes and how far it has come, and a line for each event:

    {"node":"…","life":"…","last":12,"listens":true}
    [12,"alice"]<TAB>{"type":"status",…}

Events that readers may go back to are numbered, without a gap within one life
of a node. So a reader of the channel knows how many it has missed, whoever lost
them: the writer, whose queue was full, or the channel, on which nobody is
promised anything. The others (`sample`, `call`) are of the moment.

Pure: no socket, no clock.
"""

from __future__ import annotations

import hmac
from collections import deque
from uuid import UUID

import msgspec
from attrs import define, field, frozen

from controlplane.core.rawjson import UNDECODABLE

OUTBOX_MAX_EVENTS = 4096
OUTBOX_MAX_BYTES = 2 * 2**20
"""Of what waits while the channel is away: minutes of a fleet's life. Then the oldest go."""
MESSAGE_MAX_BYTES = 256 * 2**10
"""A message is closed once it is as large; what came in is no larger by more than one event."""
HEARD_MAX_BYTES = 8 * 2**20
"""A longer message is none of ours."""
SEAL_BYTES = 32
"""HMAC-SHA256."""
LIVES_MAX = 256
"""Lives of nodes that are remembered; more than any fleet has, so that a stranger on the channel costs no memory."""


class Head(msgspec.Struct, frozen=True):
    """Who writes. `last` is the number of the last event that was written, or lost before that."""

    node: str
    life: str
    last: int
    listens: bool
    """Whether anybody at the writer follows the fleet: events of the moment are sent for them alone."""


@frozen
class Passing:
    """An event under way; `number` 0: of the moment. `body` is JSON of one line, as the event stream has it."""

    number: int
    owner: str | None
    body: bytes

    @property
    def ring(self) -> bool:
        """Whether readers may go back to it."""
        return self.number > 0


@frozen
class Message:
    """One message of the channel."""

    head: Head
    events: tuple[Passing, ...] = ()


class _Body(msgspec.Struct):
    """What every event has; the rest goes to readers as it is."""

    type: str
    instance_id: UUID | None = None


_head = msgspec.json.Decoder(Head).decode
_body = msgspec.json.Decoder(_Body).decode
_mark = msgspec.json.Decoder(tuple[int, str | None]).decode


def sealed(data: bytes, key: bytes) -> bytes:
    """What shows that whoever has the key wrote this, and then this."""
    return hmac.digest(key, data, "sha256") + data


def opened(data: bytes, key: bytes) -> bytes | None:
    """What was sealed with the key; None for anything else, as anybody at Redis may write to the channel."""
    seal, inside = data[:SEAL_BYTES], data[SEAL_BYTES:]
    return inside if hmac.compare_digest(seal, hmac.digest(key, inside, "sha256")) else None


def written(message: Message) -> bytes:
    """A message as it is sealed and sent."""
    lines = [msgspec.json.encode(message.head)]
    lines += (msgspec.json.encode((event.number, event.owner)) + b"\t" + event.body for event in message.events)
    return b"\n".join(lines)


def read(data: bytes) -> Message | None:
    """A message as it was opened; None for what cannot be read: another version may write otherwise."""
    if len(data) > HEARD_MAX_BYTES or b"\r" in data:
        return None
    first, *rest = data.split(b"\n")
    try:
        return Message(_head(first), tuple(_event(line) for line in rest))
    except (*UNDECODABLE, ValueError):
        return None


def _event(line: bytes) -> Passing:
    mark, _, body = line.partition(b"\t")
    number, owner = _mark(mark)
    _body(body)
    return Passing(number, owner, body)


@define(eq=False)
class Outbox:
    """What waits to be sent, bounded: what does not fit costs the oldest, and the others will know how many."""

    node: str
    life: str
    _events: deque[Passing] = field(factory=deque, init=False)
    _size: int = field(default=0, init=False)
    _number: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._events)

    def put(self, owner: str | None, body: bytes, *, ring: bool) -> None:
        """Add an event; one of the moment is dropped when half the room is taken."""
        if not ring and (len(self._events) > OUTBOX_MAX_EVENTS // 2 or self._size > OUTBOX_MAX_BYTES // 2):
            return
        if ring:
            self._number += 1
        self._events.append(Passing(self._number if ring else 0, owner, body))
        self._size += len(body)
        while len(self._events) > OUTBOX_MAX_EVENTS or self._size > OUTBOX_MAX_BYTES:
            self._size -= len(self._events.popleft().body)

    def head(self, *, listens: bool) -> Head:
        """How far this node has come: with what waits still to be told, and what is lost before it lost."""
        left = next((event.number for event in self._events if event.ring), None)
        return Head(self.node, self.life, self._number if left is None else left - 1, listens)

    def take(self, *, listens: bool) -> Message:
        """The next message; without events, it tells the others how far this node has come."""
        taken: list[Passing] = []
        size = 0
        while self._events and size < MESSAGE_MAX_BYTES:
            event = self._events.popleft()
            size += len(event.body)
            taken.append(event)
        self._size -= size
        return Message(self.head(listens=listens), tuple(taken))


@define(eq=False)
class Hearing:
    """How far the others have come. `settled`: long enough on the channel to have heard everybody's first word."""

    settled: bool = False
    _reached: dict[tuple[str, str], int] = field(factory=dict, init=False)

    def missed(self, message: Message) -> int:
        """How many events of this writer were lost before this message, or between its events."""
        head = message.head
        key = (head.node, head.life)
        came = sum(event.ring for event in message.events)
        before = self._reached.pop(key, 0 if self.settled else head.last - came)
        self._reached[key] = head.last  # the latest to speak are the last
        while len(self._reached) > LIVES_MAX:
            del self._reached[next(iter(self._reached))]
        return max(0, head.last - before - came)
