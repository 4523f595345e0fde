"""What every job sees of the host: its programs and libraries, and what those read. Nothing of anybody's.

The same list stands for Landlock's rules (`confined`) and bubblewrap's mounts (`namespaced`). Standard library only.
"""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from controlplane.spawn.confinement import Bind

FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store")
"""Programs and libraries."""
ETC = (
    *("alternatives", "ca-certificates", "ca-certificates.conf", "ssl", "pki", "crypto-policies", "gnutls"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "locale.alias", "locale.conf"),
    *("nsswitch.conf", "host.conf", "gai.conf", "services", "protocols", "mime.types", "magic", "terminfo", "fonts"),
    *("java-*", "php", "perl", "python3*", "xml", "sgml", "ImageMagick-*", "inputrc", "profile"),
    *("os-release", "debian_version", "alpine-release", "lsb-release"),
)
"""Below /etc: what libraries and languages read. None of it names a person, nor where a registry is and its password."""
ETC_OF_NAMES = ("passwd", "group", "hosts", "resolv.conf", "hostname", "machine-id")
"""Below /etc: who and where this is. Written anew for a job that is in namespaces of its own."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/shm")  # noqa: S108
KERNEL = (
    *("/proc", "/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage"),
    "/sys/fs/cgroup",
)
"""What runtimes read of the machine. Landlock keeps other jobs' memory and environment closed although /proc is open."""


ROOT = Path("/")
COPIED_BYTES = 16 << 10
"""A mount takes bubblewrap 0.1 ms, and reading the table of all mounts; a copy takes memory of the instance's."""


class System(NamedTuple):
    """What of the lists above this host has.

    Args:
        folders: Existing folders and files, each where it is.
        links: Links at the root, as (target, path): `/bin` is one to `usr/bin` on most hosts.
        small: Files among `folders` that are quicker copied than mounted.
    """

    folders: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    small: tuple[str, ...] = ()


def of_host() -> System:
    """Look at this host."""
    there = [*map(Path, FOLDERS), *(path for name in ETC for path in sorted(Path("/etc").glob(name)))]
    links = tuple((str(path.readlink()), str(path)) for path in there if path.is_symlink() and path.parent == ROOT)
    folders = tuple(str(path) for path in there if path.exists() and (path.parent != ROOT or not path.is_symlink()))
    return System(folders, links, tuple(path for path in folders if _is_small(Path(path))))


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= COPIED_BYTES


def normal(path: str) -> str:
    """An absolute path as this host understands it: `//usr/.` is `/usr`, which POSIX leaves open. Pure."""
    return os.path.normpath(f"/{path.lstrip('/')}")


def covers_system(path: str) -> bool:
    """Whether something at a path would hide what every job sees, or lies within that. Pure."""
    place = PurePosixPath(normal(path))
    roots = (*FOLDERS, "/etc", "/dev", "/proc", "/sys", "/run")
    return any(place.is_relative_to(root) or PurePosixPath(root).is_relative_to(place) for root in roots)


def is_system(path: str) -> bool:
    """Whether a path lies in what every job sees. Pure."""
    place = PurePosixPath(normal(path))
    if place.is_relative_to("/etc"):
        return len(place.parts) > 2 and any(fnmatch(place.parts[2], name) for name in (*ETC, *ETC_OF_NAMES))
    return any(place.is_relative_to(root) for root in (*FOLDERS, "/dev", "/proc", "/sys"))


def shows(path: str, binds: tuple[Bind, ...]) -> bool:
    """Whether a job sees a path: the system's, its own /tmp, or in one of `binds`. Pure."""
    place = PurePosixPath(normal(path))
    roots = ("/tmp", *(bind.target for bind in binds))  # noqa: S108
    return is_system(path) or any(place.is_relative_to(root) for root in roots)
