"""Sources of any language, built once and kept by what went into them: the files, the recipe, and the tools."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from attrs import asdict, define, evolve, field

from controlplane.deploy.build.built import KIND, LABEL, PLATFORM, TOOLS, Built, kept_install, provide
from controlplane.deploy.build.launching import LAUNCH, BuiltLaunch
from controlplane.deploy.build.recipes import carry_out
from controlplane.deploy.build.workplace import open_workplace
from controlplane.deploy.installs.keys import key_of, scope_of
from controlplane.deploy.source.listing import digest_tree, read_tree
from controlplane.errors import FieldError, SourceRejected
from controlplane.model import Resolved
from runtimes import catalog
from runtimes.recipe import CannotPlan, Wish

if TYPE_CHECKING:
    from controlplane.deploy.build.fetching import Fetched, Fetching
    from controlplane.deploy.build.workplace import BuildHost
    from controlplane.deploy.installs.disk import Install
    from controlplane.deploy.installs.store import InstallStore
    from controlplane.model import Instance, Spec
    from controlplane.supervise.launch import Progress
    from runtimes.recipe import Recipe
    from runtimes.tree import SourceTree

TREE = "tree"
"""Where the store looks for what is to be kept."""


def wish_of(spec: Spec) -> Wish:
    """What the owner says about a source."""
    return Wish(
        language=spec.language or None,
        entry_point=spec.entry_point,
        dependencies=spec.dependencies,
        build_command=spec.build_command,
    )


def plan_source(tree: SourceTree, spec: Spec) -> Recipe:
    """The recipe for a source.

    Raises:
        SourceRejected: nothing says how to run it, or a wish cannot be met; with the field to mend.
    """
    try:
        return catalog.plan(tree, wish_of(spec))
    except CannotPlan as error:
        errors = (FieldError(f"/{error.field}", str(error)),) if error.field else ()
        raise SourceRejected(str(error), hint=error.hint, errors=errors) from None


@define(kw_only=True, eq=False)
class SourceBuilds:
    """Builds sources on this machine."""

    host: BuildHost
    store: InstallStore
    fetching: Fetching
    _turns: dict[str, trio.Lock] = field(factory=dict, init=False)

    async def build(self, instance: Instance, progress: Progress) -> Built:
        """The instance's source, built.

        Raises:
            SourceRejected, ArchiveRejected: the source cannot be used.
            BuildFailed: a step failed.
            Overloaded: the disk is full.
        """
        kept = await kept_install(self.store, self.host.toolchain, instance)
        if kept is not None and instance.spec.resolved is not None:
            return Built(install=kept, launch=_launch(kept), resolved=instance.spec.resolved)
        async with self._turn(instance.owner, progress), self.store.scratch() as scratch:
            fetched = await self.fetching.fetch(instance, scratch, progress)
            return await self._build(instance, fetched, progress)

    @asynccontextmanager
    async def _turn(self, owner: str, progress: Progress) -> AsyncIterator[None]:
        """One of the owner's builds at a time, waited for without a slot: their cache would make them wait in one."""
        turn = self._turns.setdefault(owner, trio.Lock())
        try:
            await progress.begin_work(turn.acquire)
            yield
        finally:
            if turn.statistics().owner is trio.lowlevel.current_task():
                turn.release()
            if not turn.locked():
                self._turns.pop(owner, None)

    async def _build(self, instance: Instance, fetched: Fetched, progress: Progress) -> Built:
        tree = await trio.to_thread.run_sync(read_tree, fetched.tree)
        recipe = await trio.to_thread.run_sync(plan_source, tree, instance.spec)
        recipe = evolve(recipe, notes=(*recipe.notes, *fetched.notes))
        progress.phase("plan", f"{recipe.language}{f', {recipe.entry_point}' if recipe.entry_point else ''}")
        tools = await provide(self.host.toolchain, recipe.needs)
        digest = await trio.to_thread.run_sync(digest_tree, fetched.tree)
        versions = json.dumps(tools, sort_keys=True)
        scope = scope_of(instance.owner)
        key = key_of(scope, "source", digest, json.dumps(asdict(recipe), sort_keys=True), versions, PLATFORM)
        self.store.hold(key, instance.id)

        async def build(folder: Path) -> dict[str, str]:
            async with self.store.cache(scope) as cache:
                await trio.to_thread.run_sync(_move, fetched.tree, folder / TREE)
                async with open_workplace(self.host, folder, progress, cache=cache) as place:
                    await carry_out(recipe, place)
            label = f"{recipe.language} {instance.name}"
            return {LABEL: label, KIND: "source", TOOLS: versions, LAUNCH: BuiltLaunch.of(recipe).to_json()}

        while True:
            try:
                install = await self.store.make(key, build)
                break
            except _FetcherGone:
                continue
        facts = {**fetched.facts, "install": str(key)}
        resolved = Resolved(language=recipe.language, entry_point=recipe.entry_point, facts=facts)
        return Built(install=install, launch=_launch(install), resolved=resolved)


class _FetcherGone(Exception):
    """Whoever had fetched the source that was to be built was cancelled just before; others have fetched their own."""


def _move(tree: Path, to: Path) -> None:
    try:
        tree.rename(to)
    except FileNotFoundError:
        raise _FetcherGone from None


def _launch(install: Install) -> BuiltLaunch:
    return BuiltLaunch.from_json(install.facts[LAUNCH])
