"""The archive as a stream of bytes: whole, or refused with the reason."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from controlplane.backup.archive import ABOUT, LEVEL, Damaged, reading, writing
from controlplane.backup.making import merged
from controlplane.backup.postgres import split_password
from controlplane.backup.restoring import Unpacking
from controlplane.home import HomeUnusable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def archive_of(*members: tuple[str, bytes], sealed: bool = True) -> bytes:
    target = io.BytesIO()
    with writing(target) as archive:
        archive.text(ABOUT, b'{"format": 1}')
        for name, content in members:
            archive.text(name, content)
        if sealed:
            archive.seal()
    return target.getvalue()


def contents(data: bytes) -> dict[str, bytes]:
    with reading(io.BytesIO(data)) as reader:
        return {info.name: content.read() for info, content in reader.members()}


def test_what_is_written_is_read_and_nobody_else_may_read_it() -> None:
    data = archive_of(("secret-key", b"k\n"), ("database.dump", bytes(range(256)) * 9000))
    with reading(io.BytesIO(data)) as reader:
        assert reader.about == {"format": 1}
        found = {info.name: (info.mode, content.read()) for info, content in reader.members()}
    assert found == {"secret-key": (0o600, b"k\n"), "database.dump": (0o600, bytes(range(256)) * 9000)}


def repacked(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return gzip.compress(change(gzip.decompress(data)), LEVEL)


def test_an_archive_that_was_cut_off_before_its_seal_is_refused() -> None:
    data = archive_of(("secret-key", os.urandom(3000)))
    for length in range(0, 3000, 7):
        with pytest.raises(Damaged):
            contents(data[:length])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no backup"),
        (b"no gzip at all", "no backup"),
        (gzip.compress(b"no tar at all" * 100), "no backup"),
        (archive_of(("secret-key", b"k"), sealed=False), "its end is missing"),
        (repacked(archive_of(("secret-key", b"kkkk")), lambda tar: tar.replace(b"kkkk", b"kkki")), "checksum"),
        (
            repacked(archive_of(("secret-key", b"k")), lambda tar: tar.replace(b'"format": 1', b'"format": 2')),
            "checksum",
        ),
    ],
)
def test_what_is_no_backup_or_was_changed_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(Damaged, match=words):
        contents(data)


def test_a_file_that_grows_or_shrinks_meanwhile_has_the_length_it_had(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"0123456789")
    target = io.BytesIO()
    with writing(target) as archive, open(tmp_path / "log", "rb", buffering=0) as file:
        archive.text(ABOUT, b"{}")
        before = os.fstat(file.fileno())
        with open(tmp_path / "log", "ab") as more:
            more.write(b"more")
        archive.file("grown", file, before)
        os.truncate(tmp_path / "log", 4)
        file.seek(0)
        archive.file("cut", file, before)
        file.seek(0)
        archive.file("now", file, os.fstat(file.fileno()))
        archive.seal()
    assert contents(target.getvalue()) == {"grown": b"0123456789", "cut": b"0123" + bytes(6), "now": b"0123"}


# -- unpacking


def hostile(*infos: tarfile.TarInfo) -> bytes:
    """An archive whose seal is right, though what it holds is not."""
    target = io.BytesIO()
    with writing(target) as archive:
        archive.text(ABOUT, b"{}")
        for info in infos:
            archive._add(info, io.BytesIO(bytes(info.size)) if info.isreg() else None)
        archive.seal()
    return target.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid = kind, link, 0o600, os.geteuid(), os.getegid()
    return info


@pytest.mark.parametrize(
    "infos",
    [
        (member("/etc/passwd"),),
        (member("uploads/../../evil"),),
        (member("instances//evil"),),
        (member("owner-id"),),
        (member("lock"),),
        (member("secret-key", tarfile.SYMTYPE, "/etc/passwd"),),
        (member("uploads/a", tarfile.SYMTYPE, "/etc"),),
        (member("instances/a/home", tarfile.SYMTYPE, "/etc"),),
        (member("instances/a/home/pipe", tarfile.FIFOTYPE),),
        (member("instances/a/home/disk", tarfile.BLKTYPE),),
        (member("instances/a/home/other", tarfile.LNKTYPE, "/etc/passwd"),),
    ],
    ids=lambda infos: f"{infos[0].name} {infos[0].type.decode()}",
)
def test_what_no_backup_holds_is_refused(tmp_path: Path, infos: tuple[tarfile.TarInfo, ...]) -> None:
    with pytest.raises(Damaged, match="it holds"), reading(io.BytesIO(hostile(*infos))) as reader:
        Unpacking(tmp_path, as_root=False).unpack(reader)


def test_a_link_leads_nobody_out_of_the_folder(tmp_path: Path) -> None:
    """Links are made last: what is said to be below one is a folder of its own, and the link has no room."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    data = hostile(
        member("instances/a/home", tarfile.DIRTYPE),
        member("instances/a/home/l", tarfile.SYMTYPE, str(outside)),
        member("instances/a/home/l/written"),
    )
    with pytest.raises(FileExistsError), reading(io.BytesIO(data)) as reader:
        Unpacking(root, as_root=False).unpack(reader)
    assert list(outside.iterdir()) == []


def test_a_link_below_a_link_is_refused(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    data = hostile(
        member("instances/a/home", tarfile.DIRTYPE),
        member("instances/a/home/l", tarfile.SYMTYPE, str(outside)),
        member("instances/a/home/l/m", tarfile.SYMTYPE, "/etc/passwd"),
    )
    with pytest.raises(Damaged, match="below a link"), reading(io.BytesIO(data)) as reader:
        Unpacking(root, as_root=False).unpack(reader)
    assert list(outside.iterdir()) == []


# -- keys and addresses


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (("a",), ("a",), ("a",)),
        (("a",), ("b", "a"), ("b", "a")),
        (("b", "a"), ("b",), ("b", "a")),
        (("a",), ("b",), ("b", "a")),
        ((), (), ()),
    ],
)
def test_the_key_in_force_and_the_one_before_it_are_kept(
    before: tuple[str, ...], after: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    assert merged(before, after) == kept


def test_two_new_keys_during_one_backup_are_too_many() -> None:
    with pytest.raises(HomeUnusable, match="make it again"):
        merged(("a",), ("c", "b"))


@pytest.mark.parametrize(
    ("url", "bare", "password"),
    [
        ("postgresql://u:p%40ss@h:5432/d?sslmode=require", "postgresql://u@h:5432/d?sslmode=require", "p@ss"),
        ("postgresql://u:p@/d?host=/run/x", "postgresql://u@/d?host=/run/x", "p"),
        ("postgresql://u@h/d", "postgresql://u@h/d", None),
        ("postgresql:///d", "postgresql:///d", None),
        ("postgresql://h/d?user=u&password=p%40ss&sslmode=require", "postgresql://h/d?user=u&sslmode=require", "p@ss"),
        ("postgresql://u:old@h/d?pass%77ord=new", "postgresql://u@h/d", "new"),
        ("postgresql://h/d?passwords=1&user=password", "postgresql://h/d?passwords=1&user=password", None),
    ],
)
def test_the_password_is_taken_out_of_an_address(url: str, bare: str, password: str | None) -> None:
    assert split_password(url) == (bare, password)


def test_the_documents_are_json() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive_of(("secret-key", b"k")))) as tar:
        assert tar.getnames() == [ABOUT, "secret-key", "seal.json"]
        seal = tar.extractfile("seal.json")
        assert seal is not None
        assert json.load(seal)["members"] == 2
