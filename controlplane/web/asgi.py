"""The few ASGI words that our own handlers share: types, and how a whole answer is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controlplane.web.problems import Answer, Headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID_KEY = "corral.request_id"
"""Where `mount` leaves the request's id in the scope, for every handler behind it."""


AUDIT_KEY = "corral.audit"
"""Where `mount` leaves what the audit log will say of the request (`auditing.Entry`)."""

BODY_FLOW_KEY = "corral.body_flow"
"""Where `body_guard` leaves what paces a body that is read piece by piece."""


async def send_answer(send: Send, answer: Answer, extra: Headers = (), *, head_only: bool = False) -> None:
    """Send a whole answer; `extra` headers come on top, and a HEAD request gets no body."""
    await send_start(send, answer.status, (*answer.headers, *extra))
    await send_body(send, b"" if head_only else answer.body)


async def send_start(send: Send, status: int, headers: Headers) -> None:
    """Send status and headers."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def send_body(send: Send, body: bytes, *, more: bool = False) -> None:
    """Send a piece of the body; the last one unless `more`."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def wait_disconnected(receive: Receive) -> None:
    """Return once the client is gone; body messages that nobody wants are dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass
