"""Requests of a legacy session that are not simply passed on: what is Corral's own, and what is shared.

Clients that share a process share its subscriptions and its log level, so these
are counted and filtered here; a server of the modern era knows neither as a
request at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.core.jsonrpc import INVALID_PARAMS, INVALID_REQUEST
from controlplane.core.rawjson import decode_or_none
from controlplane.protocol import legacy_to_modern as bridge
from controlplane.protocol.audience import TooManySubscriptions
from controlplane.protocol.handshake import Era
from controlplane.protocol.logging_levels import minimum_in
from controlplane.protocol.members import EMPTY_RESULT, error, is_error, object_members

if TYPE_CHECKING:
    from controlplane.supervise.lane import Lane
    from controlplane.web.mcp.client_session import ClientSession
    from controlplane.web.mcp.membership import Membership

Forward = Callable[[], Awaitable[bytes]]
"""Passes the request on; returns the server's answer."""


@frozen
class Special:
    """One such request. `membership` is the session's."""

    session: ClientSession
    lane: Lane
    membership: Membership
    method: str
    params: bytes | None
    forward: Forward

    async def answer(self) -> bytes:
        """The raw member that the client gets."""
        match self.method:
            case "initialize":
                return error(INVALID_REQUEST, "this session is initialized already")
            case "logging/setLevel":
                return await self._set_level()
            case "resources/subscribe":
                return await self._subscribe()
            case "resources/unsubscribe":
                return await self._unsubscribe()
        return bridge.synthesized(self.method) or await self.forward()

    async def _set_level(self) -> bytes:
        try:
            level = minimum_in(self.params)
        except ValueError as wrong:
            return error(INVALID_PARAMS, str(wrong))
        lane = self.lane
        if lane.era is Era.LEGACY and (lane.is_private or "logging" not in lane.facts.capabilities):
            member = await self.forward()
            if is_error(member):
                return member
        else:
            lane.want_log_level(level)
        self.session.log_level = level
        return EMPTY_RESULT

    async def _subscribe(self) -> bytes:
        uri = self._uri()
        if uri is None:
            return error(INVALID_PARAMS, "`uri` must be a string")
        if self.lane.era is Era.MODERN:
            return await self.membership.subscribe(uri)
        audience = self.lane.session.audience
        try:
            is_first = audience.subscribe(uri, self.membership)
        except TooManySubscriptions:
            return error(INVALID_REQUEST, "this server has too many subscriptions already")
        if not is_first:
            return EMPTY_RESULT
        member = b""
        try:
            member = await self.forward()
        finally:
            if not member or is_error(member):
                is_last = audience.unsubscribe(uri, self.membership)
                if is_last and not member:  # the client left, or time ran out: the server may have done it
                    self.lane.session.request_nowait("resources/unsubscribe", self.params)
        return member

    async def _unsubscribe(self) -> bytes:
        uri = self._uri()
        if uri is None:
            return error(INVALID_PARAMS, "`uri` must be a string")
        if self.lane.era is Era.MODERN:
            return self.membership.unsubscribe(uri)
        is_last = self.lane.session.audience.unsubscribe(uri, self.membership)
        return await self.forward() if is_last else EMPTY_RESULT

    def _uri(self) -> str | None:
        raw = object_members(self.params).get("uri")
        uri = None if raw is None else decode_or_none(bytes(raw))
        return uri if isinstance(uri, str) else None


def is_special(method: str, era: Era) -> bool:
    """Whether a request is one of these. `ping` goes to the server, if it knows it."""
    if method == "ping":
        return era is not Era.LEGACY
    return method in {"initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
