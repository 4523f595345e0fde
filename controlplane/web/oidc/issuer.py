"""The issuer whose JWTs are accepted: its keys in memory, and the check of a token against them.

Nothing here waits. A token whose key is not known is refused, and asks for a
fresh look at the issuer's keys (`fetching`), which the next one profits from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

import jwt
from attrs import define, field, frozen

from controlplane.web.oidc.claims import Refused, instances_of, role_of, user_of
from controlplane.web.oidc.keys import KID_MAX_CHARS, KeySet

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.config import Config
    from controlplane.model import Role

log = logging.getLogger("corral.auth")

LEEWAY_S = 30
"""How far the issuer's clock and ours may be apart."""


@frozen
class Verdict:
    """What a token says that is the issuer's and for us. `expires` is Unix seconds, with the leeway added."""

    user: str
    role: Role
    instances: frozenset[UUID | str] | None
    expires: float
    key_id: str


@frozen(kw_only=True)
class IssuerStatistics:
    """`age_s` is the time since the keys were last read, None: they never were; `problem` why the last attempt failed."""

    url: str
    keys: int
    age_s: float | None
    problem: str | None


@define(eq=False)
class Issuer:
    """One issuer. `fetching` writes; `TokenTable` asks."""

    url: str
    algorithms: tuple[str, ...]
    audiences: frozenset[str]
    """Those that mean all of Corral, without a slash at their end."""
    base: str | None = None
    """Corral's own address, below which an endpoint's URL is an audience, too."""
    user_claim: str = "sub"
    role_claim: str = "role"
    jwks_url: str | None = None
    """None: its metadata says it."""
    clock: Callable[[], float] = monotonic
    on_unknown_key: Callable[[], None] = field(default=lambda: None, kw_only=True)
    """Asks for a fresh look at the keys."""
    on_change: Callable[[], None] = field(default=lambda: None, kw_only=True)
    """Called when other keys are in force."""
    keys: KeySet = field(factory=KeySet, init=False)
    _read_at: float | None = field(default=None, init=False)
    _problem: str | None = field(default=None, init=False)

    @classmethod
    def of_config(cls, config: Config) -> Issuer | None:
        """The one that the settings name; None: they name none."""
        if config.oidc_issuer is None:
            return None
        ours = (config.oidc_audience, config.public_url)
        return cls(
            url=config.oidc_issuer,
            algorithms=config.oidc_algorithms,
            audiences=frozenset(audience.rstrip("/") for audience in ours if audience is not None),
            base=config.public_url,
            user_claim=config.oidc_user_claim,
            role_claim=config.oidc_role_claim,
            jwks_url=config.jwks_url,
        )

    def verify(self, token: bytes) -> Verdict | None:
        """Check signature, issuer, audience and times; None: it is not to be accepted."""
        try:
            return self._verify(token)
        except Refused as refused:
            log.info("a token of %s is refused: %s", self.url, refused)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            pass
        return None

    def _verify(self, token: bytes) -> Verdict | None:
        kid = jwt.get_unverified_header(token).get("kid")
        if kid is not None and not (isinstance(kid, str) and len(kid) <= KID_MAX_CHARS):
            return None
        key = self.keys.find(kid)
        if key is None:
            self.on_unknown_key()
            return None
        # The algorithms are the key's, not the token's. The audience is read below: it may be one endpoint's.
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key.public,
            algorithms=list(key.algorithms),
            issuer=self.url,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud"], "verify_aud": False},
        )
        user = user_of(claims, self.user_claim)
        return Verdict(
            user=user,
            role=role_of(claims, self.role_claim),
            instances=instances_of(claims, user, ours=self.audiences, base=self.base),
            expires=int(claims["exp"]) + LEEWAY_S,
            key_id=key.id,
        )

    # -- for `fetching`

    def take(self, keys: KeySet) -> None:
        """Put a fresh reading in force."""
        changed = keys != self.keys
        if self._problem is not None:
            log.info("the keys of %s can be read again", self.url)
        self.keys, self._read_at, self._problem = keys, self.clock(), None
        if changed:
            log.info("%d keys of %s are in force", len(keys), self.url)
            self.on_change()

    def failed(self, problem: str) -> None:
        """The keys could not be read: those there are stay in force. Logged once per outage."""
        if self._problem is None:
            log.warning(
                "the keys of %s cannot be read, the %d known stay in force: %s", self.url, len(self.keys), problem
            )
        self._problem = problem

    def statistics(self) -> IssuerStatistics:
        age_s = None if self._read_at is None else self.clock() - self._read_at
        return IssuerStatistics(url=self.url, keys=len(self.keys), age_s=age_s, problem=self._problem)
