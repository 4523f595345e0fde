"""Landlock: what a process and all it starts may reach of the file system, TCP, and other processes.

No privilege is needed, only no_new_privs. A restricted process can neither trace
nor read the environment or memory of a process outside its own domain.

Not covered by any ABI below: the metadata of a file (stat, chmod, chown, utimes), connecting to a
unix socket that has a path, and UDP. Standard library only; source: landlock(7) and linux/landlock.h.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import NamedTuple

from controlplane.spawn import linux

CREATE_RULESET = 444
ADD_RULE = 445
RESTRICT_SELF = 446
"""Numbers of system calls: the same on every machine but Alpha."""

CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REFER = 1 << 13
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15

FIRST_FS_RIGHTS = (1 << 13) - 1
"""ABI 1: execute, read and write files, list folders, and make or remove each kind of entry."""
LATER_FS_RIGHTS = ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
"""(ABI, the right that came with it)"""
READ_RIGHTS = EXECUTE | READ_FILE | READ_DIR
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What a rule for anything but a folder may name; the kernel refuses the rest."""

TCP_ABI = 4
BIND_TCP = 1 << 0
CONNECT_TCP = 1 << 1

SCOPE_ABI = 6
SCOPE_ABSTRACT_UNIX_SOCKETS = 1 << 0
SCOPE_SIGNALS = 1 << 1

NO_LANDLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
"""Not in this kernel; not among the security modules it was started with; forbidden by an old container's filter."""
CANNOT_BE_REACHED = {errno.ENOENT, errno.ENOTDIR, errno.EACCES}


class Ruleset(NamedTuple):
    """Absolute paths, each with everything below it; whatever is in neither tuple cannot be opened.

    `readable` paths can be read, listed and executed; symbolic links are followed, so nobody untrusted may
    write above them. `writable` paths can be read and changed in every way. `no_network` forbids TCP. `descriptors` are
    of places (O_PATH) that stand for themselves, each with whether it can be changed; they are closed.
    """

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    no_network: bool = False
    descriptors: tuple[tuple[int, bool], ...] = ()


def abi() -> int:
    """The version of Landlock's interface that this kernel has; 0 for none."""
    try:
        return linux.syscall(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in NO_LANDLOCK:
            return 0
        raise


def fs_rights(version: int) -> int:
    """Every right about files that this ABI knows."""
    rights = FIRST_FS_RIGHTS
    for since, right in LATER_FS_RIGHTS:
        if version >= since:
            rights |= right
    return rights


def restrict(ruleset: Ruleset) -> None:
    """Confine the calling thread and whatever it starts, for good; no_new_privs is set already.

    Raises:
        OSError: ENOSYS where the kernel has no Landlock. A writable path that is missing, out of reach, or (ELOOP) a
            symbolic link: whoever can write next to it could have it point elsewhere.
    """
    version = abi()
    if not version:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock")
    rights = fs_rights(version)
    fd = linux.syscall(CREATE_RULESET, *_attributes(version, rights, ruleset.no_network), 0)
    try:
        for path in ruleset.readable:
            _allow_reading(fd, path)
        for path in ruleset.writable:
            _allow_writing(fd, path, rights)
        for beneath, is_writable in ruleset.descriptors:
            _add_rule(fd, beneath, rights if is_writable else READ_RIGHTS)
        linux.syscall(RESTRICT_SELF, fd, 0)
    finally:
        os.close(fd)


def _attributes(version: int, rights: int, no_network: bool) -> tuple[bytes, int]:
    """`struct landlock_ruleset_attr` and its size: an older kernel is not told of the members it does not know."""
    members = [rights]
    if version >= TCP_ABI:
        members.append(BIND_TCP | CONNECT_TCP if no_network else 0)
    if version >= SCOPE_ABI:
        members.append(SCOPE_ABSTRACT_UNIX_SOCKETS | SCOPE_SIGNALS)
    packed = struct.pack(f"={len(members)}Q", *members)
    return packed, len(packed)


def _allow_reading(ruleset_fd: int, path: str) -> None:
    """Leaves out what is not there, and what this user could not reach anyway."""
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in CANNOT_BE_REACHED:
            return
        raise OSError(error.errno, f"{path} cannot be made readable: {error.strerror}") from None
    _add_rule(ruleset_fd, beneath, READ_RIGHTS)


def _allow_writing(ruleset_fd: int, path: str, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be made writable: {error.strerror}") from None
    if stat.S_ISLNK(os.fstat(beneath).st_mode):
        os.close(beneath)
        raise OSError(errno.ELOOP, f"{path} cannot be made writable: it is a symbolic link")
    _add_rule(ruleset_fd, beneath, rights)


def _add_rule(ruleset_fd: int, beneath: int, rights: int) -> None:
    """`struct landlock_path_beneath_attr`, which is packed; closes `beneath`."""
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= FILE_RIGHTS
        linux.syscall(ADD_RULE, ruleset_fd, RULE_PATH_BENEATH, struct.pack("=Qi", rights, beneath), 0)
    finally:
        os.close(beneath)
