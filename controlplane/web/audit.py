"""Who did what, to read; `auditing` writes it. There is no way in the API to change or to remove it."""

from __future__ import annotations

import difflib
from datetime import datetime
from typing import TYPE_CHECKING

import attrs
from attrs import frozen

from controlplane.errors import FieldError
from controlplane.model import Role
from controlplane.store.filters import TOKEN_ACTIONS, AuditFilter
from controlplane.web.auditing import SIGN_IN
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.limited import id_of
from controlplane.web.logs import FLUSH_WAIT_S
from controlplane.web.paging import PageQuery
from controlplane.web.route import Route
from controlplane.web.views import rfc3339
from controlplane.wire.audit import AuditLogOut, AuditOut, StatusClass
from controlplane.wire.fields import bounded
from controlplane.wire.wrong import invalid_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.store.values import StoredAudit

NEAR_MAX = 5
"""Names of actions that are offered in place of an unknown one."""
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
        description="An instance's or token's name or id, a user's or secret's name.",
    )
    owner: str | None = bounded(None, **_USER, description="Only what was done to what is this user's.")
    status: list[StatusClass] | None = bounded(None, description="Only answers of these classes.")
    since: datetime | None = bounded(None, description="From this time on.")
    until: datetime | None = bounded(None, description="Up to this time, exclusive.")


async def list_audit(call: Call) -> Reply:
    """What the caller may see of it."""
    query: AuditQuery = call.query
    _check_actions(query.action or ())
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


def _check_actions(actions: Sequence[str]) -> None:
    """A name that no row can have would look as if it had never been done."""
    from controlplane.web.routes import ROUTES as ALL_ROUTES  # noqa: PLC0415 - of which this module has one

    known = [SIGN_IN, *(route.operation for route in ALL_ROUTES if route.audited)]
    wrong = [
        FieldError(f"/action/{place}", _unknown_action(action, known))
        for place, action in enumerate(actions)
        if action not in known
    ]
    if wrong:
        raise invalid_request(wrong)


def _unknown_action(action: str, known: Sequence[str]) -> str:
    """What is wrong with a name, and what may have been meant: in any case of letters, or a part of it."""
    by_lower = {name.lower(): name for name in known}
    wanted = action.lower()
    near = difflib.get_close_matches(wanted, by_lower, n=NEAR_MAX) or [name for name in by_lower if wanted in name]
    meant = f"; near it: {', '.join(by_lower[name] for name in near[:NEAR_MAX])}" if near else ""
    return f"there is no action {action!r} in the audit log{meant}"


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
    """A row as it was kept; of a token, whose name is kept with its id, the two apart."""
    members = attrs.asdict(kept.row, filter=lambda member, _: member.name != "at")
    name = kept.name
    if kept.row.action in TOKEN_ACTIONS and kept.row.owner is not None:
        members["target"], _, name = kept.row.target.partition(" ")
    return AuditOut(timestamp=rfc3339(kept.row.at), name=name or None, **members)


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
