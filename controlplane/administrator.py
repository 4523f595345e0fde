"""The administrator and the token in CORRAL_HOME, which are in the database before anybody can ask."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import trio

from controlplane.cluster.lease import LEASE_S
from controlplane.errors import Conflict, CorralError
from controlplane.model import Role, Token, User
from controlplane.web.auth import digest_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from uuid import UUID

    from controlplane.cluster.roster import Roster
    from controlplane.store.base import Store

ADMIN = "admin"
TIDY_EVERY_S = 3600.0
"""As often as nodes are forgotten (`cluster.membership`)."""
_NAME = re.compile(rf"{ADMIN} of node [0-9a-f]{{8}}")
log = logging.getLogger("corral")


async def ensure(store: Store, token: str, roster: Roster) -> None:
    """Have them there; a token that was changed in this home replaces its old one, and no other home's.

    Another home may do the same at this moment, on a database that is new to both: what it was first with is there.

    Args:
        store: The database, which other homes may share.
        token: As it is in CORRAL_HOME, or in ADMIN_TOKEN.
        roster: Says whether they may, and which node this home is.
    """
    if all(user.name != ADMIN for user in await store.users()):
        with suppress(Conflict):
            await store.add_user(User(name=ADMIN, role=Role.ADMIN, created_at=_now()))
    name = ADMIN if roster.is_alone else _name_for(roster.node_id)
    digest = digest_of(token.encode())
    is_known = False
    for known in await store.tokens():
        if known.digest == digest:
            is_known = True
        elif known.owner == ADMIN and known.name in (ADMIN, name):
            await store.delete_token(known.id)
    if not is_known:
        with suppress(Conflict):  # of its digest: homes may share a token
            await store.add_token(
                Token(id=uuid4(), owner=ADMIN, name=name, role=Role.ADMIN, digest=digest, created_at=_now())
            )


async def keep_tidy(store: Store, token: str, roster: Roster) -> None:
    """Service loop: the tokens of homes whose nodes are forgotten open nothing any more. One that is alone has no others."""
    while not roster.is_alone:
        try:
            await tidy(store, token, roster)
        except CorralError as error:
            log.debug("put off: %s", error)
        await trio.sleep(TIDY_EVERY_S)


async def tidy(store: Store, token: str, roster: Roster) -> None:
    """Delete those tokens now; arguments as of `ensure`."""
    tokens = await store.tokens()  # before the nodes: a home that comes up has a lease before it has a token
    nodes = {node.id for node in await store.nodes(LEASE_S)}
    for known in left_behind(tokens, digest_of(token.encode()), roster.node_id, nodes):
        log.warning(
            "removed the token %r: its control plane has been away for so long that it is forgotten", known.name
        )
        await store.delete_token(known.id)


def left_behind(tokens: Iterable[Token], own: bytes, node_id: UUID, nodes: Collection[UUID]) -> list[Token]:
    """The administrator's tokens of homes whose nodes are gone, which no other home uses.

    Homes may share a token, under the name of whichever was first. So nothing goes as long as another node has none of its own
    name: it may use that of one that is gone.

    Args:
        tokens: All.
        own: The digest of this home's, whatever its name.
        node_id: This node's.
        nodes: All that are remembered.
    """
    theirs = [known for known in tokens if known.owner == ADMIN and _NAME.fullmatch(known.name)]
    needed = {_name_for(node) for node in nodes if node != node_id}
    if not needed <= {known.name for known in theirs}:
        return []
    kept = needed | {_name_for(node_id)}
    return [known for known in theirs if known.name not in kept and known.digest != own]


def _name_for(node_id: UUID) -> str:
    return f"{ADMIN} of node {str(node_id)[:8]}"


def _now() -> datetime:
    return datetime.now(UTC)
