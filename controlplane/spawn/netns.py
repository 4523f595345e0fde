"""A network namespace for one instance, with nothing in it but loopback and, where it may connect, a gate.

Nothing runs in the namespace for that. `open_gate` makes a listener and a DNS socket in it and hands both to a process
outside (`controlplane.egress`): a socket belongs to the namespace it was made in, whoever holds it. A route makes every
IPv4 address one of loopback's, and two nftables rules send every TCP connection to the listener and every DNS query to
the socket. All of 127.0.0.0/8 stays the sandbox's own, but for the `loopback` ports that are named. The gate's ports
are below 1024: no program in the sandbox has the right to take them. There is no IPv6 but `::1`, and no UDP but DNS.

All in two milliseconds, by netlink, as neither `ip` nor `nft` need be there. Standard library only: the forked child calls
this, with CAP_NET_ADMIN over the namespace it makes: as root, or in a user namespace that it has just entered.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING

from controlplane.spawn import linux

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CLONE_NEWNET = 0x4000_0000

GATE_HOST = "127.0.0.1"
GATE_PORT = 1
DNS_PORT = 53
GATE_BACKLOG = 128
"""Connections that wait for the process outside: one start of a busy client, or what comes while it is started again."""
MAX_LOOPBACK = 64
"""Ports of the host's own loopback that may be reached: each is a rule."""
GATE_MESSAGE = b"gate"
"""What the descriptors (listener, DNS socket) come with, as a packet needs a byte."""

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
IFREQ = struct.Struct("16sh22x")

NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLMSG_ERROR = 2
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NLA_F_NESTED = 0x8000
REPLY_BYTES = 65536
REPLY_LIMIT_S = 5.0
"""The kernel answers before `send` returns."""
HEADER = struct.Struct("=IHHII")

RTM_NEWROUTE = 24
RT_TABLE_LOCAL = 255
RTPROT_BOOT = 3
RT_SCOPE_HOST = 254
RTN_LOCAL = 2
RTA_OIF = 4
RTA_PREFSRC = 7

NFNL_MSG_BATCH_BEGIN = 16
NFNL_MSG_BATCH_END = 17
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_NEWTABLE = 0
NFT_MSG_NEWCHAIN = 3
NFT_MSG_NEWRULE = 6
NF_INET_LOCAL_OUT = 3
NF_IP_PRI_NAT_DST = -100
NFT_REG_1 = 1
NFT_META_L4PROTO = 16
NFT_PAYLOAD_NETWORK_HEADER = 1
NFT_PAYLOAD_TRANSPORT_HEADER = 2
NFT_CMP_EQ = 0
NFT_CMP_NEQ = 1
IP_DESTINATION = 16
"""Offset in the IPv4 header."""
PORT_DESTINATION = 2
"""Offset in the TCP and the UDP header."""
NAME = b"corral\0"
"""Of the table and the chain: the only ones in the namespace."""


def isolate() -> None:
    """Enter a network namespace of its own, where loopback is up and nothing else is there.

    Raises:
        OSError: the host forbids it.
    """
    linux.unshare(CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        _name, flags = IFREQ.unpack(fcntl.ioctl(control, SIOCGIFFLAGS, IFREQ.pack(b"lo", 0)))
        fcntl.ioctl(control, SIOCSIFFLAGS, IFREQ.pack(b"lo", flags | IFF_UP))


def open_gate(report_fd: int, loopback: Iterable[tuple[str, int]] = ()) -> None:
    """`isolate`, and send the sockets that lead out to whoever holds the other end of `report_fd`.

    Args:
        report_fd: A connected unix socket; stays open.
        loopback: Addresses of 127.0.0.0/8, with their ports, that mean the host's and not the sandbox's own.

    Raises:
        OSError: the host forbids it, or the other end is gone.
    """
    isolate()
    _route_all_to_loopback()
    _redirect(tuple(loopback))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as names,
        socket.socket(fileno=os.dup(report_fd)) as report,
    ):
        listener.bind((GATE_HOST, GATE_PORT))
        listener.listen(GATE_BACKLOG)
        names.bind((GATE_HOST, DNS_PORT))
        socket.send_fds(report, [GATE_MESSAGE], [listener.fileno(), names.fileno()])


# Routes


def _route_all_to_loopback() -> None:
    """`ip route add local 0.0.0.0/0 dev lo src 127.0.0.1 table local`."""
    route = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, 0)
    route += _attribute(RTA_OIF, struct.pack("=I", socket.if_nametoindex("lo")))
    route += _attribute(RTA_PREFSRC, socket.inet_aton(GATE_HOST))
    message = _message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE, 1, route)
    _ask(NETLINK_ROUTE, [message], "the route to loopback")


# Rules


def _redirect(loopback: tuple[tuple[str, int], ...]) -> None:
    """Send all TCP that is not for loopback to the gate, and all of DNS to its socket."""
    if len(loopback) > MAX_LOOPBACK:
        raise OSError(errno.E2BIG, f"more than {MAX_LOOPBACK} ports of the host's loopback")
    tcp, udp = _protocol(socket.IPPROTO_TCP), _protocol(socket.IPPROTO_UDP)
    rules = [tcp + _destination(b"\x7f", NFT_CMP_NEQ) + _to(GATE_PORT), udp + _port(DNS_PORT) + _to(DNS_PORT)]
    for address, port in loopback:
        rules.append(tcp + _destination(socket.inet_aton(address), NFT_CMP_EQ) + _port(port) + _to(GATE_PORT))
    hook = _attribute(1, _be32(NF_INET_LOCAL_OUT)) + _attribute(2, struct.pack(">i", NF_IP_PRI_NAT_DST))
    chain = _attribute(1, NAME) + _attribute(3, NAME) + _nest(4, hook) + _attribute(7, b"nat\0")
    bodies = [(NFT_MSG_NEWTABLE, _attribute(1, NAME)), (NFT_MSG_NEWCHAIN, chain)]
    bodies += [(NFT_MSG_NEWRULE, _attribute(1, NAME) + _attribute(2, NAME) + _nest(4, rule)) for rule in rules]
    _ask(NETLINK_NETFILTER, list(_batch(bodies)), "the nftables rules")


def _batch(bodies: list[tuple[int, bytes]]) -> Iterator[bytes]:
    """All of it or nothing takes effect; the last message asks for an answer, an error answers by itself."""
    yield _message(NFNL_MSG_BATCH_BEGIN, 0, 0, _family(socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES))
    for number, (kind, body) in enumerate(bodies, 1):
        flags = NLM_F_CREATE | NLM_F_APPEND | (NLM_F_ACK if number == len(bodies) else 0)
        yield _message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, number, _family(socket.AF_INET) + body)
    yield _message(NFNL_MSG_BATCH_END, 0, len(bodies) + 1, _family(socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES))


def _family(family: int, resource: int = 0) -> bytes:
    """`struct nfgenmsg`: every message of netfilter begins with one."""
    return struct.pack(">BBH", family, 0, resource)


def _protocol(number: int) -> bytes:
    load = _attribute(1, _be32(NFT_REG_1)) + _attribute(2, _be32(NFT_META_L4PROTO))
    return _expression(b"meta\0", load) + _compare(NFT_CMP_EQ, bytes([number]))


def _destination(address: bytes, comparison: int) -> bytes:
    """The first bytes of the address, or all of it."""
    return _load(NFT_PAYLOAD_NETWORK_HEADER, IP_DESTINATION, len(address)) + _compare(comparison, address)


def _port(port: int) -> bytes:
    return _load(NFT_PAYLOAD_TRANSPORT_HEADER, PORT_DESTINATION, 2) + _compare(NFT_CMP_EQ, struct.pack(">H", port))


def _load(header: int, offset: int, length: int) -> bytes:
    numbers = (NFT_REG_1, header, offset, length)
    return _expression(b"payload\0", b"".join(_attribute(kind, _be32(n)) for kind, n in enumerate(numbers, 1)))


def _compare(comparison: int, value: bytes) -> bytes:
    body = _attribute(1, _be32(NFT_REG_1)) + _attribute(2, _be32(comparison)) + _nest(3, _attribute(1, value))
    return _expression(b"cmp\0", body)


def _to(port: int) -> bytes:
    value = _attribute(1, _be32(NFT_REG_1)) + _nest(2, _attribute(1, struct.pack(">H", port)))
    return _expression(b"immediate\0", value) + _expression(b"redir\0", _attribute(1, _be32(NFT_REG_1)))


def _expression(name: bytes, body: bytes) -> bytes:
    """One element of a rule. Attributes of nftables are numbered from 1 in the order of its header file."""
    return _nest(1, _attribute(1, name) + _nest(2, body))


# Netlink


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nest(kind: int, attributes: bytes) -> bytes:
    return _attribute(kind | NLA_F_NESTED, attributes)


def _be32(number: int) -> bytes:
    return struct.pack(">I", number)


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, number, 0) + body


def _ask(family: int, messages: list[bytes], what: str) -> None:
    """Send messages of which one asks for an answer, and read it."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family) as netlink:
        netlink.settimeout(REPLY_LIMIT_S)
        netlink.send(b"".join(messages))
        kind = struct.unpack_from("=H", reply := netlink.recv(REPLY_BYTES), 4)[0]
    number = struct.unpack_from("=i", reply, HEADER.size)[0] if kind == NLMSG_ERROR else -errno.EPROTO
    if number:
        raise OSError(-number, f"{what}: {os.strerror(-number)}")
