"""What every request must pass, whichever door it came through.

Plain functions on a `Head`: each returns what it found or raises the error that
is the answer. The order is Host, Origin, credentials, role, then content type,
encoding and size; a body is never read before all of them have passed. One
`Guards` exists per control plane, so that failures are counted together.

Refused here: names that are not served (DNS rebinding), foreign origins, tokens
anywhere but in the `Authorization` header.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from time import monotonic
from typing import TYPE_CHECKING

from attrs import define, field

from controlplane.cluster.address import node_name
from controlplane.errors import (
    CorralError,
    FieldError,
    Forbidden,
    HostRejected,
    InvalidRequest,
    OriginRejected,
    PayloadTooLarge,
    RateLimited,
    Unauthorized,
    UnsupportedMediaType,
)
from controlplane.web.auth import JWT_PREFIX, Grant, TokenTable, bearer_token
from controlplane.web.budget import Budget, SharedBudget
from controlplane.web.challenge import base_url, challenge, scope_for
from controlplane.web.oidc.claims import scope_of
from controlplane.web.rate import RateLimiter
from controlplane.web.vouching import VOUCHED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from controlplane.config import Config
    from controlplane.model import Principal, Role
    from controlplane.web.request import Head
    from controlplane.web.vouching import Client

log = logging.getLogger("corral.web")

CALL_BODY_MAX_BYTES = 6 * 2**20
"""Calls and MCP messages; also every other small JSON body."""
UPLOAD_BODY_MAX_BYTES = 100 * 2**20
"""Deploys, which may carry an archive."""
BODIES_MAX_BYTES = 128 * 2**20
"""All large bodies of calls that are held at the same time."""
DEPLOY_BODIES_MAX_BYTES = 256 * 2**20
"""All large JSON bodies of deploys, apart from those of calls: two of the largest, and room for others' smaller ones."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
FAILURE_LOG_EVERY_S = 60.0
"""A flood of wrong tokens is one line per minute and address."""
PREFLIGHT_MAX_AGE_S = 600

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"https?://(.+)")

CORS_REQUEST_FIELDS = (
    b"authorization, content-type, accept, idempotency-key, last-event-id, x-request-id, traceparent, "
    b"mcp-session-id, mcp-protocol-version, mcp-method, mcp-name"
)
"""And `Mcp-Param-*`, whose names an instance's tools choose: those that are asked for are allowed."""
_PARAM_FIELD = re.compile(rb"mcp-param-[!#$%&'*+.^_`|~0-9a-z-]+")
CORS_EXPOSED_FIELDS = b"x-request-id, location, retry-after, allow, mcp-session-id, www-authenticate"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Pairs = tuple[tuple[bytes, bytes], ...]


@define(eq=False)
class Guards:
    """The checks that need to know the settings, the tokens, or what came before. `clock` is monotonic seconds."""

    config: Config
    tokens: TokenTable
    clock: Callable[[], float] = monotonic
    on_wrong_token: Callable[[str], None] | None = field(default=None, kw_only=True)
    """Is told the address (an IPv6 host's network) that each one came from."""
    vouched: Callable[[Head], Client | None] | None = field(default=None, kw_only=True)
    """What another control plane says of who sent a request that it hands on; see `vouching`."""
    failures: RateLimiter = field(init=False)
    calls: RateLimiter = field(init=False)
    bodies: Budget = field(factory=lambda: Budget(BODIES_MAX_BYTES, CALL_BODY_MAX_BYTES), init=False)
    deploy_bodies: SharedBudget = field(
        factory=lambda: SharedBudget(Budget(DEPLOY_BODIES_MAX_BYTES, UPLOAD_BODY_MAX_BYTES)), init=False
    )
    _hosts: frozenset[str] = field(init=False)
    _origins: frozenset[str] = field(init=False)
    _proxies: tuple[Network, ...] = field(init=False)
    _logged: RateLimiter = field(init=False)

    def __attrs_post_init__(self) -> None:
        per_minute = self.config.auth_failures_per_minute
        self.failures = RateLimiter(per_minute / 60, per_minute, self.clock)
        self.calls = RateLimiter(self.config.rate_limit_rps, self.config.rate_limit_rps, self.clock)
        self._logged = RateLimiter(1 / FAILURE_LOG_EVERY_S, 1, self.clock)
        own = (*self.config.allowed_hosts, self.config.host, node_name(self.config), *self._public_name())
        self._hosts = LOOPBACK_NAMES | {_folded(name) for name in own}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in self.config.allowed_origins)
        self._proxies = tuple(ipaddress.ip_network(text, strict=False) for text in self.config.trusted_proxies)

    def _public_name(self) -> tuple[str, ...]:
        """The host of PUBLIC_URL, with its port if that is not its scheme's own."""
        return () if self.config.public_url is None else (self.config.public_url.partition("://")[2],)

    # -- where it is addressed to, and which page sent it

    def check_host(self, head: Head) -> None:
        """Raises HostRejected unless the Host field is a name that is served here, on any port."""
        if not self._serves(head.fields.get(b"host", b"")):
            raise HostRejected(
                "The Host header names a host that is not served here.",
                hint="List the name in ALLOWED_HOSTS if it is one of this server's own.",
            )

    def check_origin(self, head: Head) -> None:
        """Raises OriginRejected when a browser sent this for a page that is not one of ours."""
        origin = head.fields.get(b"origin")
        if origin is not None and not self._is_own(origin.decode("latin-1").lower()):
            raise OriginRejected(
                "Requests from this origin are not accepted.",
                hint="List the origin in ALLOWED_ORIGINS if its pages may use this server.",
            )

    def cors(self, head: Head) -> Pairs:
        """The CORS fields of an answer: none unless an allowed origin asked."""
        origin = head.fields.get(b"origin")
        if origin is None or not self._is_own(origin.decode("latin-1").lower()):
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", CORS_EXPOSED_FIELDS),
            (b"vary", b"Origin"),
        )

    def preflight(self, head: Head, allow: Sequence[str]) -> Pairs:
        """The fields of an answer to OPTIONS: `Allow`, and the CORS ones when it is a preflight of an allowed origin."""
        methods = ", ".join(allow).encode()
        cors = self.cors(head)
        if not cors or b"access-control-request-method" not in head.fields:
            return ((b"allow", methods), *cors)
        return (
            (b"allow", methods),
            *cors,
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", b", ".join((CORS_REQUEST_FIELDS, *_param_fields(head)))),
            (b"access-control-max-age", str(PREFLIGHT_MAX_AGE_S).encode()),
        )

    def _serves(self, host: bytes) -> bool:
        match = _HOST.fullmatch(host.decode("latin-1"))
        return match is not None and (match[1].lower() in self._hosts or match[0].lower() in self._hosts)

    def _is_own(self, origin: str) -> bool:
        match = _ORIGIN.fullmatch(origin)
        return match is not None and (origin in self._origins or self._serves(match[1].encode("latin-1")))

    # -- who sent it

    def client(self, head: Head) -> str:
        """The client's address: the peer's, or what a trusted proxy says in X-Forwarded-For, or another node of the fleet."""
        vouched = self._vouched(head)
        if vouched is not None and vouched.address:
            return vouched.address
        address = head.peer
        forwarded = head.fields.get(b"x-forwarded-for")
        if not self._proxies or forwarded is None:
            return address
        hops = [hop.strip() for hop in forwarded.decode("latin-1").split(",")]
        while hops and self._is_proxy(address):
            address = hops.pop()
        return address

    def _vouched(self, head: Head) -> Client | None:
        """What another node says of the client; costs a plain request one look-up."""
        if VOUCHED not in head.fields or self.vouched is None:
            return None
        return self.vouched(head)

    def _is_proxy(self, address: str) -> bool:
        parsed = _address(address)
        return parsed is not None and any(parsed in network for network in self._proxies)

    def authenticate(self, head: Head) -> Principal:
        """Say who sent the request.

        Raises:
            Unauthorized: there is no valid bearer token.
            RateLimited: the token is wrong, and so were too many others from this address.
        """
        return self.grant(head).principal

    def grant(self, head: Head) -> Grant:
        """As `authenticate`; the grant can be kept for the connection as long as `TokenTable.holds`.

        A valid token always passes, so that nobody behind a shared address is locked out by a neighbour.
        A field that is missing or malformed is no guess and is not counted.
        """
        header = head.fields.get(b"authorization")
        try:
            return self.tokens.grant(header)
        except Unauthorized as refused:
            was_sent = bearer_token(header) is not None
            if was_sent:
                self._count_failure(_failure_key(self.client(head)))
            error = "invalid_token" if was_sent else None
            self._challenge(refused, head, scope=scope_for(head.path), error=error)
            raise

    def check_role(self, head: Head, principal: Principal, role: Role) -> None:
        """As `require`; the refusal tells the client which scope it lacks."""
        try:
            require(principal, role)
        except Forbidden as refused:
            self._challenge(refused, head, scope=scope_of(role), error="insufficient_scope")
            raise

    def _challenge(self, refused: CorralError, head: Head, *, scope: str | None, error: str | None) -> None:
        """Say where a token is to be had, if there is an issuer that gives some."""
        if self.tokens.issuer is not None:
            text = challenge(self.base_url(head), head.path, scope=scope, error=error)
            refused.evidence = {**refused.evidence, "challenge": text}

    def base_url(self, head: Head) -> str:
        """This server's own address for the sender; its Host must have been checked."""
        return base_url(head, self.config.public_url, trusts_peer=self._is_proxy(head.peer))

    def _count_failure(self, key: str) -> None:
        if self.on_wrong_token is not None:
            self.on_wrong_token(key)
        wait = self.failures.take(key)
        if not wait:
            return
        if not self._logged.take(key):
            log.warning("too many wrong tokens from %s: answering 429", key)
        raise RateLimited("Too many wrong tokens came from this address.", retry_after_s=wait)

    def admit(self, head: Head, role: Role) -> Grant:
        """Let a caller in: host, origin, token, role and rate, in this order; raises the error that is the answer."""
        self.check_host(head)
        self.check_origin(head)
        grant = self.grant(head)
        self.check_role(head, grant.principal, role)
        vouched = self._vouched(head)
        if vouched is None or not vouched.is_counted:
            self.admit_call(grant.principal)
        return grant

    def readmit(self, grant: Grant, generation: int) -> bool:
        """Let in another request with the same head on the same connection; False when it must be admitted anew."""
        if not self.tokens.holds(grant, generation):
            return False
        self.admit_call(grant.principal)
        return True

    def admit_call(self, principal: Principal) -> None:
        """Raises RateLimited when this token, or the user's JWTs together, call faster than RATE_LIMIT_RPS."""
        wait = self.calls.take(counted_as(principal))
        if wait:
            limit = self.config.rate_limit_rps
            raise RateLimited(f"This token may make {limit} calls per second.", retry_after_s=wait)


def counted_as(principal: Principal) -> str:
    """What a call counts against: its token; a user's JWTs together, as each refresh would be a token of its own."""
    return f"{JWT_PREFIX}{principal.owner}" if principal.token_id.startswith(JWT_PREFIX) else principal.token_id


def require(principal: Principal, role: Role) -> None:
    """Raises Forbidden unless the principal's role includes `role`."""
    if not principal.role.includes(role):
        raise Forbidden(
            f"This needs the role {role.value}; the token has {principal.role.value}.",
            hint=f"Use a token with the role {role.value}.",
        )


def require_whole(principal: Principal) -> None:
    """Raises Forbidden for a token that opens single instances only: this is about more than those."""
    if principal.is_limited:
        raise Forbidden(
            "The token opens single instances only, and this is about more than those.",
            hint="Use a token that was made without `instances`.",
        )


def check_content_type(head: Head, *allowed: str) -> str:
    """Return the body's media type, lower-case and without parameters.

    Args:
        head: The request.
        allowed: Media types; without any, JSON alone.

    Raises:
        UnsupportedMediaType: it is another, or missing (which is what a form on a foreign page can send).
    """
    allowed = allowed or ("application/json",)
    value = head.fields.get(b"content-type", b"").decode("latin-1").lower()
    media, _, parameters = value.partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters)
    if media.strip() not in allowed or (charset and charset[1] not in {"utf-8", "utf8", "us-ascii"}):
        raise UnsupportedMediaType(f"Send the body as {' or '.join(allowed)}, in UTF-8.")
    return media.strip()


def check_encoding(head: Head) -> None:
    """Raises UnsupportedMediaType for a compressed body: none is ever unpacked, so none can blow up."""
    encoding = head.fields.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in {b"identity", b""}:
        raise UnsupportedMediaType(
            "Compressed bodies are not accepted.", hint="Send the body without Content-Encoding."
        )


def check_small_json(head: Head) -> None:
    """Check what is said of a call's body before it is read; raises UnsupportedMediaType, PayloadTooLarge."""
    check_content_type(head)
    check_encoding(head)
    check_length(head, CALL_BODY_MAX_BYTES)


def content_length(head: Head) -> int | None:
    """The declared size of the body in bytes; None when it is not declared (chunked)."""
    value = head.fields.get(b"content-length")
    return int(value) if value is not None and value.isdigit() and len(value) < 19 else None


def check_length(head: Head, limit_bytes: int) -> None:
    """Raises PayloadTooLarge when the body is declared larger than the limit."""
    declared = head.fields.get(b"content-length", b"0")
    if not declared.isdigit() or len(declared) >= 19 or int(declared) > limit_bytes:
        raise too_large(limit_bytes)


def too_large(limit_bytes: int) -> PayloadTooLarge:
    """The error for a body beyond the limit."""
    return PayloadTooLarge(f"The body may have at most {limit_bytes} bytes.")


def check_no_query(head: Head) -> None:
    """Raises InvalidRequest that names every parameter, on a route that takes none: a typing mistake is never ignored."""
    names = [part.partition(b"=")[0].decode("latin-1") for part in head.query.split(b"&") if part]
    if names:
        errors = tuple(FieldError(f"?{name}", "unknown query parameter") for name in dict.fromkeys(names))
        raise InvalidRequest("This route takes no query parameters.", errors=errors)


def _param_fields(head: Head) -> list[bytes]:
    """The `Mcp-Param-*` fields that a preflight asks for."""
    asked = head.fields.get(b"access-control-request-headers", b"").lower().split(b",")
    return [name for name in map(bytes.strip, asked) if _PARAM_FIELD.fullmatch(name)]


def _folded(name: str) -> str:
    """A name as it stands in a Host field: lower-case, an IPv6 address in brackets."""
    name = name.strip().lower()
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _failure_key(client: str) -> str:
    """An IPv6 host owns a whole /64, so that is what is counted."""
    address = _address(client)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address) if address is not None else client
