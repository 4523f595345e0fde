"""A host that builds: real spawner, real tools, a folder that every user may enter."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pytest
import trio
from attrs import define, evolve, field

from controlplane.config import Config
from controlplane.deploy.build.opening import make_builds
from controlplane.deploy.build.workplace import BuildHost
from controlplane.deploy.installs.store import InstallStore
from controlplane.deploy.source.uploads import Uploads
from controlplane.deploy.toolchain import build as build_toolchain
from controlplane.spawn.client import open_spawner
from controlplane.spawn.uids import open_uid_pool

if TYPE_CHECKING:
    from controlplane.deploy.build.builds import Builds
    from controlplane.model import Instance, Resolved
    from controlplane.store.base import Store

BUILD_S = 120.0
"""A hang guard for one build from a slow registry."""


@define
class Heard:
    """Who is told of progress, and remembers it."""

    phases: list[str] = field(factory=list)
    lines: list[str] = field(factory=list)

    def phase(self, phase: str, detail: str) -> None:
        self.phases.append(f"{phase}: {detail}")

    def output(self, line: bytes) -> None:
        self.lines.append(line.decode())

    async def begin_work(self, turn: Callable[[], Awaitable[None]] | None = None) -> None:
        await (turn() if turn is not None else trio.lowlevel.checkpoint())


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def build_host(common_folder: Path) -> AsyncIterator[BuildHost]:
    toolchain = build_toolchain(
        common_folder / "runtimes", by_others=os.geteuid() == 0, host_path=os.environ.get("PATH", "")
    )
    with open_uid_pool() as uids:
        async with open_spawner(marker=secrets.token_hex(8), uids=uids) as spawner:
            yield BuildHost(
                config=Config(home=common_folder, auto_isolation="confined"),  # nobody keeps a gate here
                spawner=spawner,
                uids=uids,
                toolchain=toolchain,
                environ={**os.environ, "SECRET_KEY": "not for builds"},
            )


@define
class Records:
    """The part of a store that builds write to."""

    resolved: dict[tuple[UUID, int], Resolved] = field(factory=dict)

    async def set_resolved(self, instance_id: UUID, revision: int, resolved: Resolved) -> None:
        self.resolved[instance_id, revision] = resolved


@define
class Shop:
    """Builds on this machine, and what can be seen of them."""

    builds: Builds
    uploads: Uploads
    records: Records
    host: BuildHost
    heard: Heard = field(factory=Heard)

    async def build(self, instance: Instance) -> Any:
        with trio.fail_after(BUILD_S):
            return await self.builds.build(instance, self.heard)

    @property
    def jobs(self) -> int:
        """How many processes were ever started."""
        return self.host.spawner.statistics().spawned

    @property
    def staging(self) -> list[str]:
        return os.listdir(self.builds.store.disk.root / "staging")

    async def wait_empty(self) -> None:
        """Until no tool runs, and nothing half-made is left."""
        with trio.fail_after(BUILD_S):
            while self.staging or self.host.spawner.statistics().jobs:
                await trio.sleep(0.01)


@asynccontextmanager
async def open_shop(host: BuildHost, folder: Path) -> AsyncIterator[Shop]:
    async with trio.open_nursery() as nursery:
        store = await InstallStore.open(folder / "store", 2**30, nursery)
        records, uploads = Records(), Uploads(folder / "uploads")
        yield Shop(make_builds(host, store, uploads, cast("Store", records)), uploads, records, host)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def shop(build_host: BuildHost, common_folder: Path) -> AsyncIterator[Shop]:
    async with open_shop(build_host, common_folder) as opened:
        yield opened


def with_settings(host: BuildHost, **settings: Any) -> BuildHost:
    """The same host under another operator."""
    return evolve(host, config=evolve(host.config, **settings))
