"""`/mcp/{ref}`: what an MCP client says to an instance, whichever door it came through.

Lets requests in, finds the instance, tells the eras apart, and turns what is
wrong with a message into the JSON-RPC error and the status that the protocol
has for it. Each era is answered by its own side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.errors import MethodNotAllowed
from controlplane.model import Role
from controlplane.protocol.headers import (
    SESSION_FIELD,
    VERSION_FIELD,
    check_accept,
    is_legacy_version_header,
    is_modern,
)
from controlplane.protocol.inbound import Refusal, read
from controlplane.web import guards, traced
from controlplane.web.mcp.answers import refused
from controlplane.web.mcp.http_sse import HttpSse
from controlplane.web.mcp.legacy import LegacySide
from controlplane.web.mcp.modern import ModernSide
from controlplane.web.mcp.outlet import Reply
from controlplane.web.mcp.sessions import NoSession

if TYPE_CHECKING:
    from controlplane.supervise.accounts import Account
    from controlplane.supervise.runner import Runner
    from controlplane.web.auth import Grant
    from controlplane.web.mcp.outlet import Outlet
    from controlplane.web.request import Head
    from controlplane.web.services import Services

ENDPOINT_ROLE = Role.CALLER
ENDPOINT_ROUTE = "/mcp/{ref}"
MESSAGES = "/messages"
"""The one path below an endpoint that takes a query: the session."""
SWEEP_S = 5.0
"""How often idle sessions and parked calls are looked at."""
SESSION_NOT_FOUND = -32001
"""The code that SDKs answer with beside 404."""


@define(eq=False)
class McpEndpoint:
    """The handler, for as long as the control plane runs."""

    services: Services
    modern: ModernSide = field(init=False)
    legacy: LegacySide = field(init=False)
    http_sse: HttpSse = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.modern = ModernSide(self.services)
        self.legacy = LegacySide(self.services)
        self.http_sse = HttpSse(self.legacy)

    def admit(self, head: Head) -> Grant:
        """Let a request in, or raise the error that is its answer; nothing of the body is needed for it."""
        grant = self.services.guards.admit(head, ENDPOINT_ROLE)
        if not head.path.endswith(MESSAGES):
            guards.check_no_query(head)
        if head.method == "POST":
            guards.check_small_json(head)
        return grant

    def readmit(self, grant: Grant, generation: int) -> bool:
        """See `Guards.readmit`."""
        return self.services.guards.readmit(grant, generation)

    async def post(self, grant: Grant, ref: str, head: Head, body: bytes, outlet: Outlet) -> Reply | None:
        """Answer one POST; None when it was answered through the outlet."""
        runner = self.services.supervisor.find(grant.principal, ref)
        account = outlet.account = self._account(runner)
        account.bytes_in += len(body)
        if traced.wanted(head.fields):
            with traced.Traced(head.fields, ENDPOINT_ROUTE, ref, body) as trace:
                reply = await self._post(grant, runner, head, body, outlet)
                trace.answered(200 if reply is None else reply.status)
        else:
            reply = await self._post(grant, runner, head, body, outlet)
        if reply is not None:
            account.bytes_out += len(reply.body)
        return reply

    async def _post(self, grant: Grant, runner: Runner, head: Head, body: bytes, outlet: Outlet) -> Reply | None:
        fields = head.fields
        try:
            check_accept(fields)
            if not is_legacy_version_header(fields.get(VERSION_FIELD)) or (
                SESSION_FIELD not in fields and is_modern(fields, read(body))
            ):
                return await self.modern.post(grant.principal, runner, head, body, outlet)
            return await self.legacy.post(grant.principal, runner, head, body, outlet)
        except (Refusal, NoSession) as refusal:
            return _reply(refusal)

    async def get(self, grant: Grant, ref: str, head: Head, outlet: Outlet) -> Reply | None:
        """The standalone stream of a legacy session, or the rest of one that broke off."""
        runner = self._find(grant, ref)
        _refuse_modern(head)
        outlet.account = self._account(runner)
        try:
            return await self.legacy.get(grant.principal, runner, head, outlet)
        except (Refusal, NoSession) as refusal:
            return _reply(refusal)

    async def delete(self, grant: Grant, ref: str, head: Head) -> Reply:
        """The protocol's own DELETE: it ends a session."""
        runner = self._find(grant, ref)
        _refuse_modern(head)
        try:
            return self.legacy.delete(grant.principal, runner, head)
        except (Refusal, NoSession) as refusal:
            return _reply(refusal)

    async def get_sse(self, grant: Grant, ref: str, head: Head, outlet: Outlet) -> Reply | None:
        """The one stream of a session of HTTP+SSE (2024-11-05)."""
        runner = self._find(grant, ref)
        outlet.account = self._account(runner)
        await self.http_sse.get(grant.principal, runner, ref, head, outlet)
        return None

    async def post_message(self, grant: Grant, ref: str, head: Head, body: bytes, outlet: Outlet) -> Reply:  # noqa: ARG002
        """A message of a session of HTTP+SSE (2024-11-05)."""
        runner = self._find(grant, ref)
        self._account(runner).bytes_in += len(body)
        if not traced.wanted(head.fields):
            return self._post_message(grant, runner, head, body)
        with traced.Traced(head.fields, ENDPOINT_ROUTE + MESSAGES, ref, body) as trace:
            reply = self._post_message(grant, runner, head, body)
            trace.answered(reply.status)
            return reply

    def _post_message(self, grant: Grant, runner: Runner, head: Head, body: bytes) -> Reply:
        try:
            return self.http_sse.post(grant.principal, runner, head, body)
        except (Refusal, NoSession) as refusal:
            return _reply(refusal)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Service loop: calls that outlive their connections, and the end of what nobody comes back for."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.legacy.run)
            task_status.started()
            while True:
                await trio.sleep(SWEEP_S)
                self.legacy.table.expire(self.legacy.table.clock())
                self.modern.parked.expire(self.modern.parked.clock())
                self.legacy.give_up_deserted(trio.current_time())

    def close(self) -> None:
        """End the streams that nobody waits for an answer on; idempotent."""
        self.legacy.close()
        self.modern.parked.close()

    def _account(self, runner: Runner) -> Account:
        return self.services.accounts.of(runner.instance.owner)

    def _find(self, grant: Grant, ref: str) -> Runner:
        return self.services.supervisor.find(grant.principal, ref)


def _refuse_modern(head: Head) -> None:
    """Versions without sessions have one method."""
    if not is_legacy_version_header(head.fields.get(VERSION_FIELD)):
        raise MethodNotAllowed("This protocol version has no sessions; POST alone.", evidence={"allow": ("POST",)})


def _reply(refusal: Refusal | NoSession) -> Reply:
    if isinstance(refusal, NoSession):
        return Reply(404, refused(None, SESSION_NOT_FOUND, str(refusal)))
    return Reply(refusal.status, refusal.body, refusal.headers)
