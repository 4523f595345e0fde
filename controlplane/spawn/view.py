"""What every job sees of the host: its programs and libraries, and what those read. Nothing of anybody's.

The same list stands for Landlock's rules (`confined`) and bubblewrap's mounts (`namespaced`). Standard library only.
"""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import NamedTuple

from controlplane.spawn.confinement import Bind

FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store")
"""Programs and libraries."""
ETC = (
    *("alternatives", "ca-certificates", "ca-certificates.conf", "ssl", "pki", "crypto-policies", "gnutls"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "locale.alias", "locale.conf"),
    *("nsswitch.conf", "host.conf", "gai.conf", "services", "protocols", "mime.types", "magic", "terminfo", "fonts"),
    *("java-8-openjdk", "java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "java-25-openjdk", "php", "perl"),
    *("python3", "python3.11", "python3.12", "python3.13", "xml", "sgml", "ImageMagick-6", "ImageMagick-7", "npmrc"),
    *("gitconfig", "pip.conf", "os-release", "debian_version", "alpine-release", "lsb-release", "inputrc", "profile"),
)
"""Below /etc: what libraries and languages read. None of it names a person or holds a secret, as it stands on hosts."""
ETC_OF_NAMES = ("passwd", "group", "hosts", "resolv.conf", "hostname", "machine-id")
"""Below /etc: who and where this is. Written anew for a job that is in namespaces of its own."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/shm", "/dev/fd")
KERNEL = (
    *("/proc", "/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage"),
    "/sys/fs/cgroup",
)
"""What runtimes read of the machine. Landlock keeps other jobs' memory and environment closed although /proc is open."""


class System(NamedTuple):
    """What of the lists above this host has.

    Args:
        folders: Existing folders and files, each where it is.
        links: Links at the root, as (target, path): `/bin` is one to `usr/bin` on most hosts.
    """

    folders: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


def of_host() -> System:
    """Look at this host."""
    there = [path for path in FOLDERS if os.path.lexists(path)]
    links = tuple((os.readlink(path), path) for path in there if os.path.islink(path))
    folders = [path for path in there if not os.path.islink(path)]
    folders += [path for name in ETC if os.path.exists(path := f"/etc/{name}")]
    return System(tuple(folders), links)


def shows(path: str, binds: tuple[Bind, ...]) -> bool:
    """Whether a path, as a job would write it, lies in what it sees: the system's part, or one of `binds`' targets. Pure."""
    place = PurePosixPath(os.path.normpath(path))
    roots = (*FOLDERS, *(f"/etc/{name}" for name in (*ETC, *ETC_OF_NAMES)), *DEVICES, "/proc", "/sys", "/tmp")  # noqa: S108
    return any(place.is_relative_to(root) for root in (*roots, *(bind.target for bind in binds)))
