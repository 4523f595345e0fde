"""A host that builds: real spawner, real tools, a folder that every user may enter."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field

from controlplane.config import Config
from controlplane.deploy.build.workplace import BuildHost
from controlplane.deploy.toolchain import build as build_toolchain
from controlplane.spawn.client import open_spawner
from controlplane.spawn.uids import open_uid_pool


@define
class Heard:
    """Who is told of progress, and remembers it."""

    phases: list[str] = field(factory=list)
    lines: list[str] = field(factory=list)

    def phase(self, phase: str, detail: str) -> None:
        self.phases.append(f"{phase}: {detail}")

    def output(self, line: bytes) -> None:
        self.lines.append(line.decode())


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
                config=Config(home=common_folder),
                spawner=spawner,
                uids=uids,
                toolchain=toolchain,
                environ={**os.environ, "SECRET_KEY": "not for builds"},
            )


def with_settings(host: BuildHost, **settings: Any) -> BuildHost:
    """The same host under another operator."""
    return evolve(host, config=evolve(host.config, **settings))
