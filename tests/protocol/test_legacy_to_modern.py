"""A legacy client and a modern server: handshake answered, envelope on, results into the client's version."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.protocol import legacy_to_modern as bridge
from controlplane.protocol.handshake import Era, ProtocolFacts

META = "io.modelcontextprotocol/"
CAPABILITIES = {
    "tools": {},
    "resources": {"subscribe": True},
    "logging": {},
    "extensions": {META + "tasks": {}, "x/y": {}},
}
CLIENT = b'{ "name":"c","version":"2"}'
DECLARED = b'{"sampling":{},"roots":{"listChanged":true},"tasks":{}}'
ENVELOPE = {
    META + "protocolVersion": "2026-07-28",
    META + "clientCapabilities": {"sampling": {}, "roots": {}},
    META + "clientInfo": {"name": "c", "version": "2"},
}
TOO_DEEP = b"[" * 50_000 + b"]" * 50_000
ODD_VALUES = b'"a":-0,"b":1e308,"c":92233720368547758080,"d":1.0,"e":[1E2 , "\\ud83d"],"f":0.10'
"""Decoding and encoding again would change most of these."""


def facts(era: Era = Era.MODERN, **more: Any) -> ProtocolFacts:
    return ProtocolFacts(era=era, version="2026-07-28", capabilities=CAPABILITIES, **more)


def sent(params: bytes | None, log_level: str | None = None) -> bytes:
    return bridge.modern_params(params, client_info=CLIENT, capabilities=DECLARED, log_level=log_level)


def legacy(method: str, raw: bytes) -> bytes:
    member = bridge.legacy_member(method, b'"result":' + raw)
    assert member.startswith(b'"result":')
    return member.removeprefix(b'"result":')


# -- the handshake


def test_initialize_is_answered_with_what_the_server_offers_and_the_version_agreed_on() -> None:
    found = facts(server_info={"name": "srv", "version": "1", "title": "S"}, instructions="Ask.")

    assert json.loads(bridge.initialize_result(found, "2025-06-18")) == {
        "protocolVersion": "2025-06-18",
        "capabilities": {
            "tools": {},
            "resources": {"subscribe": True},
            "logging": {},
            "extensions": {"x/y": {}},
        },
        "serverInfo": {"name": "srv", "version": "1", "title": "S"},
        "instructions": "Ask.",
    }


def test_a_server_of_the_clients_era_offers_everything_it_has() -> None:
    answer = json.loads(bridge.initialize_result(facts(Era.LEGACY), "2025-11-25"))

    assert answer["capabilities"] == CAPABILITIES
    assert "instructions" not in answer


@pytest.mark.parametrize("info", [{}, {"title": "S"}, {"name": "srv"}])
def test_a_server_always_has_a_name_and_a_version(info: dict[str, str]) -> None:
    answer = json.loads(bridge.initialize_result(facts(server_info=info), "2025-11-25"))

    assert answer["serverInfo"] == {"name": "unknown", "version": "0"} | info


def test_a_bare_server_offers_tools() -> None:
    answer = json.loads(bridge.initialize_result(ProtocolFacts(era=Era.BARE), "2024-11-05"))

    assert answer["capabilities"] == {"tools": {}}


def test_ping_and_the_log_level_are_answered_here_and_nothing_else_is() -> None:
    assert bridge.synthesized("ping") == bridge.synthesized("logging/setLevel") == b'"result":{}'
    for method in ("initialize", "tools/list", "resources/subscribe", "completion/complete"):
        assert bridge.synthesized(method) is None


@pytest.mark.parametrize("name", ["initialized", "progress", "roots/list_changed"])
def test_notifications_that_a_modern_server_does_not_know_end_here(name: str) -> None:
    assert bridge.ends_here("notifications/" + name)
    assert not bridge.ends_here("notifications/cancelled")
    assert not bridge.ends_here("com.example/own")


# -- parameters


@pytest.mark.parametrize(
    ("params", "rest"),
    [
        (None, {}),
        (b"null", {}),
        (b"{}", {}),
        (b" { } ", {}),
        (b'{"name":"x"}', {"name": "x"}),
        (b'{"arguments":{"_meta":1}}', {"arguments": {"_meta": 1}}),
    ],
)
def test_a_modern_server_gets_the_clients_envelope_in_every_request(params: bytes | None, rest: dict[str, Any]) -> None:
    assert json.loads(sent(params)) == {"_meta": ENVELOPE} | rest


def test_the_log_level_goes_along_once_the_client_has_set_one() -> None:
    assert json.loads(sent(b"{}", "notice"))["_meta"] == ENVELOPE | {META + "logLevel": "notice"}


def test_a_client_that_did_not_introduce_itself_declares_nothing() -> None:
    for unreadable in (None, b"null", b"[]"):
        params = bridge.modern_params(None, client_info=unreadable, capabilities=unreadable, log_level=None)
        assert json.loads(params) == {
            "_meta": {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}}
        }


@pytest.mark.parametrize("key", [b"_meta", b"\\u005fmeta"])
def test_a_clients_own_meta_stays_but_for_the_envelope(key: bytes) -> None:
    theirs = (
        b'{"progressToken":1E2,"traceparent":"00-1","io.modelcontextprotocol/logLevel":"debug",'
        b'"io.modelcontextprotocol/protocolVersion":"1999-01-01","io.modelcontextprotocol/related-task":{}}'
    )

    params = sent(b'{"' + key + b'":' + theirs + b',"a":-0}')

    assert json.loads(params) == {
        "_meta": ENVELOPE | {"progressToken": 100.0, "traceparent": "00-1", META + "related-task": {}},
        "a": 0,
    }
    assert b'"progressToken":1E2' in params
    assert b'"a":-0' in params
    assert params.count(b"_meta") == 1


@pytest.mark.parametrize("meta", [b"5", b"null", b"[]", b"{}"])
def test_an_empty_meta_is_replaced(meta: bytes) -> None:
    assert json.loads(sent(b'{"_meta":' + meta + b"}")) == {"_meta": ENVELOPE}


def test_values_reach_a_modern_server_as_they_were_written() -> None:
    assert sent(b"{" + ODD_VALUES + b"}").endswith(b"," + ODD_VALUES + b"}")
    assert sent(b'{"_meta":{},' + ODD_VALUES + b"}").endswith(b"," + ODD_VALUES + b"}")
    assert CLIENT in sent(None)


@pytest.mark.parametrize("params", [b"[1]", b"5", b'"x"'])
def test_parameters_that_are_no_object_are_left_to_the_server(params: bytes) -> None:
    assert sent(params) == params


def test_parameters_too_deep_to_be_read_get_the_envelope_in_front() -> None:
    for deep in (b'{"a":' + TOO_DEEP + b"}", b'{"_meta":{},"a":' + TOO_DEEP + b"}"):
        params = sent(deep)
        assert params.startswith(b'{"_meta":{"io.modelcontextprotocol/protocolVersion"')
        assert params.endswith(deep[1:])


def test_long_introductions_are_not_kept() -> None:
    bridge._cached_envelope.cache_clear()
    for number in range(3):
        info = json.dumps({"name": "c" * 2000, "version": str(number)}).encode()
        params = bridge.modern_params(None, client_info=info, capabilities=None, log_level=None)
        assert json.loads(params)["_meta"][META + "clientInfo"]["version"] == str(number)
    assert bridge._cached_envelope.cache_info().currsize == 0


# -- results


@pytest.mark.parametrize(
    ("method", "raw", "left"),
    [
        ("tools/call", b'{"resultType":"complete","content":[]}', b'{"content":[]}'),
        ("tools/call", b'{"content":[]}', b'{"content":[]}'),
        ("tools/call", b'{"resultType":null,"content":[]}', b'{"content":[]}'),
        ("tools/list", b'{"tools":[],"ttlMs":5,"cacheScope":"public"}', b'{"tools":[]}'),
        ("resources/read", b'{"contents":[],"ttlMs":5,"cacheScope":"public"}', b'{"contents":[]}'),
        ("tools/call", b'{"ttlMs":5,"content":[]}', b'{"ttlMs":5,"content":[]}'),
        ("tools/call", b'{"_meta":{"io.modelcontextprotocol/serverInfo":{}},"content":[]}', b'{"content":[]}'),
        (
            "tools/call",
            b'{"_meta":{"io.modelcontextprotocol/serverInfo":{},"x":1E2},"content":[]}',
            b'{"_meta":{"x":1E2},"content":[]}',
        ),
        ("prompts/get", b'{"_meta":{},"messages":[ ]}', b'{"_meta":{},"messages":[ ]}'),
    ],
)
def test_a_legacy_client_sees_none_of_the_modern_members(method: str, raw: bytes, left: bytes) -> None:
    assert legacy(method, raw) == left


def test_every_other_value_of_a_result_stays_as_it_was_written() -> None:
    raw = b'{"resultType":"complete",' + ODD_VALUES + b"}"

    assert legacy("tools/call", raw) == b"{" + ODD_VALUES + b"}"


@pytest.mark.parametrize("raw", [b"null", b"[]", b'{"resultType":"complete","a":' + TOO_DEEP + b"}"])
def test_a_result_that_cannot_be_read_is_left_to_the_client(raw: bytes) -> None:
    assert legacy("tools/call", raw) == raw


@pytest.mark.parametrize("kind", [b'"task"', b"[]", b'{"a":1}', b"7"])
def test_a_result_of_a_kind_that_has_no_legacy_form_is_an_error(kind: bytes) -> None:
    member = bridge.legacy_member("tools/call", b'"result":{"resultType":' + kind + b"}")

    assert json.loads(member.removeprefix(b'"error":'))["code"] == -32603


def test_structured_output_that_is_an_object_stays() -> None:
    raw = b'{"content":[],"structuredContent":{ "n":1E2}}'

    assert legacy("tools/call", raw) == raw


@pytest.mark.parametrize("output", [b"[1E2, 2]", b"1.0", b'"x"', b"0", b'["\\ud83d"]'])
def test_other_structured_output_goes_as_text(output: bytes) -> None:
    answer = json.loads(legacy("tools/call", b'{"content":[ ],"structuredContent":' + output + b"}"))

    assert answer == {"content": [{"type": "text", "text": output.decode()}]}


def test_structured_output_of_null_says_nothing() -> None:
    assert legacy("tools/call", b'{"content":[],"structuredContent":null}') == b'{"content":[]}'


def test_text_that_the_server_gave_for_it_is_enough() -> None:
    content = b'[{"type":"text","text":"1, 2"}]'

    assert (
        legacy("tools/call", b'{"content":' + content + b',"structuredContent":[1,2]}')
        == b'{"content":' + content + b"}"
    )


def test_a_tool_keeps_only_a_schema_of_objects_for_its_output() -> None:
    tools = (
        b'{"name":"a","outputSchema":{"type":"object","x":1E2}},{"name":"b","outputSchema":{"type":"array"},"x":1.0},'
        b'{"name":"c","outputSchema":{"anyOf":[]}},{ "name":"d"},5'
    )

    listed = legacy("tools/list", b'{"tools":[' + tools + b'],"nextCursor":"n"}')

    assert json.loads(listed) == {
        "tools": [
            {"name": "a", "outputSchema": {"type": "object", "x": 100.0}},
            {"name": "b", "x": 1.0},
            {"name": "c"},
            {"name": "d"},
            5,
        ],
        "nextCursor": "n",
    }
    for piece in (b'"x":1E2', b'"x":1.0', b'{ "name":"d"}'):
        assert piece in listed


def test_tools_do_not_ask_to_be_called_as_tasks_across_the_bridge() -> None:
    tools = b'{"name":"a","execution":{"taskSupport":"required"},"outputSchema":{"type":"array"},"x":1E2}'

    assert legacy("tools/list", b'{"tools":[' + tools + b"]}") == b'{"tools":[{"name":"a","x":1E2}]}'


# -- errors


@pytest.mark.parametrize(("code", "becomes"), [(-32020, -32603), (-32021, -32600), (-32022, -32603)])
def test_modern_error_codes_become_ones_that_a_legacy_client_knows(code: int, becomes: int) -> None:
    error = b'"error":{"code":%d,"message":"m","data":{"requiredCapabilities":{"n":1E2}}}' % code

    member = bridge.legacy_member("tools/call", error)

    assert member == error.replace(b"%d" % code, b"%d" % becomes)


@pytest.mark.parametrize(
    "raw", [b'{"code":-32602,"message":"m", "data":1E2}', b'{"code":-32000}', b'{"code":true}', b'"boom"', b"null"]
)
def test_every_other_error_is_passed_on_byte_for_byte(raw: bytes) -> None:
    assert bridge.legacy_member("resources/read", b'"error":' + raw) == b'"error":' + raw


# -- anything


@given(st.binary(), st.sampled_from(["tools/list", "tools/call"]))
def test_no_bytes_make_the_bridge_raise(raw: bytes, method: str) -> None:
    for name in (b'"result":', b'"error":'):
        bridge.legacy_member(method, name + raw)
    sent(raw)
    bridge.modern_params(None, client_info=None, capabilities=raw, log_level=None)
    bridge.InputRounds(raw, frozenset({"roots"})).on_result(b'"result":' + raw)
    bridge.untagged(raw)
