"""API tokens: make, list, revoke.

Who may deploy may make tokens for himself, for his CI or his dashboard; none
of them can do more, or lives longer, than the one it was made with, so a
stolen token is not a way to a better or a longer one. A token may be limited to
single instances; such a one makes no others.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import frozen

from controlplane.errors import FieldError, Forbidden, NotFound
from controlplane.model import Principal, Role, Token
from controlplane.web.auditing import token_target
from controlplane.web.auth import capped, mint
from controlplane.web.call import Call, Reply, as_uuid, json_reply
from controlplane.web.limited import id_of
from controlplane.web.paging import PageQuery, page
from controlplane.web.route import Route
from controlplane.web.views import rfc3339, token_out
from controlplane.wire.answers import TokenIn, TokenOut, TokensOut
from controlplane.wire.fields import bounded
from controlplane.wire.wrong import invalid_request

if TYPE_CHECKING:
    from uuid import UUID

TOKENS_PER_USER = 100
"""All of them are held in memory and read again after every change; a person, his CI and his dashboards need a dozen."""


@frozen(kw_only=True)
class TokensQuery(PageQuery):
    """Whose tokens."""

    owner: str | None = bounded(None, minLength=1, maxLength=63, description="For administrators: one user's only.")


async def add_token(call: Call) -> Reply:
    """Make one; the answer shows it, nothing ever does again."""
    principal, body, now = call.principal, call.body, datetime.now(UTC)
    owner = body.owner or principal.owner
    expires_at = now + timedelta(seconds=body.expires_in) if body.expires_in is not None else None
    _check(principal, body, expires_at)
    call.about("", body.owner or principal.owner)
    call.services.guards.admit_call(principal)
    secret, digest = mint()
    token = Token(
        id=uuid4(),
        owner=owner,
        name=body.name,
        role=Role(body.role),
        digest=digest,
        created_at=now,
        expires_at=expires_at,
        instances=_scope(call, owner, Role(body.role)),
    )
    await call.services.store.add_token(token, quota=TOKENS_PER_USER)
    call.services.tokens.put_token(token)
    call.about(token_target(token.id, token.name), token.owner)
    return json_reply(token_out(token, secret=secret), 201)


def _check(principal: Principal, body: TokenIn, expires_at: datetime | None) -> None:
    if body.owner not in (None, principal.owner) and not principal.is_admin:
        raise Forbidden("Only administrators make tokens for other users.", hint="Leave `owner` out.")
    if not principal.role.includes(Role(body.role)):
        raise Forbidden(
            f"A token of the role {principal.role.value} cannot make one of the role {body.role}.",
            hint=f"Ask for {principal.role.value} or less.",
        )
    until = principal.expires_at
    if until is not None and not principal.is_admin and (expires_at is None or expires_at > until):
        raise Forbidden(
            f"The new token would outlive the one it is made with, which expires at {rfc3339(until)}.",
            hint="Give a shorter `expires_in`.",
        )


def _scope(call: Call, owner: str, role: Role) -> frozenset[UUID] | None:
    """The instances that a new token opens, each of which its maker sees, and the token itself would."""
    if call.body.instances is None:
        return None
    user = call.services.tokens.user(owner)
    whole = Principal(owner=owner, role=capped(role, user.role) if user is not None else role, token_id="")
    wrong: list[FieldError] = []
    found: set[UUID] = set()
    for place, ref in enumerate(call.body.instances):
        # As its owner would write it: an administrator who makes it for somebody need not write `owner/name`.
        instance_id = id_of(call.services.supervisor, whole, ref)
        if instance_id is None or id_of(call.services.supervisor, call.principal, str(instance_id)) is None:
            wrong.append(FieldError(f"/instances/{place}", f"{owner} has no instance {ref!r}"))
        else:
            found.add(instance_id)
    if wrong:
        raise invalid_request(wrong)
    return frozenset(found)


async def list_tokens(call: Call) -> Reply:
    """The caller's own; an administrator sees everybody's."""
    principal, owner = call.principal, call.query.owner
    if not principal.is_admin:
        if owner not in (None, principal.owner):
            raise Forbidden("Only administrators see other users' tokens.", hint="Leave `owner` out.")
        owner = principal.owner
    wanted = [token for token in await call.services.store.tokens() if owner is None or token.owner == owner]
    tokens, next_cursor = page(wanted, lambda token: (rfc3339(token.created_at), str(token.id)), call.query)
    return json_reply(TokensOut(tokens=[token_out(token) for token in tokens], next_cursor=next_cursor))


async def remove_token(call: Call) -> Reply:
    """Revoke one: it stops working at once, and its streams end."""
    principal, token_id = call.principal, as_uuid(call.path["token_id"])
    known = {token.id: token for token in await call.services.store.tokens()}
    token = known.get(token_id) if token_id is not None else None
    if token is None or (token.owner != principal.owner and not principal.is_admin):
        raise NotFound("There is no such token.", hint="corral token ls shows what there is.")
    call.about(token_target(token.id, token.name), token.owner)
    if not principal.role.includes(token.role):
        raise Forbidden(f"A {principal.role.value} token cannot revoke one of role {token.role.value}.")
    await call.services.store.delete_token(token.id)
    call.services.tokens.discard_token(token.id)
    return json_reply(token_out(token))


ROUTES = (
    Route(
        "POST",
        "/tokens",
        add_token,
        operation="addToken",
        summary="Make a token",
        description=(
            "The answer holds the token, once. Its role is at most the maker's, and it does not outlive the token it is made"
            " with. With `instances` it opens those alone: all others are a 404 for it, and what is about more than single"
            " instances (deploys, secrets, tokens, users) a 403. Administrators may make tokens for other users."
            f" A user has at most {TOKENS_PER_USER} that have not expired."
        ),
        tag="Access",
        role=Role.DEPLOYER,
        body=TokenIn,
        example={"name": "dashboard", "role": "viewer", "expires_in": 2_592_000},
        answers={201: TokenOut},
        problems=("not_found", "quota_exceeded", "rate_limited"),
    ),
    Route(
        "GET",
        "/tokens",
        list_tokens,
        operation="listTokens",
        summary="List tokens",
        description="Their records, never the tokens themselves. Administrators see everybody's.",
        tag="Access",
        role=Role.VIEWER,
        query=TokensQuery,
        answers={200: TokensOut},
    ),
    Route(
        "DELETE",
        "/tokens/{token_id}",
        remove_token,
        operation="removeToken",
        summary="Revoke a token",
        description="It stops working at once; event streams that it opened end.",
        tag="Access",
        role=Role.DEPLOYER,
        answers={200: TokenOut},
        problems=("forbidden", "not_found"),
    ),
)
