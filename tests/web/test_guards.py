"""What every request must pass, as functions and through both doors."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import trio

from controlplane.errors import (
    Forbidden,
    HostRejected,
    InvalidRequest,
    OriginRejected,
    PayloadTooLarge,
    RateLimited,
    Unauthorized,
    UnsupportedMediaType,
)
from controlplane.model import Principal, Role
from controlplane.web import guards
from controlplane.web.request import Head
from tests.web.fakes import JWT_KEY, TOKENS, make_services, memory, request

if TYPE_CHECKING:
    from controlplane.web.guards import Guards
    from tests.web.fakes import Reply, Server

ECHO = b'{"method":"echo"}'


def head(peer: str = "127.0.0.1", **fields: str) -> Head:
    pairs = [(name.lower().replace("_", "-").encode(), value.encode("latin-1")) for name, value in fields.items()]
    return Head.of("POST", "/mcp/memory/execute", b"", pairs, peer)


def make_guards(**settings: Any) -> Guards:
    return make_services(**settings).guards


# -- Host


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000", "corral.example", "corral.example:443"],
)
def test_loopback_names_and_allowed_hosts_are_served_on_any_port(host: str) -> None:
    make_guards(allowed_hosts=("Corral.Example",)).check_host(head(host=host))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "evil.example#localhost",
        "localhost, evil.example",
        "localhost:8000:8000",
        "localhost:port",
        "user@localhost",
        "localhost/",
        " localhost",
        "127.0.0.1.nip.io",
        "[::1",
        "::1",
        "\xe9",
        "a" * 10_000,
    ],
)
def test_any_other_host_is_rejected(host: str) -> None:
    with pytest.raises(HostRejected):
        make_guards().check_host(head(host=host))


def test_a_missing_host_is_rejected() -> None:
    with pytest.raises(HostRejected):
        make_guards().check_host(head())


def test_the_address_it_listens_on_is_served() -> None:
    make_guards(host="192.0.2.7").check_host(head(host="192.0.2.7:8000"))
    make_guards(host="2001:db8::7").check_host(head(host="[2001:db8::7]:8000"))


def test_an_allowed_host_with_a_port_is_served_on_that_port_alone() -> None:
    checks = make_guards(allowed_hosts=("corral.example:8443",))

    checks.check_host(head(host="corral.example:8443"))
    with pytest.raises(HostRejected):
        checks.check_host(head(host="corral.example"))


# -- Origin


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:8000", "http://127.0.0.1", "https://corral.example", "https://app.example", "HTTP://LOCALHOST"],
)
def test_own_and_allowed_origins_pass_and_get_cors_fields(origin: str) -> None:
    checks = make_guards(allowed_hosts=("corral.example",), allowed_origins=("https://app.example/",))

    checks.check_origin(head(origin=origin))

    fields = dict(checks.cors(head(origin=origin)))
    assert fields[b"access-control-allow-origin"] == origin.encode()
    assert fields[b"vary"] == b"Origin"
    assert b"access-control-allow-credentials" not in fields


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "*",
        "file://",
        "https://evil.example",
        "http://app.example",
        "https://app.example.evil.example",
        "https://app.example:444",
        "http://localhost.evil.example",
        "http://evil.example/localhost",
        "http://evil.example#@localhost",
        "http://localhost@evil.example",
        "http://localhost, http://localhost",
        "chrome-extension://localhost",
        "\xe9",
    ],
)
def test_any_other_origin_is_rejected_and_never_reflected(origin: str) -> None:
    checks = make_guards(allowed_origins=("https://app.example",))

    with pytest.raises(OriginRejected):
        checks.check_origin(head(origin=origin))
    assert checks.cors(head(origin=origin)) == ()


def test_a_program_sends_no_origin_and_gets_no_cors_fields() -> None:
    checks = make_guards()

    checks.check_origin(head())
    assert checks.cors(head()) == ()


# -- addresses


def test_the_clients_address_is_the_peers_unless_a_trusted_proxy_says_otherwise() -> None:
    forwarded = "6.6.6.6, 203.0.113.9, 10.0.0.2"
    plain, behind = make_guards(), make_guards(trusted_proxies=("10.0.0.0/8", "::1"))

    assert plain.client(head("198.51.100.1", x_forwarded_for=forwarded)) == "198.51.100.1"
    assert behind.client(head("198.51.100.1", x_forwarded_for=forwarded)) == "198.51.100.1"
    assert behind.client(head("10.0.0.1", x_forwarded_for=forwarded)) == "203.0.113.9"
    assert behind.client(head("::1", x_forwarded_for="2001:db8::1")) == "2001:db8::1"
    assert behind.client(head("10.0.0.1")) == "10.0.0.1"
    assert behind.client(head("::ffff:10.0.0.1", x_forwarded_for="203.0.113.9")) == "203.0.113.9"


# -- credentials


def test_wrong_tokens_are_limited_per_address_and_valid_ones_are_not(caplog: pytest.LogCaptureFixture) -> None:
    checks = make_guards(auth_failures_per_minute=30)
    statuses = []
    with caplog.at_level(logging.WARNING):
        for _ in range(1_000):
            try:
                checks.authenticate(head("203.0.113.9", authorization="Bearer wrong-token"))
            except (Unauthorized, RateLimited) as error:
                statuses.append(error.status)

    assert statuses[:30] == [401] * 30
    assert statuses[-900:] == [429] * 900
    assert len(caplog.records) == 1
    assert "wrong-token" not in caplog.text
    good = f"Bearer {TOKENS[Role.VIEWER]}"
    assert checks.authenticate(head("203.0.113.9", authorization=good)).role is Role.VIEWER
    with pytest.raises(Unauthorized):
        checks.authenticate(head("203.0.113.10", authorization="Bearer wrong-token"))


def test_a_refreshed_jwt_counts_as_the_one_before_it() -> None:
    """Its issuer gives out as many as are asked for."""
    checks = make_guards(rate_limit_rps=3)
    expires = int(time.time()) + 3600

    def call(user: str, number: int) -> None:
        refreshed = jwt.encode({"sub": user, "role": "viewer", "exp": expires + number}, JWT_KEY, algorithm="HS256")
        checks.admit_call(checks.authenticate(head(authorization=f"Bearer {refreshed}")))

    for number in range(3):
        call("alice", number)
    with pytest.raises(RateLimited):
        call("alice", 3)
    call("bob", 0)
    checks.admit_call(checks.authenticate(head(authorization=f"Bearer {TOKENS[Role.VIEWER]}")))  # a token has its own


def test_an_ipv6_network_is_one_address() -> None:
    checks = make_guards(auth_failures_per_minute=5)

    for host in range(5):
        with pytest.raises(Unauthorized):
            checks.authenticate(head(f"2001:db8::{host}", authorization="Bearer wrong-token"))
    with pytest.raises(RateLimited):
        checks.authenticate(head("2001:db8::ffff", authorization="Bearer wrong-token"))


def test_a_missing_or_malformed_credential_is_no_guess() -> None:
    checks = make_guards(auth_failures_per_minute=1)

    for _ in range(100):
        with pytest.raises(Unauthorized):
            checks.authenticate(head())
        with pytest.raises(Unauthorized):
            checks.authenticate(head(authorization="Basic YTpi"))


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("needed", list(Role))
def test_a_role_includes_those_before_it(role: Role, needed: Role) -> None:
    principal = Principal(owner="alice", role=role, token_id="t")
    order = [Role.VIEWER, Role.CALLER, Role.DEPLOYER, Role.ADMIN]

    if order.index(role) >= order.index(needed):
        guards.require(principal, needed)
    else:
        with pytest.raises(Forbidden):
            guards.require(principal, needed)


# -- bodies


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_is_accepted(content_type: str) -> None:
    assert guards.check_content_type(head(content_type=content_type)) == "application/json"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
        "application/json, text/plain",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
    ],
)
def test_any_other_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        guards.check_content_type(head(content_type=content_type))


def test_a_form_can_send_no_content_type_either() -> None:
    with pytest.raises(UnsupportedMediaType):
        guards.check_content_type(head())


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip", "x"])
def test_compressed_bodies_are_refused(encoding: str) -> None:
    guards.check_encoding(head(content_encoding="Identity"))
    with pytest.raises(UnsupportedMediaType):
        guards.check_encoding(head(content_encoding=encoding))


@pytest.mark.parametrize("length", ["11", "10737418240", "9" * 40, "-1", "1e3", "0x1", ""])
def test_a_body_declared_too_large_or_nonsensically_is_refused(length: str) -> None:
    guards.check_length(head(content_length="10"), 10)
    guards.check_length(head(), 10)
    with pytest.raises(PayloadTooLarge):
        guards.check_length(head(content_length=length), 10)


def test_unknown_query_parameters_are_named_each_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        guards.check_no_query(Head.of("GET", "/events", b"token=x&a&token=y&", [], ""))

    assert [error.pointer for error in caught.value.errors] == ["?token", "?a"]


# -- through both doors


async def ask(server: Server, data: bytes) -> Reply:
    with trio.fail_after(10):
        client = await server.connect()
        return await client.ask(data)


MALFORMED_CREDENTIALS = {
    "none": {"token": None},
    "empty": {"token": None, "Authorization": ""},
    "no token": {"token": None, "Authorization": "Bearer"},
    "another scheme": {"token": None, "Authorization": "Basic YWxpY2U6cHc="},
    "the token alone": {"token": None, "Authorization": TOKENS[Role.ADMIN]},
    "another token": {"token": "x" * 43},
    "a token cut short": {"token": TOKENS[Role.ADMIN][:-1]},
    "a token and more": {"token": TOKENS[Role.ADMIN] + "x"},
    "another case": {"token": TOKENS[Role.ADMIN].upper()},
    "two tokens": {"token": f"{TOKENS[Role.ADMIN]}, Bearer {TOKENS[Role.ADMIN]}"},
    "two fields": {"token": TOKENS[Role.ADMIN], "authorization": f"Bearer {TOKENS[Role.ADMIN]}"},
    "an unsigned JWT": {"token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290Iiwicm9sZSI6ImFkbWluIn0."},
    "in a cookie": {"token": None, "Cookie": f"token={TOKENS[Role.ADMIN]}; Authorization=Bearer {TOKENS[Role.ADMIN]}"},
    "in the URL": {"token": None, "path": f"/mcp/memory/execute?token={TOKENS[Role.ADMIN]}&access_token=x"},
}


@pytest.mark.parametrize("credential", MALFORMED_CREDENTIALS.values(), ids=MALFORMED_CREDENTIALS.keys())
async def test_without_a_valid_token_nothing_happens(server: Server, credential: dict[str, Any]) -> None:
    reply = await ask(server, request(body=ECHO, **credential))
    unknown = await ask(server, request(body=ECHO, **{"path": "/mcp/nothing/execute", **credential}))

    assert (reply.status, unknown.status) == (401, 401)
    assert reply.headers["www-authenticate"] == 'Bearer realm="corral"'
    assert reply.json()["code"] == "unauthorized"
    assert memory(server.services).calls == []


@pytest.mark.parametrize("path", ["/mcp/memory/stream", "/events"])
@pytest.mark.parametrize("credential", MALFORMED_CREDENTIALS.values(), ids=MALFORMED_CREDENTIALS.keys())
async def test_streams_need_a_token_too(server: Server, path: str, credential: dict[str, Any]) -> None:
    query = credential.get("path", "").partition("?")[2]
    credential = {**credential, "path": f"{path}?{query}" if query else path}

    assert (await ask(server, request("GET", **credential))).status == 401
    assert server.services.hub.statistics().subscribers == 0


async def test_a_viewer_may_not_call(server: Server) -> None:
    reply = await ask(server, request(body=ECHO, token=TOKENS[Role.VIEWER]))

    assert (reply.status, reply.json()["code"]) == (403, "forbidden")
    assert memory(server.services).calls == []


async def test_a_revoked_token_is_refused_on_the_connection_that_used_it(server: Server) -> None:
    principal = server.services.tokens.verify(f"Bearer {TOKENS[Role.CALLER]}")
    with trio.fail_after(10):
        client = await server.connect()
        assert [(await client.ask(request(body=ECHO))).status for _ in range(3)] == [200] * 3
        from uuid import UUID

        server.services.tokens.discard_token(UUID(principal.token_id))
        assert (await client.ask(request(body=ECHO))).status == 401


@pytest.mark.parametrize("host", ["evil.example", "", "localhost.evil.example", None])
async def test_a_foreign_host_is_misdirected(server: Server, host: str | None) -> None:
    reply = await ask(server, request(body=ECHO, host=host))

    assert reply.status in {400, 421}, "without a Host field HTTP/1.1 itself is violated"
    assert memory(server.services).calls == []


async def test_two_host_fields_are_refused(server: Server) -> None:
    reply = await ask(server, request(body=ECHO, host="localhost", hOST="localhost"))

    assert reply.status in {400, 421}
    assert memory(server.services).calls == []


async def test_an_absolute_target_does_not_get_around_the_host_check(server: Server) -> None:
    reply = await ask(server, request(path="http://evil.example/mcp/memory/execute", body=ECHO))

    assert reply.status == 421
    assert memory(server.services).calls == []


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "file://"])
async def test_a_foreign_page_is_refused_without_cors_fields(server: Server, origin: str) -> None:
    reply = await ask(server, request(body=ECHO, Origin=origin))
    preflight = await ask(server, request("OPTIONS", token=None, Origin=origin, Access_Control_Request_Method="POST"))

    assert (reply.status, preflight.status) == (403, 403)
    assert reply.json()["code"] == "origin_rejected"
    assert not [name for name in (*reply.headers, *preflight.headers) if name.startswith("access-control")]
    assert memory(server.services).calls == []


async def test_our_own_page_is_served_with_cors_fields(server: Server) -> None:
    origin = "http://localhost:8000"
    reply = await ask(server, request(body=ECHO, Origin=origin))
    preflight = await ask(server, request("OPTIONS", token=None, Origin=origin, Access_Control_Request_Method="POST"))

    assert (reply.status, preflight.status) == (200, 204)
    assert reply.headers["access-control-allow-origin"] == origin
    assert preflight.headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert preflight.headers["allow"] == "POST, OPTIONS"


async def test_a_refusal_of_our_own_page_can_be_read_by_it(server: Server) -> None:
    reply = await ask(server, request(body=b"{", Origin="http://localhost:8000"))

    assert (reply.status, reply.headers["access-control-allow-origin"]) == (400, "http://localhost:8000")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"content_type": None}, 415),
        ({"Content_Encoding": "gzip"}, 415),
        ({"path": "/mcp/memory/execute?timeout=1"}, 422),
        ({"method": "GET", "body": None}, 405),
        ({"method": "DELETE", "body": None}, 405),
        ({"method": "PUT"}, 405),
    ],
)
async def test_what_is_not_a_call_is_refused(server: Server, changes: dict[str, Any], status: int) -> None:
    reply = await ask(server, request(**{"body": ECHO, **changes}))

    assert reply.status == status
    assert reply.headers["content-type"] == "application/problem+json"
    if status == 405:
        assert reply.headers["allow"] == "POST, OPTIONS"
    assert memory(server.services).calls == []


@pytest.mark.parametrize("length", ["6291457", "10737418240", "999999999"])
async def test_a_body_declared_too_large_is_refused_unread(server: Server, length: str) -> None:
    data = request(Content_Length=length, Content_Type="application/json") + b"{" * 1000

    reply = await ask(server, data)

    assert (reply.status, reply.json()["code"]) == (413, "payload_too_large")


async def test_a_large_body_without_a_token_is_refused_unread(server: Server) -> None:
    data = request(token=None, Content_Length="5000000", Content_Type="application/json") + b"{" * 1000

    assert (await ask(server, data)).status == 401


async def test_who_is_refused_early_may_finish_sending(server: Server) -> None:
    """A reset in the middle of the upload would hide the answer from many clients."""
    with trio.fail_after(20):
        client = await server.connect()
        await client.send(request(token=None, body=b"x" * 5_000_000))
        assert (await client.reply()).status == 401


async def test_a_small_refused_body_leaves_the_connection_usable(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        for _ in range(5):
            assert (await client.ask(request(body=b"x" * 5000, token=None))).status == 401
        assert (await client.ask(request(body=ECHO))).status == 200


async def test_too_many_large_bodies_at_once_are_turned_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.services.guards.bodies.limit_bytes = 3_000_000
    big = request(Content_Length="2000000", Content_Type="application/json")
    with trio.fail_after(10):
        first = await server.connect()
        await first.send(big + b"{")
        while not server.services.guards.bodies.held_bytes:
            await trio.testing.wait_all_tasks_blocked(0.01)
        reply = await (await server.connect()).ask(big + b"{")
        assert (reply.status, reply.json()["code"]) == (503, "overloaded")
        assert "retry-after" in reply.headers
        first.stream.socket.close()
        while server.services.guards.bodies.held_bytes:
            await trio.testing.wait_all_tasks_blocked(0.01)


class TestRates:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"rate_limit_rps": 5, "auth_failures_per_minute": 3}

    async def test_a_token_that_calls_too_fast_is_told_when_to_come_back(self, server: Server) -> None:
        with trio.fail_after(10):
            client = await server.connect()
            replies = [await client.ask(request(body=ECHO)) for _ in range(30)]
            other = await client.ask(request(body=ECHO, token=TOKENS[Role.DEPLOYER]))

        assert [reply.status for reply in replies[:5]] == [200] * 5
        assert replies[-1].status == 429
        assert replies[-1].json()["code"] == "rate_limited"
        assert int(replies[-1].headers["retry-after"]) >= 1
        assert other.status == 200, "each token has its own rate"

    async def test_guessing_tokens_is_limited_and_a_valid_token_still_passes(self, server: Server) -> None:
        with trio.fail_after(10):
            client = await server.connect()
            statuses = [(await client.ask(request(body=ECHO, token=f"guess-{n}"))).status for n in range(6)]
            assert (await client.ask(request(body=ECHO))).status == 200

        assert statuses == [401, 401, 401, 429, 429, 429]
