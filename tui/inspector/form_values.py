"""What is entered in a form, and the value that it stands for: both ways. Pure.

Entries are texts by the keys of fields: a number as it is typed, a choice as the number of its option, a list as one
item a line, JSON as itself. A value that does not fit its field stands as JSON under the field's `raw` key, so nothing
is lost on the way from JSON into a form and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from tui.inspector.form_checks import complaint
from tui.inspector.jsontext import NotJson, kind_of, parse, pretty, same
from tui.inspector.schema_form import MISSING, Field, Key, Missing

Entries = Mapping[Key, str]
NO_NUMBER = {"integer": "expected a whole number", "number": "expected a number"}


@frozen
class Problem:
    """What is wrong with what stands in a field."""

    key: Key
    text: str


@frozen
class Assembled:
    """The value that the entries stand for, as near as they come to one, and all that is wrong with them."""

    value: Any
    problems: tuple[Problem, ...] = ()


def beginning(field: Field) -> dict[Key, str]:
    """The entries that a form begins with: the schema's defaults, and choices that are none."""
    if not isinstance(field.default, Missing):
        return filled(field, field.default)
    if field.kind == "object":
        found: dict[Key, str] = {}
        for child in field.children:
            found |= beginning(child)
        return found
    if field.kind == "variants" and field.required:
        return {field.key: "0"} | beginning(field.variants[0])
    if field.kind == "choice" and len(field.options) == 1 and field.required:
        return {field.key: "0"}
    return {}


def filled(field: Field, value: Any) -> dict[Key, str]:
    """The entries that stand for a value."""
    if isinstance(value, Missing):
        return {}
    if field.kind == "json":
        return {field.key: pretty(value)}
    if field.kind == "object" and isinstance(value, dict):
        return _filled_object(field, value)
    if field.kind == "variants":
        return _filled_variant(field, value)
    text = _text_of(field, value)
    return {field.raw: pretty(value)} if text is None else {field.key: text}


def assembled(field: Field, entries: Entries) -> Assembled:
    """The value that entries stand for; `MISSING` for none. Whatever is wrong is told, and sent as it is."""
    raw = entries.get(field.raw)
    if raw is not None:
        return _json(field, field.raw, raw)
    if field.kind == "object":
        return _object(field, entries)
    if field.kind == "variants":
        return _variant(field, entries)
    text = entries.get(field.key, "")
    if not text.strip():
        return _absent(field) if field.kind != "string" or not text else _checked(field, text)
    if field.kind == "json":
        return _json(field, field.key, text)
    if field.kind == "choice":
        return Assembled(field.options[int(text)])
    if field.kind == "list":
        return _list(field, text)
    return _scalar(field, text)


def _absent(field: Field) -> Assembled:
    return Assembled(MISSING, (Problem(field.key, "is required"),) if field.required else ())


def _checked(field: Field, value: Any, key: Key | None = None) -> Assembled:
    wrong = complaint(field.schema, value)
    return Assembled(value, (Problem(key or field.key, wrong),) if wrong else ())


def _json(field: Field, key: Key, text: str) -> Assembled:
    if not text.strip():
        return _absent(field)
    try:
        value = parse(text)
    except NotJson as error:
        return Assembled(text, (Problem(key, f"is no JSON: {error}"),))
    return _checked(field, value, key)


def _scalar(field: Field, text: str) -> Assembled:
    if field.kind == "string":
        return _checked(field, text)
    number = number_of(text)
    if number is None or (field.kind == "integer" and not isinstance(number, int)):
        return Assembled(text if number is None else number, (Problem(field.key, NO_NUMBER[field.kind]),))
    return _checked(field, number)


def number_of(text: str) -> int | float | None:
    """The number that a text is in JSON; None for none."""
    try:
        value = parse(text.strip())
    except NotJson:
        return None
    return value if kind_of(value) in ("integer", "number") else None


def _list(field: Field, text: str) -> Assembled:
    assert field.item is not None
    values: list[Any] = []
    wrong = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        value, said = _item(field.item, line)
        values.append(value)
        wrong = wrong or (said and f"line {number} {said}")
    checked = _checked(field, values)
    return Assembled(values, (Problem(field.key, wrong),)) if wrong else checked


def _item(item: Field, line: str) -> tuple[Any, str]:
    if item.kind == "choice":
        by_text = [option for option in item.options if line.strip() == _line_of(option)]
        return (by_text[0], "") if by_text else (line.strip(), "is none of the choices")
    outcome = _scalar(item, line if item.kind == "string" else line.strip())
    return outcome.value, outcome.problems[0].text if outcome.problems else ""


def _object(field: Field, entries: Entries) -> Assembled:
    value: dict[str, Any] = {}
    problems: list[Problem] = []
    for child in field.children:
        outcome = assembled(child, entries)
        problems += outcome.problems
        if not isinstance(outcome.value, Missing):
            value[str(child.key[-1])] = outcome.value
    rest = entries.get(field.rest, "")
    if rest.strip():
        try:
            more = parse(rest)
        except NotJson as error:
            return Assembled(value, (*problems, Problem(field.rest, f"is no JSON: {error}")))
        if not isinstance(more, dict):
            return Assembled(value, (*problems, Problem(field.rest, "is no object")))
        return Assembled({**more, **value}, tuple(problems))
    if not value and not field.required:
        return Assembled(MISSING)
    return Assembled(value, tuple(problems))


def _variant(field: Field, entries: Entries) -> Assembled:
    chosen = entries.get(field.key, "")
    return assembled(field.variants[int(chosen)], entries) if chosen else _absent(field)


def _filled_object(field: Field, value: dict[str, Any]) -> dict[Key, str]:
    found: dict[Key, str] = {}
    names = {child.key[-1] for child in field.children}
    for child in field.children:
        found |= filled(child, value.get(str(child.key[-1]), MISSING))
    rest = {name: inner for name, inner in value.items() if name not in names}
    if rest or not (value or field.required):
        found[field.rest] = pretty(rest)
    return found


def _filled_variant(field: Field, value: Any) -> dict[Key, str]:
    """Of the variant that the value fits best."""
    tried = [filled(variant, value) for variant in field.variants]
    misfits = [
        len(assembled(variant, entries).problems) + 2 * sum(variant.raw == key for key in entries)
        for variant, entries in zip(field.variants, tried, strict=True)
    ]
    best = misfits.index(min(misfits))
    return {field.key: str(best)} | tried[best]


def _text_of(field: Field, value: Any) -> str | None:
    """What stands in the field for a value; None when it cannot stand there."""
    if field.kind == "choice":
        return next((str(at) for at, option in enumerate(field.options) if same(option, value)), None)
    if field.kind == "list":
        return _lines_of(field, value)
    kind = kind_of(value)
    if field.kind == "string":
        return value if kind == "string" and value and value.isprintable() else None
    return pretty(value) if field.kind in ("integer", "number") and kind in ("integer", field.kind) else None


def _lines_of(field: Field, value: Any) -> str | None:
    assert field.item is not None
    if not isinstance(value, list) or not value:
        return None
    if field.item.kind == "choice":
        known = all(any(same(item, option) for option in field.item.options) for item in value)
        lines = [_line_of(item) for item in value] if known else []
    else:
        lines = [text for item in value if (text := _text_of(field.item, item)) is not None and text.strip()]
    return "\n".join(lines) if len(lines) == len(value) else None


def _line_of(option: Any) -> str:
    return option if isinstance(option, str) else pretty(option)
