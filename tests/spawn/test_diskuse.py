"""What trees take on the disk, counted however deep they are: real trees, made and changed here."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controlplane.spawn import diskuse
from controlplane.spawn.diskuse import ENTRIES_PER_STEP, FOLDER, FOLDERS_OPEN, UNSTEADY, Tally, count, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20
NAME = "d" * 200


def write_below(top: Path, depth: int, size: int) -> None:
    """Put a file below `depth` folders, each made in the one before."""
    fd = os.open(top, FOLDER)
    for _ in range(depth):
        os.mkdir(NAME, dir_fd=fd)
        below = os.open(NAME, FOLDER, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.write(file, b"x" * size)
    os.close(file)
    os.close(fd)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def links() -> list[str]:
    """Where what this process has open lies."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(str(Path(f"/proc/self/fd/{name}").readlink()))
    return found


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "top"
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def test_what_lies_below_a_path_that_is_too_long_counts(top: Path) -> None:
    write_below(top, 60, MIB)
    assert 60 * len(NAME) > 2 * 4096
    before = open_files()
    tally = count(Tally(), top)
    assert MIB + 60 * 4096 <= tally.size_bytes < MIB + 61 * 8192
    assert tally.entries == 61
    assert tally.beyond is None
    assert open_files() == before


def test_few_folders_are_open_at_a_time_and_none_when_a_walk_is_given_up(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_below(top, 60, 1)
    monkeypatch.setattr(diskuse, "ENTRIES_PER_STEP", 1)
    before, most = open_files(), 0
    for _ in walk(str(top), Tally()):
        most = max(most, open_files() - before)
    assert FOLDERS_OPEN <= most <= FOLDERS_OPEN + 4
    steps = walk(str(top), Tally())
    for _ in range(30):
        next(steps)
    steps.close()
    assert open_files() == before


def test_an_empty_file_counts_for_its_inode(top: Path) -> None:
    for number in range(300):
        (top / str(number)).touch()
    assert count(Tally(), top).size_bytes == 300 * 4096


def test_who_has_too_many_entries_is_over_any_limit(top: Path) -> None:
    for number in range(300):
        (top / str(number)).touch()
    tally = count(Tally(most=200), top)
    assert tally.entries == 200
    assert tally.beyond == "has more than 200 files and folders, beyond which its disk is not counted"
    of_others = count(Tally(uid=os.getuid() + 1, most=300), top)
    assert (of_others.entries, of_others.beyond) == (0, None)
    assert count(Tally(uid=os.getuid() + 1, most=70), top).beyond is not None, "they are looked at all the same"


def test_no_link_is_followed_and_each_inode_counts_once(top: Path) -> None:
    (top / "a").write_bytes(b"x" * MIB)
    os.link(top / "a", top / "b")
    (top / "usr").symlink_to("/usr")
    (top / "self").symlink_to(".")
    assert MIB <= count(Tally(), top).size_bytes < MIB + 64 * 1024
    assert count(Tally(), top / "usr").entries == 0


def test_a_folder_that_is_moved_during_the_walk_is_counted_once(top: Path) -> None:
    """From below the folders that stay open: the way up from it does not lead back."""
    deep = top.joinpath(*"d" * (FOLDERS_OPEN + 2))
    (deep / "e/f").mkdir(parents=True)
    for number in range(2 * ENTRIES_PER_STEP):
        (deep / "e/f" / str(number)).touch()
    (deep / "file").write_bytes(b"x" * MIB)
    still = count(Tally(), top)
    tally = Tally()
    steps = walk(str(top), tally)
    next(steps)
    shutil.move(deep / "e/f", top / "f")
    for _ in steps:
        pass
    assert tally.beyond is None
    assert MIB <= tally.size_bytes <= still.size_bytes + 8192


def test_who_moves_folders_all_the_time_is_over_any_limit(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diskuse, "ENTRIES_PER_STEP", 1)
    inside = top.joinpath(*"d" * (FOLDERS_OPEN + 1), "moving")
    inside.mkdir(parents=True)
    (inside / "file").touch()
    outside = top.parent / "moving"
    tally = Tally()
    for _ in walk(str(top), tally):
        being_read = any(link.endswith("/moving") for link in links())
        if being_read and inside.exists():
            inside.rename(outside)
        elif not being_read and outside.exists():
            outside.rename(inside)
    assert tally.beyond == UNSTEADY
