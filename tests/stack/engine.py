"""A Docker Engine of this test run's own: its daemon, in a folder of its own, and what it leaves behind.

Nothing of the host's network is touched: no iptables, no forwarding, no default bridge. Networks of containers so lead
nowhere but to this machine. The folder stays for the next run, as the images in it take minutes to make; containers,
volumes and control groups do not.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from tests.e2e.plane import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = Path(f"/var/tmp/corral-stack-{os.geteuid()}")
"""Not in memory, where /tmp may be: the images take 3 GB."""
READY_LIMIT_S = 60
"""From the daemon's start to its first answer; measured 1.5 s."""
END_LIMIT_S = 60
"""For the daemon to stop its containers and itself."""
COMMAND_LIMIT_S = 120
CGROUPS = Path("/sys/fs/cgroup")
GROUP = "corral-stack"
"""Above the control groups of all its containers."""
PR_SET_PDEATHSIG = 1
MNT_DETACH = 2

_libc = ctypes.CDLL(None)


class EngineFailed(Exception):
    """No engine can run here; the message says why."""


@define
class Engine:
    """A running engine. `environment` leads the command line to it, and has no other settings of the caller's."""

    folder: Path
    environment: Mapping[str, str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        kept = ("PATH", "HOME", "LANG", "SSL_CERT_FILE")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ} | {
            "DOCKER_HOST": f"unix://{self.folder}/docker.sock",
            "DOCKER_BUILDKIT": "0",  # for which the command line needs no plugin
        }

    def docker(self, *words: str, within_s: float = COMMAND_LIMIT_S) -> str:
        """Run `docker`, which must succeed; returns what it printed."""
        return run(["docker", *words], self.environment, within_s=within_s)

    def has_image(self, name: str) -> bool:
        return bool(self.docker("images", "--quiet", name).strip())

    def clear(self) -> None:
        """Remove every container, volume and network: whatever is in this engine is a test's."""
        for kind, words in (("container", ("--all",)), ("volume", ()), ("network", ("--filter", "type=custom"))):
            if found := self.docker(kind, "ls", *words, "--quiet").split():
                self.docker(kind, "rm", *(() if kind == "network" else ("--force",)), *found)


def run(
    argv: list[str], environment: Mapping[str, str], *, within_s: float, cwd: Path | None = None, given: str = ""
) -> str:
    """Run a command, which must succeed; returns its standard output. What it said is part of a failure."""
    done = subprocess.run(
        argv, env=environment, cwd=cwd, input=given, capture_output=True, text=True, timeout=within_s, check=False
    )
    assert done.returncode == 0, f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def open_engine() -> Iterator[Engine]:
    """Start the engine, without any container; nobody else uses its folder meanwhile.

    Raises:
        EngineFailed: it does not start here.
    """
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _end_former(FOLDER)
        daemon = _start(FOLDER)
        try:
            engine = Engine(FOLDER)
            engine.clear()
            try:
                yield engine
            finally:
                engine.clear()
        finally:
            _end(daemon)
            _unmount_networks(FOLDER)
            _remove_groups()


def _start(folder: Path) -> subprocess.Popen[bytes]:
    settings = {
        "data-root": f"{folder}/data",
        "exec-root": f"{folder}/exec",
        "pidfile": f"{folder}/docker.pid",
        "hosts": [f"unix://{folder}/docker.sock"],
        "storage-driver": "overlay2",
        "cgroup-parent": f"/{GROUP}",
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "ip-masq": False,
        "bridge": "none",
        "features": {"buildkit": True},
    }
    (folder / "daemon.json").write_text(json.dumps(settings))
    with open(folder / "log", "wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", "--config-file", str(folder / "daemon.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  (one system call)
        )
    try:
        wait_until(lambda: _answers(folder) or daemon.poll() is not None, READY_LIMIT_S, "the engine's first answer")
    except AssertionError:
        _end(daemon)
    if daemon.poll() is not None:
        raise EngineFailed((folder / "log").read_text(errors="replace")[-2000:])
    return daemon


def _end_with_parent() -> None:
    """A test run that is killed ends the engine, which ends its containers."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _answers(folder: Path) -> bool:
    done = subprocess.run(
        ["docker", "--host", f"unix://{folder}/docker.sock", "version"],
        capture_output=True,
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
    return done.returncode == 0


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _end_former(folder: Path) -> None:
    """End the daemon of a run that was killed, should it still be there; nobody else's has this configuration."""
    with suppress(OSError, ValueError):
        pid = int((folder / "docker.pid").read_text())
        if f"{folder}/daemon.json".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not Path(f"/proc/{pid}").exists(), END_LIMIT_S, "the end of an engine that was left")
    _unmount_networks(folder)
    shutil.rmtree(folder / "exec", ignore_errors=True)
    (folder / "docker.pid").unlink(missing_ok=True)


def _unmount_networks(folder: Path) -> None:
    """The host's own network, which the daemon binds there for containers that ask for it, and leaves."""
    for bound in folder.glob("exec/netns/*"):
        _libc.umount2(os.fsencode(bound), MNT_DETACH)


def _remove_groups() -> None:
    """The empty control groups that a runtime leaves behind, of whatever version."""
    for top in (CGROUPS / GROUP, *CGROUPS.glob(f"*/{GROUP}")):
        for folder, _subfolders, _files in os.walk(top, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
