"""A home with a running spawner, in a place whose path is short enough for sockets."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from controlplane.config import Config
from controlplane.embedded import Services, open_services
from controlplane.home import Home, open_home
from controlplane.spawn.client import Spawner, open_spawner


@frozen
class Life:
    """One life of a control plane, as far as it is needed here."""

    home: Home
    spawner: Spawner
    services: Services


@asynccontextmanager
async def open_life(folder: Path, **settings: Any) -> AsyncIterator[Life]:
    config = Config(home=folder, **settings)
    with open_home(config) as home:
        async with open_spawner(marker=home.owner_id) as spawner:
            async with open_services(config, home, spawner) as services:
                yield Life(home, spawner, services)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="corral-test-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made / "home"
    shutil.rmtree(made, ignore_errors=True)
