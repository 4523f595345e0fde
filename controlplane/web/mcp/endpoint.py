"""`/mcp/{ref}`: what an MCP client says to an instance, whichever door it came through.

Stands here for both doors to call; it knows no instance's endpoint yet.
"""

# ruff: noqa: ARG002

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define

from controlplane.errors import NotFound
from controlplane.model import Role
from controlplane.web import guards

if TYPE_CHECKING:
    from controlplane.web.auth import Grant
    from controlplane.web.mcp.outlet import Outlet, Reply
    from controlplane.web.request import Head
    from controlplane.web.services import Services

ENDPOINT_ROLE = Role.CALLER
MESSAGES = "/messages"
"""The one path below an endpoint that takes a query: the session."""


@define(eq=False)
class McpEndpoint:
    """The handler, for as long as the control plane runs."""

    services: Services

    def admit(self, head: Head) -> Grant:
        """Let a request in, or raise the error that is its answer; nothing of the body is needed for it."""
        checks = self.services.guards
        checks.check_host(head)
        checks.check_origin(head)
        grant = checks.grant(head)
        guards.require(grant.principal, ENDPOINT_ROLE)
        checks.admit_call(grant.principal)
        if not head.path.endswith(MESSAGES):
            guards.check_no_query(head)
        if head.method == "POST":
            guards.check_content_type(head)
            guards.check_encoding(head)
            guards.check_length(head, guards.CALL_BODY_MAX_BYTES)
        return grant

    def readmit(self, grant: Grant, generation: int) -> bool:
        """Let in another request with the same head on the same connection; False when it must be admitted anew."""
        if not self.services.tokens.holds(grant, generation):
            return False
        self.services.guards.admit_call(grant.principal)
        return True

    async def post(self, grant: Grant, ref: str, head: Head, body: bytes, outlet: Outlet) -> Reply | None:
        """Answer one POST; None when it was answered through the outlet."""
        raise _not_there()

    async def get(self, grant: Grant, ref: str, head: Head, outlet: Outlet) -> Reply | None:
        """The standalone stream of a legacy session, or the rest of one that broke off."""
        raise _not_there()

    async def delete(self, grant: Grant, ref: str, head: Head) -> Reply:
        """The protocol's own DELETE: it ends a session."""
        raise _not_there()

    async def get_sse(self, grant: Grant, ref: str, head: Head, outlet: Outlet) -> Reply | None:
        """The one stream of a session of HTTP+SSE (2024-11-05)."""
        raise _not_there()

    async def post_message(self, grant: Grant, ref: str, head: Head, body: bytes, outlet: Outlet) -> Reply:
        """A message of a session of HTTP+SSE (2024-11-05)."""
        raise _not_there()

    async def run(self) -> None:
        """Service loop."""
        await trio.sleep_forever()

    def close(self) -> None:
        """End the streams that nobody waits for an answer on; idempotent."""


def _not_there() -> NotFound:
    return NotFound("There is no MCP endpoint here yet.", hint="POST to /mcp/{id}/execute instead.")
