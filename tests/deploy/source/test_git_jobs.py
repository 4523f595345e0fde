"""A repository fetched as it is in earnest: by confined jobs of a user of their own, within a build's limits."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from attrs import evolve

from controlplane.deploy.build.workplace import BuildHost, Workplace, open_workplace
from controlplane.deploy.source.address import Egress
from controlplane.deploy.source.git import Fetched, fetch
from controlplane.deploy.source.giturl import read_repository
from controlplane.errors import SourceRejected
from tests.deploy.build.conftest import Heard, with_settings
from tests.deploy.source.https_server import Authority, Handler, Names, Server
from tests.deploy.source.test_git import Work, make_work

pytestmark = pytest.mark.needs("git")

WAIT_S = 60.0


@pytest.fixture
def work(tmp_path: Path, server: Server) -> Work:
    return make_work(tmp_path / "work", server.repositories / "r.git")


@pytest.fixture
async def workplace(
    common_folder: Path, build_host: BuildHost, heard: Heard, egress: Egress
) -> AsyncIterator[Workplace]:
    folder = common_folder / "work"
    folder.mkdir()
    host = evolve(with_settings(build_host, max_disk_usage_mb=16), environ={**build_host.environ, **egress.environ})
    async with open_workplace(host, folder, heard) as place:
        yield place


@pytest.fixture
def egress(common_folder: Path, authority: Authority) -> Egress:
    ca = shutil.copy(authority.ca, common_folder / "ca.pem")
    ca.chmod(0o644)
    return Egress(allow_private=True, resolver=Names(), environ={"SSL_CERT_FILE": str(ca)})


async def _fetch(server: Server, egress: Egress, workplace: Workplace, timeout_s: float = WAIT_S) -> Fetched:
    with trio.fail_after(WAIT_S + 10):
        return await fetch(read_repository(server.url("r.git")), egress, workplace.run, timeout_s=timeout_s)


async def test_a_repository_arrives_as_the_jobs_users_files(
    work: Work, server: Server, egress: Egress, workplace: Workplace, heard: Heard
) -> None:
    (work.folder / "passwd").symlink_to("/etc/passwd")
    commit = work.commit(server_py="print()")
    found = await _fetch(server, egress, workplace)
    assert found.commit == commit
    assert "passwd" in found.notes[0]
    assert {path.name for path in workplace.tree.iterdir()} == {"server_py", "passwd"}
    if workplace.uid is not None:
        assert (workplace.tree / "server_py").stat().st_uid == workplace.uid
    assert "build: fetch the commit" in heard.phases


async def test_a_pack_that_outgrows_the_builds_disk_is_refused(
    work: Work, server: Server, egress: Egress, workplace: Workplace
) -> None:
    (work.folder / "big").write_bytes(os.urandom(20 * 2**20))
    work.commit(a="1")
    with pytest.raises(SourceRejected, match="too large"):
        await _fetch(server, egress, workplace)


async def test_nothing_of_git_runs_on_after_a_server_that_drips_was_given_up(
    server: Server, egress: Egress, workplace: Workplace
) -> None:
    cut = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "application/x-git-upload-pack-advertisement")
        handler.send_header("content-length", "1000000")
        handler.end_headers()
        try:
            while not server.ended.wait(0.05):
                handler.wfile.write(b"0")
        except OSError:
            trio.from_thread.run_sync(cut.set, trio_token=token)

    server.pages["r.git"] = drip
    with pytest.raises(SourceRejected, match="took more than 2 s"):
        await _fetch(server, egress, workplace, timeout_s=2)
    with trio.fail_after(WAIT_S):
        await cut.wait()
    assert workplace.host.spawner.statistics().jobs == 0
