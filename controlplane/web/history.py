"""What happened to an instance: its resource samples and its events, as they were kept."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from controlplane.model import Role
from controlplane.store.filters import EventFilter, MetricFilter
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.logs import FLUSH_WAIT_S, find_history
from controlplane.web.route import Route
from controlplane.web.views import event_out, metric_out
from controlplane.wire.answers import EventsOut, MetricsOut
from controlplane.wire.fields import bounded

MAX_ROWS = 5_000
"""A day in steps of 20 s."""
DEFAULT_ROWS = 100


@frozen(kw_only=True)
class MetricQuery:
    """Which samples."""

    tail: int | None = bounded(None, minimum=0, maximum=MAX_ROWS, description="The newest so many.")
    since: datetime | None = bounded(None, description="From this time on.")
    until: datetime | None = bounded(None, description="Up to this time, exclusive.")
    step: float | None = bounded(
        None, minimum=1, maximum=86_400, description="Fold samples into steps of so many seconds."
    )
    limit: int = bounded(DEFAULT_ROWS, minimum=1, maximum=MAX_ROWS, description="Rows of a page.")
    cursor: str | None = bounded(None, minLength=1, maxLength=512, description="`next_cursor` of the page before.")


@frozen(kw_only=True)
class EventQuery:
    """Which events."""

    tail: int | None = bounded(None, minimum=0, maximum=MAX_ROWS, description="The newest so many.")
    since: datetime | None = bounded(None, description="From this time on.")
    until: datetime | None = bounded(None, description="Up to this time, exclusive.")
    type: list[str] | None = bounded(
        None, maxItems=32, items={"minLength": 1, "maxLength": 64}, description="Exactly these types."
    )
    limit: int = bounded(DEFAULT_ROWS, minimum=1, maximum=MAX_ROWS, description="Rows of a page.")
    cursor: str | None = bounded(None, minLength=1, maxLength=512, description="`next_cursor` of the page before.")


def _tail(query: MetricQuery | EventQuery) -> int | None:
    """Without a beginning or a `tail`, it is the newest rows that are wanted."""
    if query.tail is None and query.since is None and query.cursor is None:
        return query.limit
    return query.tail


async def get_metrics(call: Call) -> Reply:
    """Samples of an instance that is, or was, the caller's."""
    instance_id, _ = await find_history(call)
    query: MetricQuery = call.query
    which = MetricFilter(
        tail=_tail(query),
        since=query.since,
        until=query.until,
        step_s=query.step,
        limit=query.limit,
        cursor=query.cursor,
    )
    found = await call.services.store.metrics(instance_id, which)
    return json_reply(MetricsOut(metrics=[metric_out(s) for s in found.rows], next_cursor=found.next_cursor))


async def get_events(call: Call) -> Reply:
    """Events of an instance that is, or was, the caller's."""
    instance_id, _ = await find_history(call)
    query: EventQuery = call.query
    which = EventFilter(
        tail=_tail(query),
        since=query.since,
        until=query.until,
        types=tuple(query.type or ()),
        limit=query.limit,
        cursor=query.cursor,
    )
    await call.services.journal.flush(FLUSH_WAIT_S)
    found = await call.services.store.events(instance_id, which)
    return json_reply(EventsOut(events=[event_out(e) for e in found.rows], next_cursor=found.next_cursor))


ROUTES = (
    Route(
        "GET",
        "/instances/{id}/metrics",
        get_metrics,
        operation="getMetrics",
        summary="Read an instance's resource samples",
        description="Oldest first: CPU and memory of the whole process tree, calls, latencies.",
        tag="History",
        role=Role.VIEWER,
        query=MetricQuery,
        answers={200: MetricsOut},
        problems=("not_found",),
    ),
    Route(
        "GET",
        "/instances/{id}/events",
        get_events,
        operation="getInstanceEvents",
        summary="Read what happened to an instance",
        description="Oldest first: changes of state, post-mortems, notifications, as they were kept.",
        tag="History",
        role=Role.VIEWER,
        query=EventQuery,
        answers={200: EventsOut},
        problems=("not_found",),
    ),
)
