"""Which isolation levels this host can give, found out by trying each, and what would unlock the others.

A trial is a process that goes through the very steps a job of that level goes through, and ends. Standard library
only: the spawner runs without site-packages.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from typing import TYPE_CHECKING, NamedTuple

from controlplane.spawn import bubblewrap, confine, landlock, seccomp, view
from controlplane.spawn.confinement import GATED_NETWORK, HOST_NETWORK, LEVELS, Confinement
from controlplane.spawn.messages import Order

if TYPE_CHECKING:
    from controlplane.spawn.cgroups import Hierarchy

TRIAL_LIMIT_S = 5.0
"""For one trial, which takes some 20 ms; bubblewrap waits for ever for a kernel that does."""
TRUE = "/usr/bin/true"
SHOWN_CHARS = 300

NO_LANDLOCK = "this kernel has no Landlock"
UNLOCK_LANDLOCK = (
    "Linux 5.13 or later, started with landlock among its security modules (lsm=landlock,… on its command line)"
)
NO_SECCOMP = "Corral knows no system call numbers for this machine"
UNLOCK_SECCOMP = "a machine with an x86_64 or aarch64 processor"
NO_BWRAP = "bubblewrap is not installed"
UNLOCK_BWRAP = "apt-get install bubblewrap (dnf, apk and pacman have it by the same name), then restart Corral"
MORE_NAMESPACES = "allow user namespaces: sysctl -w user.max_user_namespaces=15000"
UNLOCKS = (
    ("max_", MORE_NAMESPACES),
    ("No space left", MORE_NAMESPACES),
    (
        "mount proc",
        "in a container: --security-opt systempaths=unconfined, and a seccomp profile that allows namespaces",
    ),
    ("No permissions to create", "allow user namespaces: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
    (
        "Operation not permitted",
        f"{MORE_NAMESPACES}, and in a container a seccomp profile that has them",
    ),
    ("Permission denied", "an AppArmor profile for bwrap that allows userns, or apparmor=unconfined for the container"),
)
"""(words of the failure, what to do); the first that fits."""
UNLOCK_OTHERWISE = "docs/explanation/security.md says what the level namespaced needs"


class Verdict(NamedTuple):
    """Whether a level is available; else why not, and what would unlock it. Fields are those of `job.Level`."""

    name: str
    available: bool
    why: str = ""
    unlock: str = ""


def look(hierarchy: Hierarchy | None) -> confine.Host:
    """What all trials and jobs need to know of this host."""
    if seccomp.is_supported():
        for no_network in (False, True):
            seccomp.program(no_network=no_network)  # made here, or each child would make it anew: 0.6 ms
    return confine.Host(os.geteuid() == 0, view.of_host(), bubblewrap.find(), hierarchy)


def levels(host: confine.Host) -> tuple[Verdict, ...]:
    """Try every level, the weakest first. Blocks, for 10 s at the most."""
    return tuple(_verdict(host, level) for level in LEVELS)


def _verdict(host: confine.Host, level: str) -> Verdict:
    if level == "process":
        return Verdict(level, available=True)
    if not seccomp.is_supported():
        return Verdict(level, False, NO_SECCOMP, UNLOCK_SECCOMP)
    if level == "confined" and landlock.abi() == 0:
        return Verdict(level, False, NO_LANDLOCK, UNLOCK_LANDLOCK)
    if level == "namespaced" and host.bwrap is None:
        return Verdict(level, False, NO_BWRAP, UNLOCK_BWRAP)
    why = _trial(host, level)
    return Verdict(level, available=True) if why is None else Verdict(level, False, why, _unlock(why))


def _unlock(why: str) -> str:
    return next((unlock for words, unlock in UNLOCKS if words in why), UNLOCK_OTHERWISE)


def _trial(host: confine.Host, level: str) -> str | None:
    """Run one program that does nothing, at that level; returns why it did not come to be, None if it did."""
    order = Order(
        argv=[TRUE],
        env={"PATH": "/usr/bin:/bin", "HOME": "/tmp"},  # noqa: S108 - its own
        cwd="/",
        kind="instance",
        uid=confine.UNPRIVILEGED_ID if host.was_root else None,
        rlimits={},
        private_tmp=None,
        stop_signal=signal.SIGTERM,
        userns_root=False,
        confinement=Confinement(level, network=GATED_NETWORK if level == "namespaced" else HOST_NETWORK),
    )
    report, report_end = os.pipe2(os.O_CLOEXEC)
    words, words_end = os.pipe2(os.O_CLOEXEC)
    gate, gate_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    spawner = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            stdio = (nothing, nothing, words_end)
            confine.become(confine.Child(order, stdio, report_end, gate_end.fileno(), spawner, host))
        os.close(report_end)
        os.close(words_end)
        return _outcome(pid, report, words)
    finally:
        for fd in (report, words, nothing):
            os.close(fd)
        gate.close()
        gate_end.close()


def _outcome(pid: int, report: int, words: int) -> str | None:
    pidfd = os.pidfd_open(pid)
    try:
        ended = bool(select.select([pidfd], [], [], TRIAL_LIMIT_S)[0])
    finally:
        os.close(pidfd)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not ended:
        return f"a trial did not end within {TRIAL_LIMIT_S:g} s"
    if status == 0:
        return None
    told = _read_now(report)
    if told:
        document = json.loads(told)
        return f"{document['stage']}: {document['message']}"
    last = _read_now(words).decode(errors="replace").strip().splitlines()
    return last[-1][:SHOWN_CHARS] if last else f"a trial ended with status {status}"


def _read_now(fd: int) -> bytes:
    """What is in a pipe, without waiting for whoever may still hold its other end."""
    return os.read(fd, confine.REPORT_BYTES) if select.select([fd], [], [], 0)[0] else b""
