"""What is asked of history, and the page that is answered."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from attrs import frozen

PAGE_DEFAULT = 100
"""Rows of a page when the caller names no limit."""
PAGE_MAX = 10_000
"""Rows of the largest page: bounds memory whatever a caller passes."""

T = TypeVar("T")


@frozen(kw_only=True)
class LogFilter:
    """Which log lines, oldest first.

    With `tail`: the newest `tail` of those that match. Without: at most `limit`,
    from `since` (or the oldest kept, or `cursor`) on. `since` is inclusive and
    `until` exclusive; `levels` and `stream` match exactly; `q` is a substring, in any case.
    """

    tail: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    levels: tuple[str, ...] = ()
    stream: str | None = None
    incarnation: int | None = None
    q: str | None = None
    limit: int = PAGE_DEFAULT
    cursor: str | None = None


@frozen(kw_only=True)
class MetricFilter:
    """Which samples, oldest first; `tail` as for logs.

    `step_s` folds samples into steps of so many seconds: mean CPU, highest memory,
    processes and open files, sums of calls and errors, highest latencies.
    """

    tail: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    step_s: float | None = None
    limit: int = PAGE_DEFAULT
    cursor: str | None = None


@frozen(kw_only=True)
class EventFilter:
    """Which events, oldest first; `tail` as for logs."""

    tail: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    types: tuple[str, ...] = ()
    limit: int = PAGE_DEFAULT
    cursor: str | None = None


@frozen(kw_only=True)
class FleetEventFilter:
    """Which events of all instances, newest first.

    `owner` None is everybody's, and what is about no single instance; `instances` are the only ones, if given; of
    `status` events only those that tell one of `statuses`, if any are given.
    """

    owner: str | None = None
    instances: tuple[UUID, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    types: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    limit: int = PAGE_DEFAULT
    cursor: str | None = None


TOKEN_ACTIONS = ("addToken", "removeToken")
"""Actions whose rows have a token's id as their target, and behind a space its name."""


@frozen(kw_only=True)
class AuditFilter:
    """Which rows of the audit log, newest first; all that is given must hold.

    `seen_by` is a user who sees what he did, and what was done to what is his; None: everything. `targets` are ids
    or names; `classes` are hundreds of the answer's status (4 for 400 to 499).
    """

    seen_by: str | None = None
    actor: str | None = None
    owner: str | None = None
    actions: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    limit: int = PAGE_DEFAULT
    cursor: str | None = None


@frozen(kw_only=True)
class IncarnationFilter:
    """Which processes of an instance, newest first."""

    limit: int = PAGE_DEFAULT
    cursor: str | None = None


@frozen
class Page(Generic[T]):
    """Rows, and where to go on; `next_cursor` is None when nothing more matched."""

    rows: tuple[T, ...]
    next_cursor: str | None = None
