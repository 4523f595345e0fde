"""Which call a notification belongs to. Pure but for the table it looks into.

Progress names its call by a token, which is Corral's own while the call is on
its way: callers choose theirs alike. A log line names none (MCP, stdio), so it
belongs to a call only when there is no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from controlplane.core import jsonrpc
from controlplane.protocol import dialect

if TYPE_CHECKING:
    from controlplane.protocol.pending import Call, Pending

PROGRESS = "notifications/progress"
LOG = "notifications/message"
PREFIX = "corral-"

Deliver = Callable[[str, bytes | None], None]


def under_own_token(call: Call, params: bytes | None) -> bytes | None:
    """Put Corral's token for this call in, and have progress delivered under the caller's own."""
    deliver = call.on_notification
    if deliver is None:
        return params
    params, token = dialect.with_progress_token(params, f"{PREFIX}{call.wire_id}")
    call.on_notification = _restoring(token, deliver)
    return params


def owner_of(method: str, params: bytes | None, pending: Pending) -> Call | None:
    """The call in flight that a notification belongs to; None if that cannot be told."""
    if method == LOG:
        return pending.first() if len(pending) == 1 else None
    if method != PROGRESS:
        return None
    value = jsonrpc.decode_or_none(params)
    token = value.get("progressToken") if isinstance(value, dict) else None
    if not isinstance(token, str) or not token.startswith(PREFIX):
        return None
    return pending.get(jsonrpc.own_id(token.removeprefix(PREFIX).encode()))


def _restoring(token: bytes | None, deliver: Deliver) -> Deliver:
    def restored(method: str, params: bytes | None) -> None:
        deliver(method, dialect.with_callers_token(params, token) if method == PROGRESS else params)

    return restored
