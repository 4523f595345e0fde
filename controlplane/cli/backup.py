"""`corral backup` and `corral restore`: become the program that reads or makes a CORRAL_HOME, on this machine."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from controlplane.cli.session import examples
from controlplane.cli.up import FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_Command = TypeVar("_Command", bound="Callable[..., Any]")


def _place(command: _Command) -> _Command:
    """Which home and which database; without, the same as `corral up`."""
    home = click.option("--home", type=click.Path(file_okay=False), help="Folder of all data.")
    url = click.option("--database-url", metavar="URL", help="Its Postgres, where that is not the embedded one.")
    return home(url(command))


@click.command(
    short_help="Write everything that cannot be made again to one file.",
    epilog=examples(
        "{corral} backup corral.tar.gz",
        "{corral} backup - | age -r age1… > corral.tar.gz.age",
        note="It holds the keys: keep it as you would keep those. The control plane goes on meanwhile.",
    ),
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--data", is_flag=True, help="What the servers keep in their folders, too.")
@_place
def backup(*, file: str, data: bool, **flags: str | None) -> NoReturn:
    """Write the database, the keys and the uploads to FILE, or to standard output (-).

    On the machine of the control plane, as its user.
    """
    _become("backup", *["--data"] * data, file, flags=flags)


@click.command(
    short_help="Make a new CORRAL_HOME of a backup.",
    epilog=examples(
        "{corral} restore corral.tar.gz && {corral} up",
        "age -d corral.tar.gz.age | {corral} restore -",
        note="All of it or nothing: the folder must be empty, and so must the database, where that is one of your own.",
    ),
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@_place
def restore(*, file: str, **flags: str | None) -> NoReturn:
    """Make a folder of data, and its database, of what `corral backup` wrote to FILE (-: standard input)."""
    _become("restore", file, flags=flags)


def _become(*words: str, flags: dict[str, str | None]) -> NoReturn:
    environment = dict(os.environ)
    environment.update({FLAGS[flag]: value for flag, value in flags.items() if value is not None})
    os.execve(sys.executable, [sys.executable, "-P", "-m", "controlplane.backup", *words], environment)
