"""Connections to the other control planes of the fleet: a pool for each, and one request at a time on a connection.

A transport, not a client: nothing is remembered between requests, no cookie and
no redirect is followed, and no header is added that the caller did not give.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import httpx
import trio
from attrs import define, field

from controlplane.errors import InstanceCrashed, InstanceUnavailable

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.cluster.roster import Roster
    from controlplane.web.problems import Headers

NODE_HEADER = b"x-corral-node"
"""The id of the control plane that hands a request on: who gets it answers for itself, and never hands it on again."""
CONNECT_S = 2.0
"""Of nodes in one network; a node that is away is found out by this, or by the end of its lease."""
POOL_S = 2.0
"""For a free connection, when so many requests are under way that there is none."""
WRITE_S = 30.0
"""For the other side to take a piece of the body."""
CONNECTIONS_MAX = 1000
"""Requests to one node at a time, streams included: as many as it lets in itself by default."""
KEEP_CONNECTIONS = 64
KEEP_S = 30.0
"""For idle connections; less than `hypercorn_server.IDLE_S`, so that a request meets no connection that is being closed."""
CLOSE_S = 1.0
URLS_MAX = 256
"""Addresses of nodes that are kept; more than any fleet has."""
LOOK_S = 0.5
"""How often it is looked whether the nodes that are waited for still stand."""
RETRY_AFTER_S = 2.0
"""When asking again is worth it: another node takes a dead one's instances over within seconds."""


class Peer(Protocol):
    """Another node."""

    @property
    def id(self) -> UUID: ...
    @property
    def url(self) -> str: ...


@define(eq=False)
class Peers:
    """The pools. `run` breaks off what waits for a node that is no more, and ends all when it is ended itself."""

    roster: Roster
    silent: set[UUID] = field(factory=set, init=False)
    """Nodes that gave nothing when they were asked for their part of a list (`gather`) last."""
    _pools: dict[tuple[str, bool], httpx.AsyncHTTPTransport] = field(factory=dict, init=False)
    """By address, and whether it is for what is read alone: long streams are among that, and a pool looks at each of its
    connections for every request."""
    _waiting: dict[UUID, set[trio.CancelScope]] = field(factory=dict, init=False)

    @asynccontextmanager
    async def asking(
        self,
        peer: Peer,
        method: str,
        target: bytes,
        headers: Headers,
        body: httpx.AsyncByteStream | bytes = b"",
        *,
        read_s: float,
    ) -> AsyncIterator[httpx.Response]:
        """One request; the head of its answer, whose body is then read by `aiter_raw`.

        Args:
            peer: Who is asked.
            method: As in the request line.
            target: Path and query as they stand in a request line, escapes included.
            headers: All that is sent, Host included, but for what frames an unnamed body.
            body: As it is sent.
            read_s: How long the other side may be silent, in seconds.

        Raises:
            InstanceUnavailable: nothing has reached it, or nothing was to be changed: it may be asked again.
            InstanceCrashed: it went away, and may have done what was asked.
        """
        timeout = {"connect": CONNECT_S, "pool": POOL_S, "write": WRITE_S, "read": read_s}
        stream = httpx.ByteStream(body) if isinstance(body, bytes) else body
        # By itself, as httpx would rewrite it as part of an address: shorten `..`, escape, refuse.
        extensions = {"timeout": timeout, "target": target}
        request = httpx.Request(method, _url(peer.url), headers=list(headers), stream=stream, extensions=extensions)
        try:
            response = await self._pool(peer.url, method == "GET").handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise unreachable(str(error)) from None
        except httpx.TransportError as error:
            raise went_away(method, str(error)) from None
        try:
            yield response
        finally:
            with trio.move_on_after(CLOSE_S, shield=True):
                await response.aclose()

    async def close(self) -> None:
        """Close every connection; bounded."""
        pools = list(self._pools.values())
        self._pools.clear()
        with trio.move_on_after(CLOSE_S, shield=True):
            for pool in pools:
                await pool.aclose()

    @contextmanager
    def watched(self, peer: Peer) -> Iterator[trio.CancelScope]:
        """A scope, to be entered by the caller, that is cancelled when the node's lease is seen to have run out."""
        lost = trio.CancelScope()
        waiting = self._waiting.setdefault(peer.id, set())
        waiting.add(lost)
        try:
            yield lost
        finally:
            waiting.discard(lost)

    async def run(self) -> None:
        """Service loop: a node whose lease ran out may be frozen, and its connections would never say so."""
        try:
            while True:
                await trio.sleep(LOOK_S)
                await self._look()
        finally:
            await self.close()

    async def _look(self) -> None:
        others = self.roster.others()
        for node_id in self._waiting.keys() - {node.id for node in others}:
            for lost in self._waiting.pop(node_id):
                lost.cancel()
        urls = {node.url for node in others}
        for key in [key for key in self._pools if key[0] not in urls]:
            with trio.move_on_after(CLOSE_S, shield=True):
                await self._pools.pop(key).aclose()

    def _pool(self, url: str, reads: bool) -> httpx.AsyncHTTPTransport:
        pool = self._pools.get((url, reads))
        if pool is None:
            limits = httpx.Limits(
                max_connections=CONNECTIONS_MAX, max_keepalive_connections=KEEP_CONNECTIONS, keepalive_expiry=KEEP_S
            )
            pool = self._pools[url, reads] = httpx.AsyncHTTPTransport(
                verify=url.startswith("https:"), limits=limits, trust_env=False
            )
        return pool


@lru_cache(maxsize=URLS_MAX)
def _url(base: str) -> httpx.URL:
    """Kept, as to read one takes a tenth of the time that it takes to hand on a call."""
    return httpx.URL(base)


def host_of(peer: Peer) -> bytes:
    """What a request to this node names as its Host: where it is reached, which it serves itself."""
    return _url(peer.url).netloc


def unreachable(reason: str) -> InstanceUnavailable:
    """The error for a request that has not reached the node."""
    return InstanceUnavailable(
        "The control plane that runs this instance does not answer.",
        hint="Try again: if it stays away, another one takes the instance over. `corral nodes` shows who is there.",
        retry_after_s=RETRY_AFTER_S,
        evidence={"reason": reason} if reason else {},
    )


def went_away(method: str, reason: str) -> InstanceUnavailable | InstanceCrashed:
    """The error for a request whose node went away before it answered."""
    if method in {"GET", "HEAD"}:
        return unreachable(reason)
    return InstanceCrashed(
        "The control plane that runs this instance went away during the request, and the server with it.",
        hint="Whether it was done is not known; look before you try again.",
        retry_after_s=RETRY_AFTER_S,
        evidence={"reason": reason} if reason else {},
    )
