"""What holds for every route of the table: credentials, roles, hosts, origins, methods, headers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.model import Role
from controlplane.web.routes import ROUTES
from controlplane.wire.mcp import McpMessageIn
from tests.web.fakes import OIDC, TOKENS
from tests.web.fakes_api import Api, in_process, problem_of

if TYPE_CHECKING:
    from controlplane.web.route import Route

GUARDED = [route for route in ROUTES if route.role is not None]
OPEN = [route for route in ROUTES if route.role is None]


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def path_of(route: Route) -> str:
    values = {"id": "memory", "token_id": "00000000-0000-0000-0000-000000000000", "name": "bob", "code": "busy"}
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], route.path)


async def ask(api: Api, route: Route, token: str | None, **more: Any) -> Any:
    if route.body is not None:
        more.setdefault("json", route.example)
    return await api.ask(route.method, path_of(route), token=token, **more)


@pytest.mark.parametrize("route", GUARDED, ids=named)
async def test_without_a_valid_token_every_route_is_a_401_that_challenges(route: Route) -> None:
    async with in_process() as api:
        for token in (None, "x", "corral_wrong-token-0123456789abcdef", "a.b.c", "x" * 5000, 'x"y', ""):
            response = await ask(api, route, token)
            problem_of(response, 401, "unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer")
        for header in ("Basic YTpi", "Bearer", f"bearer  {TOKENS[Role.ADMIN]} x", f"Token {TOKENS[Role.ADMIN]}"):
            problem_of(await ask(api, route, None, headers={"authorization": header}), 401, "unauthorized")
        assert len(api.supervisor.by_id) == 3
        assert not api.deployer.seen


@pytest.mark.parametrize("route", GUARDED, ids=named)
async def test_a_token_in_the_url_or_a_cookie_is_no_token(route: Route) -> None:
    async with in_process() as api:
        token = TOKENS[Role.ADMIN]
        response = await ask(api, route, None, params={"token": token, "access_token": token})
        problem_of(response, 401, "unauthorized")
        problem_of(await ask(api, route, None, headers={"cookie": f"token={token}"}), 401, "unauthorized")


@pytest.mark.parametrize("route", [route for route in GUARDED if route.role is not Role.VIEWER], ids=named)
async def test_every_role_below_the_routes_own_is_forbidden(route: Route) -> None:
    async with in_process() as api:
        assert route.role is not None
        for role in Role:
            if not role.includes(route.role):
                document = problem_of(await ask(api, route, TOKENS[role]), 403, "forbidden")
                assert route.role.value in document["detail"]
        assert not api.deployer.seen
        assert len(api.supervisor.by_id) == 3


@pytest.mark.parametrize("route", OPEN, ids=named)
async def test_open_routes_need_no_token_and_name_no_tenant(route: Route) -> None:
    async with in_process(**OIDC) as api:
        response = await ask(api, route, None)
        assert response.status_code == 200
        for word in ("bob", "root", 'memory"', str(api.named("alice", "memory").instance.id)):
            if route.tag != "Documentation":
                assert word not in response.text.replace("/mcp/memory", "")  # as it was asked for


@pytest.mark.parametrize("route", ROUTES, ids=named)
async def test_a_foreign_host_or_origin_is_refused_everywhere(route: Route) -> None:
    async with in_process() as api:
        for host in ("evil.example", "", "localhost.evil.example", "127.0.0.1@evil.example"):
            response = await ask(api, route, TOKENS[Role.ADMIN], headers={"host": host})
            problem_of(response, 421, "host_rejected")
        for origin in ("https://evil.example", "null", "file://", "http://127.0.0.1.evil.example"):
            response = await ask(api, route, TOKENS[Role.ADMIN], headers={"origin": origin})
            problem_of(response, 403, "origin_rejected")
            assert "access-control-allow-origin" not in response.headers
        assert len(api.supervisor.by_id) == 3


@pytest.mark.parametrize("route", ROUTES, ids=named)
async def test_an_unknown_query_parameter_is_named(route: Route) -> None:
    async with in_process() as api:
        response = await ask(api, route, TOKENS[Role.ADMIN], params={"definitely_unknown": "1"})
        document = problem_of(response, 422, "invalid_request")
        assert document["errors"][0]["pointer"] == "?definitely_unknown"


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body is not None], ids=named)
async def test_a_body_must_be_plain_json(route: Route) -> None:
    async with in_process() as api:
        admin = TOKENS[Role.ADMIN]
        path = path_of(route).replace("memory", "alice/memory")
        for headers in (
            {"content-type": "text/plain"},
            {"content-type": "application/json", "content-encoding": "gzip"},
        ):
            response = await api.ask(route.method, path, token=admin, content=b"{}", headers=headers)
            problem_of(response, 415, "unsupported_media_type")
        response = await api.ask(
            route.method, path, token=admin, content=b"{]", headers={"content-type": "application/json"}
        )
        if route.body is McpMessageIn:
            return  # the protocol has refusals of its own
        problem_of(response, 400, "malformed_json")
        response = await api.ask(route.method, path, token=admin, json={"definitely_unknown": 1})
        assert "/definitely_unknown" in str(problem_of(response, 422, "invalid_request")["errors"])


PATHS = sorted({route.path for route in ROUTES})
WITHOUT_HEAD = {"/mcp/{id}", "/mcp/{id}/sse"}
"""The MCP endpoint: what a GET would answer is not known before it does."""


@pytest.mark.parametrize("path", PATHS)
async def test_other_methods_are_a_405_that_lists_those_that_work(path: str) -> None:
    async with in_process() as api:
        here = [route for route in ROUTES if route.path == path]
        working = {route.method for route in here}
        expected = working | {"OPTIONS"} | ({"HEAD"} if "GET" in working and path not in WITHOUT_HEAD else set())
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"):
            if method not in expected:
                response = await api.admin(method, path_of(here[0]))
                problem_of(response, 405, "method_not_allowed")
                assert set(response.headers["allow"].split(", ")) == expected
        options = await api.ask("OPTIONS", path_of(here[0]), token=None)
        assert options.status_code == 204
        assert set(options.headers["allow"].split(", ")) == expected


@pytest.mark.parametrize("path", [path for path in PATHS if path not in {"/events", "/mcp/{id}/stream"} | WITHOUT_HEAD])
async def test_head_is_get_without_the_body(path: str) -> None:
    async with in_process(**OIDC) as api:
        here = next((route for route in ROUTES if route.path == path and route.method == "GET"), None)
        if here is None:
            return
        token = TOKENS[Role.ADMIN] if here.tag == "Access" else TOKENS[here.role or Role.VIEWER]
        if here.tag == "Secrets":
            assert (await api.ask("PUT", "/secrets/bob", token=token, json={"value": "hunter22"})).status_code == 201
        head = await api.ask("HEAD", path_of(here), token=token)
        assert head.status_code == 200
        assert head.content == b""


@pytest.mark.parametrize(
    "path", ["/nothing", "/instances/", "//instances", "/instances/a/b/c", "/docs/", "/%00", "/.."]
)
async def test_a_path_that_is_not_there_is_a_404_problem(path: str) -> None:
    async with in_process() as api:
        problem_of(await api.ask("GET", path), 404, "not_found")


async def test_an_allowed_origin_gets_its_cors_answers_and_preflights() -> None:
    async with in_process(allowed_origins=("https://app.example",)) as api:
        origin = {"origin": "https://app.example"}
        response = await api.ask("GET", "/instances", headers=origin)
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-credentials" not in response.headers
        preflight = await api.ask(
            "OPTIONS", "/instances/memory", token=None, headers={**origin, "access-control-request-method": "DELETE"}
        )
        assert preflight.status_code == 204
        assert "DELETE" in preflight.headers["access-control-allow-methods"]
        assert "authorization" in preflight.headers["access-control-allow-headers"]


async def test_every_answer_carries_its_request_id_and_safety_headers() -> None:
    async with in_process() as api:
        for path in ("/instances", "/health", "/docs", "/nothing", "/instances?x=1", "/metrics", "/openapi.json"):
            response = await api.ask("GET", path, headers={"x-request-id": "my-own.id_1"})
            assert response.headers["x-request-id"] == "my-own.id_1"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"
            assert response.headers["cache-control"] == ("no-cache" if path == "/docs" else "no-store")
        for insane in ("", "a b", "x" * 65, "<script>"):
            response = await api.ask("GET", "/health", headers={"x-request-id": insane})
            assert response.headers["x-request-id"] != insane


async def test_too_many_wrong_tokens_from_one_address_are_a_429() -> None:
    async with in_process(auth_failures_per_minute=3) as api:
        for _ in range(3):
            problem_of(await api.ask("GET", "/instances", token="corral_wrong"), 401, "unauthorized")
        limited = await api.ask("GET", "/instances", token="corral_wrong")
        problem_of(limited, 429, "rate_limited")
        assert int(limited.headers["retry-after"]) >= 1
        assert (await api.ask("GET", "/instances")).status_code == 200
