"""A modern client and a legacy server: envelope off, results and errors into the client's version, input asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from controlplane.protocol import modern_to_legacy as bridge
from controlplane.protocol.handshake import Era, ProtocolFacts
from controlplane.protocol.modern_to_legacy import Retry

META = "io.modelcontextprotocol/"
INFO = {"name": "srv", "version": "1.0"}
FACTS = ProtocolFacts(
    era=Era.LEGACY,
    version="2025-11-25",
    server_info=INFO,
    capabilities={"tools": {"listChanged": True}, "logging": {}, "tasks": {}},
    instructions="Ask nicely.",
)
NAMELESS = ProtocolFacts(era=Era.BARE)
TOO_DEEP = b"[" * 50_000 + b"]" * 50_000
ODD_VALUES = b'"a":-0,"b":1e308,"c":92233720368547758080,"d":1.0,"e":[1E2 , "\\ud83d"],"f":0.10'
"""Decoding and encoding again would change most of these."""
PIECES = (b"-0", b"1e308", b"92233720368547758080", b"1.0", b'[1E2 , "\\ud83d"]', b"0.10")
ENVELOPE = (
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{"sampling":{}},'
    b'"io.modelcontextprotocol/clientInfo":{"name":"c","version":"2"},'
    b'"io.modelcontextprotocol/logLevel":"info"'
)


def result_of(member: bytes) -> Any:
    name, _, raw = member.partition(b":")
    assert name == b'"result"'
    return json.loads(raw)


def error_of(member: bytes) -> Any:
    name, _, raw = member.partition(b":")
    assert name == b'"error"'
    return json.loads(raw)


def modern(method: str, raw: bytes, facts: ProtocolFacts = FACTS) -> bytes:
    return bridge.modern_member(method, b'"result":' + raw, facts)


# -- discovery


def test_discovery_tells_what_the_legacy_handshake_found_and_promises_no_caching() -> None:
    assert json.loads(bridge.discover_result(FACTS)) == {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"],
        "capabilities": {"tools": {"listChanged": True}, "logging": {}},
        "instructions": "Ask nicely.",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {META + "serverInfo": INFO},
    }


def test_discovery_of_a_server_without_a_handshake_invents_no_name() -> None:
    found = json.loads(bridge.discover_result(NAMELESS))

    assert found["capabilities"] == {"tools": {}}
    assert "_meta" not in found
    assert "instructions" not in found


@pytest.mark.parametrize(
    ("method", "gone"),
    [
        ("initialize", True),
        ("ping", True),
        ("logging/setLevel", True),
        ("resources/subscribe", True),
        ("resources/unsubscribe", True),
        ("notifications/initialized", True),
        ("notifications/roots/list_changed", True),
        ("tasks/list", True),
        ("tasks/get", False),  # the tasks extension has it
        ("tools/call", False),
        ("server/discover", False),
        ("subscriptions/listen", False),
        ("notifications/cancelled", False),
        ("com.example/own", False),
    ],
)
def test_methods_that_the_modern_era_took_out(method: str, gone: bool) -> None:
    assert bridge.is_removed(method) is gone


# -- parameters


@pytest.mark.parametrize(
    ("params", "left"),
    [
        (b'{"_meta":{' + ENVELOPE + b"}}", b"{}"),
        (b'{"name":"x","_meta":{' + ENVELOPE + b'},"arguments":{}}', b'{"name":"x","arguments":{}}'),
        (b'{"_meta":{' + ENVELOPE + b',"progressToken":1}}', b'{"_meta":{"progressToken":1}}'),
        (b'{"\\u005fmeta":{' + ENVELOPE + b"}}", b"{}"),
        (b'{"a":1,"requestState":"s","inputResponses":{"k":{}}}', b'{"a":1}'),
        (b'{"a":1,"inputResponses":null}', b'{"a":1}'),
    ],
)
def test_a_legacy_server_sees_neither_the_envelope_nor_the_retry(params: bytes, left: bytes) -> None:
    assert bridge.legacy_params(params) == left


@pytest.mark.parametrize(
    "params",
    [
        None,
        b"null",
        b"[1]",
        b"{}",
        b'{ "a" : 1 , "_meta" : { "traceparent" : "00-1" } }',
        b'{"_meta":{}}',
        b'{"_meta":5}',
        b'{"a":{"_meta":{"io.modelcontextprotocol/x":1},"requestState":"mine"}}',
        b'{"_meta":{' + ENVELOPE + b'},"a":' + TOO_DEEP + b"}",
    ],
)
def test_parameters_with_nothing_to_strip_stay_byte_for_byte(params: bytes | None) -> None:
    assert bridge.legacy_params(params) == params


def test_every_other_value_of_the_parameters_stays_as_it_was_written() -> None:
    params = b'{"_meta":{' + ENVELOPE + b',"com.example/k":1E2,"dev.mcp/x":[ ]},' + ODD_VALUES + b"}"

    assert bridge.legacy_params(params) == (b'{"_meta":{"com.example/k":1E2,"dev.mcp/x":[ ]},' + ODD_VALUES + b"}")


def test_the_envelope_is_read() -> None:
    meta = bridge.request_meta(b'{"_meta":{' + ENVELOPE + b',"progressToken":7}}')

    assert meta.version == "2026-07-28"
    assert meta.capabilities == {"sampling"}
    assert meta.log_level == "info"
    assert meta.progress_token == b"7"
    assert meta.client_info == b'{"name":"c","version":"2"}'


@pytest.mark.parametrize("params", [None, b"{}", b"[]", b'{"_meta":null}', b'{"_meta":[]}', b'{"_meta":' + TOO_DEEP])
def test_an_envelope_that_is_not_there_reads_as_empty(params: bytes | None) -> None:
    assert bridge.request_meta(params) == bridge.RequestMeta()


def test_members_of_the_envelope_that_are_of_the_wrong_type_read_as_absent() -> None:
    params = b'{"_meta":{"io.modelcontextprotocol/protocolVersion":1,"io.modelcontextprotocol/logLevel":{}}}'

    assert bridge.request_meta(params) == bridge.RequestMeta()


# -- results


def test_a_call_gets_only_its_type_and_the_servers_name() -> None:
    assert modern("tools/call", b'{ "content":[],"structuredContent":{"n":1E2}}') == (
        b'"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"srv","version":"1.0"}},'
        b'"content":[],"structuredContent":{"n":1E2}}'
    )


def test_a_server_without_a_name_gets_none() -> None:
    assert modern("tools/call", b'{"content":[]}', NAMELESS) == b'"result":{"resultType":"complete","content":[]}'
    assert modern("tools/call", b"{ }", NAMELESS) == b'"result":{"resultType":"complete"}'


@pytest.mark.parametrize("method", sorted(bridge.CACHEABLE))
def test_what_may_be_cached_says_that_it_may_not(method: str) -> None:
    answer = result_of(modern(method, b'{"x":1}'))

    assert (answer["ttlMs"], answer["cacheScope"], answer["x"]) == (0, "private", 1)


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "completion/complete", "com.example/own"])
def test_what_may_not_be_cached_says_nothing_of_it(method: str) -> None:
    assert result_of(modern(method, b'{"x":1}')) == {
        "resultType": "complete",
        "_meta": {META + "serverInfo": INFO},
        "x": 1,
    }


def test_the_cacheable_methods_are_six() -> None:
    lists = {f"{name}/list" for name in ("tools", "prompts", "resources", "resources/templates")}
    assert lists | {"server/discover", "resources/read"} == bridge.CACHEABLE


@pytest.mark.parametrize(
    "theirs",
    [
        b'{"resultType":"input_required","inputRequests":{},"a":1E2}',
        b'{"result\\u0054ype":"task","a":1E2}',
        b'{"ttlMs":60000,"cacheScope":"public","a":1E2}',
    ],
)
def test_members_that_the_modern_era_gives_a_meaning_are_not_believed(theirs: bytes) -> None:
    member = modern("tools/list", theirs)
    answer = result_of(member)

    assert (answer["resultType"], answer["ttlMs"], answer["cacheScope"]) == ("complete", 0, "private")
    assert b'"a":1E2' in member
    assert member.count(b'"resultType"') == member.count(b'"ttlMs"') == 1


@pytest.mark.parametrize(
    ("meta", "merged"),
    [
        (b'{"com.example/k":1E2}', {"com.example/k": 100.0, META + "serverInfo": INFO}),
        (b"{}", {META + "serverInfo": INFO}),
        (b"null", {META + "serverInfo": INFO}),
        (b"5", {META + "serverInfo": INFO}),
        (b'{"io.modelcontextprotocol/serverInfo":{"name":"me"}}', {META + "serverInfo": {"name": "me"}}),
    ],
)
def test_a_servers_own_meta_is_kept(meta: bytes, merged: dict[str, Any]) -> None:
    member = modern("tools/call", b'{"_meta":' + meta + b',"a":1.0}')

    assert result_of(member) == {"resultType": "complete", "_meta": merged, "a": 1.0}
    assert member.count(b'"_meta"') == 1
    assert b'"a":1.0' in member


def test_values_of_a_result_stay_as_they_were_written() -> None:
    for raw in (b"{" + ODD_VALUES + b"}", b'{"_meta":{"x":0.10},' + ODD_VALUES + b"}", b'{"\\ud83d":1,"_meta":{}}'):
        member = modern("tools/call", raw)
        assert all(b":" + piece in member for piece in PIECES if piece in raw)
        assert result_of(member)["resultType"] == "complete"


def test_a_result_that_cannot_be_read_still_gets_its_type() -> None:
    for raw in (b'{"a":' + TOO_DEEP + b"}", b'{"a":' + TOO_DEEP + b',"tools":[{"execution":{}}]}'):
        member = modern("tools/list", raw)
        assert member.startswith(b'"result":{"resultType":"complete",')
        assert member.endswith(raw[1:])


@pytest.mark.parametrize("raw", [b"[]", b"5", b'"done"'])
def test_a_result_that_is_no_object_is_left_to_the_client(raw: bytes) -> None:
    assert modern("tools/call", raw, NAMELESS) == b'"result":' + raw


def test_a_null_result_is_an_empty_one() -> None:
    assert modern("tools/call", b"null", NAMELESS) == b'"result":{"resultType":"complete"}'


def test_tools_do_not_ask_to_be_called_as_tasks_across_the_bridge() -> None:
    tools = (
        b'[{"name":"a","execution":{"taskSupport":"required"},"inputSchema":{"x":1E2}},'
        b'{ "name":"b","x":1.0},{"name":"c","execution":{"taskSupport":"optional","own":1E1}},5]'
    )

    member = modern("tools/list", b'{"tools":' + tools + b',"nextCursor":"n"}')

    answer = result_of(member)
    assert answer["tools"] == [
        {"name": "a", "inputSchema": {"x": 100.0}},
        {"name": "b", "x": 1.0},
        {"name": "c", "execution": {"own": 10.0}},
        5,
    ]
    assert (answer["nextCursor"], answer["ttlMs"]) == ("n", 0)
    for piece in (b'{"x":1E2}', b'{ "name":"b","x":1.0}', b'"own":1E1'):
        assert piece in member


def test_a_tool_that_only_speaks_of_execution_stays_byte_for_byte() -> None:
    tools = b'[ {"description":"execution", "name":"a"} ]'

    assert b'"tools":' + tools in modern("tools/list", b'{"tools":' + tools + b"}")


# -- errors


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            b'{"code":-32002,"message":"Resource not found","data":{"uri":"x:y"}}',
            {"code": -32602, "message": "Resource not found", "data": {"uri": "x:y"}},
        ),
        (b'{"code":-32002,"message":"gone"}', {"code": -32602, "message": "gone"}),
        (
            b'{"code":-32042,"message":"log in","data":{"elicitations":[{"url":"https://x"}]}}',
            {
                "code": -32602,
                "message": "log in",
                "data": {"legacyCode": -32042, "elicitations": [{"url": "https://x"}]},
            },
        ),
        (
            b'{"code":-32042,"message":"log in"}',
            {"code": -32602, "message": "log in", "data": {"legacyCode": -32042}},
        ),
        (
            b'{"code":-32022,"message":"own","data":[1]}',
            {"code": -32603, "message": "own", "data": {"legacyCode": -32022, "data": [1]}},
        ),
        (
            b'{"code":-32020,"message":"own"}',
            {"code": -32603, "message": "own", "data": {"legacyCode": -32020}},
        ),
        (
            b'{"code":-32099,"message":"own"}',
            {"code": -32603, "message": "own", "data": {"legacyCode": -32099}},
        ),
    ],
)
def test_codes_that_mean_something_else_in_the_modern_era_are_changed(theirs: bytes, ours: dict[str, Any]) -> None:
    assert error_of(bridge.modern_member("tools/call", b'"error":' + theirs, FACTS)) == ours


@pytest.mark.parametrize(
    "raw",
    [
        b'{"code":-32601,"message":"no"}',
        b'{"code":-32000,"message":"own"}',
        b'{"code":-32019,"message":"own"}',
        b'{"code":-32100,"message":"own", "data":{"n":1E2}}',
        b'{"code":42,"message":"own"}',
        b'{"code":true}',
        b'{"code":null}',
        b'{"code":"-32002"}',
        b'{"code":1' + b"0" * 400 + b"}",
        b'"boom"',
        b"null",
        b'{"code":-32002,"data":' + TOO_DEEP + b"}",
    ],
)
def test_every_other_error_is_passed_on_byte_for_byte(raw: bytes) -> None:
    assert bridge.modern_member("tools/call", b'"error":' + raw, FACTS) == b'"error":' + raw


# -- input


@frozen
class Asked:
    id: bytes
    method: str
    params: bytes | None


def test_what_the_server_asks_becomes_a_result_that_asks_for_input() -> None:
    form = b'{ "message":"?","requestedSchema":{"minimum":1E2}}'
    asked = {"1": Asked(b"7", "elicitation/create", form), "2": Asked(b'"x"', "roots/list", None)}

    member = bridge.input_required(asked, "st\u00e4te")

    assert result_of(member) == {
        "resultType": "input_required",
        "inputRequests": {
            "1": {"method": "elicitation/create", "params": json.loads(form)},
            "2": {"method": "roots/list"},
        },
        "requestState": "st\u00e4te",
    }
    assert form in member


def test_a_retry_brings_the_state_and_the_answers_as_they_were_given() -> None:
    params = b'{"requestState":"s\\u00e4","inputResponses":{"1":{ "action":"accept","content":{"n":1E2}},"2":{}}}'

    assert bridge.retry_of(params) == Retry("s\u00e4", {"1": b'{ "action":"accept","content":{"n":1E2}}', "2": b"{}"})


@pytest.mark.parametrize("params", [None, b"{}", b"[]", b'{"requestState":null,"inputResponses":null}', TOO_DEEP])
def test_a_request_without_them_is_no_retry(params: bytes | None) -> None:
    assert bridge.retry_of(params) == Retry()


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (b'{"requestState":5}', "`requestState` must be a string"),
        (b'{"requestState":{}}', "`requestState` must be a string"),
        (b'{"inputResponses":[]}', "`inputResponses` must be an object"),
        (b'{"inputResponses":"x"}', "`inputResponses` must be an object"),
    ],
)
def test_a_retry_of_the_wrong_form_is_refused_in_a_sentence(params: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        bridge.retry_of(params)


def test_a_retry_has_the_digest_of_the_request_it_repeats() -> None:
    first = b'{"name":"t","arguments":{"b":[1,{"x":null,"y":2.5}],"a":"\\ud83d"},"_meta":{"progressToken":1}}'
    again = (
        b'{"requestState":"s","_meta":{"progressToken":2},"inputResponses":{},'
        b'"arguments":{"a":"\\ud83d", "b":[1,{"y":2.5,"x":null}]},"name":"t"}'
    )

    assert bridge.digest("tools/call", first) == bridge.digest("tools/call", again)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("prompts/get", b'{"name":"t","arguments":{"a":1}}'),
        ("tools/call", b'{"name":"u","arguments":{"a":1}}'),
        ("tools/call", b'{"name":"t","arguments":{"a":"1"}}'),
        ("tools/call", b'{"name":"t","arguments":{"a":1,"_meta":{}}}'),
        ("tools/call", b'{"name":"t","arguments":{"a":1,"requestState":"s"}}'),
        ("tools/call", b'{"name":"t"}'),
        ("tools/call", None),
    ],
)
def test_any_other_request_has_another_digest(method: str, params: bytes | None) -> None:
    assert bridge.digest(method, params) != bridge.digest("tools/call", b'{"name":"t","arguments":{"a":1}}')


def test_what_cannot_be_read_has_the_digest_of_its_bytes() -> None:
    deep = b'{"a":' + TOO_DEEP + b"}"

    assert bridge.digest("tools/call", deep) == bridge.digest("tools/call", deep)
    assert bridge.digest("tools/call", deep) != bridge.digest("tools/call", deep[:-1] + b" }")


# -- anything

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
OURS = {"resultType", "_meta", "ttlMs", "cacheScope"}


@given(st.dictionaries(st.text() | st.sampled_from(sorted(OURS)), JSON), st.sampled_from(["tools/call", "tools/list"]))
def test_every_result_keeps_all_its_other_members(result: dict[str, Any], method: str) -> None:
    raw = json.dumps(result).encode()

    answer = result_of(modern(method, raw))

    added = {"resultType", "_meta"} | ({"ttlMs", "cacheScope"} if method == "tools/list" else set())
    assert {name: answer[name] for name in result if name not in added} == {
        name: found for name, found in json.loads(raw).items() if name not in added
    }
    assert answer["resultType"] == "complete"
    assert answer["_meta"][META + "serverInfo"] == INFO or META + "serverInfo" in result["_meta"]


@given(st.binary(), st.sampled_from(["tools/list", "tools/call"]))
def test_no_bytes_make_the_bridge_raise(raw: bytes, method: str) -> None:
    for name in (b'"result":', b'"error":'):
        assert bridge.modern_member(method, name + raw, FACTS).startswith(name)
    bridge.legacy_params(raw)
    bridge.request_meta(raw)
    bridge.digest(method, raw)
