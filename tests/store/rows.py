"""Values for the store's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import attrs

from controlplane.model import Command, Evidence, Instance, LogLine, Role, Sample, SourceType, Spec, User

ADMIN = User(name="ada", role=Role.ADMIN)


def now() -> datetime:
    return datetime.now(UTC)


def spec(**changes: Any) -> Spec:
    base = Spec(
        source_type=SourceType.MCP_CONFIG,
        language="node",
        command=Command(command="npx", args=("-y", "@modelcontextprotocol/server-memory"), cwd="/tmp"),
        env={"API_KEY": "planted-secret"},
    )
    return attrs.evolve(base, **changes)


def instance(name: str = "memory", owner: str = "ada", **changes: Any) -> Instance:
    at = now()
    base = Instance(id=uuid4(), owner=owner, name=name, spec=spec(), created_at=at, updated_at=at)
    return attrs.evolve(base, **changes)


def line(instance_id: UUID, message: str = "hello", **changes: Any) -> LogLine:
    base = LogLine(instance_id=instance_id, at=now(), level="info", stream="stderr", incarnation=1, message=message)
    return attrs.evolve(base, **changes)


def sample(**changes: Any) -> Sample:
    return attrs.evolve(Sample(at=now(), cpu_percent=12.5, memory_mb=64.0, processes=3), **changes)


def evidence(**changes: Any) -> Evidence:
    base = Evidence(code="crash", reason="it exited with status 3", phase="running", at=now(), stderr_tail=("boom",))
    return attrs.evolve(base, **changes)


def later(at: datetime, seconds: float) -> datetime:
    return at + timedelta(seconds=seconds)
