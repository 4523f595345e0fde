"""Connections to the world, as the host makes them: names looked up, addresses judged, a proxy used where there is one."""

from __future__ import annotations

import base64
import errno
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

import trio
from attrs import define, field, frozen

from controlplane.core.proxies import proxy_to

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
REMEMBER_S = 5.0
"""For how long a look-up stands: from a sandbox's query to its connection."""
MAX_REMEMBERED = 4096
PROXY_ANSWER_BYTES = 16384
PROXY_PORT = 3128
"""Where a proxy whose URL names no port listens."""

Resolver = Callable[..., Awaitable[list[Any]]]
"""As `trio.socket.getaddrinfo`."""


class Refused(Exception):
    """The policy forbids it; the message is the reason."""


class Unknown(Exception):
    """There is no such name."""


@frozen
class _Found:
    addresses: tuple[str, ...]
    until: float


@define(eq=False)
class Outside:
    """How the egress process reaches hosts, for all instances.

    Args:
        environ: Variables of the control plane: HTTPS_PROXY (ALL_PROXY), NO_PROXY.
        resolver: Stands in for the system's.
    """

    environ: Mapping[str, str] = field(factory=dict, repr=False)
    resolver: Resolver = field(default=trio.socket.getaddrinfo, repr=False)
    _found: dict[str, _Found] = field(factory=dict, init=False, repr=False)
    _unresolved: dict[str, float] = field(factory=dict, init=False, repr=False)
    """Names that only the proxy knows, and until when that is taken for granted."""

    async def look_up(self, policy: Policy, name: str) -> tuple[str, ...]:
        """The addresses of a name that the policy lets reach at some port; none: only the proxy knows where it leads.

        Raises:
            Refused: it has none but such as the policy does not let reach.
            Unknown: there is no such name.
            OSError: it cannot be found out now.
        """
        if proxy_to(self.environ, name, 443) is None:
            return _reachable(policy, name, await self._resolve(name), None)
        if self._unresolved.get(name, 0.0) > trio.current_time():
            return ()
        try:
            with trio.fail_after(PROXIED_RESOLVE_LIMIT_S):
                return _reachable(policy, name, await self._resolve(name), None)
        except Refused:
            return ()  # it may lead elsewhere where the proxy is
        except (Unknown, OSError, trio.TooSlowError):
            if len(self._unresolved) >= MAX_REMEMBERED:
                self._unresolved.clear()
            self._unresolved[name] = trio.current_time() + UNRESOLVED_FOR_S
            return ()

    async def connect(self, policy: Policy, address: str, port: int, names: Sequence[str] = ()) -> trio.SocketStream:
        """A connection to an address, where the policy lets it.

        Args:
            policy: Of whoever connects.
            address: Of IPv4.
            port: Of TCP.
            names: What the address was given for (`names.Given`).

        Raises:
            Refused: the policy does not.
            Unknown, OSError: it cannot be reached.
        """
        verdict = policy.judge(address, port, names, is_own=_is_own(address))
        if verdict.refusal is not None:
            raise Refused(verdict.refusal)
        proxy = None if policy.is_listed(verdict.host, address, port) else proxy_to(self.environ, verdict.host, port)
        if proxy is not None:
            return await _through(urlsplit(proxy), verdict.host, port)
        try:
            return await _connect((address,), port)
        except OSError:
            if len(names) != 1 or verdict.host == address:
                raise
        # The program believes that it is connected, and will not try the name's other addresses itself.
        others = _reachable(policy, verdict.host, await self._resolve(verdict.host), port)
        return await _connect(tuple(other for other in others if other != address), port)

    async def connect_by_name(self, policy: Policy, name: str, port: int) -> trio.SocketStream:
        """A connection to a name, for a program that was given a stand-in for its addresses.

        Raises:
            Refused, Unknown, OSError: as `connect`.
        """
        reason = policy.refusal(name, port)
        if reason is not None:
            raise Refused(reason)
        proxy = None if policy.lists(name, port) else proxy_to(self.environ, name, port)
        if proxy is not None:
            return await _through(urlsplit(proxy), name, port)
        return await _connect(_reachable(policy, name, await self._resolve(name), port), port)

    async def _resolve(self, name: str) -> tuple[str, ...]:
        now = trio.current_time()
        found = self._found.get(name)
        if found is None or found.until < now:
            found = _Found(await self._ask(name), now + REMEMBER_S)
            if len(self._found) >= MAX_REMEMBERED:
                self._found.clear()
            self._found[name] = found
        return found.addresses

    async def _ask(self, name: str) -> tuple[str, ...]:
        try:
            with trio.fail_after(RESOLVE_LIMIT_S):
                answers = await self.resolver(name, None, type=socket.SOCK_STREAM)
        except trio.TooSlowError:
            raise OSError(errno.ETIMEDOUT, "the name could not be looked up in time") from None
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                raise Unknown(name) from None
            raise
        except UnicodeError:
            raise Unknown(name) from None
        addresses = tuple(dict.fromkeys(answer[4][0] for answer in answers))
        if not addresses:
            raise Unknown(name)
        return addresses


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


async def _through(proxy: SplitResult, host: str, port: int) -> trio.SocketStream:
    """By way of a proxy's CONNECT: it looks names up and judges them itself."""
    if proxy.scheme != "http" or not proxy.hostname:
        raise OSError(errno.EPROTONOSUPPORT, "HTTPS_PROXY is not an http:// address: no other kind can be used")
    stream = await trio.open_tcp_stream(proxy.hostname, proxy.port or PROXY_PORT)
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
