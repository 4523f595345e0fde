"""Bombs: archives that cost far more than they weigh. Each runs in a process of its own, whose memory can be told."""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import lzma
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, evolve
from backports import zstd

from controlplane.deploy.source import decoders
from controlplane.deploy.source.archive import unpack
from controlplane.deploy.source.spending import Abandoned, UnpackLimits
from tests.deploy.source.archives import (
    END,
    Zipped,
    contents,
    deflated,
    header,
    member,
    pax,
    refused,
    tar,
    unpacked,
    zip_of,
)

ROOT = Path(__file__).parents[3]
MIB = 2**20
MEMORY_MIB = 300
DISK_MIB = 600
SECONDS = 40

CHILD = """
import json, os, sys, time
from pathlib import Path
from controlplane.deploy.source.archive import unpack
from controlplane.errors import ArchiveRejected

into, looked, disk = Path(sys.argv[3]), time.monotonic(), 0

def size():
    found = 0
    for folder, folders, files in os.walk(into):
        for name in (*folders, *files):
            found += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return found

def cancelled():
    global looked, disk
    if time.monotonic() - looked > 1:
        disk = max(disk, size())
        looked = time.monotonic()
    return False

def most():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = most()
began = time.monotonic()
try:
    unpack(Path(sys.argv[1]), sys.argv[2], into, cancelled=cancelled)
    said = ""
except ArchiveRejected as error:
    said = error.detail
memory = most() - before
print(json.dumps({"said": said, "memory_mib": memory / 1024, "disk_mib": disk / 2**20, "s": time.monotonic() - began}))
"""


@functools.cache
def zeros_deflated(mib: int) -> bytes:
    """So many MiB of zeros, deflated, without the end of the stream; made of one part again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    step = min(mib, 64)
    return (packer.compress(bytes(step * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)) * (mib // step)


DEFLATE_END = b"\3\0"


def gzipped(*parts: bytes | int) -> bytes:
    """One gzip stream of bytes, and of MiB of zeros; its checksum is wrong, which nobody gets to see."""
    raw = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    for part in parts:
        if isinstance(part, int):
            raw += zeros_deflated(part)
        else:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            raw += packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH)
    return raw + DEFLATE_END + bytes(8)


def zero_files(count: int, mib: int) -> Iterator[bytes | int]:
    """The parts of a tar of files of zeros."""
    for number in range(count):
        yield header(b"zeros-%d" % number, size=mib * MIB)
        yield mib
    yield END


def many_entries(count: int, name: str = "") -> bytes:
    """A ZIP archive of so many empty files, whose end still has to say how many."""
    local, rows = bytearray(), bytearray()
    for number in range(count):
        entry = Zipped(name=f"{name}{number}".encode())
        rows += entry.row(len(local))
        local += entry.body()
    return bytes(local + rows) + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, len(rows), len(local), 0)


def in_64_bits(raw: bytes, count: int) -> bytes:
    table_bytes, table_start = struct.unpack("<2L", raw[-10:-2])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, table_bytes, table_start)
    return raw[:-22] + record + struct.pack("<4sLQL", b"PK\6\7", 0, len(raw) - 22, 1) + raw[-22:]


def overlapping(count: int) -> bytes:
    """Entries that all have the same data, each quoting the local headers of those behind it."""
    kernel = zeros_deflated(64) + DEFLATE_END
    locals_at, body = [], b""
    for number in range(count):
        locals_at.append(len(body))
        body += header_of(b"%d" % number, kernel)
    rows = b"".join(
        evolve(deflated(b"%d" % number, b""), size=64 * MIB, packed=len(kernel), start=at).row(0)
        for number, at in enumerate(locals_at)
    )
    body += kernel
    return body + rows + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(rows), len(body), 0)


def header_of(name: bytes, data: bytes) -> bytes:
    entry = Zipped(name=name, data=data, size=64 * MIB, method=8, crc=0)
    return entry.body()[: -len(data)]


def xz_with_a_dictionary_of(code: int, data: bytes) -> bytes:
    """An xz stream that says that it needs a larger dictionary: 37 means 1.5 GiB, 40 means 4 GiB."""
    raw = bytearray(lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}]))
    size = (raw[12] + 1) * 4
    raw[16] = code
    raw[12 + size - 4 : 12 + size] = zlib.crc32(raw[12 : 12 + size - 4]).to_bytes(4, "little")
    return bytes(raw)


def zstd_with_a_window_of(log: int, data: bytes) -> bytes:
    """A zstd frame of one raw block that says that it needs a larger window."""
    block = (1 | len(data) << 3).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + bytes([0, (log - 10) << 3]) + block + data


def pax_flood() -> bytes:
    """3 GiB of extension headers, and then a file."""
    one = pax(comment=b"x" * 200_000)
    flood = one * (64 * MIB // len(one))
    return bz2.compress(flood) * 48 + bz2.compress(member(b"a", b"x") + END)


BOMBS: dict[str, tuple[str, Any, str]] = {
    "zip, 3 GiB of zeros": (
        "zip",
        lambda: zip_of(evolve(deflated(b"a", b""), data=zeros_deflated(3072) + DEFLATE_END, size=3072 * MIB)),
        "unpacks to 3,221,225,472 bytes",
    ),
    "zip, 3 GiB of zeros that say they are 1 MiB": (
        "zip",
        lambda: zip_of(evolve(deflated(b"a", b""), data=zeros_deflated(3072) + DEFLATE_END, size=MIB)),
        "'a' has more than the 1,048,576 bytes that the archive says",
    ),
    "zip, 3 GiB of zeros that say they are 200 MiB": (
        "zip",
        lambda: zip_of(evolve(deflated(b"a", b""), data=zeros_deflated(3072) + DEFLATE_END, size=200 * MIB)),
        "'a' has more than the 209,715,200 bytes that the archive says",
    ),
    "zip, a member of 1 PiB": (
        "zip",
        lambda: zip_of(Zipped(name=b"a", size=0xFFFFFFFF, packed=0, method=8, extra=struct.pack("<2HQ", 1, 8, 2**50))),
        "unpacks to 1,125,899,906,842,624 bytes",
    ),
    "zip, 150,000 entries": (
        "zip",
        lambda: in_64_bits(many_entries(60_000), 150_000),
        "150,000 entries; at most 100,000",
    ),
    "zip, entries by the half million that say they are ten": (
        "zip",
        lambda: in_64_bits(many_entries(60_000), 10),
        "more entries than it says",
    ),
    "zip, 100,000 long names": (
        "zip",
        lambda: in_64_bits(many_entries(100_000, "🐮" * 28), 100_000),
        "all names together",
    ),
    "zip, 3 GiB in entries that overlap": ("zip", lambda: overlapping(48), "unpacks to 3,221,225,472 bytes"),
    "zip, 448 MiB in entries that overlap": ("zip", lambda: overlapping(7), "'0' shares its data with another entry"),
    "zip, a truncated member": (
        "zip",
        lambda: zip_of(evolve(deflated(b"a", b""), data=zeros_deflated(32), size=32 * MIB + 1)),
        "'a' is cut short",
    ),
    "tar, 3 GiB of zeros": ("tar", lambda: gzipped(*zero_files(1, 3072)), "a file has at most 268,435,456"),
    "tar, 3 GiB of zeros in 48 files": ("tar", lambda: gzipped(*zero_files(48, 64)), "is too much"),
    "tar, 3 GiB of zeros in 48 streams of bzip2": (
        "tar",
        lambda: bz2.compress(header(b"a", size=64 * MIB) + bytes(64 * MIB)) * 48,
        "'a' is in it twice",
    ),
    "tar, a member of 1 PiB": ("tar", lambda: tar(header(b"a", size=2**50)), "1,125,899,906,842,624 bytes"),
    "tar, 150,000 entries": (
        "tar",
        lambda: gzip.compress(tar(*(header(b"%d" % number) for number in range(150_000))), 1),
        "'100000' is one too many",
    ),
    "tar, folders within folders": (
        "tar",
        lambda: gzip.compress(
            tar(*(member(b"%d/" % n + b"/".join([b"d"] * 38) + b"/f", b"x") for n in range(5_000))), 1
        ),
        "and 20,000 folders",
    ),
    "tar, 3 GiB of extension headers": ("tar", pax_flood, "archive expands to more than"),
    "tar, zeros behind the end": ("tar", lambda: gzipped(member(b"a", b"x") + END, 3072), "more data behind its end"),
    "tar, a truncated member": ("tar", lambda: gzipped(header(b"a", size=64 * MIB), 60)[:-500], "cut short"),
    "tar, xz that wants 1.5 GiB": (
        "tar",
        lambda: xz_with_a_dictionary_of(37, tar(member(b"a", b"x"))),
        "it needs too much memory",
    ),
    "tar, zstd that wants 2 GiB": (
        "tar",
        lambda: zstd_with_a_window_of(31, tar(member(b"a", b"x"))),
        "it needs too much memory",
    ),
    "tar, packed three times": ("tar", lambda: packed_again(2), "it holds another compressed file"),
    "tar, 200,000 empty streams": ("tar", lambda: gzip.compress(b"") * 200_000, "20,000 compressed pieces"),
}


def packed_again(times: int) -> bytes:
    raw = gzipped(*zero_files(12, 256))
    for _ in range(times):
        raw = gzip.compress(raw)
    return raw


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_bounds_and_nothing_is_kept(tmp_path: Path, name: str) -> None:
    kind, make, reason = BOMBS[name]
    archive = tmp_path / "archive"
    archive.write_bytes(make())

    done = subprocess.run(
        [sys.executable, "-c", CHILD, archive, kind, tmp_path / "into"],
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    print(f"{name}: {archive.stat().st_size / MIB:.2f} MiB, {found}")
    assert reason in found["said"]
    assert found["memory_mib"] < MEMORY_MIB
    assert found["disk_mib"] < DISK_MIB
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_zip_in_a_zip_stays_one(tmp_path: Path) -> None:
    inner = zip_of(deflated(b"zeros", bytes(MIB)))

    unpacked(zip_of(Zipped(name=b"inner.zip", data=inner)), "zip", tmp_path)

    assert contents(tmp_path / "into") == {"inner.zip": inner}


# -- the limits, one by one


SMALL = UnpackLimits(entries=10, links=2, total_bytes=100_000, file_bytes=50_000, ratio=10, ratio_floor_bytes=20_000)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([member(b"%d" % n) for n in range(11)], "'10' is one too many"),
        ([member(b"a/b/c/d/e/f/g/h/i/j/k")], "is one too many"),
        ([member(b"a", bytes(50_001))], "a file has at most 50,000"),
        ([member(b"%d" % n, b"\xaa" * 30_000) for n in range(4)], "'3' is too much"),
        ([member(b"a"), *(header(b"l%d" % n, sort=b"2", target=b"a") for n in range(3))], "one link too many"),
        ([member(b"%d/%d/%d/f" % (n, n, n)) for n in range(9)], "is one too many"),
    ],
)
def test_each_limit_holds(tmp_path: Path, entries: list[bytes], reason: str) -> None:
    assert reason in refused(tar(*entries), "tar", tmp_path, limits=SMALL)


def test_small_files_count_as_what_they_take_on_the_disk(tmp_path: Path) -> None:
    limits = evolve(SMALL, entries=1000)

    assert "is too much" in refused(tar(*(member(b"%d" % n, b"x") for n in range(30))), "tar", tmp_path, limits=limits)


def test_what_is_much_for_its_weight_is_refused_and_a_little_is_not(tmp_path: Path) -> None:
    def zeros(size: int) -> bytes:
        return zip_of(deflated(b"a", bytes(size)))

    assert "packed bytes may unpack to 20,000" in refused(zeros(30_000), "zip", tmp_path, limits=SMALL)
    assert unpacked(zeros(20_000), "zip", tmp_path, limits=SMALL).bytes == 20_000


def test_what_takes_too_long_is_refused(tmp_path: Path) -> None:
    assert "takes longer than 0 s" in refused(tar(member(b"a")), "tar", tmp_path, limits=UnpackLimits(seconds=0))


@pytest.mark.parametrize(
    ("pack", "decoder"),
    [
        (gzip.compress, decoders.gzip),
        (bz2.compress, decoders.bzip2),
        (lzma.compress, decoders.xz),
        (zstd.compress, decoders.zstandard),
    ],
)
def test_decompression_comes_in_pieces_whatever_it_expands_to(pack: Any, decoder: Any) -> None:
    pieces = [len(piece) for piece in decoders.expand_all(iter([pack(bytes(8 * MIB))]), decoder)]

    assert sum(pieces) == 8 * MIB
    assert max(pieces) <= decoders.PIECE_BYTES


# -- giving up


@define
class Patience:
    """Says so often that nothing was cancelled."""

    left: int

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_giving_up_at_any_moment_leaves_nothing(tmp_path: Path, kind: Any) -> None:
    raw = {
        "zip": zip_of(*(Zipped(name=b"d/%d" % n, data=bytes(100_000)) for n in range(5))),
        "tar": tar(*(member(b"d/%d" % n, bytes(100_000)) for n in range(5))),
    }[kind]
    for patience in range(1000):
        try:
            unpacked(raw, kind, tmp_path, cancelled=Patience(patience))
        except Abandoned:
            assert [path.name for path in tmp_path.iterdir()] == ["archive"]
        else:
            break
    assert patience > 20
    assert len(contents(tmp_path / "into")) == 5


async def test_a_cancelled_task_gives_up_its_thread(tmp_path: Path) -> None:
    """As a deploy does it: the thread asks Trio, and what that raises is let through."""
    archive = tmp_path / "archive"
    archive.write_bytes(tar(*(member(b"%d" % n, bytes(10_000)) for n in range(2_000))))
    begun = trio.Event()

    def cancelled() -> bool:
        if not begun.is_set():
            trio.from_thread.run_sync(begun.set)
        trio.from_thread.check_cancelled()
        return False

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                trio.to_thread.run_sync, lambda: unpack(archive, "tar", tmp_path / "into", cancelled=cancelled)
            )
            await begun.wait()
            nursery.cancel_scope.cancel()

    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.needs("mount_namespaces", "root")
def test_a_full_disk_is_told_of_and_left_empty(tmp_path: Path) -> None:
    """In a mount namespace, on a file system of 256 KiB."""
    archive, small = tmp_path / "archive", tmp_path / "small"
    archive.write_bytes(tar(*(member(b"d/%d" % n, bytes(100_000)) for n in range(5))))
    small.mkdir()
    script = """
import os, sys
from pathlib import Path
from controlplane.deploy.source.archive import unpack
from controlplane.errors import Overloaded
try:
    unpack(Path(sys.argv[1]), "tar", Path(sys.argv[2], "into"))
except Overloaded as error:
    print(error, os.listdir(sys.argv[2]))
"""
    shell = 'mount -t tmpfs -o size=256k tmpfs "$2" && exec "$3" -c "$4" "$1" "$2"'

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", shell, "sh", archive, small, sys.executable, script],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert (done.stdout, done.stderr) == ("The data folder's disk is full. []\n", "")
