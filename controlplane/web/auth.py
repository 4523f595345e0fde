"""Who is asking: the table of users and tokens in memory, and the check of a bearer token against it.

Nothing here waits: Postgres is off the request path. Whoever owns the LISTEN
connection loads the table, tells it when that connection is lost or back, and
re-reads when `reread_due` says so; while Postgres is away the table stays in
force, with an alarm. Tokens themselves are never kept, only their SHA-256;
they are accepted in the `Authorization` header and nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING
from uuid import UUID

import jwt
from attrs import define, field, frozen

from controlplane.core.quotas import NO_OVERRIDES, Overrides
from controlplane.errors import Unauthorized
from controlplane.model import Principal, Role, Token, User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from controlplane.web.oidc.issuer import Issuer

log = logging.getLogger("corral.auth")

TRUST_WITHOUT_LISTEN_S = 5.0
"""How long the table counts as current after the LISTEN connection was lost."""
JWT_CACHE_MAX = 1_024
"""Verified JWTs remembered, so that a busy one is not verified anew for each call."""
TOKEN_MAX_BYTES = 4_096
"""Longer credentials are refused unread."""
JWT_PREFIX = "jwt:"
"""Before the names of a JWT's key and of itself, in place of a token's id."""
TOKEN_PREFIX = "corral_"  # noqa: S105 - what a token starts with is no secret

# RFC 6750 section 2.1: one space, then the token68 alphabet.
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*)")


def mint() -> tuple[str, bytes]:
    """Make a new API token; return it (to be shown once) and its digest (to be kept)."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    return token, digest_of(token.encode())


def digest_of(token: bytes) -> bytes:
    """SHA-256: enough for a random token of 256 bits, where a password would need a slow hash."""
    return hashlib.sha256(token).digest()


def bearer_token(header: bytes | None) -> bytes | None:
    """The token of an `Authorization` header; None when there is none or it is not well formed."""
    if header is None or len(header) > TOKEN_MAX_BYTES:
        return None
    match = _BEARER.fullmatch(header)
    return match[1] if match else None


@define(eq=False, slots=True)
class Grant:
    """A verified credential. `expires` is Unix seconds, `inf` for never; `used` is the touch that `touches` collects."""

    principal: Principal
    expires: float
    token_id: UUID | None = None
    used: bool = False


@frozen(kw_only=True)
class TokenTableStatistics:
    """`stale`: the table may be out of date, because Postgres has been away for too long to hear of changes."""

    users: int
    tokens: int
    generation: int
    stale: bool
    jwts_cached: int


@define(eq=False)
class TokenTable:
    """Users and tokens by digest. `generation` grows with every change: what was verified before it must be verified anew.

    Args:
        jwt_key: Key of the one JWT algorithm; None accepts no JWT.
        jwt_algorithm: From the configuration, never from the token.
        issuer: Whose JWTs are accepted beside our own; None: nobody's.
        clock: Unix seconds, for expiry.
        monotonic: Seconds, for staleness.
    """

    jwt_key: bytes | None = field(default=None, repr=False)
    jwt_algorithm: str = "HS256"
    issuer: Issuer | None = None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    generation: int = field(default=0, init=False)
    _users: dict[str, User] = field(factory=dict, init=False, repr=False)
    _tokens: dict[UUID, Token] = field(factory=dict, init=False, repr=False)
    _grants: dict[bytes, Grant] = field(factory=dict, init=False, repr=False)
    _jwts: dict[bytes, Grant] = field(factory=dict, init=False, repr=False)
    _watchers: dict[object, tuple[Principal, Callable[[], None]]] = field(factory=dict, init=False, repr=False)
    _listening: bool = field(default=True, init=False)
    _trusted_until: float = field(default=inf, init=False)
    _reread: bool = field(default=False, init=False)
    _alarmed: bool = field(default=False, init=False)

    # -- what is in it

    def load(self, users: Iterable[User], tokens: Iterable[Token]) -> None:
        """Put a fresh reading of the database in force."""
        self._users = {user.name: user for user in users}
        self._tokens = {token.id: token for token in tokens}
        self._reread = self._alarmed = False
        self._trusted_until = inf if self._listening else self.monotonic() + TRUST_WITHOUT_LISTEN_S
        self._changed()

    def put_user(self, user: User) -> None:
        """Add or replace one user at once, without waiting for the notification of our own write."""
        self._users[user.name] = user
        self._changed()

    def put_token(self, token: Token) -> None:
        """Add or replace one token at once."""
        self._tokens[token.id] = token
        self._changed()

    def discard_token(self, token_id: UUID) -> None:
        """Revoke one token at once; its streams end."""
        self._tokens.pop(token_id, None)
        self._changed()

    def take_jwt_key(self, key: bytes) -> None:
        """Verify JWTs with another key; those of the one before are refused at once, and their streams end."""
        self.jwt_key = key
        self._changed()

    def discard_user(self, name: str) -> None:
        """Forget one user with all tokens at once; their streams end."""
        self._users.pop(name, None)
        self._tokens = {token.id: token for token in self._tokens.values() if token.owner != name}
        self._changed()

    def issuer_changed(self) -> None:
        """The issuer has other keys: what was verified with those that are gone is refused at once, and its streams end."""
        self._changed()

    def user(self, name: str) -> User | None:
        return self._users.get(name)

    def user_names(self) -> frozenset[str]:
        return frozenset(self._users)

    def quotas_of(self, owner: str) -> Overrides:
        """What an administrator said for this user; the same object as long as nothing has changed."""
        user = self._users.get(owner)
        return NO_OVERRIDES if user is None else user.quotas

    def tokens_of(self, owner: str) -> int:
        """How many tokens an owner has that have not expired."""
        now = datetime.fromtimestamp(self.clock(), UTC)
        tokens = (token for token in self._tokens.values() if token.owner == owner)
        return sum(token.expires_at is None or token.expires_at > now for token in tokens)

    def _changed(self) -> None:
        self.generation += 1
        self._jwts.clear()
        used = {grant.token_id for grant in self._grants.values() if grant.used}
        self._grants = {token.digest: grant for token in self._tokens.values() if (grant := self._grant_for(token))}
        for grant in self._grants.values():
            grant.used = grant.token_id in used
        self.sweep()

    def _grant_for(self, token: Token) -> Grant | None:
        user = self._users.get(token.owner)
        if user is None or user.disabled:
            return None
        principal = Principal(
            owner=token.owner,
            role=capped(token.role, user.role),
            token_id=str(token.id),
            expires_at=token.expires_at,
            instances=token.instances,
        )
        return Grant(principal, token.expires_at.timestamp() if token.expires_at else inf, token.id)

    # -- the check

    def verify(self, header: bytes | str | None) -> Principal:
        """Say who sent this `Authorization` header.

        Raises:
            Unauthorized: it is missing, malformed, unknown, expired, or its user is disabled.
        """
        return self.grant(header.encode("latin-1", "replace") if isinstance(header, str) else header).principal

    def grant(self, header: bytes | None) -> Grant:
        """As `verify`, but with what a connection needs to keep the verdict: see `holds`."""
        token = bearer_token(header)
        if token is None:
            detail = (
                "The Authorization header is missing." if header is None else "The Authorization header is malformed."
            )
            raise Unauthorized(detail, hint="Send `Authorization: Bearer <token>`.")
        digest = digest_of(token)
        grant = self._grants.get(digest) or self._jwts.get(digest)
        if grant is None and token.count(b".") == 2:
            grant = self._verify_jwt(token, digest)
        elif grant is not None and grant.token_id is not None:
            # The digest was found by hashing, which leaks nothing about the token; compared again in constant time.
            known = self._tokens.get(grant.token_id)
            grant = grant if known is not None and hmac.compare_digest(known.digest, digest) else None
        if grant is None or self.clock() >= grant.expires:
            raise Unauthorized("The token is unknown, expired or revoked.")
        grant.used = True
        return grant

    def holds(self, grant: Grant, generation: int) -> bool:
        """Whether a verdict of that generation still stands; marks the token as used."""
        if generation != self.generation or self.clock() >= grant.expires:
            return False
        grant.used = True
        return True

    def _verify_jwt(self, token: bytes, digest: bytes) -> Grant | None:
        """A JWT of our own, by the key that only we have, or one of the issuer's, by his public ones."""
        grant = self._verify_own(token, digest)
        if grant is None and self.issuer is not None:
            grant = self._verify_issued(self.issuer, token, digest)
        if grant is not None:
            while len(self._jwts) >= JWT_CACHE_MAX:
                del self._jwts[next(iter(self._jwts))]
            self._jwts[digest] = grant
        return grant

    def _verify_own(self, token: bytes, digest: bytes) -> Grant | None:
        if self.jwt_key is None:
            return None
        try:
            claims = jwt.decode(
                token, self.jwt_key, algorithms=[self.jwt_algorithm], options={"require": ["exp", "sub", "role"]}
            )
            expires = int(claims["exp"])
            if self._is_of_a_namesake(claims["sub"], claims.get("iat")):
                return None
            return self._jwt_grant(claims["sub"], Role(claims["role"]), expires, _key_name(self.jwt_key), digest)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            return None

    def _is_of_a_namesake(self, name: str, issued: float | None) -> bool:
        """Whether a JWT of our own was made for a removed user who had the name before, if it says when it was made.

        It says so in whole seconds mostly, so the second of the user's making counts as after it.
        """
        user = self._users.get(name)
        if issued is None or user is None or user.created_at is None:
            return False
        return issued < int(user.created_at.timestamp())

    def _verify_issued(self, issuer: Issuer, token: bytes, digest: bytes) -> Grant | None:
        verdict = issuer.verify(token)
        if verdict is None:
            return None
        try:
            return self._jwt_grant(
                verdict.user, verdict.role, verdict.expires, verdict.key_id, digest, instances=verdict.instances
            )
        except (ValueError, OverflowError):  # a time that no calendar has
            return None

    def _jwt_grant(
        self,
        name: str,
        role: Role,
        expires: float,
        key: str,
        digest: bytes,
        *,
        instances: frozenset[UUID | str] | None = None,
    ) -> Grant | None:
        user = self._users.get(name)
        if user is None or user.disabled:
            return None
        principal = Principal(
            owner=user.name,
            role=capped(role, user.role),
            token_id=f"{JWT_PREFIX}{key}.{digest.hex()[:16]}",
            expires_at=datetime.fromtimestamp(expires, UTC),
            instances=instances,
        )
        return Grant(principal, expires)

    def _jwt_keys(self) -> frozenset[str]:
        """The names of all keys in force."""
        own = frozenset() if self.jwt_key is None else frozenset({_key_name(self.jwt_key)})
        return own if self.issuer is None else own | self.issuer.keys.ids()

    # -- long-lived users of a verdict

    def is_live(self, principal: Principal) -> bool:
        """Whether a stream that was opened by this principal may go on: same token, same role, not expired."""
        user = self._users.get(principal.owner)
        if user is None or user.disabled:
            return False
        if principal.expires_at is not None and self.clock() >= principal.expires_at.timestamp():
            return False
        if principal.token_id.startswith(JWT_PREFIX):
            key = principal.token_id.removeprefix(JWT_PREFIX).partition(".")[0]
            return key in self._jwt_keys() and user.role.includes(principal.role)
        token = self._tokens.get(_uuid(principal.token_id))
        return token is not None and capped(token.role, user.role) is principal.role

    def on_revoked(self, principal: Principal, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once, as soon as `principal` is no longer live; return what stops watching."""
        key = object()
        if self.is_live(principal):
            self._watchers[key] = (principal, callback)
        else:
            callback()

        def stop() -> None:
            self._watchers.pop(key, None)

        return stop

    def sweep(self) -> None:
        """Tell the watchers of every principal that has expired or was revoked. Called on changes, and each second."""
        for key, (principal, callback) in list(self._watchers.items()):
            if not self.is_live(principal):
                self._watchers.pop(key, None)
                callback()

    def touches(self) -> dict[UUID, datetime]:
        """The tokens used since the last look, for `last_used_at`."""
        now = datetime.fromtimestamp(self.clock(), UTC)
        used = [grant for grant in self._grants.values() if grant.used]
        for grant in used:
            grant.used = False
        return {grant.token_id: now for grant in used if grant.token_id is not None}

    # -- is it current?

    def listen_lost(self) -> None:
        """Changes are no longer heard of: the table counts for a few seconds, then it must be re-read."""
        self._listening = False
        self._trusted_until = min(self._trusted_until, self.monotonic() + TRUST_WITHOUT_LISTEN_S)

    def listen_restored(self) -> None:
        """Changes are heard of again; what was missed meanwhile must be read."""
        self._listening = True
        self._reread = True

    @property
    def reread_due(self) -> bool:
        """Whether the owner must load the table again now."""
        return self._reread or self.monotonic() >= self._trusted_until

    @property
    def stale(self) -> bool:
        """The alarm: the table could not be re-read in time and is used all the same. Logged once per outage."""
        stale = self.monotonic() >= self._trusted_until
        if stale and not self._alarmed:
            self._alarmed = True
            log.warning("tokens cannot be re-read: revocations made now take effect when the database is back")
        return stale

    def statistics(self) -> TokenTableStatistics:
        return TokenTableStatistics(
            users=len(self._users),
            tokens=len(self._tokens),
            generation=self.generation,
            stale=self.stale,
            jwts_cached=len(self._jwts),
        )


def capped(role: Role, ceiling: Role) -> Role:
    """The role, or the ceiling if that is lower."""
    return role if ceiling.includes(role) else ceiling


def _key_name(key: bytes) -> str:
    return hashlib.sha256(b"corral jwt key " + key).hexdigest()[:16]


_NOBODY = UUID(int=0)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return _NOBODY
