"""Subscriptions across the eras: what is listened to, how it is tagged, and who gets which notification."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.protocol import legacy_to_modern, listening, modern_to_legacy
from controlplane.protocol.listening import ListenFilter, listen_filter, subscription_of, tagged, untagged

ID = "io.modelcontextprotocol/subscriptionId"
EVERYTHING = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
}
ALL = ListenFilter(tools=True, prompts=True, resources=True, uris=frozenset({"file:///a"}))
TOO_DEEP = b"[" * 50_000 + b"]" * 50_000


def asking(notifications: Any) -> bytes:
    return json.dumps({"notifications": notifications}).encode()


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ListenFilter()),
        ({"toolsListChanged": True}, ListenFilter(tools=True)),
        ({"promptsListChanged": True, "resourcesListChanged": False}, ListenFilter(prompts=True)),
        ({"resourceSubscriptions": ["b:", "a:", "b:"]}, ListenFilter(uris=frozenset({"a:", "b:"}))),
        ({"resourceSubscriptions": None, "toolsListChanged": None}, ListenFilter()),
        ({"taskIds": ["1"], "com.example/x": {}}, ListenFilter()),
    ],
)
def test_a_filter_is_what_was_asked_for_by_name(asked: Any, found: ListenFilter) -> None:
    assert listen_filter(asking(asked)) == found


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (None, "`notifications` must be an object"),
        (b"{}", "`notifications` must be an object"),
        (b"[]", "`notifications` must be an object"),
        (asking([]), "`notifications` must be an object"),
        (asking({"toolsListChanged": "yes"}), "`toolsListChanged` must be true or false"),
        (asking({"resourceSubscriptions": "a:"}), "`resourceSubscriptions` must be a list of URIs"),
        (asking({"resourceSubscriptions": [1]}), "`resourceSubscriptions` must be a list of URIs"),
        (asking({"resourceSubscriptions": ["a:"] * 257}), "`resourceSubscriptions` may hold 256 URIs at most"),
        (b'{"notifications":' + TOO_DEEP + b"}", "`notifications` must be an object"),
    ],
)
def test_a_filter_of_the_wrong_form_is_refused_in_a_sentence(params: bytes | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        listen_filter(params)


@pytest.mark.parametrize(
    ("capabilities", "left"),
    [
        (EVERYTHING, ALL),
        ({}, ListenFilter()),
        ({"tools": {}, "prompts": {"listChanged": True}}, ListenFilter(prompts=True)),
        ({"resources": {"subscribe": True}}, ListenFilter(uris=ALL.uris)),
        ({"resources": {"listChanged": True}}, ListenFilter(resources=True)),
    ],
)
def test_what_the_server_does_not_offer_is_not_honoured(capabilities: Any, left: ListenFilter) -> None:
    assert ALL.honoured(capabilities) == left


def test_nothing_is_honoured_that_was_not_asked_for() -> None:
    assert ListenFilter(tools=True).honoured(EVERYTHING) == ListenFilter(tools=True)
    assert not ListenFilter().honoured(EVERYTHING)


@pytest.mark.parametrize("raw_id", [b"1", b'"1"', b"9007199254740993"])
def test_a_stream_begins_with_what_is_honoured_under_the_requests_own_id(raw_id: bytes) -> None:
    message = ListenFilter(tools=True, uris=frozenset({"b:", "a:"})).acknowledged(raw_id)

    assert json.loads(message) == {
        "jsonrpc": "2.0",
        "method": "notifications/subscriptions/acknowledged",
        "params": {
            "_meta": {ID: json.loads(raw_id)},
            "notifications": {"toolsListChanged": True, "resourceSubscriptions": ["a:", "b:"]},
        },
    }
    assert b":" + raw_id + b"}" in message


def test_an_acknowledgement_of_nothing_is_one_all_the_same() -> None:
    assert json.loads(ListenFilter().acknowledged(b"1"))["params"]["notifications"] == {}


@pytest.mark.parametrize(
    ("method", "params", "wanted"),
    [
        ("notifications/tools/list_changed", None, True),
        ("notifications/prompts/list_changed", b"{}", False),
        ("notifications/resources/list_changed", None, False),
        ("notifications/resources/updated", b'{"uri":"file:///a"}', True),
        ("notifications/resources/updated", b'{"uri":"file:\\u002f//a"}', True),
        ("notifications/resources/updated", b'{"uri":"file:///a/part.txt"}', True),
        ("notifications/resources/updated", b'{"uri":"file:///a#part"}', True),
        ("notifications/resources/updated", b'{"uri":"file:///ab"}', False),
        ("notifications/resources/updated", b'{"uri":"file:///"}', False),
        ("notifications/resources/updated", b'{"uri":"dir:///x/y"}', True),
        ("notifications/resources/updated", b'{"uri":7}', False),
        ("notifications/resources/updated", b'{"uri":"file:///a","x":' + TOO_DEEP + b"}", False),
        ("notifications/resources/updated", None, False),
        ("notifications/progress", b'{"progressToken":1}', False),
        ("notifications/message", b'{"level":"info"}', False),
        ("notifications/subscriptions/acknowledged", b"{}", False),
        ("com.example/own", None, False),
    ],
)
def test_a_listener_gets_what_it_asked_for_and_nothing_else(method: str, params: bytes | None, wanted: bool) -> None:
    listener = ListenFilter(tools=True, uris=frozenset({"file:///a", "dir:///x/"}))

    assert listener.wants(method, params) is wanted


@pytest.mark.parametrize(
    ("params", "left"),
    [
        (None, {}),
        (b"null", {}),
        (b'{"uri":"a:","n":1E2}', {"uri": "a:", "n": 100.0}),
        (b'{"uri":"a:","_meta":{"x":1.0}}', {"uri": "a:", "_meta": {"x": 1.0}}),
        (b'{"_meta":null}', {}),
    ],
)
def test_a_listeners_notification_carries_its_subscription(params: bytes | None, left: dict[str, Any]) -> None:
    message = tagged("notifications/x", params, b'"s"')

    meta = left.pop("_meta", {}) | {ID: "s"}
    assert json.loads(message) == {"jsonrpc": "2.0", "method": "notifications/x", "params": left | {"_meta": meta}}
    for piece in (b"1E2", b"1.0"):
        assert (piece in message) is (piece in (params or b""))


def test_what_is_too_deep_to_be_read_is_tagged_in_front() -> None:
    message = tagged("notifications/x", b'{"a":' + TOO_DEEP + b"}", b"1")

    assert message.startswith(
        b'{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{"' + ID.encode() + b'":1},'
    )


@pytest.mark.parametrize(
    ("params", "left"),
    [
        (b'{"_meta":{"io.modelcontextprotocol/subscriptionId":1},"uri":"a:"}', b'{"uri":"a:"}'),
        (b'{"_meta":{"io.modelcontextprotocol/subscriptionId":1}}', b"{}"),
        (b'{"_meta":{"io.modelcontextprotocol/subscriptionId":1,"x":1E2}}', b'{"_meta":{"x":1E2}}'),
        (b'{ "uri" : "a:" }', b'{ "uri" : "a:" }'),
        (b'{"_meta":{}}', b'{"_meta":{}}'),
        (b'{"a":' + TOO_DEEP + b"}", b'{"a":' + TOO_DEEP + b"}"),
        (b"[]", b"[]"),
        (None, None),
    ],
)
def test_a_legacy_client_sees_no_subscription(params: bytes | None, left: bytes | None) -> None:
    assert untagged(params) == left


@pytest.mark.parametrize("raw_id", [b"1", b'"1"', b"12345678901234567890"])
def test_a_modern_servers_notification_names_the_listen_request(raw_id: bytes) -> None:
    assert subscription_of(b'{"_meta":{"io.modelcontextprotocol/subscriptionId":' + raw_id + b"}}") == raw_id
    assert subscription_of(b'{"_meta":{}}') is None
    assert subscription_of(None) is None


def test_a_subscription_that_ends_in_order_says_which() -> None:
    assert json.loads(b"{" + modern_to_legacy.listen_ended(b'"x"') + b"}") == {
        "result": {"resultType": "complete", "_meta": {ID: "x"}}
    }


def test_corral_listens_to_one_clients_resources_in_one_request() -> None:
    for given, uris in (("a:", ["a:"]), (["b:", "a:"], ["a:", "b:"])):
        params = legacy_to_modern.subscribe_listen(given)
        assert json.loads(params) == {"notifications": {"resourceSubscriptions": uris}}


@pytest.mark.parametrize(
    ("capabilities", "asked"),
    [
        (EVERYTHING, {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}),
        ({"prompts": {"listChanged": True}, "tools": {}}, {"promptsListChanged": True}),
    ],
)
def test_corral_listens_to_the_lists_that_may_change(capabilities: Any, asked: Any) -> None:
    assert json.loads(legacy_to_modern.list_listen(capabilities) or b"") == {"notifications": asked}


def test_corral_does_not_listen_where_no_list_changes() -> None:
    assert listening.list_listen({"tools": {}, "resources": {"subscribe": True}}) is None
