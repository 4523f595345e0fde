"""Tar archives: what honest tools write comes out the same, and what hostile ones write does not come out at all."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.deploy.source.archive import Unpacked, unpack
from controlplane.errors import ArchiveRejected
from tests.deploy.source.archives import (
    contents,
    header,
    long_name,
    member,
    pax,
    record,
    refused,
    repository,
    tar,
    unpacked,
)
from tests.deploy.source.test_archive_zip import TREES, standing

FILE = member(b"server.py", b"print('moo')\n")
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
}


def link(name: bytes, target: bytes) -> bytes:
    return header(name, sort=b"2", target=target, mode=0o777)


# -- what honest tools write


@pytest.mark.parametrize("packer", PACKERS)
def test_an_archive_comes_out_as_it_went_in_however_it_is_packed(tmp_path: Path, packer: str) -> None:
    raw = tar(
        header(b"./", sort=b"5", mode=0o755),
        FILE,
        member(b"./src/app.py", b"moo " * 1000),
        header(b"bin/", sort=b"5", mode=0o755),
        member(b"bin/run", b"#!/bin/sh\n", mode=0o6777),
        member("übung/日本.txt".encode(), b"x", mode=0),
        link(b"bin/app", b"../src/app.py"),
        header(b"old/", sort=b"\0", magic=b""),
        member(b"old/style", b"1979", sort=b"\0", magic=b""),
    )

    result = unpacked(PACKERS[packer](raw), "tar", tmp_path)

    into = tmp_path / "into"
    assert result == Unpacked(files=5, bytes=13 + 4000 + 10 + 1 + 4, root=None)
    assert contents(into) == {
        "bin": None,
        "bin/app": "../src/app.py",
        "bin/run": b"#!/bin/sh\n",
        "old": None,
        "old/style": b"1979",
        "server.py": b"print('moo')\n",
        "src": None,
        "src/app.py": b"moo " * 1000,
        "übung": None,
        "übung/日本.txt": b"x",
    }
    assert stat.S_IMODE((into / "bin/run").stat().st_mode) == 0o700
    assert stat.S_IMODE((into / "server.py").stat().st_mode) == 0o600
    assert stat.S_IMODE((into / "übung/日本.txt").stat().st_mode) == 0o600
    assert stat.S_IMODE((into / "src").stat().st_mode) == 0o700


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    tree=TREES,
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    packer=st.sampled_from(sorted(PACKERS)),
    deep=st.booleans(),
)
def test_what_the_standard_library_wrote_comes_out_the_same(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes], form: int, packer: str, deep: bool
) -> None:
    folder = tmp_path_factory.mktemp("round")
    above = "/".join(["a-long-folder-name"] * 6) + "/" if deep else ""
    tree = standing({above + name: data for name, data in ({"a": b"at least one"} | tree).items()})
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        for name, data in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    result = unpacked(PACKERS[packer](raw.getvalue()), "tar", folder, strip=False)

    assert {name: data for name, data in contents(folder / "into").items() if data is not None} == tree
    assert (result.files, result.bytes) == (len(tree), sum(map(len, tree.values())))


@pytest.mark.needs("git")
def test_what_git_wrote_comes_out_the_same(tmp_path: Path) -> None:
    source = repository(tmp_path / "project")
    made = ["git", "archive", "--format=tar.gz", "--prefix=project-1.0/", "-o", tmp_path / "made.tar.gz", "HEAD"]
    subprocess.run(made, cwd=source, check=True, timeout=30)

    result = unpack(tmp_path / "made.tar.gz", "tar", tmp_path / "into")

    expected = {name: text for name, text in contents(source).items() if name.partition("/")[0] != ".git"}
    assert contents(tmp_path / "into") == expected
    assert result.root == "project-1.0"
    assert os.access(tmp_path / "into/bin/run", os.X_OK)


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_wrote_comes_out_the_same(tmp_path: Path, form: str) -> None:
    source = tmp_path / "project"
    deep = source / "/".join(["folder-of-some-length"] * (8 if form in {"gnu", "oldgnu", "posix"} else 3))
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"moo")
    (source / "run").write_bytes(b"#!/bin/sh\n")
    (source / "link").symlink_to(deep.relative_to(source) / "file")
    subprocess.run(
        ["tar", "-cf", "made.tar", f"--format={form}", "-C", "project", "."], cwd=tmp_path, check=True, timeout=30
    )

    unpack(tmp_path / "made.tar", "tar", tmp_path / "into", strip=False)

    assert contents(tmp_path / "into") == contents(source)


def test_the_one_folder_that_everything_is_in_becomes_the_root(tmp_path: Path) -> None:
    raw = tar(pax(b"g", comment=b"c0ffee"), header(b"moo-1.0/", sort=b"5"), member(b"moo-1.0/a", b"a"))

    result = unpacked(raw, "tar", tmp_path)

    assert result.root == "moo-1.0"
    assert contents(tmp_path / "into") == {"a": b"a"}


def test_long_names_and_sizes_of_either_kind_are_taken(tmp_path: Path) -> None:
    name = b"d/" + b"x" * 200
    raw = tar(
        long_name(name), member(b"cut", b"gnu"),
        pax(path=b"p/" + name, mtime=b"1.5", SCHILY__xattr__user__moo=b"=\n="), member(b"cut", b"pax"),
        pax(size=b"3"), header(b"sized") + b"moo".ljust(512, b"\0"),
        member(b"rest", b"ustar", prefix=b"pre/fix"),
        long_name(b"x/" * 60 + b"../" * 60 + b"a", b"K"), link(b"l", b"cut"),
        header(b"label", sort=b"V"),
        member(b"seven", b"7", sort=b"7"),
    )  # fmt: skip

    unpacked(raw, "tar", tmp_path)

    assert {name: data for name, data in contents(tmp_path / "into").items() if data is not None} == {
        name.decode(): b"gnu",
        "p/" + name.decode(): b"pax",
        "sized": b"moo",
        "pre/fix/rest": b"ustar",
        "seven": b"7",
    }


def test_a_size_in_binary_is_taken(tmp_path: Path) -> None:
    raw = tar(header(b"a", raw_size=b"\x80" + (3).to_bytes(11, "big")) + b"moo".ljust(512, b"\0"))

    unpacked(raw, "tar", tmp_path)

    assert contents(tmp_path / "into") == {"a": b"moo"}


@pytest.mark.parametrize("packer", ["gz", "bz2", "xz", "zst"])
def test_what_was_packed_in_several_pieces_is_one_archive(tmp_path: Path, packer: str) -> None:
    raw, pack = tar(FILE), PACKERS[packer]

    unpacked(pack(raw[:700]) + pack(b"") + pack(raw[700:]) + bytes(512), "tar", tmp_path)

    assert contents(tmp_path / "into") == {"server.py": b"print('moo')\n"}


def test_a_frame_of_zstd_that_is_to_be_skipped_is_skipped(tmp_path: Path) -> None:
    unpacked(b"\x50\x2a\x4d\x18\3\0\0\0moo" + zstd.compress(tar(FILE)), "tar", tmp_path)

    assert contents(tmp_path / "into") == {"server.py": b"print('moo')\n"}


def test_a_file_named_like_a_packer_is_no_packer(tmp_path: Path) -> None:
    unpacked(tar(member(b"BZh", b"x")), "tar", tmp_path)

    assert contents(tmp_path / "into") == {"BZh": b"x"}


def test_one_block_of_zeros_is_an_end(tmp_path: Path) -> None:
    unpacked(tar(FILE, end=bytes(512)), "tar", tmp_path)

    assert contents(tmp_path / "into") == {"server.py": b"print('moo')\n"}


# -- escapes


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (member(b"../x", b"x"), "'../x' leads out"),
        (member(b"a/../../x", b"x"), "leads out"),
        (member(b"x", b"x", prefix=b".."), "leads out"),
        (member(b"/etc/x", b"x"), "absolute"),
        (member(b"x", b"x", prefix=b"/etc"), "absolute"),
        (pax(path=b"../x") + member(b"a", b"x"), "leads out"),
        (pax(path=b"/x") + member(b"a", b"x"), "absolute"),
        (pax(path=b"a\0/../x") + member(b"a", b"x"), "control character"),
        (pax(path=b"") + member(b"a", b"x"), "empty part"),
        (pax(hdrcharset=b"BINARY", path=b"\xff") + member(b"a", b"x"), "not UTF-8"),
        (long_name(b"../x") + member(b"a", b"x"), "leads out"),
        (member(b"C:x", b"x"), "drive letter"),
        (member(b"..\\x", b"x"), "backslash"),
        (member(b"a\nb", b"x"), "control character"),
        (member(b"caf\xe9", b"x"), r"'caf\xe9' is not UTF-8"),
        (long_name(b"x" * 300) + member(b"a", b"x"), "255 bytes"),
        (long_name(b"x/" * 2000) + member(b"a", b"x"), "folders deep"),
        (member(b"SERVER.PY", b"x"), "only in case"),
        (member(b"server.py", b"x"), "in it twice"),
        (member(b"server.py/x", b"x"), "needs 'server.py' to be a folder"),
        (header(b"server.py", sort=b"5"), "needs 'server.py' to be a folder"),
        (header(b"l", sort=b"1", target=b"server.py"), "'l' is a hard link"),
        (header(b"l", sort=b"1", target=b"/etc/passwd"), "'l' is a hard link"),
        (link(b"l", b"/etc/passwd"), "'l' is a link out of the source"),
        (link(b"l", b"../x"), "link out of the source"),
        (link(b"l", b"a/../../x"), "link out of the source"),
        (link(b"l", b"l"), "through another link"),
        (link(b"l", b""), "empty"),
        (pax(linkpath=b"../x") + link(b"l", b"server.py"), "link out of the source"),
        (long_name(b"../x", b"K") + link(b"l", b"server.py"), "link out of the source"),
        (link(b"l", b"d") + header(b"d", sort=b"5") + member(b"l/x", b"x"), "needs 'l' to be a folder"),
        (header(b"d", sort=b"3"), "is a device"),
        (header(b"d", sort=b"4"), "is a device"),
        (header(b"d", sort=b"6"), "is a named pipe"),
        (header(b"d", sort=b"S"), "is a sparse file"),
        (header(b"d", sort=b"M"), "the rest of a file"),
        (header(b"d", sort=b"D"), "a kind that is not known"),
        (header(b"d", sort=b"Z"), "a kind that is not known"),
        (pax(GNU__sparse__major=b"1", GNU__sparse__minor=b"0") + member(b"a", b"x"), "sparse"),
        (member(b"d", b"x", sort=b"5"), "has contents"),
        (member(b"l", b"x", sort=b"2", target=b"server.py"), "has contents"),
    ],
)
def test_an_entry_that_could_escape_is_refused_and_nothing_is_kept(tmp_path: Path, entry: bytes, reason: str) -> None:
    assert reason in refused(tar(FILE, entry), "tar", tmp_path)


def test_no_set_user_bit_and_no_owner_is_kept(tmp_path: Path) -> None:
    unpacked(tar(member(b"a", b"x", mode=0o7777), header(b"d/", sort=b"5", mode=0o1777)), "tar", tmp_path)

    for name, mode in (("a", 0o700), ("d", 0o700)):
        status = (tmp_path / "into" / name).stat()
        assert stat.S_IMODE(status.st_mode) == mode
        assert status.st_uid == os.geteuid()


def test_links_that_took_the_standard_librarys_filter_outside_are_refused(tmp_path: Path) -> None:
    """A chain of folders and links whose real path is too long to be resolved (CVE-2025-4517)."""
    part, steps = b"d" * 247, b"abcdefghijklmnop"
    entries, path = [], b""
    for step in steps:
        entries.append(pax(path=path + part) + header(b"d", sort=b"5"))
        entries.append(pax(path=path + bytes([step]), linkpath=part) + link(b"l", b"x"))
        path += part + b"/"
    through = b"/".join(bytes([step]) for step in steps) + b"/" + b"l" * 254
    entries.append(pax(path=through, linkpath=b"../" * len(steps)) + link(b"l", b"x"))
    entries.append(pax(path=b"escape", linkpath=through + b"/../../etc") + link(b"l", b"x"))

    refused(tar(FILE, *entries), "tar", tmp_path)


# -- lies


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "cut short"),
        (b"moo", "cut short"),
        (b"moo" * 1000, "no tar archive"),
        (bytes(1024), "holds no files"),
        (tar(header(b"d/", sort=b"5")), "holds no files"),
        (tar(FILE, end=b""), "cut short"),
        (tar(FILE)[:700], "cut short"),
        (FILE[:520], "'server.py' is cut short"),
        (tar(FILE, end=bytes(512) + b"moo"), "more data behind its end"),
        (tar(FILE) + tar(FILE), "more data behind its end"),
        (tar(FILE, end=bytes(2 * 2**20)), "more data behind its end"),
        (tar(FILE, b"x" * 512), "is damaged"),
        (tar(FILE, header(b"a")[:-1] + b"x"), "is damaged"),
        (tar(header(b"a", raw_size=b"9" * 12)), "no number"),
        (tar(header(b"a", raw_size=b"\xff" * 12)), "no number"),
        (tar(header(b"a", raw_size=b"0000001x000\0")), "no number"),
        (tar(header(b"a", raw_size=b"\x80" + b"\xff" * 11)), "a file has at most"),
        (tar(pax(size=b"-1") + header(b"a")), "no number"),
        (tar(pax(size=b"9" * 30) + header(b"a")), "no number"),
        (tar(pax(size=b"9" * 19) + header(b"a")), "a file has at most"),
        (tar(long_name(b"a"), long_name(b"b"), FILE), "two long names"),
        (tar(long_name(b"a"), pax(path=b"b"), FILE), "two long names"),
        (tar(pax(path=b"a"), pax(path=b"b"), FILE), "two long names"),
        (tar(long_name(b"a")), "ends where an entry should come"),
        (tar(pax(b"g", path=b"a"), FILE), "gives every entry one name"),
        (tar(pax(b"g", size=b"1"), FILE), "gives every entry one name"),
        (tar(*[pax(b"g", comment=b"moo")] * 100, FILE), "too many headers"),
        (tar(member(b"p", b"moo", sort=b"x"), FILE), "damaged pax header"),
        (tar(member(b"p", b"99 path=a\n", sort=b"x"), FILE), "damaged pax header"),
        (tar(member(b"p", b"0 path=a\n", sort=b"x"), FILE), "damaged pax header"),
        (tar(member(b"p", b"-9 path=a\n", sort=b"x"), FILE), "damaged pax header"),
        (tar(member(b"p", b" path=a\n", sort=b"x"), FILE), "damaged pax header"),
        (tar(member(b"p", b"9 pathaaa\n", sort=b"x"), FILE), "damaged pax header"),
        (tar(member(b"p", record("path", b"a") + b"\0", sort=b"x"), FILE), "damaged pax header"),
        (tar(header(b"p", size=2**30, sort=b"x")), "a header of 1,073,741,824 bytes"),
        (tar(header(b"p", size=2**30, sort=b"L")), "a header of 1,073,741,824 bytes"),
        (tar(header(b"p", size=2**30, sort=b"g")), "a header of 1,073,741,824 bytes"),
        (tar(header(b"p", size=2**30, sort=b"V")), "a header of 1,073,741,824 bytes"),
    ],
)
def test_an_archive_that_lies_or_is_not_whole_is_refused(tmp_path: Path, raw: bytes, reason: str) -> None:
    assert reason in refused(raw, "tar", tmp_path)


@pytest.mark.parametrize("packer", ["gz", "bz2", "xz", "zst"])
@pytest.mark.parametrize(
    ("mangle", "reason"),
    [
        (lambda raw: raw[:-4], "cut short"),
        (lambda raw: raw[: len(raw) // 2], "cut short"),
        (lambda raw: raw + b"moo", "it is damaged"),
        (lambda raw: raw[:20] + bytes(len(raw) - 20), ""),
    ],
    ids=["ends early", "half", "more", "damaged"],
)
def test_packed_data_that_is_not_whole_is_refused(tmp_path: Path, packer: str, mangle: Any, reason: str) -> None:
    raw = tar(member(b"a", os.urandom(3000)))

    text = refused(mangle(PACKERS[packer](raw)), "tar", tmp_path)

    assert reason in text or "cut short" in text


@pytest.mark.parametrize("packer", ["gz", "bz2", "xz", "zst"])
def test_what_is_packed_twice_is_refused(tmp_path: Path, packer: str) -> None:
    raw = PACKERS[packer](PACKERS[packer](tar(member(b"a", os.urandom(3000)))))

    assert "it holds another compressed file" in refused(raw, "tar", tmp_path)


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"PK\3\4", '"zip"'),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (b"Rar!\x1a\7", "RAR"),
    ],
)
def test_another_kind_of_archive_is_told_from_a_tar(tmp_path: Path, start: bytes, told: str) -> None:
    with pytest.raises(ArchiveRejected) as caught:
        unpacked(start.ljust(1024, b"x"), "tar", tmp_path)

    assert told in (caught.value.hint or "")


@given(st.integers(min_value=0), st.binary(min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_a_damaged_archive_is_refused_or_comes_out_whole(tmp_path_factory: Any, at: int, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("damaged", numbered=True)
    raw = bytearray(tar(pax(path=b"a/b"), FILE, long_name(b"d/b"), FILE, link(b"l", b"d/b")))
    at %= len(raw)
    raw[at : at + len(junk)] = junk

    try:
        unpacked(bytes(raw), "tar", folder)
    except ArchiveRejected:
        assert sorted(os.listdir(folder)) == ["archive"]
