"""Secrets, and whatever else is encrypted: units of work over one asyncpg connection (asyncio).

Sealing anew goes through both tables that hold boxes in batches, each a transaction of its own, so that it may be
broken off anywhere. The key id stands in a box's header, so the database itself can say what is left.
"""

# ruff: noqa: S608 -- made of constants

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from controlplane.errors import QuotaExceeded
from controlplane.model import Secret
from controlplane.secretbox import KEY_ID_BYTES, SecretUnreadable
from controlplane.store.rows import uuid_of
from controlplane.store.rows_instances import env_aad

if TYPE_CHECKING:
    from controlplane.secretbox import SecretBox
    from controlplane.store.rows import Row

SECRETS_LOCK = 0x636F_7273
"""First key of the advisory lock under which one owner's secrets are counted; the second is the owner's hash."""
BATCH_ROWS = 50
"""Boxes of a table that are sealed anew in one transaction: of at most 96 KiB, so 5 MB."""

_COLUMNS = "owner, name, created_at, updated_at"
_KEY_ID = f"substring({{}} from 2 for {KEY_ID_BYTES})"
_ENV_KEY, _BOX_KEY = _KEY_ID.format("spec.env"), _KEY_ID.format("box")
UPSERT = f"""
    INSERT INTO mcp_secrets AS secret (owner, name, box) VALUES ($1, $2, $3)
    ON CONFLICT (owner, name) DO UPDATE SET box = excluded.box, updated_at = now()
    RETURNING {_COLUMNS}, xmax = 0 AS is_new
"""
SELECT_KEYS = f"SELECT {_ENV_KEY} AS key FROM mcp_specs AS spec UNION SELECT {_BOX_KEY} FROM mcp_secrets"
SELECT_SPECS = f"""
    SELECT spec.instance_id, spec.revision, spec.env, instance.owner
      FROM mcp_specs AS spec JOIN mcp_instances AS instance ON instance.id = spec.instance_id
     WHERE {_ENV_KEY} <> $1 LIMIT $2 FOR NO KEY UPDATE OF spec SKIP LOCKED
"""
SELECT_SECRETS = f"""
    SELECT owner, name, box FROM mcp_secrets WHERE {_BOX_KEY} <> $1 LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
"""
SELECT_OTHERS = f"""
    SELECT EXISTS (SELECT FROM mcp_specs AS spec WHERE {_ENV_KEY} <> $1)
        OR EXISTS (SELECT FROM mcp_secrets WHERE {_BOX_KEY} <> $1)
"""


async def secrets(connection: Any, owner: str) -> list[Secret]:
    """One owner's, by name."""
    rows = await connection.fetch(
        f'SELECT {_COLUMNS} FROM mcp_secrets WHERE owner = $1 ORDER BY name COLLATE "C"', owner
    )
    return [_secret_of(row) for row in rows]


async def put_secret(
    connection: Any, box: SecretBox, place: tuple[str, str], value: str, quota: int
) -> tuple[Secret, bool]:
    """Set a secret by owner and name, one at a time per owner, so that the count holds; returns whether it is new."""
    owner, name = place
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", SECRETS_LOCK, owner)
        others = await connection.fetchval(
            "SELECT count(*) FROM mcp_secrets WHERE owner = $1 AND name <> $2", owner, name
        )
        if others >= quota:
            raise QuotaExceeded(
                f"the quota of {quota} secrets is used up",
                hint="remove some that are no longer used: corral secret ls",
                evidence={"quota": "secrets", "limit": quota, "used": others},
            )
        row = await connection.fetchrow(UPSERT, owner, name, box.encrypt(value.encode(), secret_aad(owner, name)))
    return _secret_of(row), row["is_new"]


async def delete_secret(connection: Any, owner: str, name: str) -> Secret | None:
    """Delete a secret; returns what it was."""
    row = await connection.fetchrow(
        f"DELETE FROM mcp_secrets WHERE owner = $1 AND name = $2 RETURNING {_COLUMNS}", owner, name
    )
    return None if row is None else _secret_of(row)


async def secret_values(connection: Any, box: SecretBox, owner: str, names: Sequence[str]) -> dict[str, str]:
    """The values of those that exist."""
    rows = await connection.fetch(
        "SELECT name, box FROM mcp_secrets WHERE owner = $1 AND name = ANY ($2::text[])", owner, list(names)
    )
    return {row["name"]: box.decrypt(row["box"], secret_aad(owner, row["name"])).decode() for row in rows}


async def check_keys(connection: Any, box: SecretBox) -> None:
    """Raise `SecretUnreadable` if something was closed with a key that is not at hand."""
    for row in await connection.fetch(SELECT_KEYS):
        if not box.knows(row["key"]):
            raise SecretUnreadable.of_key(row["key"].hex(), box.key_id)


async def seal_batch(connection: Any, box: SecretBox) -> int:
    """Close some boxes of other keys with the current one; returns how many: 0 where none can be had now."""
    current = bytes.fromhex(box.key_id)
    async with connection.transaction():
        specs = await connection.fetch(SELECT_SPECS, current, BATCH_ROWS)
        await connection.executemany(
            "UPDATE mcp_specs SET env = $3 WHERE instance_id = $1 AND revision = $2",
            [(row["instance_id"], row["revision"], _spec_again(row, box)) for row in specs],
        )
        known = await connection.fetch(SELECT_SECRETS, current, BATCH_ROWS)
        await connection.executemany(
            "UPDATE mcp_secrets SET box = $3 WHERE owner = $1 AND name = $2",
            [
                (row["owner"], row["name"], _again(box, row["box"], secret_aad(row["owner"], row["name"])))
                for row in known
            ],
        )
    return len(specs) + len(known)


async def others_left(connection: Any, box: SecretBox) -> bool:
    """Whether boxes of other keys are left, those that a transaction under way may yet commit included."""
    async with connection.transaction():
        # Waits for every writer, also for one whose caller was told that its outcome is not known.
        await connection.execute("LOCK TABLE mcp_specs, mcp_secrets IN SHARE MODE")
        found: bool = await connection.fetchval(SELECT_OTHERS, bytes.fromhex(box.key_id))
    return found


def secret_aad(owner: str, name: str) -> bytes:
    """What an encrypted secret is bound to: it opens in no other row."""
    return json.dumps(["secret", owner, name]).encode()


def _spec_again(row: Row, box: SecretBox) -> bytes:
    return _again(box, row["env"], env_aad(row["owner"], uuid_of(row["instance_id"]), row["revision"]))


def _again(box: SecretBox, sealed: bytes, aad: bytes) -> bytes:
    return box.encrypt(box.decrypt(sealed, aad), aad)


def _secret_of(row: Row) -> Secret:
    return Secret(owner=row["owner"], name=row["name"], created_at=row["created_at"], updated_at=row["updated_at"])
