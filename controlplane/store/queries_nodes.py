"""Nodes, their leases and who holds which instance: units of work over one asyncpg connection (asyncio).

All times are `clock_timestamp()`, which goes on within a transaction: one that had to wait must not
judge by when it began. What is taken from a node is taken under the lock on its row, and its epoch grows, so a
renewal comes either before, and nothing is taken, or after, and fails.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from controlplane.model import Node
from controlplane.store.text import clean_text
from controlplane.store.values import Lease

if TYPE_CHECKING:
    from controlplane.store.rows import Row

TAKE = """
    INSERT INTO mcp_nodes (id, url, version, lease_until) VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (id) DO UPDATE
       SET url = excluded.url, version = excluded.version, epoch = mcp_nodes.epoch + 1, started_at = now(),
           lease_until = clock_timestamp() + make_interval(secs => $4)
    RETURNING epoch, clock_timestamp() AS at
"""
KEEP_OWN = "UPDATE mcp_instances SET epoch = epoch + 1 WHERE node_id = $1 AND deleted_at IS NULL"
"""What an earlier life of the node has yet to write does not count any more."""
TAKE_ALL = """
    UPDATE mcp_instances SET node_id = $1, epoch = epoch + 1 WHERE node_id IS DISTINCT FROM $1 AND deleted_at IS NULL
"""
RENEW = """
    UPDATE mcp_nodes SET url = $3, lease_until = clock_timestamp() + make_interval(secs => $4)
     WHERE id = $1 AND epoch = $2 RETURNING clock_timestamp()
"""
LOCK_OWN = "SELECT true FROM mcp_nodes WHERE id = $1 AND epoch = $2 AND lease_until > clock_timestamp() FOR SHARE"
LOCK_DEAD = """
    SELECT id FROM mcp_nodes WHERE id = ANY($1::uuid[]) AND lease_until <= clock_timestamp() FOR UPDATE SKIP LOCKED
"""
DEPOSE = "UPDATE mcp_nodes SET epoch = epoch + 1 WHERE id = ANY($1::uuid[])"
_FREE = """
    SELECT instance.id, instance.node_id
      FROM mcp_instances AS instance
      JOIN mcp_specs AS spec ON spec.instance_id = instance.id AND spec.revision = instance.revision
     WHERE instance.deleted_at IS NULL
       AND (instance.node_id IS NULL OR instance.node_id = ANY($2::uuid[])
            OR NOT EXISTS (SELECT FROM mcp_nodes AS node WHERE node.id = instance.node_id))
       AND (spec.origin ->> 'sha256' IS NULL OR instance.owner || '/' || (spec.origin ->> 'sha256') = ANY($3::text[]))
"""
IS_ANY_FREE = """
    SELECT EXISTS (SELECT FROM mcp_instances AS instance
                    WHERE deleted_at IS NULL
                      AND (node_id IS NULL OR node_id = ANY($1::uuid[])
                           OR NOT EXISTS (SELECT FROM mcp_nodes AS node WHERE node.id = instance.node_id)))
"""
SHARE = f"""
    WITH free AS ({_FREE}),
         live AS (SELECT count(*)::numeric AS number FROM mcp_nodes WHERE lease_until > clock_timestamp()),
         fleet AS (SELECT count(*) AS number, count(*) FILTER (WHERE node_id = $1) AS ours
                     FROM mcp_instances WHERE deleted_at IS NULL)
    SELECT greatest(ceil(fleet.number / live.number) - fleet.ours,
                    CASE WHEN $4 THEN ceil((SELECT count(*) FROM free) / live.number) END)::integer
      FROM live, fleet
"""  # noqa: S608 -- made of constants
"""As many as make this node's part of the fleet an even one: whoever is first leaves the others theirs, and together
that is all. With `$4`, as they have not come for it, at least a part of what is free."""
CLAIM = f"""
    WITH chosen AS ({_FREE} ORDER BY instance.created_at, instance.id LIMIT $4 FOR UPDATE OF instance SKIP LOCKED)
    UPDATE mcp_instances AS instance SET node_id = $1, epoch = instance.epoch + 1
      FROM chosen WHERE chosen.id = instance.id RETURNING instance.id
"""  # noqa: S608 -- made of constants
FREE_ALL = "UPDATE mcp_instances SET node_id = NULL, epoch = epoch + 1 WHERE node_id = $1 AND deleted_at IS NULL"
END = "UPDATE mcp_nodes SET lease_until = clock_timestamp() WHERE id = $1 AND epoch = $2 RETURNING true"
FORGET = """
    DELETE FROM mcp_nodes AS node
     WHERE lease_until < clock_timestamp() - make_interval(secs => $1)
       AND NOT EXISTS (SELECT FROM mcp_instances AS instance WHERE instance.node_id = node.id AND instance.deleted_at IS NULL)
"""
IDENTITY = """
    SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || oid FROM pg_database WHERE datname = current_database()
"""
SELECT_NODES = """
    SELECT id, url, version, lease_until > clock_timestamp() AS is_live,
           greatest(0, extract(epoch FROM clock_timestamp() - lease_until) + $1)::float8 AS lease_age_s
      FROM mcp_nodes ORDER BY started_at, id
"""


async def take_lease(connection: Any, node: Node, lease_s: float, is_alone: bool) -> Lease:
    """Begin a new epoch of a node; what it held before is its own still, unless somebody has taken it."""
    async with connection.transaction():
        row = await connection.fetchrow(TAKE, node.id, clean_text(node.url)[0], node.version, lease_s)
        await connection.execute(KEEP_OWN, node.id)
        if is_alone:
            await connection.execute(TAKE_ALL, node.id)
    return Lease(epoch=row["epoch"], at=row["at"])


async def renew_lease(connection: Any, node_id: UUID, epoch: int, url: str, lease_s: float) -> datetime | None:
    """The lease stands again; None: it was taken from this node, or by a later life of it."""
    at: datetime | None = await connection.fetchval(RENEW, node_id, epoch, clean_text(url)[0], lease_s)
    return at


async def is_any_free(connection: Any, dead: Collection[UUID]) -> bool:
    """Whether a claim may be worth it; `claim` judges for itself."""
    found: bool = await connection.fetchval(IS_ANY_FREE, list(dead))
    return found


async def claim(
    connection: Any, holder: tuple[UUID, int], dead: Collection[UUID], archives: Collection[str], is_left: bool
) -> tuple[UUID, ...]:
    """Take a fair share of what nobody holds, and of what those of `dead` hold whose leases have ended.

    Args:
        connection: To work on.
        holder: The node that takes it, and the epoch of its lease.
        dead: Nodes.
        archives: Uploads that it has.
        is_left: Take more than that: the others have had time for their share.
    """
    node_id, epoch = holder
    async with connection.transaction():
        if not await connection.fetchval(LOCK_OWN, node_id, epoch):
            return ()
        ended = [row["id"] for row in await connection.fetch(LOCK_DEAD, list(dead))]
        share = await connection.fetchval(SHARE, node_id, ended, list(archives), is_left)
        if share <= 0:
            return ()
        rows = await connection.fetch(CLAIM, node_id, ended, list(archives), share)
        if rows:
            await connection.execute(DEPOSE, ended)
        return tuple(row["id"] for row in rows)


async def release(connection: Any, node_id: UUID, epoch: int) -> None:
    """End the lease: what the node held may be taken at once. Nothing if it has it no more."""
    async with connection.transaction():
        if await connection.fetchval(END, node_id, epoch):
            await connection.execute(FREE_ALL, node_id)


async def nodes(connection: Any, lease_s: float) -> list[Node]:
    """All that are remembered, in the order in which they came up."""
    return [_node_of(row) for row in await connection.fetch(SELECT_NODES, lease_s)]


async def identity(connection: Any) -> str:
    """Which database this is, whatever name it is reached by: the cluster's own number, and its number in it."""
    found: str = await connection.fetchval(IDENTITY)
    return found


async def forget_nodes(connection: Any, older_than_s: float) -> None:
    """Forget nodes whose leases ended so long ago, unless they hold something."""
    await connection.execute(FORGET, older_than_s)


def _node_of(row: Row) -> Node:
    return Node(**dict(row))
