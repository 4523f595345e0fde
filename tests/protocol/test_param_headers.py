"""Arguments that a tool wants mirrored into HTTP fields: what it may ask for, and what a call must bring."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.protocol.headers import ModernRequest, modern_request
from controlplane.protocol.inbound import HEADER_MISMATCH, Refusal
from controlplane.protocol.param_headers import (
    MAX_PARAM_HEADERS,
    MAX_POSITIONS,
    ParamHeader,
    check_params,
    param_headers,
)

REGION = {"type": "string", "x-mcp-header": "Region"}
LIMIT = {"type": "integer", "x-mcp-header": "Limit"}
DRY = {"type": "boolean", "x-mcp-header": "Dry-Run"}


def tool(name: str = "sql", **properties: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", "properties": properties}}


def declared(*, schema: Any = None, **properties: Any) -> tuple[ParamHeader, ...]:
    """What one tool declares, given its properties or its whole schema."""
    one = tool(**properties) if schema is None else {"name": "sql", "inputSchema": schema}
    return param_headers([one]).get("sql", ())


def call(arguments: str | None) -> ModernRequest:
    meta = '{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}'
    inner = "" if arguments is None else f'"arguments":{arguments},'
    body = f'{{"jsonrpc":"2.0","id":"i","method":"tools/call","params":{{"name":"sql",{inner}"_meta":{meta}}}}}'
    fields = {b"mcp-protocol-version": b"2026-07-28", b"mcp-method": b"tools/call", b"mcp-name": b"sql"}
    request = modern_request(fields, body.encode())
    assert request is not None
    return request


def check(arguments: str | None, *headers: ParamHeader, **fields: str) -> None:
    told = {b"mcp-param-" + name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    check_params(told, headers, call(arguments))


def encoded(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


# -- what a tool may ask for


def test_annotated_properties_are_found_at_any_depth() -> None:
    found = param_headers(
        [
            tool(
                "sql", region=REGION, query={"type": "string"}, options={"type": "object", "properties": {"n": LIMIT}}
            ),
            tool("plain", query={"type": "string"}),
            tool("dry", dry=DRY),
        ]
    )

    assert set(found) == {"sql", "dry"}
    assert set(found["sql"]) == {
        ParamHeader("Mcp-Param-Region", b"mcp-param-region", ("region",)),
        ParamHeader("Mcp-Param-Limit", b"mcp-param-limit", ("options", "n")),
    }
    assert found["dry"] == (ParamHeader("Mcp-Param-Dry-Run", b"mcp-param-dry-run", ("dry",)),)


BAD = [
    ("an empty name", REGION | {"x-mcp-header": ""}),
    ("a name that is no token", REGION | {"x-mcp-header": "a b"}),
    ("a name with a line break", REGION | {"x-mcp-header": "a\r\n"}),
    ("a name that is not ASCII", REGION | {"x-mcp-header": "é"}),
    ("a name with a colon", REGION | {"x-mcp-header": "a:"}),
    ("no name", REGION | {"x-mcp-header": None}),
    ("a number for a name", REGION | {"x-mcp-header": 5}),
    ("a number", {"type": "number", "x-mcp-header": "N"}),
    ("an object", {"type": "object", "x-mcp-header": "N"}),
    ("an array", {"type": "array", "x-mcp-header": "N"}),
    ("several types", {"type": ["string", "null"], "x-mcp-header": "N"}),
    ("no type", {"x-mcp-header": "N"}),
    ("the name of another, in other letters", REGION | {"x-mcp-header": "rEGION"}),
    ("an item of an array", {"type": "array", "items": REGION | {"x-mcp-header": "N"}}),
    ("one of alternatives", {"oneOf": [{"type": "string"}, REGION | {"x-mcp-header": "N"}]}),
    ("a property of an alternative", {"anyOf": [{"properties": {"a": REGION | {"x-mcp-header": "N"}}}]}),
    ("a condition", {"if": REGION | {"x-mcp-header": "N"}}),
    ("a definition", {"$defs": {"a": REGION | {"x-mcp-header": "N"}}}),
    ("a pattern", {"patternProperties": {".*": REGION | {"x-mcp-header": "N"}}}),
    ("whatever else", {"additionalProperties": REGION | {"x-mcp-header": "N"}}),
]


@pytest.mark.parametrize("bad", [row[1] for row in BAD], ids=[row[0] for row in BAD])
def test_one_bad_annotation_voids_all_of_the_tool_and_of_no_other(bad: dict[str, Any]) -> None:
    found = param_headers([tool("a", region=REGION, bad=bad), tool("b", region=REGION)])

    assert set(found) == {"b"}


@pytest.mark.parametrize(
    "properties",
    [
        {"x-mcp-header": REGION},
        {"region": REGION, "other": {"type": "string", "default": {"x-mcp-header": "a b"}}},
        {"region": REGION, "other": {"enum": [{"x-mcp-header": "a b"}], "examples": [{"x-mcp-header": 1}]}},
        {"region": REGION, "other": {"$ref": "#/$defs/a"}},
        {"region": REGION, "items": {"type": "string"}, "properties": {"type": "string"}},
    ],
)
def test_data_and_names_of_properties_are_no_annotations(properties: dict[str, Any]) -> None:
    assert [header.field for header in declared(**properties)] == [b"mcp-param-region"]


@pytest.mark.parametrize(
    "schema",
    [
        REGION,
        {"properties": [REGION]},
        {"type": "array", "items": {"properties": {"a": REGION}}},
        [],
        "x",
        True,
        {},
        {"properties": {"region": None}},
    ],
)
def test_a_schema_without_annotated_properties_asks_for_nothing(schema: Any) -> None:
    assert declared(schema=schema) == ()


@pytest.mark.parametrize("tools", [[], [None, 1, "x", []], [{}, {"name": 5}, {"name": "a"}, {"name": None}]])
def test_what_is_no_tool_is_passed_over(tools: list[Any]) -> None:
    assert param_headers(tools) == {}


def test_of_tools_of_one_name_the_last_one_counts() -> None:
    assert param_headers([tool("a", region=REGION), tool("a")]) == {}
    assert set(param_headers([tool("a"), tool("a", region=REGION)])) == {"a"}


def test_a_tool_cannot_ask_for_more_fields_than_a_head_holds() -> None:
    many = {f"p{n}": {"type": "string", "x-mcp-header": f"P{n}"} for n in range(MAX_PARAM_HEADERS + 1)}

    assert declared(**many) == ()
    del many["p0"]
    assert len(declared(**many)) == MAX_PARAM_HEADERS


@pytest.mark.parametrize(
    "filler",
    [
        {"properties": {str(n): {} for n in range(MAX_POSITIONS)}},
        {"properties": {"x": {"allOf": [0] * (4 * MAX_POSITIONS)}}},
    ],
)
def test_schemas_without_end_are_not_looked_through(filler: Any) -> None:
    before, after = tool("a", region=REGION), tool("c", region=REGION)

    assert set(param_headers([before, {"name": "b", "inputSchema": filler}, after])) == {"a"}


def test_a_schema_that_nests_deep_is_no_trouble() -> None:
    schema: Any = REGION
    for _ in range(2_000):
        schema = {"properties": {"a": schema}}
    (header,) = declared(schema=schema)

    check('{"a":' * 200 + "1" + "}" * 200, header)


# -- what a call must bring

(STRING,) = declared(region=REGION)
(INTEGER,) = declared(limit=LIMIT)
(BOOLEAN,) = declared(dry=DRY)
(NESTED,) = declared(a={"properties": {"b": {"properties": {"region": REGION}}}})


@pytest.mark.parametrize(
    ("arguments", "header", "value"),
    [
        ('{"region":"us-west1"}', STRING, "us-west1"),
        ('{"region":"us-west1"}', STRING, "  us-west1 "),
        ('{"region":"us\\u002dwest1"}', STRING, "us-west1"),
        ('{"region":"a, b"}', STRING, "a, b"),
        ('{"region":"Hello"}', STRING, encoded("Hello")),
        ('{"region":"Hello, 世界"}', STRING, encoded("Hello, 世界")),
        ('{"region":" padded "}', STRING, encoded(" padded ")),
        ('{"region":"=?base64?literal?="}', STRING, encoded("=?base64?literal?=")),
        ('{"region":"SGVsbG8="}', STRING, "SGVsbG8="),
        ('{"region":"=?base64?SGVsbG8="}', STRING, "=?base64?SGVsbG8="),
        ('{"region":""}', STRING, ""),
        ('{"region":"a","region":"b"}', STRING, "b"),
        ('{"region":"b","other":"\\ud800"}', STRING, "b"),
        ('{"limit":42}', INTEGER, "42"),
        ('{"limit":42}', INTEGER, "42.0"),
        ('{"limit":42.0}', INTEGER, "42"),
        ('{"limit":4.2e1}', INTEGER, "42"),
        ('{"limit":-7}', INTEGER, "-7"),
        ('{"limit":-0}', INTEGER, "0"),
        ('{"limit":0}', INTEGER, encoded("0")),
        ('{"limit":9007199254740993}', INTEGER, "9007199254740993"),
        ('{"limit":' + "1" * 400 + "}", INTEGER, "1" * 400),
        ('{"limit":"42"}', INTEGER, "42"),
        ('{"dry":true}', BOOLEAN, "true"),
        ('{"dry":false}', BOOLEAN, "false"),
        ('{"a":{"b":{"region":"x"}}}', NESTED, "x"),
    ],
)
def test_a_field_that_says_what_the_argument_says_is_accepted(arguments: str, header: ParamHeader, value: str) -> None:
    name = header.field.decode().removeprefix("mcp-param-")
    check(arguments, header, **{name: value})

    with pytest.raises(Refusal) as caught:
        check(arguments, header)
    assert (caught.value.status, caught.value.code, caught.value.id) == (400, HEADER_MISMATCH, b'"i"')


@pytest.mark.parametrize(
    ("arguments", "header", "value"),
    [
        ('{"region":"us-west1"}', STRING, "us-west2"),
        ('{"region":"us-west1"}', STRING, "US-WEST1"),
        ('{"region":"us-west1"}', STRING, "us-west1, us-west1"),
        ('{"region":"Hello"}', STRING, "=?base64?SGVsbG8?="),
        ('{"region":"Hello"}', STRING, "=?base64?SGVs!!!bG8=?="),
        ('{"region":"é"}', STRING, "é"),
        ('{"region":" x"}', STRING, " x"),
        ('{"region":"=?base64?YQ==?="}', STRING, "=?base64?YQ==?="),
        ('{"region":"42"}', STRING, "42.0"),
        ('{"region":"true"}', STRING, "True"),
        ('{"limit":42}', INTEGER, "43"),
        ('{"limit":42}', INTEGER, "42.5"),
        ('{"limit":42}', INTEGER, "4.2e1"),
        ('{"limit":42}', INTEGER, "+42"),
        ('{"limit":42}', INTEGER, "0x2a"),
        ('{"limit":42}', INTEGER, "42, 42"),
        ('{"limit":42}', INTEGER, "٤٢"),
        ('{"limit":42}', INTEGER, ""),
        ('{"limit":1e400}', INTEGER, "1"),
        ('{"limit":1e99999999999999999999}', INTEGER, "1"),
        ('{"limit":9007199254740993}', INTEGER, "9007199254740992"),
        ('{"limit":true}', INTEGER, "1"),
        ('{"dry":true}', BOOLEAN, "false"),
        ('{"dry":true}', BOOLEAN, "TRUE"),
        ('{"dry":1}', BOOLEAN, "true"),
        ('{"a":{"b":{"region":"x"}}}', NESTED, "y"),
    ],
)
def test_a_field_that_says_something_else_is_refused(arguments: str, header: ParamHeader, value: str) -> None:
    with pytest.raises(Refusal) as caught:
        check(arguments, header, **{header.field.decode().removeprefix("mcp-param-"): value})

    assert (caught.value.code, caught.value.id) == (HEADER_MISMATCH, b'"i"')


@pytest.mark.parametrize(
    "arguments",
    [None, "null", "[]", '"x"', "{}", '{"region":null}', '{"region":{}}', '{"region":["x"]}', '{"region":"\\ud800"}'],
)
def test_what_no_field_can_say_has_no_field(arguments: str | None) -> None:
    check(arguments, STRING)

    with pytest.raises(Refusal) as caught:
        check(arguments, STRING, region="x")
    assert caught.value.code == HEADER_MISMATCH


@pytest.mark.parametrize(
    "arguments", ["{}", '{"a":null}', '{"a":[]}', '{"a":{"b":5}}', '{"a":{"b":{}}}', '{"region":"x"}']
)
def test_an_argument_is_only_looked_for_at_its_path(arguments: str) -> None:
    check(arguments, NESTED)


def test_fields_that_the_tool_does_not_name_are_nobodys_business() -> None:
    check('{"region":"x"}', other="y")
    check('{"region":"x"}', STRING, region="x", other="y")


def test_all_of_a_tools_fields_are_checked() -> None:
    check('{"region":"x","limit":1,"dry":false}', STRING, INTEGER, BOOLEAN, region="x", limit="1", dry_run="false")

    with pytest.raises(Refusal) as caught:
        check('{"region":"x","limit":1,"dry":false}', STRING, INTEGER, BOOLEAN, region="x", limit="1")
    assert caught.value.message == "Header mismatch: the Mcp-Param-Dry-Run header is missing"


def test_a_long_value_is_not_shown_in_full() -> None:
    with pytest.raises(Refusal) as caught:
        check('{"region":"' + "a" * 100_000 + '"}', STRING, region="b" * 10_000)

    assert len(caught.value.body) < 1_000


@given(st.text(max_size=20) | st.integers() | st.booleans())
def test_a_value_that_a_client_mirrors_by_the_book_is_accepted(value: str | int) -> None:
    rendered = value if isinstance(value, str) else json.dumps(value)
    (header,) = declared(v={"type": "string", "x-mcp-header": "V"})

    check(json.dumps({"v": value}), header, v=encoded(rendered))
    if isinstance(value, str):
        with pytest.raises(Refusal):
            check(json.dumps({"v": value}), header, v=encoded(value + "x"))


KEYWORDS = st.sampled_from(["properties", "items", "allOf", "$defs", "x-mcp-header", "type", "default"])
SCHEMA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["string", "integer", "Region", "a b", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(SCHEMA, SCHEMA)
def test_any_schema_and_any_arguments_are_taken_or_refused(schema: Any, arguments: Any) -> None:
    headers = declared(schema=schema)
    assert all(header.path and header.field.startswith(b"mcp-param-") for header in headers)
    with suppress(Refusal):
        check(json.dumps(arguments), *headers, region="1")
