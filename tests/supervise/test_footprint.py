"""What processes have open, share and wrote, and what lies in folders: read from this very process, and from trees made here."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controlplane.spawn import diskuse, proctree
from controlplane.spawn.diskuse import Tally, count
from controlplane.spawn.proctree import Proc, Root
from controlplane.supervise import footprint
from controlplane.supervise.footprint import (
    Footprints,
    Index,
    Wanted,
    open_files,
    proportional,
    written_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ME = os.getpid()
UID = os.getuid()
MIB = 2**20


def proc(ppid: int, *, sid: int = 0, start: int = 100, uid: int = 1000, state: str = "S") -> Proc:
    return Proc(ppid, sid, sid, 5, 4096, start, uid, state, 1)


def test_the_members_of_a_tree_are_those_of_its_session_and_below_or_of_its_user() -> None:
    procs = {
        1: proc(0),
        10: proc(1, sid=10),
        11: proc(10, sid=10),
        12: proc(11, sid=12),
        13: proc(1, sid=10, uid=1001),
        14: proc(10, sid=10, state="Z"),
        15: proc(1, sid=15, uid=1001),
        16: proc(1, sid=10, start=50),
    }
    index = Index(procs)
    assert index.members(Root("a", 10, 100)) == {10, 11, 12, 13}
    assert index.members(Root("a", 10, 100, 1001)) == {13, 15}
    assert index.members(Root("a", 99, 100)) == set()


def test_open_files_are_counted() -> None:
    before = open_files(ME, UID)
    assert before is not None
    with open(os.devnull), open(os.devnull):
        assert open_files(ME, UID) == before + 2
    assert open_files(2**22 + 1, UID) is None


def test_what_was_written_is_counted(tmp_path: Path) -> None:
    before = written_bytes(ME, UID)
    (tmp_path / "file").write_bytes(b"x" * MIB)
    assert written_bytes(ME, UID) - before >= MIB
    assert written_bytes(2**22 + 1, UID) == 0


def test_memory_that_two_processes_share_counts_half_for_each() -> None:
    shared = mmap.mmap(-1, 64 * MIB)
    shared.write(b"x" * 64 * MIB)
    alone = proportional(ME, UID)
    assert alone is not None
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        shared.seek(0)
        shared.read()
        os.write(writer, b".")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(reader, 1) == b"."
        together = proportional(ME, UID)
        assert together is not None
        assert together.size_bytes < alone.size_bytes - 20 * MIB
        assert alone.shared_bytes >= 64 * MIB
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        shared.close()


def used(top: Path, uid: int | None = UID) -> int:
    return count(Tally(uid, footprint.LINKED), top).size_bytes


def test_a_folder_is_counted_with_all_that_is_below_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "home/deep/deeper").mkdir(parents=True)
    (tmp_path / "home/deep/deeper/file").write_bytes(b"x" * MIB)
    (tmp_path / "home/link").symlink_to("/usr")
    assert MIB <= used(tmp_path) < MIB + 64 * 1024
    assert used(tmp_path / "nowhere") == 0


def test_a_file_with_several_names_counts_once_and_not_at_all_in_a_linked_tree(tmp_path: Path) -> None:
    for folder in ("home", "app-1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_bytes(b"x" * MIB)
        os.link(tmp_path / folder / "file", tmp_path / folder / "again")
    assert MIB <= used(tmp_path, None) < MIB + 64 * 1024
    assert 2 * MIB <= used(tmp_path) < 2 * MIB + 64 * 1024, "all of its own user's count"


def test_what_belongs_to_another_user_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * MIB)
    assert used(tmp_path, UID + 1) == 0


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as process:
        yield process.pid
        process.kill()


def wanted(pid: int, folder: Path) -> Wanted:
    seen = proctree.look(pid)
    assert seen is not None
    return Wanted("a", (Root("a", pid, seen.start_ticks),), str(folder), 1024, 1024 * MIB, 64 * MIB)


def test_a_first_look_knows_all_and_later_ones_only_what_is_due(child: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * MIB)
    prints, one = Footprints(), wanted(child, tmp_path)
    procs = proctree.scan()
    first = prints.look([one], procs, {}, Index(procs), 0.0)["a"]
    assert (first.open_files or 0) >= 3, "and what it opens while it starts"
    assert (first.disk_bytes or 0) >= MIB
    (tmp_path / "more").write_bytes(b"x" * MIB)
    assert prints.look([one], procs, {}, Index(procs), 1.0)["a"].disk_bytes == first.disk_bytes
    later = prints.look([one], procs, {}, Index(procs), footprint.WALK_EVERY_S + 1.0)["a"]
    assert (later.disk_bytes or 0) >= 2 * MIB


def test_a_new_process_begins_with_nothing_known(child: int, tmp_path: Path) -> None:
    prints, one = Footprints(), wanted(child, tmp_path)
    procs = proctree.scan()
    (tmp_path / "file").write_bytes(b"x" * MIB)
    prints.look([one], procs, {}, Index(procs), 0.0)
    (tmp_path / "file").unlink()
    other = one._replace(roots=(one.roots[0]._replace(pid=child + 1),))
    assert (prints.look([other], procs, {}, Index(procs), 1.0)["a"].disk_bytes or 0) < MIB


def test_a_walk_is_interrupted_and_goes_on_in_the_next_pass(
    child: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        (tmp_path / str(number)).write_bytes(b"x")
    monkeypatch.setattr(footprint, "WALK_BUDGET_S", 0.0)
    monkeypatch.setattr(diskuse, "ENTRIES_PER_STEP", 10)
    prints, one = Footprints(), wanted(child, tmp_path)
    procs = proctree.scan()
    found = [prints.look([one], procs, {}, Index(procs), 0.0)["a"].disk_bytes for _ in range(31)]
    assert found == [*[None] * 30, 300 * 4096]


HOLDER = """
import os, sys
size = 32 << 20
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.unlink(sys.argv[1])
os.write(file, b"x" * size)
os.write(os.memfd_create("held"), b"x" * size)
if not os.fork():
    os.setsid()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[int]:
    """Two processes that hold one file without a name, and one without a disk, of 32 MiB each."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "file")]
    with subprocess.Popen(
        command, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = b""
        while said.count(b"ready") < 2:
            said += process.stdout.read(64)
        yield process.pid
        process.stdin.close()


def test_a_file_that_is_open_and_has_no_name_counts_as_disk_and_a_memfd_as_memory(holder: int, tmp_path: Path) -> None:
    one = wanted(holder, tmp_path)._replace(memory_bytes=40 * MIB)
    prints, procs = Footprints(), proctree.scan()
    rss = {"a": sum(procs[pid].rss_bytes for pid in Index(procs).members(one.roots[0]))}
    first = prints.look([one], procs, {"a": 0}, Index(procs), 0.0)["a"]
    assert 32 * MIB <= (first.disk_bytes or 0) < 33 * MIB, "once, though two processes have it open"
    later = prints.look([one], procs, rss, Index(procs), 1.0)["a"]
    assert 32 * MIB <= (later.memory_bytes or 0) < 32 * MIB + rss["a"]


def test_more_files_than_are_counted_are_told_of(child: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "ENTRIES_MAX", 100)
    for number in range(150):
        (tmp_path / str(number)).touch()
    prints, one, procs = Footprints(), wanted(child, tmp_path), proctree.scan()
    found = prints.look([one], procs, {}, Index(procs), 0.0)["a"]
    assert found.disk_bytes == 100 * 4096
    assert found.disk_beyond == "has more than 100 files and folders, beyond which its disk is not counted"


def test_few_walks_are_under_way_at_a_time_and_all_come_to_an_end(
    child: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "WALKS_MAX", 2)
    monkeypatch.setattr(footprint, "WALK_BUDGET_S", 0.0)
    monkeypatch.setattr(diskuse, "ENTRIES_PER_STEP", 10)
    many = [wanted(child, tmp_path / str(number))._replace(key=str(number)) for number in range(4)]
    for one in many:
        for name in range(30):
            Path(one.folder, "sub", str(name)).mkdir(parents=True)
    prints, procs = Footprints(), proctree.scan()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(40):
        found = prints.look(many, procs, {}, Index(procs), 0.0)
        assert len(os.listdir("/proc/self/fd")) <= before + 2 * 3
    assert {one.disk_bytes for one in found.values()} == {31 * 4096}


def test_a_walk_that_finds_much_is_told_of_before_its_end_and_goes_first(
    child: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty files: nothing was written, so nothing made it urgent."""
    monkeypatch.setattr(footprint, "WALK_BUDGET_S", 0.0)
    monkeypatch.setattr(footprint, "URGENT_BUDGET_S", 0.0)
    monkeypatch.setattr(diskuse, "ENTRIES_PER_STEP", 10)
    folders = {"busy": tmp_path / "busy", "quiet": tmp_path / "quiet"}
    for folder in folders.values():
        folder.mkdir()
    for number in range(100):
        (folders["busy"] / str(number)).touch()
        (folders["quiet"] / str(number)).touch()
    busy = wanted(child, folders["busy"])._replace(key="busy", disk_bytes=20 * 4096)
    quiet = wanted(child, folders["quiet"])._replace(key="quiet")
    prints, procs = Footprints(), proctree.scan()
    seen = [prints.look([quiet, busy] if n > 1 else [busy, quiet], procs, {}, Index(procs), 0.0) for n in range(5)]
    assert [one["busy"].disk_bytes for one in seen] == [None, *[n * 10 * 4096 for n in (2, 3, 4, 5)]]
    assert [one["quiet"].disk_bytes for one in seen] == [None] * 5
