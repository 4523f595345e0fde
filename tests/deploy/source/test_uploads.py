"""Uploads: whole or not there, by what is in them, and gone when nobody needs them."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from controlplane.deploy.source.uploads import PIECE_BYTES, Upload, Uploads
from controlplane.errors import PayloadTooLarge

ROOT = Path(__file__).parents[3]
WAIT_S = 30
LIMIT = 10 * 2**20


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def kept(uploads: Uploads) -> list[str]:
    return sorted(str(path.relative_to(uploads.root)) for path in uploads.root.rglob("*") if not path.is_dir())


async def test_an_upload_is_kept_by_its_digest_and_readable_to_nobody_else(uploads: Uploads) -> None:
    data = os.urandom(3 * PIECE_BYTES + 7)

    upload = await uploads.receive("ada", pieces(data[:10], b"", data[10:]), limit_bytes=LIMIT)

    assert upload == Upload(sha256(data), len(data))
    path = uploads.path("ada", upload.sha256)
    assert path is not None
    assert path == uploads.root / "ada" / upload.sha256
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(uploads.root.stat().st_mode) == 0o700
    assert await uploads.verified("ada", upload.sha256) == path
    assert kept(uploads) == [f"ada/{upload.sha256}"]


async def test_small_and_empty_ones_are_kept_too(uploads: Uploads) -> None:
    assert await uploads.put("ada", b"moo") == Upload(sha256(b"moo"), 3)
    assert await uploads.receive("ada", pieces(), limit_bytes=0) == Upload(sha256(b""), 0)


async def test_the_same_again_is_kept_once_and_another_scope_sees_nothing_of_it(uploads: Uploads) -> None:
    first = await uploads.put("ada", b"moo")
    assert await uploads.put("ada", b"moo") == first

    assert kept(uploads) == [f"ada/{first.sha256}"]
    assert uploads.path("bob", first.sha256) is None
    assert await uploads.verified("bob", first.sha256) is None


async def test_all_are_named_by_scope_and_digest(uploads: Uploads) -> None:
    assert await uploads.names() == set()
    await uploads.put("ada", b"one")
    await uploads.put("bob", b"one")
    (uploads.root / "ada" / ".0123.part").write_bytes(b"half of one")
    assert await uploads.names() == {f"ada/{sha256(b'one')}", f"bob/{sha256(b'one')}"}


async def test_what_is_too_large_is_refused_while_it_arrives(uploads: Uploads) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield bytes(100_000)

    async with aclosing(endless()) as chunks:
        with pytest.raises(PayloadTooLarge, match="more than 1,000,000 bytes"):
            await uploads.receive("ada", chunks, limit_bytes=1_000_000)

    assert asked == 11
    assert kept(uploads) == []
    await uploads.receive("ada", pieces(bytes(1_000_000)), limit_bytes=1_000_000)


async def test_a_client_that_leaves_leaves_nothing_behind(uploads: Uploads) -> None:
    async def leaving() -> AsyncIterator[bytes]:
        yield bytes(3 * PIECE_BYTES)
        assert len(kept(uploads)) == 1
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await uploads.receive("ada", leaving(), limit_bytes=LIMIT)

    assert kept(uploads) == []


@pytest.mark.parametrize("sent", [0, 10, 3 * PIECE_BYTES])
async def test_a_cancelled_upload_leaves_nothing_behind(uploads: Uploads, sent: int) -> None:
    waiting = trio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield bytes(sent)
        waiting.set()
        await trio.sleep_forever()

    async def receive() -> None:
        await uploads.receive("ada", stalling(), limit_bytes=LIMIT)

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await waiting.wait()
            nursery.cancel_scope.cancel()

    assert kept(uploads) == []
    assert open_below(uploads.root) == []


def open_below(folder: Path) -> list[str]:
    """This process's open files."""
    links = (os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
    return [link for link in links if link.startswith(str(folder))]


async def test_many_arrive_at_once(uploads: Uploads) -> None:
    found: list[Upload] = []

    async def send(number: int) -> None:
        found.append(await uploads.put("ada", b"%d" % (number % 5) * 100_000))

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(send, number)

    assert len(kept(uploads)) == len(set(found)) == 5


async def test_a_damaged_upload_is_no_upload_and_goes(uploads: Uploads, caplog: pytest.LogCaptureFixture) -> None:
    upload = await uploads.put("ada", b"moo")
    path = uploads.root / "ada" / upload.sha256
    path.write_bytes(b"mop")

    assert await uploads.verified("ada", upload.sha256) is None

    assert not path.exists()
    assert "was damaged" in caplog.text
    assert await uploads.put("ada", b"moo") == upload
    assert await uploads.verified("ada", upload.sha256) == path


async def test_a_new_arrival_takes_a_damaged_ones_place(uploads: Uploads) -> None:
    upload = await uploads.put("ada", b"moo")
    (uploads.root / "ada" / upload.sha256).write_bytes(b"mop")

    await uploads.put("ada", b"moo")

    assert await uploads.verified("ada", upload.sha256) is not None


async def test_a_link_or_a_folder_is_no_upload(uploads: Uploads, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s3cret")
    await uploads.put("ada", b"moo")
    (uploads.root / "ada" / sha256(b"s3cret")).symlink_to(tmp_path / "secret")
    (uploads.root / "ada" / sha256(b"folder")).mkdir()

    for data in (b"s3cret", b"folder"):
        assert uploads.path("ada", sha256(data)) is None
        assert await uploads.verified("ada", sha256(data)) is None


@pytest.mark.parametrize("scope", ["", ".", "..", "a/b", "../x", "A", "a\n", "-a", "x" * 200])
async def test_a_scope_is_one_plain_name(uploads: Uploads, scope: str) -> None:
    with pytest.raises(ValueError, match="is no scope"):
        await uploads.put(scope, b"moo")
    with pytest.raises(ValueError, match="is no scope"):
        uploads.path(scope, sha256(b""))
    assert not uploads.root.exists()


@pytest.mark.parametrize("digest", ["", "..", "../x", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_digest_is_64_hex_digits(uploads: Uploads, digest: str) -> None:
    with pytest.raises(ValueError, match="is no SHA-256"):
        uploads.path("ada", digest)


# -- collecting


def aged(path: Path) -> Path:
    """As if it had arrived a day ago."""
    os.utime(path, (time.time() - 86_400, time.time() - 86_400))
    return path


async def test_what_nobody_refers_to_goes_once_it_is_old(uploads: Uploads) -> None:
    old, needed, young = [await uploads.put("ada", data) for data in (b"old", b"needed", b"young")]
    other = await uploads.put("bob", b"needed")
    for scope, upload in (("ada", old), ("ada", needed), ("bob", other)):
        aged(uploads.root / scope / upload.sha256)

    freed = await uploads.collect({("ada", needed.sha256)})

    assert freed == len(b"old" + b"needed")
    assert kept(uploads) == sorted(f"ada/{upload.sha256}" for upload in (needed, young))


async def test_age_can_be_disregarded(uploads: Uploads) -> None:
    await uploads.put("ada", b"moo")

    assert await uploads.collect(set(), older_than_s=-60) == 3
    assert kept(uploads) == []


async def test_what_never_arrived_goes_and_what_is_arriving_stays(uploads: Uploads) -> None:
    await uploads.put("ada", b"moo")
    (uploads.root / "ada" / ".0123456789abcdef.part").write_bytes(b"left by a crash")

    async def collecting() -> AsyncIterator[bytes]:
        yield bytes(2 * PIECE_BYTES)
        await uploads.collect(set())
        assert [name for name in kept(uploads) if "0123456789abcdef" in name] == []
        yield b"rest"

    upload = await uploads.receive("bob", collecting(), limit_bytes=LIMIT)

    assert await uploads.verified("bob", upload.sha256) is not None
    assert len(kept(uploads)) == 2


async def test_what_is_not_ours_is_left_alone(uploads: Uploads, tmp_path: Path) -> None:
    await uploads.put("ada", b"moo")
    outside = tmp_path / "outside"
    outside.mkdir()
    aged(outside).joinpath("a" * 64).write_text("precious")
    (uploads.root / "linked").symlink_to(outside)
    aged_note = uploads.root / "ada" / "README"
    aged_note.write_text("precious")
    aged(aged_note)
    aged(outside / ("a" * 64))

    await uploads.collect(set())

    assert (outside / ("a" * 64)).exists()
    assert aged_note.exists()


async def test_there_is_nothing_to_collect_before_the_first_upload(uploads: Uploads) -> None:
    assert await uploads.collect(set()) == 0
    assert not uploads.root.exists()


@pytest.mark.needs("mount_namespaces", "root")
def test_a_full_disk_is_told_of_and_left_empty(tmp_path: Path) -> None:
    """In a mount namespace, on a file system of 1 MiB."""
    small = tmp_path / "small"
    small.mkdir()
    script = """
import os, sys, trio
from pathlib import Path
from controlplane.deploy.source.uploads import Uploads
from controlplane.errors import Overloaded

async def main():
    uploads = Uploads(Path(sys.argv[1], "uploads"))
    try:
        await uploads.put("ada", bytes(5 * 2**20))
    except Overloaded as error:
        print(error, os.listdir(uploads.root / "ada"))

trio.run(main)
"""
    shell = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" -c "$3" "$1"'

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", shell, "sh", small, sys.executable, script],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )

    assert (done.stdout, done.stderr) == ("The data folder's disk is full. []\n", "")
