"""The real Postgres and the real Valkey that Corral starts where no URL is given.

Both are jobs of class `service` under the spawner: stopped after everything
else, gone with the control plane, and started again at the same address should
they die. Refuses to import trio_asyncio: it knows addresses, not protocols.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from attrs import frozen

from controlplane.embedded import valkey as valkey_programs
from controlplane.embedded.binaries import find_postgres, find_valkey
from controlplane.embedded.postgres import (
    NO_BINARY,
    PASSWORD_FILE,
    PORT,
    Postgres,
    address,
    major_of,
    refuse_other_clusters,
)
from controlplane.embedded.service import EmbeddedFailed, Keeper
from controlplane.embedded.valkey import Valkey
from controlplane.home import PRIVATE_FOLDER

if TYPE_CHECKING:
    from controlplane.config import Config
    from controlplane.home import Home
    from controlplane.spawn.client import Spawner

__all__ = ["EmbeddedFailed", "Services", "open_services", "refuse_early", "running_database", "socket_folder"]

SOCKET_FOLDER = re.compile(r"[A-Za-z0-9/._-]{1,75}")
"""A unix socket's path may have 107 bytes, of which up to 28 come after this; and what separates words or hosts in a
setting or an address is not among them."""
ROOT_RUN = Path("/run/corral")


@frozen
class Services:
    """Where Postgres and Redis are; `embedded` names those that were started here."""

    database_url: str
    redis_url: str
    embedded: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Services(embedded={self.embedded})"  # the addresses hold passwords


@asynccontextmanager
async def open_services(config: Config, home: Home, spawner: Spawner) -> AsyncIterator[Services]:
    """Start what no URL is given for; yields once all of it serves, and stops it at the end.

    Raises:
        EmbeddedFailed: a service cannot be had; the message says what to do.
    """
    sockets = socket_folder(home.path)
    postgres = None if config.database_url else Postgres(spawner, home.embedded, sockets / "postgres")
    valkey = None if config.redis_url else Valkey(spawner, home.embedded, sockets / "valkey")
    keepers = [Keeper(service, spawner) for service in (postgres, valkey) if service is not None]
    failures: list[EmbeddedFailed] = []
    async with trio.open_nursery() as nursery:
        try:
            await _start(nursery, keepers, failures)
            if not failures:
                yield Services(
                    database_url=config.database_url or (postgres.url if postgres else ""),
                    redis_url=config.redis_url or (valkey.url if valkey else ""),
                    embedded=tuple(keeper.service.name for keeper in keepers),
                )
        finally:
            with trio.CancelScope(shield=True):  # bounded by each keeper's own limits
                await _stop(keepers)
    if failures:
        raise failures[0]  # outside the nursery, which would wrap it


def running_database(home: Path) -> str | None:
    """The address of the embedded Postgres of a control plane that runs on this home; None where none can be found.

    Raises:
        EmbeddedFailed, OSError: what leads to it cannot be read.
    """
    sockets = socket_folder(home) / "postgres"
    try:
        password = (home / "embedded" / PASSWORD_FILE).read_text().strip()
    except FileNotFoundError:
        return None
    return address(password, sockets) if (sockets / f".s.PGSQL.{PORT}").exists() else None


async def refuse_early(config: Config) -> None:
    """Whether a start would find programs that can open what is there.

    Raises:
        EmbeddedFailed: it would not.
    """
    if config.redis_url is None and find_valkey() is None:
        raise EmbeddedFailed(valkey_programs.NO_BINARY)
    if config.database_url is not None:
        return
    programs = find_postgres()
    if programs is None:
        raise EmbeddedFailed(NO_BINARY)
    told = await trio.run_process([programs / "postgres", "--version"], capture_stdout=True, check=False)
    refuse_other_clusters(config.home / "embedded", major_of(told.stdout))


async def _start(nursery: trio.Nursery, keepers: list[Keeper], failures: list[EmbeddedFailed]) -> None:
    async def start(keeper: Keeper) -> None:
        failure: EmbeddedFailed | None = await nursery.start(keeper.run)
        if failure is not None:
            failures.append(failure)

    async with trio.open_nursery() as starting:
        for keeper in keepers:
            starting.start_soon(start, keeper)


async def _stop(keepers: list[Keeper]) -> None:
    async with trio.open_nursery() as stopping:
        for keeper in keepers:
            stopping.start_soon(keeper.stop)


def socket_folder(home: Path) -> Path:
    """`run/` in the home; where its path will not do for a socket, another one that stays the same."""
    if SOCKET_FOLDER.fullmatch(str(home / "run")):
        return home / "run"
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    if os.geteuid() == 0:
        ROOT_RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
        return _private_folder(ROOT_RUN / name)
    return _private_folder(Path(tempfile.gettempdir()) / f"corral-{os.geteuid()}-{name}")


def _private_folder(folder: Path) -> Path:
    """Make it, or take it if it is ours alone: in a shared place somebody else may have made it first."""
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o066:
        raise EmbeddedFailed(f"{folder} is needed for sockets and is not this user's alone: remove it")
    return folder
