"""What the bridges write is what the official SDK takes for each version: its own models say so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import frozen
from mcp_types import methods

from controlplane.protocol import legacy_to_modern, modern_to_legacy
from controlplane.protocol.capabilities import capability_set
from controlplane.protocol.handshake import LEGACY_VERSIONS, MODERN_VERSION, Era, ProtocolFacts
from controlplane.protocol.input_rounds import Ask, InputRounds
from controlplane.protocol.listening import ListenFilter, tagged, untagged
from controlplane.protocol.modern_to_legacy import CACHEABLE
from controlplane.protocol.questions import ASKING

INFO = {"name": "srv", "version": "1"}
LEGACY = ProtocolFacts(era=Era.LEGACY, version="2025-11-25", server_info=INFO, capabilities={"tools": {}})
MODERN = ProtocolFacts(era=Era.MODERN, version=MODERN_VERSION, server_info=INFO, capabilities={"logging": {}})
TOOL = {"name": "t", "inputSchema": {"type": "object"}}
RESULTS: dict[str, dict[str, Any]] = {
    "tools/list": {"tools": [TOOL | {"execution": {"taskSupport": "required"}}]},
    "tools/call": {"content": [{"type": "text", "text": "x"}], "structuredContent": {"a": 1}, "isError": False},
    "prompts/list": {"prompts": [{"name": "p"}]},
    "prompts/get": {"messages": [{"role": "user", "content": {"type": "text", "text": "x"}}]},
    "resources/list": {"resources": [{"uri": "a:b", "name": "r"}]},
    "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "a:{b}", "name": "r"}]},
    "resources/read": {"contents": [{"uri": "a:b", "text": "x"}]},
    "completion/complete": {"completion": {"values": ["x"]}},
}
EVERYTHING = b'{"roots":{},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}}}'
CLIENT = b'{"name":"c","version":"1"}'
FORM = b'{"message":"m","requestedSchema":{"type":"object","properties":{}}}'
URL = b'{"mode":"url","message":"m","url":"https://x/y"}'
SAMPLE = b'{"messages":[{"role":"user","content":{"type":"text","text":"x"}}],"maxTokens":5}'


@frozen
class Asked:
    method: str
    params: bytes | None


ASKS = {
    "form": Asked("elicitation/create", FORM),
    "url": Asked("elicitation/create", URL),
    "sample": Asked("sampling/createMessage", SAMPLE),
    "roots": Asked("roots/list", None),
}


def value(member: bytes) -> Any:
    assert member.startswith(b'"result":')
    return json.loads(member.removeprefix(b'"result":'))


def test_the_sdk_agrees_on_which_methods_are_cacheable_and_which_may_ask() -> None:
    assert methods.CACHEABLE_METHODS == CACHEABLE
    assert methods.INPUT_REQUIRED_METHODS == ASKING


@pytest.mark.parametrize("method", sorted(methods.SPEC_CLIENT_METHODS))
def test_what_the_sdk_lists_for_legacy_versions_alone_is_removed_in_the_modern_era(method: str) -> None:
    is_modern = (method, MODERN_VERSION) in methods.CLIENT_REQUESTS

    assert modern_to_legacy.is_removed(method) is not is_modern


def test_a_bridged_discovery_is_a_discover_result() -> None:
    result = json.loads(modern_to_legacy.discover_result(LEGACY))

    parsed = methods.parse_server_result("server/discover", MODERN_VERSION, result)

    assert MODERN_VERSION in parsed.supported_versions


@pytest.mark.parametrize("version", LEGACY_VERSIONS)
def test_a_bridged_handshake_is_an_initialize_result(version: str) -> None:
    for facts in (MODERN, LEGACY, ProtocolFacts(era=Era.BARE)):
        result = json.loads(legacy_to_modern.initialize_result(facts, version))
        methods.parse_server_result("initialize", version, result)


@pytest.mark.parametrize("method", sorted(RESULTS))
def test_a_legacy_servers_result_is_one_of_the_modern_version(method: str) -> None:
    for raw in (RESULTS[method], RESULTS[method] | {"_meta": {"x": 1}}):
        member = modern_to_legacy.modern_member(method, b'"result":' + json.dumps(raw).encode(), LEGACY)
        methods.validate_server_result(method, MODERN_VERSION, value(member))
        with pytest.raises(ValueError, match="resultType"):
            methods.validate_server_result(method, MODERN_VERSION, raw)


@pytest.mark.parametrize("method", sorted(RESULTS))
@pytest.mark.parametrize("version", LEGACY_VERSIONS)
def test_a_modern_servers_result_is_one_of_each_legacy_version(method: str, version: str) -> None:
    modern = RESULTS[method] | {"resultType": "complete", "ttlMs": 1, "cacheScope": "public"}
    if method == "tools/list":
        modern["tools"] = [TOOL | {"outputSchema": {"type": "array"}}]
    if method == "tools/call":
        modern["structuredContent"] = [1, 2]

    member = legacy_to_modern.legacy_member(method, b'"result":' + json.dumps(modern).encode())

    methods.parse_server_result(method, version, value(member))


@pytest.mark.parametrize("params", [None, b'{"name":"t","arguments":{}}', b'{"name":"t","_meta":{"progressToken":1}}'])
def test_a_legacy_clients_call_is_one_of_the_modern_version_and_back(params: bytes | None) -> None:
    method = "tools/list" if params is None else "tools/call"

    modern = legacy_to_modern.modern_params(params, client_info=CLIENT, capabilities=EVERYTHING, log_level="info")

    methods.validate_client_request(method, MODERN_VERSION, json.loads(modern))
    back = json.loads(modern_to_legacy.legacy_params(modern) or b"{}")
    assert back == json.loads(params or b"{}")
    for version in LEGACY_VERSIONS:
        methods.validate_client_request(method, version, back)


def test_what_a_legacy_server_asks_is_an_input_required_result_of_the_modern_version() -> None:
    member = modern_to_legacy.input_required(ASKS, "state")

    for method in sorted(ASKING):
        methods.validate_server_result(method, MODERN_VERSION, value(member))


def test_what_a_modern_server_asks_are_requests_of_the_newest_legacy_version_and_the_answers_are_a_retry() -> None:
    params = legacy_to_modern.modern_params(
        b'{"name":"t"}', client_info=CLIENT, capabilities=EVERYTHING, log_level=None
    )
    call = InputRounds(params, capability_set(EVERYTHING))

    ask = call.on_result(modern_to_legacy.input_required(ASKS, "state"))

    assert isinstance(ask, Ask)
    assert [request.key for request in ask.requests] == list(ASKS)
    for request in ask.requests:
        given = None if request.params is None else json.loads(request.params)
        methods.parse_server_request(request.method, "2025-11-25", given)
    call.answer("form", b'"error":{"code":-1,"message":"no"}')
    call.answer("url", b'"result":{"action":"accept"}')
    call.answer("sample", b'"result":{"role":"assistant","content":{"type":"text","text":"x"},"model":"m"}')
    call.answer("roots", b'"result":{"roots":[]}')
    retry = json.loads(call.retry_params())
    methods.validate_client_request("tools/call", MODERN_VERSION, retry)
    assert set(retry["inputResponses"]) == set(ASKS)


def test_notifications_are_of_the_version_of_the_side_that_gets_them() -> None:
    listener = ListenFilter(tools=True, uris=frozenset({"a:b"}))
    acknowledged = json.loads(listener.acknowledged(b"1"))
    methods.parse_server_notification(acknowledged["method"], MODERN_VERSION, acknowledged["params"])
    for method, params in (
        ("notifications/tools/list_changed", None),
        ("notifications/resources/updated", b'{"uri":"a:b"}'),
    ):
        modern = json.loads(tagged(method, params, b"1"))
        methods.parse_server_notification(method, MODERN_VERSION, modern["params"])
        legacy = untagged(json.dumps(modern["params"]).encode())
        methods.parse_server_notification(method, "2025-11-25", json.loads(legacy or b"{}"))


def test_a_listen_request_of_corral_is_one_of_the_modern_version() -> None:
    for params in (
        legacy_to_modern.subscribe_listen("a:b"),
        legacy_to_modern.list_listen({"tools": {"listChanged": True}}),
    ):
        modern = legacy_to_modern.modern_params(params, client_info=CLIENT, capabilities=None, log_level=None)
        methods.validate_client_request("subscriptions/listen", MODERN_VERSION, json.loads(modern))
