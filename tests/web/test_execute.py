"""`POST /mcp/{ref}/execute`: reading a call, and the whole way of it through both doors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.errors import InvalidRequest, MalformedJson
from controlplane.model import Role
from controlplane.web.execute import Call, parse_call
from tests.web.fakes import MEMORY_ID, TOKENS, memory, request
from tests.web.test_request import MALFORMED

if TYPE_CHECKING:
    from tests.web.fakes import Server

ECHO = b'{"method":"echo","params":{"text":"hello"}}'


def parse(body: bytes) -> Call:
    return parse_call(body, max_timeout_s=300)


def wrong_places(body: bytes) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    return sorted(error.pointer for error in caught.value.errors)


# -- reading


def test_params_stay_the_bytes_that_were_sent() -> None:
    params = b'{"a": 1.10, "b": 1e999, "c": -0, "\\u00e9": [9223372036854775808], "a": 2}'

    assert parse(b'{"params": ' + params + b', "method": "tools/call"}') == Call("tools/call", params, None)


def test_params_are_handed_on_as_one_line() -> None:
    call = parse(b'{"method": "m", "params": {\r\n  "text":\n "a\\nb"\n}}')

    assert call.params is not None
    assert b"\n" not in call.params
    assert b"\r" not in call.params
    assert json.loads(call.params) == {"text": "a\nb"}


@pytest.mark.parametrize("body", [b'{"method":"m"}', b'{"method":"m","params":null,"timeout_s":null}'])
def test_params_and_time_limit_may_be_absent(body: bytes) -> None:
    assert parse(body) == Call("m", None, None)


@pytest.mark.parametrize(("number", "seconds"), [(b"1", 1.0), (b"0.5", 0.5), (b"300", 300.0)])
def test_a_time_limit_is_a_number_of_seconds(number: bytes, seconds: float) -> None:
    assert parse(b'{"method":"m","timeout_s":' + number + b"}").timeout_s == seconds


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"{}", ["/method"]),
        (b'{"method":null}', ["/method"]),
        (b'{"method":1}', ["/method"]),
        (b'{"method":["a"]}', ["/method"]),
        (b'{"method":""}', ["/method"]),
        (b'{"method":"a\\nb"}', ["/method"]),
        (b'{"method":"a\\r"}', ["/method"]),
        (b'{"method":"a\\u0000b"}', ["/method"]),
        (b'{"method":"a\\u2028b"}', ["/method"]),
        (b'{"method":"' + b"a" * 257 + b'"}', ["/method"]),
        (b'{"method":"m","params":"x"}', ["/params"]),
        (b'{"method":"m","params":[1]}', ["/params"]),
        (b'{"method":"m","params":0}', ["/params"]),
        (b'{"method":"m","params":false}', ["/params"]),
        (b'{"method":"m","timeout_s":0}', ["/timeout_s"]),
        (b'{"method":"m","timeout_s":-1}', ["/timeout_s"]),
        (b'{"method":"m","timeout_s":300.1}', ["/timeout_s"]),
        (b'{"method":"m","timeout_s":1e99}', ["/timeout_s"]),
        (b'{"method":"m","timeout_s":"5"}', ["/timeout_s"]),
        (b'{"method":"m","timeout_s":true}', ["/timeout_s"]),
        (b'{"method":"m","id":1}', ["/id"]),
        (b'{"method":"m","jsonrpc":"2.0"}', ["/jsonrpc"]),
        (b'{"method":"m","a/b~c":1}', ["/a~1b~0c"]),
        (b'{"methd":"m","params":3,"timeout_s":[]}', ["/methd", "/method", "/params", "/timeout_s"]),
    ],
)
def test_all_wrong_places_are_named_at_once(body: bytes, pointers: list[str]) -> None:
    assert wrong_places(body) == pointers


def test_a_typing_mistake_is_named_with_what_was_probably_meant() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(b'{"method":"m","timeout":5}')

    assert [error.message for error in caught.value.errors] == ["unknown field; did you mean timeout_s?"]


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse(body)


# -- through both doors


async def ask(server: Server, data: bytes) -> Any:
    with trio.fail_after(10):
        client = await server.connect()
        return await client.ask(data)


@pytest.mark.parametrize("ref", ["memory", str(MEMORY_ID)])
async def test_a_call_is_answered_with_the_servers_own_result(server: Server, ref: str) -> None:
    reply = await ask(server, request(path=f"/mcp/{ref}/execute", body=ECHO, X_Request_Id="mine"))

    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"] == "mine"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "date" in reply.headers
    assert "server" not in reply.headers
    answer = reply.json()
    assert isinstance(answer.pop("id"), int)
    assert answer == {"jsonrpc": "2.0", "result": {"text": "hello"}}


async def test_a_servers_error_is_an_answer_too(server: Server) -> None:
    reply = await ask(server, request(body=b'{"method":"refuse"}'))

    assert reply.status == 200
    assert reply.json()["error"] == {"code": -32601, "message": "Method not found"}


async def test_what_the_server_gets_is_what_was_sent(server: Server) -> None:
    body = (
        b'{"method":"echo","params":{"n":1.10,"big":123456789012345678901234567890,"_meta":{"x":null}},"timeout_s":7}'
    )

    await ask(server, request(body=body))

    params = b'{"n":1.10,"big":123456789012345678901234567890,"_meta":{"x":null}}'
    assert memory(server.services).calls == [("echo", params, 7.0)]


@pytest.mark.parametrize(
    ("method", "status", "code"),
    [
        ("bug", 500, "internal"),
        ("os_error", 500, "internal"),
        ("crash", 502, "bad_child_message"),
        ("stopped", 409, "not_running"),
        ("backoff", 503, "instance_unavailable"),
    ],
)
async def test_the_platforms_own_failures_are_problems(server: Server, method: str, status: int, code: str) -> None:
    reply = await ask(server, request(body=b'{"method":"%b"}' % method.encode()))

    problem = reply.json()
    assert reply.status == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert (problem["code"], problem["status"], problem["type"]) == (code, status, f"/problems/{code}")
    assert problem["request_id"] == reply.headers["x-request-id"]
    assert b"/internal/path" not in reply.body


async def test_a_failure_carries_its_evidence_and_when_to_come_back(server: Server) -> None:
    reply = await ask(server, request(body=b'{"method":"backoff"}'))

    assert reply.headers["retry-after"] == "3"
    assert (reply.json()["phase"], reply.json()["exit_code"]) == ("serve", 3)


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_body_is_a_400_and_the_connection_goes_on(server: Server, body: bytes) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        reply = await client.ask(request(body=body))
        assert (reply.status, reply.json()["code"]) == (400, "malformed_json")
        assert (await client.ask(request(body=ECHO))).status == 200
    assert len(memory(server.services).calls) == 1


async def test_wrong_members_are_a_422_that_names_them(server: Server) -> None:
    reply = await ask(server, request(body=b'{"method":"a\\nb","extra":1}'))

    assert reply.status == 422
    assert {error["pointer"] for error in reply.json()["errors"]} == {"/method", "/extra"}
    assert memory(server.services).calls == []


@pytest.mark.parametrize("ref", ["nothing", "files", "bob/files", "11111111-2222-3333-4444-555555555556", "%00"])
async def test_what_does_not_exist_and_what_is_somebody_elses_look_the_same(server: Server, ref: str) -> None:
    reply = await ask(server, request(path=f"/mcp/{ref}/execute", body=ECHO))

    problem = reply.json()
    assert (reply.status, problem["code"], problem["detail"]) == (404, "not_found", "There is no such instance.")


@pytest.mark.parametrize("ref", ["bob/files", "bob%2Ffiles"])
async def test_an_administrator_names_the_owner_too(server: Server, ref: str) -> None:
    reply = await ask(server, request(path=f"/mcp/{ref}/execute", body=ECHO, token=TOKENS[Role.ADMIN]))

    assert reply.status == 200


async def test_pipelined_calls_are_answered_in_their_order(server: Server) -> None:
    calls = b"".join(request(body=b'{"method":"echo","params":{"n":%d}}' % n) for n in range(50))

    with trio.fail_after(10):
        client = await server.connect()
        await client.send(calls)
        numbers = [(await client.reply()).json()["result"]["n"] for _ in range(50)]

    assert numbers == list(range(50))


async def test_a_request_may_come_byte_by_byte(server: Server) -> None:
    with trio.fail_after(20):
        client = await server.connect()
        for byte in request(body=ECHO):
            await client.send(bytes([byte]))
        assert (await client.reply()).status == 200


async def test_a_large_body_and_a_large_answer_pass_whole(server: Server) -> None:
    text = b"x" * (4 * 2**20)
    with trio.fail_after(20):
        client = await server.connect()
        reply = await client.ask(request(body=b'{"method":"echo","params":{"text":"%b"}}' % text))
        assert len(reply.json()["result"]["text"]) == len(text)
        big = await client.ask(request(body=b'{"method":"big","params":{"size":8000000}}'))
        assert len(big.json()["result"]) == 8_000_000
        assert (await client.ask(request(body=ECHO))).status == 200


async def test_an_interleaving_of_both_doors_on_one_connection_works(server: Server) -> None:
    """After anything that is not plain, the connection stays with Hypercorn, and calls still work."""
    with trio.fail_after(10):
        client = await server.connect()
        assert (await client.ask(request(body=ECHO))).status == 200
        assert (await client.ask(request("GET", "/health", token=None))).body == b"fine"
        assert (await client.ask(request(body=ECHO))).status == 200


async def test_a_pipelined_request_that_is_not_plain_is_handed_over_with_what_follows(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request(body=ECHO) + request("GET", "/health", token=None) + request(body=ECHO))
        statuses = [(await client.reply()).status for _ in range(3)]
    assert statuses == [200, 200, 200]


async def test_a_chunked_call_is_answered(server: Server) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(ECHO), ECHO)
    data = request(content_type=None, Content_Type="application/json", Transfer_Encoding="chunked") + chunks

    assert (await ask(server, data)).status == 200


async def test_expect_continue_is_answered_before_the_body_is_sent(server: Server) -> None:
    head, _, body = request(body=ECHO, Expect="100-continue").partition(b"\r\n\r\n")
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(head + b"\r\n\r\n")
        assert (await client.stream.receive_some(1000)).startswith(b"HTTP/1.1 100")
        assert (await client.ask(body)).status == 200


async def test_connection_close_is_heeded(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        reply = await client.ask(request(body=ECHO, Connection="close"))
        assert reply.headers["connection"] == "close"
        assert await client.is_closed()


async def test_while_the_control_plane_stops_no_new_call_is_taken(server: Server) -> None:
    server.services.stopping = True

    reply = await ask(server, request(body=ECHO))

    assert (reply.status, reply.json()["code"]) == (503, "shutting_down")
    assert "retry-after" in reply.headers


# -- progress before the answer


async def events_of(server: Server, body: bytes) -> list[str]:
    reply = await ask(server, request(body=body, Accept="text/event-stream"))
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["x-accel-buffering"] == "no"
    return reply.body.decode().removesuffix("\n\n").split("\n\n")


async def test_who_asks_for_events_gets_notifications_before_the_answer(server: Server) -> None:
    events = [json.loads(event.removeprefix("data: ")) for event in await events_of(server, b'{"method":"notify"}')]

    assert [event.get("method") for event in events] == ["notifications/progress"] * 3 + [None]
    assert [event["params"]["progress"] for event in events[:3]] == [0, 1, 2]
    assert events[-1]["result"] is None


async def test_a_call_that_fails_before_it_said_anything_is_a_plain_problem(server: Server) -> None:
    reply = await ask(server, request(body=b'{"method":"crash"}', Accept="text/event-stream"))

    assert (reply.status, reply.headers["content-type"]) == (502, "application/problem+json")


async def test_a_call_that_fails_later_ends_with_a_problem_event(server: Server) -> None:
    events = await events_of(server, b'{"method":"notify_crash"}')

    assert events[-1].startswith("event: problem\ndata: ")
    assert json.loads(events[-1].split("data: ")[1])["code"] == "bad_child_message"


async def test_a_silent_call_keeps_its_event_stream_alive(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.web.asgi_routes.KEEPALIVE_S", 0.05)
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request(body=b'{"method":"wait"}', Accept="text/event-stream"))
        seen = b""
        while b": still waiting\n\n" not in seen:
            seen += await client.stream.receive_some(1000)
        memory(server.services).release.set()
        while b'"result":"waited"' not in seen:
            seen += await client.stream.receive_some(1000)


async def test_an_accept_that_fits_nothing_is_a_406(server: Server) -> None:
    assert (await ask(server, request(body=ECHO, Accept="text/html"))).status == 406
