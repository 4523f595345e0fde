"""Archives that come with a request: kept before anything is written, looked through, and thrown away with a request that fails."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane.deploy.inbox import ARCHIVE_MAX_BYTES
from controlplane.deploy.underway import UPLOADS_PER_OWNER
from controlplane.errors import (
    ArchiveRejected,
    Conflict,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    QuotaExceeded,
    RateLimited,
)
from controlplane.model import Origin, SourceType
from tests.deploy.farm import ADA, BOB, WAIT_S, Farm, open_farm
from tests.services import Postgres, database_url, own_postgres, postgres_server, redis_url, valkey_server

if TYPE_CHECKING:
    from controlplane.deploy.source.uploads import Upload

__all__ = ["database_url", "own_postgres", "postgres_server", "redis_url", "valkey_server"]


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in (files or {"server.py": "print('moo')"}).items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def with_link(target: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("innocent.py")
        link.type, link.linkname = tarfile.SYMTYPE, target
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("server.py"))
    return buffer.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def pieces(*parts: bytes) -> AsyncGenerator[bytes, None]:
    for part in parts:
        yield part


ZIP = zipped()
DIGEST = hashlib.sha256(ZIP).hexdigest()


@pytest.fixture
async def farm(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Farm]:
    async for opened in open_farm(database_url, redis_url, tmp_path):
        yield opened


async def test_an_archive_in_base64_is_kept_by_its_digest_and_nothing_else_is(farm: Farm) -> None:
    runner = await farm.deploy("cow", source_type="zip", source_data=encoded(ZIP), source_subdir="a")

    spec = (await farm.kept())["cow"].spec
    assert spec == runner.instance.spec
    assert (spec.source_type, spec.source) == (SourceType.ZIP, None)
    assert spec.origin == Origin(subdir="a", sha256=DIGEST, size_bytes=len(ZIP))
    (kept,) = farm.files
    assert kept.startswith("uploads/")
    assert kept.endswith(f"/{DIGEST}")
    assert (farm.folder / kept).read_bytes() == ZIP


async def test_an_archive_that_came_beside_the_request_is_looked_through_and_named(farm: Farm) -> None:
    async with farm.deployer.inbox.visit("ada") as visit:
        upload = await visit.receive(pieces(ZIP[:10], ZIP[10:]))
        runner = await farm.deploy("cow", source_type="zip", upload=upload)

    assert runner.instance.spec.origin == Origin(sha256=DIGEST, size_bytes=len(ZIP))
    assert len(farm.files) == 1


HOSTILE = [
    ("zip", zipped(**{"../evil.py": "x"}), "../evil.py"),
    ("zip", zipped(**{"/etc/evil": "x"}), "/etc/evil"),
    ("zip", zipped(**{"A.py": "x", "a.py": "y"}), "a.py"),
    ("tar", with_link("/etc/passwd"), "innocent.py"),
    ("tar", with_link("../../outside"), "innocent.py"),
    ("zip", ZIP[:-30], ""),
    ("tar", ZIP, ""),
    ("zip", b"not an archive", ""),
]


@pytest.mark.parametrize(("kind", "data", "entry"), HOSTILE)
async def test_a_hostile_archive_is_refused_by_its_entry_and_nothing_is_left(
    farm: Farm, kind: str, data: bytes, entry: str
) -> None:
    with pytest.raises(ArchiveRejected) as refused:
        await farm.deploy("cow", source_type=kind, source_data=encoded(data), key="k")

    assert entry in refused.value.detail
    assert [error.pointer for error in refused.value.errors] == ["/source_data"]
    assert (await farm.kept(), farm.runners, farm.files) == ({}, set(), [])
    assert await farm.store.idempotent("ada", "k") is None


@pytest.mark.parametrize(("kind", "data", "entry"), HOSTILE)
async def test_so_is_one_that_came_beside_the_request(farm: Farm, kind: str, data: bytes, entry: str) -> None:
    with pytest.raises(ArchiveRejected) as refused:
        async with farm.deployer.inbox.visit("ada") as visit:
            await farm.deploy("cow", source_type=kind, upload=await visit.receive(pieces(data)))

    assert entry in refused.value.detail
    assert [error.pointer for error in refused.value.errors] == ["source"]
    assert (await farm.kept(), farm.files) == ({}, [])


@pytest.mark.parametrize("data", ["no base64!", " \n"])
async def test_what_is_no_base64_is_refused_at_its_place(farm: Farm, data: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await farm.deploy("cow", source_type="zip", source_data=data)

    assert [error.pointer for error in refused.value.errors] == ["/source_data"]
    assert farm.files == []


async def test_what_is_too_large_leaves_nothing(farm: Farm) -> None:
    async def endless() -> AsyncGenerator[bytes, None]:
        piece = bytes(2**20)
        while True:
            yield piece

    async with farm.deployer.inbox.visit("ada") as visit:
        async with aclosing(endless()) as chunks:
            with pytest.raises(PayloadTooLarge, match=f"{ARCHIVE_MAX_BYTES:,}"):
                await visit.receive(chunks)

    assert farm.files == []


async def test_a_request_that_is_refused_for_another_reason_leaves_no_archive(farm: Farm) -> None:
    await farm.deploy("cow")

    with pytest.raises(Conflict):
        await farm.deploy("cow", source_type="zip", source_data=encoded(ZIP))

    assert farm.files == []


async def test_an_archive_that_a_revision_comes_from_outlives_a_request_that_brings_it_again(farm: Farm) -> None:
    await farm.deploy("cow", source_type="zip", source_data=encoded(ZIP))

    with pytest.raises(Conflict):
        await farm.deploy("cow", source_type="zip", source_data=encoded(ZIP))

    assert len(farm.files) == 1


async def test_an_archive_is_its_owners_own(farm: Farm) -> None:
    await farm.deploy("cow", source_type="zip", source_data=encoded(ZIP))
    await farm.deploy("cow", BOB, source_type="zip", source_data=encoded(ZIP))

    assert len(farm.files) == 2
    for n in range(2):
        await farm.deploy(f"more{n}", BOB)
    with pytest.raises(QuotaExceeded):
        await farm.deploy("last", BOB, source_type="zip", source_data=encoded(ZIP))
    assert len(farm.files) == 2


async def test_two_requests_with_the_same_archive_do_not_take_it_from_each_other(farm: Farm) -> None:
    both = trio.Event()
    uploads: list[Upload] = []

    async def fails() -> None:
        with suppress(Conflict):
            async with farm.deployer.inbox.visit("ada") as visit:
                uploads.append(await visit.receive(pieces(ZIP)))
                await both.wait()
                raise Conflict("for a test")

    async with trio.open_nursery() as nursery, farm.deployer.inbox.visit("ada") as visit:
        nursery.start_soon(fails)
        uploads.append(await visit.receive(pieces(ZIP)))
        while len(uploads) < 2:
            await trio.lowlevel.checkpoint()
        both.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        runner = await farm.deploy("cow", source_type="zip", upload=uploads[0])

    assert runner.instance.spec.origin is not None
    assert len(farm.files) == 1


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(farm: Farm) -> None:
    arrived = trio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield bytes(2**21)
        arrived.set()
        await trio.sleep_forever()

    async def upload() -> None:
        async with farm.deployer.inbox.visit("ada") as visit:
            await visit.receive(stalls())

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await arrived.wait()
            assert len(farm.files) == 1
            nursery.cancel_scope.cancel()

    assert farm.files == []


async def test_a_client_that_leaves_during_the_look_leaves_nothing(farm: Farm) -> None:
    many = zipped(**{f"{number}.txt": "x" for number in range(5000)})

    async def deploy() -> None:
        await farm.deploy("cow", source_type="zip", source_data=encoded(many))

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deploy)
            while not any(name.startswith("scratch/") for name in farm.files):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    assert (await farm.kept(), farm.files) == ({}, [])


async def test_without_a_database_an_archive_stays_for_the_collection(
    own_postgres: Postgres, redis_url: str, tmp_path: Path
) -> None:
    url = own_postgres.url(own_postgres.new_database())
    async for farm in open_farm(url, redis_url, tmp_path):
        with suppress(Conflict):
            async with farm.deployer.inbox.visit("ada") as visit:
                await visit.receive(pieces(ZIP))
                own_postgres.kill()
                raise Conflict("for a test")

        assert len(farm.files) == 1


async def test_the_collection_takes_what_no_revision_comes_from(farm: Farm) -> None:
    runner = await farm.deploy("cow", source_type="zip", source_data=encoded(ZIP))
    other = zipped(**{"other.py": "x"})
    async with farm.deployer.inbox.visit(ADA.owner) as visit:
        await visit.receive(pieces(other))

    assert await farm.deployer.inbox.collect() == 0, "what is new may be on its way"
    for name in farm.files:
        os.utime(farm.folder / name, (0, 0))
    assert await farm.deployer.inbox.collect() > 0
    assert len(farm.files) == 1

    await farm.deployer.supervisor.remove(runner)
    assert await runner.wait_gone(WAIT_S)
    await farm.deployer.inbox.collect()
    assert farm.files == []


async def test_an_upload_is_under_way_until_its_archive_has_been_looked_through(farm: Farm) -> None:
    inbox = farm.deployer.inbox
    async with AsyncExitStack() as stack:
        uploads: list[Upload] = []
        for number in range(UPLOADS_PER_OWNER):
            visit = await stack.enter_async_context(inbox.upload("ada", "ada", None))
            uploads.append(await visit.receive(pieces(zipped(**{f"{number}.py": "x"}))))
        assert inbox.under_way.held_bytes == sum(upload.size_bytes for upload in uploads)
        with pytest.raises(RateLimited):
            async with inbox.upload("ada", "ada", None):
                pass

        await farm.deploy("cow", source_type="zip", upload=uploads[0])
        assert inbox.under_way.held_bytes == uploads[1].size_bytes
        async with inbox.upload("ada", "ada", None):
            pass

    assert inbox.under_way.held_bytes == 0


async def test_uploads_of_all_owners_have_a_bound_that_counts_what_has_arrived(farm: Farm) -> None:
    inbox = farm.deployer.inbox
    inbox.under_way.max_bytes = 3 * 2**20
    with suppress(Conflict):
        async with inbox.upload("ada", "ada", 2**20) as ada:
            await ada.receive(pieces(bytes(2**20)))
            with pytest.raises(Overloaded):
                async with inbox.upload("bob", "bob", 2**20 + 2**20 + 1):
                    pass
            with pytest.raises(Overloaded):
                async with (
                    inbox.upload("bob", "bob", None) as bob,
                    aclosing(pieces(bytes(2**20), bytes(2**20), b"x")) as chunks,
                ):
                    await bob.receive(chunks)
            assert len(farm.files) == 1
            async with inbox.upload("bob", "bob", None) as bob:
                await bob.receive(pieces(b"x"))
            raise Conflict("for a test")

    assert inbox.under_way.held_bytes == 0


async def test_an_owner_with_many_slow_archives_holds_up_nobody_else(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    slow = [zipped(**{f"{number}/{n}.txt": "x" for n in range(5000)}) for number in range(4)]

    async for farm in open_farm(database_url, redis_url, tmp_path, max_instances_per_user=10):

        async def deploy(name: str, archive: bytes, farm: Farm = farm) -> None:
            await farm.deploy(name, source_type="zip", source_data=encoded(archive))

        with trio.fail_after(WAIT_S):
            async with trio.open_nursery() as nursery:
                for number, archive in enumerate(slow):
                    nursery.start_soon(deploy, f"slow{number}", archive)
                while len([name for name in farm.files if name.startswith("uploads/")]) < len(slow):
                    await trio.sleep(0.01)
                await farm.deploy("tiny", BOB, source_type="zip", source_data=encoded(ZIP))
                assert len(farm.runners - {"tiny"}) <= 1, "one of them may have been looked through meanwhile"

        assert farm.runners == {"tiny", *(f"slow{number}" for number in range(len(slow)))}
