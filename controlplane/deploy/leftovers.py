"""Folders of instances that were deleted, and whose removal a crash cut short.

A removal is written before it is done, so its folder may outlive it. Only what
the database remembers as deleted goes. A folder that it knows nothing of is told
of and stays: an operator who names the wrong database must not lose data by it.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import trio

from controlplane.deploy import trees
from controlplane.errors import StorageUnavailable

if TYPE_CHECKING:
    from controlplane.store.base import Store

log = logging.getLogger("corral.deploy")


async def collect(instances: Path, store: Store, living: Callable[[], set[UUID]]) -> None:
    """Remove the folders of deleted instances, once, at a start; whatever cannot be done is logged and left.

    Safe beside running instances: Corral's own folder round a tree is closed to every
    instance's user before anything in it is touched.

    Args:
        instances: The folder of all instances' folders.
        store: Asked about each folder that belongs to no living instance.
        living: Gives the ids of all that exist now: an instance is known before its folder is made.
    """
    try:
        found = await trio.to_thread.run_sync(_ours, instances)
    except OSError as error:
        log.warning("%s cannot be listed: %s", instances, error.strerror or error)
        return
    for instance_id in sorted(set(found) - living()):
        try:
            deleted = await store.instance_of_deleted(instance_id)
        except StorageUnavailable:
            log.warning("folders of deleted instances are looked for at the next start: the database is away")
            return
        if deleted is None:
            log.warning(
                "%s belongs to no instance that this database knows; it is left alone", instances / str(instance_id)
            )
        else:
            await _remove(instances / str(instance_id), "/".join(deleted))


async def _remove(folder: Path, name: str) -> None:
    try:
        await trio.to_thread.run_sync(trees.remove, folder)
    except OSError as error:
        log.warning("%s, left by %s, which was deleted, cannot be removed: %s", folder, name, error.strerror or error)
    else:
        log.info("removed %s, left by %s, which was deleted", folder, name)


def _ours(instances: Path) -> list[UUID]:
    """The instance ids that real folders of Corral's own user are named by."""
    with os.scandir(instances) as entries:
        return [found for entry in entries if _is_own_folder(entry) and (found := _as_id(entry.name)) is not None]


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _as_id(name: str) -> UUID | None:
    try:
        found = UUID(name)
    except ValueError:
        return None
    return found if str(found) == name else None
