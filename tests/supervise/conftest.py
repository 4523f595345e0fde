"""A yard in which real instances run: real spawner, real processes; only the database is left out."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import trio
from attrs import define, field

from controlplane.config import Config
from controlplane.core.lifecycle import Desired
from controlplane.deploy.prepare import HostPrepare
from controlplane.deploy.toolchain import build
from controlplane.hub import Hub
from controlplane.model import Incarnation, Instance, Listing, LogLine, Sample, Section, SourceType, Spec
from controlplane.spawn.client import open_spawner
from controlplane.spawn.uids import open_uid_pool
from controlplane.supervise.listpages import offered
from controlplane.supervise.runner import Runner, Surroundings
from controlplane.supervise.scheduler import StartScheduler
from controlplane.supervise.supervisor import Supervisor
from tests import servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


LISTED_S = 2.0
"""For a server to list its tools; some never do."""


@define
class MemoryJournal:
    """Keeps what it is given."""

    logs: list[LogLine] = field(factory=list)
    samples: list[tuple[UUID, Sample]] = field(factory=list)
    observed: list[Instance] = field(factory=list)
    incarnations: list[Incarnation] = field(factory=list)
    listings: list[Listing] = field(factory=list)

    def log(self, line: LogLine) -> None:
        self.logs.append(line)

    def sample(self, instance_id: UUID, sample: Sample) -> None:
        self.samples.append((instance_id, sample))

    def observe(self, instance: Instance, *, phase: str = "") -> None:
        self.observed.append(instance)

    def incarnation(self, incarnation: Incarnation) -> None:
        self.incarnations.append(incarnation)

    def event(self, event: Any) -> None:
        pass

    def listing(self, listing: Listing) -> None:
        self.listings.append(listing)

    def messages(self, stream: str | None = None) -> list[str]:
        return [line.message for line in self.logs if stream in (None, line.stream)]


@define
class WishBook:
    """The part of a store that the supervisor writes to."""

    desired: dict[UUID, Desired] = field(factory=dict)

    async def set_desired(
        self, instance_id: UUID, desired: Desired, *, memory_mb: int = 0, epoch: int | None = None
    ) -> None:
        self.desired[instance_id] = desired

    async def delete_instance(self, instance_id: UUID, *, epoch: int | None = None) -> None:
        self.desired[instance_id] = Desired.DELETED


@define
class Yard:
    """Deploy and look."""

    supervisor: Supervisor
    journal: MemoryJournal
    wishes: WishBook
    hub: Hub
    around: Surroundings
    folder: Path

    def deploy(self, source: bytes, *, language: str = "python", name: str | None = None, **spec: Any) -> Runner:
        entry_point = "server.js" if language == "node" else "server.py"
        now = datetime.now(UTC)
        instance = Instance(
            id=uuid4(),
            owner="ada",
            name=name or f"s{secrets.token_hex(4)}",
            spec=Spec(source_type=SourceType.DIRECT, language=language, entry_point=entry_point, source=source, **spec),
            created_at=now,
            updated_at=now,
        )
        return self.supervisor.adopt(instance)

    async def running(self, source: bytes, **options: Any) -> Runner:
        """Deploy and wait until it serves, and Corral has asked it what it wants to know."""
        runner = self.deploy(source, **options)
        await runner.wait_settled(30)
        assert runner.serving, (runner.phase, runner.instance.last_error)
        assert runner.protocol is not None
        with trio.move_on_after(LISTED_S):
            while Section.TOOLS in offered(runner.protocol) and not runner.catalogue.is_fresh(Section.TOOLS):
                await trio.sleep(0.005)
        return runner


@pytest.fixture(scope="session")
def yard_folder() -> Iterator[Path]:
    """Not below pytest's own folder: instances run as other users and must be able to get here."""
    folder = Path(tempfile.mkdtemp(prefix="corral-yard-", dir="/var/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def toolchain(yard_folder: Path) -> Any:
    return build(yard_folder / "runtimes", by_others=os.geteuid() == 0, host_path=os.environ["PATH"])


@asynccontextmanager
async def open_yard(folder: Path, toolchain: Any, *, with_groups: bool = False, **settings: Any) -> AsyncIterator[Yard]:
    config = Config(home=folder, **settings)
    instances = folder / "instances"
    instances.mkdir(mode=0o711, exist_ok=True)
    instances.chmod(0o711)
    with open_uid_pool() as uids:
        async with open_spawner(marker=secrets.token_hex(8), uids=uids) as spawner:
            journal, wishes, hub = MemoryJournal(), WishBook(), Hub(config.buffer_max_mb * 2**20)
            groups = spawner.features.hierarchy if with_groups else None
            private_tmp = spawner.features.private_tmp
            around = Surroundings(
                config=config,
                version="0.0.test",
                spawner=spawner,
                prepare=HostPrepare(
                    config, instances, toolchain, uids, private_tmp, dict(os.environ), hierarchy=groups
                ),
                scheduler=StartScheduler(config.start_concurrency),
                journal=journal,
                hub=hub,
                groups=groups,
            )
            async with trio.open_nursery() as nursery:
                supervisor = Supervisor(around, wishes, nursery)
                yield Yard(supervisor, journal, wishes, hub, around, folder)
                await supervisor.stop_all()
            assert spawner.statistics().orphans == 0


@pytest.fixture
async def yard(yard_folder: Path, toolchain: Any) -> AsyncIterator[Yard]:
    with trio.fail_after(120):
        async with open_yard(yard_folder, toolchain) as opened:
            yield opened


@pytest.fixture(scope="session")
def echo() -> bytes:
    return servers.source("echo.py")
