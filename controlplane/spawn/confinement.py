"""How far a job is shut in: its level, what it sees of the host's files, its network, and its control group.

A level is what a host can give and a spec can ask for; each holds all that the ones before it hold.

    process      a session, a clean environment, no capabilities, rlimits, no_new_privs
    confined     and Landlock (files, signals, abstract sockets) and seccomp
    namespaced   and namespaces of its own by bubblewrap: pid, mount, ipc, uts, user, and a network of its own

Values only. Standard library only: the spawner runs without site-packages.
"""

from __future__ import annotations

from typing import NamedTuple

LEVELS = ("process", "confined", "namespaced")
"""From the weakest to the strongest."""
HOST_NETWORK = "host"
NO_NETWORK = "none"
GATED_NETWORK = "gated"
"""Out through the egress process, and no other way."""


class Bind(NamedTuple):
    """A place of the host and where the job sees it. Elsewhere than where it is only at the level `namespaced`.

    Args:
        stage: For a place that somebody else may write to or around: an empty folder (or file) of Corral's own. The
            source is taken without following any link, and put there for bubblewrap to find, where nobody can swap it.
    """

    source: str
    target: str
    writable: bool = False
    stage: str | None = None


class Group(NamedTuple):
    """A control group, shared by all jobs that name it; None is no limit."""

    name: str
    memory_bytes: int | None = None
    cpu_percent: int | None = None
    processes: int | None = None


class Confinement(NamedTuple):
    """What one job is held to.

    Args:
        level: One of `LEVELS`.
        binds: What it sees besides the system's own folders (`view`), from `confined` on.
        network: `host`; `none` from `confined` on; `gated` at `namespaced`.
        loopback: With a gated network: (address, port) of the host's own loopback that lead there, not to the job's.
        group: None: only rlimits hold it.
    """

    level: str = "process"
    binds: tuple[Bind, ...] = ()
    network: str = HOST_NETWORK
    loopback: tuple[tuple[str, int], ...] = ()
    group: Group | None = None


def from_document(document: list[object]) -> Confinement:
    """Read back what JSON made of a `Confinement`: a list of its fields."""
    level, binds, network, loopback, group = document
    assert isinstance(binds, list)
    assert isinstance(loopback, list)
    return Confinement(
        level=str(level),
        binds=tuple(Bind(*bind) for bind in binds),
        network=str(network),
        loopback=tuple((address, port) for address, port in loopback),
        group=Group(*group) if isinstance(group, list) else None,
    )
