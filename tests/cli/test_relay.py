"""The pure parts of `corral proxy`: what is read of a message, and the fields that go with it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli.exits import Problem
from controlplane.cli.relay.fields import Marks, encoded, modern_fields
from controlplane.cli.relay.frame import answer, error, on_one_line, read
from controlplane.cli.relay.handshake import Handshake
from controlplane.cli.relay.pipes import Lines
from controlplane.cli.relay.problem import error_in, error_of, sentence

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def modern(method, **params):
    return read(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}).encode())


@pytest.mark.parametrize(
    ("line", "kind", "id_", "method"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', "request", b"1", "ping"),
        (b' {"jsonrpc":"2.0","id":"1","method":"ping"}\r', "request", b'"1"', "ping"),
        (b'{"id":12345678901234567890123,"method":"a"}', "request", b"12345678901234567890123", "a"),
        (b'{"jsonrpc":"2.0","method":"notifications/initialized"}', "notification", None, "notifications/initialized"),
        (b'{"jsonrpc":"2.0","id":7,"result":{}}', "response", b"7", None),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700}}', "response", b"null", None),
        (b'{"id":1,"method":"a","params":{"t":"\\ud83d"}}', "request", b"1", "a"),
        (b'{"id":1,"method":"a","params":[1]}', "request", b"1", "a"),
    ],
)
def test_what_a_line_is(line, kind, id_, method):
    frame = read(line)
    assert (frame.kind, frame.id, frame.method) == (kind, id_, method)
    assert frame.raw == line.strip()
    assert not frame.is_modern


@pytest.mark.parametrize(
    "line",
    [b"", b"nonsense", b"1", b"null", b"{}", b"[]", b"[1]", b'{"id":1}', b"{", b'{"method":1}', b"\xff", b"[" * 99_999],
)
def test_what_is_no_message(line):
    assert read(line) is None


def test_a_batch_knows_what_it_asks_and_answers():
    batch = read(b'[{"id":1,"method":"a"},{"method":"b"},{"id":"x","result":1},{"id":2,"method":"c"}]')
    assert (batch.kind, batch.asks, batch.answers) == ("batch", (b"1", b"2"), (b'"x"',))


def test_the_era_is_what_the_message_says_but_an_initialize_is_always_legacy():
    assert modern("tools/list").version == "2026-07-28"
    assert not modern("initialize").is_modern
    assert not read(b'{"id":1,"method":"a","params":{"_meta":{"progressToken":1}}}').is_modern


@given(st.binary(max_size=200))
def test_no_line_raises(line):
    frame = read(line)
    assert frame is None or frame.raw == line.strip()


@pytest.mark.parametrize(
    ("frame", "fields"),
    [
        (modern("tools/call", name="add"), {"Mcp-Method": "tools/call", "Mcp-Name": "add"}),
        (modern("prompts/get", name="p"), {"Mcp-Method": "prompts/get", "Mcp-Name": "p"}),
        (modern("resources/read", uri="test://a"), {"Mcp-Method": "resources/read", "Mcp-Name": "test://a"}),
        (modern("tasks/get", taskId="t"), {"Mcp-Method": "tasks/get", "Mcp-Name": "t"}),
        (modern("tools/list", name="x"), {"Mcp-Method": "tools/list"}),
        (modern("tools/call", name="Zoë"), {"Mcp-Method": "tools/call", "Mcp-Name": "=?base64?Wm/Dqw==?="}),
        (modern("tools/call", name=7), {"Mcp-Method": "tools/call"}),
    ],
)
def test_the_fields_of_a_modern_message(frame, fields):
    assert modern_fields(frame) == {"MCP-Protocol-Version": "2026-07-28", **fields}


@given(st.text())
def test_any_text_becomes_a_value_that_a_field_can_carry(text):
    if any("\ud800" <= character <= "\udfff" for character in text):
        return
    value = encoded(text)
    assert value.isascii()
    assert value == value.strip()
    assert value.isprintable()
    if value.startswith("=?base64?"):
        assert base64.b64decode(value.removeprefix("=?base64?").removesuffix("?=")).decode() == text
    else:
        assert value == text


def tool(name, **properties):
    return {"name": name, "inputSchema": {"type": "object", "properties": properties}}


def marked(token, kind="string", **more):
    return {"type": kind, "x-mcp-header": token, **more}


def test_marked_arguments_become_fields():
    marks = Marks()
    below = {"type": "object", "properties": {"id": marked("Tenant", "integer")}}
    listed = tool("t", region=marked("Region"), dry=marked("Dry", "boolean"), who=below, plain={"type": "string"})
    marks.learn({"tools": [listed]}, first_page=True)

    def fields(**arguments):
        return marks.fields(modern("tools/call", name="t", arguments=arguments))

    assert fields(region="eu", dry=True, who={"id": 42}, plain="x") == {
        "Mcp-Param-Region": "eu",
        "Mcp-Param-Dry": "true",
        "Mcp-Param-Tenant": "42",
    }
    assert fields(region=None, who={}) == {}
    assert fields(region="Zürich") == {"Mcp-Param-Region": "=?base64?WsO8cmljaA==?="}
    assert marks.fields(modern("tools/call", name="other", arguments={"region": "eu"})) == {}
    assert marks.fields(modern("prompts/get", name="t", arguments={"region": "eu"})) == {}


@pytest.mark.parametrize(
    "listed",
    [
        tool("t", a=marked("A", "number")),
        tool("t", a=marked("A B")),
        tool("t", a=marked(7)),
        tool("t", a=marked("Same"), b=marked("same")),
        {"name": "t", "inputSchema": []},
        {"name": "t"},
    ],
)
def test_a_tool_with_a_wrong_mark_has_none(listed):
    marks = Marks()
    marks.learn({"tools": [listed]}, first_page=True)
    assert marks.fields(modern("tools/call", name="t", arguments={"a": "1", "b": "2"})) == {}


def test_a_first_page_forgets_what_was_listed_before_and_a_later_one_does_not():
    marks = Marks()
    call = modern("tools/call", name="t", arguments={"a": "1"})
    marks.learn({"tools": [tool("t", a=marked("A"))]}, first_page=True)
    marks.learn({"tools": [tool("u")]}, first_page=False)
    assert marks.fields(call) == {"Mcp-Param-A": "1"}
    marks.learn({"tools": [tool("u")]}, first_page=True)
    assert marks.fields(call) == {}


@pytest.mark.parametrize("result", [None, [], {}, {"tools": 1}, {"tools": [1, {"name": 2}]}])
def test_a_listing_of_another_shape_is_taken_for_an_empty_one(result):
    marks = Marks()
    marks.learn(result, first_page=True)
    assert marks.fields(modern("tools/call", name="t", arguments={})) == {}


INITIALIZE = read(b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}')


def initialized(version="2025-11-25", **capabilities):
    result = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": {"name": "x", "version": "1"}}
    return answer(b"0", b'"result":' + json.dumps(result).encode())


def request(number, method, **params):
    return read(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())


def test_a_session_is_begun_anew_only_with_a_server_that_is_what_it_was():
    session = Handshake.of(INITIALIZE, initialized(tools={}), "one")
    assert session.fields == {"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": "one"}
    assert session.renewed(initialized(tools={}), "two").session_id == "two"
    assert session.renewed(initialized(tools={}, prompts={}), "two") is None
    assert session.renewed(initialized("2025-06-18", tools={}), "two") is None
    assert session.renewed(error(b"0", -32603, "no"), None) is None
    assert Handshake.of(INITIALIZE, error(b"0", -32603, "no"), None) is None


@pytest.mark.parametrize("session_id", ["", "Zoë", "a\nb"])
def test_what_no_field_can_carry_is_no_session(session_id):
    session = Handshake.of(INITIALIZE, initialized("Zoë"), session_id)
    assert session.fields == {"MCP-Protocol-Version": "=?base64?Wm/Dqw==?="}


def test_what_set_a_session_up_is_said_again_and_nothing_else():
    session = Handshake.of(INITIALIZE, initialized(), "one")
    session.initialized = read(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
    frames = [
        request(1, "logging/setLevel", level="info"),
        request(2, "resources/subscribe", uri="a"),
        request(3, "tools/call", name="t"),
        request(4, "resources/subscribe", uri="b"),
        request(5, "logging/setLevel", level="error"),
        request(6, "resources/unsubscribe", uri="a"),
    ]
    for frame in frames:
        session.note(frame)
    again = session.renewed(initialized(), "two")
    assert list(again.said()) == [session.initialized, frames[4], frames[3]]


def test_the_client_is_told_to_look_again_where_the_server_would_have_told_it():
    session = Handshake.of(INITIALIZE, initialized(tools={"listChanged": True}, prompts={}, resources=1), "one")
    assert [json.loads(change)["method"] for change in session.changes()] == ["notifications/tools/list_changed"]


@given(chunks=st.lists(st.binary(max_size=12), max_size=12))
def test_lines_do_not_depend_on_how_they_are_cut(chunks):
    whole, cut = Lines(max_bytes=8), Lines(max_bytes=8)
    together = whole.feed(b"".join(chunks)) + whole.end()
    assert [line for chunk in chunks for line in cut.feed(chunk)] + cut.end() == together
    wanted = b"".join(chunks).split(b"\n")
    wanted = wanted if wanted[-1] else wanted[:-1]
    assert together == [line if len(line) <= 8 else None for line in wanted]


def test_a_message_is_put_on_one_line_and_otherwise_stays():
    pretty = b'{\r\n  "a": "x\\ny"\n}\n'
    assert b"\n" not in on_one_line(pretty)
    assert json.loads(on_one_line(pretty)) == {"a": "x\ny"}
    assert on_one_line(b'{"a":  1.0}') == b'{"a":  1.0}'


def test_a_problem_is_one_sentence_with_what_to_do():
    problem = Problem(
        title="Not found", detail="there is no instance", hint="Look with ls.", status=404, code="not_found"
    )
    assert sentence(problem) == "Not found: there is no instance. Look with ls."
    error_ = json.loads(error_of(b'"a"', problem))
    assert (error_["id"], error_["error"]["code"]) == ("a", -32603)
    assert error_["error"]["data"] == {"status": 404, "code": "not_found"}


def test_an_error_of_the_endpoints_keeps_its_bytes_and_gets_the_requests_id():
    body = b'{"jsonrpc": "2.0", "id": 7, "error": {"code": -32601, "message": "no"}}'
    assert error_in(b"7", body) == body
    assert json.loads(error_in(b"8", body.replace(b"7", b"null"))) == {**json.loads(body), "id": 8}
    assert error_in(b"8", b'{"title": "x", "error": 1}') is None
    assert error_in(b"8", b"<html>") is None
