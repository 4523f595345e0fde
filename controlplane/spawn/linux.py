"""The few Linux calls that the standard library lacks, each raising `OSError` when it fails.

Standard library only: the spawner runs without site-packages.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38

CLONE_NEWIPC = 0x0800_0000
CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000

MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000

OPENAT2 = 437
"""A system call's number: the same on every machine but Alpha."""
AT_FDCWD = -100
RESOLVE_NO_SYMLINKS = 4
KEYCTL = {"x86_64": 250, "aarch64": 219}
KEYCTL_JOIN_SESSION_KEYRING = 1

CAPABILITY_LIMIT = 64
"""Capability numbers end before this in every kernel; the first one that is unknown ends the loop."""
CAPABILITY_VERSION_3 = 0x2008_0522

SHARED_MEMORY = "/dev/shm"  # noqa: S108
SHARED_MEMORY_BYTES = 64 << 20
"""As much as a container gets; like all memory it counts against the limit."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) with one integer argument."""
    word = ctypes.c_ulong
    return _check(_libc.prctl(option, word(argument), word(0), word(0), word(0)), f"prctl({option})")


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """A call that libc has no function for. Bytes go by their address, and the kernel does not write to them."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *words), f"syscall {number}")


def address_of(data: bytes) -> int:
    """Where bytes lie, for a structure that points to them; good for as long as the object lives."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def set_name(name: str) -> None:
    """What `ps` and `top` call the calling thread, and so a process of one; 15 bytes at most."""
    text = name.encode() + b"\0"
    prctl(PR_SET_NAME, address_of(text))


def set_subreaper(on: bool) -> None:
    """Whether orphaned descendants become this process's children, rather than pid 1's."""
    prctl(PR_SET_CHILD_SUBREAPER, int(on))


def is_subreaper() -> bool:
    """Whether `set_subreaper(True)` is in force for this process."""
    flag = ctypes.c_int(0)
    _check(_libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0), "prctl(PR_GET_CHILD_SUBREAPER)")
    return bool(flag.value)


def unshare(flags: int) -> None:
    """unshare(2); `os.unshare` exists from Python 3.12 only."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, flags: int, kind: str | None = None, data: str | None = None) -> None:
    """mount(2)."""
    words = [None if word is None else os.fsencode(word) for word in (kind, data)]
    _check(
        _libc.mount(os.fsencode(source), os.fsencode(target), words[0], ctypes.c_ulong(flags), words[1]),
        f"mount {target}",
    )


def open_plainly(path: str) -> int:
    """A descriptor (O_PATH) of what is at a path, none of whose components may be a symbolic link (openat2(2)).

    Raises:
        OSError: ELOOP, one is.
    """
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS)
    return syscall(OPENAT2, AT_FDCWD, os.fsencode(path) + b"\0", address_of(how), len(how))


def join_new_session_keyring() -> None:
    """Leave the keys of whoever started this process behind, where the host lets one: a container's filter may not."""
    number = KEYCTL.get(os.uname().machine)
    if number is not None:
        with suppress(OSError):
            syscall(number, KEYCTL_JOIN_SESSION_KEYRING, 0)


def keep_mounts_to_oneself() -> None:
    """In a mount namespace just entered: what is mounted from now on, nobody else sees."""
    mount("none", "/", MS_REC | MS_PRIVATE)


def bind_over_tmp(folder: str) -> None:
    """Put `folder` over /tmp, and new memory over /dev/shm, in a mount namespace that nobody else sees."""
    keep_mounts_to_oneself()
    mount(folder, "/tmp", MS_BIND)  # noqa: S108 - this is what makes /tmp private
    if os.path.isdir(SHARED_MEMORY):  # noqa: PTH112 - some containers have none
        mount("tmpfs", SHARED_MEMORY, MS_NOSUID | MS_NODEV, "tmpfs", f"size={SHARED_MEMORY_BYTES},mode=1777")


def map_own_user(inside_uid: int, inside_gid: int, outside_uid: int, outside_gid: int) -> None:
    """Map one user and one group into the user namespace just entered.

    A process that is not dumpable may not write its own maps, so it is dumpable
    for as long as that takes.
    """
    prctl(PR_SET_DUMPABLE, 1)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{inside_uid} {outside_uid} 1")
        Path("/proc/self/gid_map").write_text(f"{inside_gid} {outside_gid} 1")
    finally:
        prctl(PR_SET_DUMPABLE, 0)


def drop_bounding_set() -> None:
    """Take every capability out of the bounding set: nothing run from here on can ever gain one."""
    for capability in range(CAPABILITY_LIMIT):
        try:
            held = prctl(PR_CAPBSET_READ, capability)
        except OSError:
            return  # past the last one this kernel knows
        if held:
            prctl(PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets (and with them the ambient one)."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(header, sets), "capset")


def hurry() -> None:
    """Run before all ordinary threads, where the host allows it: a fork storm must not starve who ends it.

    For the calling thread only; what it forks or starts has ordinary priority again.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


@contextmanager
def hurrying() -> Iterator[None]:
    """`hurry` for the length of a block."""
    before = os.sched_getscheduler(0)
    hurry()
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != before:
            os.sched_setscheduler(0, before, os.sched_param(0))


def set_filesystem_ids(uid: int, gid: int) -> None:
    """setfsuid(2), setfsgid(2): whose rights this thread's file and /proc accesses are checked against."""
    if uid:
        _libc.setfsgid(gid)
        _libc.setfsuid(uid)
    else:
        _libc.setfsuid(uid)
        _libc.setfsgid(gid)
