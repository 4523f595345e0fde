"""Schemas as forms: what becomes a field, what is entered, and that nothing is lost or raised on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tui.inspector import schema_form as forms
from tui.inspector.form_checks import can_try, complaint
from tui.inspector.form_rows import rows_of
from tui.inspector.form_values import assembled, beginning, filled
from tui.inspector.schema_form import MISSING, flat, form_of

NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "value": {"type": "string"}}}
RICH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 2, "description": "a\ntext"},
        "count": {"type": ["integer", "null"], "minimum": 1},
        "share": {"type": "number", "exclusiveMaximum": 1},
        "flag": {"type": "boolean", "default": True},
        "pick": {"enum": ["x", 1, None]},
        "titled": {"oneOf": [{"const": "a", "title": "Letter A"}, {"const": "b"}]},
        "fixed": {"const": "v1"},
        "lines": {"type": "array", "items": {"type": "string"}},
        "picks": {"type": "array", "items": {"enum": ["p", "q"]}},
        "inner": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        "either": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"deep": {"type": "integer"}}}]},
        "node": {"$ref": "#/$defs/node"},
        "merged": {"allOf": [{"type": "object", "properties": {"m": {"type": "string"}}}, {"required": ["m"]}]},
        "odd": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["text"],
    "$defs": {"node": NODE},
}


def kinds(schema: Any) -> dict[str, str]:
    return {str(field.key[-1]): field.kind for field in form_of(schema).children}


def test_each_kind_of_schema_becomes_the_field_that_suits_it() -> None:
    assert kinds(RICH) == {
        "text": "string",
        "count": "integer",
        "share": "number",
        "flag": "choice",
        "pick": "choice",
        "titled": "choice",
        "fixed": "choice",
        "lines": "list",
        "picks": "list",
        "inner": "object",
        "either": "variants",
        "node": "object",
        "merged": "object",
        "odd": "json",
    }


def test_required_fields_come_first_and_texts_are_one_clean_line() -> None:
    schema = {"properties": {"b": {}, "a\x1b": {"description": "x\ny\u202e"}}, "required": ["a\x1b"]}
    first = form_of(schema).children[0]
    assert (first.label, first.note, first.required) == ("a\\x1b", "x y\\u202e", True)


@pytest.mark.parametrize(
    "value",
    [
        {"text": "hello"},
        {"text": "two\nlines", "count": None, "share": 0.25, "flag": False, "pick": None, "titled": "b"},
        {"text": "", "lines": [], "picks": ["q", "p"], "inner": {"a": 3, "more": [1]}},
        {"text": 5, "count": "many", "lines": ["a\nb"], "picks": ["other"], "inner": "none", "either": {"deep": 4}},
        {
            "text": "x",
            "either": "plain",
            "node": {"next": {"next": {"value": "v"}}},
            "odd": [{}],
            "unknown": {"a": None},
        },
        {"text": "x", "count": 123456789012345678901234567890, "inner": {}, "node": {}, "flag": 1},
    ],
)
def test_a_value_survives_the_way_into_a_form_and_back(value: Any) -> None:
    form = form_of(RICH)
    assert assembled(form, filled(form, value)).value == value
    assert json.dumps(assembled(form, filled(form, value)).value, sort_keys=True) == json.dumps(value, sort_keys=True)


def test_a_form_begins_with_defaults_and_with_choices_that_are_none() -> None:
    schema = {"properties": {"a": {"default": 5, "type": "integer"}, "k": {"const": "z"}}, "required": ["k"]}
    form = form_of(schema)
    assert assembled(form, beginning(form)).value == {"a": 5, "k": "z"}


@pytest.mark.parametrize(
    ("entries", "key", "text"),
    [
        ({}, ("text",), "is required"),
        ({("text",): "a"}, ("text",), "has 1 characters, at least 2 are wanted"),
        ({("text",): "ab", ("count",): "1.5"}, ("count",), "expected a whole number"),
        ({("text",): "ab", ("count",): "0"}, ("count",), "must be at least 1"),
        ({("text",): "ab", ("share",): "1"}, ("share",), "must be less than 1"),
        ({("text",): "ab", ("picks",): "p\nz"}, ("picks",), "line 2 is none of the choices"),
        ({("text",): "ab", ("odd",): "[1"}, ("odd",), "is no JSON: line 1, column 3: Expecting ',' delimiter"),
    ],
)
def test_what_is_wrong_is_told_by_its_field_and_sent_as_near_as_it_comes(
    entries: dict[Any, str], key: tuple[str], text: str
) -> None:
    outcome = assembled(form_of(RICH), entries)
    assert (outcome.problems[0].key, outcome.problems[0].text) == (key, text)
    assert isinstance(outcome.value, dict)


def test_a_variant_shows_its_fields_and_no_others() -> None:
    form = form_of(RICH)
    assert [row.label for row in rows_of(form, {("either",): "1"}) if row.key[:1] == ("either",)] == [
        "either",
        "object",
        "deep",
    ]


def test_a_value_that_does_not_fit_is_shown_as_json() -> None:
    form = form_of(RICH)
    row = next(row for row in rows_of(form, filled(form, {"text": 5})) if row.label == "text")
    assert (row.control, row.key) == ("json", ("text", forms.RAW))


def nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"in": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        "x",
        {"type": 5, "properties": [], "required": {}, "enum": "no"},
        {"properties": {"a": None, "b": True, "c": {"enum": []}, "d": {"oneOf": []}, "e": {"type": [[], {}]}}},
        {"properties": {"self": {"$ref": "#"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"properties": {"x": {"$ref": 5}, "y": {"$ref": "#/nowhere"}, "z": {"$ref": "https://example.com/"}}},
        {"properties": {"x": {"allOf": [{"$ref": "#"}, 3]}}},
        nested(200),
        {"properties": {f"p{n}": {"anyOf": [nested(9), nested(9), nested(9)]} for n in range(1000)}},
        {"properties": {"n": {"minimum": "x", "maxLength": [], "pattern": "(", "format": {}, "multipleOf": 0}}},
    ],
)
def test_no_schema_is_too_odd_or_too_large(schema: Any) -> None:
    form = form_of(schema)
    assert sum(1 for _ in flat(form)) <= forms.MAX_FIELDS + 40
    entries = beginning(form)
    assert len(list(rows_of(form, entries))) <= forms.MAX_FIELDS + 40
    for value in ({}, {"n": 5, "a": [1], "self": {"self": {}}, "p1": {"in": {"in": 3}}}, {"n": "text"}):
        assert assembled(form, filled(form, value)).value in (value, MISSING)


def test_members_beyond_the_bound_are_written_as_json() -> None:
    form = form_of({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1000)}})
    assert len(form.children) < forms.MAX_FIELDS
    assert form.shows_rest


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", r"(x)\1", "a+b+c+d+", "(", "a" * 300])
def test_a_pattern_that_may_take_long_is_left_to_the_server(pattern: str) -> None:
    assert not can_try(pattern, "aaaa")
    assert complaint({"pattern": pattern}, "a" * 100 + "!") == ""


@pytest.mark.parametrize(
    ("schema", "value", "wrong"),
    [
        ({"pattern": "^a+$"}, "b", 'does not match "^a+$"'),
        ({"format": "email"}, "nobody", "is no email"),
        ({"format": "uuid"}, "1", "is no uuid"),
        ({"format": "date"}, "2026-02-30", "is no date"),
        ({"format": "made-up"}, "x", ""),
        ({"type": "integer"}, True, "expected integer, got boolean"),
        ({"type": "integer"}, 2.0, ""),
        ({"type": "number"}, 2, ""),
        ({"type": "array", "uniqueItems": True}, [1, 1], "must not hold an item twice"),
        ({"type": "array", "maxItems": 1}, [1, 2], "has 2 items, at most 1 are wanted"),
        ({"multipleOf": 5}, 7, "must be a multiple of 5"),
    ],
)
def test_checks_say_what_is_wrong(schema: dict[str, Any], value: Any, wrong: str) -> None:
    assert complaint(schema, value) == wrong
