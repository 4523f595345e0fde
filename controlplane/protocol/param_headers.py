"""Tool arguments that clients mirror into `Mcp-Param-…` fields: which ones a tool names, and whether a call does it.

Pure. A tool names them with `x-mcp-header` in its input schema. One annotation
that is not as it must be voids all of the tool's, for clients drop such a tool
or its fields as a whole. A field that no tool names is nobody's business here.

Source: MCP 2026-07-28, Streamable HTTP, Custom Headers from Tool Parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

from attrs import frozen

from controlplane.core.rawjson import members
from controlplane.protocol.headers import Fields, ModernRequest, header_text, mismatch, shown
from controlplane.protocol.inbound import text_of

if TYPE_CHECKING:
    import msgspec

ANNOTATION = "x-mcp-header"
MAX_POSITIONS = 20_000
"""Schema positions looked at in all tools of a server, some 20 ms; those of hundreds of tools. What is beyond mirrors nothing."""
MAX_PARAM_HEADERS = 64
"""Of one tool: a request's whole head may have 16 KiB, so that more of them is a mistake or an attack."""

_PREFIX = "Mcp-Param-"
_TYPES = ("string", "integer", "boolean")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_NUMBER_MAX_CHARS = 64
"""Longer numbers are only equal if they are written alike."""

_WITH_SCHEMAS = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "allOf",
        "anyOf",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "oneOf",
        "prefixItems",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""Keywords that hold a schema, or a list of them (JSON Schema 2020-12, and draft 7 where it differs)."""
_WITH_NAMED_SCHEMAS = frozenset({"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties"})

Path = tuple[str, ...]


@frozen
class ParamHeader:
    """One argument and its field: `name` as clients spell it, `field` in lower case, `path` from `arguments` on."""

    name: str
    field: bytes
    path: Path


def param_headers(tools: Iterable[Any]) -> dict[str, tuple[ParamHeader, ...]]:
    """Find out which tools want arguments mirrored; those that want none are left out.

    Args:
        tools: Decoded items of `tools/list`; what is no tool is passed over, of equal names the last one counts.
    """
    found: dict[str, tuple[ParamHeader, ...]] = {}
    left = MAX_POSITIONS
    for tool in tools:
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            continue
        annotated: list[tuple[Path | None, dict[str, Any]]] = []
        for path, schema in _positions(tool.get("inputSchema")):
            left -= 1
            if left < 0:
                return found
            if ANNOTATION in schema:
                annotated.append((path, schema))
        found.pop(tool["name"], None)
        if headers := _declared(annotated):
            found[tool["name"]] = headers
    return found


def check_params(fields: Fields, declared: Iterable[ParamHeader], request: ModernRequest) -> None:
    """Check that a `tools/call` mirrors what the tool wants mirrored, and as it is.

    An argument that is null or not there has no field; one that no field can
    hold (an object, half a surrogate pair) has none either, and is left to the
    server to refuse.

    Args:
        fields: Of the HTTP request, with lower-case names.
        declared: The tool's, from `param_headers`.
        request: The call.

    Raises:
        Refusal: a field is missing, is there without its argument, or differs from it (-32020).
    """
    levels: dict[Path, Mapping[str, msgspec.Raw]] = {(): _members_of(request.members.get("arguments"))}
    for header in declared:
        raw = _value_at(levels, header.path)
        told = fields.get(header.field)
        if raw is None and told is None:
            continue
        if told is None:
            raise mismatch(f"the {header.name} header is missing", request.id)
        if raw is None:
            where = shown(".".join(header.path))
            raise mismatch(
                f"{header.name} header is there, but no argument {where} that it could stand for", request.id
            )
        if not _agrees(raw, told):
            body = shown(raw.decode("utf-8", "replace"))
            raise mismatch(f"{header.name} header value {shown(told)} does not match body value {body}", request.id)


def _declared(annotated: list[tuple[Path | None, dict[str, Any]]]) -> tuple[ParamHeader, ...]:
    """All annotations of a tool, or none at all."""
    headers: dict[bytes, ParamHeader] = {}
    for path, schema in annotated:
        token = schema[ANNOTATION]
        if not path or not isinstance(token, str) or not _TOKEN.fullmatch(token) or schema.get("type") not in _TYPES:
            return ()
        name = _PREFIX + token
        headers[name.lower().encode()] = ParamHeader(name, name.lower().encode(), path)
    return tuple(headers.values()) if len(headers) == len(annotated) <= MAX_PARAM_HEADERS else ()


def _positions(root: Any) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Every place of a schema that is a schema itself, with its path if only `properties` lead there."""
    waiting: list[tuple[Path | None, Any]] = [((), root)]
    while waiting:
        path, schema = waiting.pop()
        yield path, schema if isinstance(schema, dict) else {}
        waiting.extend(islice(_inner(path, schema), MAX_POSITIONS))


def _inner(path: Path | None, schema: Any) -> Iterator[tuple[Path | None, Any]]:
    """Schemas right within one: examples, defaults and the like are data, and references are not followed."""
    if isinstance(schema, list):
        yield from ((None, item) for item in schema)
    for keyword, value in schema.items() if isinstance(schema, dict) else ():
        if keyword == "properties" and isinstance(value, dict):
            yield from ((None if path is None else (*path, name), inner) for name, inner in value.items())
        elif keyword in _WITH_SCHEMAS:
            yield None, value
        elif keyword in _WITH_NAMED_SCHEMAS and isinstance(value, dict):
            yield from ((None, inner) for inner in value.values())


def _members_of(raw: msgspec.Raw | None) -> Mapping[str, msgspec.Raw]:
    return {} if raw is None else members(bytes(raw)) or {}


def _value_at(levels: dict[Path, Mapping[str, msgspec.Raw]], path: Path) -> bytes | None:
    """The raw value of an argument that a field can hold; each object on the way is decoded once."""
    found = levels[()]
    for depth in range(1, len(path)):
        if path[:depth] not in levels:
            levels[path[:depth]] = _members_of(found.get(path[depth - 1]))
        found = levels[path[:depth]]
    raw = bytes(found.get(path[-1], b"null"))
    if raw == b"null" or raw[:1] in b"[{" or (raw.startswith(b'"') and text_of(raw) is None):
        return None
    return raw


def _agrees(raw: bytes, told: bytes) -> bool:
    text = header_text(told)
    if text is None:
        return False
    if raw.startswith(b'"'):
        return text_of(raw) == text
    written = raw.decode()
    return written == text or (raw[:1] not in b"tf" and _same_number(written, text))


def _same_number(one: str, other: str) -> bool:
    """42 is 42.0; exactly, for these may be larger than floats can tell apart."""
    if max(len(one), len(other)) > _NUMBER_MAX_CHARS or not _DECIMAL.fullmatch(other):
        return False
    try:
        return Decimal(one) == Decimal(other)
    except ArithmeticError:  # an exponent beyond all bounds
        return False
