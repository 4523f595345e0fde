"""What stands in front of Quart: our own routes, and what must hold for every answer.

`mount` makes the one ASGI application that the door serves. For every request
it checks Host and Origin, bounds and drains the body, gives the answer its
request id, CORS and safety headers, turns whatever escapes into a problem, and
counts. What another node must answer is handed on to it (`placing`); what is
not one of `asgi_routes` goes on to the application behind.
"""

from __future__ import annotations

import re
from time import perf_counter
from typing import TYPE_CHECKING

from attrs import define, field

from controlplane.errors import HostRejected
from controlplane.web import guards, traced
from controlplane.web.asgi import AUDIT_KEY, REQUEST_ID_KEY, App, Message, Receive, Scope, Send, send_answer
from controlplane.web.asgi_exchange import Exchange
from controlplane.web.asgi_routes import AsgiRoutes, match, meter_of
from controlplane.web.auditing import LEFT, Entry
from controlplane.web.body_guard import BodyGuard
from controlplane.web.mcp.outlet import ClientLeft
from controlplane.web.placing import Placing
from controlplane.web.problems import answer_for, unexpected
from controlplane.web.request import Head, request_id_of

if TYPE_CHECKING:
    from controlplane.web.meters import Meters, Route
    from controlplane.web.problems import Headers
    from controlplane.web.services import Services

UPLOAD_PATHS = re.compile(r"/deploy|/api/v2/deploy|/instances/.+/redeploy")
STEADY = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


def mount(app: App, services: Services) -> App:
    """Put our own routes and the rules of every answer in front of an ASGI application.

    The request's id is in the scope, under `asgi.REQUEST_ID_KEY`.
    """
    return Front(services, BodyGuard(Router(app, services), _limit_for))


def _limit_for(scope: Scope) -> int:
    return guards.UPLOAD_BODY_MAX_BYTES if UPLOAD_PATHS.fullmatch(scope["path"]) else guards.CALL_BODY_MAX_BYTES


@define(eq=False)
class Front:
    """Gives every answer its headers, and counts it."""

    services: Services
    app: App

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = Head.of_scope(scope)
        scope[REQUEST_ID_KEY] = request_id_of(head)
        headers = self._headers(head, scope[REQUEST_ID_KEY])
        entry = scope[AUDIT_KEY] = Entry(self.services.audit, scope[REQUEST_ID_KEY])
        outgoing = _Outgoing(send, headers, self.services.meters, meter_of(match(head)), entry)
        try:
            await self.app(scope, receive, outgoing.send)
        finally:
            outgoing.count()
            entry.close(LEFT)  # if nothing else did

    def _headers(self, head: Head, request_id: str) -> Headers:
        return ((b"x-request-id", request_id.encode()), *STEADY, *self.services.guards.cors(head))


@define(eq=False)
class _Outgoing:
    """Adds headers that the handler did not set itself, counts the answer once, and tells the audit log of it."""

    _send: Send
    _headers: Headers
    _meters: Meters
    _route: Route
    _entry: Entry
    _began: float = field(factory=perf_counter, init=False)
    _status: int = field(default=0, init=False)
    _counted: bool = field(default=False, init=False)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if not self._entry.has_outcome:
                self._entry.close(self._status)
            own = {name.lower() for name, _ in message["headers"]}
            extra = [(name, value) for name, value in self._headers if name not in own or name == b"vary"]
            message = {**message, "headers": [*message["headers"], *extra]}
        elif not message.get("more_body", False):
            self.count()  # before the client can have the whole answer
        await self._send(message)

    def count(self) -> None:
        """Note the answer; what was never begun (the client left) is none."""
        if self._status and not self._counted:
            self._counted = True
            self._meters.count(self._route, self._status, perf_counter() - self._began)


@define(eq=False)
class Router:
    """Checks what must hold everywhere, then hands over to one of our routes or to the application behind."""

    app: App
    services: Services
    routes: AsgiRoutes = field(init=False)
    placing: Placing = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.routes = AsgiRoutes(self.services)
        self.placing = Placing(self.services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = False

        async def noting(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        request_id = scope[REQUEST_ID_KEY]
        head = Head.of_scope(scope)
        try:
            await self._route(scope, head, receive, noting)
        except ClientLeft:
            return
        except Exception as error:  # the boundary: whatever escapes a handler ends here
            if began:
                unexpected(error, request_id=request_id)  # too late for an answer: logged, and the stream is cut short
                return
            await send_answer(send, answer_for(error, request_id=request_id), head_only=head.method == "HEAD")

    async def _route(self, scope: Scope, head: Head, receive: Receive, send: Send) -> None:
        if not head.path.startswith("/"):
            raise HostRejected("Requests to a proxy, and for `*`, are not served.", hint="Send the path alone.")
        self.services.guards.check_host(head)
        self.services.guards.check_origin(head)
        if await self.placing.hand_on(head, scope, receive, send):
            return
        found = match(head)
        if found is None and traced.wanted(head.fields) and (route := traced.command_of(head)) is not None:
            with traced.Traced(head.fields, route) as trace:
                await self.app(scope, receive, trace.watching(send))
        elif found is None:
            await self.app(scope, receive, send)
        else:
            await self.routes.handle(*found, Exchange(head, scope[REQUEST_ID_KEY], receive, send))
