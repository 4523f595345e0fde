"""What happened in the whole fleet, as it was kept: `/events` is the same as it happens."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from attrs import asdict, frozen

from controlplane.model import Role
from controlplane.store.filters import FleetEventFilter
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.instances import whose
from controlplane.web.limited import ids_opened
from controlplane.web.logs import FLUSH_WAIT_S
from controlplane.web.paging import PageQuery
from controlplane.web.route import Route
from controlplane.web.views import event_out
from controlplane.wire.answers import Status  # noqa: TC001  (the query is read by its annotations)
from controlplane.wire.fields import bounded
from controlplane.wire.history import FleetEventOut, FleetEventsOut

if TYPE_CHECKING:
    from controlplane.store.values import NamedEvent


@frozen(kw_only=True)
class FleetEventQuery(PageQuery):
    """Which events; all that is given must hold."""

    type: list[str] | None = bounded(
        None, maxItems=32, items={"minLength": 1, "maxLength": 64}, description="Any of these; repeat it or use commas."
    )
    status: list[Status] | None = bounded(None, description="Of `status` events only those that tell one of these.")
    since: datetime | None = bounded(None, description="From this time on.")
    until: datetime | None = bounded(None, description="Up to this time, exclusive.")
    owner: str | None = bounded(None, minLength=1, maxLength=63, description="For administrators: one user's only.")


async def list_fleet_events(call: Call) -> Reply:
    """Events of all that the caller may see."""
    query: FleetEventQuery = call.query
    which = FleetEventFilter(
        owner=whose(call),
        instances=ids_opened(call.services.supervisor, call.principal),
        since=query.since,
        until=query.until,
        types=tuple(query.type or ()),
        statuses=tuple(query.status or ()),
        limit=query.limit,
        cursor=query.cursor,
    )
    await call.services.journal.flush(FLUSH_WAIT_S)
    found = await call.services.store.fleet_events(which)
    return json_reply(
        FleetEventsOut(events=[fleet_event_out(row) for row in found.rows], next_cursor=found.next_cursor)
    )


def fleet_event_out(row: NamedEvent) -> FleetEventOut:
    """An event as it was kept, and whose it is."""
    return FleetEventOut(**asdict(event_out(row.event), recurse=False), name=row.name, owner=row.event.owner)


ROUTES = (
    Route(
        "GET",
        "/events/history",
        list_fleet_events,
        operation="listFleetEvents",
        summary="Read what happened to everything the caller may see",
        description=(
            "Newest first, as it was kept; deleted instances' events are among them. What went wrong is"
            " `?type=post_mortem,revision_failed,watchdog,gap,services,status&status=failed`."
        ),
        tag="History",
        role=Role.VIEWER,
        query=FleetEventQuery,
        open_to_limited=True,
        answers={200: FleetEventsOut},
    ),
)
