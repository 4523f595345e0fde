"""JSON Schemas of the API's attrs classes, for the OpenAPI document.

msgspec reads the classes; what it cannot know is added from the fields'
metadata: the keywords that the converter enforces, and descriptions. Requests
are closed (an unknown member is refused); answers are open, since a later
version may say more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, get_args, get_origin

import attrs
import msgspec

from controlplane.wire.fields import OMITTED_WHEN_NONE

REF_TEMPLATE = "#/components/schemas/{name}"


def components(requests: Iterable[type], answers: Iterable[type]) -> dict[str, dict[str, Any]]:
    """The `components/schemas` member: every class named, and every class that these contain.

    Args:
        requests: Classes that bodies are parsed into.
        answers: Classes that answers are made of.
    """
    bodies = {cls.__name__ for cls in _closure(requests)}
    classes = list(_closure([*requests, *answers]))
    _, schemas = msgspec.json.schema_components(classes, ref_template=REF_TEMPLATE)
    for cls in classes:
        _complete(schemas[cls.__name__], cls, closed=cls.__name__ in bodies)
    return {name: schemas[name] for name in sorted(schemas)}


def reference(cls: type) -> dict[str, str]:
    """A `$ref` to one of the components."""
    return {"$ref": REF_TEMPLATE.format(name=cls.__name__)}


def property_of(attribute: attrs.Attribute[Any]) -> dict[str, Any]:
    """The schema of one scalar field by itself, as a query parameter needs it."""
    annotation = _not_null(attribute.type)
    if annotation is datetime:
        # RFC 3339 wants the zone; msgspec's reading of the type leaves that open.
        return _merged({"type": "string", "format": "date-time"}, _keywords(attribute))
    return _merged(_own_order(msgspec.json.schema(annotation), annotation), _keywords(attribute))


def _closure(roots: Iterable[type]) -> Iterator[type]:
    """The classes and, once each, all attrs classes that their fields mention."""
    seen: set[type] = set()
    waiting = list(roots)
    while waiting:
        cls = waiting.pop(0)
        if cls in seen:
            continue
        seen.add(cls)
        yield cls
        attrs.resolve_types(cls)
        waiting.extend(inner for attribute in attrs.fields(cls) for inner in _mentioned(attribute.type))


def _mentioned(annotation: Any) -> Iterator[type]:
    if attrs.has(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from _mentioned(argument)


def _complete(schema: dict[str, Any], cls: type, *, closed: bool) -> None:
    """Add to one object schema what msgspec does not know."""
    schema.pop("title", None)
    properties = schema["properties"]
    for attribute in attrs.fields(cls):
        schema_of = _own_order(properties[attribute.name], attribute.type)
        if attribute.metadata.get(OMITTED_WHEN_NONE):
            schema_of = _never_null(schema_of)
        properties[attribute.name] = _merged(schema_of, _keywords(attribute))
    if closed:
        schema["additionalProperties"] = False
    else:
        schema["required"] = [a.name for a in attrs.fields(cls) if not a.metadata.get(OMITTED_WHEN_NONE)]
    if not schema["required"]:
        del schema["required"]


def _keywords(attribute: attrs.Attribute[Any]) -> dict[str, Any]:
    return _public(attribute.metadata.get("schema", {}))


def _public(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords without those that only steer messages."""
    return {
        key: _public(value) if isinstance(value, Mapping) else value
        for key, value in schema.items()
        if not key.startswith("x_")
    }


def _merged(schema: dict[str, Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Lay keywords over a property: bounds where the type is stated, the description on top."""
    merged = dict(schema)
    target = merged
    if "anyOf" in merged:
        merged["anyOf"] = [dict(branch) for branch in merged["anyOf"]]
        target = merged["anyOf"][0]
    for key, value in keywords.items():
        if key == "description":
            merged[key] = value
        elif isinstance(value, Mapping) and isinstance(target.get(key), Mapping):
            target[key] = {**target[key], **value}
        else:
            target[key] = value
    return merged


def _own_order(schema: dict[str, Any], annotation: Any) -> dict[str, Any]:
    """Put a Literal's words in the order they are written in (msgspec sorts them), and name their type."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_own_order(branch, annotation) for branch in schema["anyOf"]]}
    if "items" in schema:
        return {**schema, "items": _own_order(schema["items"], annotation)}
    words = next(_literals(annotation), None)
    if words is None or "enum" not in schema:
        return schema
    return {"type": "string", **schema, "enum": list(words)}


def _literals(annotation: Any) -> Iterator[tuple[str, ...]]:
    if get_origin(annotation) is Literal:
        yield get_args(annotation)
    else:
        for argument in get_args(annotation):
            yield from _literals(argument)


def _never_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A member that is left out instead of null."""
    branches = [branch for branch in schema.get("anyOf", [schema]) if branch != {"type": "null"}]
    return {name: value for name, value in branches[0].items() if name != "default"}


def _not_null(annotation: Any) -> Any:
    """The `X` of `X | None`: a query parameter is absent, never null."""
    members = [member for member in get_args(annotation) if member is not type(None)]
    return members[0] if len(members) == 1 and type(None) in get_args(annotation) else annotation
