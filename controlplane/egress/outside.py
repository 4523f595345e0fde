"""Connections to the world, as the host makes them: names looked up, addresses judged, a proxy used where there is one."""

from __future__ import annotations

import base64
import errno
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

import trio
from attrs import define, field

from controlplane.core.addresses import is_numeric
from controlplane.core.proxies import proxy_to
from controlplane.egress.lookups import Busy, Lookups, Unknown

if TYPE_CHECKING:
    from controlplane.egress.policy import Policy

RESOLVE_LIMIT_S = 10.0
"""A resolver that works answers within one; the system's own gives up after 5 s per server."""
CONNECT_LIMIT_S = 5.0
"""To one address: a far one answers within half a second."""
PROXIED_RESOLVE_LIMIT_S = 2.0
"""Of a name that the proxy will look up in any case: where a proxy is needed, the resolver may know no name outside."""
UNRESOLVED_FOR_S = 60.0
"""For how long such a name is not asked for again, once the resolver did not know it."""
MAX_JUDGED = 64
"""Of one name's addresses; a name of somebody hostile has thousands."""
MAX_ADDRESSES = 8
"""Of one name, that are given and tried."""
MAX_UNRESOLVED = 4096
PROXY_ANSWER_BYTES = 16384
PROXY_PORT = 3128
"""Where a proxy whose URL names no port listens."""


class Refused(Exception):
    """The policy forbids it; the message is the reason."""


@define(eq=False)
class Outside:
    """How the egress process reaches hosts, for all instances.

    Args:
        environ: Variables of the control plane: HTTPS_PROXY (ALL_PROXY), NO_PROXY.
        lookups: All that is asked of the resolver.
    """

    environ: Mapping[str, str] = field(factory=dict, repr=False)
    lookups: Lookups = field(factory=Lookups, repr=False)
    _unresolved: dict[str, float] = field(factory=dict, init=False, repr=False)
    """Names that only the proxy knows, and until when that is taken for granted."""

    async def look_up(self, sandbox: str, policy: Policy, name: str) -> tuple[str, ...]:
        """The addresses of a name that the policy lets reach at some port; none: only the proxy knows where it leads.

        Raises:
            Refused: it has none but such as the policy does not let reach.
            Unknown: there is no such name.
            OSError: it cannot be found out now.
        """
        if proxy_to(self.environ, name, 443) is None:
            return _reachable(policy, name, await self.lookups.addresses(sandbox, name, RESOLVE_LIMIT_S), None)
        if self._unresolved.get(name, 0.0) > trio.current_time():
            return ()
        try:
            return _reachable(policy, name, await self.lookups.addresses(sandbox, name, PROXIED_RESOLVE_LIMIT_S), None)
        except (Refused, Busy):
            return ()  # it may lead elsewhere where the proxy is; or nobody has been asked
        except (Unknown, OSError):
            if len(self._unresolved) >= MAX_UNRESOLVED:
                self._unresolved.clear()
            self._unresolved[name] = trio.current_time() + UNRESOLVED_FOR_S
            return ()

    async def connect(
        self,
        sandbox: str,
        policy: Policy,
        address: str,
        port: int,
        *,
        names: Sequence[str] = (),
        others: Sequence[str] = (),
    ) -> trio.SocketStream:
        """A connection to an address, where the policy lets it.

        Args:
            sandbox: Who connects.
            policy: Its own.
            address: Of IPv4.
            port: Of TCP.
            names: What the address was given for (`names.Given`).
            others: What the same look-up found, tried if the address does not answer and it is clear which name was meant.

        Raises:
            Refused: the policy does not.
            Unknown, OSError: it cannot be reached.
        """
        verdict = policy.judge(address, port, names, is_own=_is_own(address))
        if verdict.refusal is not None:
            raise Refused(verdict.refusal)
        proxy = None if policy.is_listed(verdict.host, address, port) else proxy_to(self.environ, verdict.host, port)
        if proxy is not None:
            return await self._through(sandbox, urlsplit(proxy), verdict.host, port)
        try:
            return await _connect((address,), port)
        except OSError:
            if len(names) != 1 or verdict.host == address:
                raise
            # The program believes that it is connected, and will not try the name's other addresses itself.
            passing = [other for other in _passing(policy, verdict.host, others, port) if other != address]
            if not passing:
                raise
        return await _connect(tuple(passing), port)

    async def connect_by_name(self, sandbox: str, policy: Policy, name: str, port: int) -> trio.SocketStream:
        """A connection to a name, for a program that was given a stand-in for its addresses.

        Raises:
            Refused, Unknown, OSError: as `connect`.
        """
        reason = policy.refusal(name, port)
        if reason is not None:
            raise Refused(reason)
        proxy = None if policy.lists(name, port) else proxy_to(self.environ, name, port)
        if proxy is not None:
            return await self._through(sandbox, urlsplit(proxy), name, port)
        found = await self.lookups.addresses(sandbox, name, RESOLVE_LIMIT_S)
        return await _connect(_reachable(policy, name, found, port), port)

    async def _through(self, sandbox: str, proxy: SplitResult, host: str, port: int) -> trio.SocketStream:
        """By way of a proxy's CONNECT: it looks names up and judges them itself."""
        if proxy.scheme != "http" or not proxy.hostname:
            raise OSError(errno.EPROTONOSUPPORT, "HTTPS_PROXY is not an http:// address: no other kind can be used")
        found: tuple[str, ...] = (proxy.hostname,)
        if not is_numeric(proxy.hostname):
            found = await self.lookups.addresses(sandbox, proxy.hostname, RESOLVE_LIMIT_S)
        stream = await _connect(found[:MAX_ADDRESSES], proxy.port or PROXY_PORT)
        try:
            with trio.fail_after(CONNECT_LIMIT_S + RESOLVE_LIMIT_S):
                await stream.send_all(_connect_request(proxy, host, port))
                await _expect_ok(stream)
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.TooSlowError | trio.BrokenResourceError):
                raise OSError(errno.ETIMEDOUT, "the proxy does not answer") from None
            raise
        return stream


def _passing(policy: Policy, name: str, addresses: Sequence[str], port: int) -> list[str]:
    """Those of a name's addresses that may be reached at a port; there may be none."""
    return [one for one in addresses if policy.address_refusal(name, one, port, is_own=_is_own(one)) is None]


def _reachable(policy: Policy, name: str, addresses: Sequence[str], port: int | None) -> tuple[str, ...]:
    """Those addresses of a name that may be reached; raises Refused if there is none."""
    reachable: list[str] = []
    reasons: list[str] = []
    for address in addresses[:MAX_JUDGED]:
        reason = policy.address_refusal(name, address, port, is_own=_is_own(address))
        if reason is None:
            reachable.append(address)
        else:
            reasons.append(reason)
    if not reachable:
        raise Refused(reasons[0])
    return tuple(reachable[:MAX_ADDRESSES])


async def _connect(addresses: tuple[str, ...], port: int) -> trio.SocketStream:
    failure = OSError(errno.EHOSTUNREACH, "no address answers")
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            with trio.fail_after(CONNECT_LIMIT_S):
                await sock.connect((address, port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return trio.SocketStream(sock)
        except OSError as error:
            failure = error
        except trio.TooSlowError:
            failure = OSError(errno.ETIMEDOUT, "the host does not answer")
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise failure


def _connect_request(proxy: SplitResult, host: str, port: int) -> bytes:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username is not None:
        credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


async def _expect_ok(stream: trio.SocketStream) -> None:
    """Read the proxy's answer, byte by byte: what follows it is the server's own."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = await stream.receive_some(1)
        if not byte or len(head) >= PROXY_ANSWER_BYTES:
            raise OSError(errno.EPROTO, "the proxy gives no answer that can be read")
        head += byte
    status = head.split(None, 2)[1:2]
    if status != [b"200"]:
        raise OSError(errno.ECONNREFUSED, "the proxy refuses the connection")


def _is_own(address: str) -> bool:
    """Whether an address is one of this host's: the kernel would then send from that very address. Sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return False
        own: str = probe.getsockname()[0]
    return own == address
