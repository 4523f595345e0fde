"""The JSON-RPC traffic of one instance, for those who watch it live: both directions, every process, no secrets.

While nobody watches, nothing is set on any session: a message costs one look at
an attribute. What is watched is told apart, redacted and encoded once for each
filter that wants it, in the moment in which it passes; nothing is kept, and a
watcher that does not read fast enough loses its own stream and nothing else.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import trio
from attrs import define, field, frozen

from controlplane.core.floodgate import Floodgate
from controlplane.core.framing import Oversized
from controlplane.core.rawjson import decode_or_none
from controlplane.hub import WireOf
from controlplane.supervise.dissector import Dissected, Dissector
from controlplane.wire.redact import redact_text
from controlplane.wire.redact_frame import FRAME_MAX_CHARS, shown_frame

if TYPE_CHECKING:
    from controlplane.core.redact import Redactor
    from controlplane.hub import Hub, Subscription
    from controlplane.supervise.child import Child
    from controlplane.supervise.dissector import Direction

WATCHERS_MAX = 16
"""Of one instance: each costs everybody twice what redacting a message does."""
NAME_MAX_CHARS = 256
"""Of a method or an id: a server can make them as long as a message."""
MESSAGES_PER_S = 2_000.0
BYTES_PER_S = 2 * 2**20
"""Shown of one instance, after bursts of ten seconds' worth: redacting takes up to 0.1 µs a byte of everybody's time."""
INT64 = range(-(2**63), 2**63)
log = logging.getLogger("corral.supervise")


@frozen
class Wanted:
    """A filter. `methods` are whole names, or beginnings that end in `*`; none stands for all."""

    methods: frozenset[str] = frozenset()
    direction: Direction | None = None

    def wants(self, direction: Direction, method: str | None) -> bool:
        """Whether a message passes; with `methods`, one without a method does not."""
        if self.direction not in (None, direction):
            return False
        return not self.methods or (method is not None and any(_fits(method, wanted) for wanted in self.methods))


def _fits(method: str, wanted: str) -> bool:
    return method.startswith(wanted[:-1]) if wanted.endswith("*") else method == wanted


@define(eq=False)
class Wiretap:
    """One instance's. Processes `join` and `leave`; whoever watches calls `listen`."""

    instance_id: UUID
    hub: Hub
    children: set[Child] = field(factory=set, init=False)
    """The live processes: the primary, those beside it, and one that is to take over."""
    _listeners: dict[WireOf, set[Subscription]] = field(factory=dict, init=False)
    _seq: int = field(default=0, init=False)
    _gate: Floodgate = field(factory=partial(Floodgate, MESSAGES_PER_S, BYTES_PER_S), init=False)
    _closed: bool = field(default=False, init=False)

    @property
    def is_on(self) -> bool:
        """Whether anybody watches."""
        return bool(self._listeners)

    @property
    def is_crowded(self) -> bool:
        """Whether nobody else should begin to."""
        return sum(map(len, self._listeners.values())) >= WATCHERS_MAX

    # -- processes

    def join(self, child: Child) -> None:
        """A process has begun; all it says is to be heard by those who watch."""
        self.children.add(child)
        if self.is_on:
            self._tap(child)

    def leave(self, child: Child) -> None:
        """It is over."""
        self.children.discard(child)
        _untap(child)

    # -- watchers

    def listen(self, wanted: Wanted, *, is_back: bool = False) -> Subscription:
        """Open a stream of `wire` events; closing it is all that it takes to end it.

        Args:
            wanted: What passes.
            is_back: The reader had a stream that broke off: it is told of the gap.
        """
        topic = WireOf(self.instance_id, wanted)
        subscription = self.hub.subscribe_live(topic, is_back=is_back)
        if self._closed:
            subscription.close()
        if subscription.closed:
            return subscription
        was_on = self.is_on
        self._listeners.setdefault(topic, set()).add(subscription)
        subscription.on_close = partial(self._unlisten, subscription, topic)
        if not was_on:
            for child in self.children:
                self._tap(child)
        return subscription

    def close(self) -> None:
        """The instance is gone: end every stream."""
        self._closed = True
        for subscription in [s for listeners in self._listeners.values() for s in listeners]:
            subscription.close()

    def _unlisten(self, subscription: Subscription, topic: WireOf) -> None:
        listeners = self._listeners[topic]
        listeners.discard(subscription)
        if not listeners:
            del self._listeners[topic]
        if not self.is_on:
            for child in self.children:
                _untap(child)

    # -- messages

    def _tap(self, child: Child) -> None:
        dissector = Dissector()
        for call in child.session.pending:
            dissector.remember("to_server", str(call.wire_id).encode(), call.method, call.started)
        child.session.outbox.tap = partial(self._passed, child, dissector, "to_server")
        child.session.tap = partial(self._passed, child, dissector, "from_server")

    def _passed(self, child: Child, dissector: Dissector, direction: Direction, line: bytes | Oversized) -> None:
        try:
            self._tell(child, dissector, direction, line)
        except Exception:  # a bug of ours in watching must not cost the instance its conversation
            log.exception("instance %s: a message could not be shown", self.instance_id)

    def _tell(self, child: Child, dissector: Dissector, direction: Direction, line: bytes | Oversized) -> None:
        self._seq += 1
        if isinstance(line, Oversized):
            seen, raw, size_bytes = Dissected("noise"), None, line.size_bytes
        else:
            raw = line.rstrip(b"\r\n")
            seen, size_bytes = dissector.read(direction, raw, trio.current_time()), len(raw)
        topics = [topic for topic in self._listeners if topic.wanted.wants(direction, seen.method)]
        if not topics or not self._gate.admits(min(size_bytes, FRAME_MAX_CHARS), trio.current_time()):
            return
        if missed := self._gate.announce():
            self.hub.publish_live("gap", list(self._listeners), instance_id=self.instance_id, data={"missed": missed})
        data = {
            "seq": self._seq,
            "direction": direction,
            "lane": child.lane,
            "pid": child.job.pid,
            "incarnation": child.logbook.incarnation,
            "size_bytes": size_bytes,
            **_shown(seen, raw, child.logbook.redact),
        }
        self.hub.publish_live("wire", topics, instance_id=self.instance_id, data=data)


def _shown(seen: Dissected, raw: bytes | None, hide_values: Redactor) -> dict[str, Any]:
    """What a message says; `raw` is None for one that was too long to be read."""
    frame, is_cut = shown_frame(raw or b"", hide_values, is_message=seen.kind != "noise")
    return {
        "kind": seen.kind,
        "method": None if seen.method is None else redact_text(seen.method, hide_values)[:NAME_MAX_CHARS],
        "id": _shown_id(seen.id, hide_values),
        "ms": seen.ms,
        "truncated": is_cut or raw is None,
        "frame": frame,
    }


def _untap(child: Child) -> None:
    child.session.tap = child.session.outbox.tap = None


def _shown_id(raw_id: bytes | None, hide_values: Redactor) -> Any:
    """As on the wire: a whole number or a string; whatever else a server may write, as the text of it."""
    if raw_id is None:
        return None
    if len(raw_id) <= NAME_MAX_CHARS:
        value = decode_or_none(raw_id)
        if isinstance(value, int) and not isinstance(value, bool) and value in INT64:
            return value
        if isinstance(value, str):
            return redact_text(value, hide_values)
    return shown_frame(raw_id, hide_values, is_message=True)[0][:NAME_MAX_CHARS]
