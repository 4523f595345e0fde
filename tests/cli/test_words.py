"""The pure parts: units, harmless text, clients' files."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli.inputs import parse_jsonc
from controlplane.packing.servers import Entry, NotServers, entries_of, name_of
from controlplane.wire.text import clean, clean_json, clean_lines
from controlplane.wire.units import count, duration, mebibytes, millis, parse_duration, parse_moment, percent

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("1H 30M", 5400),
        ("7d", 604_800),
        ("2w", 1_209_600),
    ],
)
def test_durations_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "soon", "-5m", "5 minutes", "0", "0s", "1e9", "nan", "9" * 400, "5x"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("15m", "2026-11-22T11:45:00.000Z"),
        ("2026-11-22T13:00:00+02:00", "2026-11-22T11:00:00.000Z"),
        ("2026-11-22T11:00:00.5Z", "2026-11-22T11:00:00.500Z"),
    ],
)
def test_a_moment_is_a_duration_ago_or_a_time(text, moment):
    assert parse_moment(text, NOW) == moment


def test_a_moment_before_all_time_is_refused():
    with pytest.raises(ValueError, match="neither a duration"):
        parse_moment("99999999d", NOW)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (duration(0.44), "0.4s"),
        (duration(59.6), "1m"),
        (duration(125), "2m5s"),
        (duration(7200), "2h"),
        (duration(90_061), "1d1h"),
        (duration(None), "-"),
        (millis(3.21), "3.2ms"),
        (millis(250.4), "250ms"),
        (millis(12_000), "12s"),
        (mebibytes(84.4), "84M"),
        (mebibytes(20_480), "20.0G"),
        (percent(0.04), "0.0%"),
        (percent(99.6), "100%"),
        (count(12_345), "12,345"),
        (count(None), "-"),
    ],
)
def test_numbers_are_short(shown, expected):
    assert shown == expected


@given(st.text())
def test_clean_text_is_one_line_that_a_terminal_only_shows(text):
    shown = clean(text)
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F or 0xD800 <= ord(char) <= 0xDFFF for char in shown)
    assert not set(shown) & set("\u2028\u2029\u202a\u202e\u2066\ufeff")
    shown.encode()


INVISIBLE = "\U000e0049\U000e0067\u180e\u115f\u3164\ufffc"
"""Letters of the tag block, which models read and people do not see, and others that take no place."""


@pytest.mark.parametrize("char", INVISIBLE)
def test_what_nobody_can_see_is_made_visible(char):
    assert clean(f"a{char}b").isascii()
    shown = clean_json(json.dumps({"a": char}, ensure_ascii=False).encode())
    assert shown.isascii()
    assert json.loads(shown) == {"a": char}


@given(st.text())
def test_clean_lines_lose_no_line_and_no_plain_word(text):
    assert "".join(clean_lines("x\n" + text + "\ny")[:1]) == "x"
    assert clean_lines("a\nb\r\nc\rd\n") == ["a", "b", "c", "d"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON_VALUES)
def test_clean_json_means_the_same(value):
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if b"\xed" not in body:
        assert json.loads(clean_json(body)) == value
    assert "\u009b" not in clean_json(body)


# --- mcp.json

FILE = """\ufeff{
  // a comment, and a URL in a string below
  "mcpServers": {
    "Memory Server": {"command": "npx", "args": ["-y", "srv", "https://x/*y*/"], },
    "gh": {"type": "stdio", "command": "${BIN:-gh}", "env": {"T": "${env:GH_TOKEN}", "U": "${GH_TOKEN}x"}}, /* two
    lines */
    "remote": {"type": "http", "url": "https://x"},
    "sse": {"url": "https://x"},
    "off": {"command": "x", "disabled": true},
    "ask": {"command": "x", "env": {"K": "${input:key}"}},
    "unset": {"command": "x", "args": ["${NOT_SET}"]},
    "empty": {},
    "bad": 3,
    "--": {"command": "x"},
  }
}"""


def test_a_clients_file_becomes_requests_and_reasons():
    entries = entries_of(parse_jsonc(FILE.encode(), "f"), {"GH_TOKEN": "t0ken"})
    assert entries[0].request == {
        "name": "memory-server",
        "source_type": "mcp_config",
        "mcp_config": {"command": "npx", "args": ["-y", "srv", "https://x/*y*/"]},
    }
    assert entries[1].request["mcp_config"] == {"command": "gh", "env": {"T": "t0ken", "U": "t0kenx"}}
    assert [(entry.name, entry.skipped, entry.reason.split(":")[0]) for entry in entries[2:]] == [
        ("remote", True, "a remote server"),
        ("sse", True, "a remote server"),
        ("off", True, "disabled in the file"),
        ("ask", False, "it asks for the input 'key'"),
        ("unset", False, "the variable NOT_SET is not set here"),
        ("empty", False, 'it has no "command"'),
        ("bad", False, "not an object"),
        ("--", False, "its name holds no letter or digit"),
    ]
    assert "t0ken" not in repr(entries)


@pytest.mark.parametrize(
    "document", [{"servers": {"a": {"command": "x"}}}, {"mcp": {"servers": {"a": {"command": "x"}}}}]
)
def test_vs_code_spells_it_servers(document):
    assert [entry.name for entry in entries_of(document, {})] == ["a"]


@pytest.mark.parametrize("document", [[], {}, {"mcpServers": []}, "x", None])
def test_another_document_is_refused(document):
    with pytest.raises(NotServers, match="mcpServers"):
        entries_of(document, {})


def test_an_error_in_a_clients_file_keeps_its_place():
    with pytest.raises(click.UsageError, match="line 3 column 8"):
        parse_jsonc(b'{ // one\n/* two\n*/ "a" 1}', "f")


@given(st.text(min_size=1))
def test_an_instance_name_is_one_that_the_api_takes_or_none(key):
    name = name_of(key)
    assert name == "" or (
        len(name) <= 63 and name.strip("-") == name and name.replace("-", "a").isalnum() and name.isascii()
    )


def test_an_entry_shows_no_secret():
    assert "hidden" not in repr(Entry("a", "a", {"env": "hidden"}))
