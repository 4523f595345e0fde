"""Small trials of what a host allows, each in a process of its own that ends with it.

Standard library only: the spawner runs without site-packages.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from controlplane.spawn import linux
from controlplane.spawn.confine import FAILED_EXIT, UNPRIVILEGED_ID

if TYPE_CHECKING:
    from collections.abc import Callable


def works(attempt: Callable[[], None]) -> bool:
    """Try something in a process of its own, which ends with the attempt."""
    pid = os.fork()
    if pid == 0:
        status = FAILED_EXIT
        try:
            attempt()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def try_private_tmp() -> None:
    """What a private /tmp takes, over itself, where nobody sees it; raises OSError where the host forbids it."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC)
    else:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWIPC)
        linux.map_own_user(uid, gid, uid, gid)
    linux.bind_over_tmp("/tmp")  # noqa: S108


def try_userns_root() -> None:
    """What a service needs that must not see itself as root; raises OSError where the host forbids it."""
    uid, gid = os.getuid(), os.getgid()
    linux.unshare(linux.CLONE_NEWUSER)
    linux.map_own_user(UNPRIVILEGED_ID, UNPRIVILEGED_ID, uid, gid)
