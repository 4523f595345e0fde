"""Text and JSON as Postgres takes them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.store.text import (
    JSON_MAX_DEPTH,
    LINE_MAX_BYTES,
    clean_json,
    clean_text,
    cut_line,
    is_clean,
    json_text,
)

any_text = st.text(st.characters())  # surrogates and NUL included


@given(any_text)
def test_clean_text_is_what_postgres_takes_and_says_whether_it_changed(text: str) -> None:
    cleaned, changed = clean_text(text)
    assert is_clean(cleaned)
    assert "\x00" not in cleaned
    cleaned.encode()
    assert changed == (cleaned != text)


def test_refused_characters_become_readable_escapes() -> None:
    assert clean_text("a\x00b\ud800c\udfffé\x1b") == ("a\\x00b\\ud800c\\udfffé\x1b", True)


@pytest.mark.parametrize("character", ["a", "é", "€", "😀", "\ud800"])
@pytest.mark.parametrize("excess", [-1, 0, 1, 2, 3, 5_000])
def test_a_line_is_cut_at_a_character_and_says_how_long_it_was(character: str, excess: int) -> None:
    width = len(character.encode("utf-8", "surrogatepass"))
    line = "x" * ((LINE_MAX_BYTES + excess) % width) + character * ((LINE_MAX_BYTES + excess) // width)
    size = len(line.encode("utf-8", "surrogatepass"))

    cut = cut_line(line)
    if size <= LINE_MAX_BYTES:
        assert cut is line
        return
    assert LINE_MAX_BYTES - 4 < len(cut.encode("utf-8", "surrogatepass")) <= LINE_MAX_BYTES
    kept, mark, rest = cut.partition(" … [cut: ")
    assert line.startswith(kept)
    assert (mark, rest) == (" … [cut: ", f"the line had {size} bytes]")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_any_value_becomes_json_text_without_what_postgres_refuses(value: object) -> None:
    text = json_text(value)
    assert is_clean(text)
    json.loads(text, parse_constant=pytest.fail)
    assert "\x00" not in str(json.loads(text))


def test_nesting_numbers_and_size_are_bounded() -> None:
    deep: object = "bottom"
    for _ in range(10_000):
        deep = [deep]
    assert json_text(deep).count("[") == JSON_MAX_DEPTH + 1  # the last one stands in the note
    assert clean_json(10**10_000) == hex(10**10_000)
    assert clean_json(2**64) == 2**64
    assert json.loads(json_text(["x" * 300_000])) == {"cut": "300004 bytes of JSON are more than is kept (262144)"}
