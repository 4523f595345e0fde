"""Era detection as a table: what each answer leads to, in whatever order answers come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.jsonrpc import Response, parse
from controlplane.protocol.handshake import (
    INITIALIZE_ID,
    LEGACY_VERSIONS,
    META,
    MODERN_VERSION,
    PROBE_ID,
    Era,
    Handshake,
    ProtocolFacts,
    Ready,
    Refused,
    SendInitialize,
    Step,
    Wait,
    initialize_params,
    modern_meta,
)

TIMEOUT = "the probe stays unanswered"
"""In a script: nothing came in time."""


def reply(text: str) -> Response:
    message = parse(text.encode())
    assert isinstance(message, Response)
    return message


def result(number: int | str, value: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": value})


def error(number: int | str | None, code: Any, message: str = "no", **data: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message, **data}})


def walk(*script: str) -> list[Step]:
    handshake = Handshake()
    return [handshake.on_probe_timeout() if line is TIMEOUT else handshake.on_reply(reply(line)) for line in script]


DISCOVERED = result(
    PROBE_ID,
    {
        "resultType": "complete",
        "supportedVersions": [MODERN_VERSION],
        "capabilities": {"tools": {"listChanged": True}},
        "instructions": "Be kind.",
        "_meta": {META + "serverInfo": {"name": "cow", "version": "3"}},
    },
)
MODERN = Ready(
    ProtocolFacts(
        era=Era.MODERN,
        version=MODERN_VERSION,
        server_info={"name": "cow", "version": "3"},
        capabilities={"tools": {"listChanged": True}},
        instructions="Be kind.",
    )
)
INITIALIZED = result(
    INITIALIZE_ID,
    {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "goat", "version": "1"},
        "instructions": "Chew.",
    },
)
LEGACY = Ready(
    ProtocolFacts(
        era=Era.LEGACY,
        version="2025-06-18",
        server_info={"name": "goat", "version": "1"},
        capabilities={"tools": {}},
        instructions="Chew.",
    )
)
UNKNOWN_PROBE = error(PROBE_ID, -32601)
REFUSED_VERSION = "the server speaks no protocol version that Corral does (it offers: 2027-01-01)"
OTHER_VERSION = error(PROBE_ID, -32022, data={"supported": ["2027-01-01"], "requested": MODERN_VERSION})

TABLE: list[tuple[str, tuple[str, ...], Step]] = [
    ("a modern server", (DISCOVERED,), MODERN),
    ("a modern server that echoes ids as strings", (DISCOVERED.replace('"id": 1', '"id": "1"'),), MODERN),
    ("a modern server that echoes ids as floats", (DISCOVERED.replace('"id": 1', '"id": 1.0'),), MODERN),
    (
        "a modern server that says little",
        (result(PROBE_ID, {"supportedVersions": [MODERN_VERSION]}),),
        Ready(ProtocolFacts(era=Era.MODERN, version=MODERN_VERSION)),
    ),
    (
        "a modern server that says nonsense about itself",
        (
            result(
                PROBE_ID, {"supportedVersions": [MODERN_VERSION], "capabilities": 5, "instructions": {}, "_meta": []}
            ),
        ),
        Ready(ProtocolFacts(era=Era.MODERN, version=MODERN_VERSION)),
    ),
    ("a modern server of a later age", (OTHER_VERSION,), Refused(REFUSED_VERSION)),
    (
        "a modern server that names no version",
        (error(PROBE_ID, -32022),),
        Refused("the server speaks no protocol version that Corral does (it offers: none named)"),
    ),
    (
        "a server that discovers only other versions",
        (result(PROBE_ID, {"supportedVersions": ["2025-11-25"]}),),
        SendInitialize(),
    ),
    ("a server that answers the probe with nonsense", (result(PROBE_ID, {"tools": []}),), SendInitialize()),
    ("a server that answers the probe with no object", (result(PROBE_ID, [MODERN_VERSION]),), SendInitialize()),
    ("the TypeScript SDK's legacy servers", (UNKNOWN_PROBE,), SendInitialize()),
    ("the Python SDK's legacy servers", (error(PROBE_ID, -32602),), SendInitialize()),
    ("a server that fails at the probe", (error(PROBE_ID, -32603),), SendInitialize()),
    ("a server whose error has no code", (error(PROBE_ID, "oops"),), SendInitialize()),
    ("a server that cannot read the probe and says so without an id", (error(None, -32700),), SendInitialize()),
    ("a silent server", (TIMEOUT,), SendInitialize()),
    ("a legacy server", (UNKNOWN_PROBE, INITIALIZED), LEGACY),
    (
        "a legacy server that echoes ids as strings",
        (UNKNOWN_PROBE, INITIALIZED.replace('"id": 2', '"id": "2"')),
        LEGACY,
    ),
    ("a legacy server that ignores the probe", (TIMEOUT, INITIALIZED), LEGACY),
    (
        "a legacy server that says little",
        (UNKNOWN_PROBE, result(INITIALIZE_ID, {})),
        Ready(ProtocolFacts(era=Era.LEGACY)),
    ),
    (
        "a server without a handshake",
        (UNKNOWN_PROBE, error(INITIALIZE_ID, -32601)),
        Ready(ProtocolFacts(era=Era.LEGACY)),
    ),
    (
        "a server that refuses the version",
        (UNKNOWN_PROBE, error(INITIALIZE_ID, -32602, "Unsupported protocol version")),
        Refused("the server refused initialize: Unsupported protocol version"),
    ),
    (
        "a server whose refusal has no words",
        (UNKNOWN_PROBE, json.dumps({"id": INITIALIZE_ID, "error": {"code": -5}})),
        Refused("the server refused initialize: -5"),
    ),
    (
        "a server that answers initialize with no object",
        (UNKNOWN_PROBE, result(INITIALIZE_ID, "hello")),
        Refused("the server's answer to initialize is not an object"),
    ),
    (
        "a bare server",
        ('{"error": {"code": -32601, "message": "Method not found"}}',),
        Ready(ProtocolFacts(era=Era.BARE)),
    ),
    ("a bare server that succeeds", ('{"result": {}}',), Ready(ProtocolFacts(era=Era.BARE))),
    ("a bare server that took its time", (TIMEOUT, '{"error": "no"}'), Ready(ProtocolFacts(era=Era.BARE))),
    ("answers to nobody", (result(99, {}), result("x", {}), result(16, DISCOVERED)), Wait()),
    ("babble, then a modern answer", (result(99, {}), error(98, -1), DISCOVERED), MODERN),
    ("a late modern answer", (TIMEOUT, DISCOVERED), MODERN),
    ("a late refusal of the probe", (TIMEOUT, UNKNOWN_PROBE), Wait()),
    ("a late refusal of the probe without an id", (TIMEOUT, error(None, -32700)), Wait()),
    ("a late probe answer, then initialize's", (TIMEOUT, UNKNOWN_PROBE, INITIALIZED), LEGACY),
    ("a late word of a later age", (TIMEOUT, OTHER_VERSION), Refused(REFUSED_VERSION)),
    (
        "a dual-era server that took the probe first",
        (TIMEOUT, error(INITIALIZE_ID, -32022), DISCOVERED),
        MODERN,
    ),
    ("a dual-era server whose probe answer is still to come", (TIMEOUT, error(INITIALIZE_ID, -32022)), Wait()),
    (
        "a modern server that failed at the probe",
        (error(PROBE_ID, -32603), error(INITIALIZE_ID, -32022, data={"supported": ["2027-01-01"]})),
        Refused(REFUSED_VERSION),
    ),
]


@pytest.mark.parametrize(("script", "last"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_handshake_ends_where_the_table_says(script: tuple[str, ...], last: Step) -> None:
    assert walk(*script)[-1] == last


REPLIES = st.sampled_from([line for _, script, _ in TABLE for line in script])


@given(st.lists(REPLIES, max_size=8))
def test_initialize_is_asked_for_once_at_most_whatever_comes(script: list[str]) -> None:
    assert sum(isinstance(step, SendInitialize) for step in walk(*script)) <= 1


def test_what_corral_says_of_itself_is_what_the_spec_asks_for() -> None:
    assert modern_meta("1.2") == {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "corral", "version": "1.2"},
    }
    assert initialize_params("1.2") == {
        "protocolVersion": LEGACY_VERSIONS[0],
        "capabilities": {},
        "clientInfo": {"name": "corral", "version": "1.2"},
    }
    assert list(LEGACY_VERSIONS) == sorted(LEGACY_VERSIONS, reverse=True)
