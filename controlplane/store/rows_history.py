"""Rows of history <-> log lines, samples, events, the audit log, incarnations; pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from controlplane.model import Incarnation, LogLine, Sample
from controlplane.store.rows import Row, evidence_json, evidence_of, uuid_of
from controlplane.store.text import clean_text
from controlplane.store.values import AuditRow, NamedEvent, StoredAudit, StoredEvent

if TYPE_CHECKING:
    from uuid import UUID


def log_of(row: Row) -> LogLine:
    """A log line from its row."""
    return LogLine(
        instance_id=uuid_of(row["instance_id"]),
        at=row["timestamp"],
        level=row["log_level"],
        stream=row["stream"],
        incarnation=row["incarnation"],
        message=row["message"],
        sanitized=row["sanitized"],
    )


LOG_COLUMNS = ("instance_id", "log_level", "message", "timestamp", "stream", "incarnation", "sanitized")
LEVEL_MAX_CHARS = 16


def log_row(line: LogLine) -> tuple[Any, ...]:
    """Values of `LOG_COLUMNS`, cleaned."""
    message, changed = clean_text(line.message)
    level = clean_text(line.level)[0][:LEVEL_MAX_CHARS]
    return line.instance_id, level, message, line.at, line.stream, line.incarnation, line.sanitized or changed


def sample_of(row: Row) -> Sample:
    """A sample from its row, or from a fold of several."""
    return Sample(
        at=row["timestamp"],
        cpu_percent=row["cpu_usage"],
        memory_mb=row["memory_usage"],
        processes=row["processes"],
        open_files=row["open_files"],
        calls=row["calls"],
        errors=row["errors"],
        p50_ms=row["p50_ms"],
        p95_ms=row["p95_ms"],
        disk_mb=row["disk_mb"],
    )


METRIC_COLUMNS = (
    "instance_id",
    "cpu_usage",
    "memory_usage",
    "timestamp",
    "processes",
    "open_files",
    "calls",
    "errors",
    "p50_ms",
    "p95_ms",
    "disk_mb",
)


def sample_row(instance_id: UUID, sample: Sample) -> tuple[Any, ...]:
    """Values of `METRIC_COLUMNS`."""
    return (
        instance_id,
        sample.cpu_percent,
        sample.memory_mb,
        sample.at,
        sample.processes,
        sample.open_files,
        sample.calls,
        sample.errors,
        sample.p50_ms,
        sample.p95_ms,
        sample.disk_mb,
    )


def event_of(row: Row) -> StoredEvent:
    """An event from its row."""
    instance_id = row["instance_id"]
    return StoredEvent(
        id=row["id"],
        at=row["timestamp"],
        type=row["type"],
        instance_id=None if instance_id is None else uuid_of(instance_id),
        owner=row["owner"],
        data=json.loads(row["data"]),
    )


def named_event_of(row: Row) -> NamedEvent:
    """An event from its row, with the instance's name."""
    return NamedEvent(event_of(row), row["name"])


AUDIT_COLUMNS = (
    "timestamp",
    "actor",
    "credential",
    "address",
    "action",
    "target",
    "owner",
    "status",
    "request_id",
    "count",
)


def audit_row(row: AuditRow) -> tuple[Any, ...]:
    """Values of `AUDIT_COLUMNS`, cleaned; names and ids of Corral's own need it not."""
    return (
        row.at,
        row.actor,
        row.credential,
        clean_text(row.address)[0],
        row.action,
        clean_text(row.target)[0],
        row.owner,
        row.status,
        row.request_id,
        row.count,
    )


def audit_of(row: Row) -> StoredAudit:
    """A row of the audit log, with the instance's name."""
    members = {column: row[column] for column in AUDIT_COLUMNS if column != "timestamp"}
    return StoredAudit(AuditRow(at=row["timestamp"], **members), row["name"])


def incarnation_of(row: Row) -> Incarnation:
    """A process from its row."""
    return Incarnation(
        instance_id=uuid_of(row["instance_id"]),
        number=row["number"],
        pid=row["pid"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        exit_code=row["exit_code"],
        signal=row["signal"],
        evidence=evidence_of(row["post_mortem"]),
        revision=row["revision"],
    )


def incarnation_row(incarnation: Incarnation) -> tuple[Any, ...]:
    """Values in the order of the columns of mcp_incarnations."""
    return (
        incarnation.instance_id,
        incarnation.number,
        incarnation.pid,
        incarnation.started_at,
        incarnation.ended_at,
        incarnation.exit_code,
        incarnation.signal,
        evidence_json(incarnation.evidence),
        incarnation.revision,
    )
