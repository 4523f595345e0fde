"""`python -m controlplane.backup backup|restore FILE`: what `corral backup` and `corral restore` become.

Reads the environment and `.env`, as the control plane does. Exit status: 0 done, 1 it failed, 78 a configuration that
cannot be used.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from controlplane.backup.archive import Damaged
from controlplane.backup.making import HOLES_MAX_BYTES, make
from controlplane.backup.postgres import ToolFailed
from controlplane.backup.restoring import restore
from controlplane.config import ConfigError
from controlplane.embedded import EmbeddedFailed
from controlplane.environment import settings
from controlplane.errors import StorageUnavailable
from controlplane.home import HomeUnusable
from controlplane.secretbox import SecretUnreadable
from controlplane.spawn.linux import PR_SET_DUMPABLE, prctl
from controlplane.store.migrate import SchemaRefused

if TYPE_CHECKING:
    from controlplane.config import Config

FAILED, EX_CONFIG, INTERRUPTED = 1, 78, 130
WITH_DATA = "--data"
REFUSALS = (
    HomeUnusable, Damaged, ToolFailed, EmbeddedFailed, SchemaRefused, SecretUnreadable, StorageUnavailable, ConfigError, OSError
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run one of the two; returns the exit status."""
    what, *more = arguments
    prctl(PR_SET_DUMPABLE, 0)  # no child of the same user may read the keys in our memory
    try:
        config = settings()
    except ConfigError as error:
        return _say(what, error, EX_CONFIG)
    status = 0
    try:
        if what == "backup":
            _back_up(config, more[-1], with_data=WITH_DATA in more[:-1])
        else:
            _restore(config, more[-1])
    except* REFUSALS as group:
        status = _say(what, _first(group), FAILED)
    except* KeyboardInterrupt:
        status = INTERRUPTED
    return status


def _back_up(config: Config, name: str, *, with_data: bool) -> None:
    with _target(name) as target:
        made = make(config, target, with_data=with_data)
    data = f", the data of {made.instances} instances" if with_data else ""
    keys = ", the keys" if made.has_key else ""
    _tell(f"backed up {config.home}: the database (schema {made.schema}){keys}, {made.uploads} uploads{data}")
    if made.left_out:
        _tell(
            f"{made.left_out} files of instances are left out: they have holes, together more than "
            f"{HOLES_MAX_BYTES // 2**30} GiB of one instance"
        )
    if not made.has_key:
        _tell(
            "the key is the SECRET_KEY that was set, and not in the backup: without it the secrets in there cannot be read"
        )


def _restore(config: Config, name: str) -> None:
    if name == "-":
        about = restore(config, sys.stdin.buffer)
    else:
        with open(name, "rb") as source:
            about = restore(config, source)
    _tell(f"restored {config.home} as it was at {about.get('made_at')}; `corral up` starts everything")


@contextmanager
def _target(name: str) -> Iterator[BinaryIO]:
    """Standard output, or a new file that only its owner may read and that is there once it is whole."""
    if name == "-":
        if sys.stdout.isatty():
            raise HomeUnusable("a backup is not for a terminal: write it to a file, or into a pipe")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists():
        raise HomeUnusable(f"{path} exists already")
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _say(what: str, error: BaseException, status: int) -> int:
    _tell(f"{what} failed: {error}")
    return status


def _tell(text: str) -> None:
    print(f"corral: {text}", file=sys.stderr)  # noqa: T201  (standard output may be the backup)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
