"""What an exception of asyncpg means: the one place where its errors and SQLSTATEs are read.

SQLSTATE classes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from enum import Enum

import asyncpg
from attrs import frozen


class Kind(Enum):
    """What follows from a failure."""

    AWAY = "away"
    """No connection can be had: open the circuit."""
    LOST = "lost"
    """A connection broke under a call: probe, then decide."""
    SLOW = "slow"
    """It is there, and this call took too long or met a lock."""
    READ_ONLY = "read_only"
    """It is there and refuses to write: read-only, disk full, out of memory."""
    DAMAGED = "damaged"
    """It is there, and tables or rights that Corral needs are not."""
    CONFLICT = "conflict"
    """A unique or foreign key says no."""
    DATA = "data"
    """It refuses the value or the statement: trying again is useless."""


@frozen
class Failure:
    """A kind, and one sentence for an operator; holds no SQL and no value of a row."""

    kind: Kind
    reason: str
    constraint: str = ""


class DeadlinePassed(Exception):
    """The server did not answer within the call's time; the connection was dropped."""


class NoConnection(Exception):
    """A connection could not be made; its cause says why."""


_LOST = {"57P01", "57P02", "57P05"}
"""admin_shutdown, crash_shutdown, idle_session_timeout: this backend is gone, others may be there."""
_AWAY = {"57P03", "53300", "3D000", "57P04"}
"""cannot_connect_now, too_many_connections, no such database, database_dropped."""
_SLOW = {"57014", "55P03", "40P01", "40001", "25P03", "25P04"}
"""query_canceled (statement_timeout), lock_not_available, deadlock, serialization, transaction timeouts."""
_READ_ONLY = {"25006"}
_CONFLICT = {"23505", "23503"}


def read(error: BaseException) -> Failure:
    """Say what an error of asyncpg, or of the socket below it, means."""
    if isinstance(error, NoConnection):
        cause = error.__cause__
        return Failure(Kind.AWAY, _why_no_connection(cause) if cause is not None else "no connection")
    if isinstance(error, DeadlinePassed):
        return Failure(Kind.LOST, "Postgres does not answer in time")
    if isinstance(error, asyncpg.PostgresError):
        return _read_sqlstate(error)
    if isinstance(error, ValueError):  # asyncpg.DataError: a value that does not fit its column's type
        return Failure(Kind.DATA, f"a value cannot be encoded ({type(error).__name__})")
    if isinstance(error, (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)):  # TimeoutError is an OSError
        return Failure(Kind.LOST, f"the connection to Postgres broke ({type(error).__name__})")
    return Failure(Kind.DATA, f"unexpected {type(error).__name__}")


def _read_sqlstate(error: asyncpg.PostgresError) -> Failure:
    state: str = getattr(error, "sqlstate", None) or "XX000"
    reason = f"Postgres says: {_first_line(error)} (SQLSTATE {state})"
    constraint: str = getattr(error, "constraint_name", None) or ""
    if state in _CONFLICT:
        return Failure(Kind.CONFLICT, reason, constraint)
    if state in _SLOW:
        return Failure(Kind.SLOW, reason)
    if state in _LOST or state.startswith("08"):
        return Failure(Kind.LOST, reason)
    if state in _AWAY or state.startswith("28"):
        return Failure(Kind.AWAY, reason)
    if state in _READ_ONLY or state[:2] in {"53", "58"}:
        return Failure(Kind.READ_ONLY, reason)
    if state.startswith("42"):
        return Failure(Kind.DAMAGED, reason)
    return Failure(Kind.DATA, f"Postgres refuses a value or statement (SQLSTATE {state})", constraint)


def _why_no_connection(cause: BaseException) -> str:
    if isinstance(cause, asyncpg.PostgresError):
        return f"Postgres refuses connections: {_first_line(cause)}"
    if isinstance(cause, TimeoutError):
        return "Postgres does not answer (no connection in time)"
    if isinstance(cause, OSError):
        return f"Postgres cannot be reached: {cause.strerror or type(cause).__name__}"
    return f"no connection to Postgres ({type(cause).__name__})"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]
