"""JSON that passes through: what is looked at, and that the rest stays as it was written."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import rawjson

DEEP = b"[" * 50_000 + b"]" * 50_000


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (None, None),
        (b'{"a":[1,"x"]}', {"a": [1, "x"]}),
        (b'"\\ud83d\\ude00 \\ud83d \\\\ud83d"', "\U0001f600 \ufffd \\ud83d"),
        (b'{"\\udfff":1}', {"\ufffd": 1}),
        (b'"\xff"', None),
        (b"1e400", None),
        (b"1" * 5_000, None),
        (DEEP, None),
        (b"{", None),
        (b"", None),
    ],
)
def test_what_cannot_be_decoded_is_none_and_what_can_be_stored_is_kept(raw: bytes | None, value: Any) -> None:
    assert rawjson.decode_or_none(raw) == value


def test_the_members_of_an_object_stay_raw() -> None:
    found = rawjson.members(b'{"a": -0, "_\\u006deta": {"x": 1E2 }, "a": 1.0}')

    assert found is not None
    assert {name: bytes(raw) for name, raw in found.items()} == {"a": b"1.0", "_meta": b'{"x": 1E2 }'}
    assert rawjson.encode(found) == b'{"a":1.0,"_meta":{"x": 1E2 }}'


@pytest.mark.parametrize("raw", [b"[1]", b"1", b"null", b'{"a":NaN}', b'{"a":' + DEEP + b"}", b""])
def test_what_is_no_object_has_no_members(raw: bytes) -> None:
    assert rawjson.members(raw) is None


def test_half_a_surrogate_pair_is_looked_through() -> None:
    assert rawjson.members(b'{"a":"\\ud83d","b":[ 1E2,"\\\\ud83d"]}') == {
        "a": msgspec.Raw(b'"\\ud83d"'),
        "b": msgspec.Raw(b'[ 1E2,"\\\\ud83d"]'),
    }
    assert rawjson.items(b'["\\ud83d", {"a":1.0} ,-0]') == [b'"\\ud83d"', b'{"a":1.0}', b"-0"]
    assert rawjson.members(b'{"\\ud83d":1}') is None, "a name that cannot be text"


@pytest.mark.parametrize("raw", [b"{}", b"1", b"null", b"[1", b"[" + DEEP + b"]", b'["\\ud800",NaN]'])
def test_what_is_no_list_has_no_items(raw: bytes) -> None:
    assert rawjson.items(raw) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(JSON, max_size=4), st.sampled_from([None, 1]))
def test_items_are_the_very_bytes_between_the_commas(values: list[Any], indent: int | None) -> None:
    found = rawjson.items(json.dumps(values, indent=indent).encode())

    assert found is not None
    assert [json.loads(item) for item in found] == values


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_members_encode_again_to_what_they_were(values: dict[str, Any]) -> None:
    found = rawjson.members(json.dumps(values).encode())

    assert found is not None
    assert json.loads(rawjson.encode(found)) == values


def test_half_a_pair_in_a_value_hides_no_member_whose_name_has_a_whole_one() -> None:
    raw = b'{"\\ud83d\\ude00":1,"half":"\\ud83d"}'

    found = rawjson.members(raw)

    assert found is not None
    assert {name: bytes(value) for name, value in found.items()} == {"\U0001f600": b"1", "half": b'"\\ud83d"'}


@pytest.mark.parametrize(
    ("raw", "line"), [(b'{"a":\r\n1,\n"b":"\\n"}', b'{"a":  1, "b":"\\n"}'), (b"[1]", b"[1]"), (b"\r", b" ")]
)
def test_line_breaks_between_tokens_become_spaces(raw: bytes, line: bytes) -> None:
    assert rawjson.one_line(raw) == line
