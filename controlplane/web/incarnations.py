"""The processes that an instance has had: how each came to its end, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trio

from controlplane.model import Role
from controlplane.store.filters import IncarnationFilter
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.logs import FLUSH_WAIT_S, find_history
from controlplane.web.paging import PageQuery
from controlplane.web.route import Route
from controlplane.web.views import evidence_out, rfc3339
from controlplane.wire.history import IncarnationOut, IncarnationsOut

if TYPE_CHECKING:
    from controlplane.model import Incarnation


async def list_incarnations(call: Call) -> Reply:
    """Processes of an instance that is, or was, the caller's."""
    instance_id, living = await find_history(call)
    query: PageQuery = call.query
    await call.services.journal.flush(FLUSH_WAIT_S)
    found = await call.services.store.incarnations(
        instance_id, IncarnationFilter(limit=query.limit, cursor=query.cursor)
    )
    now = datetime.now(UTC)
    began = now - timedelta(seconds=trio.current_time() - call.services.started_at)
    rows = [incarnation_out(row, is_running=living and _runs(row, began), now=now) for row in found.rows]
    return json_reply(IncarnationsOut(incarnations=rows, next_cursor=found.next_cursor))


def _runs(row: Incarnation, began: datetime) -> bool:
    """Whether it is there now: no process outlives its control plane, which sees the end of all that it started."""
    return row.ended_at is None and row.started_at >= began


def incarnation_out(row: Incarnation, *, is_running: bool, now: datetime) -> IncarnationOut:
    """One process, as it was kept."""
    end = now if is_running else row.ended_at
    return IncarnationOut(
        number=row.number,
        revision=row.revision,
        pid=row.pid,
        is_running=is_running,
        started_at=rfc3339(row.started_at),
        ended_at=rfc3339(row.ended_at) if row.ended_at is not None else None,
        exit_code=row.exit_code,
        signal=row.signal,
        ran_s=round((end - row.started_at).total_seconds(), 3) if end is not None else None,
        reason=row.evidence.reason if row.evidence is not None else None,
        post_mortem=evidence_out(row.evidence),
    )


ROUTES = (
    Route(
        "GET",
        "/instances/{id}/incarnations",
        list_incarnations,
        operation="listIncarnations",
        summary="List an instance's processes",
        description=(
            "Newest first: when each ran, how it ended, and its post-mortem where it failed. Processes of single MCP sessions"
            " are not among them. A deleted instance's are found by its id."
        ),
        tag="History",
        role=Role.VIEWER,
        query=PageQuery,
        answers={200: IncarnationsOut},
        problems=("not_found",),
    ),
)
