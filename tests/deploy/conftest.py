"""Instances to prepare, in a folder that every user may enter."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio

from controlplane.config import Config
from controlplane.deploy.prepare import HostPrepare
from controlplane.deploy.toolchain import Toolchain
from controlplane.model import Command, Instance, SourceType, Spec
from controlplane.spawn.uids import UidPool, open_uid_pool

NOW = datetime(2026, 11, 22, tzinfo=UTC)
TOOLS = Toolchain(path="/opt/corral/bin:/usr/bin:/bin", tools={"python": "/usr/bin/python3", "node": None, "npx": None})


class Quiet:
    """Nobody is told."""

    def phase(self, phase: str, detail: str) -> None:
        pass

    def output(self, line: bytes) -> None:
        pass

    async def begin_work(self, turn: Callable[[], Awaitable[None]] | None = None) -> None:
        await (turn() if turn is not None else trio.lowlevel.checkpoint())


def instance_of(spec: Spec, **members: Any) -> Instance:
    return Instance(id=uuid4(), owner="ada", name="cow", spec=spec, created_at=NOW, updated_at=NOW, **members)


def direct(source: bytes = b"print('moo')\n", **members: Any) -> Instance:
    """An instance of one file."""
    spec = Spec(source_type=SourceType.DIRECT, language="python", entry_point="server.py", source=source, **members)
    return instance_of(spec)


def command(*argv: str, cwd: str | None = None, **members: Any) -> Instance:
    """An instance of a command."""
    launch = Command(command=argv[0], args=argv[1:], cwd=cwd)
    return instance_of(Spec(source_type=SourceType.MCP_CONFIG, language="binary", command=launch, **members))


def host(folder: Path, uids: UidPool, *, private_tmp: bool = True, **options: Any) -> HostPrepare:
    """Preparing in `folder/instances`."""
    instances = folder / "instances"
    instances.mkdir(mode=0o711, exist_ok=True)
    config = Config(home=folder, **options)
    return HostPrepare(config, instances, TOOLS, uids, private_tmp, {"HTTPS_PROXY": "http://proxy:3128", "SECRET": "x"})


@pytest.fixture
def uids() -> Iterator[UidPool]:
    with open_uid_pool() as pool:
        yield pool


@pytest.fixture
def common_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="corral-test-", dir="/var/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def prepare(common_folder: Path, uids: UidPool) -> HostPrepare:
    return host(common_folder, uids)
