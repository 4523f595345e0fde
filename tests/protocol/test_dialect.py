"""What calls look like in each era, and that callers' values pass through as they were written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.jsonrpc import Response, parse
from controlplane.protocol import dialect
from controlplane.protocol.handshake import Era, ProtocolFacts, modern_meta

ODD_VALUES = b'{"a":-0,"b":1e308,"c":9223372036854775808,"d":1.0,"e":[1E2 , "\\ud83d"],"f":0.10}'
"""Decoding and encoding again would change most of these."""
ENVELOPE = modern_meta("1.2")
TOO_DEEP = b'{"_meta":{},"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"

ERAS = list(Era)


def outgoing(era: Era, params: bytes | None) -> bytes | None:
    return dialect.outgoing_params(era, params, "1.2")


# -- requests


@pytest.mark.parametrize("params", [None, b"{}", b"[1]", ODD_VALUES, b'{"_meta":{"x":1}}', b"null", TOO_DEEP])
def test_a_legacy_server_gets_the_callers_parameters_as_they_are(params: bytes | None) -> None:
    assert outgoing(Era.LEGACY, params) == params


@pytest.mark.parametrize(
    ("params", "rest"),
    [
        (None, {}),
        (b"{}", {}),
        (b" { } ", {}),
        (b"null", {}),
        (b'{"name":"x"}', {"name": "x"}),
        (b'{ "name" : "x" }', {"name": "x"}),
        (b'{"arguments":{"_meta":1}}', {"arguments": {"_meta": 1}}),
    ],
)
def test_a_modern_server_gets_the_envelope_in_every_request(params: bytes | None, rest: dict[str, Any]) -> None:
    assert json.loads(outgoing(Era.MODERN, params) or b"") == {"_meta": ENVELOPE, **rest}


@pytest.mark.parametrize("key", [b"_meta", b"\\u005fmeta"])
def test_a_callers_own_meta_is_kept_but_for_what_is_corrals(key: bytes) -> None:
    theirs = b'{"traceparent":"00-ab","n":1E2,"io.modelcontextprotocol/protocolVersion":"1999-01-01"}'

    params = outgoing(Era.MODERN, b'{"' + key + b'":' + theirs + b',"a":-0}')

    assert params is not None
    assert json.loads(params) == {"_meta": {"traceparent": "00-ab", "n": 100.0, **ENVELOPE}, "a": 0}
    assert b'"n":1E2' in params
    assert b'"a":-0' in params


@pytest.mark.parametrize("meta", [b"5", b"null", b"[]", b'"x"'])
def test_a_meta_that_is_no_object_is_replaced(meta: bytes) -> None:
    assert json.loads(outgoing(Era.MODERN, b'{"_meta":' + meta + b"}") or b"") == {"_meta": ENVELOPE}


def test_values_reach_a_modern_server_unchanged() -> None:
    for params in (ODD_VALUES, ODD_VALUES[:-1] + b',"_meta":{}}'):
        sent = outgoing(Era.MODERN, params) or b""
        for value in (b"-0", b"1e308", b"9223372036854775808", b"1.0", b'[1E2 , "\\ud83d"]', b"0.10"):
            assert b":" + value in sent


def test_a_bare_server_gets_no_meta_and_the_rest_unchanged() -> None:
    assert outgoing(Era.BARE, None) is None
    assert outgoing(Era.BARE, ODD_VALUES) == ODD_VALUES
    assert outgoing(Era.BARE, b'{"_meta":{"progressToken":1},"a":1E2}') == b'{"a":1E2}'
    assert outgoing(Era.BARE, b'{"a":{"_meta":1},"b":-0}') == b'{"a":{"_meta":1},"b":-0}'


@pytest.mark.parametrize("era", ERAS)
def test_parameters_by_position_pass_as_they_are(era: Era) -> None:
    assert outgoing(era, b'[1E2,"_meta"]') == b'[1E2,"_meta"]'


@pytest.mark.parametrize("era", ERAS)
def test_parameters_too_deep_to_read_are_the_servers_business(era: Era) -> None:
    sent = outgoing(era, TOO_DEEP)

    assert sent is not None
    assert sent.endswith(b"]" * 50_000 + b"}")
    assert sent.startswith(b'{"_meta":')


TEXT = st.text(st.characters(), max_size=8)
OBJECTS = st.dictionaries(
    TEXT, st.integers() | TEXT | st.lists(TEXT, max_size=2) | st.dictionaries(TEXT, TEXT, max_size=2)
)


@given(OBJECTS, st.sampled_from(ERAS), st.sampled_from([None, 2]))
def test_whatever_a_caller_sends_every_other_member_arrives(
    params: dict[str, Any], era: Era, indent: int | None
) -> None:
    sent = json.loads(outgoing(era, json.dumps(params, indent=indent).encode()) or b"")

    assert {name: value for name, value in sent.items() if name != "_meta"} == {
        name: value for name, value in params.items() if name != "_meta"
    }
    assert ("_meta" in sent) == (era is Era.MODERN or (era is Era.LEGACY and "_meta" in params))


# -- progress tokens


@pytest.mark.parametrize(
    ("params", "expected", "theirs"),
    [
        (None, {"_meta": {"progressToken": "corral-9"}}, None),
        (b"{}", {"_meta": {"progressToken": "corral-9"}}, None),
        (b'{"a":1}', {"a": 1, "_meta": {"progressToken": "corral-9"}}, None),
        (b'{"_meta":{"progressToken":7}}', {"_meta": {"progressToken": "corral-9"}}, b"7"),
        (b'{"_meta":{"progressToken":"7","x":1}}', {"_meta": {"progressToken": "corral-9", "x": 1}}, b'"7"'),
        (b'{"_meta":{"progressToken":1e3}}', {"_meta": {"progressToken": "corral-9"}}, b"1e3"),
        (b'{"_meta":5}', {"_meta": {"progressToken": "corral-9"}}, None),
    ],
)
def test_corrals_own_progress_token_goes_in_and_the_callers_comes_back(
    params: bytes | None, expected: dict[str, Any], theirs: bytes | None
) -> None:
    sent, token = dialect.with_progress_token(params, "corral-9")

    assert json.loads(sent or b"") == expected
    assert token == theirs


def test_a_progress_token_changes_nothing_else() -> None:
    sent, _ = dialect.with_progress_token(ODD_VALUES[:-1] + b',"_meta":{"n":-0}}', "corral-9")

    assert sent == ODD_VALUES[:-1] + b',"_meta":{"n":-0,"progressToken":"corral-9"}}'


@pytest.mark.parametrize("params", [b"[1]", b'"x"', TOO_DEEP])
def test_parameters_that_take_no_token_pass_as_they_are(params: bytes) -> None:
    assert dialect.with_progress_token(params, "corral-9") == (params, None)


@pytest.mark.parametrize(
    ("params", "theirs", "expected"),
    [
        (b'{"progressToken":"corral-9","progress":1E2}', b"7", b'{"progressToken":7,"progress":1E2}'),
        (b'{"progress":1,"progressToken":"corral-9"}', b'"t"', b'{"progress":1,"progressToken":"t"}'),
        (b'{"progressToken":"corral-9"}', None, b'{"progressToken":"corral-9"}'),
        (None, b"7", None),
        (b"[1]", b"7", b"[1]"),
    ],
)
def test_progress_is_given_back_under_the_callers_token(
    params: bytes | None, theirs: bytes | None, expected: bytes | None
) -> None:
    assert dialect.with_callers_token(params, theirs) == expected


# -- what Corral answers itself

FACTS = ProtocolFacts(
    era=Era.LEGACY, version="2025-06-18", server_info={"name": "goat"}, capabilities={"tools": {}}, instructions="Chew."
)


def synthesized(facts: ProtocolFacts, method: str) -> Any:
    member = dialect.synthesized(facts, method)
    return None if member is None else json.loads(b"{" + member + b"}")


def test_initialize_answers_what_the_handshake_found() -> None:
    assert synthesized(FACTS, "initialize") == {
        "result": {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "goat"},
            "instructions": "Chew.",
        }
    }
    assert synthesized(ProtocolFacts(era=Era.BARE), "initialize") == {
        "result": {
            "protocolVersion": "2024-11-05",
            "capabilities": {},
            "serverInfo": {"name": "unknown", "version": "0"},
        }
    }


@pytest.mark.parametrize(("era", "answered"), [(Era.LEGACY, False), (Era.MODERN, True), (Era.BARE, True)])
def test_ping_is_answered_for_servers_that_have_none(era: Era, answered: bool) -> None:
    assert synthesized(ProtocolFacts(era=era), "ping") == ({"result": {}} if answered else None)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("method", ["tools/list", "tools/call", "notifications/initialized", "Ping", ""])
def test_everything_else_is_the_servers_to_answer(era: Era, method: str) -> None:
    assert dialect.synthesized(ProtocolFacts(era=era), method) is None


# -- bare answers

BARE = [
    ("a tool without a schema", "tools/list", '{"result": {"tools": [{"name": "a"}]}}', {"result": {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}}),
    ("a tool with a broken schema", "tools/list", '{"result": {"tools": [{"name": "a", "inputSchema": null}]}}', {"result": {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}}),
    ("a tool with a schema", "tools/list", '{"result": {"tools": [{"inputSchema": {"a": 1}}], "nextCursor": "x"}}', {"result": {"tools": [{"inputSchema": {"a": 1}}], "nextCursor": "x"}}),
    ("no tools", "tools/list", '{"result": {}}', {"result": {"tools": []}}),
    ("null for tools", "tools/list", '{"result": {"tools": null}}', {"result": {"tools": []}}),
    ("a number for tools", "tools/list", '{"result": {"tools": 5}}', {"result": {"tools": []}}),
    ("true for tools", "tools/list", '{"result": {"tools": true}}', {"result": {"tools": []}}),
    ("an object for tools", "tools/list", '{"result": {"tools": {"a": 1}}}', {"result": {"tools": []}}),
    ("names for tools", "tools/list", '{"result": {"tools": ["a"]}}', {"result": {"tools": ["a"]}}),
    ("a list for a list of tools", "tools/list", '{"result": []}', {"result": {"value": []}}),
    ("content", "tools/call", '{"result": {"content": [], "n": 1}}', {"result": {"content": [], "n": 1}}),
    ("plain text", "tools/call", '{"result": "moo"}', {"result": {"content": [{"type": "text", "text": '"moo"'}]}}),
    ("a value", "tools/call", '{"result": {"sum": 3}}', {"result": {"content": [{"type": "text", "text": '{"sum": 3}'}]}}),
    ("nothing", "tools/call", '{"result": null}', {"result": {"content": [{"type": "text", "text": "null"}]}}),
    ("an object", "any", '{"result": {"a": 1}}', {"result": {"a": 1}}),
    ("no object", "any", '{"result": 5}', {"result": {"value": 5}}),
    ("an error", "any", '{"error": {"code": -32601, "message": "no", "data": [1], "x": 2}}', {"error": {"code": -32601, "message": "no", "data": [1]}}),
    ("an error in words", "any", '{"error": "no"}', {"error": {"code": -32603, "message": "no"}}),
    ("an error of nothing", "any", '{"error": null}', {"error": {"code": -32603, "message": "error"}}),
    ("an error with a code in words", "any", '{"error": {"code": "E1", "message": 5}}', {"error": {"code": -32603, "message": "5"}}),
    ("an error with a truth for a code", "any", '{"error": {"code": true}}', {"error": {"code": -32603, "message": "error"}}),
    ("an error with a code and a half", "any", '{"error": {"code": 1.5}}', {"error": {"code": -32603, "message": "error"}}),
]  # fmt: skip


def bare(line: bytes) -> bytes:
    message = parse(line)
    assert isinstance(message, Response)
    return message.member


@pytest.mark.parametrize(("method", "line", "expected"), [row[1:] for row in BARE], ids=[row[0] for row in BARE])
def test_a_bare_servers_answer_is_mended_into_what_mcp_promises(method: str, line: str, expected: Any) -> None:
    assert json.loads(b"{" + dialect.mended(method, bare(line.encode())) + b"}") == expected


@pytest.mark.parametrize("method", ["tools/list", "tools/call", "any"])
def test_mending_changes_no_value(method: str) -> None:
    tool = b'{"tools":[' + ODD_VALUES + b'],"content":[' + ODD_VALUES + b"]}"

    mended = dialect.mended(method, b'"result":' + tool)

    for value in (b"-0", b"1e308", b"9223372036854775808", b"1.0", b'[1E2 , "\\ud83d"]', b"0.10"):
        assert mended.count(b":" + value) == 2


@pytest.mark.parametrize("method", ["tools/list", "tools/call", "any"])
@pytest.mark.parametrize("name", [b'"result"', b'"error"'])
def test_what_cannot_be_read_is_mended_without_failing(method: str, name: bytes) -> None:
    for value in (b"[" * 50_000 + b"]" * 50_000, b'{"tools":' + b"[" * 50_000 + b"]" * 50_000 + b"}"):
        assert dialect.mended(method, name + b":" + value).startswith(name + b":")


JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda i: st.lists(i, max_size=3) | st.dictionaries(st.sampled_from(["tools", "content", "code", "message", "data", "x"]), i, max_size=4), max_leaves=8)  # fmt: skip


@given(JSON, st.booleans(), st.sampled_from(["tools/list", "tools/call", "any"]))
def test_a_mended_answer_is_always_an_object_or_a_proper_error(value: Any, is_error: bool, method: str) -> None:
    name = "error" if is_error else "result"
    mended = json.loads(b"{" + dialect.mended(method, f'"{name}":{json.dumps(value)}'.encode()) + b"}")

    outcome = mended[name]
    assert isinstance(outcome, dict)
    if is_error:
        assert type(outcome["code"]) is int
        assert type(outcome["message"]) is str
    elif method == "tools/call":
        assert "content" in outcome
    elif method == "tools/list" and isinstance(value, dict):
        assert isinstance(outcome["tools"], list)
