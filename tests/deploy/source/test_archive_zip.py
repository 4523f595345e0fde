"""ZIP archives: what honest tools write comes out the same, and what hostile ones write does not come out at all."""

from __future__ import annotations

import bz2
import io
import os
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.deploy.source.archive import Unpacked, unpack
from controlplane.errors import ArchiveRejected
from tests.deploy.source.archives import Zipped, contents, deflated, refused, repository, unpacked, zip_of

FILE = Zipped(name=b"server.py", data=b"print('moo')\n")
DATA = b"moo " * 1000


def link(name: bytes, target: bytes) -> Zipped:
    return Zipped(name=name, data=target, mode=stat.S_IFLNK | 0o777)


# -- what honest tools write


def test_an_archive_comes_out_as_it_went_in(tmp_path: Path) -> None:
    result = unpacked(
        zip_of(
            FILE,
            deflated(b"src/app.py", DATA),
            Zipped(name=b"bin/", mode=stat.S_IFDIR | 0o755),
            Zipped(name=b"bin/run", data=b"#!/bin/sh\n", mode=stat.S_IFREG | 0o6777),
            Zipped(name="übung/日本.txt".encode(), data=b"x", flags=1 << 11),
            link(b"bin/app", b"../src/app.py"),
            comment=b"made by hand",
        ),
        "zip",
        tmp_path,
    )

    into = tmp_path / "into"
    assert result == Unpacked(files=4, bytes=13 + 4000 + 10 + 1, root=None)
    assert contents(into) == {
        "bin": None,
        "bin/app": "../src/app.py",
        "bin/run": b"#!/bin/sh\n",
        "server.py": FILE.data,
        "src": None,
        "src/app.py": DATA,
        "übung": None,
        "übung/日本.txt": b"x",
    }
    assert stat.S_IMODE((into / "bin/run").stat().st_mode) == 0o700
    assert stat.S_IMODE((into / "server.py").stat().st_mode) == 0o600
    assert stat.S_IMODE((into / "src").stat().st_mode) == stat.S_IMODE(into.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("method", "packed"),
    [(12, bz2.compress(DATA)), (93, zstd.compress(DATA))],
    ids=["bzip2", "zstd"],
)
def test_newer_methods_are_understood(tmp_path: Path, method: int, packed: bytes) -> None:
    entry = Zipped(name=b"a", data=packed, size=len(DATA), crc=zlib.crc32(DATA), method=method)

    unpacked(zip_of(entry), "zip", tmp_path)

    assert (tmp_path / "into/a").read_bytes() == DATA


NAMES = st.text(st.sampled_from("abcXYZ09._-ü日 "), min_size=1, max_size=8).filter(
    lambda n: n.strip(".") and n[:2] != "._"
)
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=4).map("/".join),
    st.binary(max_size=300) | st.just(b"z" * 100_000),
    max_size=12,
)


def standing(tree: dict[str, bytes]) -> dict[str, bytes]:
    """What of a random tree could stand on a disk that folds case."""
    kept: dict[str, bytes] = {}
    spellings: dict[str, str] = {}
    for name, data in tree.items():
        ways = [name[:at] for at, char in enumerate(name) if char == "/"]
        if any(way in kept for way in ways) or any(spellings.get(way.casefold(), way) != way for way in [*ways, name]):
            continue
        if name.casefold() in spellings:
            continue
        spellings.update({way.casefold(): way for way in [*ways, name]})
        kept[name] = data
    return kept


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    tree=TREES, method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]), data=st.data()
)
def test_what_the_standard_library_wrote_comes_out_the_same(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes], method: int, data: st.DataObject
) -> None:
    tree = standing({"a": b"at least one"} | tree)
    folder = tmp_path_factory.mktemp("round")
    streamed = data.draw(st.booleans())
    raw = io.BytesIO()
    with zipfile.ZipFile(Unseekable(raw) if streamed else raw, "w", method) as archive:
        for name, text in tree.items():
            with archive.open(name, "w", force_zip64=data.draw(st.booleans())) as file:
                file.write(text)

    result = unpacked(raw.getvalue(), "zip", folder, strip=False)

    assert {name: text for name, text in contents(folder / "into").items() if text is not None} == tree
    assert (result.files, result.bytes) == (len(tree), sum(map(len, tree.values())))


class Unseekable(io.RawIOBase):
    """A pipe to write an archive into: sizes then follow the contents."""

    def __init__(self, to: io.BytesIO) -> None:
        self.to = to

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self.to.write(data)


@pytest.mark.needs("git")
def test_what_git_wrote_comes_out_the_same(tmp_path: Path) -> None:
    source = repository(tmp_path / "project")
    made = ["git", "archive", "--format=zip", "--prefix=project-1.0/", "-o", tmp_path / "made.zip", "HEAD"]
    subprocess.run(made, cwd=source, check=True, timeout=30)

    result = unpack(tmp_path / "made.zip", "zip", tmp_path / "into")

    expected = {name: text for name, text in contents(source).items() if name.partition("/")[0] != ".git"}
    assert contents(tmp_path / "into") == expected
    assert result.root == "project-1.0"
    assert os.access(tmp_path / "into/bin/run", os.X_OK)


def test_a_zipapp_is_read_from_behind_its_first_line(tmp_path: Path) -> None:
    raw = io.BytesIO(b"#!/usr/bin/env python3\n")
    raw.seek(0, io.SEEK_END)
    with zipfile.ZipFile(raw, "a") as archive:
        archive.writestr("__main__.py", "print('moo')")
    # `zipfile` appends with offsets from the file's beginning, as `zipapp` does
    unpacked(raw.getvalue(), "zip", tmp_path)

    assert contents(tmp_path / "into") == {"__main__.py": b"print('moo')"}


def test_the_one_folder_that_everything_is_in_becomes_the_root(tmp_path: Path) -> None:
    entries = (
        Zipped(name=b"moo-1.0/", mode=stat.S_IFDIR | 0o755),
        Zipped(name=b"moo-1.0/moo-1.0", data=b"a file of that name"),
        Zipped(name=b"moo-1.0/a", data=b"a"),
        link(b"moo-1.0/l", b"a"),
    )

    result = unpacked(zip_of(*entries), "zip", tmp_path)

    assert result.root == "moo-1.0"
    assert contents(tmp_path / "into") == {"moo-1.0": b"a file of that name", "a": b"a", "l": "a"}
    assert sorted(os.listdir(tmp_path)) == ["archive", "into"]


def test_the_one_folder_stays_where_that_is_asked_for(tmp_path: Path) -> None:
    result = unpacked(zip_of(Zipped(name=b"moo/a", data=b"a")), "zip", tmp_path, strip=False)

    assert result.root == "moo"
    assert contents(tmp_path / "into") == {"moo": None, "moo/a": b"a"}


def test_backslashes_part_folders_in_archives_made_on_windows(tmp_path: Path) -> None:
    entries = (
        Zipped(name=b"src\\", system=0, mode=0),
        Zipped(name=b"src\\app.py", data=b"x", system=0, mode=0),
        Zipped(name=b"top", data=b"y", system=0, mode=0),
    )

    unpacked(zip_of(*entries), "zip", tmp_path)

    assert contents(tmp_path / "into") == {"src": None, "src/app.py": b"x", "top": b"y"}


def test_names_of_macos_that_are_utf8_without_saying_so_are_taken(tmp_path: Path) -> None:
    unpacked(
        zip_of(Zipped(name="u\u0308.py".encode(), data=b"x"), Zipped(name=b"__MACOSX/._a", data=b"y")), "zip", tmp_path
    )

    assert contents(tmp_path / "into") == {"u\u0308.py": b"x"}


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    result = unpacked(
        zip_of(FILE, Zipped(name=b".git/config", data=b"[core]"), Zipped(name=b".DS_Store"), link(b"l", b"nowhere")),
        "zip",
        tmp_path,
    )

    assert contents(tmp_path / "into") == {"server.py": FILE.data}
    assert result.notes == (
        "left out Git's own folder: 1 entries",
        "left out macOS's own files: 1 entries",
        "left out 'l': it is a link to 'nowhere', which is not there",
    )


# -- escapes


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (Zipped(name=b"../x", data=b"x"), "'../x' leads out"),
        (Zipped(name=b"a/../../x", data=b"x"), "leads out"),
        (Zipped(name=b"/etc/x", data=b"x"), "absolute"),
        (Zipped(name=b"C:\\x", data=b"x", system=0), "drive letter"),
        (Zipped(name=b"..\\x", data=b"x", system=0), "leads out"),
        (Zipped(name=b"..\\x", data=b"x"), "backslash"),
        (Zipped(name=b"\\\\host\\x", data=b"x", system=10), "absolute"),
        (Zipped(name=b"a\0/../../x", data=b"x"), "control character"),
        (Zipped(name=b"a\x1b[2J", data=b"x"), r"'a\x1b[2J' has a control"),
        (Zipped(name=b"", data=b"x"), "empty part"),
        (Zipped(name=b"caf\x82", data=b"x"), r"'caf\x82' is not UTF-8"),
        (Zipped(name=b"caf\x82", data=b"x", flags=1 << 11), "is not UTF-8"),
        (Zipped(name=b"x" * 300, data=b"x"), "255 bytes"),
        (Zipped(name=b"d/" * 50 + b"x", data=b"x"), "folders deep"),
        (Zipped(name=b"SERVER.py", data=b"x"), "only in case"),
        (Zipped(name=b"server.py", data=b"x"), "in it twice"),
        (Zipped(name=b"server.py/x", data=b"x"), "needs 'server.py' to be a folder"),
        (link(b"l", b"/etc/passwd"), "'l' is a link out of the source"),
        (link(b"l", b"../../etc/passwd"), "link out of the source"),
        (link(b"l", b"a/../../x"), "link out of the source"),
        (link(b"l", b"l"), "through another link"),
        (link(b"l", b""), "empty"),
        (link(b"l", b"x" * 2000), "too long"),
        (link(b"l", b"\xff"), "not UTF-8"),
        (Zipped(name=b"d", mode=stat.S_IFCHR | 0o666), "neither a file"),
        (Zipped(name=b"d", mode=stat.S_IFBLK | 0o666), "neither a file"),
        (Zipped(name=b"d", mode=stat.S_IFIFO | 0o666), "neither a file"),
        (Zipped(name=b"d", mode=stat.S_IFSOCK | 0o666), "neither a file"),
        (Zipped(name=b"d/", data=b"x"), "folder with contents"),
    ],
)
def test_an_entry_that_could_escape_is_refused_and_nothing_is_kept(tmp_path: Path, entry: Zipped, reason: str) -> None:
    assert reason in refused(zip_of(FILE, entry), "zip", tmp_path)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    entries = (FILE, link(b"l", str(outside).encode()), Zipped(name=b"l/x", data=b"x"))

    with pytest.raises(ArchiveRejected, match="'l/x' needs 'l' to be a folder, but that is a link"):
        unpacked(zip_of(*entries), "zip", tmp_path)

    assert list(outside.iterdir()) == []
    assert not (tmp_path / "into").exists()


def test_a_link_may_not_lead_out_of_the_folder_that_becomes_the_root(tmp_path: Path) -> None:
    entries = (Zipped(name=b"p/a", data=b"x"), link(b"p/l", b"../p/a"))

    assert "'p/l' is a link out of the source" in refused(zip_of(*entries), "zip", tmp_path)


def test_a_chain_of_links_is_refused(tmp_path: Path) -> None:
    entries = (FILE, Zipped(name=b"d/x", data=b"x"), link(b"one", b"d"), link(b"two", b"one/../server.py"))

    assert "'two' is a link through another link" in refused(zip_of(*entries), "zip", tmp_path)


# -- lies


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (Zipped(name=b"a", data=b"moo", crc=1), "'a' is damaged"),
        (evolve(deflated(b"a", DATA), size=10), "'a' has more than the 10 bytes"),
        (evolve(deflated(b"a", DATA), size=10_000), "'a' has 4,000 bytes, and the archive says 10,000"),
        (evolve(deflated(b"a", DATA), data=deflated(b"a", DATA).data[:-5]), "'a' is cut short"),
        (evolve(deflated(b"a", DATA), data=deflated(b"a", DATA).data + b"more"), "more data than its contents take"),
        (evolve(deflated(b"a", DATA), data=b"\xff" * 100), "'a' cannot be decompressed"),
        (Zipped(name=b"a", data=b"moo", flags=1), "'a' is encrypted"),
        (Zipped(name=b"a", data=b"moo", flags=1 << 6 | 1), "'a' is encrypted"),
        (Zipped(name=b"a", data=b"moo", flags=1 << 5), "not whole"),
        (Zipped(name=b"a", data=b"moo", method=9), "method 9"),
        (Zipped(name=b"a", data=b"moo", method=14), "method 14"),
        (Zipped(name=b"a", data=b"moo", packed=2), "not whole"),
        (Zipped(name=b"a", data=b"moo", disk=1), "not whole"),
        (Zipped(name=b"a", data=b"moo", start=0), "shares its data"),
        (Zipped(name=b"a", data=b"moo", start=3), "shares its data"),
        (Zipped(name=b"a", data=b"moo", start=2**31), "shares its data with another entry, or has none"),
        (Zipped(name=b"a", data=b"moo", packed=2**31, size=2**31), "2,147,483,661 bytes"),
        (Zipped(name=b"a", data=b"moo", packed=10**6, size=10**6), "shares its data"),
        (Zipped(name=b"a", data=b"moo", packed=0xFFFFFFFF, size=0xFFFFFFFF), "no 64-bit sizes"),
        (Zipped(name=b"a", data=b"moo", local=FILE.body()), "called something else"),
        (Zipped(name=b"a", data=b"moo", local=b"x" * 40), "not where the archive says"),
        (
            Zipped(name=b"a", data=b"moo", local=Zipped(name=b"a", data=b"moo", size=9).body()),
            "called something else",
        ),
        (Zipped(name=b"a", data=b"moo", local=Zipped(name=b"a", data=b"moo", flags=1).body()), "called something else"),
    ],
)
def test_an_entry_that_lies_is_refused(tmp_path: Path, entry: Zipped, reason: str) -> None:
    assert reason in refused(zip_of(FILE, entry), "zip", tmp_path)


def test_entries_that_share_their_data_are_refused_before_any_is_written(tmp_path: Path) -> None:
    """The densest bombs let each file contain the local headers of those behind it."""
    kernel = Zipped(name=b"b", data=b"moo" * 10)
    outer = Zipped(name=b"a", data=kernel.body(), local=Zipped(name=b"a", data=kernel.body()).body())
    inner_start = 30 + 1
    whole = zip_of(outer, evolve(kernel, local=b"", start=inner_start))

    assert "'a' shares its data with another entry" in refused(whole, "zip", tmp_path)


@pytest.mark.parametrize(
    ("mangle", "reason"),
    [
        (lambda raw: raw[:-1], "cut short"),
        (lambda raw: raw[: len(raw) // 2], "cut short"),
        (lambda raw: raw[40:], "not where it says"),
        (lambda raw: b"x" * 40 + raw, "not where it says"),
        (lambda raw: raw + b"more", "more data behind its end"),
        (lambda raw: raw + raw[:10], "more data behind its end"),
        (lambda raw: raw + raw, "not where it says"),
        (lambda raw: b"", "no ZIP archive"),
        (lambda raw: b"PK\5\6", "no ZIP archive"),
        (lambda raw: b"moo" * 1000, "no ZIP archive"),
        (lambda raw: raw.replace(b"PK\1\2", b"PK\1\3"), "table of contents is damaged"),
    ],
)
def test_an_archive_that_is_not_whole_is_refused(tmp_path: Path, mangle: Any, reason: str) -> None:
    assert reason in refused(mangle(zip_of(FILE)), "zip", tmp_path)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (zip_of(FILE, count=0), "more entries than it says"),
        (zip_of(FILE, count=2), "fewer entries than it says"),
        (zip_of(FILE, count=0xFFFF), "fewer entries than it says"),
        (zip_of(FILE, table_start=0), "not where it says"),
        (zip_of(FILE, table_start=0xFFFFFFFF), "not where it says"),
        (zip_of(), "holds no files"),
        (zip_of(Zipped(name=b"d/")), "holds no files"),
        (zip_of(Zipped(name=b".git/config", data=b"x")), "holds no files"),
    ],
)
def test_a_table_of_contents_that_lies_is_refused(tmp_path: Path, raw: bytes, reason: str) -> None:
    assert reason in refused(raw, "zip", tmp_path)


def end_of(raw: bytes, **said: int) -> bytes:
    """The archive with its last record's fields changed."""
    names = ("disk", "table_disk", "here", "entries", "table_bytes", "table_start", "comment")
    values = dict(zip(names, struct.unpack("<4H2LH", raw[-18:]), strict=True)) | said
    return raw[:-18] + struct.pack("<4H2LH", *values.values())


@pytest.mark.parametrize("said", [{"disk": 1}, {"table_disk": 1}, {"here": 0}])
def test_one_part_of_several_is_refused(tmp_path: Path, said: dict[str, int]) -> None:
    assert "one part of several" in refused(end_of(zip_of(FILE), **said), "zip", tmp_path)


def in_64_bits(raw: bytes, entries: int | None = None, **said: int) -> bytes:
    """The archive with 64-bit records at its end, and nothing in the 32-bit one."""
    here, table_bytes, table_start = struct.unpack("<HLL", raw[-12:-2])
    values = {"disk": 0, "table_bytes": table_bytes, "table_start": table_start, "at": len(raw) - 22, "disks": 1} | said
    count = here if entries is None else entries
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, values["disk"], 0, count, count,
        values["table_bytes"], values["table_start"],
    )  # fmt: skip
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, values["at"], values["disks"])
    full = 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0
    return raw[:-22] + record + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *full)


def test_64_bit_records_are_understood(tmp_path: Path) -> None:
    entry = Zipped(
        name=b"a", data=b"moo", size=0xFFFFFFFF, packed=0xFFFFFFFF, crc=zlib.crc32(b"moo"),
        extra=struct.pack("<2H2H2Q", 7, 0, 1, 16, 3, 3),
    )  # fmt: skip

    unpacked(in_64_bits(zip_of(entry)), "zip", tmp_path)

    assert contents(tmp_path / "into") == {"a": b"moo"}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"entries": 2**63}, "9,223,372,036,854,775,808 entries"),
        ({"entries": 2}, "fewer entries"),
        ({"table_bytes": 2**63}, "not where it says"),
        ({"table_start": 2**63}, "not where it says"),
        ({"at": 2**63}, "not where it says"),
        ({"at": 0}, "not where it says"),
        ({"disk": 1}, "one part of several"),
        ({"disks": 2}, "one part of several"),
    ],
)
def test_64_bit_records_that_lie_are_refused(tmp_path: Path, said: dict[str, int], reason: str) -> None:
    assert reason in refused(in_64_bits(zip_of(FILE), **said), "zip", tmp_path)


@given(st.integers(min_value=0), st.binary(min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_a_damaged_archive_is_refused_or_comes_out_whole(tmp_path_factory: Any, at: int, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("damaged", numbered=True)
    raw = bytearray(zip_of(FILE, deflated(b"d/b", DATA), link(b"l", b"d/b")))
    at %= len(raw)
    raw[at : at + len(junk)] = junk

    try:
        unpacked(bytes(raw), "zip", folder)
    except ArchiveRejected:
        assert sorted(os.listdir(folder)) == ["archive"]


def test_a_tar_that_is_called_zip_is_told_from_one(tmp_path: Path) -> None:
    with pytest.raises(ArchiveRejected) as caught:
        unpacked(b"\x1f\x8b\x08moo", "zip", tmp_path)

    assert caught.value.hint is not None
    assert '"tar"' in caught.value.hint


def test_a_folder_that_is_there_already_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "into/precious").write_text("moo")

    with pytest.raises(FileExistsError):
        unpacked(zip_of(FILE), "zip", tmp_path)

    assert contents(tmp_path / "into") == {"precious": b"moo"}


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_an_archive_that_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "archive"
    if kind == "fifo":
        os.mkfifo(archive)
    elif kind == "link":
        archive.symlink_to(sys.executable)
    else:
        archive.mkdir()

    with pytest.raises((ArchiveRejected, OSError)):
        unpack(archive, "zip", tmp_path / "into")

    assert not (tmp_path / "into").exists()
