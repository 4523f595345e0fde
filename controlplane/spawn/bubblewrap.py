"""The level `namespaced`: what bubblewrap is told, and whether it works here.

Bubblewrap makes the mount, pid, ipc, uts and user namespaces; the network one is made before it (`netns`), since a
socket made inside has to get out. `arguments` is pure. Standard library only: the spawner runs without site-packages.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

from controlplane.spawn import linux

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.spawn.messages import Order
    from controlplane.spawn.view import System

RUN_BYTES = 1 << 20
NAMESERVER = "127.0.0.1"
"""The gate answers there; without one nobody does."""
HOSTS = "127.0.0.1 localhost corral\n::1 localhost\n"
HOST_NAME = "corral"
SHELL = "/bin/sh"
TMP = "/tmp"  # noqa: S108 - its own


class File(NamedTuple):
    """A small file that is there for this job alone: where it is, and what it holds."""

    path: str
    text: str


def find() -> str | None:
    """Where bubblewrap is; None where it is not installed."""
    return shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin")


def files(uid: int, gid: int, home: str) -> tuple[File, ...]:
    """Who and where the job is, as libraries ask: nobody else's name, and no host's."""
    return (
        File("/etc/passwd", f"corral:x:{uid}:{gid}:Corral instance:{home}:/bin/sh\n"),
        File("/etc/group", f"corral:x:{gid}:\n"),
        File("/etc/hosts", HOSTS),
        File("/etc/hostname", f"{HOST_NAME}\n"),
        File("/etc/resolv.conf", f"nameserver {NAMESERVER}\n"),
    )


def arguments(system: System, order: Order, texts: Sequence[tuple[str, int]], seccomp_fd: int) -> list[str]:
    """Bubblewrap's own arguments, without the job's command.

    Args:
        system: What of the host everybody sees.
        order: What this job sees besides; without a `private_tmp` its /tmp is in memory.
        texts: (path, descriptor) of small files, which are copied: the host's own, and those for this job alone.
        seccomp_fd: Descriptor of the filter, which bubblewrap installs last.
    """
    tmp = order.private_tmp
    words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--die-with-parent", "--hostname", HOST_NAME, "--cap-drop", "ALL"]
    copied = {path for path, _fd in texts}
    for path in system.folders:
        if path not in copied:
            words += ["--ro-bind", path, path]
    for target, path in system.links:
        words += ["--symlink", target, path]
    for path, fd in texts:
        words += ["--perms", "0444", "--file", str(fd), path]  # nobody writes to them: the root is read-only in the end
    words += [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--size",
        str(linux.SHARED_MEMORY_BYTES),
        "--tmpfs",
        "/dev/shm",  # noqa: S108
        "--remount-ro",
        "/dev",
    ]
    words += ["--size", str(RUN_BYTES), "--tmpfs", "/run"]
    words += ["--bind", tmp, TMP] if tmp is not None else ["--size", str(linux.SHARED_MEMORY_BYTES), "--tmpfs", TMP]
    for bind in order.confinement.binds:
        words += ["--bind" if bind.writable else "--ro-bind", bind.stage or bind.source, bind.target]
    return [*words, "--remount-ro", "/", "--chdir", order.cwd, "--seccomp", str(seccomp_fd)]


def copies(system: System) -> list[tuple[str, int]]:
    """The host's small files, open, to be read by bubblewrap; what is no longer there is left out."""
    found = []
    for path in system.small:
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        os.set_inheritable(fd, True)
        found.append((path, fd))
    return found


def command(argv: Sequence[str], stdin_fd: int, stdout_fd: int) -> list[str]:
    """What bubblewrap runs: the job's command, with its streams where they belong.

    Bubblewrap's own processes keep what they got as standard input and output for as long as they live, but no other
    descriptors. So the pipes come as others, and end when the program closes them. The shell becomes the program.

    Args:
        argv: The job's.
        stdin_fd: From 3 to 9, as the shells of some hosts know no others.
        stdout_fd: So, too.
    """
    return [SHELL, "-c", f'exec "$@" <&{stdin_fd} >&{stdout_fd} {stdin_fd}<&- {stdout_fd}>&-', SHELL, *argv]


def in_memory(content: bytes) -> int:
    """A descriptor to read `content` from, which survives an exec."""
    fd = os.memfd_create("corral", 0)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
