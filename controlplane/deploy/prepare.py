"""Make an instance ready to launch: its folder, its user, its source, its environment.

    CORRAL_HOME/instances/<id>/   Corral's own, so that no server can swap what is in it for a link
        home/                     HOME: caches of npx and uvx; this and the next are the instance's user's alone
        work/                     the source; default working folder
        tmp/                      /tmp, where the host can give one of its own

Everything here happens while the instance has no process.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.deploy import trees
from controlplane.deploy.limits import rlimits_of
from controlplane.deploy.plan import notes_on
from controlplane.errors import BuildFailed, Overloaded, SourceRejected
from controlplane.spawn.uids import UidsExhausted
from controlplane.supervise.launch import Launch
from runtimes import catalog

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.config import Config
    from controlplane.deploy.toolchain import Toolchain
    from controlplane.model import Instance, Spec
    from controlplane.spawn.uids import UidPool
    from controlplane.supervise.launch import Progress

TMP = Path("/tmp")  # noqa: S108
TAKES_FOLDERS = re.compile(r"(?:@modelcontextprotocol/|mcp-)server-filesystem(?:@[\w.^~-]+)?")
"""The command of the classic examples: its arguments are folders, and it ends if one is missing."""
FOLDERS = ("home", "work", "tmp")


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
    _users: dict[UUID, int | None] = field(factory=dict, init=False)
    _claiming: trio.Lock = field(factory=trio.Lock, init=False)

    async def prepare(self, instance: Instance, progress: Progress) -> Launch:
        """See `supervise.launch.Prepare`."""
        progress.phase("prepare", "folder and user")
        spec = instance.spec
        self._check_tools(spec)
        uid = await self._user_of(instance)
        folder = self.instances / str(instance.id)
        private = self.private_tmp and not self.instances.is_relative_to(TMP)
        try:
            await trio.to_thread.run_sync(_make_folder, folder, spec, uid, folder / "tmp" if private else None)
        except OSError as error:  # the disk is full or read-only: the operator's to mend
            raise BuildFailed(f"the instance's folder could not be made: {error.strerror or error}") from error
        argv, env = self._command(spec)
        return Launch(
            argv=argv,
            env=self._environment(folder, private) | env | dict(spec.env),
            cwd=_cwd(spec, folder),
            uid=uid,
            rlimits=rlimits_of(spec.limits, own_user=uid is not None),
            private_tmp=str(folder / "tmp") if private else None,
            isolation="process",
            notes=notes_on(spec),
        )

    async def discard(self, instance: Instance) -> None:
        """See `supervise.launch.Prepare`."""
        await trio.to_thread.run_sync(trees.remove, self.instances / str(instance.id))
        self.uids.release(self._users.pop(instance.id, None))

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

    def _check_tools(self, spec: Spec) -> None:
        command = (
            spec.command.command if spec.command else catalog.recipe(spec.language, spec.entry_point or "").needs[0]
        )
        if self.toolchain.missing([command]) and command in self.toolchain.tools:
            raise SourceRejected(
                f"this host has no {command}", hint="corral doctor says what is missing and how to get it"
            )

    def _command(self, spec: Spec) -> tuple[tuple[str, ...], dict[str, str]]:
        if spec.command is not None:
            return (spec.command.command, *spec.command.args), {}
        recipe = catalog.recipe(spec.language, spec.entry_point or "")
        return recipe.argv, dict(recipe.env)

    def _environment(self, folder: Path, private: bool) -> dict[str, str]:
        """The allow-listed ground that a spec's own variables stand on."""
        home = str(folder / "home")
        passed = {name: self.environ[name] for name in self.config.child_env_pass if name in self.environ}
        return passed | {
            "PATH": self.toolchain.path,
            "HOME": home,
            "USER": "corral",
            "LOGNAME": "corral",
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "TMPDIR": "/tmp" if private else str(folder / "tmp"),  # noqa: S108
            "PYTHONUNBUFFERED": "1",
            "npm_config_cache": f"{home}/.npm",
            "npm_config_update_notifier": "false",
            "npm_config_fund": "false",
            "npm_config_audit": "false",
            "UV_CACHE_DIR": f"{home}/.cache/uv",
            "UV_NO_PROGRESS": "1",
            "UV_SYSTEM_CERTS": "1",  # the host's own trust, as pip and npm take it
        }


def _cwd(spec: Spec, folder: Path) -> str:
    work = folder / "work"
    cwd = spec.command.cwd if spec.command else None
    return str(work / cwd) if cwd is not None else str(work)


def _make_folder(folder: Path, spec: Spec, uid: int | None, private_tmp: Path | None) -> None:
    _own(folder)
    if uid is not None:  # we are root, and were perhaps a plain user when the folder was made
        os.chown(folder, 0, 0, follow_symlinks=False)
    folder.chmod(0o711 if uid is not None else 0o700)
    for name in FOLDERS:
        part = folder / name
        _own(part)
        if uid is not None and (before := part.lstat().st_uid) != uid:
            trees.give(part, before, uid)
    if spec.source is not None and spec.entry_point is not None:
        _write(folder / "work" / spec.entry_point, spec.source)
    for wanted in _wanted_tmp_folders(spec):
        _make_below_tmp(wanted, private_tmp or TMP, uid)


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
