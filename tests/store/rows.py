"""Values for the store's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import attrs
import trio_asyncio

from controlplane.core.restart import RestartMode, RestartPolicy
from controlplane.model import (
    Command,
    Evidence,
    Incarnation,
    Instance,
    Limits,
    Listing,
    LogLine,
    Mount,
    Origin,
    Resolved,
    Role,
    Sample,
    Section,
    SourceType,
    Spec,
    Token,
    User,
)
from controlplane.store.pool import connect
from controlplane.store.postgres import unwrapped
from controlplane.store.values import AuditRow, EventRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

ADA = User(name="ada", role=Role.ADMIN)
SECRET_KEY = "a secret key of thirty-two bytes or more"

FULL_SPEC = Spec(
    revision=7,
    source_type=SourceType.DIRECT,
    language="python",
    command=Command(command="python", args=("-m", "server", "ünï\\u0000"), cwd="/srv"),
    entry_point="server.py",
    source=bytes(range(256)),
    cause="rollback to 3",
    origin=Origin(url="https://example.com/ünï.git", ref="v1", subdir="server", sha256="ab" * 32, size_bytes=7),
    dependencies=("mcp", "httpx>=0.27"),
    build_command="make all",
    resolved=Resolved(language="python", entry_point="server.py", facts={"commit": "c0ffee"}),
    env={"API_KEY": "p\u00e4ss", "EMPTY": "", "SURROGATE": "\udc80"},
    limits=Limits(memory_mb=64, cpu_percent=150, disk_mb=9, processes=5, open_files=77, call_timeout_s=1.5),
    restart=RestartPolicy(mode=RestartMode.ALWAYS, burst=2, window_s=30.5, base_delay_s=0.25, max_delay_s=4.0),
    isolation="confined",
    network={"mode": "allow", "hosts": ["example.com"]},
    mounts=(Mount(source="/srv/döcs", target="/docs", writable=True), Mount(source="/srv/a", target="/a")),
    sessions="per-session",
)
"""No field of it has its default."""

T = TypeVar("T")


def now() -> datetime:
    return datetime.now(UTC)


def ago(**spans: float) -> datetime:
    return now() - timedelta(**spans)


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


def token(name: str = "ci", owner: str = "ada", **changes: Any) -> Token:
    base = Token(id=uuid4(), owner=owner, name=name, role=Role.CALLER, digest=uuid4().bytes * 2, created_at=now())
    return attrs.evolve(base, **changes)


def line(instance_id: UUID, message: str = "hello", **changes: Any) -> LogLine:
    base = LogLine(instance_id=instance_id, at=now(), level="info", stream="stderr", incarnation=1, message=message)
    return attrs.evolve(base, **changes)


def sample(**changes: Any) -> Sample:
    return attrs.evolve(Sample(at=now(), cpu_percent=12.5, memory_mb=64.0, processes=3), **changes)


def event(instance_id: UUID | None, data: str = "{}", **changes: Any) -> EventRow:
    base = EventRow(at=now(), type="status", instance_id=instance_id, owner="ada", data=data)
    return attrs.evolve(base, **changes)


def audit_row(target: str = "", **changes: Any) -> AuditRow:
    base = AuditRow(
        at=now(),
        actor="ada",
        credential=str(uuid4()),
        address="192.0.2.7",
        action="patchUser",
        target=target,
        owner="ada",
        status=200,
        request_id="abc-1",
    )
    return attrs.evolve(base, **changes)


def evidence(**changes: Any) -> Evidence:
    base = Evidence(code="crash", reason="it exited with status 3", phase="running", at=now(), stderr_tail=("boom",))
    return attrs.evolve(base, **changes)


def incarnation(instance_id: UUID, number: int = 1, **changes: Any) -> Incarnation:
    return attrs.evolve(Incarnation(instance_id=instance_id, number=number, pid=4711, started_at=now()), **changes)


def listing(instance_id: UUID, items: bytes = b'[{"name":"echo"}]', section: Section = Section.TOOLS) -> Listing:
    return Listing(instance_id=instance_id, section=section, items=items, digest=sha256(items).digest(), seen_at=now())


async def on_connection(url: str, work: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
    """Run asyncio's `work(connection, …)` on a connection of its own."""

    async def alone() -> T:
        connection = await connect(url)
        try:
            return await work(connection, *args, **kwargs)
        finally:
            connection.terminate()

    with unwrapped():
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(lambda *_: None)
            result: T = await trio_asyncio.aio_as_trio(alone)()
        return result
