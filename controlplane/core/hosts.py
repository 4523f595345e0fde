"""What people write to name a host that may be reached: `api.example.com`, `*.example.com:443`, `10.0.0.5`, `[fd00::5]:443`."""

from __future__ import annotations

import ipaddress
import re

from attrs import frozen

LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
MAX_NAME_CHARACTERS = 253
LOOPBACK = "127.0.0.1"
"""What `localhost` means."""


@frozen
class HostPattern:
    """A name, the names below one, or an address, at one port or any.

    Args:
        host: Lower case, without the `*.`; an address in its shortest form.
        port: None: any.
        below: The names below `host` are meant, not `host` itself.
    """

    host: str
    port: int | None = None
    below: bool = False

    def matches(self, host: str, port: int) -> bool:
        """Whether a host (as `normal` gives it) and a port are meant."""
        if self.port not in (None, port):
            return False
        return host.endswith("." + self.host) if self.below else host == self.host


def parse_pattern(text: str) -> HostPattern:
    """Read a pattern.

    Raises:
        ValueError: it cannot be meant; the message completes "… ".
    """
    if "://" in text:
        raise ValueError(f"{text!r} is a URL; a host and perhaps a port are wanted, as in example.com:443")
    if "/" in text:
        raise ValueError(
            f"{text!r} is a path or a network; a host and perhaps a port are wanted, as in example.com:443"
        )
    if "@" in text:
        raise ValueError(f"{text!r} has a user in it; a host and perhaps a port are wanted, as in example.com:443")
    host, port = _split(text)
    if host in ("*", "*."):
        raise ValueError("'*' would be every host; name them, or the names below one, as in *.example.com")
    below = host.startswith("*.")
    return HostPattern(normal(host.removeprefix("*.")), port, below)


def parse_patterns(texts: tuple[str, ...]) -> tuple[HostPattern, ...]:
    """Read several. Raises ValueError."""
    return tuple(parse_pattern(text) for text in texts)


def normal(host: str) -> str:
    """A name or an address in the form that is compared.

    Raises:
        ValueError: it is neither.
    """
    try:
        return ipaddress.ip_address(host).compressed
    except ValueError:
        pass
    name = host.lower().removesuffix(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode().lower()
        except UnicodeError:
            raise ValueError(f"{host!r} is no name of a host") from None
    labels = name.split(".")
    if len(name) > MAX_NAME_CHARACTERS or not all(LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{host!r} is no name of a host" if host else "the name of the host is missing")
    if re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]):
        raise ValueError(f"{host!r} is no address: all four numbers are wanted, as in 10.0.0.5")
    return LOOPBACK if labels[-1] == "localhost" else name


def _split(text: str) -> tuple[str, int | None]:
    """The host, without the brackets of IPv6, and the port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no address: as in [fd00::5]:443")
        return host, _port(rest[1:]) if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, _port(port) if colon else None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is no port: 1 to 65535")
    return int(text)
