"""Make an instance ready to launch: its folder, its user, its source, its environment.

    CORRAL_HOME/instances/<id>/   Corral's own, so that no server can swap what is in it for a link
        home/                     HOME: what the server keeps; this and the rest are the instance's user's alone
        work/                     default working folder of a command
        tmp/                      /tmp, where the host can give one of its own
        app-<key>/                its source, with all that was built of it, linked from the store (`installs`)

Everything here happens while the instance has no process, but for a candidate's: it
gets a tree of its own, and finds the rest as the running revision has it. What only
one of two launches used goes with it (`leases`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from attrs import define, evolve, field, frozen

from controlplane.core.lifecycle import LIVE, State
from controlplane.deploy import trees
from controlplane.deploy.build.builds import install_of, plain_recipe
from controlplane.deploy.build.built import provide
from controlplane.deploy.build.launching import BuiltLaunch
from controlplane.deploy.ground import ground
from controlplane.deploy.installs.keys import SHARED, key_of
from controlplane.deploy.installs.linking import drop_tree
from controlplane.deploy.isolation import DOCTOR, HostLevels, LevelMissing, level_of
from controlplane.deploy.leases import Lease, Leases
from controlplane.deploy.limits import rlimits_of
from controlplane.deploy.mounts import make_stages, real_mounts
from controlplane.deploy.plan import notes_on
from controlplane.deploy.secrets import resolve
from controlplane.deploy.sheltering import shelter, tool_places, without_proxies
from controlplane.errors import BuildFailed, InvalidRequest, Overloaded, SourceRejected
from controlplane.spawn.uids import UidsExhausted
from controlplane.supervise.launch import Launch

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.config import Config
    from controlplane.deploy.build.builds import Builds
    from controlplane.deploy.build.built import Built
    from controlplane.deploy.installs.keys import InstallKey
    from controlplane.deploy.secrets import SecretSource
    from controlplane.deploy.sheltering import Shelter
    from controlplane.deploy.toolchain import Toolchain
    from controlplane.model import Instance, Spec
    from controlplane.spawn.cgroups import Hierarchy
    from controlplane.spawn.uids import UidPool
    from controlplane.supervise.launch import Progress
    from runtimes.recipe import Recipe

TMP = Path("/tmp")  # noqa: S108
TAKES_FOLDERS = re.compile(r"(?:@modelcontextprotocol/|mcp-)server-filesystem(?:@[\w.^~-]+)?")
"""The command of the classic examples: its arguments are folders, and it ends if one is missing."""
FOLDERS = ("home", "work", "tmp")
TREE = "app-"
KEY_CHARS = 16
"""Of an install's digest, in its tree's name: enough to tell an instance's few installs apart."""


@define(eq=False)
class HostPrepare:
    """Prepares instances on this machine; `private_tmp` says whether the host can give each its own /tmp."""

    config: Config
    instances: Path
    toolchain: Toolchain
    uids: UidPool
    private_tmp: bool
    environ: Mapping[str, str]
    """The control plane's own environment, for the names in CHILD_ENV_PASS."""
    builds: Builds | None = None
    """None: commands run as they are written, and sources that need building are refused."""
    secrets: SecretSource | None = None
    """None: there are none."""
    levels: HostLevels = field(factory=HostLevels, kw_only=True)
    hierarchy: Hierarchy | None = field(default=None, kw_only=True)
    """Where control groups are made; None: nowhere."""
    _leases: dict[UUID, Leases] = field(factory=dict, init=False)
    _users: dict[UUID, int | None] = field(factory=dict, init=False)
    _claiming: trio.Lock = field(factory=trio.Lock, init=False)

    async def prepare(self, instance: Instance, progress: Progress) -> Launch:
        """See `supervise.launch.Prepare`."""
        leases = self._leases.setdefault(instance.id, Leases())
        lease, leases.is_preparing = leases.begin(), True
        held: InstallKey | None = None
        try:
            return await self._prepared(instance, progress, lease)
        except BaseException:
            if _is_candidate(instance):
                with trio.CancelScope(shield=True):  # as long as it takes to remove one tree
                    await lease.end()
            else:  # it will be tried again, with what is there
                held = lease.install or install_of(instance.spec)
                leases.forget(lease)
            raise
        finally:
            leases.is_preparing = False
            self._hold_what_is_used(instance, leases, held)

    async def _prepared(self, instance: Instance, progress: Progress, lease: Lease) -> Launch:
        progress.phase("prepare", "folder and user")
        spec = instance.spec
        own = await resolve(spec.env, instance.owner, self.secrets)
        plain = await trio.to_thread.run_sync(plain_recipe, spec)
        await self._provide_known(spec, plain)
        uid = await self._user_of(instance)
        level = self._level_of(spec)
        place = self._place_of(instance, level)
        await self._furnish(instance, place, uid)
        built = None if plain is not None else await self._built(instance, progress)
        if built is not None:
            argv, env, cwd = await self._linked(instance, place, built, uid, lease)
        elif plain is not None:
            argv, env, cwd = await self._inline(instance, place, plain, uid, lease)
        else:
            assert spec.command is not None
            argv, env, cwd = (spec.command.command, *spec.command.args), dict[str, str](), place.cwd(spec)
        if not _is_candidate(instance):
            lease.among.forget_others(lease)
            await trio.to_thread.run_sync(_remove_other_trees, place.folder, lease.tree)
        held = await self._shelter(instance, level, place, lease.tree)
        ground = without_proxies(self._environment(place), held.confinement)
        return Launch(
            argv=argv,
            env=ground | env | dict(own.env),
            secrets=own.secrets,
            cwd=cwd,
            uid=uid,
            rlimits=rlimits_of(spec.limits, own_user=uid is not None, has_group=self.hierarchy is not None),
            private_tmp=place.private_tmp,
            isolation=level,
            confinement=held.confinement,
            gate=held.gate,
            enforcement=held.enforcement,
            notes=(*notes_on(spec, level), *(built.launch.notes if built is not None else ())),
            spec=evolve(spec, resolved=built.resolved) if built is not None else None,
            lease=lease,
        )

    async def retire(self, instance: Instance, launch: Launch) -> None:
        """See `supervise.launch.Prepare`."""
        leases, lease = self._leases.get(instance.id), launch.lease
        if leases is None or not isinstance(lease, Lease):
            return
        await lease.end()
        if not leases.is_preparing:  # or that will see to it when it is done
            self._hold_what_is_used(instance, leases, install_of(instance.spec))

    async def discard(self, instance: Instance) -> None:
        """See `supervise.launch.Prepare`."""
        self._leases.pop(instance.id, None)
        await trio.to_thread.run_sync(trees.remove, self.instances / str(instance.id))
        if self.builds is not None:
            self.builds.store.release(instance.id)
        self.uids.release(self._users.pop(instance.id, None))

    def _level_of(self, spec: Spec) -> str:
        """What the host gave when the spec was taken may have gone since."""
        try:
            return level_of(spec.isolation, self.config, self.levels)
        except LevelMissing as missing:
            raise InvalidRequest(str(missing), hint=DOCTOR) from None

    def _place_of(self, instance: Instance, level: str) -> _Place:
        has_own_tmp = level == "namespaced" or self.private_tmp
        return _Place(self.instances / str(instance.id), has_own_tmp and not self.instances.is_relative_to(TMP))

    async def _shelter(self, instance: Instance, level: str, place: _Place, tree: Path | None) -> Shelter:
        names = [*FOLDERS[:2], *(() if place.is_private else FOLDERS[2:])]
        own = [*(str(place.folder / name) for name in names), *([str(tree)] if tree is not None else [])]
        allowed = self.config.allowed_mounts
        mounts = await trio.to_thread.run_sync(real_mounts, instance.spec.mounts, allowed, level)
        stages = place.folder / "mounts"
        await trio.to_thread.run_sync(make_stages, stages, mounts)
        shown = await trio.to_thread.run_sync(tool_places, self.toolchain, self.environ)
        return shelter(
            instance,
            level,
            own=own,
            shown=shown,
            mounts=mounts,
            stages=stages,
            config=self.config,
            hierarchy=self.hierarchy,
        )

    async def _furnish(self, instance: Instance, place: _Place, uid: int | None) -> None:
        if _is_candidate(instance):  # its instance's processes are at home there
            return
        try:
            await trio.to_thread.run_sync(_make_folder, place, instance.spec, uid)
        except OSError as error:  # the disk is full or read-only: the operator's to mend
            raise BuildFailed(f"the instance's folder could not be made: {error.strerror or error}") from error

    async def _built(self, instance: Instance, progress: Progress) -> Built | None:
        if self.builds is not None:
            return await self.builds.build(instance, progress)
        if instance.spec.command is None:
            raise SourceRejected("nothing can be built here")
        return None

    async def _linked(
        self, instance: Instance, place: _Place, built: Built, uid: int | None, lease: Lease
    ) -> tuple[tuple[str, ...], dict[str, str], str]:
        """The instance's own tree of what was built."""
        assert self.builds is not None
        lease.install = built.install.key
        tree = place.folder / f"{TREE}{lease.install.digest[:KEY_CHARS]}"
        await lease.put(tree, partial(self.builds.link, built, tree, uid), is_candidate=_is_candidate(instance))
        argv, env, cwd = built.launch.in_tree(tree, self.toolchain.path)
        return argv, env, cwd if instance.spec.command is None else place.cwd(instance.spec)

    async def _inline(
        self, instance: Instance, place: _Place, recipe: Recipe, uid: int | None, lease: Lease
    ) -> tuple[tuple[str, ...], dict[str, str], str]:
        """A file that needs no building, in a tree of its own."""
        spec = instance.spec
        name, source = spec.entry_point or "", spec.source or b""
        tree = place.folder / f"{TREE}{key_of(SHARED, name, source).digest[:KEY_CHARS]}"
        make = partial(trio.to_thread.run_sync, _make_tree, tree, name, source, uid)
        await lease.put(tree, make, is_candidate=_is_candidate(instance))
        return BuiltLaunch.of(recipe).in_tree(tree, self.toolchain.path)

    def _hold_what_is_used(self, instance: Instance, leases: Leases, also: InstallKey | None) -> None:
        if self.builds is not None and self._leases.get(instance.id) is leases:
            self.builds.hold_only(instance, leases.installs() | ({also} if also is not None else set()))

    async def _provide_known(self, spec: Spec, plain: Recipe | None) -> None:
        """The tools that are known to be needed before anything is fetched or planned; told before anything is made."""
        command = spec.command.command if spec.command is not None else None
        if plain is not None:
            await provide(self.toolchain, plain.needs)
        elif command is not None and command in self.toolchain.tools:
            await provide(self.toolchain, (command,))

    async def _user_of(self, instance: Instance) -> int | None:
        """The instance's own user: claimed at its first start, kept for as long as it exists."""
        async with self._claiming:
            if instance.id not in self._users:
                try:
                    # It looks at every process of the host.
                    self._users[instance.id] = await trio.to_thread.run_sync(self.uids.claim, instance.uid)
                except UidsExhausted as exhausted:
                    raise Overloaded(str(exhausted)) from None
            return self._users[instance.id]

    def _environment(self, place: _Place) -> dict[str, str]:
        home = place.folder / "home"
        return ground(
            self.environ,
            self.config.child_env_pass,
            path=self.toolchain.path,
            home=home,
            tmp=str(TMP if place.is_private else place.folder / "tmp"),
            npm=home / ".npm",
            uv=home / ".cache/uv",
        ) | {"PYTHONUNBUFFERED": "1"}


@frozen
class _Place:
    """An instance's folder. `is_private`: its `tmp` is what it sees as /tmp."""

    folder: Path
    is_private: bool

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def private_tmp(self) -> str | None:
        return str(self.folder / "tmp") if self.is_private else None

    def cwd(self, spec: Spec) -> str:
        """Where a command starts."""
        cwd = spec.command.cwd if spec.command else None
        return str(self.work / cwd) if cwd is not None else str(self.work)


def _make_folder(place: _Place, spec: Spec, uid: int | None) -> None:
    folder = place.folder
    _own(folder)
    if uid is not None:  # we are root, and were perhaps a plain user when the folder was made
        os.chown(folder, 0, 0, follow_symlinks=False)
    folder.chmod(0o711 if uid is not None else 0o700)
    for name in FOLDERS:
        part = folder / name
        _own(part)
        if uid is not None and (before := part.lstat().st_uid) != uid:
            trees.give(part, before, uid)
    for wanted in _wanted_tmp_folders(spec):
        _make_below_tmp(wanted, folder / "tmp" if place.is_private else TMP, uid)


def _is_candidate(instance: Instance) -> bool:
    """Whether another revision of the instance has processes, or will again without being prepared anew."""
    return instance.state in LIVE or instance.state is State.BACKOFF


def _make_tree(tree: Path, name: str, source: bytes, uid: int | None) -> None:
    try:
        _own(tree)
        if uid is not None and (before := tree.lstat().st_uid) != uid:
            trees.give(tree, before, uid)
        _write(tree / name, source)
    except OSError as error:
        raise BuildFailed(f"the source could not be written: {error.strerror or error}") from error


def _remove_other_trees(folder: Path, kept: Path | None) -> None:
    """Trees of revisions that nothing runs any more; one that cannot be removed is tried again at the next start."""
    found = {name.removeprefix(".").partition(".")[0] for name in os.listdir(folder)}
    for name in sorted(found):
        if name.startswith(TREE) and folder / name != kept:
            with suppress(OSError):
                drop_tree(folder / name)


def _own(folder: Path) -> None:
    """Make a folder, also in place of what a server put there that ran as Corral's own user."""
    if not folder.is_dir() or folder.is_symlink():
        trees.remove(folder)
        folder.mkdir(mode=0o700)


def _wanted_tmp_folders(spec: Spec) -> list[Path]:
    """Folders below /tmp that the command needs: they are made, so that the classic examples work.

    Any other server's argument may be meant for a file or a socket, and a folder would be in its way.
    """
    command = spec.command
    if command is None:
        return []
    words = [command.cwd] if command.cwd else []
    if any(TAKES_FOLDERS.fullmatch(word) for word in (Path(command.command).name, *command.args)):
        words += command.args
    return [path for word in words if word.startswith(f"{TMP}/") and ".." not in (path := Path(word)).parts]


def _make_below_tmp(wanted: Path, root: Path, uid: int | None) -> None:
    """Make `wanted` (below /tmp) inside `root`, never following a link, nor in a folder of somebody else's.

    What cannot be made is not our business: the server will say what it thinks of it.
    """
    here = root
    for part in wanted.relative_to(TMP).parts:
        here = here / part
        try:
            here.mkdir(mode=0o700)
        except FileExistsError:
            status = here.lstat()
            if not stat.S_ISDIR(status.st_mode) or (uid is not None and status.st_uid != uid):
                return
        except OSError:
            return
        else:
            if uid is not None:
                os.chown(here, uid, uid, follow_symlinks=False)


def _write(path: Path, content: bytes) -> None:
    """Replace the file whole; what a server wrote into its own source does not outlive a start."""
    staged = path.with_name(f".{path.name}.new")
    trees.remove(staged)
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        owner = path.parent.stat()
        if os.geteuid() == 0:
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    if path.is_dir() and not path.is_symlink():
        trees.remove(path)
    staged.replace(path)
