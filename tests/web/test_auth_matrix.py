"""Every route × every kind of credential: who is let in, and what the others are told.

The routes are those of the table, so a new one is covered by being there. What must come of a pair is a rule, written
out once in `expected`; nothing is listed by hand but the credentials.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import jwt
import pytest
import trio
from attrs import evolve, fields_dict, frozen

from controlplane.model import Role, Secret, User
from controlplane.web.routes import ROUTES
from tests.web.fakes import JWT_KEY, MEMORY_ID, NOW, OIDC, make_services, make_token, request, running
from tests.web.fakes_api import Api, in_process
from tests.web.oidc_issuer import A_DAY_S, AUDIENCE, TestIssuer, hs256_by, rsa_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.model import Token
    from controlplane.web.auth import TokenTable
    from controlplane.web.route import Route
    from tests.web.fakes import Client, Server

BASE = "https://mcp.example.com"
SETTINGS = {**OIDC, "public_url": BASE, "auth_failures_per_minute": 1_000_000, "rate_limit_rps": 0}
OTHER_ID = UUID("99999999-2222-3333-4444-555555555555")
"""Another instance of alice's."""
SPARE_TOKEN = uuid4()
"""Of alice's, and of no more than a viewer: what a route about tokens is asked about."""
USERS = (
    User(name="alice", role=Role.DEPLOYER),
    User(name="bob", role=Role.DEPLOYER),
    User(name="carol", role=Role.VIEWER),
    User(name="dave", role=Role.DEPLOYER, disabled=True),
    User(name="root", role=Role.ADMIN),
)
"""Alice owns `MEMORY_ID`; carol owns nothing, and is who routes about users are asked about."""


@frozen(kw_only=True)
class Credential:
    """What is sent, and who that is: nobody, unless a role is given."""

    name: str
    header: str | None
    role: Role | None = None
    owner: str = "alice"
    opens: frozenset[UUID] | None = None
    """The only instances that it opens."""


def api_tokens() -> Iterator[tuple[Credential, Token]]:
    """Each with the record that the table has of it."""

    def one(name: str, owner: str, role: Role, *, is_good: bool = True, **more: Any) -> tuple[Credential, Token]:
        text = f"corral_{name.replace(' ', '-')}-0123456789"
        who = {"role": role, "owner": owner, "opens": more.get("instances")} if is_good else {}
        return Credential(name=name, header=f"Bearer {text}", **who), make_token(text, owner, role, **more)

    yield one("viewer", "alice", Role.VIEWER)
    yield one("caller", "alice", Role.CALLER)
    yield one("deployer", "alice", Role.DEPLOYER)
    yield one("other owners deployer", "bob", Role.DEPLOYER)
    yield one("admin", "root", Role.ADMIN)
    yield one("deployer for this instance", "alice", Role.DEPLOYER, instances=frozenset({MEMORY_ID}))
    yield one("deployer for another instance", "alice", Role.DEPLOYER, instances=frozenset({OTHER_ID}))
    yield one("viewer for this instance", "alice", Role.VIEWER, instances=frozenset({MEMORY_ID}))
    yield one("admin for this instance", "root", Role.ADMIN, instances=frozenset({MEMORY_ID}))
    yield one("other owners for this instance", "bob", Role.DEPLOYER, instances=frozenset({MEMORY_ID}))
    yield one("expired", "alice", Role.DEPLOYER, is_good=False, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    yield one("disabled users", "dave", Role.DEPLOYER, is_good=False)


def own_jwt(key: bytes = JWT_KEY, algorithm: str = "HS256", **changes: Any) -> str:
    claims = {"sub": "alice", "role": "deployer", "exp": time.time() + A_DAY_S, **changes}
    return jwt.encode(claims, key, algorithm)


def jwts() -> Iterator[Credential]:
    there = TestIssuer()

    def bad(name: str, token: str) -> Credential:
        return Credential(name=name, header=f"Bearer {token}")

    def good(name: str, token: str, role: Role = Role.DEPLOYER, **who: Any) -> Credential:
        return Credential(name=name, header=f"Bearer {token}", role=role, **who)

    yield good("own JWT", own_jwt())
    yield bad("own JWT, another key", own_jwt(b"x" * 64))
    yield bad("own JWT, another algorithm", own_jwt(algorithm="HS512"))
    yield bad("own JWT, expired", own_jwt(exp=time.time() - 60))
    yield bad("own JWT, unknown user", own_jwt(sub="nobody"))
    yield bad("own JWT, disabled user", own_jwt(sub="dave"))
    yield bad("JWT without a signature", jwt.encode(there.claims(), None, "none", headers={"kid": "rsa"}))
    yield good("issuers RS256", there.token())
    yield good("issuers ES256", there.token(algorithm="ES256"))
    yield good("issuers, by scope", there.token(role=None, scope="openid corral:call"), Role.CALLER)
    yield good("issuers, admins", there.token(sub="root", role="admin"), Role.ADMIN, owner="root")
    yield good("issuers, admin by claim alone", there.token(role="admin"))
    here, elsewhere = frozenset({MEMORY_ID}), frozenset({OTHER_ID})
    yield good("issuers, this endpoint", there.token(aud=f"{BASE}/mcp/{MEMORY_ID}"), opens=here)
    yield good("issuers, this endpoint by name", there.token(aud=f"{BASE}/mcp/memory"), opens=here)
    yield good("issuers, another endpoint", there.token(aud=f"{BASE}/mcp/files"), opens=elsewhere)
    yield bad("issuers, another algorithm", there.token(algorithm="RS512"))
    yield bad("issuers, HS256 by a key that is public", hs256_by(there.document(), there.claims(), kid="rsa"))
    yield bad("issuers, another key", there.token(key=rsa_key("another")))
    yield bad("issuers, expired", there.token(exp=int(time.time()) - 120))
    yield bad("issuers, another audience", there.token(aud=AUDIENCE + "2"))
    yield bad("another issuers", there.token(iss="https://evil.example"))
    yield bad("issuers, unknown user", there.token(sub="nobody"))
    yield bad("issuers, disabled user", there.token(sub="dave"))


CREDENTIALS = (
    Credential(name="nothing", header=None),
    Credential(name="malformed", header="Bearer a b"),
    Credential(name="another scheme", header="Basic YWxpY2U6YQ=="),
    Credential(name="unknown", header="Bearer corral_nobodys-0123456789"),
    *(credential for credential, _ in api_tokens()),
    *jwts(),
)
BODIES = {"addToken": {"name": "ci", "role": "viewer", "expires_in": 60}}
"""In place of the route's own example: a JWT makes no token that outlives it."""
IN, UNAUTHORIZED, FORBIDDEN, NOT_FOUND = "let in", "401", "403", "404"


def expected(route: Route, who: Credential) -> str:
    """The rule."""
    if route.role is None:
        return IN
    if who.role is None:
        return UNAUTHORIZED
    if not who.role.includes(route.role) or (who.opens is not None and not route.open_to_limited):
        return FORBIDDEN
    is_alices = "{id}" in route.path or "{token_id}" in route.path
    if is_alices and who.owner != "alice" and who.role is not Role.ADMIN:
        return NOT_FOUND
    if "{id}" in route.path and who.opens is not None and MEMORY_ID not in who.opens:
        return NOT_FOUND
    return IN


def verdict(status: int, content_type: str) -> str:
    """What an answer says. A body that is not to somebody's liking was let in all the same, and so was what MCP refuses."""
    if status in {401, 403, 404} and content_type == "application/problem+json":
        return str(status)
    return IN if status < 500 else f"broken, {status}"


def path_of(route: Route) -> str:
    """About what is alice's, or about carol."""
    about_a_secret = route.path.startswith("/secrets/")
    values = {"id": str(MEMORY_ID), "token_id": str(SPARE_TOKEN), "name": "KEY" if about_a_secret else "carol"}
    path = re.sub(r"\{(\w+)\}", lambda found: {**values, "code": "busy"}[found[1]], route.path)
    return f"{path}?wait=0" if "wait" in fields_dict(route.query) else path


def furnish(table: TokenTable) -> list[Token]:
    """Put the users and the tokens of the matrix in force."""
    tokens = [token for _, token in api_tokens()]
    tokens.append(make_token("corral_spare-0123456789", "alice", Role.VIEWER))
    tokens[-1] = evolve(tokens[-1], id=SPARE_TOKEN)
    table.load(USERS, tokens)
    return tokens


def renew(api: Api) -> None:
    """As before the first request, whatever the last one did."""
    api.supervisor.by_id.clear()
    api.supervisor.add("memory", "alice", id=MEMORY_ID)
    api.supervisor.add("files", "alice", id=OTHER_ID)
    tokens = furnish(api.services.tokens)
    api.store.tokens_ = {token.id: token for token in tokens}
    api.store.users_ = {user.name: user for user in USERS}
    api.store.secrets_ = {
        (user.name, "KEY"): Secret(owner=user.name, name="KEY", created_at=NOW, updated_at=NOW) for user in USERS
    }


BEHIND = [route for route in ROUTES if route.handler is not None]
FRONT = [route for route in ROUTES if route.handler is None]


@pytest.mark.parametrize("tag", sorted({route.tag for route in BEHIND}))
async def test_who_is_let_in(tag: str) -> None:
    wrong: list[str] = []
    async with in_process(**SETTINGS) as api:
        for route in BEHIND:
            for who in CREDENTIALS if route.tag == tag else ():
                renew(api)
                headers = {"accept": "application/json"} | ({"authorization": who.header} if who.header else {})
                body = {"json": BODIES.get(route.operation, route.example) or {}} if route.body is not None else {}
                response = await api.ask(route.method, path_of(route), token=None, headers=headers, **body)
                found = verdict(response.status_code, response.headers["content-type"])
                right = expected(route, who)
                if found != right:
                    wrong.append(f"{route.method} {route.path} with {who.name}: {found} instead of {right}")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("route", FRONT, ids=lambda route: f"{route.method} {route.path}")
async def test_who_is_let_in_through_both_doors(route: Route, hot: bool) -> None:
    services = make_services(**SETTINGS)
    furnish(services.tokens)
    supervisor: Any = services.supervisor
    supervisor.add("files", "alice", OTHER_ID)
    wrong: list[str] = []
    with trio.fail_after(60):
        async with running(services, hot=hot) as server:
            for who in CREDENTIALS:
                found = [await found_by(server, route, who) for _ in range(2)]
                if set(found) != {expected(route, who)}:
                    wrong.append(f"with {who.name}: {', then '.join(found)} instead of {expected(route, who)}")
    assert not wrong, "\n" + "\n".join(wrong)


async def found_by(server: Server, route: Route, who: Credential) -> str:
    """Ask, on a connection of its own, and read the head of the answer: streams have no end."""
    client: Client = await server.connect()
    body = None if route.method == "GET" else json.dumps({"method": "m"}).encode()
    fields = {"Accept": "application/json, text/event-stream" if route.method == "POST" else "text/event-stream"}
    if who.header is not None:
        fields["Authorization"] = who.header
    await client.send(request(route.method, path_of(route), token=None, body=body, **fields))
    reply = await client.head()
    await client.stream.aclose()
    return verdict(reply.status, reply.headers.get("content-type", ""))


def test_the_matrix_has_each_kind_of_credential_once() -> None:
    names = [who.name for who in CREDENTIALS]
    headers = [who.header for who in CREDENTIALS]
    assert len(set(names)) == len(names)
    assert len(set(headers)) == len(headers)
    for route in (route for route in ROUTES if route.role is not None):
        assert {expected(route, who) for who in CREDENTIALS} >= {IN, UNAUTHORIZED}, route.path
