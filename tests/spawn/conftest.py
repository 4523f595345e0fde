"""A real spawner, and user ids of its own for every test."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio

from controlplane.spawn.client import Spawner, open_spawner
from controlplane.spawn.uids import UidPool, open_uid_pool


@pytest.fixture
def uids() -> Iterator[UidPool]:
    """The host's pool: other control planes and test runs are on this machine too."""
    with open_uid_pool() as pool:
        yield pool


@pytest.fixture
def uid(uids: UidPool) -> int | None:
    """A user for one instance; None outside root."""
    return uids.claim()


@pytest.fixture
def marker() -> str:
    return secrets.token_hex(8)


@pytest.fixture
async def spawner(marker: str, uids: UidPool) -> AsyncIterator[Spawner]:
    with trio.fail_after(60):
        async with open_spawner(marker=marker, uids=uids) as opened:
            yield opened


@pytest.fixture
def common_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="corral-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_folder(common_folder: Path, uid: int | None) -> Callable[[str], Path]:
    """Make a folder that belongs to the test's user."""

    def make(name: str) -> Path:
        folder = common_folder / name
        folder.mkdir(mode=0o700)
        if uid is not None:
            shutil.chown(folder, uid, uid)
        return folder

    return make
