"""Rows of the database <-> the nouns of `model`; pure. Those of instances are in `rows_instances`.

Columns are written by name, so their order in a table means nothing. JSON columns
are read leniently: a member that a later version wrote is ignored, one that an
earlier version did not know takes its default.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import attrs
import cattrs
from cattrs.preconf.json import make_converter

from controlplane.core.quotas import Overrides
from controlplane.model import Evidence, Role, Token, User
from controlplane.store.text import JSON_MAX_BYTES, cut_line, json_text
from controlplane.store.values import Idempotency

Row = Mapping[str, Any]

json_values: cattrs.Converter = make_converter()
"""Members of JSON columns <-> the nouns of `model`."""

EVIDENCE_MAX_CHARS = JSON_MAX_BYTES // 4
"""A larger post-mortem is shortened; in bytes it may be four times as much."""
SHORT_TAIL_LINES = 20
SHORT_LINE_BYTES = 1024
SHORT_SAMPLES = 10
"""Of one that is shortened: how it went at the end."""


def user_of(row: Row) -> User:
    """A user from its row."""
    return User(
        name=row["name"],
        role=Role(row["role"]),
        disabled=row["disabled"],
        created_at=row["created_at"],
        quotas=json_values.structure(json.loads(row["quotas"]), Overrides),
    )


def quotas_json(quotas: Overrides) -> str:
    """JSON text of what was said for one user."""
    return json_text({name: value for name, value in json_values.unstructure(quotas).items() if value is not None})


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
        instances=None if row["instances"] is None else frozenset(map(uuid_of, row["instances"])),
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


def evidence_json(evidence: Evidence | None) -> str | None:
    """JSON text of a post-mortem; one that is too large loses its frames and long lines, never its reason."""
    if evidence is None:
        return None
    text = json_text(json_values.unstructure(evidence), max_bytes=sys.maxsize)
    if len(text) <= EVIDENCE_MAX_CHARS:
        return text
    tail = tuple(cut_line(line, SHORT_LINE_BYTES) for line in evidence.stderr_tail[-SHORT_TAIL_LINES:])
    samples = evidence.samples[-SHORT_SAMPLES:]
    short = attrs.evolve(evidence, reason=cut_line(evidence.reason), stderr_tail=tail, last_frames=(), samples=samples)
    return json_text(json_values.unstructure(short))


def evidence_of(text: str | None) -> Evidence | None:
    """Evidence from its column; what cannot be read as such still yields its reason."""
    if text is None:
        return None
    value = json.loads(text)
    try:
        return json_values.structure(value, Evidence)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError):
        reason = str(value.get("reason", value.get("cut", "")))
        return Evidence(code="unreadable", reason=reason, phase="", at=datetime.fromtimestamp(0, UTC))


def uuid_of(value: Any) -> UUID:
    """A plain UUID: asyncpg's own subclass pickles and prints differently."""
    return UUID(bytes=value.bytes)
