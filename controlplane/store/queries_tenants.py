"""Users, tokens and idempotency keys: units of work over one asyncpg connection (asyncio)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from controlplane.errors import NotFound, QuotaExceeded
from controlplane.store.base import has_instances
from controlplane.store.rows import idempotency_of, quotas_json, token_of, user_of
from controlplane.store.text import clean_text, json_text
from controlplane.store.values import IDEMPOTENCY_VALID_S, Idempotency

if TYPE_CHECKING:
    from controlplane.model import Role, Token, User

IDEMPOTENCY_VALID = timedelta(seconds=IDEMPOTENCY_VALID_S)
TOKENS_LOCK = 0x636F_7276
"""First key of the advisory lock under which one owner's tokens are counted; the second is the owner's hash."""


async def users(connection: Any) -> list[User]:
    """All users, by name."""
    rows = await connection.fetch("SELECT name, role, disabled, created_at, quotas FROM mcp_users ORDER BY name")
    return [user_of(row) for row in rows]


async def add_user(connection: Any, user: User) -> None:
    """Insert a user."""
    await connection.execute(
        "INSERT INTO mcp_users (name, role, disabled, created_at, quotas) VALUES ($1, $2, $3, coalesce($4, now()), $5)",
        clean_text(user.name)[0],
        user.role.value,
        user.disabled,
        user.created_at,
        quotas_json(user.quotas),
    )


async def update_user(
    connection: Any, name: str, role: Role | None, disabled: bool | None, quotas: Mapping[str, int | None]
) -> User:
    """Change a user's role, disable it, set some of its quotas; None leaves a member as it is, and takes a quota away."""
    row = await connection.fetchrow(
        """
        UPDATE mcp_users
           SET role = coalesce($2, role), disabled = coalesce($3, disabled), quotas = jsonb_strip_nulls(quotas || $4::jsonb)
         WHERE name = $1
        RETURNING name, role, disabled, created_at, quotas
        """,
        clean_text(name)[0],
        None if role is None else role.value,
        disabled,
        json_text(quotas),
    )
    if row is None:
        raise NotFound(f"there is no user named {name!r}")
    return user_of(row)


async def remove_user(connection: Any, name: str) -> User:
    """Delete a user who has no instances, and all that is his: whoever gets the name later inherits nothing."""
    name = clean_text(name)[0]
    async with connection.transaction():
        # Whoever deploys for this user meanwhile waits for this lock, and then finds nobody.
        row = await connection.fetchrow(
            "SELECT name, role, disabled, created_at, quotas FROM mcp_users WHERE name = $1 FOR UPDATE", name
        )
        if row is None:
            raise NotFound(f"there is no user named {name!r}")
        living = await connection.fetchval(
            "SELECT count(*) FROM mcp_instances WHERE owner = $1 AND deleted_at IS NULL", name
        )
        if living:
            raise has_instances(name, living)
        for table in ("mcp_instances", "mcp_events", "mcp_usage_days"):
            await connection.execute(f"DELETE FROM {table} WHERE owner = $1", name)  # noqa: S608 - ours
        await connection.execute("DELETE FROM mcp_users WHERE name = $1", name)
    return user_of(row)


async def tokens(connection: Any) -> list[Token]:
    """All tokens, oldest first."""
    rows = await connection.fetch(
        """
        SELECT id, owner, name, role, digest, created_at, expires_at, last_used_at, instances
          FROM mcp_tokens ORDER BY created_at, id
        """
    )
    return [token_of(row) for row in rows]


async def add_token(connection: Any, token: Token, quota: int | None) -> None:
    """Insert a token's record; one at a time per owner, so that the count holds."""
    async with connection.transaction():
        if quota is not None:
            await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", TOKENS_LOCK, token.owner)
            await _refuse_over_quota(connection, token.owner, quota)
        await _insert_token(connection, token)


async def _refuse_over_quota(connection: Any, owner: str, quota: int) -> None:
    """Records of tokens that have expired are kept for as long as there is room."""
    count = "SELECT count(*) FROM mcp_tokens WHERE owner = $1"
    if await connection.fetchval(count, owner) < quota:
        return
    await connection.execute("DELETE FROM mcp_tokens WHERE owner = $1 AND expires_at <= now()", owner)
    used = await connection.fetchval(count, owner)
    if used >= quota:
        raise QuotaExceeded(
            f"the quota of {quota} tokens is used up",
            hint="revoke some that are no longer used: corral token ls",
            evidence={"quota": "tokens", "limit": quota, "used": used},
        )


async def _insert_token(connection: Any, token: Token) -> None:
    await connection.execute(
        """
        INSERT INTO mcp_tokens (id, owner, name, role, digest, created_at, expires_at, last_used_at, instances)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        token.id,
        token.owner,
        clean_text(token.name)[0],
        token.role.value,
        token.digest,
        token.created_at,
        token.expires_at,
        token.last_used_at,
        None if token.instances is None else sorted(token.instances),
    )


async def delete_token(connection: Any, token_id: UUID) -> Token | None:
    """Delete a token; returns what it was."""
    row = await connection.fetchrow(
        """
        DELETE FROM mcp_tokens WHERE id = $1
        RETURNING id, owner, name, role, digest, created_at, expires_at, last_used_at, instances
        """,
        token_id,
    )
    return None if row is None else token_of(row)


async def touch_tokens(connection: Any, used: Mapping[UUID, datetime]) -> None:
    """Note when tokens were last used; never moves back."""
    await connection.execute(
        """
        UPDATE mcp_tokens AS token SET last_used_at = greatest(token.last_used_at, used.at)
          FROM (SELECT * FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, at) ORDER BY id) AS used
         WHERE token.id = used.id
        """,
        list(used.keys()),
        list(used.values()),
    )


async def idempotent(connection: Any, owner: str, key: str) -> Idempotency | None:
    """What an Idempotency-Key made, while it is valid."""
    row = await connection.fetchrow(
        """
        SELECT owner, key, body_digest, instance_id, created_at FROM mcp_idempotency
         WHERE owner = $1 AND key = $2 AND created_at > now() - $3::interval
        """,
        owner,
        clean_text(key)[0],
        IDEMPOTENCY_VALID,
    )
    return None if row is None else idempotency_of(row)


async def keep_idempotency(connection: Any, record: Idempotency) -> None:
    """Keep a key, over one that has run out; the caller holds the owner's lock and has seen that none is valid."""
    await connection.execute(
        """
        INSERT INTO mcp_idempotency (owner, key, body_digest, instance_id, created_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (owner, key) DO UPDATE
           SET body_digest = excluded.body_digest, instance_id = excluded.instance_id, created_at = excluded.created_at
        """,
        record.owner,
        clean_text(record.key)[0],
        record.body_digest,
        record.instance_id,
        record.created_at,
    )
