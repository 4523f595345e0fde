"""Trace context in `params._meta`: read, and put in without touching what others wrote."""

from __future__ import annotations

import json

import pytest

from controlplane.core.tracecontext import TraceContext, parse
from controlplane.protocol.trace_meta import context_of, context_of_body, name_in, said_in, with_context

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-00"
CONTEXT = parse(PARENT)
assert CONTEXT is not None
OURS = b'"_meta":{"traceparent":"' + PARENT.encode() + b'"}'


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (None, b"{" + OURS + b"}"),
        (b"{}", b"{" + OURS + b"}"),
        (b'{"a": 1.10, "b":1e999,"a":2}', b"{" + OURS + b',"a": 1.10, "b":1e999,"a":2}'),
        (b' { "name" : "x" }', b"{" + OURS + b',"name" : "x" }'),
    ],
)
def test_without_a_meta_the_rest_stays_byte_for_byte(params: bytes | None, told: bytes) -> None:
    assert with_context(params, CONTEXT) == told


def test_a_servers_own_meta_is_kept_and_values_stay_as_they_were_written() -> None:
    params = b'{"arguments":{"n": 1.10, "_meta":{"x":1}},"_meta":{"progressToken": 7.0,"tracestate":"old=1","io/x":[1e999]},"z":-0}'

    told = with_context(params, CONTEXT)

    assert told is not None
    for kept in (b'{"n": 1.10, "_meta":{"x":1}}', b'"progressToken":7.0', b'"io/x":[1e999]', b'"z":-0'):
        assert kept in told
    assert b"old=1" not in told
    assert context_of(told) == CONTEXT


def test_a_state_goes_along() -> None:
    context = TraceContext("1" * 32, "2" * 16, 1, "vendor=a b")

    told = with_context(b"{}", context)

    assert json.loads(told or b"")["_meta"]["tracestate"] == "vendor=a b"
    assert parse(**json.loads(told or b"")["_meta"]) == parse(context.traceparent, context.state)


@pytest.mark.parametrize(
    "params", [b"[1,2]", b'"text"', b"1", b'{"_meta":7}', b'{"_meta":null,"a":1}', b'{"_meta":{}', b""]
)
def test_what_has_no_room_for_it_stays_as_it_is(params: bytes) -> None:
    assert with_context(params, CONTEXT) == params


def test_an_escaped_meta_is_found() -> None:
    assert (
        with_context(b'{"\\u005fmeta":{"a":1}}', CONTEXT)
        == b'{"_meta":{"a":1,"traceparent":"' + PARENT.encode() + b'"}}'
    )


@pytest.mark.parametrize("written", ["garbage", 7, None, {"a": 1}, PARENT.upper()])
def test_a_malformed_context_of_the_client_gives_way(written: object) -> None:
    params = json.dumps({"_meta": {"traceparent": written}}).encode()

    assert context_of(params) is None
    assert context_of(with_context(params, CONTEXT)) == CONTEXT


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (json.dumps({"method": "m", "params": {"_meta": {"traceparent": OTHER}}}), parse(OTHER)),
        (json.dumps({"method": "m", "params": {"arguments": {"_meta": {"traceparent": OTHER}}}}), None),
        (json.dumps([{"method": "m", "params": {"_meta": {"traceparent": OTHER}}}]), None),
        ('{"traceparent"', None),
        ("[" * 10_000 + '"traceparent"', None),
    ],
)
def test_a_messages_own_context_is_that_of_its_params(body: str, found: TraceContext | None) -> None:
    assert context_of_body(body.encode()) == found


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"method":"tools/call","params":{"name":"add"}}', ("tools/call", "add")),
        (b'{"method":"prompts/get","params":{"name":"p"}}', ("prompts/get", "p")),
        (b'{"method":"tools/list","params":{"name":"add"}}', ("tools/list", "")),
        (b'{"method":"tools/call","params":{"name":7}}', ("tools/call", "")),
        (b'{"method":"tools/call","params":[1]}', ("tools/call", "")),
        (b'{"method":7}', ("", "")),
        (b"[]", ("", "")),
        (b"\xff", ("", "")),
    ],
)
def test_what_a_span_is_named_after(body: bytes, said: tuple[str, str]) -> None:
    assert said_in(body) == said


def test_a_name_is_cut() -> None:
    assert len(name_in("tools/call", json.dumps({"name": "x" * 10_000}).encode())) == 128
