"""OAuth as MCP clients do it: the official client finds the issuer, gets a token for one endpoint, and is let in there."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx
import httpx2
import pytest
import trio
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.e2e.plane import deployment, open_plane, wait_until
from tests.web.oidc_issuer import AUDIENCE, TestIssuer, issuing, jwk_of, rsa_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane

LIMIT_S = 60
REDIRECT = "http://127.0.0.1:1/callback"


@pytest.fixture(scope="module")
def issuer() -> Iterator[TestIssuer]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def plane(issuer: TestIssuer) -> Iterator[Plane]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"OIDC_ISSUER": issuer.url, "OIDC_AUDIENCE": AUDIENCE, "PUBLIC_URL": url, "PORT": str(port)}
    with open_plane(**settings) as opened:
        opened.start()
        opened.request("POST", "/users", json={"name": "alice", "role": "deployer"})
        with opened.client(issuer.token()) as alices:
            wait_until(lambda: alices.get("/instances").status_code == 200, LIMIT_S, "the issuer's keys are known")
            for name in ("echo", "other"):
                _deploy(alices, name)
        yield opened


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _deploy(client: httpx.Client, name: str) -> None:
    answer = client.post("/deploy", json=deployment(name), timeout=LIMIT_S)
    assert answer.status_code == 201, answer.text


class Storage:
    """In memory; empty at first."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Person:
    """Opens the address in a browser and approves; the browser is sent back with a code."""

    def __init__(self) -> None:
        self.came_back: dict[str, str] = {}

    async def open(self, url: str) -> None:
        async with httpx.AsyncClient(trust_env=False) as browser:
            answer = await browser.get(url)
        query = urlsplit(answer.headers["location"]).query
        self.came_back = {name: values[0] for name, values in parse_qs(query).items()}

    async def tell(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**self.came_back)


async def test_the_official_client_finds_its_way_from_the_bare_address(plane: Plane, issuer: TestIssuer) -> None:
    url, storage, person = f"{plane.url}/mcp/echo", Storage(), Person()
    about = OAuthClientMetadata(client_name="test", redirect_uris=[REDIRECT], grant_types=["authorization_code"])
    provider = OAuthClientProvider(url, about, storage, person.open, person.tell)
    with trio.fail_after(LIMIT_S):
        async with (
            httpx2.AsyncClient(auth=provider, timeout=LIMIT_S) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            answer = await client.call_tool("echo", {"text": "hello"})
            assert answer.content[0].text == "hello"
    assert {"/register", "/token"} <= set(issuer.asked)
    assert storage.tokens is not None
    assert storage.tokens.scope == "corral:call"
    with plane.client(storage.tokens.access_token) as agent:
        body = {"method": "tools/list"}
        assert agent.post("/mcp/echo/execute", json=body).status_code == 200
        assert agent.post("/mcp/other/execute", json=body).status_code == 404
        assert agent.post("/deploy", json={}).status_code == 403
        assert [row["name"] for row in agent.get("/instances").json()["instances"]] == ["echo"]


def test_a_token_for_another_resource_is_told_where_to_go(plane: Plane, issuer: TestIssuer) -> None:
    with plane.client(issuer.token(aud="https://other.example")) as stranger:
        answer = stranger.post("/mcp/echo", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert answer.status_code == 401
    metadata = f"{plane.url}/.well-known/oauth-protected-resource/mcp/echo"
    assert f'resource_metadata="{metadata}"' in answer.headers["www-authenticate"]
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    found = httpx.get(metadata, trust_env=False).json()
    assert (found["resource"], found["authorization_servers"]) == (f"{plane.url}/mcp/echo", [issuer.url])


def test_keys_that_the_issuer_adds_are_followed(plane: Plane, issuer: TestIssuer) -> None:
    assert plane.get("/stats")["control_plane"]["issuer"]["keys"] == 2
    before = issuer.keys
    issuer.keys = [*before, jwk_of(rsa_key("next"), kid="next")]
    token = issuer.token(key=rsa_key("next"), kid="next")
    with plane.client(token) as alices:
        wait_until(lambda: alices.get("/instances").status_code == 200, LIMIT_S, "the new key is known")
    assert f"3 keys of {issuer.url} are in force" in plane.log
    assert plane.get("/stats")["control_plane"]["issuer"]["problem"] is None
