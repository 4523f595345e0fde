"""What servers keep, put into an archive while they may be changing it, or mean to spoil it."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from controlplane.backup.archive import ABOUT, Writer, reading, writing
from controlplane.backup.making import HOLES_MAX_BYTES, Keeping
from controlplane.backup.restoring import Unpacking

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def restored(data: bytes, into: Path) -> list[str]:
    """What is below `home` after a restore."""
    into.mkdir()
    with reading(io.BytesIO(data)) as reader:
        Unpacking(into, as_root=False).unpack(reader)
    home = into / "instances/a/home"
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


def test_what_becomes_a_folder_after_it_was_added_as_a_link_can_be_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that exchanges the two all the time would else have the whole backup refused."""
    home = tmp_path / "home"
    (home / "target").mkdir(parents=True)
    (home / "both").symlink_to("target")
    add_link = Writer.link

    def link(writer: Writer, name: str, target: str, status: os.stat_result) -> None:
        add_link(writer, name, target, status)
        (home / "both").unlink()
        (home / "both" / "inside").mkdir(parents=True)

    monkeypatch.setattr(Writer, "link", link)
    data = io.BytesIO()
    with writing(data) as archive:
        archive.text(ABOUT, b"{}")
        Keeping(archive).tree("instances/a/home", home)
        archive.seal()
    assert restored(data.getvalue(), tmp_path / "restored") == ["both", "target"]


def test_files_that_are_nothing_but_holes_are_left_out_beyond_a_limit(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "small").write_bytes(b"x")
    for name, size in (("1 hollow", 2**20), ("2 endless", 2**43), ("3 too much", HOLES_MAX_BYTES)):
        with open(home / name, "wb") as file:
            file.truncate(size)
    data = io.BytesIO()
    with writing(data) as archive:
        archive.text(ABOUT, b"{}")
        kept = Keeping(archive)
        kept.tree("instances/a/home", home)
        archive.seal()
    assert kept.left_out == 2
    assert restored(data.getvalue(), tmp_path / "restored") == ["1 hollow", "small"]
