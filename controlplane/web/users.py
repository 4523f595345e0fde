"""Users: who owns instances. For administrators."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from controlplane.core.quotas import wrong_overrides
from controlplane.errors import Conflict, FieldError
from controlplane.model import Role, Token, User
from controlplane.web.auth import mint
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.paging import PageQuery, page
from controlplane.web.route import Route
from controlplane.web.views import user_out
from controlplane.wire.answers import UserIn, UserOut, UserPatchIn, UsersOut
from controlplane.wire.wrong import invalid_request

if TYPE_CHECKING:
    from uuid import UUID

FIRST_TOKEN_NAME = "first"  # noqa: S105 - a name for people


async def add_user(call: Call) -> Reply:
    """Make a user with a first token, which the answer shows once."""
    now = datetime.now(UTC)
    call.about(call.body.name, call.body.name)
    user = User(name=call.body.name, role=Role(call.body.role), created_at=now)
    secret, digest = mint()
    token_id: UUID = uuid4()
    token = Token(id=token_id, owner=user.name, name=FIRST_TOKEN_NAME, role=user.role, digest=digest, created_at=now)
    await call.services.store.add_user(user)
    await call.services.store.add_token(token)
    call.services.tokens.put_user(user)
    call.services.tokens.put_token(token)
    return json_reply(user_out(user, secret=secret), 201)


async def list_users(call: Call) -> Reply:
    """All of them, by name."""
    users, next_cursor = page(await call.services.store.users(), lambda user: (user.name,), call.query)
    return json_reply(UsersOut(users=[user_out(user) for user in users], next_cursor=next_cursor))


async def patch_user(call: Call) -> Reply:
    """Change the role, the quotas or disable; it takes effect on the user's tokens at once."""
    name, body = call.path["name"], call.body
    call.about(name, name)
    role = Role(body.role) if body.role is not None else None
    if name == call.principal.owner and (body.disabled or role not in (None, Role.ADMIN)):
        raise Conflict("You cannot take your own administrator's rights away.", hint="Let another administrator do it.")
    wrong = wrong_overrides(call.services.accounts.operator, body.quotas or {})
    if wrong:
        raise invalid_request([FieldError(f"/quotas/{quota}", message) for quota, message in wrong.items()])
    user = await call.services.store.update_user(name, role=role, disabled=body.disabled, quotas=body.quotas)
    call.services.tokens.put_user(user)
    return json_reply(user_out(user))


ROUTES = (
    Route(
        "POST",
        "/users",
        add_user,
        operation="addUser",
        summary="Make a user",
        description="The answer holds the user's first token, once.",
        tag="Access",
        role=Role.ADMIN,
        body=UserIn,
        example={"name": "alice", "role": "deployer"},
        answers={201: UserOut},
        problems=("conflict",),
    ),
    Route(
        "GET",
        "/users",
        list_users,
        operation="listUsers",
        summary="List users",
        tag="Access",
        role=Role.ADMIN,
        query=PageQuery,
        answers={200: UsersOut},
    ),
    Route(
        "PATCH",
        "/users/{name}",
        patch_user,
        operation="patchUser",
        summary="Change a user's role or quotas, or disable one",
        description=(
            "A disabled user's tokens stop working at once; the instances stay as they are. A quota that is lowered stops no"
            " instance: it refuses what would need more."
        ),
        tag="Access",
        role=Role.ADMIN,
        body=UserPatchIn,
        example={"disabled": True},
        answers={200: UserOut},
        problems=("not_found", "conflict"),
    ),
)
