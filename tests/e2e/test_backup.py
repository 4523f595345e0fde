"""A backup made while everything runs, restored elsewhere: all of it is back; or nothing is, with the reason."""

from __future__ import annotations

import copy
import gzip
import os
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.backup import postgres
from controlplane.embedded import running_database
from tests.e2e.plane import Plane, open_plane
from tests.e2e.sources import tar_of
from tests.e2e.test_takeover import FLEET, Traffic, assert_kept
from tests.servers import source
from tests.services import *  # noqa: F403 -- fixtures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.services import Postgres

KEEPER = b"""
import json, os, sys

for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    elif message.get("method") == "tools/call":
        path = os.path.expanduser("~/kept")
        said = message["params"]["arguments"].get("text")
        if said:
            open(path, "w").write(said)
        text = open(path).read() + " " + os.environ["SECRET"]
        result = {"content": [{"type": "text", "text": text}]}
    else:
        result = {}
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""
LIMIT_S = 120
"""For one run of the command line; a restore makes a database and fills it, in about 3 s."""


def run(plane: Plane, *arguments: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """The command line on a plane's home; a change to None takes a variable away."""
    environment = plane.environment | {name: value for name, value in changes.items() if value is not None}
    for name in (name for name, value in changes.items() if value is None):
        del environment[name]
    return subprocess.run(
        [sys.executable, "-m", "controlplane.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment,
        cwd=plane.folder,
        check=False,
    )


@pytest.fixture
def empty() -> Iterator[Plane]:
    """A control plane to be, without a home."""
    with open_plane(first_start=True) as plane:
        yield plane


@pytest.fixture(scope="module")
def original() -> Iterator[Plane]:
    """One with something of everything: a secret, an upload, what a server keeps, history, a user and a token."""
    with open_plane() as plane:
        plane.start()
        assert plane.request("PUT", "/secrets/KEPT", json={"value": "planted-value"}).status_code in (200, 201)
        plane.deploy("keeper", KEEPER, environment_vars={"SECRET": "${secret:KEPT}"})
        assert plane.tool("keeper", "keep", text="remembered") == "remembered planted-value"
        archive = plane.folder / "echo.tar"
        archive.write_bytes(tar_of({"server.py": source("echo.py")}))
        done = plane.corral("deploy", "uploaded", str(archive))
        assert done.returncode == 0, done.stderr
        assert [path for path in (plane.home / "uploads").rglob("*") if path.is_file()]
        assert plane.request("POST", "/users", json={"name": "bob", "role": "viewer"}).status_code == 201
        assert plane.request("POST", "/instances/uploaded/stop").status_code in (200, 202)
        yield plane


@pytest.fixture(scope="module")
def archive(original: Plane) -> Path:
    path = original.folder / "corral.tar.gz"
    done = run(original, "backup", "--data", str(path))
    assert done.returncode == 0, done.stderr
    assert "schema" in done.stderr
    return path


def test_everything_is_back_in_another_home_and_the_original_went_on(
    original: Plane, archive: Path, empty: Plane, figure: Callable[..., None]
) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert not list((original.home / ".backup").iterdir())
    figure("size of the backup", archive.stat().st_size / 1024, "KiB")

    began = time.monotonic()
    done = run(empty, "restore", str(archive), ADMIN_TOKEN=None)
    figure("restored after", time.monotonic() - began, "s")
    assert done.returncode == 0, done.stderr
    assert {stat.S_IMODE((empty.home / name).stat().st_mode) for name in ("secret-key", "credentials")} == {0o600}
    assert (empty.home / "owner-id").read_text() != (original.home / "owner-id").read_text()

    empty.token = original.token
    empty.settings = {**empty.settings, "ADMIN_TOKEN": ""}  # it is in the backup
    empty.start()
    empty.wait_status("keeper", "running")
    assert empty.tool("keeper", "keep") == "remembered planted-value"
    assert empty.instance("uploaded")["status"] == "stopped"
    assert empty.request("POST", "/instances/uploaded/start?wait=60").status_code == 200
    assert empty.tool("uploaded", "echo", text="built anew") == "built anew"
    assert {row["name"] for row in empty.get("/users")["users"]} >= {"admin", "bob"}
    assert empty.get("/instances/keeper/events")["events"]
    assert original.tool("keeper", "keep") == "remembered planted-value"


def test_a_backup_through_a_pipe_is_the_same_and_holds_no_data_unless_asked(original: Plane, empty: Plane) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "controlplane.cli", "backup", "-"],
        capture_output=True,
        env=original.environment,
        cwd=original.folder,
        timeout=LIMIT_S,
        check=True,
    )
    assert b"instances/" not in gzip.decompress(made.stdout).replace(b"/instances/", b"")
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli", "restore", "-"],
        input=made.stdout,
        capture_output=True,
        env=empty.environment,
        cwd=empty.folder,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    empty.start()
    assert {row["name"] for row in empty.instances()} == {"keeper", "uploaded"}


def test_a_backup_made_under_load_holds_all_that_was_acknowledged_before_it(
    planes: Callable[..., Plane], empty: Plane, figure: Callable[..., None], tmp_path: Path
) -> None:
    plane = planes()
    for number in range(FLEET):
        plane.deploy(f"base{number}")
    with Traffic(plane) as traffic:
        traffic.wait_for_more()
        before = copy.copy(traffic)
        before.labels, before.deployed = dict(traffic.labels), list(traffic.deployed)
        before.tokens, before.secrets = list(traffic.tokens), list(traffic.secrets)
        began = time.monotonic()
        done = run(plane, "backup", str(tmp_path / "b"))
        figure("a backup under load took", time.monotonic() - began, "s")
        assert done.returncode == 0, done.stderr
        traffic.wait_for_more()
    assert not traffic.refused
    plane.stop()
    done = run(empty, "restore", str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    empty.token = plane.token
    empty.start()
    assert_kept(empty, before)
    for row in empty.instances():
        empty.request("DELETE", f"/instances/{row['name']}")


def test_what_cannot_be_restored_leaves_nothing(original: Plane, archive: Path, empty: Plane) -> None:
    whole = archive.read_bytes()
    damaged = empty.folder / "damaged"
    for data, words in ((whole[: len(whole) // 2], "not a whole one"), (b"x" * 1000, "no backup")):
        damaged.write_bytes(data)
        done = run(empty, "restore", str(damaged))
        assert (done.returncode, words in done.stderr) == (1, True), done.stderr
        assert set(os.listdir(empty.home)) <= {"lock"}

    done = run(original, "restore", str(archive))
    assert (done.returncode, "restore into another CORRAL_HOME" in done.stderr) == (1, True), done.stderr
    done = run(empty, "restore", str(archive), SECRET_KEY="k" * 40)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert set(os.listdir(empty.home)) <= {"lock"}

    assert run(empty, "restore", str(archive)).returncode == 0
    done = run(empty, "restore", str(archive))
    assert (done.returncode, "is not empty" in done.stderr) == (1, True), done.stderr


def test_a_restore_that_was_killed_is_told_of_and_begun_anew(archive: Path, empty: Plane) -> None:
    empty.home.mkdir()
    (empty.home / ".restore").mkdir()
    (empty.home / "secret-key").write_text("half")
    status = empty.begin().wait(60)
    assert (status, "half restored" in empty.log) == (78, True), empty.log
    assert run(empty, "restore", str(archive)).returncode == 0
    assert not (empty.home / ".restore").exists()


def test_a_backup_of_what_does_not_run_or_is_there_already_is_refused(
    original: Plane, archive: Path, empty: Plane
) -> None:
    done = run(original, "backup", str(archive))
    assert (done.returncode, "exists already" in done.stderr) == (1, True)
    done = run(empty, "backup", "x.tar.gz")
    assert (done.returncode, "no control plane's data" in done.stderr) == (1, True)
    assert list(empty.folder.glob("*x.tar.gz*")) == []


def test_the_documented_commands_back_up_an_external_database(
    original: Plane, postgres_server: Postgres, tmp_path: Path
) -> None:
    """pg_dump from one server, pg_restore into another: what docs/how-to/backup.md says for a Postgres of one's own."""
    url, name = running_database(original.home), postgres_server.new_database()
    assert url is not None
    try:
        postgres.dump(url, tmp_path / "corral.dump")
        postgres.load(postgres_server.url(name), tmp_path / "corral.dump")
        counted = "SELECT count(*) FROM mcp_instances"
        assert postgres.query(postgres_server.url(name), counted) == postgres.query(url, counted)
    finally:
        postgres_server.drop_database(name)


def test_a_home_with_an_external_database_is_backed_up_and_restored_with_it(
    postgres_server: Postgres, planes: Callable[..., Any], empty: Plane, tmp_path: Path
) -> None:
    first, second = postgres_server.new_database(), postgres_server.new_database()
    try:
        plane = planes(DATABASE_URL=postgres_server.url(first))
        plane.deploy("kept")
        assert run(plane, "backup", str(tmp_path / "b")).returncode == 0
        done = run(empty, "restore", str(tmp_path / "b"), DATABASE_URL=postgres_server.url(first))
        assert (done.returncode, "the database is not empty" in done.stderr) == (1, True), done.stderr
        done = run(empty, "restore", str(tmp_path / "b"), DATABASE_URL=postgres_server.url(second))
        assert done.returncode == 0, done.stderr
        empty.settings = {**empty.settings, "DATABASE_URL": postgres_server.url(second)}
        empty.start()
        empty.wait_status("kept", "running")
        plane.stop()
        empty.stop()
    finally:
        postgres_server.drop_database(first)
        postgres_server.drop_database(second)
