"""Envelopes: what is a message, what is refused and how, and that nothing in them is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controlplane.core import rawjson
from controlplane.core.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR
from controlplane.protocol.inbound import MAX_BATCH, Inbound, Refusal, read, read_batch, status_of

DEEP = b"[" * 50_000 + b"]" * 50_000
HUGE = b"1" * 400
REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


def refusal_of(body: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(body)
    return caught.value


MESSAGES = [
    ("a request", REQUEST, Inbound("request", b"1", "ping")),
    (
        "its params stay as they were written",
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1.0 , "b" : 1E400,"c":"\\/"}}',
        Inbound("request", b"1", "m", b'{"a":1.0 , "b" : 1E400,"c":"\\/"}'),
    ),
    ("an id of text", b'{"jsonrpc":"2.0","id":"1","method":"m"}', Inbound("request", b'"1"', "m")),
    ("a negative id", b'{"jsonrpc":"2.0","id":-7,"method":"m"}', Inbound("request", b"-7", "m")),
    ("a huge id", b'{"jsonrpc":"2.0","id":' + HUGE + b',"method":"m"}', Inbound("request", HUGE, "m")),
    ("an empty id of text", b'{"jsonrpc":"2.0","id":"","method":"m"}', Inbound("request", b'""', "m")),
    (
        "half a surrogate pair in an id",
        b'{"jsonrpc":"2.0","id":"\\ud83d","method":"m"}',
        Inbound("request", b'"\\ud83d"', "m"),
    ),
    (
        "half a surrogate pair in params",
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\\ud83d"}}',
        Inbound("request", b"1", "m", b'{"a":"\\ud83d"}'),
    ),
    ("a notification", b'{"jsonrpc":"2.0","method":"n","params":{}}', Inbound("notification", None, "n", b"{}")),
    (
        "a response",
        b'{"jsonrpc":"2.0","id":3,"result":{"x": 1.0}}',
        Inbound("response", b"3", member=b'"result":{"x": 1.0}'),
    ),
    (
        "an error response",
        b'{"jsonrpc":"2.0","id":"a","error":{"code":-1,"message":"no"}}',
        Inbound("response", b'"a"', member=b'"error":{"code":-1,"message":"no"}'),
    ),
    ("a null result", b'{"jsonrpc":"2.0","id":3,"result":null}', Inbound("response", b"3", member=b'"result":null')),
    (
        "a response by a serializer that writes every member",
        b'{"jsonrpc":"2.0","id":3,"method":null,"params":null,"result":{},"error":null}',
        Inbound("response", b"3", member=b'"result":{}'),
    ),
    (
        "an error response by such a serializer",
        b'{"jsonrpc":"2.0","id":3,"result":null,"error":{}}',
        Inbound("response", b"3", member=b'"error":{}'),
    ),
    (
        "a request by such a serializer",
        b'{"jsonrpc":"2.0","id":3,"method":"m","params":null,"result":null,"error":null}',
        Inbound("request", b"3", "m"),
    ),
    (
        "the last of members that come twice",
        b'{"jsonrpc":"1","id":1,"method":"a","params":[],"jsonrpc":"2.0","id":2,"method":"b","params":{}}',
        Inbound("request", b"2", "b", b"{}"),
    ),
    ("a version in escapes", b'{"jsonrpc":"2\\u002e0","method":"n"}', Inbound("notification", None, "n")),
    ("members of no meaning", b'{"jsonrpc":"2.0","method":"n","x":[1]}', Inbound("notification", None, "n")),
    ("white space", b' \r\n\t{ "jsonrpc" : "2.0" , "method" : "n" } \n', Inbound("notification", None, "n")),
    ("a method in escapes", b'{"jsonrpc":"2.0","method":"tools\\/call"}', Inbound("notification", None, "tools/call")),
    ("a method that is not ASCII", '{"jsonrpc":"2.0","method":"☃"}'.encode(), Inbound("notification", None, "☃")),
]


@pytest.mark.parametrize(("body", "expected"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_a_body_is_taken_for_what_it_says(body: bytes, expected: Inbound) -> None:
    assert read(body) == expected
    assert read_batch(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"not json",
        b'{"jsonrpc":"2.0","id":1,"method":"m"',
        REQUEST + REQUEST,
        REQUEST + b"x",
        b"\xef\xbb\xbf" + REQUEST,
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":01,"method":"m"}',
        b'{"jsonrpc":"2.0","id":+1,"method":"m"}',
        b"{'jsonrpc':'2.0'}",
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\xff"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m\xff"}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\xed\xa0\x80"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":' + DEEP + b"}}",
        b"[" * 100_000,
        b"[NaN]",
        b"[1",
        DEEP,
        b'{"a":1,}',
        b'{"a":"' + b"\\ud800" * (rawjson.SECOND_LOOK_MAX_BYTES // 6 + 1) + b'"}',
    ],
)
def test_what_is_no_json_is_refused_without_an_id(body: bytes) -> None:
    refusal = refusal_of(body)

    assert (refusal.status, refusal.code, refusal.id) == (400, PARSE_ERROR, None)
    assert json.loads(refusal.body) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": PARSE_ERROR, "message": refusal.message},
    }


@pytest.mark.parametrize(
    ("body", "raw_id"),
    [
        (b"1", None),
        (b'"x"', None),
        (b"null", None),
        (b"{}", None),
        (b'{"jsonrpc":"2.0"}', None),
        (b'{"jsonrpc":"2.0","id":1}', b"1"),
        (b'{"jsonrpc":"2.0","id":null,"method":"m"}', None),
        (b'{"jsonrpc":"2.0","id":1.0,"method":"m"}', None),
        (b'{"jsonrpc":"2.0","id":1e3,"method":"m"}', None),
        (b'{"jsonrpc":"2.0","id":true,"method":"m"}', None),
        (b'{"jsonrpc":"2.0","id":[1],"method":"m"}', None),
        (b'{"jsonrpc":"2.0","id":{},"method":"m"}', None),
        (b'{"id":"a","method":"m"}', b'"a"'),
        (b'{"jsonrpc":"1.0","id":"a","method":"m"}', b'"a"'),
        (b'{"jsonrpc":2.0,"id":5,"method":"m"}', b"5"),
        (b'{"jsonrpc":null,"id":5,"method":"m"}', b"5"),
        (b'{"jsonrpc":"2.0","id":5,"method":7}', b"5"),
        (b'{"jsonrpc":"2.0","id":5,"method":"\\ud800"}', b"5"),
        (b'{"jsonrpc":"2.0","id":5,"method":"m","result":{}}', b"5"),
        (b'{"jsonrpc":"2.0","id":5,"method":"m","error":{}}', b"5"),
        (b'{"jsonrpc":"2.0","id":5,"result":{},"error":{}}', b"5"),
        (b'{"jsonrpc":"2.0","result":{}}', None),
        (b'{"jsonrpc":"2.0","id":null,"error":{}}', None),
        (b'{"\\ud800":1}', None),
    ],
)
def test_json_that_is_no_message_is_refused_under_its_id_if_it_has_one(body: bytes, raw_id: bytes | None) -> None:
    refusal = refusal_of(body)

    assert (refusal.status, refusal.code, refusal.id) == (400, INVALID_REQUEST, raw_id)


@pytest.mark.parametrize("params", [b"[]", b"[1]", b'"x"', b"1", b"true"])
def test_params_must_be_an_object(params: bytes) -> None:
    refusal = refusal_of(b'{"jsonrpc":"2.0","id":9,"method":"m","params":' + params + b"}")

    assert (refusal.status, refusal.code, refusal.id) == (400, INVALID_PARAMS, b"9")


@pytest.mark.parametrize("body", [b"[]", b"[" + REQUEST + b"]", b" \n[1]"])
def test_a_batch_is_refused_where_there_are_none(body: bytes) -> None:
    assert refusal_of(body).code == INVALID_REQUEST


def test_a_batch_holds_its_messages_in_order_and_what_is_wrong_with_each() -> None:
    found = read_batch(
        b' [{"jsonrpc":"2.0","id":1,"method":"a"}, {"jsonrpc":"2.0","method":"b","params":{"x":"\\ud800"}},1,{},'
        b'{"jsonrpc":"2.0","id":"q","result":1},{"jsonrpc":"2.0","id":null,"method":"c"}]'
    )

    assert isinstance(found, list)
    assert found[0] == Inbound("request", b"1", "a")
    assert found[1] == Inbound("notification", None, "b", b'{"x":"\\ud800"}')
    assert [item.code for item in found if isinstance(item, Refusal)] == [INVALID_REQUEST] * 3
    assert found[4] == Inbound("response", b'"q"', member=b'"result":1')


def test_a_session_cannot_begin_in_a_batch() -> None:
    """MCP 2025-03-26, lifecycle: initialize must not be part of one, for other requests wait for it."""
    found = read_batch(b'[{"jsonrpc":"2.0","id":4,"method":"initialize","params":{}}]')

    assert isinstance(found, list)
    assert isinstance(found[0], Refusal)
    assert (found[0].code, found[0].id) == (INVALID_REQUEST, b"4")


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"[" + b",".join([REQUEST] * (MAX_BATCH + 1)) + b"]"])
def test_a_batch_is_neither_empty_nor_endless(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        read_batch(body)

    assert (caught.value.status, caught.value.code) == (400, INVALID_REQUEST)


@pytest.mark.parametrize("body", [b"[", b"[NaN]", b"[1]x", DEEP, b'["\xff"]', b"[" + REQUEST + b",]"])
def test_a_batch_that_is_no_json_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        read_batch(body)

    assert caught.value.code == PARSE_ERROR


def test_a_full_batch_is_read() -> None:
    assert read_batch(b"[" + b",".join([REQUEST] * MAX_BATCH) + b"]") == [Inbound("request", b"1", "ping")] * MAX_BATCH


def test_a_refusal_echoes_the_id_as_it_was_written_and_carries_its_data() -> None:
    refusal = Refusal(-32022, "no", HUGE, data={"supported": ["a"]})

    assert (
        refusal.body
        == b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32022,"message":"no","data":{"supported":["a"]}}}' % HUGE
    )
    assert (refusal.status, refusal.headers) == (400, ())


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, 200),
        (b'"result":{"error":{"code":-32601}}', 200),
        (b'"error":{"code":-32601,"message":"no"}', 404),
        (b'"error":{"code":-32602}', 400),
        (b'"error":{"code":-32021}', 400),
        (b'"error":{"code":-32603}', 200),
        (b'"error":{"code":7}', 200),
        (b'"error":{"code":"-32601"}', 200),
        (b'"error":null', 200),
        (-32700, 400),
        (-32600, 400),
        (-32020, 400),
        (-32022, 400),
        (-32601, 404),
        (-32000, 200),
    ],
)
def test_an_answer_has_the_status_that_its_error_code_asks_for(answer: bytes | int | None, status: int) -> None:
    assert status_of(answer) == status


TEXT = st.text(st.characters(), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
MEMBERS = st.dictionaries(
    st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "x"]), JSON | st.just("2.0"), max_size=7
)


def check_outcome(body: bytes) -> None:
    """Whatever comes in: a message whose parts are JSON, or a refusal that is one."""
    try:
        found = read_batch(body)
    except Refusal as refusal:
        found = [refusal]
    for item in found if isinstance(found, list) else [found]:
        if isinstance(item, Refusal):
            assert json.loads(item.body)["error"]["code"] == item.code
            continue
        for part in (item.id, item.params, item.member and b"{%b}" % item.member):
            assert part is None or json.loads(part) is not None or part == b"null"
        assert item.id != b"null"
        assert item.params is None or item.params.startswith(b"{")
    try:
        assert read(body) == found
    except Refusal:
        assert isinstance(found, list)


@given(st.binary(max_size=80) | st.text(alphabet='{}[]":,\\und8017.eE-+ jsonrpc2.0idmethoparamsult').map(str.encode))
@example(b'{"jsonrpc":"2.0","method":"m"}\x00')
def test_any_bytes_are_a_message_or_a_refusal(body: bytes) -> None:
    check_outcome(body)


@given(MEMBERS | st.lists(MEMBERS | JSON, max_size=4), st.sampled_from([None, 1]), st.booleans())
def test_any_json_is_a_message_or_a_refusal(value: Any, indent: int | None, escaped: bool) -> None:
    check_outcome(json.dumps(value, indent=indent, ensure_ascii=escaped).encode("utf-8", "surrogatepass"))


@given(st.integers() | TEXT, st.text(max_size=10), st.dictionaries(TEXT, JSON, max_size=4))
def test_a_request_comes_out_as_it_was_written(identity: int | str, method: str, params: dict[str, Any]) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": identity, "method": method, "params": params})

    message = read(body.encode())

    assert message == Inbound("request", json.dumps(identity).encode(), method, json.dumps(params).encode())
