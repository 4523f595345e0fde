"""What an instance offers, as rows to choose from: tools, prompts, resources and their templates. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import frozen

from controlplane.wire.text import clean

Kind = Literal["tool", "prompt", "resource", "template", "raw"]
MAX_OFFERS = 5_000
"""Rows of one kind; no person looks at more."""
TEXT_CHARS = 2_000
HINTS = (
    ("readOnlyHint", "read-only"),
    ("destructiveHint", "destructive"),
    ("idempotentHint", "repeatable"),
    ("openWorldHint", "reaches out"),
)
METHODS: tuple[str, ...] = (
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "completion/complete",
    "server/discover",
)
"""Of clients in 2026-07-28, for completion; others can be sent as well."""


@frozen(kw_only=True)
class Offer:
    """One thing that can be asked for. Texts are clean but for `name`, which is what the server knows it by."""

    kind: Kind
    name: str
    title: str = ""
    text: str = ""
    hints: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    schema: Any = None
    """Of the form: a tool's own, or one made of a prompt's arguments or a template's variables."""
    document: Any = None

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def label(self) -> str:
        return clean(self.name[:TEXT_CHARS])


RAW = Offer(kind="raw", name="raw", title="any JSON-RPC request", text="A method and its parameters, as you write them")


def tools_of(items: Any) -> list[Offer]:
    """The tools of a list; what is no tool is passed over."""
    return [
        Offer(
            kind="tool",
            name=item["name"],
            title=_text(item.get("title")) or _text(_object(item.get("annotations")).get("title")),
            text=_text(item.get("description")),
            hints=_hints(_object(item.get("annotations"))),
            required=_strings(_object(item.get("inputSchema")).get("required")),
            schema=item.get("inputSchema"),
            document=item,
        )
        for item in _named(items, "name")
    ]


def prompts_of(items: Any) -> list[Offer]:
    """The prompts of a list; their arguments are all strings."""
    found = []
    for item in _named(items, "name"):
        arguments = list(_named(item.get("arguments"), "name"))
        required = [argument["name"] for argument in arguments if argument.get("required") is True]
        schema = _schema_of({a["name"]: _text(a.get("description")) for a in arguments}, required)
        found.append(_offer("prompt", item, "name", schema, required))
    return found


def resources_of(items: Any) -> list[Offer]:
    """The resources of a list."""
    return [_offer("resource", item, "uri", _schema_of({}, []), []) for item in _named(items, "uri")]


def templates_of(items: Any) -> list[Offer]:
    """The resource templates of a list: the URI is to be written out."""
    found = []
    for item in _named(items, "uriTemplate"):
        uri = item["uriTemplate"]
        rule = {"type": "string", "description": f"like {_text(uri)}", "default": uri}
        schema = {"type": "object", "properties": {"uri": rule}, "required": ["uri"]}
        found.append(_offer("template", item, "uriTemplate", schema, ["uri"]))
    return found


def request_of(offer: Offer, arguments: Any) -> tuple[str, dict[str, Any]]:
    """The method and the parameters that ask for it."""
    if offer.kind == "tool":
        return "tools/call", {"name": offer.name, "arguments": arguments}
    if offer.kind == "prompt":
        return "prompts/get", {"name": offer.name, "arguments": arguments}
    given = arguments.get("uri", "") if isinstance(arguments, dict) else ""
    return "resources/read", {"uri": given if offer.kind == "template" else offer.name}


def fitting(offers: Iterable[Offer], text: str) -> list[Offer]:
    """Those that have every word of a filter in what they say of themselves; those that are called so come first."""
    words = text.lower().split()
    found = [o for o in offers if all(word in f"{o.kind} {o.label} {o.title} {o.text}".lower() for word in words)]
    return sorted(found, key=lambda o: not all(word in f"{o.kind} {o.label}".lower() for word in words))


def _offer(kind: Kind, item: Mapping[str, Any], named_by: str, schema: Any, required: list[str]) -> Offer:
    title = _text(item.get("title")) or (_text(item.get("name")) if named_by != "name" else "")
    text = _text(item.get("description")) or _text(item.get("mimeType"))
    return Offer(
        kind=kind,
        name=item[named_by],
        title=title,
        text=text,
        required=_strings(required),
        schema=schema,
        document=item,
    )


def _schema_of(notes: Mapping[str, str], required: list[str]) -> dict[str, Any]:
    properties = {name: {"type": "string", "description": note} for name, note in notes.items()}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _hints(annotations: Mapping[str, Any]) -> tuple[str, ...]:
    """As words; a hint that is not set says nothing, and nobody vouches for those that are."""
    return tuple(word for name, word in HINTS if annotations.get(name) is True)


def _named(items: Any, member: str) -> Iterable[dict[str, Any]]:
    for item in items[:MAX_OFFERS] if isinstance(items, list) else ():
        if isinstance(item, dict) and isinstance(item.get(member), str):
            yield item


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(clean(name) for name in value[:TEXT_CHARS] if isinstance(name, str)) if isinstance(value, list) else ()


def _text(value: Any) -> str:
    return clean(value[:TEXT_CHARS].replace("\n", " ")) if isinstance(value, str) else ""
