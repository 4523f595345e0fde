"""Where a build happens: a user that nobody else has, a scratch home, a bare environment, and a bound on everything.

A workplace is opened for one build and closed when nothing runs in it any more.
Its tools are jobs of kind `build`: confined as instances are, with no stdin, and
without a single variable of the instance's own, so that no secret is there to be
taken. They may use the network.

    <folder>/tree     what is built; the caller takes it away before the end
    <folder>/home     HOME
    <folder>/tmp      /tmp
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import trio
from attrs import define, field, frozen

from controlplane.deploy import trees
from controlplane.deploy.build.disk import DiskWatch
from controlplane.deploy.build.launching import placed
from controlplane.deploy.build.output import Output
from controlplane.deploy.ground import ground
from controlplane.deploy.isolation import HostLevels
from controlplane.deploy.limits import MIB, rlimits_of
from controlplane.deploy.sheltering import tool_places, without_proxies
from controlplane.egress.policy import Policy
from controlplane.errors import BuildFailed, Overloaded, SourceRejected
from controlplane.model import Limits
from controlplane.spawn.client import JobSpec, LeftOvers, SpawnFailed
from controlplane.spawn.confinement import GATED_NETWORK, Bind, Confinement, Group
from controlplane.spawn.diskuse import Tally, everything
from controlplane.spawn.uids import UidsExhausted
from controlplane.supervise.evidence import guess_hint, signal_name
from controlplane.supervise.holding import BUBBLEWRAPS

if TYPE_CHECKING:
    from controlplane.config import Config
    from controlplane.deploy.toolchain import Toolchain
    from controlplane.spawn.client import Job, Spawner
    from controlplane.spawn.uids import UidPool
    from controlplane.supervise.launch import Progress
    from runtimes.recipe import Step, Word

TMP = "/tmp"  # noqa: S108
REGISTRIES = ("/etc/npmrc", "/etc/pip.conf", "/etc/gitconfig", "/etc/uv", "/etc/maven")
"""Where the host says which registries its tools are to ask: builds read them, instances do not."""
LAST_WORDS_S = 0.5
"""After a tool ended: what it wrote is still in the pipe, unless something that it started holds it open."""


@frozen(kw_only=True)
class BuildHost:
    """What builds on this machine work with."""

    config: Config
    spawner: Spawner
    uids: UidPool
    toolchain: Toolchain
    environ: Mapping[str, str] = field(repr=False)
    """The control plane's own, for the names in CHILD_ENV_PASS."""

    @property
    def limits(self) -> Limits:
        """A build has what the operator gives an instance at the most, whatever its own instance asked for."""
        config = self.config
        return Limits(
            memory_mb=config.max_memory_mb,
            disk_mb=config.max_disk_usage_mb,
            processes=config.max_processes,
            open_files=config.max_open_files,
        )

    def confinement(self, own: Iterable[Path]) -> tuple[Confinement, Policy | None]:
        """How far a build is shut in, whatever its own instance asked for, and where it may go. Blocking.

        It writes to `own` alone. Where the operator lets sources come from private addresses, so may what they need.
        """
        config = self.config
        level = HostLevels.of(self.spawner.features).strongest(config.auto_isolation)
        if level == "namespaced" and config.source_allow_private and config.min_isolation != "namespaced":
            level = "confined"
        shown = [*tool_places(self.toolchain, self.environ), *(path for path in REGISTRIES if Path(path).exists())]
        binds = [*(Bind(str(path), str(path), writable=True) for path in own), *(Bind(path, path) for path in shown)]
        group = self._group()
        if level != "namespaced":
            return Confinement(level, tuple(binds) if level == "confined" else (), group=group), None
        gate = Policy(mode="open", allow_private=config.egress_allow_private)
        return Confinement(level, tuple(binds), GATED_NETWORK, gate.loopback, group), gate

    def _group(self) -> Group | None:
        """For one step. How many builds run at a time is bounded by the cores, so their CPU is not."""
        if self.spawner.features.hierarchy is None:
            return None
        return Group(
            name=f"build-{token_hex(8)}",
            memory_bytes=self.config.build_memory_mb * MIB,
            processes=self.config.max_processes + BUBBLEWRAPS,
        )


@define(kw_only=True, eq=False)
class Workplace:
    """One build's place; made by `open_workplace`."""

    host: BuildHost
    folder: Path
    cache: Path
    uid: int | None
    progress: Progress
    cached: Tally = field(factory=Tally, init=False)
    """What the cache took on disk before the build."""

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    def take_in(self) -> None:
        """Give the tree, and whatever Corral has put into it, to the tools' user. Blocking."""
        if self.uid is not None:
            trees.give(self.tree, os.geteuid(), self.uid)

    async def run(self, step: Step) -> str:
        """Run one command to its end; returns what it printed on stdout, up to `output.KEPT_CHARS`.

        Raises:
            BuildFailed: it ended with another status than 0, or outgrew a limit; the evidence has its last lines.
            SourceRejected: this host has no such tool.
        """
        self.progress.phase("build", step.name)
        job = await self._spawn(step)
        output = Output(self.progress.output)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(output.collect, job.stdout_fd, True)
                nursery.start_soon(output.collect, job.stderr_fd, False)
                watch = DiskWatch((self.folder, self.cache), self.cached, self.host.limits.disk_mb, self.uid)
                nursery.start_soon(watch.run, job)
                ended = await job.wait()
                watch.stop()
                with trio.move_on_after(LAST_WORDS_S):
                    await output.silent.wait()
                nursery.cancel_scope.cancel()
        finally:
            await _bury(job)
        if watch.outgrown is not None:
            raise BuildFailed(f"{step.name}: {watch.outgrown}", evidence=output.evidence())
        if ended.code:
            raise _failure(step, ended.code, output)
        return output.text

    async def _spawn(self, step: Step) -> Job:
        argv = tuple(self._word(word) for word in step.argv)
        if self.host.toolchain.tools.get(argv[0], "") is None:
            raise SourceRejected(
                f"this host has no {argv[0]}", hint="corral doctor says what is missing and how to get it"
            )
        # A place below /tmp would be out of sight behind a /tmp of the build's own.
        own = [self.folder / name for name in ("tree", "home", "tmp")]
        confinement, gate = await trio.to_thread.run_sync(self.host.confinement, (*own, self.cache))
        has_own_tmp = confinement.level == "namespaced" or self.host.spawner.features.private_tmp
        private = has_own_tmp and not self.folder.is_relative_to(TMP)
        spec = JobSpec(
            argv=argv,
            env=without_proxies(self._environment(private), confinement)
            | {name: self._word(word) for name, word in step.env},
            cwd=str(self.tree / step.cwd),
            kind="build",
            uid=self.uid,
            rlimits=rlimits_of(self.host.limits, own_user=self.uid is not None),
            private_tmp=str(self.folder / "tmp") if private else None,
            confinement=confinement,
            gate=gate,
        )
        try:
            job = await self.host.spawner.spawn(spec)
        except SpawnFailed as failed:
            raise BuildFailed(f"{step.name}: {argv[0]!r} could not be started: {failed.message}") from None
        job.close_stdin()
        return job

    def _word(self, word: Word) -> str:
        return placed(word, self.tree, self.cache)

    def _environment(self, private_tmp: bool) -> dict[str, str]:
        host = self.host
        return ground(
            host.environ,
            host.config.child_env_pass,
            path=host.toolchain.path,
            home=self.folder / "home",
            tmp=TMP if private_tmp else str(self.folder / "tmp"),
            npm=self.cache / "npm",
            uv=self.cache / "uv",
        ) | {
            "NO_COLOR": "1",
            "CI": "true",
            "npm_config_progress": "false",
            "UV_LINK_MODE": "copy",  # what is kept must not share its bytes with a folder that builds may write
            "UV_PYTHON_DOWNLOADS": "never",
        }


@asynccontextmanager
async def open_workplace(
    host: BuildHost, folder: Path, progress: Progress, *, cache: Path | None = None
) -> AsyncIterator[Workplace]:
    """Make a place for one build in `folder`; at the end nothing of it runs.

    Args:
        host: Its tools, limits and users.
        folder: Empty, Corral's own, and to be removed by the caller, with all that is left in it.
        progress: Told of each step and line.
        cache: The owner's folder of downloads, kept between builds, of which there must be one at a time; None: a new
            one that nobody else will ever use.

    Raises:
        Overloaded: no user is left for it.
    """
    keeper = None if cache is None else await trio.to_thread.run_sync(_owner_of, cache)
    uid = await _claim(host.uids, keeper)
    place = Workplace(host=host, folder=folder, cache=cache or folder / "cache", uid=uid, progress=progress)
    try:
        await trio.to_thread.run_sync(_furnish, place, keeper)
        yield place
    finally:
        with trio.CancelScope(shield=True):  # two system calls
            await trio.to_thread.run_sync(_close, place)
        host.uids.release(uid)


async def _claim(uids: UidPool, keeper: int | None) -> int | None:
    try:
        return await trio.to_thread.run_sync(uids.claim, keeper)
    except UidsExhausted as exhausted:
        raise Overloaded(str(exhausted)) from None


def _owner_of(cache: Path) -> int | None:
    """The user that a cache was last written by; None for a new one."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return cache.lstat().st_uid


def _furnish(place: Workplace, keeper: int | None) -> None:
    for name in ("tree", "home", "tmp"):
        (place.folder / name).mkdir(mode=0o700, exist_ok=True)
    place.cache.mkdir(mode=0o700, exist_ok=True)
    place.cached = everything(place.cache)
    if place.uid is None:
        return
    place.folder.chmod(0o711)
    for name in ("tree", "home", "tmp"):
        os.chown(place.folder / name, place.uid, place.uid, follow_symlinks=False)
    before = os.geteuid() if keeper is None else keeper
    if before != place.uid:
        os.chown(place.cache, 0, 0, follow_symlinks=False)  # or whoever has the last build's id by now could enter it
        trees.give(place.cache, before, place.uid)


def _close(place: Workplace) -> None:
    """Shut the place to its own user, whose id is somebody else's next."""
    place.folder.chmod(0o700)


async def _bury(job: Job) -> None:
    """Nothing that the step started outlives it."""
    with trio.CancelScope(shield=True):  # bounded by the spawner's own limit
        try:
            await job.kill_all()
        except LeftOvers as left:
            raise BuildFailed(f"processes of the build cannot be ended: {left}") from None
        finally:
            job.close_fds()


def _failure(step: Step, code: int, output: Output) -> BuildFailed:
    tool = step.argv[0] if isinstance(step.argv[0], str) else step.argv[0].path
    how = f"was killed by {signal_name(-code)}" if code < 0 else f"exited with status {code}"
    status = {"signal": signal_name(-code)} if code < 0 else {"exit_code": code}
    return BuildFailed(
        f"{step.name}: {tool} {how}",
        hint=guess_hint(output.tail)
        or "its last lines are in stderr_tail; the whole output is in the log, stream build",
        evidence={**status, **output.evidence()},
    )
