"""Rows of instances and of their specs <-> the nouns of `model`; pure but for the secret box.

A row is read joined: columns of mcp_instances by their names, those of mcp_specs with the prefix `spec_`. An encrypted
environment needs both, for it opens only in the row that it was written for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import attrs

from controlplane.core.lifecycle import Desired, State
from controlplane.core.restart import RestartPolicy
from controlplane.model import Command, Instance, Limits, Mount, Origin, Resolved, Revision, SourceType, Spec
from controlplane.store.exact import exact_json, exact_text
from controlplane.store.rows import Row, evidence_json, evidence_of, json_values, uuid_of

if TYPE_CHECKING:
    from controlplane.secretbox import SecretBox

INSTANCE_COLUMNS = (
    "id, owner, name, language, created_at, updated_at, desired, state, phase, revision, labels, uid, ever_ran, "
    "restarts, incarnation, last_error, node_id, epoch"
)
SPEC_COLUMNS = (
    "instance_id, revision, source_type, language, command, entry_point, source, env, limits, restart, isolation, "
    "network, sessions, cause, origin, dependencies, build_command, resolved, mounts"
)
"""Of a Spec alone: what became of the revision is in other columns."""

T = TypeVar("T")


def instance_of(row: Row, box: SecretBox) -> Instance:
    """An instance from its row joined with the row of its current spec.

    Raises:
        SecretUnreadable: its environment was encrypted with another key, or the row was changed.
    """
    return Instance(
        id=uuid_of(row["id"]),
        owner=row["owner"],
        name=row["name"],
        spec=_spec_of(row, box),
        labels=json.loads(row["labels"]),
        desired=Desired(row["desired"]),
        state=State(row["state"]),
        uid=row["uid"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        ever_ran=row["ever_ran"],
        restarts=row["restarts"],
        incarnation=row["incarnation"],
        last_error=evidence_of(row["last_error"]),
        node_id=None if row["node_id"] is None else uuid_of(row["node_id"]),
        epoch=row["epoch"],
    )


def revision_of(row: Row, box: SecretBox) -> Revision:
    """A revision from its row joined with `id` and `owner` of its instance.

    Raises:
        SecretUnreadable: its environment was encrypted with another key, or the row was changed.
    """
    return Revision(
        spec=_spec_of(row, box),
        created_at=row["spec_created_at"],
        ran_at=row["spec_ran_at"],
        failure=evidence_of(row["spec_failure"]),
    )


def _spec_of(row: Row, box: SecretBox) -> Spec:
    sealed = box.decrypt(row["spec_env"], env_aad(row["owner"], uuid_of(row["id"]), row["spec_revision"]))
    return Spec(
        revision=row["spec_revision"],
        cause=row["spec_cause"],
        source_type=SourceType(row["spec_source_type"]),
        language=row["spec_language"],
        command=_value_of(row["spec_command"], Command),
        entry_point=row["spec_entry_point"],
        source=row["spec_source"],
        origin=_value_of(row["spec_origin"], Origin),
        dependencies=tuple(json.loads(row["spec_dependencies"])),
        build_command=row["spec_build_command"],
        resolved=_value_of(row["spec_resolved"], Resolved),
        env=json.loads(sealed),
        limits=json_values.structure(json.loads(row["spec_limits"]), Limits),
        restart=json_values.structure(json.loads(row["spec_restart"]), RestartPolicy),
        isolation=row["spec_isolation"],
        network=json.loads(row["spec_network"]),
        mounts=tuple(Mount(**mount) for mount in json.loads(row["spec_mounts"])),
        sessions=row["spec_sessions"],
    )


def _value_of(text: str | None, kind: type[T]) -> T | None:
    return None if text is None else json_values.structure(json.loads(text), kind)


def env_aad(owner: str, instance_id: UUID, revision: int) -> bytes:
    """What an encrypted environment is bound to: it opens in no other row."""
    return json.dumps(["env", owner, str(instance_id), revision]).encode()


def instance_row(instance: Instance) -> tuple[Any, ...]:
    """Values of `INSTANCE_COLUMNS`.

    Raises:
        InvalidRequest: the database cannot hold a character of it.
    """
    return (
        instance.id,
        instance.owner,
        instance.name,
        instance.spec.language,
        instance.created_at,
        instance.updated_at,
        instance.desired.value,
        instance.state.value,
        "",
        instance.spec.revision,
        labels_json(instance),
        instance.uid,
        instance.ever_ran,
        instance.restarts,
        instance.incarnation,
        evidence_json(instance.last_error),
        instance.node_id,
        instance.epoch,
    )


def labels_json(instance: Instance) -> str:
    """JSON text of the labels.

    Raises:
        InvalidRequest: the database cannot hold a character of it.
    """
    return exact_json(instance.labels, "/labels")


def spec_row(instance: Instance, box: SecretBox) -> tuple[Any, ...]:
    """Values of `SPEC_COLUMNS`; the environment is encrypted.

    Raises:
        InvalidRequest: the database cannot hold a character of it.
    """
    spec = instance.spec
    env = json.dumps(dict(spec.env)).encode()
    return (
        instance.id,
        spec.revision,
        spec.source_type.value,
        spec.language,
        None if spec.command is None else exact_json(attrs.asdict(spec.command), "/mcp_config"),
        None if spec.entry_point is None else exact_text(spec.entry_point, "/entry_point"),
        spec.source,
        box.encrypt(env, env_aad(instance.owner, instance.id, spec.revision)),
        exact_json(json_values.unstructure(spec.limits), "/limits"),
        exact_json(json_values.unstructure(spec.restart), "/restart"),
        spec.isolation,
        exact_json(spec.network, "/network"),
        spec.sessions,
        exact_text(spec.cause, "/cause"),
        None if spec.origin is None else exact_json(attrs.asdict(spec.origin), "/source_url"),
        exact_json(spec.dependencies, "/dependencies"),
        None if spec.build_command is None else exact_text(spec.build_command, "/build_command"),
        None if spec.resolved is None else resolved_json(spec.resolved),
        exact_json([attrs.asdict(mount) for mount in spec.mounts], "/mounts"),
    )


def resolved_json(resolved: Resolved) -> str:
    """JSON text of what a build found.

    Raises:
        InvalidRequest: the database cannot hold a character of it.
    """
    value = {"language": resolved.language, "entry_point": resolved.entry_point, "facts": dict(resolved.facts)}
    return exact_json(value, "/entry_point")
