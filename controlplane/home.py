"""CORRAL_HOME: the one folder of all data, its lock, and the secrets kept in it.

    lock            held while a control plane runs, with its pid
    owner-id        random; marks every process of this home (`CORRAL_OWNER`)
    secret-key      root of the encryption and JWT keys, unless SECRET_KEY is set
    secret-key.previous   the one before, for as long as something may be encrypted with it
    credentials     {"url", "token"} for the command line, on this host only
    instances/      one folder per instance, each its own user's
    store/          what was installed and built, shared by instances; and what is being built
    uploads/        archives that revisions come from
    runtimes/       the tools that instances run on
    run/            sockets of the embedded services, and the one by which another control plane takes over
    embedded/       their data

Secret files are 0600 and written whole or not at all. The folder itself may be
entered, not listed: instances run as other users and reach theirs below it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from controlplane.config import Config

ENTER_ONLY = 0o711
PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
SECRET_BYTES = 32
KEY, PREVIOUS_KEY = "secret-key", "secret-key.previous"
RESTORING = ".restore"
"""A folder that is there while a backup is restored; found later, that was broken off."""
MAX_FILE_BYTES = 4096
"""No file read here is longer; a longer one is not ours."""


class HomeUnusable(Exception):
    """The folder cannot be used; the message says why and what to do. Exit status 78."""


class HomeBusy(HomeUnusable):
    """Another control plane runs on this home.

    Args:
        path: The folder.
        pid: The holder's; None where it cannot be told.
    """

    def __init__(self, path: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(
            f"{path} is in use by another control plane ({holder}): take over from it with `corral up --replace`, "
            "stop it, or set CORRAL_HOME to another folder"
        )
        self.pid = pid


@define(kw_only=True)
class Home:
    """An open home. `url` in the credentials is a guess until `write_credentials` is called."""

    path: Path
    owner_id: str
    secret_key: str = field(repr=False)
    previous_keys: tuple[str, ...] = field(default=(), repr=False)
    """What is encrypted with these can still be read."""
    keeps_key: bool = True
    """Whether the key is in a file here; else it is SECRET_KEY."""
    admin_token: str = field(repr=False)

    @property
    def instances(self) -> Path:
        return self.path / "instances"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def embedded(self) -> Path:
        return self.path / "embedded"

    @property
    def credentials(self) -> Path:
        return self.path / "credentials"

    @property
    def is_rotating(self) -> bool:
        """Whether a key was replaced and something may still be encrypted with it: also after a crash meanwhile."""
        return self.keeps_key and (self.path / PREVIOUS_KEY).exists()

    def begin_rotation(self) -> str:
        """Put a new key in force and keep the old one beside it; returns the new one.

        A crash in between leaves both files, with one or two keys in them: nothing that was readable is lost.

        Raises:
            OSError: it cannot be written; the old one stays in force.
        """
        assert self.keeps_key
        assert not self.is_rotating, "the keys before that one would be lost"
        new = secrets.token_hex(SECRET_BYTES)
        write_private(self.path / PREVIOUS_KEY, self.secret_key + "\n")
        try:
            write_private(self.path / KEY, new + "\n")
        except OSError:
            (self.path / PREVIOUS_KEY).unlink()
            raise
        self.previous_keys, self.secret_key = (*self.previous_keys, self.secret_key), new
        return new

    def end_rotation(self) -> None:
        """Destroy the old key: nothing is encrypted with it any more."""
        _destroy(self.path / PREVIOUS_KEY)
        self.previous_keys = ()

    def write_credentials(self, url: str) -> None:
        """Tell the command line where this control plane is, once it listens."""
        document = json.dumps({"url": url, "token": self.admin_token}, indent=2)
        if _read(self.credentials) != document:
            write_private(self.credentials, document)


@contextmanager
def open_home(config: Config, *, restoring: bool = False) -> Iterator[Home]:
    """Create what is missing, take the lock, read the secrets.

    Args:
        restoring: A restore opens it, which is not finished.

    Raises:
        HomeBusy: another control plane holds the lock.
        HomeUnusable: the folder or a file in it cannot be used.
    """
    path = config.home
    try:
        with hold(path):
            if not restoring and (path / RESTORING).exists():
                raise HomeUnusable(f"{path} is half restored: `corral restore` was broken off. Run it again")
            _make_folders(path)
            home = Home(
                path=path,
                owner_id=_keep(path / "owner-id", lambda: secrets.token_hex(16)),
                secret_key=config.secret_key or _keep(path / KEY, lambda: secrets.token_hex(SECRET_BYTES)),
                previous_keys=_previous_keys(config, path),
                keeps_key=config.secret_key is None,
                admin_token=config.admin_token or _kept_token(path / "credentials") or _new_token(),
            )
            home.write_credentials(_guess_url(config))
            yield home
    except OSError as error:
        if not _is_about(error, path):
            raise
        reason = error.strerror or str(error)
        raise HomeUnusable(f"{error.filename} cannot be used: {reason}. Mend it, or set CORRAL_HOME") from error


def _is_about(error: OSError, path: Path) -> bool:
    """Whether it is the home's own: what runs inside `open_home` fails with errors of its own."""
    return isinstance(error.filename, (str, Path)) and Path(error.filename).is_relative_to(path)


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Create the folder if it is missing, and hold its lock.

    Raises:
        HomeBusy: a control plane holds it.
        HomeUnusable: it is another user's.
        OSError: it cannot be had.
    """
    path.mkdir(mode=ENTER_ONLY, parents=True, exist_ok=True)
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise HomeUnusable(
            f"{path} belongs to user {owner}, and Corral runs as {os.geteuid()}: run it as that user, or set CORRAL_HOME"
        )
    path.chmod(ENTER_ONLY)
    with _locked(path):
        yield


def _make_folders(path: Path) -> None:
    """Under the lock only: a control plane that runs may have given one of them other rights."""
    for name, mode in (("instances", ENTER_ONLY), ("run", PRIVATE_FOLDER), ("embedded", ENTER_ONLY)):
        folder = path / name
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeBusy(path, _holder(fd)) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)  # the lock goes with it; the file stays, or two could each lock their own


def _holder(fd: int) -> int | None:
    with suppress(ValueError):
        return int(os.pread(fd, 32, 0))
    return None


def _read(path: Path) -> str | None:
    """A private file's text; None if there is none. Others' rights to it are taken away."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(fd, encoding="utf-8") as file:
        if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:
            os.fchmod(fd, PRIVATE_FILE)
        try:
            return file.read(MAX_FILE_BYTES)
        except UnicodeDecodeError:
            raise OSError(errno.EINVAL, "it is not text", str(path)) from None


def write_private(path: Path, text: str) -> None:
    """Replace a file with a 0600 one, whole or not at all, and past a power cut.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _keep(path: Path, make: Callable[[], str]) -> str:
    """What a file holds; made at the first time."""
    text = _read(path)
    if text is None:
        text = make()
        write_private(path, text + "\n")
    value = text.strip()
    if not value:
        raise OSError(errno.EINVAL, "it is empty: restore it, or remove it for a new one", str(path))
    return value


def _previous_keys(config: Config, path: Path) -> tuple[str, ...]:
    """Named by the operator, and left by a rotation that was broken off, the key file's or one before SECRET_KEY's."""
    kept = (_read(path / PREVIOUS_KEY) or "").strip()
    return tuple(key for key in (config.secret_key_previous, kept) if key)


def _destroy(path: Path) -> None:
    """Remove a secret file; its content is written over first, for what that is worth on this disk."""
    with suppress(FileNotFoundError):
        with open(path, "r+b") as file:
            length = len(file.read())
            file.seek(0)
            file.write(bytes(length))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def kept_keys(config: Config) -> tuple[str, ...]:
    """The key in force in a home that another one holds, and those before it; raises OSError where there is none."""
    path = config.home
    key = config.secret_key or (_read(path / KEY) or "").strip()
    if not key:
        raise OSError(errno.ENOENT, "there is no key", str(path / KEY))
    return (key, *_previous_keys(config, path))


def kept_token(path: Path) -> str | None:
    """The administrator's token in a home's `credentials`; None where there is none yet.

    Raises:
        OSError: the file cannot be read, or is damaged.
    """
    return _kept_token(path / "credentials")


def _kept_token(path: Path) -> str | None:
    try:
        document = json.loads(_read(path) or "{}")
        token = document.get("token")
    except (ValueError, AttributeError):
        raise OSError(errno.EINVAL, "it is not JSON: remove it for a new token", str(path)) from None
    return token if isinstance(token, str) and token else None


def _new_token() -> str:
    return "corral_" + secrets.token_urlsafe(SECRET_BYTES)


def _guess_url(config: Config) -> str:
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"http://[{host}]:{config.port}" if ":" in host else f"http://{host}:{config.port}"
