"""The administrator and the token in CORRAL_HOME, which are in the database before anybody can ask."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from controlplane.model import Role, Token, User
from controlplane.web.auth import digest_of

if TYPE_CHECKING:
    from controlplane.cluster.roster import Roster
    from controlplane.store.base import Store

ADMIN = "admin"


async def ensure(store: Store, token: str, roster: Roster) -> None:
    """Have them there; a token that was changed in this home replaces its old one, and no other home's.

    Args:
        store: The database, which other homes may share.
        token: As it is in CORRAL_HOME, or in ADMIN_TOKEN.
        roster: Says whether they may, and which node this home is.
    """
    if all(user.name != ADMIN for user in await store.users()):
        await store.add_user(User(name=ADMIN, role=Role.ADMIN, created_at=_now()))
    name = ADMIN if roster.is_alone else f"{ADMIN} of node {str(roster.node_id)[:8]}"
    digest = digest_of(token.encode())
    is_known = False
    for known in await store.tokens():
        if known.digest == digest:
            is_known = True
        elif known.owner == ADMIN and known.name in (ADMIN, name):
            await store.delete_token(known.id)
    if not is_known:
        await store.add_token(
            Token(id=uuid4(), owner=ADMIN, name=name, role=Role.ADMIN, digest=digest, created_at=_now())
        )


def _now() -> datetime:
    return datetime.now(UTC)
