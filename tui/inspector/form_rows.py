"""Which lines a form has, given what is entered: headings, and fields with the kind of control that each has. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    from tui.inspector.form_values import Entries
    from tui.inspector.schema_form import Field, Key

Control = Literal["heading", "line", "lines", "json", "choice"]


@frozen(kw_only=True)
class FormRow:
    """One row. `key` is where its text stands among the entries; `options` are the labels of a choice."""

    key: Key
    control: Control
    label: str
    field: Field
    depth: int = 0
    options: tuple[str, ...] = ()
    required: bool = False
    note: str = ""
    secret: bool = False
    """What is typed is not shown."""


def rows_of(field: Field, entries: Entries, depth: int = 0) -> Iterator[FormRow]:
    """The rows of a field and of those below it that count just now."""
    if field.raw in entries:
        yield _row(field, "json", depth, key=field.raw)
    elif field.kind == "object":
        yield from _object(field, entries, depth)
    elif field.kind == "variants":
        yield _row(field, "choice", depth, options=tuple(variant.label for variant in field.variants))
        chosen = entries.get(field.key, "")
        if chosen:
            yield from rows_of(field.variants[int(chosen)], entries, depth + 1)
    elif field.kind == "choice":
        yield _row(field, "choice", depth, options=field.option_labels)
    else:
        yield _row(field, {"list": "lines", "json": "json"}.get(field.kind, "line"), depth)


def _object(field: Field, entries: Entries, depth: int) -> Iterator[FormRow]:
    if field.key:
        yield _row(field, "heading", depth)
    inner = depth + 1 if field.key else depth
    for child in field.children:
        yield from rows_of(child, entries, inner)
    if field.shows_rest or entries.get(field.rest):
        label = "other members" if field.children else field.label
        note = "a JSON object" + (": what has no field here" if field.children else "")
        yield FormRow(key=field.rest, control="json", label=label, field=field, depth=inner, note=note)


def _row(field: Field, control: str, depth: int, *, key: Key | None = None, options: tuple[str, ...] = ()) -> FormRow:
    hint = {"lines": "one a line", "json": "JSON"}.get(control, "")
    facts = ", ".join(part for part in (field.facts, hint) if part)
    name = field.key[-1] if field.key else ""
    return FormRow(
        key=field.key if key is None else key,
        control=control,  # type: ignore[arg-type]  # from the tables above
        label=field.label,
        field=field,
        depth=depth,
        options=options,
        required=field.required,
        note=" — ".join(part for part in (facts, field.note) if part),
        secret=isinstance(name, str) and field.schema.get("format") == "password",
    )
