"""Bundles: what has to be carried to where every instance can read it, and the carrying.

Hard links where the file system allows, else copies; beside its place first, and then put there in one step, so that
half a bundle is never used. A new version is a new folder: what runs on the old one goes on.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from attrs import define, field, frozen

from controlplane.deploy.toolchain.table import CARRIED, Layout
from controlplane.errors import BuildFailed

MARK_DIGITS = 12
SHARED_ROOTS = frozenset(map(Path, ("/", "/usr", "/usr/local", "/opt")))
HOME_SIGNS = (".profile", ".bashrc", ".ssh", ".config")
"""What shows that a folder is somebody's home. It is never carried, whatever tool lies in it."""
TURN_POLL_S = 0.2
"""Between two looks whether a wait for another's carrying was given up."""
_OURS = re.compile(rf"(?:{'|'.join(sorted(CARRIED))})-[0-9a-f]{{{MARK_DIGITS}}}(?:\.part)?")


@frozen(kw_only=True)
class Bundle:
    """Files that are carried together: some of a folder's, or one file.

    Args:
        layout: What it is.
        root: The folder, or the file.
        mark: Changes with its version.
    """

    layout: Layout
    root: Path
    mark: str

    def place(self, folder: Path) -> Path:
        """The folder that it is carried to, below `folder`."""
        return folder / f"{self.layout.name}-{self.mark}"

    def file_in(self, folder: Path, file: Path) -> Path:
        """Where one of its files is once it is carried."""
        below = file.relative_to(self.root) if self.layout.up else Path(self.layout.name)
        return self.place(folder) / below


def bundle_of(layout: Layout, file: Path) -> Bundle | None:
    """What must be carried for a program; None where it does not lie in a folder of its kind."""
    if layout.up == 0:
        return Bundle(layout=layout, root=file, mark=_mark_of(file))
    root = file.parents[layout.up - 1]
    if root in SHARED_ROOTS or any((root / sign).exists() for sign in HOME_SIGNS):
        return None
    if not all((root / path).exists() for path in (layout.has, layout.landmark)):
        return None
    return Bundle(layout=layout, root=root, mark=_mark_of(root / layout.landmark))


def _mark_of(file: Path) -> str:
    status = file.stat()
    text = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:MARK_DIGITS]


@define(eq=False)
class Carrier:
    """Carries bundles below a folder, each once. From any thread."""

    folder: Path
    _turn: threading.Lock = field(factory=threading.Lock, init=False)

    def carry(self, bundle: Bundle, check: Callable[[], object]) -> None:
        """Make the bundle readable for all; at once if it is already.

        Args:
            bundle: What is wanted.
            check: Called between files; what it raises gives the carrying up.

        Raises:
            BuildFailed: it cannot be read or written.
        """
        place = bundle.place(self.folder)
        if place.is_dir():
            return
        with self._own_turn(check):
            if place.is_dir():
                return
            staged = place.with_name(f"{place.name}.part")
            try:
                _remove(staged)
                _carry_all(bundle, staged, check)
                staged.rename(place)
            except OSError as error:
                raise BuildFailed(
                    f"the host's {bundle.layout.name} could not be made readable for instances:"
                    f" {error.strerror or error}"
                ) from error
            finally:
                _remove(staged)

    @contextmanager
    def _own_turn(self, check: Callable[[], object]) -> Iterator[None]:
        while not self._turn.acquire(timeout=TURN_POLL_S):
            check()
        try:
            yield
        finally:
            self._turn.release()

    def clear(self, wanted: set[Path]) -> None:
        """Remove bundles of earlier versions, and halves. Nothing may run on them."""
        for found in self.folder.iterdir():
            if found not in wanted and _OURS.fullmatch(found.name):
                _remove(found)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _carry_all(bundle: Bundle, target: Path, check: Callable[[], object]) -> None:
    _make_folder(target)
    if not bundle.layout.up:
        _carry_file(bundle.root, target / bundle.layout.name, executable=True)
        return
    for name in bundle.layout.take:
        source = bundle.root / name
        if source.is_dir() and not source.is_symlink():
            _carry_folder(bundle, source, target, check)
        elif source.exists():
            _make_folder((target / name).parent)
            _carry_entry(bundle, source, target / name)
    (target / bundle.layout.landmark).stat()  # what went away since it was found is not half a success


def _carry_folder(bundle: Bundle, source: Path, target: Path, check: Callable[[], object]) -> None:
    for at, folders, files in os.walk(source, onerror=_raise):
        here = Path(at)
        below = here.relative_to(bundle.root)
        folders[:] = [name for name in folders if not _is_skipped(bundle, below / name)]
        _make_folder(target / below)
        for name in (*files, *(name for name in folders if (here / name).is_symlink())):
            check()
            if not _is_skipped(bundle, below / name):
                _carry_entry(bundle, here / name, target / below / name)


def _raise(error: OSError) -> None:
    raise error


def _is_skipped(bundle: Bundle, below: Path) -> bool:
    return any(fnmatchcase(below.as_posix(), pattern) for pattern in bundle.layout.skip)


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)


def _carry_entry(bundle: Bundle, source: Path, target: Path) -> None:
    status = source.lstat()
    if stat.S_ISLNK(status.st_mode):
        to = source.readlink()
        if to.is_absolute() and to.is_relative_to(bundle.root):
            to = Path(os.path.relpath(to, source.parent))
        target.symlink_to(to)
    elif stat.S_ISREG(status.st_mode):
        _carry_file(source, target, executable=bool(status.st_mode & stat.S_IXUSR))


def _carry_file(source: Path, target: Path, *, executable: bool) -> None:
    """Link, where a link gives others what they need and nothing more; else copy, and wait until it is on the disk."""
    wanted = 0o755 if executable else 0o644
    mode = stat.S_IMODE(source.stat().st_mode)
    if mode & 0o005 == wanted & 0o005 and not mode & 0o6022 and source.stat().st_uid == os.geteuid():
        try:
            os.link(source, target)
        except OSError:
            pass  # another file system, or one without links
        else:
            return
    shutil.copy2(source, target)
    target.chmod(wanted)
    fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)  # the folder's new name must not outlive a power cut that its contents do not
    finally:
        os.close(fd)
