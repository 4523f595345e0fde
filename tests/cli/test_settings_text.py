"""Settings files changed by insertion: what was there stays, to the byte."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli.inputs import parse_jsonc
from controlplane.cli.jsonc import NotJsonc, with_item, with_member
from controlplane.cli.tomltext import NotToml, with_table

ENTRY = {"url": "http://x/mcp/a", "headers": {"Authorization": "Bearer t"}}
PATH = ("servers", "a")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def read(text):
    return parse_jsonc(text.encode(), "x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "{}",
        "{\n}\n",
        '{"theme": "dark"}',
        '{\n  "theme": "dark"\n}\n',
        '{\n\t"theme": "dark",\n\t"servers": {}\n}\n',
        '{\n  "servers": {\n    "b": {"url": "y"}\n  }\n}\n',
        '{\n  // mine\n  "servers": {\n    "b": {"url": "y"}, // last\n  },\n}\n',
        "{ /* none yet */ }",
        '{"servers": {"b": 1, "a": 2}, "servers": {}}',
        '\ufeff{\r\n  "theme": "dark"\r\n}\r\n',
        '{"note": "a // no comment, } and \\" {"}',
    ],
)
def test_a_member_is_set_and_the_rest_stays(text):
    written = with_member(text, PATH, ENTRY)

    before = read(text) if text.strip() else {}
    assert read(written) == {**before, "servers": {**before.get("servers", {}), "a": ENTRY}}
    assert all(comment in written for comment in re.findall(r"// \w+|/\*.*?\*/", text))
    assert with_member(written, PATH, ENTRY) == written


def test_a_new_member_is_written_as_its_neighbours_are():
    text = '{\r\n    "servers": {\r\n        "b": {"url": "y"}, // last\r\n    }, // all\r\n}\r\n'
    assert with_member(text, PATH, {"url": "x"}) == (
        '{\r\n    "servers": {\r\n        "b": {"url": "y"}, // last\r\n'
        '        "a": {\r\n            "url": "x"\r\n        },\r\n    }, // all\r\n}\r\n'
    )


def test_a_comma_goes_before_a_comment_behind_the_last_member():
    text = '{\n  "servers": {\n    "b": {"url": "y"} // no comma\n  }\n}\n'
    written = with_member(text, PATH, {"url": "x"})
    assert '"b": {"url": "y"}, // no comma\n    "a": {' in written


def test_only_the_value_of_a_member_that_is_there_is_changed():
    text = '{"servers": {/* 1 */ "a" /* 2 */ : {"old": 1} /* 3 */, "b": 1}}'
    assert with_member(text, PATH, 7) == '{"servers": {/* 1 */ "a" /* 2 */ : 7 /* 3 */, "b": 1}}'


def test_an_item_is_added_to_an_array_or_the_array_made():
    assert read(with_item("{}", ("inputs",), {"id": 1})) == {"inputs": [{"id": 1}]}
    assert read(with_item('{"inputs": []}', ("inputs",), 1)) == {"inputs": [1]}
    assert with_item('{\n  "inputs": [\n    1 // one\n  ]\n}', ("inputs",), 2) == (
        '{\n  "inputs": [\n    1, // one\n    2\n  ]\n}'
    )


@pytest.mark.parametrize(
    "text",
    [
        "{", "[", "nonsense", '{"a": }', '{"a" 1}', "{a: 1}", '{"a": 1 "b": 2}', '{"servers": 1}', "[]", '{} {}',
        '{"a": 01}', '{"a": "\n"}', "// only a comment", "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused(text):
    with pytest.raises(NotJsonc):
        with_member(text, PATH, ENTRY)


def test_a_refusal_says_where():
    with pytest.raises(NotJsonc, match="line 3 column 3: a comma or } was expected"):
        with_member('{\n  "a": 1\n  "b": 2\n}', PATH, 1)


@given(document=st.dictionaries(st.text(max_size=5), VALUES, max_size=4), indent=st.sampled_from([None, 1, 4, "\t"]))
def test_any_document_keeps_all_it_had(document, indent):
    document.pop("servers", None)
    written = with_member(json.dumps(document, indent=indent, ensure_ascii=False), PATH, ENTRY)
    assert json.loads(written) == {**document, "servers": {"a": ENTRY}}


TOML = """model = "x" # mine

[mcp_servers.b] # b
command = "b"

# about the end
[tui]
theme = "dark"
"""


def test_a_table_is_added_at_the_end():
    written = with_table(TOML, ("mcp_servers", "a"), {"url": "u", "http_headers": {"X-Y": "z"}, "args": ["1"]})
    assert written.startswith(TOML)
    assert tomllib.loads(written)["mcp_servers"]["a"] == {"url": "u", "http_headers": {"X-Y": "z"}, "args": ["1"]}


def test_a_table_is_replaced_where_it_stood_with_all_below_it():
    text = TOML.replace("# about", '[mcp_servers.b.env]\nK = "v"\n\n# about')
    written = with_table(text, ("mcp_servers", "b"), {"url": "u"})
    assert written == TOML.replace('[mcp_servers.b] # b\ncommand = "b"\n', '[mcp_servers.b]\nurl = "u"\n')


def test_names_are_quoted_where_they_must_be():
    written = with_table("", ("mcp_servers", 'a b"c'), {"url": 'q"\\\n\x7f'})
    assert tomllib.loads(written) == {"mcp_servers": {'a b"c': {"url": 'q"\\\n\x7f'}}}


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "mcp_servers = 1",
        "mcp_servers = {}",
        'mcp_servers = { a = { url = "y" } }',
        '[mcp_servers]\na = { url = "y" }',
        'mcp_servers.a.url = "y"',
        'note = """\n[mcp_servers.a]\n"""\n[mcp_servers]\na.url = "y"',
    ],
)
def test_a_table_that_stands_in_another_way_is_left_to_its_owner(text):
    with pytest.raises(NotToml):
        with_table(text, ("mcp_servers", "a"), {"url": "u"})


@given(text=st.text(alphabet="[]mcp_servers.ab=\"\n #{}'", max_size=60))
def test_no_text_is_damaged(text):
    try:
        before = tomllib.loads(text)
        written = with_table(text, ("mcp_servers", "a"), {"url": "u"})
    except (NotToml, tomllib.TOMLDecodeError):
        return
    after = tomllib.loads(written)
    assert after.pop("mcp_servers")["a"] == {"url": "u"}
    assert after == {name: value for name, value in before.items() if name != "mcp_servers"}
