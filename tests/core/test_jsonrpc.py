"""JSON-RPC envelopes: what a line is taken for, and that what it carries passes through byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import jsonrpc, rawjson
from controlplane.core.jsonrpc import Garbled, Message, Notification, Request, Response, parse

DEEP = b"[" * 50_000 + b"]" * 50_000


def answer(member: bytes, *, raw_id: bytes = b"17") -> bytes:
    return b'{"jsonrpc":"2.0","id":' + raw_id + b',"result":' + member + b"}"


MESSAGES: list[tuple[str, bytes, Message | None]] = [
    ("a result", b'{"jsonrpc":"2.0","id":17,"result":{"a":1}}', Response(b"17", b'"result":{"a":1}', is_error=False)),
    (
        "an error",
        b'{"jsonrpc":"2.0","id":17,"error":{"code":1}}',
        Response(b"17", b'"error":{"code":1}', is_error=True),
    ),
    ("a null result", b'{"id":17,"result":null}', Response(b"17", b'"result":null', is_error=False)),
    ("a null error alone", b'{"id":17,"error":null}', Response(b"17", b'"error":null', is_error=True)),
    (
        "a result beside a null error is a result",
        b'{"id":17,"result":[1],"error":null}',
        Response(b"17", b'"result":[1]', is_error=False),
    ),
    (
        "an error beside a null result is an error",
        b'{"id":17,"result":null,"error":{"code":-1}}',
        Response(b"17", b'"error":{"code":-1}', is_error=True),
    ),
    (
        "both null is a null result",
        b'{"id":1,"error":null,"result":null}',
        Response(b"1", b'"result":null', is_error=False),
    ),
    ("both at once is an error", b'{"id":1,"result":1,"error":{}}', Response(b"1", b'"error":{}', is_error=True)),
    ("members in any order", b'{"result":1,"jsonrpc":"2.0","id":17}', Response(b"17", b'"result":1', is_error=False)),
    ("a string id", b'{"id":"17","result":1}', Response(b'"17"', b'"result":1', is_error=False)),
    ("a float id", b'{"id":17.0,"result":1}', Response(b"17.0", b'"result":1', is_error=False)),
    ("a null id", b'{"id":null,"error":{"code":-32700}}', Response(b"null", b'"error":{"code":-32700}', is_error=True)),
    ("a huge id", b'{"id":%d,"result":1}' % 10**400, Response(b"%d" % 10**400, b'"result":1', is_error=False)),
    ("an object for an id", b'{"id":{"a":1},"result":1}', Response(b'{"a":1}', b'"result":1', is_error=False)),
    ("a bare result", b'{"result":{"tools":[]}}', Response(None, b'"result":{"tools":[]}', is_error=False)),
    ("a bare error", b'{"error":"no"}', Response(None, b'"error":"no"', is_error=True)),
    ("a bare result with a version", b'{"jsonrpc":"2.0","result":1}', Response(None, b'"result":1', is_error=False)),
    ("a log line with an error in it", b'{"level":"warn","msg":"slow","error":"timeout"}', None),
    ("a log line with a result in it", b'{"time":1,"result":"ok"}', None),
    ("a request", b'{"jsonrpc":"2.0","id":1,"method":"ping"}', Request(b"1", "ping", None)),
    ("a request with params", b'{"id":"x","method":"m","params":[1]}', Request(b'"x"', "m", b"[1]")),
    ("a request with an answer in it is a request", b'{"id":1,"method":"m","result":1}', Request(b"1", "m", None)),
    ("a notification", b'{"method":"n","params":{"a":1}}', Notification("n", b'{"a":1}')),
    ("a notification by a sloppy serializer", b'{"id":null,"method":"n","params":{}}', Notification("n", b"{}")),
    (
        "an answer by a sloppy serializer",
        b'{"id":5,"method":null,"params":null,"result":{},"error":null}',
        Response(b"5", b'"result":{}', is_error=False),
    ),
    ("a method with a line break and quotes", b'{"method":"a\\n\\"b\\""}', Notification('a\n"b"', None)),
    (
        "the last of duplicate members",
        b'{"id":1,"id":2,"result":1,"result":2}',
        Response(b"2", b'"result":2', is_error=False),
    ),
    ("a byte order mark", b'\xef\xbb\xbf{"id":1,"result":1}', Response(b"1", b'"result":1', is_error=False)),
    ("byte order marks without end", b"\xef\xbb\xbf" * 50_000, None),
    ("white space around", b' \t{ "id" : 1 , "result" : [ 1 ] } \r', Response(b"1", b'"result":[ 1 ]', is_error=False)),
    ("text", b"Listening on port 3000", None),
    ("nothing", b"", None),
    ("an array", b'[{"id":1,"result":1}]', None),
    ("a number", b"17", None),
    ("an object that is no message", b'{"id":1}', None),
    ("an empty object", b"{}", None),
    ("a method that is no string", b'{"id":1,"method":5}', None),
    ("two objects on a line", b'{"id":1,"result":1}{"id":2,"result":2}', Garbled(b"1")),
    ("half a line", b'{"jsonrpc":"2.0","id":17,"res', None),
    ("a method that is not UTF-8", b'{"method":"\xff"}', None),
    ("params that are not UTF-8", b'{"method":"n","params":"\xff"}', None),
    ("params nested without end", b'{"method":"n","params":' + DEEP + b"}", None),
]


@pytest.mark.parametrize(("line", "expected"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_a_line_is_taken_for_what_it_says(line: bytes, expected: Message | None) -> None:
    assert parse(line) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"-0",
        b"-0.0",
        b"1e308",
        b"1E+400",
        b"9223372036854775808",
        b"18446744073709551616",
        b"1" * 5_000,
        b"0.1000000000000000055511151231257827",
        b'"\\u0000\\u00e9\\/"',
        '"☃ \u2028"'.encode(),
        b'{"b":1,"a":2,"a":3,"__proto__":{}}',
        b"[1 ,  2]",
    ],
)
def test_values_pass_through_as_they_were_written(value: bytes) -> None:
    assert parse(answer(value)) == Response(b"17", b'"result":' + value, is_error=False)
    assert parse(b'{"id":1,"error":{"data":' + value + b"}}") == Response(
        b"1", b'"error":{"data":' + value + b"}", is_error=True
    )
    assert parse(b'{"method":"n","params":' + value + b"}") == Notification("n", value)
    assert jsonrpc.request_line(1, "m", value) == b'{"jsonrpc":"2.0","id":1,"method":"m","params":' + value + b"}\n"


@pytest.mark.parametrize(
    "value",
    [
        b'"\\ud83d"',
        b'"cut in the middle: \\ud83d"',
        b'"\\udc80 first and \\uDBFF then"',
        b'{"\\ud800":["\\\\ud800","\\\\\\ud800","\\ud83d\\ude00"]}',
        '"☃\\udfff"'.encode(),
    ],
)
def test_half_a_surrogate_pair_is_valid_json_and_passes_through(value: bytes) -> None:
    """`JSON.stringify` and `json.dumps` write them, for a string cut in two or a file name that is no UTF-8."""
    assert parse(answer(value)) == Response(b"17", b'"result":' + value, is_error=False)
    assert parse(b'{"method":"n","params":' + value + b"}") == Notification("n", value)
    assert parse(b'{"id":1,"method":"m","params":' + value + b"}") == Request(b"1", "m", value)


@pytest.mark.parametrize(
    "line",
    [
        answer(b'"\xff"'),
        answer(b'"\xc3"'),
        answer(b'"\xed\xa0\x80"'),
        answer(b"NaN"),
        answer(b'{"mean":-Infinity}'),
        answer(b"[1,]"),
        answer(b'"\x01"'),
        answer(DEEP),
        b'{"jsonrpc": "2.0", "id": 17, "error": {"data": NaN}}',
        b'{"jsonrpc": "2.0", "result": {"mean": NaN}, "id": 17}',
        b'{"result":{"mean":NaN},"jsonrpc":"2.0","id":17}',
        b'{"id":17,"result":NaN}',
        b'{"jsonrpc":"2.0","id":17,"result":{"text":"cut off he',
    ],
)
def test_a_broken_answer_is_known_by_its_id(line: bytes) -> None:
    """Its caller is told at once, rather than left waiting for its time limit."""
    assert parse(line) == Garbled(b"17")


def test_an_id_with_half_a_pair_is_echoed_as_it_is() -> None:
    assert parse(b'{"id":"\\ud800","method":"ping"}') == Request(b'"\\ud800"', "ping", None)
    assert parse(b'{"id":"\\ud800","result":1}') == Response(b'"\\ud800"', b'"result":1', is_error=False)


def test_half_of_a_broken_pair_and_broken_text_is_broken() -> None:
    assert parse(answer(b'"\\ud800\xff"')) == Garbled(b"17")


def test_a_long_hostile_line_is_not_looked_at_twice() -> None:
    many = b'"' + b"\\ud800" * (rawjson.SECOND_LOOK_MAX_BYTES // 6 + 1) + b'"'

    assert parse(answer(many)) == Garbled(b"17")
    assert parse(b'{"method":"n","params":' + many + b"}") is None


@pytest.mark.parametrize(
    ("raw_id", "expected"),
    [
        (b"17", 17),
        (b'"17"', 17),
        (b"17.0", 17),
        (b"1.7e1", 17),
        (b"17.5", -1),
        (b"-17", -1),
        (b"null", -1),
        (b"true", -1),
        (b'""', -1),
        (b'"x17"', -1),
        (b'"corral"', -1),
        (b"[17]", -1),
        (b"{}", -1),
        (b"1e400", -1),
        (b"1" * 30, -1),
        (b"1" * 100_000, -1),
        ('"²"'.encode(), -1),
        (b'"nan"', -1),
        (b'"infinity"', -1),
    ],
)
def test_an_id_of_ours_is_known_again_however_it_is_echoed(raw_id: bytes, expected: int) -> None:
    assert jsonrpc.own_id(raw_id) == expected


TEXT = st.text(st.characters(), max_size=20)
"""Any text that JSON can write, half surrogate pairs included."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.integers(0, 2**62), TEXT, st.none() | st.dictionaries(TEXT, JSON, max_size=4), st.sampled_from([None, 1]))
def test_a_request_is_one_line_that_reads_as_what_was_asked(
    wire_id: int, method: str, params: dict[str, Any] | None, indent: int | None
) -> None:
    raw = None if params is None else json.dumps(params, indent=indent).encode()

    line = jsonrpc.request_line(wire_id, method, raw)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    expected = {"jsonrpc": "2.0", "id": wire_id, "method": method}
    assert json.loads(line) == (expected if params is None else expected | {"params": params})


@given(st.integers(0, 2**59), JSON, st.booleans())
def test_an_answer_comes_out_as_it_went_in(wire_id: int, value: Any, is_error: bool) -> None:
    raw = json.dumps(value).encode()
    name = b'"error"' if is_error else b'"result"'

    message = parse(b'{"jsonrpc":"2.0","id":%d,%b:%b}' % (wire_id, name, raw))

    assert message == Response(b"%d" % wire_id, name + b":" + raw, is_error=is_error)
    assert jsonrpc.own_id(message.id or b"") == wire_id


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\und8017.eE-+ resultidmothp').map(str.encode))
def test_no_bytes_make_the_reader_fail(line: bytes) -> None:
    message = parse(line)
    jsonrpc.decode_or_none(line)

    if isinstance(message, Request):
        jsonrpc.error_line(message.id, -32601, message.method)
    if isinstance(message, Response):
        jsonrpc.own_id(message.id or b"")
        jsonrpc.member_value(message.member)


def test_a_method_cannot_smuggle_in_a_second_line() -> None:
    line = jsonrpc.request_line(17, 'x"}\r\n{"jsonrpc":"2.0","id":1,"method":"y', b'{"a":\r\n1}')

    assert line.count(b"\n") == 1
    assert json.loads(line)["method"] == 'x"}\r\n{"jsonrpc":"2.0","id":1,"method":"y'


def test_a_method_with_half_a_surrogate_pair_is_sent_as_it_is() -> None:
    assert json.loads(jsonrpc.request_line(1, "a\ud800b", None))["method"] == "a\ud800b"
    assert json.loads(jsonrpc.error_line(b"1", -32601, "a\ud800b"))["error"]["message"] == "a\ud800b"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (jsonrpc.notification_line("n"), {"jsonrpc": "2.0", "method": "n"}),
        (jsonrpc.notification_line("n", {"a": [1]}), {"jsonrpc": "2.0", "method": "n", "params": {"a": [1]}}),
        (jsonrpc.result_line(b'"a"', {}), {"jsonrpc": "2.0", "id": "a", "result": {}}),
        (jsonrpc.result_line(b'{"a":\n1}', []), {"jsonrpc": "2.0", "id": {"a": 1}, "result": []}),
        (
            jsonrpc.error_line(b"1", -5, 'no "x"\n'),
            {"jsonrpc": "2.0", "id": 1, "error": {"code": -5, "message": 'no "x"\n'}},
        ),
    ],
)
def test_what_corral_says_itself_is_one_line_each(line: bytes, expected: dict[str, Any]) -> None:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == expected


@pytest.mark.parametrize(
    ("member", "code"),
    [
        (b'"error":{"code":-32601,"message":"no"}', -32601),
        (b'"error":{"code":true}', None),
        (b'"error":{"code":"-32601"}', None),
        (b'"error":{"code":-32601.5}', None),
        (b'"error":{}', None),
        (b'"error":"no"', None),
        (b'"error":null', None),
        (b'"error":' + DEEP, None),
    ],
)
def test_an_errors_code_is_a_whole_number_or_nothing(member: bytes, code: int | None) -> None:
    assert jsonrpc.error_code(member) == code
