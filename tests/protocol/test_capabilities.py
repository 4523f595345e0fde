"""What clients declare, what servers may therefore ask, and what servers offer across a bridge."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.protocol import capabilities
from controlplane.protocol.capabilities import capability_set, declared, for_modern_server, needed_by, offered, offers
from controlplane.protocol.handshake import Era, ProtocolFacts

FULL = {"roots", "roots.listChanged", "sampling", "sampling.tools", "sampling.context"}
FULL |= {"elicitation.form", "elicitation.url"}


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, set()),
        ({"roots": {}}, {"roots"}),
        ({"roots": {"listChanged": True}}, {"roots", "roots.listChanged"}),
        ({"roots": {"listChanged": "yes"}}, {"roots"}),
        ({"sampling": {}}, {"sampling"}),
        ({"sampling": {"tools": {}, "context": {}}}, {"sampling", "sampling.tools", "sampling.context"}),
        ({"sampling": {"tools": None, "video": {}}}, {"sampling"}),
        ({"elicitation": {}}, {"elicitation.form"}),
        ({"elicitation": {"form": {}}}, {"elicitation.form"}),
        ({"elicitation": {"url": {}}}, {"elicitation.url"}),
        ({"elicitation": {"form": {}, "url": {}}}, {"elicitation.form", "elicitation.url"}),
        ({"elicitation": {"applyDefaults": True}}, {"elicitation.form"}),
        ({"tasks": {"list": {}}, "experimental": {"x": {}}, "extensions": {}}, set()),
        ({"roots": None, "sampling": True, "elicitation": []}, set()),
    ],
)
def test_declared_capabilities_are_read_and_unknown_ones_left_out(given: Any, found: set[str]) -> None:
    assert capability_set(raw(given)) == found


@pytest.mark.parametrize("given", [None, b"", b"null", b"[]", b"5", b"{", b'{"roots":' + b"[" * 50_000])
def test_what_cannot_be_read_declares_nothing(given: bytes | None) -> None:
    assert capability_set(given) == frozenset()


def test_a_long_declaration_is_read_but_not_kept() -> None:
    capabilities._cached.cache_clear()
    given = raw({"sampling": {}, "experimental": {"x": {"y": "z" * capabilities.CACHED_MAX_BYTES}}})

    assert capability_set(given) == {"sampling"}
    assert capabilities._cached.cache_info().currsize == 0
    assert capability_set(b'{"sampling":{}}') is capability_set(b'{"sampling":{}}')


@pytest.mark.parametrize("given", [set(), {"roots"}, {"sampling"}, {"elicitation.url"}, {"elicitation.form"}, FULL])
def test_a_server_is_told_what_reads_back_as_the_same_set(given: set[str]) -> None:
    assert capability_set(raw(declared(frozenset(given)))) == given


def test_a_legacy_server_is_told_the_modes_by_name() -> None:
    assert declared(frozenset(FULL)) == {
        "roots": {"listChanged": True},
        "sampling": {"tools": {}, "context": {}},
        "elicitation": {"form": {}, "url": {}},
    }


@pytest.mark.parametrize(
    ("method", "params", "needed"),
    [
        ("roots/list", None, "roots"),
        ("sampling/createMessage", b'{"messages":[]}', "sampling"),
        ("sampling/createMessage", b'{"includeContext":"allServers"}', "sampling"),
        ("sampling/createMessage", b'{"tools":[]}', "sampling.tools"),
        ("sampling/createMessage", b'{"toolChoice":{"mode":"auto"}}', "sampling.tools"),
        ("sampling/createMessage", b'{"tools":null}', "sampling"),
        ("elicitation/create", b'{"message":"?"}', "elicitation.form"),
        ("elicitation/create", b'{"mode":"form"}', "elicitation.form"),
        ("elicitation/create", b'{"mode":"url"}', "elicitation.url"),
        ("elicitation/create", b'{"mode":"voice"}', "elicitation.voice"),
        ("elicitation/create", b'{"mode":{}}', "elicitation.{}"),
        ("elicitation/create", None, "elicitation.form"),
        ("ping", None, None),
        ("tools/call", b"{}", None),
    ],
)
def test_what_a_client_must_have_declared_to_be_asked(method: str, params: bytes | None, needed: str | None) -> None:
    assert needed_by(method, params) == needed


def test_a_modern_server_hears_what_a_legacy_client_declared_but_for_tasks_and_root_changes() -> None:
    given = (
        b'{"roots":{"listChanged":true},"sampling":{"context":{}},"tasks":{"list":{}},"experimental":{"x":{"n":1E2}},'
        b'"extensions":{"io.modelcontextprotocol/tasks":{},"io.modelcontextprotocol/ui":{"v":1.0}}}'
    )

    told = for_modern_server(given)

    assert json.loads(told) == {
        "roots": {},
        "sampling": {"context": {}},
        "experimental": {"x": {"n": 100.0}},
        "extensions": {"io.modelcontextprotocol/ui": {"v": 1.0}},
    }
    assert b"1E2" in told
    assert b"1.0" in told
    for unreadable in (None, b"[]", b"null", b'{"roots":' + b"[" * 50_000):
        assert for_modern_server(unreadable) == b"{}"


SERVER = {
    "tools": {"listChanged": True},
    "completions": {},
    "logging": {},
    "resources": {"subscribe": True},
    "tasks": {"requests": {}},
    "extensions": {"io.modelcontextprotocol/tasks": {}, "com.example/x": {}},
}


def test_all_but_tasks_crosses_the_bridge() -> None:
    facts = ProtocolFacts(era=Era.LEGACY, version="2025-11-25", capabilities=SERVER)

    assert offered(facts, native=True) == SERVER
    assert offered(facts, native=False) == {
        "tools": {"listChanged": True},
        "completions": {},
        "logging": {},
        "resources": {"subscribe": True},
        "extensions": {"com.example/x": {}},
    }


@pytest.mark.parametrize("era", [Era.BARE, Era.LEGACY])
def test_a_server_without_a_handshake_is_taken_to_have_tools(era: Era) -> None:
    for native in (True, False):
        assert offered(ProtocolFacts(era=era), native=native) == {"tools": {}}
        assert offered(ProtocolFacts(era=era, capabilities={"prompts": {}}), native=native) == {"prompts": {}}
    assert offered(ProtocolFacts(era=Era.LEGACY, version="2025-06-18"), native=True) == {}


def test_a_feature_is_offered_only_by_a_flag_that_is_true() -> None:
    assert offers(SERVER, "resources", "subscribe")
    assert not offers(SERVER, "resources", "listChanged")
    assert not offers({"tools": {"listChanged": "true"}}, "tools", "listChanged")
    assert not offers({"tools": True}, "tools", "listChanged")
