"""Who did what, to read; `auditing` writes it. There is no way in the API to change or to remove it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import attrs
from attrs import frozen

from controlplane.model import Role
from controlplane.store.filters import AuditFilter
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.limited import id_of
from controlplane.web.logs import FLUSH_WAIT_S
from controlplane.web.paging import PageQuery
from controlplane.web.route import Route
from controlplane.web.views import rfc3339
from controlplane.wire.audit import AuditLogOut, AuditOut, StatusClass
from controlplane.wire.fields import bounded

if TYPE_CHECKING:
    from controlplane.store.base import StoredAudit

_USER = {"minLength": 1, "maxLength": 63}


@frozen(kw_only=True)
class AuditQuery(PageQuery):
    """Which rows; all that is given must hold."""

    actor: str | None = bounded(None, **_USER, description="Only what this user did.")
    action: list[str] | None = bounded(
        None, maxItems=32, items={"minLength": 1, "maxLength": 64}, description="Any of these; repeat it or use commas."
    )
    target: str | None = bounded(
        None,
        minLength=1,
        maxLength=128,
        description="An instance's name or id, a token's id, a user's or secret's name.",
    )
    owner: str | None = bounded(None, **_USER, description="Only what was done to what is this user's.")
    status: list[StatusClass] | None = bounded(None, description="Only answers of these classes.")
    since: datetime | None = bounded(None, description="From this time on.")
    until: datetime | None = bounded(None, description="Up to this time, exclusive.")


async def list_audit(call: Call) -> Reply:
    """What the caller may see of it."""
    query: AuditQuery = call.query
    which = AuditFilter(
        seen_by=None if call.principal.is_admin else call.principal.owner,
        actor=query.actor,
        owner=query.owner,
        actions=tuple(query.action or ()),
        targets=_targets(call, query.target),
        classes=tuple(int(status[0]) for status in query.status or ()),
        since=_since(call, query.since),
        until=query.until,
        limit=query.limit,
        cursor=query.cursor,
    )
    await call.services.journal.flush(FLUSH_WAIT_S)
    found = await call.services.store.audit(which)
    return json_reply(AuditLogOut(audit=[audit_out(kept) for kept in found.rows], next_cursor=found.next_cursor))


def _since(call: Call, since: datetime | None) -> datetime | None:
    """From when on the caller may see it: what was done under his name before he was there is about somebody else."""
    user = call.services.tokens.user(call.principal.owner)
    if call.principal.is_admin or user is None or user.created_at is None:
        return since
    return user.created_at if since is None else max(since, user.created_at)


def _targets(call: Call, target: str | None) -> tuple[str, ...]:
    """As it was given, and the id of the instance that is called so."""
    if target is None:
        return ()
    instance_id = id_of(call.services.supervisor, call.principal, target)
    return (target,) if instance_id is None else (target, str(instance_id))


def audit_out(kept: StoredAudit) -> AuditOut:
    """A row as it was kept."""
    members = attrs.asdict(kept.row, filter=lambda member, _: member.name != "at")
    return AuditOut(timestamp=rfc3339(kept.row.at), name=kept.name, **members)


ROUTES = (
    Route(
        "GET",
        "/audit",
        list_audit,
        operation="listAudit",
        summary="Read who did what",
        description=(
            "Newest first: each request that changes something, and each opening of `/wire`, whatever came of it; calls are not"
            " among them. Administrators see all; others what they did, and what was done to what is theirs, since they are there. Refused requests of"
            " one kind are counted in one row a minute once they are many, and wrong tokens from the second of an address on."
            " For example `?action=patchUser,removeInstance&status=2xx`. Nothing here can be changed or removed by the API."
        ),
        tag="Access",
        role=Role.VIEWER,
        query=AuditQuery,
        answers={200: AuditLogOut},
    ),
)
