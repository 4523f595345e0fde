"""How much disk a build takes: looked at while it runs, so that it cannot fill the host's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from attrs import define, field

if TYPE_CHECKING:
    from controlplane.spawn.client import Job

LOOK_EVERY_S = 2.0
"""A tool writes some hundred MiB in this time; a look at 30,000 files takes a tenth of a second."""
BLOCK_BYTES = 512
"""Unit of `st_blocks` (POSIX stat)."""


@define(eq=False)
class DiskWatch:
    """Ends a job whose folders grow by more than `limit_mb`; `before_bytes` is what was there. One may be in another."""

    folders: tuple[Path, ...]
    before_bytes: int
    limit_mb: int
    outgrown: bool = field(default=False, init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    async def run(self, job: Job) -> None:
        """Service loop until `stop`."""
        with self._scope:
            while not self.outgrown:
                await trio.sleep(LOOK_EVERY_S)
                used = await trio.to_thread.run_sync(used_bytes, *self.folders)
                self.outgrown = used - self.before_bytes > self.limit_mb * 2**20
            await job.kill_all()

    def stop(self) -> None:
        self._scope.cancel()


def used_bytes(*roots: Path) -> int:
    """What trees take on disk, as far as it can be seen; no link is followed. Blocking."""
    apart = [root for root in roots if not any(root != other and root.is_relative_to(other) for other in roots)]
    total, folders = 0, [os.fspath(root) for root in apart]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    try:
                        total += entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                    except OSError:  # it was just removed
                        continue
        except OSError:
            continue
    return total
