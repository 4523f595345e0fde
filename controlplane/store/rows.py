"""Rows of the database <-> the nouns of `model`; pure but for the secret box.

Columns are written by name, so their order in a table means nothing. JSON columns
are read leniently: a member that a later version wrote is ignored, one that an
earlier version did not know takes its default.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import attrs
import cattrs
import msgspec
from cattrs.preconf.json import make_converter

from controlplane.core.lifecycle import Desired, State
from controlplane.core.restart import RestartPolicy
from controlplane.errors import FieldError, InvalidRequest
from controlplane.model import (
    Command,
    Evidence,
    Instance,
    Limits,
    Role,
    SourceType,
    Spec,
    Token,
    User,
)
from controlplane.store.base import Idempotency
from controlplane.store.text import JSON_MAX_BYTES, cut_line, is_clean, json_text

if TYPE_CHECKING:
    from controlplane.secretbox import SecretBox

Row = Mapping[str, Any]

_json: cattrs.Converter = make_converter()

EVIDENCE_MAX_CHARS = JSON_MAX_BYTES // 4
"""A larger post-mortem is shortened; in bytes it may be four times as much."""
SHORT_TAIL_LINES = 20
SHORT_LINE_BYTES = 1024

INSTANCE_COLUMNS = (
    "id, owner, name, language, created_at, updated_at, desired, state, phase, revision, labels, uid, ever_ran, "
    "restarts, incarnation, last_error"
)
SPEC_COLUMNS = (
    "instance_id, revision, created_at, source_type, language, command, entry_point, source, env, limits, restart, "
    "isolation, network, sessions"
)


def user_of(row: Row) -> User:
    """A user from its row."""
    return User(name=row["name"], role=Role(row["role"]), disabled=row["disabled"], created_at=row["created_at"])


def token_of(row: Row) -> Token:
    """A token from its row."""
    return Token(
        id=uuid_of(row["id"]),
        owner=row["owner"],
        name=row["name"],
        role=Role(row["role"]),
        digest=row["digest"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )


def idempotency_of(row: Row) -> Idempotency:
    """An idempotency key from its row."""
    return Idempotency(
        owner=row["owner"],
        key=row["key"],
        body_digest=row["body_digest"],
        instance_id=uuid_of(row["instance_id"]),
        created_at=row["created_at"],
    )


def instance_of(row: Row, box: SecretBox) -> Instance:
    """An instance from its row joined with the row of its current spec (columns prefixed `spec_`).

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
    )


def _spec_of(row: Row, box: SecretBox) -> Spec:
    command = row["spec_command"]
    sealed = box.decrypt(row["spec_env"], env_aad(row["owner"], uuid_of(row["id"]), row["revision"]))
    return Spec(
        revision=row["revision"],
        source_type=SourceType(row["spec_source_type"]),
        language=row["spec_language"],
        command=None if command is None else _json.structure(json.loads(command), Command),
        entry_point=row["spec_entry_point"],
        source=row["spec_source"],
        env=json.loads(sealed),
        limits=_json.structure(json.loads(row["spec_limits"]), Limits),
        restart=_json.structure(json.loads(row["spec_restart"]), RestartPolicy),
        isolation=row["spec_isolation"],
        network=json.loads(row["spec_network"]),
        sessions=row["spec_sessions"],
    )


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
        _exact_json(instance.labels, "/labels"),
        instance.uid,
        instance.ever_ran,
        instance.restarts,
        instance.incarnation,
        evidence_json(instance.last_error),
    )


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
        instance.updated_at,
        spec.source_type.value,
        spec.language,
        None if spec.command is None else _exact_json(attrs.asdict(spec.command), "/mcp_config"),
        None if spec.entry_point is None else _exact(spec.entry_point, "/entry_point"),
        spec.source,
        box.encrypt(env, env_aad(instance.owner, instance.id, spec.revision)),
        _exact_json(_json.unstructure(spec.limits), "/limits"),
        _exact_json(_json.unstructure(spec.restart), "/restart"),
        spec.isolation,
        _exact_json(spec.network, "/network"),
        spec.sessions,
    )


def _exact_json(value: Any, pointer: str) -> str:
    """JSON text of something that must come back as it was: refused rather than cleaned."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        raise _unstorable(pointer) from None
    if "\\u0000" in text and "\x00" in "".join(_strings(value)):
        raise _unstorable(pointer)
    return text


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for part in pair for text in _strings(part)]
    if isinstance(value, (list, tuple)):
        return [text for member in value for text in _strings(member)]
    return []


def _exact(text: str, pointer: str) -> str:
    if not is_clean(text):
        raise _unstorable(pointer)
    return text


def _unstorable(pointer: str) -> InvalidRequest:
    message = "holds a NUL or an unpaired surrogate, which cannot be kept"
    return InvalidRequest(f"{pointer} {message}", errors=(FieldError(pointer, message),))


def evidence_json(evidence: Evidence | None) -> str | None:
    """JSON text of a post-mortem; one that is too large loses its frames and long lines, never its reason."""
    if evidence is None:
        return None
    text = json_text(_json.unstructure(evidence), max_bytes=sys.maxsize)
    if len(text) <= EVIDENCE_MAX_CHARS:
        return text
    tail = tuple(cut_line(line, SHORT_LINE_BYTES) for line in evidence.stderr_tail[-SHORT_TAIL_LINES:])
    short = attrs.evolve(evidence, reason=cut_line(evidence.reason), stderr_tail=tail, last_frames=())
    return json_text(_json.unstructure(short))


def evidence_of(text: str | None) -> Evidence | None:
    """Evidence from its column; what cannot be read as such still yields its reason."""
    if text is None:
        return None
    value = json.loads(text)
    try:
        return _json.structure(value, Evidence)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError):
        reason = str(value.get("reason", value.get("cut", "")))
        return Evidence(code="unreadable", reason=reason, phase="", at=datetime.fromtimestamp(0, UTC))


def uuid_of(value: Any) -> UUID:
    """A plain UUID: asyncpg's own subclass pickles and prints differently."""
    return UUID(bytes=value.bytes)
