"""Secrets: set, list, remove; and another key for all that is encrypted.

A value goes in and never comes out again, not even for administrators: it is for the
instances that name it. Each owner has secrets of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from controlplane.core.lifecycle import State
from controlplane.core.redact import SECRET_MIN_LENGTH
from controlplane.core.secretrefs import NAME_EXPECTS, is_name, names_in_env
from controlplane.errors import Conflict, FieldError, Forbidden, NotFound
from controlplane.model import Role
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.paging import PageQuery, page
from controlplane.web.route import Route
from controlplane.web.views import rfc3339
from controlplane.wire.fields import bounded
from controlplane.wire.secrets import (
    VALUE_MAX_BYTES,
    KeyRotatedOut,
    RotateKeyIn,
    SecretIn,
    SecretOut,
    SecretSetOut,
    SecretsOut,
)
from controlplane.wire.wrong import invalid_request

if TYPE_CHECKING:
    from controlplane.model import Principal, Secret

SECRETS_PER_USER = 100
"""A person has a dozen; what needs thousands wants a store of its own."""
WITHOUT_PROCESS = (State.STOPPED, State.FAILED)
_OWNER = {"minLength": 1, "maxLength": 63, "description": "For administrators: another user's."}


@frozen(kw_only=True)
class SecretQuery:
    """Whose secret."""

    owner: str | None = bounded(None, **_OWNER)


@frozen(kw_only=True)
class SecretsQuery(PageQuery):
    """Whose secrets."""

    owner: str | None = bounded(None, **_OWNER)


@frozen(kw_only=True)
class RemoveQuery(SecretQuery):
    """Whose secret, and whether it goes whatever needs it."""

    force: bool = bounded(False, description="Also while instances name it: they fail at their next start.")


async def set_secret(call: Call) -> Reply:
    """Set one, or replace its value."""
    owner, name, value = _owner(call.principal, call.query.owner), call.path["name"], call.body.value
    _check(name, value)
    call.about(name, owner)
    call.services.guards.admit_call(call.principal)
    secret, is_new = await call.services.store.put_secret(owner, name, value, quota=SECRETS_PER_USER)
    users = (await _users(call, owner)).get(name, [])
    running = [user.name for user in users if user.has_process]
    return json_reply(SecretSetOut(**_members(secret, users), in_force_after_restart=running), 201 if is_new else 200)


def _check(name: str, value: str) -> None:
    wrong = []
    if not is_name(name):
        wrong.append(FieldError("name", f"expected {NAME_EXPECTS}"))
    if len(value.strip()) < SECRET_MIN_LENGTH:
        wrong.append(
            FieldError("/value", f"is shorter than {SECRET_MIN_LENGTH} characters: too short to be kept out of logs")
        )
    if len(value.encode()) > VALUE_MAX_BYTES:
        wrong.append(FieldError("/value", f"is longer than {VALUE_MAX_BYTES // 1024} KiB"))
    if wrong:
        raise invalid_request(wrong)


async def list_secrets(call: Call) -> Reply:
    """One owner's, by name."""
    owner = _owner(call.principal, call.query.owner)
    users = await _users(call, owner)
    secrets, next_cursor = page(await call.services.store.secrets(owner), lambda secret: (secret.name,), call.query)
    rows = [SecretOut(**_members(secret, users.get(secret.name, []))) for secret in secrets]
    return json_reply(SecretsOut(secrets=rows, next_cursor=next_cursor))


async def get_secret(call: Call) -> Reply:
    """One secret's record."""
    owner, name = _owner(call.principal, call.query.owner), call.path["name"]
    for secret in await call.services.store.secrets(owner):
        if secret.name == name:
            return json_reply(SecretOut(**_members(secret, (await _users(call, owner)).get(name, []))))
    raise _unknown()


async def remove_secret(call: Call) -> Reply:
    """Forget one, unless an instance needs it."""
    owner, name = _owner(call.principal, call.query.owner), call.path["name"]
    call.about(name if is_name(name) else "", owner)
    users = (await _users(call, owner)).get(name, [])
    if users and not call.query.force:
        names = [user.name for user in users]
        raise Conflict(
            f"{', '.join(names)} would not start without the secret {name}.",
            hint="Redeploy without it first, or repeat this with `force` (corral secret rm --force).",
            evidence={"used_by": names},
        )
    secret = await call.services.store.delete_secret(owner, name) if is_name(name) else None
    if secret is None:
        raise _unknown()
    return json_reply(SecretOut(**_members(secret, users)))


async def rotate_key(call: Call) -> Reply:
    """Put another encryption key in force, and close everything with it.

    Other control planes that live refuse it (`rotation`). Those that are away do not, as the others are stopped for this, and
    a key whose host was lost to somebody cannot wait for a week; but they are named, as they need the new key to run anything.
    """
    roster = call.services.roster
    done = await call.services.rotation.rotate()
    away = [node.url for node in roster.nodes.values() if not node.is_live and node.id != roster.node_id]
    return json_reply(
        KeyRotatedOut(
            key_id=done.key_id, previous_key_id=done.previous_key_id, boxes=done.boxes, away=sorted(away) or None
        )
    )


def _owner(principal: Principal, wanted: str | None) -> str:
    if wanted not in (None, principal.owner) and not principal.is_admin:
        raise Forbidden("Only administrators manage other users' secrets.", hint="Leave `owner` out.")
    return wanted or principal.owner


@frozen
class _User:
    """An instance that names a secret; `has_process`: it runs with the value before."""

    name: str
    has_process: bool


async def _users(call: Call, owner: str) -> Mapping[str, list[_User]]:
    """The owner's instances by the secrets that they name, those of a revision on its way included.

    Of those that other control planes run, the revision in force, as the database has it.
    """
    found: dict[str, list[_User]] = {}
    named = [*_ours(call, owner), *await _others(call, owner)]
    for user, names in sorted(named, key=lambda pair: pair[0].name):
        for name in names:
            found.setdefault(name, []).append(user)
    return found


def _ours(call: Call, owner: str) -> Iterator[tuple[_User, frozenset[str]]]:
    for runner in call.services.supervisor.runners():
        if runner.instance.owner != owner:
            continue
        names = names_in_env(runner.instance.spec.env)
        if runner.succession is not None and not runner.succession.done.is_set():
            names |= names_in_env(runner.succession.spec.env)
        yield _User(runner.instance.name, runner.state not in WITHOUT_PROCESS), names


async def _others(call: Call, owner: str) -> list[tuple[_User, frozenset[str]]]:
    elsewhere = {known.id for known in call.services.roster.elsewhere() if known.owner == owner}
    if not elsewhere:
        return []
    return [
        (_User(it.name, it.state not in WITHOUT_PROCESS), names_in_env(it.spec.env))
        for it in await call.services.store.instances()
        if it.id in elsewhere
    ]


def _members(secret: Secret, users: list[_User]) -> dict[str, Any]:
    return {
        "name": secret.name,
        "owner": secret.owner,
        "created_at": rfc3339(secret.created_at),
        "updated_at": rfc3339(secret.updated_at),
        "used_by": [user.name for user in users],
    }


def _unknown() -> NotFound:
    return NotFound("There is no such secret.", hint="corral secret ls shows what there is.")


ROUTES = (
    Route(
        "PUT",
        "/secrets/{name}",
        set_secret,
        operation="setSecret",
        summary="Set a secret",
        description=(
            "For `${secret:NAME}` in an instance's environment. Instances that run keep the value before until they are"
            f" restarted. A user has at most {SECRETS_PER_USER}. The value is encrypted at rest, and no answer ever has it."
        ),
        tag="Secrets",
        role=Role.DEPLOYER,
        query=SecretQuery,
        body=SecretIn,
        example={"value": "correct horse battery staple"},
        answers={200: SecretSetOut, 201: SecretSetOut},
        problems=("not_found", "quota_exceeded", "rate_limited"),
    ),
    Route(
        "GET",
        "/secrets",
        list_secrets,
        operation="listSecrets",
        summary="List secrets",
        description="Names, times, and the instances that name them.",
        tag="Secrets",
        role=Role.DEPLOYER,
        query=SecretsQuery,
        answers={200: SecretsOut},
    ),
    Route(
        "GET",
        "/secrets/{name}",
        get_secret,
        operation="getSecret",
        summary="Look at a secret's record",
        tag="Secrets",
        role=Role.DEPLOYER,
        query=SecretQuery,
        answers={200: SecretOut},
        problems=("not_found",),
    ),
    Route(
        "DELETE",
        "/secrets/{name}",
        remove_secret,
        operation="removeSecret",
        summary="Remove a secret",
        description="While an instance names it, only with `force`.",
        tag="Secrets",
        role=Role.DEPLOYER,
        query=RemoveQuery,
        answers={200: SecretOut},
        problems=("not_found", "conflict"),
    ),
    Route(
        "POST",
        "/secrets/rotate-key",
        rotate_key,
        operation="rotateKey",
        summary="Replace the encryption key",
        description=(
            "A key that Corral keeps is replaced by a new one, and everything is encrypted anew; then the old one is destroyed."
            " Where it is SECRET_KEY, set a new one and SECRET_KEY_PREVIOUS first: then this encrypts everything anew. JWTs that"
            " were signed with the old key end. Instances are not touched. While other control planes on the database live, it is a 409;"
            " `away` names those that do not and are not forgotten yet: they need the new key before they start again."
        ),
        tag="Secrets",
        role=Role.ADMIN,
        body=RotateKeyIn,
        may_be_empty=True,
        example={},
        answers={200: KeyRotatedOut},
        problems=("conflict", "overloaded"),
    ),
)
