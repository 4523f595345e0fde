"""What is read of a source's folder, and its identity."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings

from controlplane.deploy.source.listing import ListingLimits, check_names, digest_tree, read_tree
from controlplane.errors import SourceRejected
from runtimes.tree import MANIFEST_MAX_BYTES
from tests.deploy.source.test_archive_zip import TREES, standing


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    plant(folder, {"package.json": b"{}", "src/app.py": b"print('moo')\n", "src/deep/er/x": b"x"})
    return folder


def plant(folder: Path, tree: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_files_are_listed_and_read_by_their_names(source: Path) -> None:
    (source / "empty").mkdir()

    tree = read_tree(source)

    assert tree.files == {"package.json", "src/app.py", "src/deep/er/x"}
    assert tree.text("src/app.py") == "print('moo')\n"
    assert tree.read("src/deep/er/x") == b"x"


def test_of_a_long_file_the_beginning_is_read(source: Path) -> None:
    (source / "long").write_bytes(b"x" * (MANIFEST_MAX_BYTES + 1))

    assert read_tree(source).read("long") == b"x" * MANIFEST_MAX_BYTES


def test_links_pipes_sockets_and_gits_own_folder_are_no_files_of_a_source(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    (source / "link").symlink_to(tmp_path / "secret")
    (source / "folder").symlink_to(tmp_path)
    (source / "loop").symlink_to(".")
    os.mkfifo(source / "pipe")
    plant(source / ".git", {"config": b"[core]"})
    plant(source / "src" / ".git", {"config": b"[core]"})

    assert read_tree(source).files == {"package.json", "src/app.py", "src/deep/er/x"}


def test_names_that_are_no_utf8_are_left_out(source: Path) -> None:
    with open(os.fsencode(source) + b"/caf\xe9", "wb"):
        pass

    assert "caf\udce9" not in read_tree(source).files
    assert digest_tree(source)


@pytest.mark.parametrize("swap", ["file", "folder", "root", "pipe", "gone", "a file for a folder"])
def test_what_is_swapped_for_a_link_after_it_was_listed_is_not_followed(
    source: Path, tmp_path: Path, swap: str
) -> None:
    outside = tmp_path / "outside"
    plant(outside, {"app.py": b"s3cret", "src/app.py": b"s3cret"})
    tree = read_tree(source)

    if swap == "root":
        shutil.rmtree(source)
        source.symlink_to(outside)
    elif swap == "folder":
        shutil.rmtree(source / "src")
        (source / "src").symlink_to(outside)
    elif swap == "a file for a folder":
        shutil.rmtree(source / "src")
        (source / "src").write_text("moo")
    else:
        (source / "src/app.py").unlink()
        if swap == "file":
            (source / "src/app.py").symlink_to(outside / "app.py")
        elif swap == "pipe":
            os.mkfifo(source / "src/app.py")

    with pytest.raises(SourceRejected, match="changed while it was read"):
        tree.read("src/app.py")


@pytest.mark.parametrize("read", [read_tree, digest_tree])
def test_a_source_is_looked_at_within_bounds(source: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(SourceRejected, match="more than 5 files and folders"):
        read(source, ListingLimits(entries=5))
    with pytest.raises(SourceRejected, match="folders more than 2 deep"):
        read(source, ListingLimits(depth=2))
    assert read(source, ListingLimits(entries=6, depth=3))


def test_depth_costs_no_descriptors_in_the_end(source: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(3):
        with pytest.raises(SourceRejected):
            digest_tree(source, ListingLimits(depth=1))
        read_tree(source).read("src/deep/er/x")
        digest_tree(source)

    assert len(os.listdir("/proc/self/fd")) == before


# -- the identity


def test_a_copy_has_the_same_identity_whatever_its_times_modes_and_repository(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    (copy / "package.json").chmod(0o640)
    os.utime(copy / "package.json", (1, 1))
    plant(copy / ".git", {"index": b"moo"})

    assert digest_tree(copy) == digest_tree(source)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "package.json").write_text("{ }"),
        lambda folder: (folder / "package.json").rename(folder / "package.jsom"),
        lambda folder: (folder / "package.json").chmod(0o755),
        lambda folder: (folder / "more").touch(),
        lambda folder: (folder / "more").mkdir(),
        lambda folder: (folder / "more").symlink_to("package.json"),
        lambda folder: (folder / "src/deep/er/x").rename(folder / "src/deep/x"),
        lambda folder: ((folder / "package.json").unlink(), (folder / "package.json").symlink_to("src/app.py")),
        lambda folder: (folder / "src/app.py").unlink(),
    ],
)
def test_whatever_changes_changes_the_identity(source: Path, change: object) -> None:
    before = digest_tree(source)

    assert callable(change)
    change(source)

    assert digest_tree(source) != before


def test_where_a_link_leads_is_part_of_the_identity_and_what_is_there_is_not(source: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("one")
    (source / "link").symlink_to("../outside")
    before = digest_tree(source)

    (tmp_path / "outside").write_text("two")
    assert digest_tree(source) == before

    (source / "link").unlink()
    (source / "link").symlink_to("../other")
    assert digest_tree(source) != before


@settings(max_examples=40)
@given(one=TREES, other=TREES)
def test_two_sources_have_one_identity_only_if_they_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    one, other = standing(one), standing(other)
    folder = tmp_path_factory.mktemp("two")
    plant(folder / "one", one)
    plant(folder / "other", dict(reversed(other.items())))

    assert (digest_tree(folder / "one") == digest_tree(folder / "other")) == (one == other)
    assert read_tree(folder / "one").files == set(one)


def test_contents_cannot_pass_for_names(tmp_path: Path) -> None:
    plant(tmp_path / "one", {"a": b"b", "c": b""})
    plant(tmp_path / "other", {"a": b"bc", "d": b""})
    plant(tmp_path / "third", {"ab": b"", "c": b""})

    assert len({digest_tree(tmp_path / name) for name in ("one", "other", "third")}) == 3


def test_what_is_no_part_of_a_source_has_no_identity(source: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        here = Path.cwd()
        os.chdir(source)
        try:
            door.bind("door")
        finally:
            os.chdir(here)

        with pytest.raises(SourceRejected, match="'door' is neither"):
            digest_tree(source)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["README.md", "readme.md"], "readme.md"),
        (["caf\u00e9", "cafe\u0301"], "caf"),
        (["a/b", "A/c"], "A"),
        (["tab\tname"], "tab"),
    ],
)
def test_names_that_could_not_stand_in_an_archive_are_refused_by_name(
    tmp_path: Path, names: list[str], reason: str
) -> None:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    with pytest.raises(SourceRejected, match=reason):
        check_names(tmp_path)


def test_ordinary_names_may_stand(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "Main.java").write_text("x")
    (tmp_path / "link").symlink_to("src")
    check_names(tmp_path)
