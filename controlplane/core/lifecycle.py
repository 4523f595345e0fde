"""The lifecycle of one instance, as a table.

Everything that changes an instance's state goes through `advance`; a move that
the table does not list raises, so a wrong order of events is found where it
happens and never papered over. Pure: no clock, no I/O.

    pending ─▶ preparing ─▶ starting ─▶ running ─▶ draining ─▶ stopped
                   │            │          │
                   ▼            ▼          ▼
                 failed ◀──── backoff ◀────┘   (backoff ─▶ starting)
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where an instance is; `PUBLIC_STATUS` maps it to the API's word."""

    PENDING = "pending"
    PREPARING = "preparing"
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Desired(Enum):
    """What the owner asked for; kept in the database before anything is done about it."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.PREPARING, State.DRAINING, State.FAILED}),
    State.PREPARING: frozenset({State.STARTING, State.DRAINING, State.FAILED}),
    State.STARTING: frozenset({State.RUNNING, State.BACKOFF, State.DRAINING, State.FAILED}),
    State.RUNNING: frozenset({State.BACKOFF, State.DRAINING, State.FAILED, State.STOPPED}),
    State.BACKOFF: frozenset({State.STARTING, State.RUNNING, State.DRAINING, State.FAILED}),
    State.DRAINING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset({State.PENDING, State.RUNNING}),
    State.FAILED: frozenset({State.PENDING, State.RUNNING, State.DRAINING}),
}
"""RUNNING → STOPPED is a server that ended by itself under a policy that accepts it. BACKOFF, STOPPED and FAILED → RUNNING
are a new revision that was started beside a process, outlived it, and takes over."""

PUBLIC_STATUS: dict[State, str] = {
    State.PENDING: "pending",
    State.PREPARING: "building",
    State.STARTING: "starting",
    State.RUNNING: "running",
    State.BACKOFF: "restarting",
    State.DRAINING: "stopping",
    State.STOPPED: "stopped",
    State.FAILED: "failed",
}

SETTLED = frozenset({State.RUNNING, State.STOPPED, State.FAILED})
"""States in which a waiting deploy, start or stop has its answer."""

LIVE = frozenset({State.STARTING, State.RUNNING, State.DRAINING})
"""States in which a process may exist."""


class IllegalTransition(RuntimeError):
    """A bug: the caller asked for a move that the table does not list."""


def advance(now: State, to: State) -> State:
    """Return `to`.

    Raises:
        IllegalTransition: `to` cannot follow `now`.
    """
    if to not in TRANSITIONS[now]:
        raise IllegalTransition(f"{now.value} -> {to.value}")
    return to
