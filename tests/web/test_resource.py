"""Where MCP clients are told to get a token: challenges and protected-resource metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from controlplane.model import Role
from controlplane.web.challenge import challenge, metadata_path, scope_for
from tests.web.fakes import OIDC, TOKENS, request
from tests.web.fakes_api import Api, in_process, problem_of
from tests.web.oidc_issuer import TestIssuer

if TYPE_CHECKING:
    from tests.web.fakes import Server

METADATA = "/.well-known/oauth-protected-resource"
PUBLIC = {**OIDC, "public_url": "https://mcp.example.com"}
PLAIN = 'Bearer realm="corral"'


@pytest.mark.parametrize(
    ("path", "metadata", "scope"),
    [
        ("/mcp/memory", f"{METADATA}/mcp/memory", "corral:call"),
        ("/mcp/memory/execute", f"{METADATA}/mcp/memory", "corral:call"),
        ("/mcp/memory/sse", f"{METADATA}/mcp/memory", "corral:call"),
        ("/mcp/memory/stream", f"{METADATA}/mcp/memory", "corral:read"),
        ("/mcp/bob/memory", f"{METADATA}/mcp/bob/memory", "corral:call"),
        ("/instances", METADATA, None),
        ("/mcp/", METADATA, None),
    ],
)
def test_what_a_path_is_challenged_for(path: str, metadata: str, scope: str | None) -> None:
    assert metadata_path(path) == metadata
    assert scope_for(path) == scope


@pytest.mark.parametrize("path", ['/mcp/a"b', "/mcp/a\\b", "/mcp/a\r\nx: y", "/mcp/\u00fc"])
def test_a_path_never_breaks_out_of_the_challenge(path: str) -> None:
    assert challenge("http://h", path) == f'{PLAIN}, resource_metadata="http://h{METADATA}"'


async def challenged(api: Api, path: str, token: str | None, **more: Any) -> str:
    response = await api.ask("POST", path, token=token, json={"jsonrpc": "2.0", "id": 1, "method": "m"}, **more)
    assert response.status_code in {401, 403}
    return str(response.headers.get("www-authenticate"))


async def test_without_an_issuer_there_is_nothing_to_point_to() -> None:
    async with in_process() as api:
        for path in ("/mcp/memory", "/mcp/none", "/deploy"):
            assert await challenged(api, path, None) == PLAIN
            assert await challenged(api, path, "a.b.c") == PLAIN
        assert await challenged(api, "/mcp/memory", TOKENS[Role.VIEWER]) == "None"
        for path in (METADATA, f"{METADATA}/mcp/memory"):
            problem_of(await api.ask("GET", path, token=None), 404, "not_found")


async def test_a_challenge_names_the_metadata_the_scope_and_what_was_wrong() -> None:
    async with in_process(**PUBLIC) as api:
        pointer = f'{PLAIN}, resource_metadata="https://mcp.example.com{METADATA}'
        for ref in ("memory", "none", str(api.named("bob", "memory").instance.id)):
            assert await challenged(api, f"/mcp/{ref}", None) == f'{pointer}/mcp/{ref}", scope="corral:call"'
        expected = f'{pointer}/mcp/memory", scope="corral:call", error="invalid_token"'
        assert await challenged(api, "/mcp/memory", "a.b.c") == expected
        assert await challenged(api, "/mcp/memory/execute", "corral_wrong") == expected
        expected = f'{pointer}/mcp/memory", scope="corral:call", error="insufficient_scope"'
        assert await challenged(api, "/mcp/memory", TOKENS[Role.VIEWER]) == expected
        expected = f'{pointer}", scope="corral:deploy", error="insufficient_scope"'
        assert await challenged(api, "/deploy", TOKENS[Role.CALLER]) == expected
        assert await challenged(api, "/deploy", None) == f'{pointer}"'


async def test_without_a_public_url_the_host_of_the_request_is_named() -> None:
    async with in_process(**OIDC) as api:
        said = await challenged(api, "/mcp/memory", None, headers={"host": "LocalHost:8000"})
        assert f'"http://localhost:8000{METADATA}/mcp/memory"' in said
        said = await challenged(api, "/mcp/memory", None, headers={"x-forwarded-proto": "https"})
        assert '"http://' in said
        problem_of(await api.ask("GET", METADATA, token=None, headers={"host": "evil.example"}), 421, "host_rejected")
    async with in_process(**OIDC, trusted_proxies=("127.0.0.1",)) as api:
        said = await challenged(api, "/mcp/memory", None, headers={"x-forwarded-proto": "https"})
        assert '"https://127.0.0.1:8000/' in said


async def test_the_metadata_are_the_same_whether_an_instance_exists_or_not() -> None:
    async with in_process(**PUBLIC) as api:
        whole = (await api.ask("GET", METADATA, token=None)).json()
        assert whole == {
            "resource": "https://mcp.example.com",
            "authorization_servers": [TestIssuer().url],
            "scopes_supported": ["corral:read", "corral:call", "corral:deploy", "corral:admin"],
            "bearer_methods_supported": ["header"],
            "resource_name": "Corral",
        }
        for ref in ("memory", "none", "bob/memory", "memory/sse"):
            one = await api.ask("GET", f"{METADATA}/mcp/{ref}", token=None)
            assert one.status_code == 200
            assert one.json() == {**whole, "resource": f"https://mcp.example.com/mcp/{ref}"}
        for ref in ("a/b/c", "a%22b", "a%20b", "x" * 200, ""):
            problem_of(await api.ask("GET", f"{METADATA}/mcp/{ref}", token=None), 404, "not_found")


async def test_the_public_urls_host_is_served() -> None:
    async with in_process(**PUBLIC) as api:
        assert (await api.ask("GET", METADATA, token=None, headers={"host": "mcp.example.com"})).status_code == 200


class TestBothDoors:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return dict(PUBLIC)

    @pytest.mark.parametrize("path", ["/mcp/memory", "/mcp/memory/execute"])
    async def test_say_the_same(self, server: Server, path: str) -> None:
        client = await server.connect()
        pointer = f'{PLAIN}, resource_metadata="https://mcp.example.com{METADATA}/mcp/memory", scope="corral:call"'
        for token, status, error in (
            (None, 401, ""),
            ("a.b.c", 401, ', error="invalid_token"'),
            (TOKENS[Role.VIEWER], 403, ', error="insufficient_scope"'),
        ):
            reply = await client.ask(request(path=path, token=token, body=b'{"method":"m"}'))
            assert (reply.status, reply.headers["www-authenticate"]) == (status, pointer + error)

    async def test_take_an_endpoints_token_for_that_endpoint_alone(self, server: Server) -> None:
        there = TestIssuer()
        client = await server.connect()
        token = there.token(aud="https://mcp.example.com/mcp/memory", role=None, scope="corral:call")
        body = b'{"method":"m"}'
        assert (await client.ask(request(token=token, body=body))).status == 200
        assert (await client.ask(request(token=token, body=body))).status == 200
        other = there.token(aud="https://mcp.example.com/mcp/files", role=None, scope="corral:call")
        assert (await client.ask(request(token=other, body=body))).status == 404
        assert (await client.ask(request(token=there.token(aud="https://evil.example"), body=body))).status == 401
