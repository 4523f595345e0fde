"""Folders that a removal left behind: those of deleted instances go, and no other."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from attrs import define, field

from controlplane.deploy import leftovers
from controlplane.errors import StorageUnavailable
from tests.deploy.conftest import Quiet, command

if TYPE_CHECKING:
    from controlplane.deploy.prepare import HostPrepare


@define
class Graves:
    """What a store remembers of deleted instances."""

    deleted: dict[UUID, tuple[str, str]] = field(factory=dict)
    is_away: bool = False

    async def instance_of_deleted(self, instance_id: UUID) -> tuple[str, str] | None:
        if self.is_away:
            raise StorageUnavailable("away")
        return self.deleted.get(instance_id)


async def folder_of(prepare: HostPrepare, *, files: int = 3) -> UUID:
    """The folder of an instance as a crash leaves it: its parts, and what its server wrote, as its own user."""
    instance = command("true")
    launch = await prepare.prepare(instance, Quiet())
    deep = prepare.instances / str(instance.id) / "work" / "deep"
    deep.mkdir()
    for number in range(files):
        (deep / str(number)).write_text("moo")
    if launch.uid is not None:
        for path in (deep, *deep.iterdir()):
            os.chown(path, launch.uid, launch.uid)
    deep.chmod(0)
    return instance.id


async def test_the_folder_of_a_deleted_instance_goes_and_is_named(
    prepare: HostPrepare, caplog: pytest.LogCaptureFixture
) -> None:
    left = await folder_of(prepare)

    with caplog.at_level(logging.INFO):
        await leftovers.collect(prepare.instances, Graves({left: ("ada", "cow")}), set)

    assert not (prepare.instances / str(left)).exists()
    assert f"{left}, left by ada/cow, which was deleted" in caplog.text


async def test_the_folders_of_the_living_are_not_even_asked_about(prepare: HostPrepare) -> None:
    lives = await folder_of(prepare)

    await leftovers.collect(prepare.instances, Graves({lives: ("ada", "cow")}), lambda: {lives})

    assert (prepare.instances / str(lives)).exists()


async def test_a_folder_that_the_database_does_not_know_stays_and_is_told_of(
    prepare: HostPrepare, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = await folder_of(prepare)

    await leftovers.collect(prepare.instances, Graves(), set)

    assert (prepare.instances / str(unknown)).exists()
    assert f"{unknown} belongs to no instance that this database knows" in caplog.text


async def test_what_is_no_folder_of_ours_is_left_alone(prepare: HostPrepare, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    link, file, capitals = uuid4(), uuid4(), uuid4()
    (prepare.instances / str(link)).symlink_to(precious)
    (prepare.instances / str(file)).write_text("moo")
    (prepare.instances / str(capitals).upper()).mkdir()
    (prepare.instances / "notes").mkdir()
    before = sorted(os.listdir(prepare.instances))

    await leftovers.collect(prepare.instances, Graves(dict.fromkeys((link, file, capitals), ("ada", "cow"))), set)

    assert sorted(os.listdir(prepare.instances)) == before
    assert precious.exists()


@pytest.mark.needs("root")
async def test_a_folder_that_is_somebody_elses_is_left_alone(prepare: HostPrepare) -> None:
    theirs = uuid4()
    folder = prepare.instances / str(theirs)
    folder.mkdir()
    os.chown(folder, 1234, 1234)

    await leftovers.collect(prepare.instances, Graves({theirs: ("ada", "cow")}), set)

    assert folder.exists()


async def test_without_a_database_nothing_goes(prepare: HostPrepare) -> None:
    left = await folder_of(prepare)

    await leftovers.collect(prepare.instances, Graves({left: ("ada", "cow")}, is_away=True), set)

    assert (prepare.instances / str(left)).exists()
