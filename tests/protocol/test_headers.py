"""Modern requests: what the body and the HTTP fields must say alike, and which era a message is of."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.jsonrpc import INVALID_PARAMS, INVALID_REQUEST
from controlplane.protocol.headers import (
    ModernRequest,
    check_accept,
    check_modern,
    header_text,
    is_legacy_version_header,
    is_modern,
    modern_request,
)
from controlplane.protocol.inbound import HEADER_MISMATCH, Refusal, read

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
UNSUPPORTED = -32022
META: dict[str, Any] = {VERSION: "2026-07-28", CAPABILITIES: {}}
SUPPORTED = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]


def body(method: str = "tools/list", *, meta: Any = META, raw_id: Any = 7, **params: Any) -> bytes:
    found = params if meta is None else params | {"_meta": meta}
    return json.dumps({"jsonrpc": "2.0", "id": raw_id, "method": method, "params": found}).encode()


def fields(method: str | None = "tools/list", version: str | None = "2026-07-28", **more: str) -> dict[bytes, bytes]:
    found = {"mcp-method": method, "mcp-protocol-version": version} | {
        name.replace("_", "-"): value for name, value in more.items()
    }
    return {name.encode(): value.encode() for name, value in found.items() if value is not None}


def refusal_of(sent: dict[bytes, bytes], posted: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        modern_request(sent, posted)
    assert caught.value.status == 400
    return caught.value


def encoded(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def test_a_request_in_order_comes_with_its_parts() -> None:
    posted = (
        b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"echo","arguments":{"n":1.0},'
        b'"_meta":{"io.modelcontextprotocol\\/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":'
        b'{"sampling":{}},"progressToken":1.0}}}'
    )

    request = modern_request(fields("tools/call", mcp_name="echo"), posted)

    assert isinstance(request, ModernRequest)
    assert (request.id, request.method, request.name) == (b'"x"', "tools/call", "echo")
    assert request.params == posted[posted.index(b'{"name"') : -1]
    assert {name: bytes(raw) for name, raw in request.meta.items()} == {
        VERSION: b'"2026-07-28"',
        CAPABILITIES: b'{"sampling":{}}',
        "progressToken": b"1.0",
    }
    assert bytes(request.members["arguments"]) == b'{"n":1.0}'


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "a b, c"}),
        ("prompts/get", {"name": "echo"}),
        ("resources/read", {"uri": "file:///projects/x.json?a=b"}),
    ],
)
def test_the_name_is_what_the_method_is_about(method: str, params: dict[str, str]) -> None:
    (name,) = params.values()

    request = modern_request(fields(method, mcp_name=name), body(method, **params))

    assert request is not None
    assert request.name == name
    refused = refusal_of(fields(method, mcp_name=name + "x"), body(method, **params))
    assert (refused.code, refused.id) == (HEADER_MISMATCH, b"7")
    assert refusal_of(fields(method), body(method, **params)).code == HEADER_MISMATCH


@pytest.mark.parametrize("method", ["tools/list", "completion/complete", "server/discover", "tasks/get", "x"])
def test_other_methods_need_no_name_and_none_is_looked_at(method: str) -> None:
    request = modern_request(fields(method, mcp_name="anything"), body(method, name="x", uri="y"))

    assert request is not None
    assert request.name is None


@pytest.mark.parametrize(
    "name", ["Hello, 世界", " padded ", "line1\nline2", "=?base64?literal?=", "plain", "☃", "", "\0"]
)
def test_a_name_may_come_in_base64(name: str) -> None:
    request = modern_request(fields("tools/call", mcp_name=encoded(name)), body("tools/call", name=name))

    assert request is not None
    assert request.name == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"us-west1", "us-west1"),
        (b"  us-west1\t", "us-west1"),
        (b"a\tb c", "a\tb c"),
        (b"", ""),
        (b"=?base64?SGVsbG8=?=", "Hello"),
        (b" =?base64?SGVsbG8=?= ", "Hello"),
        (b"=?base64??=", ""),
        (b"=?base64?SGVsbG8?=", None),
        (b"=?base64?SGVs!!!bG8=?=", None),
        (b"=?base64?SGVsbG9=?=", None),
        (b"=?base64?SGVs bG8=?=", None),
        (b"=?base64?/w==?=", None),
        (b"=?base64?SGVsbG8=?=, =?base64?SGVsbG8=?=", None),
        (b"=?base64?SGVsbG8=", "=?base64?SGVsbG8="),
        (b"=?base64?=", "=?base64?="),
        (b"=?BASE64?SGVsbG8=?=", "=?BASE64?SGVsbG8=?="),
        (b"SGVsbG8=", "SGVsbG8="),
        (b"caf\xc3\xa9", None),
        (b"a\x7fb", None),
        (b"a\x00b", None),
        (b"a\nb", None),
    ],
)
def test_a_field_stands_for_its_text(value: bytes, text: str | None) -> None:
    assert header_text(value) == text


@given(st.text(max_size=30))
def test_whatever_a_client_encodes_is_decoded(text: str) -> None:
    assert header_text(encoded(text).encode()) == text


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda inner: b"=?base64?" + inner + b"?="))
def test_any_field_stands_for_a_text_or_for_nothing(value: bytes) -> None:
    text = header_text(value)

    assert text is None or text == value.strip(b" \t").decode("latin-1") or value.strip(b" \t").startswith(b"=?base64?")


@pytest.mark.parametrize(
    ("sent", "posted"),
    [
        (fields(version=None), body()),
        (fields(version="2025-11-25"), body()),
        (fields(version="2099-01-01"), body()),
        (fields(version="2026-07-28, 2026-07-28"), body()),
        (fields(), body(meta=META | {VERSION: "2099-01-01"})),
        (fields(None), body()),
        (fields("prompts/list"), body()),
        (fields("TOOLS/LIST"), body()),
        (fields("tools/list, tools/list"), body()),
        (fields("tools/listé"), body("tools/listé")),
        (fields(encoded("tools/list")), body()),
        (fields("tools/call", mcp_name="Echo"), body("tools/call", name="echo")),
        (fields("tools/call", mcp_name="echo, echo"), body("tools/call", name="echo")),
        (fields("tools/call", mcp_name="=?base64?ZWNobw?="), body("tools/call", name="echo")),
        (fields("tools/call", mcp_name="café"), body("tools/call", name="café")),
        (fields("tools/call", mcp_name="echo"), body("tools/call")),
        (fields("tools/call", mcp_name="5"), body("tools/call", name=5)),
        (fields("tools/call", mcp_name=encoded("�")), body("tools/call", name="\ud800")),
        (fields("resources/read", mcp_name="a"), body("resources/read", name="a", uri="b")),
        (fields("prompts/list", version="2099-01-01"), body(meta=META | {VERSION: "2099-01-01"})),
    ],
)
def test_fields_that_do_not_say_what_the_body_says_are_refused(sent: dict[bytes, bytes], posted: bytes) -> None:
    refusal = refusal_of(sent, posted)

    assert (refusal.code, refusal.id) == (HEADER_MISMATCH, b"7")
    assert refusal.message.startswith("Header mismatch: ")


def test_white_space_around_a_field_is_none_of_its_value() -> None:
    """RFC 9110 section 5.5."""
    sent = {
        b"mcp-protocol-version": b" 2026-07-28\t",
        b"mcp-method": b"  tools/call ",
        b"mcp-name": b"\t echo  ",
    }

    assert modern_request(sent, body("tools/call", name="echo")) is not None


def test_a_mismatch_shows_both_values_but_not_all_of_long_ones() -> None:
    refusal = refusal_of(fields("tools/call", mcp_name="foo"), body("tools/call", name="bar"))
    assert refusal.message == "Header mismatch: Mcp-Name header value 'foo' does not match body value 'bar'"

    refusal = refusal_of(fields("tools/call", mcp_name="a" * 10_000), body("tools/call", name="b" * 1_000_000))
    assert len(refusal.body) < 1_000


@pytest.mark.parametrize(
    "meta",
    [
        None,
        {},
        [],
        "x",
        {VERSION: "2026-07-28"},
        {CAPABILITIES: {}},
        META | {CAPABILITIES: None},
        META | {CAPABILITIES: []},
        META | {VERSION: 20260728},
        META | {VERSION: None},
    ],
)
def test_a_request_without_its_envelope_is_malformed_whatever_its_fields_say(meta: Any) -> None:
    for sent in (fields(), fields("x"), fields(None), fields(version="2026-07-28, 2026-07-28")):
        refusal = refusal_of(sent, body(meta=meta))
        assert (refusal.code, refusal.id) == (INVALID_PARAMS, b"7")


def test_a_request_without_params_is_without_its_envelope() -> None:
    assert refusal_of(fields("ping"), b'{"jsonrpc":"2.0","id":1,"method":"ping"}').code == INVALID_PARAMS


def test_client_info_is_not_asked_for() -> None:
    assert modern_request(fields(), body()) is not None


@pytest.mark.parametrize("version", ["2099-01-01", "v999.0.0", "2025-11-25", ""])
def test_a_version_that_is_not_spoken_is_answered_with_those_that_are(version: str) -> None:
    refusal = refusal_of(fields(version=version), body(meta=META | {VERSION: version}))

    assert (refusal.code, refusal.id) == (UNSUPPORTED, b"7")
    assert refusal.data == {"supported": SUPPORTED, "requested": version}


@pytest.mark.parametrize("meta", [None, {"x": 1}, {VERSION: "2099-01-01"}, {CAPABILITIES: {}}])
def test_a_client_of_an_unknown_version_is_told_the_versions_though_its_envelope_is_none_of_ours(meta: Any) -> None:
    refusal = refusal_of(fields(None, version="2099-01-01"), body("initialize", meta=meta))

    assert (refusal.code, refusal.id) == (UNSUPPORTED, b"7")
    assert refusal.data == {"supported": SUPPORTED, "requested": "2099-01-01"}


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
def test_a_call_of_nothing_is_told_what_it_lacks(method: str) -> None:
    refusal = refusal_of(fields(method), body(method))

    assert (refusal.code, refusal.id) == (INVALID_PARAMS, b"7")


def test_a_notification_needs_no_envelope() -> None:
    posted = b'{"jsonrpc":"2.0","method":"notifications/cancelled"}'

    assert modern_request(fields(None), posted) is None
    refusal = refusal_of(fields(None, version="2099-01-01"), posted)
    assert (refusal.code, refusal.id) == (UNSUPPORTED, None)


@pytest.mark.parametrize("posted", [b'{"jsonrpc":"2.0","id":1,"result":{}}', b"[" + body() + b"]", b'{"id":1}'])
def test_responses_and_batches_are_no_modern_messages(posted: bytes) -> None:
    assert refusal_of(fields(), posted).code == INVALID_REQUEST


def test_of_parameters_that_come_twice_the_last_is_checked() -> None:
    posted = body("tools/call", name="b").replace(b'"name"', b'"name": "a", "name"')

    assert modern_request(fields("tools/call", mcp_name="b"), posted) is not None
    assert refusal_of(fields("tools/call", mcp_name="a"), posted).code == HEADER_MISMATCH


def test_half_a_surrogate_pair_in_the_arguments_is_no_matter() -> None:
    request = modern_request(
        fields("tools/call", mcp_name="e"), body("tools/call", name="e", arguments={"a": "\ud83d"})
    )

    assert request is not None
    assert bytes(request.members["arguments"]) == b'{"a": "\\ud83d"}'


@pytest.mark.parametrize(
    ("value", "legacy"),
    [
        (None, True),
        (b"2025-11-25", True),
        (b" 2025-06-18 ", True),
        (b"2025-03-26", True),
        (b"2024-11-05", True),
        (b"2026-07-28", False),
        (b"2024-10-07", False),
        (b"2025-11-25, 2025-11-25", False),
        (b"", False),
        (b"nonsense", False),
    ],
)
def test_a_known_legacy_version_or_none_leads_to_the_legacy_era(value: bytes | None, legacy: bool) -> None:
    assert is_legacy_version_header(value) is legacy


@pytest.mark.parametrize(
    ("sent", "posted", "modern"),
    [
        (fields(), body(), True),
        (fields(), body("initialize", meta=None), True),
        (fields(version="2099-01-01"), body(meta=None), True),
        (fields(version=None), body(meta=None), False),
        (fields(version=None), body("initialize", meta={"progressToken": 1}), False),
        (fields(version="2025-11-25"), body(meta=None), False),
        (fields(version=None), body(), True),
        (fields(version=None), body().replace(b"/protocolVersion", b"\\/protocolVersion"), True),
        (fields(version="2025-11-25"), body(), True),
        (fields(version="2025-11-25"), body(meta={VERSION: "2025-11-25"}), False),
        (fields(version=None), body(meta={VERSION: 5}), False),
        (fields(version=None), body(meta={CAPABILITIES: {}}), False),
        (fields(version=None, mcp_session_id="x"), body(), False),
        (fields(version=None), b'{"jsonrpc":"2.0","method":"n"}', False),
        (fields(version=None), b'{"jsonrpc":"2.0","id":1,"result":{}}', False),
    ],
)
def test_the_era_is_that_of_the_version_field_or_of_a_modern_envelope(
    sent: dict[bytes, bytes], posted: bytes, modern: bool
) -> None:
    assert is_modern(sent, read(posted)) is modern


def test_a_modern_request_without_its_version_field_is_told_so() -> None:
    sent = fields(version=None)
    message = read(body())

    assert is_modern(sent, message)
    with pytest.raises(Refusal) as caught:
        check_modern(sent, message)
    assert caught.value.message == "Header mismatch: the MCP-Protocol-Version header is missing"


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/json, text/event-stream",
        "text/event-stream,application/json",
        "Application/JSON;charset=utf-8, TEXT/*;q=0.5",
        "application/*, text/event-stream;q=0.001",
        "text/html, */*;q=0.1",
    ],
)
def test_a_client_that_takes_both_kinds_of_answer_is_accepted(accept: str | None) -> None:
    check_accept({} if accept is None else {b"accept": accept.encode()})


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "text/event-stream",
        "text/html",
        "application/json;q=0, */*",
        "text/*;q=0, */*",
        "*/*;q=0",
        "*/*;q=nan",
        "*/*;q=2",
        "*/*;q=",
        "application/json text/event-stream",
        ";,;",
        "\xff",
    ],
)
def test_a_client_that_does_not_is_told_so(accept: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_accept({b"accept": accept.encode("latin-1")})

    assert (caught.value.status, caught.value.code) == (406, INVALID_REQUEST)


TEXT = st.text(max_size=8)
VALUE = st.none() | st.booleans() | st.integers() | TEXT | st.just({}) | st.just([])


@given(
    st.dictionaries(st.sampled_from(["name", "uri", "x"]), VALUE),
    st.none() | VALUE | st.dictionaries(st.sampled_from([VERSION, CAPABILITIES, "x"]), VALUE | st.just("2026-07-28")),
    st.sampled_from(["tools/call", "resources/read", "tools/list", "\ud800", "é"]),
    st.dictionaries(
        st.sampled_from([b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"accept", b"mcp-session-id"]),
        st.binary(max_size=8) | st.sampled_from([b"2026-07-28", b"tools/call", b"tools/list", b"=?base64?YQ==?="]),
    ),
)
def test_any_request_is_taken_or_refused(
    params: dict[str, Any], meta: Any, method: str, sent: dict[bytes, bytes]
) -> None:
    posted = body(method, meta=meta, **params)
    try:
        message = read(posted)
        is_modern(sent, message)
        request = check_modern(sent, message)
        check_accept(sent)
    except Refusal as caught:
        refusal = json.loads(caught.body)
        assert refusal["id"] in (7, None)
        return
    assert request is not None
    assert json.loads(bytes(request.meta[VERSION])) == "2026-07-28"
    assert request.method.encode() == sent[b"mcp-method"].strip(b" \t")
