"""`corral proxy` in front of a scripted endpoint: what goes over HTTP, and what the client gets to read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading

import pytest
from attrs import evolve

from tests.cli.fake_api import FakeApi, Reply, document, problem
from tests.cli.stdio_proxy import ENVELOPE, HANDSHAKE, Proxy
from tests.cli.terminal import COMMAND, TIMEOUT_S, environment

ENDPOINT = "/mcp/memory"
POST, GET, DELETE = f"POST {ENDPOINT}", f"GET {ENDPOINT}", f"DELETE {ENDPOINT}"
SESSION = {"Mcp-Session-Id": "s-1"}
ACCEPTED = Reply(202, b"")
NO_STREAM = Reply(405, b"", headers={"Allow": "POST, DELETE"})


def result(id_, **members):
    return {"jsonrpc": "2.0", "id": id_, "result": members}


def server(session="s-1", id_=0, **capabilities):
    """The answer to an initialize."""
    info = {"name": "peer", "version": "1"}
    found = result(id_, protocolVersion="2025-11-25", capabilities=capabilities, serverInfo=info)
    return document(found, headers={"Mcp-Session-Id": session} if session else {})


def events(*messages, gate=None, prime=True, **more):
    """A stream with these messages; with a prime event in front, as a resumable one has."""
    frames = [b"id: 1-0\ndata: \n\n"] if prime else []
    frames += [
        (b"id: 1-%d\n" % at if prime else b"") + b"data: " + json.dumps(message).encode() + b"\n\n"
        for at, message in enumerate(messages, 1)
    ]
    return Reply(200, b"".join(frames), "text/event-stream", gate=gate, **more)


@pytest.fixture
def proxy(api):
    api.on(GET, NO_STREAM)
    api.on(DELETE, Reply(200, b""))
    with Proxy(api.url) as started:
        yield started


def methods(api):
    return [asked.json.get("method") for asked in api.asked_for(POST)]


# --- the modern era


def test_a_modern_request_goes_out_as_it_is_with_the_fields_that_belong_to_it(api, proxy):
    api.on(POST, document(result(1, resultType="complete")))
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"_meta": ENVELOPE, "name": "Zoë"}})
    proxy.write(line.replace(": ", " :  ").encode())
    assert proxy.message() == result(1, resultType="complete")
    (asked,) = api.asked_for(POST)
    assert asked.body == line.replace(": ", " :  ").encode()
    assert asked.headers["mcp-protocol-version"] == "2026-07-28"
    assert asked.headers["mcp-method"] == "tools/call"
    assert asked.headers["mcp-name"] == "=?base64?Wm/Dqw==?="
    assert asked.headers["accept"] == "application/json, text/event-stream"
    assert "mcp-session-id" not in asked.headers


def test_marked_arguments_are_repeated_once_the_tools_were_listed(api, proxy):
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    api.on(POST, document(result(1, tools=[{"name": "t", "inputSchema": schema}])), document(result(2)))
    proxy.modern("tools/list", 1)
    proxy.message()
    proxy.modern("tools/call", 2, name="t", arguments={"region": "eu"})
    proxy.message()
    assert api.asked_for(POST)[1].headers["mcp-param-region"] == "eu"


def test_a_call_refused_for_its_fields_is_made_again_with_what_the_tools_say(api, proxy):
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    mismatch = {"jsonrpc": "2.0", "id": 7, "error": {"code": -32020, "message": "Mcp-Param-Region is missing"}}
    pages = [
        document(result("corral-proxy", tools=[], nextCursor="next")),
        document(result("corral-proxy", tools=[{"name": "t", "inputSchema": schema}])),
    ]
    api.on(POST, document(mismatch, 400), *pages, document(result(7)))
    proxy.modern("tools/call", 7, name="t", arguments={"region": "eu"})
    assert proxy.message() == result(7)
    assert methods(api) == ["tools/call", "tools/list", "tools/list", "tools/call"]
    assert api.asked_for(POST)[2].json["params"] == {"_meta": ENVELOPE, "cursor": "next"}
    assert api.asked_for(POST)[3].headers["mcp-param-region"] == "eu"


def test_a_call_that_stays_refused_is_not_made_a_third_time(api, proxy):
    mismatch = {"jsonrpc": "2.0", "id": 7, "error": {"code": -32020, "message": "no"}}
    api.on(POST, document(mismatch, 400), document(result("corral-proxy", tools=[])), document(mismatch, 400))
    proxy.modern("tools/call", 7, name="t")
    assert proxy.message() == mismatch
    assert len(api.asked_for(POST)) == 3


def test_a_modern_cancellation_closes_the_answer_and_is_not_sent(api, proxy):
    gate = threading.Event()
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
    api.on(POST, events(note, gate=gate, prime=False), document(result(2)))
    proxy.modern("tools/call", 1, name="slow")
    assert proxy.message() == note
    proxy.send("notifications/cancelled", {"requestId": 1})
    proxy.modern("tools/list", 2)
    assert proxy.message() == result(2)
    gate.set()
    assert methods(api) == ["tools/call", "tools/list"]


def test_a_stream_without_ids_that_breaks_is_an_error_at_once(api, proxy):
    api.on(POST, events(prime=False))
    proxy.modern("tools/call", 1, name="t")
    error = proxy.message()
    assert (error["id"], error["error"]["code"]) == (1, -32603)
    assert "ended its answer before there was one" in error["error"]["message"]
    assert api.asked_for(GET) == []


def test_what_is_listened_to_stays_open_and_does_not_hold_the_end_up(api, proxy):
    gate = threading.Event()
    note = {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {}}
    api.on(POST, events(note, gate=gate, prime=False), document(result(2)))
    proxy.modern("subscriptions/listen", 1, notifications={})
    assert proxy.message() == note
    proxy.modern("tools/list", 2)
    assert proxy.message() == result(2)
    proxy.close_input()
    assert proxy.end() == (0, "")
    gate.set()


# --- the legacy era


def test_a_session_is_kept_from_initialize_to_the_end(api, proxy):
    api.on(POST, server(), ACCEPTED, document(result(1)))
    assert proxy.shake_hands()["result"]["serverInfo"]["name"] == "peer"
    assert proxy.ask("tools/list") == result(1)
    first, *others = api.asked_for(POST)
    assert "mcp-session-id" not in first.headers
    assert "mcp-protocol-version" not in first.headers
    assert [asked.headers["mcp-session-id"] for asked in others] == ["s-1", "s-1"]
    assert others[1].headers["mcp-protocol-version"] == "2025-11-25"
    assert api.wait_for(GET).headers["mcp-session-id"] == "s-1"
    proxy.close_input()
    assert proxy.end() == (0, "")
    assert api.asked_for(DELETE)[0].headers["mcp-session-id"] == "s-1"


def test_without_a_session_nothing_is_listened_to_and_nothing_deleted(api, proxy):
    api.on(POST, server(session=None), ACCEPTED, document(result(1)))
    proxy.shake_hands()
    proxy.ask("tools/list")
    proxy.close_input()
    assert proxy.end() == (0, "")
    assert api.asked_for(GET) == api.asked_for(DELETE) == []


def test_what_the_server_asks_reaches_the_client_and_the_answer_the_server(api, proxy):
    gate = threading.Event()
    question = {"jsonrpc": "2.0", "id": "q-1", "method": "sampling/createMessage", "params": {"messages": []}}
    last = b"id: 1-2\ndata: " + json.dumps(result(1)).encode() + b"\n\n"
    api.on(POST, server(), ACCEPTED, events(question, gate=gate, last=last), ACCEPTED)
    proxy.shake_hands()
    proxy.send("tools/call", {"name": "t"}, 1)
    assert proxy.message() == question
    proxy.write(json.dumps(result("q-1", model="m")).encode())
    assert api.wait_for(POST, 4).json == result("q-1", model="m")
    gate.set()
    assert proxy.message() == result(1)


def test_what_the_server_says_first_comes_by_the_stream_that_is_listened_to(api, proxy):
    change = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    api.on(POST, server(), ACCEPTED)
    api.on(GET, events(change), NO_STREAM)
    proxy.shake_hands()
    assert proxy.message() == change
    assert api.wait_for(GET, 2).headers["last-event-id"] == "1-1"


def test_an_answer_whose_stream_breaks_is_taken_up_by_the_last_event(api, proxy):
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}
    api.on(POST, server(session="s-1"), ACCEPTED, events(note, headers={}))
    api.on(GET, NO_STREAM, events(prime=True), events(result(1)))
    proxy.shake_hands()
    api.wait_for(GET)
    proxy.send("tools/call", {"name": "t"}, 1)
    assert proxy.message() == note
    assert proxy.message() == result(1)
    assert [asked.headers.get("last-event-id") for asked in api.asked_for(GET)] == [None, "1-1", "1-0"]
    assert methods(api).count("tools/call") == 1


def test_an_answer_that_cannot_be_taken_up_any_more_is_an_error(api, proxy):
    api.on(POST, server(), ACCEPTED, events())
    api.on(GET, NO_STREAM, problem(404, "not_found"))
    proxy.shake_hands()
    api.wait_for(GET)
    error = proxy.ask("tools/call", {"name": "t"})
    assert error["error"]["message"].startswith("title of not_found")


def test_a_legacy_cancellation_is_sent_and_no_answer_follows(api, proxy):
    gate = threading.Event()
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}
    api.on(POST, server(), ACCEPTED, events(note, gate=gate), ACCEPTED, document(result(2)))
    proxy.shake_hands()
    proxy.send("tools/call", {"name": "slow"}, 1)
    assert proxy.message() == note
    proxy.send("notifications/cancelled", {"requestId": 1, "reason": "enough"})
    assert proxy.ask("tools/list", id_=2) == result(2)
    assert methods(api)[3:] == ["notifications/cancelled", "tools/list"]
    gate.set()


def test_a_batch_is_passed_and_answered_whole(api, proxy):
    api.on(POST, server(), ACCEPTED, Reply(200, json.dumps([result(1), result(2)]).encode()))
    proxy.shake_hands()
    proxy.write(b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]')
    assert proxy.message() == [result(1), result(2)]


# --- sessions that ended


def test_a_session_that_ended_is_begun_anew_and_the_request_made_again(api, proxy):
    ended = document({"jsonrpc": "2.0", "id": None, "error": {"code": -32001, "message": "no such session"}}, 404)
    tools = {"listChanged": True}
    ready = [server(tools=tools), ACCEPTED, document(result(1)), document(result(2))]
    anew = [ended, server("s-2", tools=tools), ACCEPTED, document(result(1)), document(result(2)), document(result(3))]
    api.on(POST, *ready, *anew)
    proxy.shake_hands()
    proxy.ask("logging/setLevel", {"level": "info"}, 1)
    proxy.ask("resources/subscribe", {"uri": "a"}, 2)
    proxy.send("tools/call", {"name": "t"}, 3)
    assert proxy.message()["method"] == "notifications/tools/list_changed"
    assert proxy.message() == result(3)
    again = api.asked_for(POST)[4:]
    assert [asked.json["method"] for asked in again] == [
        "tools/call",
        "initialize",
        "notifications/initialized",
        "logging/setLevel",
        "resources/subscribe",
        "tools/call",
    ]
    assert again[1].json["params"] == HANDSHAKE
    assert [asked.headers.get("mcp-session-id") for asked in again] == ["s-1", None, *["s-2"] * 4]
    proxy.close_input()
    assert proxy.end() == (0, "corral proxy: the session had ended; it was begun anew\n")
    assert api.asked_for(DELETE)[0].headers["mcp-session-id"] == "s-2"


def test_a_session_that_ends_while_the_client_is_silent_is_begun_anew_as_well(api, proxy):
    change = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    api.on(POST, server(), ACCEPTED, server("s-2"), ACCEPTED)
    api.on(GET, problem(404, "not_found"), events(change), NO_STREAM)
    proxy.shake_hands()
    assert proxy.message() == change
    assert [asked.headers["mcp-session-id"] for asked in api.asked_for(GET)][:2] == ["s-1", "s-2"]


def test_a_session_with_a_server_that_is_another_now_is_not_begun_anew_behind_the_clients_back(api, proxy):
    ended = problem(404, "not_found")
    api.on(POST, server(tools={}), ACCEPTED, ended, server("s-2", prompts={}))
    proxy.shake_hands()
    error = proxy.ask("tools/list")["error"]
    assert error["message"].startswith("The session has ended: the server is not what it was")
    assert "Restart this server in your client." in error["message"]


def test_an_instance_that_is_gone_is_told_as_such(api, proxy):
    api.on(POST, server(), ACCEPTED, problem(404, "not_found", hint="`corral ls` lists them."))
    proxy.shake_hands()
    for id_ in (1, 2):
        error = proxy.ask("tools/list", id_=id_)
        assert error["id"] == id_
        assert error["error"]["message"] == "title of not_found: detail of not_found. `corral ls` lists them."


# --- what goes wrong


@pytest.mark.parametrize("envelope", [{}, {"_meta": ENVELOPE}], ids=["legacy", "modern"])
def test_a_problem_becomes_an_error_that_says_what_to_do(api, proxy, envelope):
    api.on(POST, problem(503, "instance_unavailable", hint="It restarts."))
    error = proxy.ask("tools/list", envelope, "a")
    assert error["id"] == "a"
    assert error["error"] == {
        "code": -32603,
        "message": "title of instance_unavailable: detail of instance_unavailable. It restarts. Try again in 1 s.",
        "data": {"status": 503, "code": "instance_unavailable", "request_id": "req-1"},
    }


def test_an_error_of_the_protocol_passes_as_it_is_whatever_its_status(api, proxy):
    unknown = b'{"jsonrpc":"2.0", "id":5, "error":{"code":-32601,"message":"no \\ud83d", "data": 1e400}}'
    api.on(POST, Reply(404, unknown))
    proxy.modern("no/such", 5)
    assert proxy.line() == unknown + b"\n"


def test_a_wrong_token_is_told_with_where_it_came_from(api):
    with Proxy(api.url) as proxy:
        api.on(POST, problem(401, "unauthorized"))
        message = proxy.ask("tools/list")["error"]["message"]
    assert "The token came from CORRAL_URL and CORRAL_TOKEN." in message


def test_a_page_of_something_else_is_told_in_short(api, proxy):
    api.on(POST, Reply(502, b"<html>bad gateway</html>" * 100, "text/html"))
    message = proxy.ask("tools/list")["error"]["message"]
    assert message.startswith("HTTP 502: <html>bad gateway")
    assert len(message) < 400


def test_a_control_plane_that_is_away_is_told_to_each_request_until_it_is_back(api):
    api.close()
    with Proxy(api.url) as proxy:
        for id_ in (1, 2):
            error = proxy.ask("tools/list", id_=id_)
            assert error["id"] == id_
            assert error["error"]["message"].startswith(f"Cannot connect to {api.url}")
            assert "Start it with `corral up`." in error["error"]["message"]
        proxy.close_input()
        assert proxy.end()[0] == 0


def test_a_message_over_several_lines_is_put_on_one(api, proxy):
    api.on(POST, Reply(200, json.dumps(result(1, text="a\nb"), indent=2).encode()))
    assert proxy.ask("tools/list") == result(1, text="a\nb")


def test_numbers_and_spaces_pass_byte_for_byte_both_ways(api, proxy):
    there = b'{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"a","params":{"n":1.0E400,  "s":"\\ud83d"}}'
    back = b'{"jsonrpc":"2.0","id":123456789012345678901234567890,"result":{"n":-0.0,  "s":"\\ud83d"}}'
    api.on(POST, Reply(200, back))
    proxy.write(there)
    assert proxy.line() == back + b"\n"
    assert api.asked_for(POST)[0].body == there


@pytest.mark.parametrize("line", [b"nonsense", b"{}", b"\xff", b"[]"])
def test_a_line_that_is_no_message_is_answered_and_the_next_one_goes_on(api, proxy, line):
    api.on(POST, document(result(1)))
    proxy.write(line)
    assert proxy.message()["error"]["code"] == -32700
    proxy.write(b"")
    assert proxy.ask("tools/list") == result(1)


def test_a_line_that_is_too_long_is_answered_and_the_next_one_goes_on(api, proxy):
    api.on(POST, document(result(1)))
    proxy.write(b'{"pad":"' + b"x" * (17 * 1024 * 1024) + b'"}')
    assert proxy.message()["error"]["message"] == "The line is too long."
    assert proxy.ask("tools/list") == result(1)


@pytest.fixture
def api_in_turn(api):
    fake = FakeApi(in_turn=True)
    fake.on(GET, NO_STREAM)
    fake.on(DELETE, Reply(200, b""))
    yield fake
    fake.close()


def test_messages_leave_in_the_order_in_which_they_came(api_in_turn):
    api = api_in_turn
    api.on(POST, server(), *[ACCEPTED if at % 2 else document(result(at)) for at in range(1, 20)])
    with Proxy(api.url) as proxy:
        proxy.ask("initialize", HANDSHAKE, 0)
        for at in range(1, 20):
            proxy.send("notifications/roots/list_changed" if at % 2 else "ping", {"at": at}, None if at % 2 else at)
        api.wait_for(POST, 20)
    assert [asked.json["params"].get("at") for asked in api.asked_for(POST)][1:] == list(range(1, 20))


def test_what_is_written_right_after_an_initialize_belongs_to_its_session(api, proxy):
    gate = threading.Event()
    api.on(POST, evolve(server(), gate=gate), ACCEPTED, document(result(1)))
    proxy.send("initialize", HANDSHAKE, 0)
    proxy.send("notifications/initialized")
    proxy.send("tools/list", None, 1)
    api.wait_for(POST)
    gate.set()
    assert [proxy.message()["id"] for _ in range(2)] == [0, 1]
    assert [asked.headers.get("mcp-session-id") for asked in api.asked_for(POST)] == [None, "s-1", "s-1"]


# --- the end


def piped_in(api, stdin, **more):
    command = [*COMMAND, "proxy", "memory"]
    return subprocess.run(
        command, env=environment(api.url), capture_output=True, check=False, timeout=TIMEOUT_S, stdin=stdin, **more
    )


def test_a_file_of_messages_is_answered_before_the_end(api, tmp_path):
    api.on(POST, document(result(1)))
    (tmp_path / "in").write_bytes(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    with open(tmp_path / "in", "rb") as file:
        done = piped_in(api, file)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, result(1), b"")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_session_and_the_process(api, proxy, number, status):
    api.on(POST, server(), ACCEPTED)
    proxy.shake_hands()
    api.wait_for(POST, 2)
    proxy.signal(number)
    assert proxy.end() == (status, "")
    assert len(api.asked_for(DELETE)) == 1


def test_a_client_that_reads_no_more_ends_it(api):
    api.on(POST, document(result(1)))
    command = [*COMMAND, "proxy", "memory"]
    with subprocess.Popen(
        command, env=environment(api.url), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        process.stdin.flush()
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr.read() == b""


def test_a_call_without_an_answer_does_not_hold_the_end_up(api, proxy):
    gate = threading.Event()
    api.on(POST, events(gate=gate, prime=False))
    proxy.modern("tools/call", 1, name="slow")
    api.wait_for(POST)
    proxy.close_input()
    assert proxy.end()[0] == 0
    gate.set()


@pytest.mark.parametrize("ends", ["", "exec 0<&-; "], ids=["empty", "closed"])
def test_without_any_input_it_ends_at_once(api, ends):
    words = ["sh", "-c", ends + 'exec "$@"', "sh", *COMMAND, "proxy", "memory"]
    done = subprocess.run(
        words, env=environment(api.url), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_pipes_that_were_left_non_blocking_do(api):
    api.on(POST, Reply(200, json.dumps(result(1, text="x" * 1_000_000)).encode()))
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    for descriptor in (their_in, their_out):
        os.set_blocking(descriptor, False)
    with subprocess.Popen(
        [*COMMAND, "proxy", "memory"], env=environment(api.url), stdin=their_in, stdout=their_out
    ) as process:
        os.close(their_in)
        os.close(their_out)
        with open(our_out, "wb") as out, open(our_in, "rb") as back:
            out.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
            out.flush()
            assert json.loads(back.readline()) == result(1, text="x" * 1_000_000)
            out.close()
            assert process.wait(TIMEOUT_S) == 0


def test_a_wrong_url_is_wrong_usage(api):
    done = subprocess.run(
        [*COMMAND, "proxy", "memory"],
        env=environment("ftp://x"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"CORRAL_URL cannot be used" in done.stderr
