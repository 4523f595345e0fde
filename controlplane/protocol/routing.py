"""Which call a notification of the server belongs to. Pure but for the table it looks into.

Progress names its call by a token, which is Corral's own while the call is on
its way: callers choose theirs alike. What a subscription delivers names the
request that opened it (MCP 2026-07-28). A log line names nothing (MCP, stdio),
so it belongs to a call only when no other could own it: nobody ever gets what
may be somebody else's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.core import jsonrpc
from controlplane.protocol import dialect
from controlplane.protocol.handshake import Era
from controlplane.protocol.listening import subscription_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.protocol.pending import Call, Pending

PROGRESS = "notifications/progress"
LOG = "notifications/message"
CANCELLED = "notifications/cancelled"
PREFIX = "corral-"


def under_own_token(call: Call, params: bytes | None) -> bytes | None:
    """Put Corral's progress token for this call in, and keep the caller's own."""
    params, call.token = dialect.with_progress_token(params, f"{PREFIX}{call.wire_id}")
    return params


def under_callers_token(call: Call, method: str, params: bytes | None) -> bytes | None:
    """A notification's parameters as the call's own caller knows them."""
    return dialect.with_callers_token(params, call.token) if method == PROGRESS else params


def owner_of(method: str, params: bytes | None, pending: Pending, era: Era) -> Call | None:
    """The call in flight that a notification belongs to; None if that cannot be told."""
    if method == PROGRESS:
        return _by_token(params, pending)
    if method == LOG:
        return _only_logger(pending, era)
    if params is not None and b"subscriptionId" in params:
        return _by_subscription(params, pending)
    return None


def _by_token(params: bytes | None, pending: Pending) -> Call | None:
    value = jsonrpc.decode_or_none(params)
    token = value.get("progressToken") if isinstance(value, dict) else None
    if not isinstance(token, str) or not token.startswith(PREFIX):
        return None
    return pending.get(jsonrpc.own_id(token.removeprefix(PREFIX).encode()))


def _by_subscription(params: bytes, pending: Pending) -> Call | None:
    own = subscription_of(params)
    return None if own is None else pending.get(jsonrpc.own_id(own))


def _only_logger(pending: Pending, era: Era) -> Call | None:
    """The one call that asked for logs (modern), or the one asker of all calls in flight (legacy).

    Calls that were given up a moment ago count as well: their server may write a last line of them.
    """
    calls = _logging(pending, era)
    last = _logging(pending.given_up(), era)
    if not calls:
        return None
    if len(calls) == 1 and not last:
        return calls[0]
    askers = {id(call.asker) for call in (*calls, *last)}
    return calls[0] if len(askers) == 1 and calls[0].asker is not None else None


def _logging(calls: Iterable[Call], era: Era) -> list[Call]:
    return [call for call in calls if not call.is_own and (era is not Era.MODERN or call.logs)]
