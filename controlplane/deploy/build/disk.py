"""How much disk a build takes: looked at while it runs, so that it cannot fill the host's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.spawn import proctree
from controlplane.spawn.diskuse import ENTRIES_MAX, UNSTEADY, Tally, count
from controlplane.spawn.held import Held
from controlplane.supervise.footprint import Index

if TYPE_CHECKING:
    from controlplane.spawn.client import Job

MIB = 2**20
LOOK_EVERY_S = 2.0
"""A tool writes some hundred MiB in this time; a look at 30,000 files takes a tenth of a second."""


@define(eq=False)
class DiskWatch:
    """Ends a job that takes more than `limit_mb` beyond `before`, in its folders, of which one may be in another, or open."""

    folders: tuple[Path, ...]
    before: Tally
    limit_mb: int
    uid: int | None
    """Who nobody but the job is."""
    outgrown: str | None = field(default=None, init=False)
    """How; None: it has not."""
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    async def run(self, job: Job) -> None:
        """Service loop until `stop`."""
        root = proctree.Root("build", job.pid, job.start_ticks, self.uid)
        with self._scope:
            while self.outgrown is None:
                await trio.sleep(LOOK_EVERY_S)
                self.outgrown = await trio.to_thread.run_sync(self._look, root)
            await job.kill_all()

    def stop(self) -> None:
        self._scope.cancel()

    def _look(self, root: proctree.Root) -> str | None:
        """Blocks: for a worker thread."""
        tally = count(Tally(most=self.before.entries + ENTRIES_MAX), *self.folders)
        if tally.beyond == UNSTEADY:
            return f"it {UNSTEADY}"
        if tally.beyond is not None:
            return f"it made more than {ENTRIES_MAX} files and folders"
        procs, held = proctree.scan(), Held()
        for pid in Index(procs).members(root):
            held.add(pid, procs[pid].uid)
        grown = tally.size_bytes - self.before.size_bytes + held.disk_bytes
        return f"it took more than {self.limit_mb} MiB of disk" if grown > self.limit_mb * MIB else None
