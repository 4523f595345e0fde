"""Whatever an instance needs built before it can run, whichever way its Spec says so."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.deploy.build.sources import plan_source
from controlplane.deploy.installs.keys import InstallKey
from controlplane.errors import CorralError
from controlplane.model import SourceType
from runtimes.tree import SourceTree

if TYPE_CHECKING:
    from pathlib import Path

    from controlplane.deploy.build.built import Built
    from controlplane.deploy.build.packages import PackageInstalls
    from controlplane.deploy.build.sources import SourceBuilds
    from controlplane.deploy.installs.store import InstallStore
    from controlplane.model import Instance, Spec
    from controlplane.store.base import Store
    from controlplane.supervise.launch import Progress
    from runtimes.recipe import Recipe

log = logging.getLogger("corral.deploy")


def plain_recipe(spec: Spec) -> Recipe | None:
    """The recipe of an inline file that needs no building at all; None for everything else.

    Raises:
        SourceRejected: it cannot be run.
    """
    if spec.source_type is not SourceType.DIRECT:
        return None
    recipe = plan_source(SourceTree.of({spec.entry_point or "": spec.source or b""}), spec)
    return recipe if not recipe.steps and not recipe.files else None


def install_of(spec: Spec) -> InstallKey | None:
    """What a revision was built as, where that is known."""
    install = spec.resolved.facts.get("install") if spec.resolved is not None else None
    return InstallKey.parse(install) if install is not None else None


@frozen(kw_only=True)
class Builds:
    """Builds on this machine, and what became of it written down."""

    store: InstallStore
    packages: PackageInstalls
    sources: SourceBuilds
    records: Store

    async def build(self, instance: Instance, progress: Progress) -> Built | None:
        """What the instance runs, built; None where its command runs as it is written.

        Raises:
            SourceRejected, ArchiveRejected, BuildFailed, Overloaded: it cannot be built; the reason says what to mend.
        """
        spec = instance.spec
        if spec.command is None:
            built: Built | None = await self.sources.build(instance, progress)
        elif (command := self.packages.understands(spec)) is not None:
            built = await self.packages.install(command, instance, progress)
        else:
            return None
        if built is not None and built.resolved != spec.resolved:
            await self._remember(instance, built)
        return built

    async def _remember(self, instance: Instance, built: Built) -> None:
        """Write what was found out, for the next start; without it, that start finds out again."""
        try:
            await self.records.set_resolved(instance.id, instance.spec.revision, built.resolved)
        except CorralError as error:
            log.warning("instance %s: what its build found cannot be written: %s", instance.id, error)

    def hold(self, instances: Iterable[Instance]) -> None:
        """Keep what these were built as, also of those that are stopped, from being collected."""
        for instance in instances:
            if (key := install_of(instance.spec)) is not None:
                self.store.hold(key, instance.id)

    def hold_only(self, instance: Instance, keys: Iterable[InstallKey]) -> None:
        """Keep these for an instance, and nothing else."""
        self.store.release(instance.id)
        for key in keys:
            self.store.hold(key, instance.id)

    async def link(self, built: Built, folder: Path, uid: int | None) -> None:
        """Give the instance a tree of its own.

        Raises:
            BuildFailed, Overloaded: it cannot be made.
        """
        await self.store.link(built.install, folder, uid, built.launch.installed)
