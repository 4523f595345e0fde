"""Instances and their specs: units of work over one asyncpg connection (asyncio)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from controlplane.core.lifecycle import Desired
from controlplane.errors import Conflict, NotFound
from controlplane.store import queries_quotas, queries_tenants
from controlplane.store.base import HolderChanged, IdempotencyKeyUsed
from controlplane.store.rows_instances import INSTANCE_COLUMNS, SPEC_COLUMNS, instance_of, instance_row, spec_row
from controlplane.store.values import Idempotency, Whereabouts

if TYPE_CHECKING:
    from controlplane.model import Instance
    from controlplane.secretbox import SecretBox


def _parameters(columns: str) -> str:
    return ", ".join(f"${number}" for number, _ in enumerate(columns.split(","), start=1))


_INSTANCE = ", ".join(f"instance.{name.strip()}" for name in INSTANCE_COLUMNS.split(","))
SPEC = ", ".join(f"spec.{name.strip()} AS spec_{name.strip()}" for name in SPEC_COLUMNS.split(","))
SELECT_INSTANCES = f"""
    SELECT {_INSTANCE}, {SPEC}
      FROM mcp_instances AS instance
      JOIN mcp_specs AS spec ON spec.instance_id = instance.id AND spec.revision = instance.revision
     WHERE instance.deleted_at IS NULL
     ORDER BY instance.created_at, instance.id
"""  # noqa: S608 -- made of constants
LOCK_EPOCH = "SELECT epoch FROM mcp_instances WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE"
INSERT_INSTANCE = f"INSERT INTO mcp_instances ({INSTANCE_COLUMNS}) VALUES ({_parameters(INSTANCE_COLUMNS)})"  # noqa: S608
INSERT_SPEC = f"INSERT INTO mcp_specs ({SPEC_COLUMNS}) VALUES ({_parameters(SPEC_COLUMNS)})"  # noqa: S608


async def instances(connection: Any, box: SecretBox) -> list[Instance]:
    """All instances that are not deleted, oldest first."""
    return [instance_of(row, box) for row in await connection.fetch(SELECT_INSTANCES)]


async def instance_of_deleted(connection: Any, instance_id: UUID) -> tuple[str, str] | None:
    """Owner and name of a deleted instance; None if it exists or never did."""
    row = await connection.fetchrow(
        "SELECT owner, name FROM mcp_instances WHERE id = $1 AND deleted_at IS NOT NULL", instance_id
    )
    return None if row is None else (row["owner"], row["name"])


async def whereabouts(connection: Any, instance_id: UUID | None, owner: str, name: str) -> Whereabouts | None:
    """Who holds an instance: the one with this id, or without one its owner's of this name; None: there is none."""
    where = "id = $1" if instance_id is not None else "owner = $1 AND name = $2"
    row = await connection.fetchrow(
        f"SELECT id, owner, name, node_id FROM mcp_instances WHERE deleted_at IS NULL AND {where}",  # noqa: S608 -- constants
        *((instance_id,) if instance_id is not None else (owner, name)),
    )
    return None if row is None else Whereabouts(**dict(row))


async def add_instance(
    connection: Any, box: SecretBox, instance: Instance, room: queries_quotas.Room, idempotency: Idempotency | None
) -> None:
    """Insert an instance and its first spec; one deploy per owner at a time, so that the count holds."""
    values, spec_values = instance_row(instance), spec_row(instance, box)
    async with connection.transaction():
        await queries_quotas.lock_owner(connection, instance.owner)
        if idempotency is not None:
            await _refuse_used_key(connection, idempotency)
        await _refuse_taken_name(connection, instance)
        await queries_quotas.refuse_over_instances(connection, instance.owner, room.instances)
        await queries_quotas.refuse_over_memory(connection, instance, room.memory_mb)
        await connection.execute(INSERT_INSTANCE, *values)
        await connection.execute(INSERT_SPEC, *spec_values)
        if idempotency is not None:
            await queries_tenants.keep_idempotency(connection, idempotency)


async def _refuse_used_key(connection: Any, idempotency: Idempotency) -> None:
    first = await queries_tenants.idempotent(connection, idempotency.owner, idempotency.key)
    if first is not None:
        raise IdempotencyKeyUsed("the Idempotency-Key was used by another request", first=first)


async def _refuse_taken_name(connection: Any, instance: Instance) -> None:
    taken = await connection.fetchval(
        "SELECT true FROM mcp_instances WHERE owner = $1 AND name = $2 AND deleted_at IS NULL",
        instance.owner,
        instance.name,
    )
    if taken:
        raise Conflict(
            f"there is an instance named {instance.name!r} already",
            hint=f"corral redeploy {instance.name} makes this a new version of it; or choose another name",
        )


async def set_desired(connection: Any, instance_id: UUID, desired: Desired, memory_mb: int, epoch: int | None) -> None:
    """Write the owner's wish."""
    async with connection.transaction():
        await refuse_past(connection, instance_id, epoch)
        if desired is Desired.RUNNING:
            await queries_quotas.refuse_start_over_memory(connection, instance_id, memory_mb)
        updated = await connection.fetchval(
            """
            UPDATE mcp_instances SET desired = $2, updated_at = now() WHERE id = $1 AND deleted_at IS NULL RETURNING true
            """,
            instance_id,
            desired.value,
        )
    if not updated:
        raise gone()


async def delete_instance(connection: Any, instance_id: UUID, epoch: int | None) -> None:
    """Mark it deleted and erase its specs, secrets included, and its catalogue; once more is harmless."""
    async with connection.transaction():
        await refuse_past(connection, instance_id, epoch)
        await connection.execute(
            """
            UPDATE mcp_instances SET desired = 'deleted', deleted_at = now(), updated_at = now()
             WHERE id = $1 AND deleted_at IS NULL
            """,
            instance_id,
        )
        await connection.execute(
            """
            DELETE FROM mcp_specs USING mcp_instances
             WHERE mcp_specs.instance_id = $1 AND mcp_instances.id = $1 AND mcp_instances.deleted_at IS NOT NULL
            """,
            instance_id,
        )
        await connection.execute("DELETE FROM mcp_catalogues WHERE instance_id = $1", instance_id)


async def refuse_past(connection: Any, instance_id: UUID, epoch: int | None) -> None:
    """Hold the instance's row for the transaction, and refuse if its holder has changed. None: whoever holds it.

    Raises:
        HolderChanged
    """
    now = await connection.fetchval(LOCK_EPOCH, instance_id)
    if epoch is not None and now is not None and now != epoch:
        raise HolderChanged("another control plane has taken the instance", retry_after_s=1.0)


def gone() -> NotFound:
    """What is said of an instance that is deleted while something is done about it."""
    return NotFound("the instance was deleted")
