"""Users: who owns instances. For administrators."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from controlplane.core.quotas import wrong_overrides
from controlplane.deploy.installs.collecting import drop_owner
from controlplane.errors import Conflict, FieldError, Overloaded
from controlplane.model import Role, Token, User
from controlplane.store.base import has_instances
from controlplane.web.auth import mint
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.logs import FLUSH_WAIT_S
from controlplane.web.paging import PageQuery, page
from controlplane.web.route import Route
from controlplane.web.views import user_out
from controlplane.wire.answers import UserIn, UserOut, UserPatchIn, UsersOut
from controlplane.wire.wrong import invalid_request

if TYPE_CHECKING:
    from uuid import UUID

BUILT_IN = "admin"
"""Whose token is in CORRAL_HOME; made at every start."""
log = logging.getLogger("corral.web")

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


async def remove_user(call: Call) -> Reply:
    """Forget a user who has no instances, with all that is his."""
    services, name = call.services, call.path["name"]
    call.about(name, name)
    if name in (call.principal.owner, BUILT_IN):
        raise Conflict(f"{name} cannot be removed: {'it is you' if name != BUILT_IN else 'Corral makes it anew'}.")
    stopping = sum(runner.instance.owner == name for runner in services.supervisor.runners())
    if stopping:  # those that are deleted already and still end, too
        raise has_instances(name, stopping)
    await services.journal.flush(FLUSH_WAIT_S)
    user = await services.store.remove_user(name)
    services.tokens.discard_user(name)
    services.accounts.forget(name)
    services.hub.forget_topic(name)
    try:
        await drop_owner(services.installs, name)
    except (OSError, Overloaded) as error:  # housekeeping collects what nobody uses
        log.warning("the installs of %s, who is removed, are left for now: %s", name, error)
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
            "A disabled user's tokens stop working at once, and their streams end; the instances run on, and an administrator"
            " may stop them. A quota that is lowered stops no"
            " instance: it refuses what would need more."
        ),
        tag="Access",
        role=Role.ADMIN,
        body=UserPatchIn,
        example={"disabled": True},
        answers={200: UserOut},
        problems=("not_found", "conflict"),
    ),
    Route(
        "DELETE",
        "/users/{name}",
        remove_user,
        operation="removeUser",
        summary="Remove a user",
        description=(
            "Only without instances: 409 names how many there are. Tokens, secrets, usage, history and kept installs go with"
            " the user; what the audit log says of him stays."
        ),
        tag="Access",
        role=Role.ADMIN,
        answers={200: UserOut},
        problems=("not_found", "conflict"),
    ),
)
