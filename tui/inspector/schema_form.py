"""A JSON Schema as a tree of form fields. Pure.

Schemas come from servers, so nothing about them is relied on: what is odd, too deep or too much becomes a field that
takes JSON, and what is not understood is no rule here. A field is known by its key, the way to it through the
arguments: names of members, the number of a variant, `REST` for the members that have no field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from attrs import define, evolve, frozen
from attrs import field as attrs_field

from controlplane.wire.redact import names_secret
from controlplane.wire.text import clean
from tui.inspector.jsontext import compact, kind_of

MAX_FIELDS = 80
"""Fields of one form; members beyond are written as JSON. A terminal shows some ten at once."""
MAX_DEPTH = 5
"""Objects within objects that have fields of their own; recursive schemas end here."""
MAX_OPTIONS = 200
"""Of one choice; a longer list is typed."""
MAX_VARIANTS = 12
MAX_HOPS = 16
"""References that are followed from one to the next."""
MAX_PARTS = 8
"""Of `allOf`, laid on top of each other."""
LABEL_CHARS = 80
NOTE_CHARS = 300
REST: Final = -1
"""Last part of the key of an object's other members."""
RAW: Final = -2
"""Last part of the key under which a value stands as JSON, because it does not fit its field."""

Key = tuple[str | int, ...]
Kind = Literal["string", "integer", "number", "choice", "list", "object", "variants", "json"]
SCALARS: Mapping[str, Kind] = {"string": "string", "integer": "integer", "number": "number"}


class Missing:
    """Stands for no value at all."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


@frozen(kw_only=True)
class Field:
    """One field. Its texts are clean; `schema` is the server's own, for checks."""

    key: Key
    kind: Kind
    label: str
    required: bool = False
    note: str = ""
    facts: str = ""
    schema: Mapping[str, Any] = {}
    default: Any = MISSING
    options: tuple[Any, ...] = ()
    option_labels: tuple[str, ...] = ()
    children: tuple[Field, ...] = ()
    variants: tuple[Field, ...] = ()
    item: Field | None = None
    shows_rest: bool = False
    """Whether an object has a field for members without one, even when there are none."""

    @property
    def rest(self) -> Key:
        return (*self.key, REST)

    @property
    def raw(self) -> Key:
        return (*self.key, RAW)


@define
class _Builder:
    root: Any
    left: int = MAX_FIELDS
    trail: list[str] = attrs_field(factory=lambda: [compact("#")])
    """References that led to the field that is made: one that leads back ends in JSON."""

    def build(self, schema: Any, key: Key, label: str, *, required: bool, depth: int = 0) -> Field:
        self.left -= 1
        before = len(self.trail)
        found = self._resolved(schema)
        base = Field(
            key=key,
            kind="json",
            label=_short(label, LABEL_CHARS),
            required=required,
            note=_short(found.get("description", ""), NOTE_CHARS),
            facts=facts_of(found),
            schema=found,
            default=found.get("default", MISSING),
        )
        is_recursive = len(set(self.trail)) < len(self.trail)
        shaped = base if is_recursive else self._shaped(base, found, depth)
        del self.trail[before:]
        return shaped

    def _shaped(self, base: Field, found: Mapping[str, Any], depth: int) -> Field:
        if "const" in found:
            return _choice(base, [found["const"]])
        if isinstance(found.get("enum"), list):
            return _choice(base, found["enum"], found.get("enumNames"))
        branches = _branches(found)
        if branches and "properties" not in found:
            return self._branched(base, found, branches, depth)
        kinds = _types(found)
        if len(kinds) > 1:
            return self._variants(base, [{**found, "type": kind} for kind in kinds], depth)
        return self._typed(base, found, kinds[0] if kinds else "", depth)

    def _typed(self, base: Field, found: Mapping[str, Any], kind: str, depth: int) -> Field:
        if kind == "boolean":
            return evolve(_choice(base, [True, False]), facts="boolean")
        if kind in SCALARS:
            return evolve(base, kind=SCALARS[kind])
        if kind == "array":
            return self._array(base, found, depth)
        if kind == "object" and depth < MAX_DEPTH and (depth == 0 or isinstance(found.get("properties"), dict)):
            return self._object(base, found, depth)
        return base

    def _array(self, base: Field, found: Mapping[str, Any], depth: int) -> Field:
        items = found.get("items")
        if not isinstance(items, dict) or "prefixItems" in found:
            return base
        item = self.build(items, (*base.key, 0), "", required=True, depth=depth + 1)
        if item.kind not in (*SCALARS, "choice"):
            return base
        choices = f"of {', '.join(item.option_labels)}" if item.option_labels else ""
        facts = _short(", ".join(part for part in (base.facts, choices) if part), NOTE_CHARS)
        return evolve(base, kind="list", item=item, facts=facts)

    def _object(self, base: Field, found: Mapping[str, Any], depth: int) -> Field:
        properties = found.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        needed = frozenset(_names(found.get("required")))
        children: list[Field] = []
        for name in sorted(properties, key=lambda name: name not in needed):  # what is needed comes first
            if self.left <= 0:
                break
            key = (*base.key, name)
            children.append(self.build(properties[name], key, name, required=name in needed, depth=depth + 1))
        more = found.get("additionalProperties")
        open_ended = more is True or isinstance(more, dict) or bool(found.get("patternProperties"))
        shows_rest = open_ended or len(children) < len(properties) or "properties" not in found
        return evolve(base, kind="object", children=tuple(children), shows_rest=shows_rest and more is not False)

    def _branched(self, base: Field, found: Mapping[str, Any], branches: list[Any], depth: int) -> Field:
        resolved = [self._resolved(branch) for branch in branches[: MAX_OPTIONS + 1]]
        if resolved and all("const" in branch for branch in resolved):
            names = [branch.get("title") for branch in resolved]
            return _choice(base, [branch["const"] for branch in resolved], names)
        real = [branch for branch in resolved if branch.get("type") != "null"]
        outer = {name: value for name, value in found.items() if name not in ("oneOf", "anyOf")}
        if len(real) == 1:
            one = {**outer, **real[0]}
            shaped = evolve(base, schema=one, facts=facts_of(one), default=one.get("default", MISSING))
            return self._shaped(shaped, one, depth) if depth < MAX_DEPTH else base
        return self._variants(base, [{**outer, **branch} for branch in real], depth)

    def _variants(self, base: Field, schemas: list[dict[str, Any]], depth: int) -> Field:
        if not 1 < len(schemas) <= MAX_VARIANTS or depth >= MAX_DEPTH or self.left < len(schemas):
            return base
        variants = [
            self.build(schema, (*base.key, number), _variant_label(schema, number), required=True, depth=depth + 1)
            for number, schema in enumerate(schemas)
        ]
        return evolve(base, kind="variants", variants=tuple(variants))

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """Follow references, and lay the parts of `allOf` on top of each other; an empty schema for what is none."""
        found = dict(schema) if isinstance(schema, dict) else {}
        for _ in range(MAX_HOPS):
            ref = found.pop("$ref", None)
            if ref is None:
                break
            target = self._at(ref)
            self.trail.append(compact(ref))
            if target is None:
                return {"description": f"refers to {compact(ref)}, which is not there", **found}
            found = {**target, **found}
        else:
            return {}
        parts = found.pop("allOf", None)
        for part in parts[:MAX_PARTS] if isinstance(parts, list) else ():
            _lay(found, {**(self._at(part.get("$ref")) or {}), **part} if isinstance(part, dict) else {})
        return found

    def _at(self, ref: Any) -> dict[str, Any] | None:
        if not isinstance(ref, str) or not ref.startswith("#"):
            return None
        place: Any = self.root
        for part in ref[1:].split("/")[1:]:
            place = place.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
        return place if isinstance(place, dict) else None


def form_of(schema: Any) -> Field:
    """The form of a schema; its root has the empty key. What is no schema of an object is one field of JSON."""
    return _Builder(schema).build(schema, (), "arguments", required=True)


def flat(field: Field) -> Iterable[Field]:
    """A field and all those below it."""
    yield field
    for inner in (*field.children, *field.variants):
        yield from flat(inner)


def is_secret(name: str, schema: Any) -> bool:
    """Whether what is entered here must not be kept."""
    rules = schema if isinstance(schema, dict) else {}
    return names_secret(name) or rules.get("format") == "password" or rules.get("writeOnly") is True


def facts_of(schema: Mapping[str, Any]) -> str:
    """Say in a few words what a value must be like."""
    said = [" or ".join(_types(schema))] if _types(schema) else []
    for word, name in (("at least", "minimum"), ("more than", "exclusiveMinimum"), ("at most", "maximum")):
        if _is_number(schema.get(name)):
            said.append(f"{word} {schema[name]}")
    if _is_number(schema.get("exclusiveMaximum")):
        said.append(f"less than {schema['exclusiveMaximum']}")
    for unit, low, high in (("characters", "minLength", "maxLength"), ("items", "minItems", "maxItems")):
        least, most = (schema[name] if _is_number(schema.get(name)) else None for name in (low, high))
        if least is not None and most is not None:
            said.append(f"{least} to {most} {unit}")
        elif least is not None or most is not None:
            said.append(f"at least {least} {unit}" if most is None else f"at most {most} {unit}")
    if isinstance(schema.get("format"), str):
        said.append(schema["format"])
    if isinstance(schema.get("pattern"), str):
        said.append(f"matches {schema['pattern']}")
    return _short(", ".join(said), NOTE_CHARS)


def _choice(base: Field, options: list[Any], names: Any = None) -> Field:
    if not 0 < len(options) <= MAX_OPTIONS:
        return evolve(base, kind="string") if all(isinstance(option, str) for option in options) else base
    named = names if isinstance(names, list) else []
    labels = [_option_label(option, named[at] if at < len(named) else None) for at, option in enumerate(options)]
    return evolve(base, kind="choice", options=tuple(options), option_labels=tuple(labels))


def _option_label(option: Any, name: Any) -> str:
    text = option if isinstance(option, str) else compact(option)
    return _short(f"{name} ({text})" if isinstance(name, str) and name != text else text, LABEL_CHARS)


def _branches(found: Mapping[str, Any]) -> list[Any]:
    for name in ("oneOf", "anyOf"):
        if isinstance(found.get(name), list) and found[name]:
            return list(found[name])
    return []


def _types(found: Mapping[str, Any]) -> list[str]:
    """The types that a value may have, null apart; guessed where they are not said."""
    given = found.get("type")
    kinds = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    kinds = [kind for kind in dict.fromkeys(k for k in kinds if isinstance(k, str)) if kind != "null"]
    if not kinds and "properties" in found:
        return ["object"]
    return kinds[:MAX_VARIANTS] or (["array"] if "items" in found else [])


def _variant_label(schema: Mapping[str, Any], number: int) -> str:
    title = schema.get("title")
    if isinstance(title, str) and title:
        return title
    properties = schema.get("properties")
    for name, rule in properties.items() if isinstance(properties, dict) else ():
        if isinstance(rule, dict) and "const" in rule:  # what tells the variants apart
            return f"{name} = {compact(rule['const'])}"
    return " or ".join(_types(schema)) or f"variant {number + 1}"


def _lay(under: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        if name == "properties" and isinstance(value, dict):
            known = under.get(name)
            under[name] = {**(known if isinstance(known, dict) else {}), **value}
        elif name == "required":
            under[name] = [*_names(under.get(name)), *_names(value)]
        else:
            under.setdefault(name, value)
    under.pop("$ref", None)


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return kind_of(value) in ("integer", "number")


def _short(text: Any, chars: int) -> str:
    one_line = clean(text.replace("\n", " ")[: chars + 1]) if isinstance(text, str) else ""
    return one_line if len(one_line) <= chars else one_line[: chars - 1] + "…"
