"""One instance's way out: serves the listener and the DNS socket that were made inside its network namespace."""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from controlplane.core.hosts import LOOPBACK
from controlplane.egress import dns
from controlplane.egress.lookups import Unknown
from controlplane.egress.names import Given, StandIns, is_localhost, is_stand_in, means_the_same_inside
from controlplane.egress.outside import Outside, Refused
from controlplane.egress.pace import Pace

if TYPE_CHECKING:
    from controlplane.egress.policy import Policy

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
"""Of one instance, at once: each takes two descriptors of the process that all instances share."""
MAX_QUERIES = 64
"""Of one instance, at once: one beyond them is not answered, and comes again."""
REQUESTS_PER_S = 200.0
"""Connections, and look-ups as well, of one instance in the long run: each costs the process half a millisecond of the CPU
that all instances share. What comes faster waits in the kernel."""
BURST = 256.0
HALF_CLOSED_IDLE_S = 300.0
"""One side has ended and the other says nothing: it has forgotten to."""
CHUNK_BYTES = 65536
NO_ROOM_PAUSE_S = 0.1
"""When the process has no descriptor left: some connection will end."""
SO_ORIGINAL_DST = 80
"""`linux/netfilter_ipv4.h`: where a redirected connection was going to."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""`struct linger`."""
TOO_MANY = f"more than {MAX_CONNECTIONS} connections at once"
FORGOTTEN = "the name was looked up too long ago; look it up again"

UNREACHABLE = (OSError, Unknown, trio.BrokenResourceError)


@define(eq=False)
class Gate:
    """Serves until it is cancelled; closes both sockets then.

    Args:
        sandbox: Its key: on whose account names are looked up.
        policy: What it may reach.
        outside: The way there, of all gates.
        on_refused: Told the host, the port and the reason of each connection and look-up that is refused; port 0 is a look-up.
    """

    sandbox: str
    policy: Policy
    outside: Outside
    on_refused: Callable[[str, int, str], None] = field(repr=False)
    connections: int = field(default=0, init=False)
    """Open now."""
    _given: Given = field(factory=Given, init=False, repr=False)
    _stand_ins: StandIns = field(factory=StandIns, init=False, repr=False)
    _queries: int = field(default=0, init=False)

    async def run(self, listener: socket.socket, names: socket.socket) -> None:
        """Service loop. Takes over both sockets."""
        with trio.socket.from_stdlib_socket(listener) as accepting, trio.socket.from_stdlib_socket(names) as asked:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._accept, accepting, nursery)
                nursery.start_soon(self._hear, asked, nursery)

    # Connections

    async def _accept(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        pace = Pace(REQUESTS_PER_S, BURST)
        while True:
            await _keep_to(pace)
            try:
                sock, _address = await listener.accept()
            except OSError as error:
                if error.errno in (errno.EBADF, errno.EINVAL):
                    raise
                await trio.sleep(NO_ROOM_PAUSE_S if error.errno in (errno.EMFILE, errno.ENFILE) else 0)
                continue
            self.connections += 1
            nursery.start_soon(self._serve, sock, self.connections > MAX_CONNECTIONS)

    async def _serve(self, sock: trio.socket.SocketType, is_one_too_many: bool) -> None:
        """One connection, to its end. What cannot be had ends in a reset, as a host does that has no such server."""
        inside = trio.SocketStream(sock)
        _reset_on_close(inside, True)
        try:
            async with inside:
                outside = await self._connect(sock, is_one_too_many)
                if outside is not None:
                    async with outside:
                        await self._relay(inside, outside)
        except Exception:
            log.exception("a connection failed in a way that is a mistake of ours")  # and no other's
        finally:
            self.connections -= 1

    async def _connect(self, sock: trio.socket.SocketType, is_one_too_many: bool) -> trio.SocketStream | None:
        try:
            address, port = _original_destination(sock)
        except OSError:
            return None  # gone already
        if address.startswith("127.") and (address, port) not in self.policy.loopback:
            return None  # the gate itself was called: nothing that a program means to reach
        names = self._names_of(address)
        host = names[0] if names else address
        try:
            if is_one_too_many:
                raise Refused(TOO_MANY)
            if not is_stand_in(address):
                others = self._given.found_with(address, host)
                return await self.outside.connect(self.sandbox, self.policy, address, port, names=names, others=others)
            if not names:
                raise Refused(FORGOTTEN)
            return await self.outside.connect_by_name(self.sandbox, self.policy, host, port)
        except Refused as refused:
            self.on_refused(host, port, str(refused))
        except UNREACHABLE:
            pass
        return None

    def _names_of(self, address: str) -> tuple[str, ...]:
        """What the program was given an address for, the last name first."""
        if is_stand_in(address):
            name = self._stand_ins.name_of(address)
            return () if name is None else (name,)
        return self._given.names_of(address, trio.current_time())

    async def _relay(self, inside: trio.SocketStream, outside: trio.SocketStream) -> None:
        """Carry bytes both ways until both have ended; if one breaks off, so does the other."""
        relay = _Relay()
        _reset_on_close(outside, True)
        with relay.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay.pump, inside, outside)
                nursery.start_soon(relay.pump, outside, inside)
        for stream in (inside, outside):
            _reset_on_close(stream, relay.ended < 2)

    # Names

    async def _hear(self, names: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        pace = Pace(REQUESTS_PER_S, BURST)
        while True:
            await _keep_to(pace)
            try:
                packet, sender = await names.recvfrom(dns.MAX_PACKET_BYTES)
            except OSError:  # an earlier answer found nobody, or the kernel has no memory
                await trio.lowlevel.checkpoint()
                continue
            query = dns.parse(packet)
            if isinstance(query, dns.Query):
                if self._queries < MAX_QUERIES:
                    self._queries += 1
                    nursery.start_soon(self._look_up, names, query, sender)
            elif query is not None:
                await _send(names, query, sender)

    async def _look_up(self, names: trio.socket.SocketType, query: dns.Query, sender: Any) -> None:
        try:
            await _send(names, await self._answer(query), sender)
        finally:
            self._queries -= 1

    async def _answer(self, query: dns.Query) -> bytes:
        try:
            addresses = await self._addresses(query.name)
        except Refused as refused:
            if query.wants_address:
                self.on_refused(query.name, 0, str(refused))
            return dns.answer(query, dns.Code.NO_SUCH_NAME)
        except Unknown:
            return dns.answer(query, dns.Code.NO_SUCH_NAME)
        except OSError:
            return dns.answer(query, dns.Code.FAILED)
        return dns.answer(query, dns.Code.OK, addresses if query.wants_address else ())

    async def _addresses(self, name: str) -> tuple[str, ...]:
        """What a name is answered with; raises Refused, Unknown, OSError."""
        if is_localhost(name):
            return (LOOPBACK,)
        reason = self.policy.name_refusal(name)
        if reason is not None:
            raise Refused(reason)
        found = await self.outside.look_up(self.sandbox, self.policy, name)
        addresses = tuple(address for address in found if means_the_same_inside(address))
        if not addresses:
            return (self._stand_ins.address_of(name),)
        self._given.give(name, addresses, trio.current_time(), found)
        return addresses


@define(eq=False)
class _Relay:
    """Both directions of one connection."""

    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: int = 0
    """Directions that ended as they should."""

    async def pump(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some(CHUNK_BYTES):
                await target.send_all(data)
                self._extend()
            await target.send_eof()
        except trio.BrokenResourceError:
            self.scope.cancel()
        else:
            self.ended += 1
            self._extend()

    def _extend(self) -> None:
        if self.ended:
            self.scope.deadline = trio.current_time() + HALF_CLOSED_IDLE_S


async def _keep_to(pace: Pace) -> None:
    delay_s = pace.delay_s(trio.current_time())
    if delay_s:
        await trio.sleep(delay_s)


def _reset_on_close(stream: trio.SocketStream, on: bool) -> None:
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE if on else bytes(len(RESET_ON_CLOSE)))


def _original_destination(sock: trio.socket.SocketType) -> tuple[str, int]:
    found = sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)  # struct sockaddr_in
    assert isinstance(found, bytes)
    return socket.inet_ntoa(found[4:8]), int.from_bytes(found[2:4], "big")


async def _send(names: trio.socket.SocketType, packet: bytes, sender: Any) -> None:
    try:
        await names.sendto(packet, sender)
    except OSError:
        return  # who asked is gone
