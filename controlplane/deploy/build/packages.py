"""Commands that install a package and run it, installed once and launched directly.

`npx -y server` asks the registry at every start, and keeps two processes of its own
beside the server. Here the package is looked up at the deploy, installed into the
store, and its own program is what runs; restarts never touch a registry. An install
is shared between owners, so nothing of any owner may go into it: it is looked up
without running anything of any package, and installed from the registry alone, with
an empty cache that nobody else has used. A package that cannot be looked up so (only
PyPI's source distributions) is installed for its owner alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from attrs import define, evolve, field, frozen

from controlplane.deploy.build.built import KIND, LABEL, PLATFORM, TOOLS, Built, kept_install, provide
from controlplane.deploy.build.launching import BuiltLaunch
from controlplane.deploy.build.recipes import carry_out
from controlplane.deploy.build.workplace import open_workplace
from controlplane.deploy.installs.disk import MAX_LOCK_BYTES
from controlplane.deploy.installs.keys import SHARED, key_of, scope_of
from controlplane.errors import BuildFailed
from controlplane.model import Resolved
from runtimes import packages
from runtimes.commands import PackageCommand, env_changes_install, package_of
from runtimes.recipe import CannotPlan
from runtimes.tree import MANIFEST_MAX_BYTES

if TYPE_CHECKING:
    from controlplane.deploy.build.workplace import BuildHost
    from controlplane.deploy.installs.disk import Install
    from controlplane.deploy.installs.store import InstallStore
    from controlplane.model import Instance, Spec
    from controlplane.supervise.launch import Progress
    from runtimes.recipe import Word

FRESH_S = 300.0
"""A registry is not asked again for the same package within this time, but by a redeploy."""
REMEMBERED_MAX = 1_000
LANGUAGES = {"npm": "node", "pypi": "python"}
_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@frozen(kw_only=True)
class _Locked:
    """What a command came to when the registry was asked."""

    at: float
    version: str
    lock: str
    ran_code: bool
    """Packages' own code ran to find it out, and may have had a hand in it: it is good for one owner only."""


@define(eq=False)
class PackageInstalls:
    """Installs packages. `clock` is monotonic seconds."""

    host: BuildHost
    store: InstallStore
    clock: Callable[[], float] = trio.current_time
    _known: dict[tuple[str, ...], _Locked] = field(factory=dict, init=False)
    _asking: dict[tuple[str, ...], trio.Lock] = field(factory=dict, init=False)

    def understands(self, spec: Spec) -> PackageCommand | None:
        """The package that a Spec's command runs; None where it must run as it is written."""
        command = spec.command
        if command is None or env_changes_install(spec.env):
            return None
        return package_of(command.command, command.args)

    async def install(self, command: PackageCommand, instance: Instance, progress: Progress) -> Built | None:
        """What the command runs, installed; None where its own tool must run it after all.

        Raises:
            BuildFailed: the registry does not give it, or it cannot be installed.
        """
        if not await self._suits(command):
            return None
        found = await kept_install(self.store, self.host.toolchain, instance)
        if found is None:
            await progress.begin_work()
            found = await self._install(_pinned(command, instance.spec.resolved), instance, progress)
        read = partial(_read_below, found.tree)
        try:
            argv = await trio.to_thread.run_sync(packages.launch, command, read)
        except CannotPlan:
            return None
        return _built(command, found, argv)

    async def _suits(self, command: PackageCommand) -> bool:
        """Whether this host's Python is the one asked for; another one only uv itself can fetch."""
        if command.python is None:
            return True
        here = (await trio.to_thread.run_sync(self.host.toolchain.versions, ["python"])).get("python", "")
        return here == command.python or here.startswith(f"{command.python}.")

    async def _install(self, command: PackageCommand, instance: Instance, progress: Progress) -> Install:
        tools = await provide(self.host.toolchain, packages.lock(command).needs)
        locked = await self._lock(command, instance, progress)
        name = f"{command.package}@{locked.version}"
        versions = json.dumps(tools, sort_keys=True)
        scope = scope_of(instance.owner) if locked.ran_code else SHARED
        key = key_of(scope, command.ecosystem, name, locked.lock, command.python or "", versions, PLATFORM)
        self.store.hold(key, instance.id)

        async def build(folder: Path) -> dict[str, str]:
            async with open_workplace(self.host, folder, progress) as place:
                await carry_out(packages.install(command, locked.lock, builds=locked.ran_code), place)
            label = f"{command.ecosystem} {name}"
            return {LABEL: label, KIND: command.ecosystem, TOOLS: versions, "package": name, "lock": locked.lock}

        progress.phase("build", f"install {name}")
        return await self.store.make(key, build)

    async def _lock(self, command: PackageCommand, instance: Instance, progress: Progress) -> _Locked:
        """Ask the registry, once for all who want the same now.

        Without running any package's code, if that is possible: then nobody can have had a hand in the answer.
        """
        try:
            return await self._asked(command, instance, progress, builds=False)
        except BuildFailed:
            if command.ecosystem != "pypi":
                raise
        return await self._asked(command, instance, progress, builds=True)

    async def _asked(self, command: PackageCommand, instance: Instance, progress: Progress, *, builds: bool) -> _Locked:
        owner = instance.owner if builds else ""
        wanted = (command.ecosystem, owner, command.python or "", *command.requirements)
        turn = self._asking.setdefault(wanted, trio.Lock())
        try:
            async with turn:
                known = self._known.get(wanted)
                is_fresh = known is not None and self.clock() - known.at < FRESH_S
                if known is not None and is_fresh and instance.spec.cause != "redeploy":
                    return known
                fresh = await self._ask(command, progress, builds=builds)
                self._known[wanted] = fresh
                while len(self._known) > REMEMBERED_MAX:
                    del self._known[next(iter(self._known))]
                return fresh
        finally:
            if not turn.locked():
                self._asking.pop(wanted, None)

    async def _ask(self, command: PackageCommand, progress: Progress, *, builds: bool) -> _Locked:
        async with self.store.scratch() as folder, open_workplace(self.host, folder, progress) as place:
            await carry_out(packages.lock(command, builds=builds), place)
            raw = await trio.to_thread.run_sync(_read_below, place.tree, packages.lock_file(command), MAX_LOCK_BYTES)
        if raw is None:
            raise BuildFailed(
                f"{command.package}: its lock file was not written, or has more than {MAX_LOCK_BYTES} bytes"
            )
        lock = raw.decode("utf-8", "replace")
        try:
            version = packages.version(command, lock)
        except CannotPlan as error:
            raise BuildFailed(str(error)) from None
        return _Locked(at=self.clock(), version=version, lock=lock, ran_code=builds)


def _built(command: PackageCommand, install: Install, argv: tuple[Word, ...]) -> Built:
    recipe = packages.install(command, "")
    launch = evolve(BuiltLaunch.of(recipe), argv=argv)
    facts = {"package": install.facts.get("package", command.package), "install": str(install.key)}
    return Built(install=install, launch=launch, resolved=Resolved(language=recipe.language, facts=facts))


def _pinned(command: PackageCommand, resolved: Resolved | None) -> PackageCommand:
    """The very version that the revision had before, where its install was lost."""
    known = resolved.facts.get("package") if resolved is not None else None
    if known is None:
        return command
    version = known.rpartition("@")[2]
    if command.ecosystem == "npm":
        return evolve(command, requirements=(f"{command.package}@{version}", *command.requirements[1:]))
    exact = f"{command.package}=={version}"
    return evolve(command, requirements=(*command.requirements, exact)) if _is_version(version) else command


def _is_version(text: str) -> bool:
    return re.fullmatch(r"[0-9][A-Za-z0-9.!+_-]*", text) is not None


def _read_below(tree: Path, name: str, limit_bytes: int = MANIFEST_MAX_BYTES) -> bytes | None:
    """A regular file's beginning, or all of it where that is asked for; None if there is none, or a link is in the way.

    What is read decides only what runs as the instance's user, so a folder that is a link need not be looked for.
    """
    try:
        fd = os.open(tree / name, _NO_FOLLOW)
    except OSError:
        return None
    with open(fd, "rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes and limit_bytes != MANIFEST_MAX_BYTES:
        return None
    return content[:limit_bytes]
