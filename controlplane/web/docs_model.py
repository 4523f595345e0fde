"""The OpenAPI document, arranged for the page: operations by tag, schemas as tables, a curl line for each. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from controlplane.errors import PROBLEMS
from controlplane.web.openapi import TAGS, problem_codes

if TYPE_CHECKING:
    from controlplane.web.route import Route

EXAMPLE_VALUES = {"id": "memory-server", "token_id": "TOKEN_ID", "name": "alice", "code": "not_found"}
_WORDS = {
    "minimum": "at least {:,}",
    "exclusiveMinimum": "more than {:,}",
    "maximum": "at most {:,}",
    "maxItems": "at most {:,} items",
    "maxProperties": "at most {:,} members",
    "maxLength": "at most {:,} characters",
    "pattern": "matches `{}`",
}


@frozen(kw_only=True)
class FieldRow:
    """One line of a schema's table; `depth` indents what is inside an object."""

    name: str
    depth: int
    kind: str
    required: bool
    description: str
    bounds: str
    default: str


@frozen(kw_only=True)
class Operation:
    """One method of one path, ready to be shown."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    role: str
    parameters: Sequence[Mapping[str, Any]]
    body: Sequence[FieldRow] = ()
    body_name: str = ""
    takes_upload: bool = False
    example: str = ""
    answers: Sequence[tuple[int, str, bool]] = ()
    """Status, class or media type, and whether it is a class."""
    problems: Sequence[tuple[int, str]] = ()
    curl: str = ""
    streams: bool = False


@frozen(kw_only=True)
class Schema:
    """One class, ready to be shown."""

    name: str
    description: str
    rows: Sequence[FieldRow]


def operations_by_tag(document: Mapping[str, Any], routes: Sequence[Route]) -> dict[str, list[Operation]]:
    """Every operation under its tag, both in the order of the document."""
    groups: dict[str, list[Operation]] = {tag: [] for tag in TAGS}
    for route in routes:
        groups[route.tag].append(_operation(document, route))
    return groups


def _operation(document: Mapping[str, Any], route: Route) -> Operation:
    made = document["paths"][route.path][route.method.lower()]
    schemas = document["components"]["schemas"]
    parameters = [_parameter(parameter) for parameter in made.get("parameters", [])]
    body_name = route.body.__name__ if route.body else ""
    example = json.dumps(route.example, indent=2) if route.example else ""
    return Operation(
        id=route.operation,
        method=route.method,
        path=route.path,
        summary=route.summary,
        description=route.description,
        role=route.role.value if route.role else "",
        parameters=parameters,
        body=list(rows(schemas, body_name)) if body_name else (),
        body_name=body_name,
        takes_upload=route.takes_upload,
        example=example,
        answers=[(status, *_answer(content)) for status, content in route.contents],
        problems=[(PROBLEMS[code].status, code) for code in problem_codes(route)],
        curl=curl(route),
        streams=_streams(route),
    )


def _answer(answer: type[Any] | str | None) -> tuple[str, bool]:
    return (answer.__name__, True) if isinstance(answer, type) else (answer or "", False)


def _streams(route: Route) -> bool:
    return any(content == "text/event-stream" for _, content in route.contents)


def answer_schemas(document: Mapping[str, Any], routes: Sequence[Route]) -> list[Schema]:
    """The classes that answers are made of, each once, and the problem document."""
    schemas = document["components"]["schemas"]
    names = {content.__name__ for route in routes for _, content in route.contents if isinstance(content, type)}
    return [
        Schema(name=name, description=schemas[name].get("description", ""), rows=list(rows(schemas, name)))
        for name in sorted({*names, "ProblemOut"})
    ]


def _parameter(parameter: Mapping[str, Any]) -> dict[str, Any]:
    schema = parameter["schema"]
    return {
        "name": parameter["name"],
        "place": parameter["in"],
        "required": parameter["required"],
        "kind": kind(schema),
        "bounds": bounds(schema),
        "default": _default(schema),
        "description": parameter.get("description", ""),
        "choices": schema.get("enum", ()),
        "flag": schema.get("type") == "boolean",
        "example": EXAMPLE_VALUES.get(parameter["name"], "") if parameter["in"] == "path" else "",
    }


def rows(schemas: Mapping[str, Any], name: str, depth: int = 0) -> Iterator[FieldRow]:
    """A schema as table rows, what it contains indented below."""
    schema = schemas[name]
    required = schema.get("required", ())
    for member, inner in schema["properties"].items():
        yield FieldRow(
            name=member,
            depth=depth,
            kind=kind(inner),
            required=member in required,
            description=inner.get("description", ""),
            bounds=bounds(_stated(inner)),
            default=_default(inner),
        )
        contained = _contained(inner)
        if contained is not None:
            yield from rows(schemas, contained, depth + 1)


def kind(schema: Mapping[str, Any]) -> str:
    """The type in a few words."""
    if "anyOf" in schema:
        return " or ".join(kind(branch) for branch in schema["anyOf"])
    if "$ref" in schema:
        return "object"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{word}`" for word in schema["enum"])
    match schema.get("type"):
        case "array" if "enum" in schema.get("items", {}):
            return kind(schema["items"]).replace("one of", "any of", 1)
        case "array":
            return f"list of {_plural(kind(schema.get('items', {})))}"
        case "object" if isinstance(schema.get("additionalProperties"), Mapping):
            return f"map of {_plural(kind(schema['additionalProperties']))}"
        case "string" if "format" in schema:
            return {"date-time": "time", "uuid": "UUID"}.get(schema["format"], "string")
        case None:
            return "any"
        case str(word):
            return word
    return "any"


def _plural(word: str) -> str:
    return word if word.startswith("one of") or word == "any" else f"{word}s"


def bounds(schema: Mapping[str, Any]) -> str:
    """What a value is held to, in words."""
    said = [words.format(schema[key]) for key, words in _WORDS.items() if key in schema]
    if schema.get("minLength") == 1 and "pattern" not in schema:
        said.insert(0, "not empty")
    return ", ".join(said)


def _stated(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    first: Mapping[str, Any] = schema["anyOf"][0] if "anyOf" in schema else schema
    return first


def _default(schema: Mapping[str, Any]) -> str:
    value = schema.get("default")
    return "" if value is None or isinstance(value, (dict, list)) else json.dumps(value)


def _contained(schema: Mapping[str, Any]) -> str | None:
    stated = _stated(schema)
    inner = stated.get("items", stated)
    reference = inner.get("$ref") if isinstance(inner, Mapping) else None
    return reference.rpartition("/")[2] if reference else None


def curl(route: Route) -> str:
    """A line that works in a shell, on the default address."""
    path = route.path
    for name in route.placeholders:
        path = path.replace(f"{{{name}}}", EXAMPLE_VALUES[name])
    words = ["curl"]
    if _streams(route):
        words.append("-N")
    if route.method != "GET":
        words += ["-X", route.method]
    lines = [" ".join([*words, f"http://127.0.0.1:8000{path}"])]
    if route.role is not None:
        lines.append('-H "Authorization: Bearer $CORRAL_TOKEN"')
    if route.body is not None:
        lines.append('-H "Content-Type: application/json"')
        lines.append(f"--data-binary {shlex.quote(json.dumps(route.example))}")
    return " \\\n  ".join(lines)
