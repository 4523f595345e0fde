"""What a verified token's claims come to: whose it is, which role it gives, which instances it opens. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any
from uuid import UUID

from controlplane.model import Role
from controlplane.web.mcp_path import ref_of

SCOPES: Mapping[str, Role] = {
    "corral:read": Role.VIEWER,
    "corral:call": Role.CALLER,
    "corral:deploy": Role.DEPLOYER,
    "corral:admin": Role.ADMIN,
}
"""OAuth scopes, each with the role that it gives; a higher one includes the lower."""
ROLES: Mapping[str, Role] = {role.value: role for role in Role}
WORDS_MAX = 1_000
"""Members of one claim that are looked at."""


class Refused(ValueError):
    """A claim is missing or not for us; the text says which."""


def scope_of(role: Role) -> str:
    """The scope that gives a role."""
    return next(scope for scope, given in SCOPES.items() if given is role)


def claim_of(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by a path with dots into what is nested, as in `realm_access.roles`; None: it is not there."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def user_of(claims: Mapping[str, Any], name: str) -> str:
    """The user's name. Raises Refused."""
    user = claim_of(claims, name)
    if not isinstance(user, str) or not user:
        raise Refused(f"there is no user in the claim {name}")
    return user


def role_of(claims: Mapping[str, Any], name: str) -> Role:
    """The highest role of the role claim, and at most that of the scopes, where any of them is Corral's.

    Raises:
        Refused: neither says anything of Corral.
    """
    by_claim = _highest(ROLES[word] for word in _words(claim_of(claims, name)) if word in ROLES)
    granted = _words(claims.get("scope")) | _words(claims.get("scp"))
    by_scope = _highest(SCOPES[word] for word in granted if word in SCOPES)
    if by_claim is None and by_scope is None:
        raise Refused(f"there is no role in the claim {name}, nor a scope of {', '.join(SCOPES)}")
    if by_claim is None or by_scope is None:
        return by_claim or by_scope or Role.VIEWER
    return by_claim if by_scope.includes(by_claim) else by_scope


def instances_of(
    claims: Mapping[str, Any], owner: str, *, ours: Collection[str], base: str | None
) -> frozenset[UUID | str] | None:
    """Which instances the audience opens (RFC 8707); None: all that the user may.

    Args:
        claims: Of the token.
        owner: The user that it is of: an instance's bare name is one of his.
        ours: Audiences that mean all of Corral.
        base: Corral's own address, below which an endpoint's URL is an audience, too.

    Raises:
        Refused: the token is for somebody else.
    """
    audiences = [word.rstrip("/") for word in _audiences(claims.get("aud"))]
    if any(audience in ours for audience in audiences):
        return None
    refs = [ref for audience in audiences if base is not None and (ref := _ref(audience, base)) is not None]
    if not refs:
        raise Refused("the audience is another one")
    return frozenset(_instance(ref, owner) for ref in refs)


def _ref(audience: str, base: str) -> str | None:
    return ref_of(audience.removeprefix(base)) if audience.startswith(f"{base}/") else None


def _instance(ref: str, owner: str) -> UUID | str:
    """An instance by its id, or as `owner/name`."""
    if len(ref) == 36:
        try:
            return UUID(ref)
        except ValueError:
            pass
    owner_named, slash, name = ref.rpartition("/")
    return f"{owner_named if slash else owner}/{name.lower()}"


def _audiences(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values[:WORDS_MAX] if isinstance(one, str)]


def _words(value: Any) -> set[str]:
    """The members of a claim that is a list, or words with spaces between them (RFC 6749 section 3.3)."""
    values = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return {word for word in values[:WORDS_MAX] if isinstance(word, str)}


def _highest(roles: Iterable[Role]) -> Role | None:
    highest: Role | None = None
    for role in roles:
        if highest is None or role.includes(highest):
            highest = role
    return highest
