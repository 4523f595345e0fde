"""An instance's log: pages of it, or all of it as it is written."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import UUID

import msgspec
import trio
from attrs import define, evolve, field, frozen

from controlplane.errors import NotAcceptable, NotFound
from controlplane.model import Role
from controlplane.store.filters import LogFilter
from controlplane.web.call import SSE_TYPE, Call, Reply, as_uuid, encode, json_reply
from controlplane.web.request import accepts_events
from controlplane.web.route import Route
from controlplane.web.sse import SSE_HEADERS, frames
from controlplane.web.views import log_out, rfc3339
from controlplane.wire.answers import LogsOut, StreamName
from controlplane.wire.fields import bounded

if TYPE_CHECKING:
    from types import TracebackType

    from controlplane.hub import Subscription
    from controlplane.model import LogLine

MAX_LINES = 10_000
"""Lines of one answer."""
DEFAULT_LINES = 100
FLUSH_WAIT_S = 1.0
"""For lines that were just written to reach the database, so that a failed deploy's last words are in the answer."""

_END = b"\n\n"
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@frozen(kw_only=True)
class LogQuery:
    """Which lines; all that is given must hold."""

    tail: int | None = bounded(None, minimum=0, maximum=MAX_LINES, description="The newest so many lines.")
    since: datetime | None = bounded(None, description="From this time on.")
    until: datetime | None = bounded(None, description="Up to this time, exclusive.")
    level: list[Literal["debug", "info", "warning", "error"]] | None = bounded(
        None, description="Exactly these levels; repeat it or use commas."
    )
    stream: StreamName | None = bounded(None, description="Where the line came from.")
    incarnation: int | None = bounded(None, minimum=0, maximum=2**31 - 1, description="One process's lines only.")
    q: str | None = bounded(None, minLength=1, maxLength=256, description="Text in the line, in any case.")
    follow: bool = bounded(False, description="An event stream: `tail` lines, then every line as it is written.")
    limit: int = bounded(DEFAULT_LINES, minimum=1, maximum=MAX_LINES, description="Lines of a page.")
    cursor: str | None = bounded(None, minLength=1, maxLength=512, description="`next_cursor` of the page before.")

    @property
    def filter(self) -> LogFilter:
        """The same for the store. Without a beginning or a `tail`, it is the newest lines that are wanted."""
        newest = self.tail is None and self.since is None and self.cursor is None
        return LogFilter(
            tail=self.limit if newest else self.tail,
            since=self.since,
            until=self.until,
            levels=tuple(self.level or ()),
            stream=self.stream,
            incarnation=self.incarnation,
            q=self.q,
            limit=self.limit,
            cursor=self.cursor,
        )


async def get_logs(call: Call) -> Reply:
    """The log of an instance that is, or was, the caller's."""
    instance_id, living = await find_history(call)
    if call.query.follow:
        return await _follow(call, instance_id, living=living)
    await call.services.journal.flush(FLUSH_WAIT_S)
    found = await call.services.store.logs(instance_id, call.query.filter)
    return json_reply(LogsOut(logs=[log_out(line) for line in found.rows], next_cursor=found.next_cursor))


async def find_history(call: Call) -> tuple[UUID, bool]:
    """The id of an instance whose history the caller may read, and whether it still lives.

    A deleted one is found by its id, as long as its history is kept: its name may be somebody else's by now.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    try:
        return call.find_runner().instance.id, True
    except NotFound:
        instance_id = as_uuid(call.path["id"])
        deleted = await call.services.store.instance_of_deleted(instance_id) if instance_id is not None else None
        if instance_id is None or deleted is None:
            raise
        if not call.principal.sees(*deleted, instance_id):
            raise
        return instance_id, False


async def _follow(call: Call, instance_id: UUID, *, living: bool) -> Reply:
    if not accepts_events(call.head.get(b"accept")):
        raise NotAcceptable("With `follow` this route answers text/event-stream only.")
    if call.head.method == "HEAD":
        return Reply(200, b"", SSE_TYPE, SSE_HEADERS)
    last = call.head.get(b"last-event-id")
    last_event_id = last.decode("latin-1") if last is not None and living else None
    subscription = call.services.hub.subscribe(instance_id=instance_id, last_event_id=last_event_id)
    # No await since the subscription: what was written before `now` is in the log, what comes after is in the stream.
    now = datetime.now(UTC)
    try:
        backlog = [] if last_event_id else await _backlog(call, instance_id, now)
    except BaseException:
        subscription.close()
        raise
    if not living:
        subscription.close()
    source = LogSource(subscription, call.query.filter, [_frame(line) for line in backlog])
    return Reply(200, frames(source, call.principal, call.services.tokens), SSE_TYPE, SSE_HEADERS)


async def _backlog(call: Call, instance_id: UUID, now: datetime) -> Iterable[LogLine]:
    tail = DEFAULT_LINES if call.query.tail is None else call.query.tail
    if tail == 0:
        return []
    await call.services.journal.flush(FLUSH_WAIT_S)
    until = min(now, call.query.until) if call.query.until is not None else now
    wanted = evolve(call.query.filter, tail=tail, until=until, cursor=None)
    return (await call.services.store.logs(instance_id, wanted)).rows


def _frame(line: LogLine) -> bytes:
    """A kept line as the event that it was; without an id, since it is not in the stream's numbering."""
    event = {
        "type": "log",
        "instance_id": str(line.instance_id),
        "timestamp": rfc3339(line.at),
        "level": line.level,
        "stream": line.stream,
        "incarnation": line.incarnation,
        "message": line.message,
    }
    return b"data: %b\n\n" % encode(event)


@define(eq=False)
class LogSource:
    """A subscription of which only log lines that fit a filter come through, and what is said about the stream itself."""

    _subscription: Subscription
    _filter: LogFilter
    _backlog: list[bytes] = field(factory=list)

    async def take(self) -> bytes:
        """Wait for frames; raises trio.EndOfChannel at the end."""
        while True:
            data = await self._next()
            kept = b"".join(frame + _END for frame in data.split(_END) if frame and self._wants(frame))
            if self._backlog:
                # What was kept belongs behind `connected`, which comes first in every stream.
                greeting, end, rest = kept.partition(_END)
                kept, self._backlog = greeting + end + b"".join(self._backlog) + rest, []
            if kept:
                return kept
            await trio.lowlevel.checkpoint()

    async def _next(self) -> bytes:
        try:
            return await self._subscription.take()
        except trio.EndOfChannel:
            if not self._backlog:
                raise
            return b""

    def close(self) -> None:
        self._subscription.close()

    def __enter__(self) -> Self:
        self._subscription.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._subscription.__exit__(kind, error, traceback)

    def _wants(self, frame: bytes) -> bool:
        event = _decode(frame.partition(b"data: ")[2])
        if event["type"] != "log":
            return event["type"] in {"connected", "gap", "lagged", "heartbeat", "shutdown"}
        return fits(event, self._filter)


def fits(event: dict[str, Any], wanted: LogFilter) -> bool:
    """Whether a `log` event is one of the lines that the store would return."""
    return (
        (not wanted.levels or event["level"] in wanted.levels)
        and wanted.stream in (None, event["stream"])
        and wanted.incarnation in (None, event["incarnation"])
        and (wanted.q is None or wanted.q.lower() in event["message"].lower())
        and (wanted.until is None or datetime.fromisoformat(event["timestamp"]) < wanted.until)
    )


ROUTES = (
    Route(
        "GET",
        "/instances/{id}/logs",
        get_logs,
        operation="getLogs",
        summary="Read or follow an instance's log",
        description=(
            "Oldest first. Without `tail`, `since` or `cursor`: the newest `limit` lines. Failed instances answer too, and"
            " deleted ones by their id. `follow=true` is an event stream; `Last-Event-ID` goes on where one broke off."
        ),
        tag="History",
        role=Role.VIEWER,
        query=LogQuery,
        answers={200: LogsOut},
        problems=("not_found", "not_acceptable"),
        headers={"Last-Event-ID": {"description": "With `follow`: the id of the last event that was seen."}},
    ),
)
