"""Values of environment variables: each function reads one kind of text, or raises ValueError with what was expected.

Pure; the sentence completes `NAME: …`, and never repeats what may be a secret.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from controlplane.core.hosts import parse_pattern

PLACEHOLDER_SECRETS = frozenset({"your-secret-key-here", "changeme", "change-me", "secret", "secret-key"})
MIN_SECRET_BYTES = 32
OIDC_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those of an issuer's JWTs: asymmetric all, so that whoever can verify a token can make none."""
MAX_PRIVATE_HOSTS = 64
"""As many ports of the host's loopback as a sandbox's network can be told of (`spawn.netns`)."""


def text(raw: str) -> str:
    """Any text."""
    return raw


def words(raw: str) -> tuple[str, ...]:
    """Words between spaces or commas."""
    return tuple(word for word in raw.replace(",", " ").split() if word)


def hosts_with_ports(raw: str) -> tuple[str, ...]:
    """Hosts, each with a port: names, `*.example.com`, addresses (`[…]` around those of IPv6)."""
    hosts = words(raw)
    if len(hosts) > MAX_PRIVATE_HOSTS:
        raise ValueError(f"names more than {MAX_PRIVATE_HOSTS} hosts")
    for host in hosts:
        if parse_pattern(host).port is None:
            raise ValueError(f"{host!r} needs its port, as in db.internal:5432")
    return hosts


def path(raw: str) -> Path:
    """A path, absolute; `~` is the home folder of a user."""
    try:
        return Path(raw).expanduser().absolute()
    except RuntimeError:  # ~ of a user that there is not
        raise ValueError("starts with the home folder of a user that this host does not know") from None


def http_url(raw: str) -> str:
    """An address of this server's root, without a slash at its end."""
    parts = urlsplit(raw)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("expected http:// or https://, a host and perhaps a port, as in http://10.0.0.7:8000")
    parts.port  # noqa: B018  (raises ValueError)
    return raw.rstrip("/")


def paths(raw: str) -> tuple[Path, ...]:
    """Absolute folders other than the root."""
    paths = tuple(Path(word).expanduser() for word in words(raw))
    for path in paths:
        if not path.is_absolute() or ".." in path.parts or path == Path("/"):
            raise ValueError(f"expected absolute folders other than /, not {path}")
    return paths


def flag(raw: str) -> bool:
    """true or false, in the usual spellings."""
    match raw.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError("expected true or false")


def receiver_url(raw: str) -> str:
    """Where telemetry is sent: the root of it, which may have a path."""
    parts = urlsplit(raw)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("expected an http or https URL without a query, as in http://127.0.0.1:4318")
    if parts.username is not None:
        raise ValueError("must not hold credentials: OTEL_EXPORTER_OTLP_HEADERS has them")
    return raw


def pairs(raw: str) -> tuple[tuple[str, str], ...]:
    """`a=1,b=2`, percent-encoded where needed (OpenTelemetry's variables are so)."""
    pairs = []
    for part in raw.split(","):
        name, equals, value = part.partition("=")
        if part.strip():
            if not equals or not name.strip():
                raise ValueError("expected name=value, and a comma between two")  # never the value: it may be a secret
            pairs.append((unquote(name.strip()), unquote(value.strip())))
    return tuple(pairs)


def ratio(raw: str) -> float:
    """A number from 0 to 1."""
    value = float(raw)
    if not 0 <= value <= 1:
        raise ValueError("expected a number from 0 to 1")
    return value


def seconds(raw: str) -> float:
    """Seconds, with or without an `s` behind the number."""
    value = float(raw.removesuffix("s"))
    if not 0 < value < 1e9:
        raise ValueError("expected a positive number of seconds")
    return value


def count(minimum: int = 0) -> Callable[[str], int]:
    """Whole numbers of at least `minimum`."""

    def parse(raw: str) -> int:
        value = int(raw)
        if value < minimum:
            raise ValueError(f"expected a whole number of at least {minimum}")
        return value

    return parse


def one_of(*allowed: str) -> Callable[[str], str]:
    """One of some words, in whatever case."""

    def parse(raw: str) -> str:
        for word in allowed:
            if raw.lower() == word.lower():
                return word
        raise ValueError(f"expected one of {', '.join(allowed)}")

    return parse


def oidc_algorithms(raw: str) -> tuple[str, ...]:
    """Names of algorithms by which an issuer may sign, in whatever case."""
    known = {name.lower(): name for name in OIDC_ALGORITHMS}
    names = words(raw)
    wrong = [name for name in names if name.lower() not in known]
    if wrong or not names:
        raise ValueError(
            f"expected asymmetric algorithms ({', '.join(OIDC_ALGORITHMS)}), not {', '.join(wrong) or raw}"
        )
    return tuple(known[name.lower()] for name in names)


def port(raw: str) -> int:
    """A TCP port; 0 is any free one."""
    value = int(raw)
    if not 0 <= value <= 65535:
        raise ValueError("expected a port, 0 to 65535 (0: any free one)")
    return value


def secret(raw: str) -> str:
    """A secret that is long enough, and none that everybody knows."""
    if raw.lower() in PLACEHOLDER_SECRETS:
        raise ValueError("is a placeholder: remove it (one is generated and kept) or set 32 random bytes or more")
    if len(raw.encode()) < MIN_SECRET_BYTES:
        raise ValueError(
            f"is shorter than {MIN_SECRET_BYTES} bytes: remove it (one is generated and kept) or set a longer one"
        )
    return raw
