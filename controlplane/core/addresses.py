"""What an address is by its number: a public one, a private one, or one where nobody's server is."""

from __future__ import annotations

import ipaddress
from typing import Literal

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Kind = Literal["public", "private", "metadata", "documentation", "special"]


def _networks(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


PRIVATE = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",  # between a provider and its customers (RFC 6598)
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",  # benchmarks, and what some VPNs answer in place of real addresses
    "::1/128",
    "fc00::/7",
)
"""Where an operator's own servers may be."""
METADATA = _networks(
    "100.100.100.200/32",  # Alibaba Cloud
    "168.63.129.16/32",  # Azure; a public address by its number
    "fd00:ec2::254/128",  # AWS
    "fd20:ce::254/128",  # Google Cloud
)
"""Where clouds hand out a machine's credentials, as far as it is not link-local."""
SPECIAL = _networks(
    "0.0.0.0/8",  # Linux takes it for this host
    "169.254.0.0/16",  # link-local; the metadata of most clouds
    "192.0.0.0/24",
    "192.88.99.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",  # the IETF's own: Teredo, which has an IPv4 address in it, ORCHID, benchmarks
    "2001:db8::/32",
    "2002::/16",  # 6to4: an IPv4 address in disguise, and out of use
    "3fff::/20",
)
"""Special purposes (IANA's registries, RFC 6890)."""
DOCUMENTATION = _networks("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
"""For examples (RFC 5737): nobody's server is there, unless whoever runs this network has put one on purpose."""
GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""All that is given out of IPv6 so far."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""What a host without IPv4 sees public IPv4 addresses as (RFC 6052)."""


def kind_of(address: str) -> Kind:
    """What an address is, numeric as a resolver gives it; an IPv4 address within an IPv6 one counts as itself."""
    ip: IPAddress = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if "%" in address:  # a zone: link-local
            return "special"
        ip = _inner(ip)
    if any(ip in network for network in METADATA):
        return "metadata"
    if any(ip in network for network in SPECIAL):
        return "special"
    if any(ip in network for network in DOCUMENTATION):
        return "documentation"
    if any(ip in network for network in PRIVATE):
        return "private"
    return "public" if ip.version == 4 or ip in GLOBAL_V6 else "special"


def is_numeric(host: str) -> bool:
    """Whether a host is an address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _inner(ip: ipaddress.IPv6Address) -> IPAddress:
    """The IPv4 address that is meant, where one is."""
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip
