"""Revisions of what an instance runs: numbered, switched over to, forgotten (asyncio).

Whoever gives a number, or changes what depends on which revision is in force, holds the lock on the instance's row,
taken first: numbers are given once, and the two tables never contradict each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from attrs import evolve

from controlplane.core.lifecycle import Desired
from controlplane.errors import NotFound
from controlplane.store import queries_quotas
from controlplane.store.queries_instances import INSERT_SPEC, SPEC, gone, refuse_past
from controlplane.store.rows import evidence_json
from controlplane.store.rows_instances import labels_json, resolved_json, revision_of, spec_row

if TYPE_CHECKING:
    from datetime import datetime

    from controlplane.model import Evidence, Instance, Resolved, Revision, Spec
    from controlplane.secretbox import SecretBox

REVISIONS_KEPT = 10
"""Revisions of an instance, uploaded sources included: enough to go back some way, and a bound on what a script that
redeploys every minute leaves behind."""

LOCK_INSTANCE = "SELECT revision FROM mcp_instances WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE"
DELETE_OLD = """
    DELETE FROM mcp_specs
     WHERE instance_id = $1 AND revision IN (
           SELECT revision FROM mcp_specs WHERE instance_id = $1
            ORDER BY revision = $2 DESC,
                     revision = (SELECT max(revision) FROM mcp_specs
                                  WHERE instance_id = $1 AND revision < $2 AND ran_at IS NOT NULL) DESC,
                     revision DESC
           OFFSET $3)
"""
"""Besides the one in force, the latest before it that ran outlives any number of failed ones: it is the way back."""
UPDATE_LABELS = "UPDATE mcp_instances SET labels = $2, updated_at = $3 WHERE id = $1"
UPDATE_CHANGED = """
    UPDATE mcp_instances
       SET labels = $2, updated_at = $3, revision = $4, language = $5, ever_ran = $6, uid = $7
     WHERE id = $1
"""
UPDATE_SWITCHED = """
    UPDATE mcp_specs SET ran_at = coalesce(ran_at, $3), failure = NULL
     WHERE instance_id = $1 AND revision = $2 RETURNING true
"""
UPDATE_IN_FORCE = """
    UPDATE mcp_instances AS instance
       SET revision = spec.revision, language = spec.language, ever_ran = spec.ran_at IS NOT NULL,
           labels = $3, updated_at = $4, desired = $5
      FROM mcp_specs AS spec
     WHERE instance.id = $1 AND spec.instance_id = $1 AND spec.revision = $2
"""
UPDATE_REPLACED = """
    UPDATE mcp_specs SET ran_at = $3 WHERE instance_id = $1 AND revision = $2 AND ran_at IS NULL
"""
"""That it ran, the journal may not have written yet; what it has to say next is about the revision that replaces it."""
UPDATE_RESOLVED = """
    UPDATE mcp_specs SET resolved = $3, language = CASE WHEN language = '' THEN $4 ELSE language END
     WHERE instance_id = $1 AND revision = $2
"""
UPDATE_FAILED = "UPDATE mcp_specs SET failure = $3 WHERE instance_id = $1 AND revision = $2"
UPDATE_LANGUAGE = """
    UPDATE mcp_instances AS instance SET language = spec.language
      FROM mcp_specs AS spec
     WHERE instance.id = $1 AND spec.instance_id = $1 AND spec.revision = instance.revision
       AND instance.language <> spec.language
"""
_REVISION = f"instance.id, instance.owner, {SPEC}, " + ", ".join(
    f"spec.{name} AS spec_{name}" for name in ("created_at", "ran_at", "failure")
)
_FROM = """
      FROM mcp_specs AS spec JOIN mcp_instances AS instance ON instance.id = spec.instance_id
     WHERE instance.id = $1 AND instance.deleted_at IS NULL
"""
SELECT_REVISION = f"SELECT {_REVISION} {_FROM} AND spec.revision = $2"
SELECT_REVISIONS = f"""
    SELECT {_REVISION.replace("spec.source AS", "NULL::bytea AS")} {_FROM} ORDER BY spec.revision DESC
"""
SELECT_SOURCES = """
    SELECT DISTINCT instance.owner, spec.origin ->> 'sha256' AS sha256
      FROM mcp_specs AS spec JOIN mcp_instances AS instance ON instance.id = spec.instance_id
     WHERE instance.deleted_at IS NULL AND spec.origin ->> 'sha256' IS NOT NULL
"""


async def update_instance(
    connection: Any, box: SecretBox, instance: Instance, spec: Spec | None, memory_mb: int
) -> Instance:
    """Write labels and, if it changed, the Spec as the next revision, in force at once; returns what is now."""
    labels = labels_json(instance)
    async with connection.transaction():
        if spec is not None:
            await queries_quotas.refuse_over_memory(connection, evolve(instance, spec=spec), memory_mb)
        await _lock(connection, instance)
        if spec is None:
            await connection.execute(UPDATE_LABELS, instance.id, labels, instance.updated_at)
            return instance
        if instance.ever_ran:
            await connection.execute(UPDATE_REPLACED, instance.id, instance.spec.revision, instance.updated_at)
        changed = await _insert(connection, box, evolve(instance, spec=spec))
        await connection.execute(
            UPDATE_CHANGED,
            changed.id,
            labels,
            changed.updated_at,
            changed.spec.revision,
            changed.spec.language,
            changed.ever_ran,
            changed.uid,
        )
        await _forget_old(connection, changed.id, changed.spec.revision)
    return changed


async def add_revision(connection: Any, box: SecretBox, instance: Instance, memory_mb: int) -> int:
    """Write `instance.spec` under the next number; what is in force stays so."""
    async with connection.transaction():
        await queries_quotas.refuse_over_memory(connection, evolve(instance, desired=Desired.RUNNING), memory_mb)
        in_force = await _lock(connection, instance)
        added = await _insert(connection, box, instance)
        await _forget_old(connection, instance.id, in_force)
    return added.spec.revision


async def switch_revision(
    connection: Any, instance: Instance, ran_at: datetime | None, replaced_ran: int | None, memory_mb: int
) -> None:
    """Put a revision in force, with all that is known of it and of the one that it replaces: all of it or nothing."""
    labels = labels_json(instance)
    spec, now = instance.spec, instance.updated_at
    found = None if spec.resolved is None else resolved_json(spec.resolved)
    async with connection.transaction():
        await queries_quotas.refuse_over_memory(connection, instance, memory_mb)  # others may have come meanwhile
        await _lock(connection, instance)
        kept = await connection.fetchval(UPDATE_SWITCHED, instance.id, spec.revision, ran_at)
        if not kept:
            raise _not_kept(spec.revision)
        if replaced_ran is not None:
            await connection.execute(UPDATE_REPLACED, instance.id, replaced_ran, now)
        if spec.resolved is not None:
            await connection.execute(UPDATE_RESOLVED, instance.id, spec.revision, found, spec.resolved.language)
        await connection.execute(UPDATE_IN_FORCE, instance.id, spec.revision, labels, now, instance.desired.value)


async def fail_revision(connection: Any, instance_id: UUID, revision: int, failure: Evidence) -> None:
    """Write why a revision failed; nothing if it is gone, or in force: a switch may stand whose outcome nobody knew."""
    async with connection.transaction():
        in_force = await connection.fetchval(LOCK_INSTANCE, instance_id)
        if in_force != revision:
            await connection.execute(UPDATE_FAILED, instance_id, revision, evidence_json(failure))


async def set_resolved(connection: Any, instance_id: UUID, revision: int, resolved: Resolved) -> None:
    """Write what a first build found, and the language where none was named; nothing if the revision is gone."""
    found = resolved_json(resolved)
    async with connection.transaction():
        await connection.execute(LOCK_INSTANCE, instance_id)
        await connection.execute(UPDATE_RESOLVED, instance_id, revision, found, resolved.language)
        await connection.execute(UPDATE_LANGUAGE, instance_id)


async def revisions(connection: Any, box: SecretBox, instance_id: UUID) -> list[Revision]:
    """All that are kept, newest first, without `source`."""
    return [revision_of(row, box) for row in await connection.fetch(SELECT_REVISIONS, instance_id)]


async def revision(connection: Any, box: SecretBox, instance_id: UUID, number: int) -> Revision:
    """One, with all that it has."""
    row = await connection.fetchrow(SELECT_REVISION, instance_id, number)
    if row is None:
        raise _not_kept(number)
    return revision_of(row, box)


async def sources_in_use(connection: Any) -> set[tuple[str, str]]:
    """Owner and SHA-256 (hex) of the uploads that a revision comes from."""
    return {(row["owner"], row["sha256"]) for row in await connection.fetch(SELECT_SOURCES)}


async def _lock(connection: Any, instance: Instance) -> int:
    """Hold the instance's row until the transaction ends; returns the revision in force.

    Raises:
        HolderChanged: another node has taken the instance.
    """
    await refuse_past(connection, instance.id, instance.epoch)
    in_force: int | None = await connection.fetchval(LOCK_INSTANCE, instance.id)
    if in_force is None:
        raise gone()
    return in_force


async def _insert(connection: Any, box: SecretBox, instance: Instance) -> Instance:
    """Insert `instance.spec` under the next number; the environment is bound to that number."""
    number = await connection.fetchval("SELECT max(revision) + 1 FROM mcp_specs WHERE instance_id = $1", instance.id)
    numbered = evolve(instance, spec=evolve(instance.spec, revision=number))
    await connection.execute(INSERT_SPEC, *spec_row(numbered, box))
    return numbered


async def _forget_old(connection: Any, instance_id: UUID, in_force: int) -> None:
    await connection.execute(DELETE_OLD, instance_id, in_force, REVISIONS_KEPT)


def _not_kept(revision: int) -> NotFound:
    return NotFound(
        f"there is no revision {revision}",
        hint=f"the latest {REVISIONS_KEPT} are kept; the list of revisions shows them",
    )
