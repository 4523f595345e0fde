"""Decoded JSON to the API's attrs classes and back, strictly.

Nothing is coerced: a number is not a string, `true` is not a number, a string
is not a list, an unknown field is an error. All wrong places are found in one
go and reported as JSON Pointers with a message for a person. The keywords in a
field's `metadata["schema"]` are enforced here, the same ones that the OpenAPI
document states.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from controlplane.errors import FieldError, InvalidRequest
from controlplane.wire.fields import OMITTED_WHEN_NONE
from controlplane.wire.keywords import pointer_token, too_many, violations

MAX_ERRORS = 100
"""Wrong places reported at once: enough for any honest body, small beside a hostile one."""
MAX_NAME_CHARS = 64
"""Characters of an unknown field's name that are compared and repeated in an answer."""

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]


class Wrong(Exception):
    """A value of the wrong shape; pointers are relative to the value."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        super().__init__()
        self.errors = tuple(islice(errors, MAX_ERRORS))


def structure(value: Any, cls: type[T]) -> T:
    """Make an instance of `cls` from decoded JSON.

    Args:
        value: What a strict JSON decoder returned.
        cls: One of the attrs classes of `wire/`.

    Raises:
        InvalidRequest: with every wrong place in `errors`, up to `MAX_ERRORS`.
    """
    try:
        return _CONVERTER.structure(value, cls)
    except (Wrong, ClassValidationError) as error:
        raise invalid_request(_places(error)) from None


def unstructure(value: Any) -> Any:
    """Turn an attrs instance of `wire/` into plain dicts, lists and scalars."""
    return _CONVERTER.unstructure(value)


def invalid_request(errors: Iterable[FieldError]) -> InvalidRequest:
    """The one form in which wrong places are reported, whoever found them."""
    found = tuple(islice(errors, MAX_ERRORS))
    first = f"{found[0].pointer or 'the body'}: {found[0].message}"
    count = f"{MAX_ERRORS} places or more are" if len(found) == MAX_ERRORS else f"{len(found)} places are"
    detail = first if len(found) == 1 else f"{count} wrong; the first is {first}"
    return InvalidRequest(detail, errors=found)


def _places(error: BaseException) -> Iterator[FieldError]:
    match error:
        case Wrong():
            yield from error.errors
        case ClassValidationError():
            attributed, bare = error.group_exceptions()
            for inner, note in attributed:
                yield from _under(note.name, _places(inner))
            for extra in bare:
                yield from _unknown(extra)
        case KeyError():
            yield FieldError("", "is required")
        case _:
            raise error


def _under(key: str | int, errors: Iterable[FieldError]) -> Iterator[FieldError]:
    return (FieldError(f"/{pointer_token(key)}{wrong.pointer}", wrong.message) for wrong in errors)


def _unknown(error: Exception) -> Iterator[FieldError]:
    if not isinstance(error, ForbiddenExtraKeysError):
        raise error
    known = [attribute.name for attribute in attrs.fields(error.cl)]
    for name in sorted(islice(error.extra_fields, MAX_ERRORS)):
        yield FieldError(f"/{pointer_token(shortened(name))}", unknown_name("field", name, known))


def shortened(name: str) -> str:
    """A client's own word, bounded, for an answer."""
    return name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}…"


def unknown_name(noun: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is not known, and which known one it looks like."""
    word = shortened(name)
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"unknown {noun} `{word}`" + (f"; did you mean `{close[0]}`?" if close else "")


def kind(value: Any) -> str:
    """The JSON name of a decoded value's type, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
    return "an object"


def _refuse(expected: str, value: Any) -> Wrong:
    return Wrong([FieldError("", f"expected {expected}, got {kind(value)}")])


def _string(value: Any, _: Any) -> str:
    if type(value) is not str:
        raise _refuse("a string", value)
    if (message := _unfit(value)) is not None:
        raise Wrong([FieldError("", message)])
    return value


def _unfit(text: str) -> str | None:
    """Why a string cannot become an argument, an environment value or a row of Postgres."""
    if "\0" in text:
        return "must not contain a NUL character"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "must not contain a lone surrogate"
    return None


def _integer(value: Any, _: Any) -> int:
    if type(value) is float:
        raise Wrong([FieldError("", f"expected a whole number, got {value!r}")])
    if type(value) is not int:
        raise _refuse("a whole number", value)
    return value


def _float(value: Any, _: Any) -> float:
    if type(value) not in {int, float}:
        raise _refuse("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Wrong([FieldError("", "must be a finite number")])
    return number


def _boolean(value: Any, _: Any) -> bool:
    if type(value) is not bool:
        raise _refuse("true or false", value)
    return value


def _null(value: Any, _: Any) -> None:
    if value is not None:
        raise _refuse("null", value)


def _list_hook(cls: Any, converter: Converter) -> Hook:
    (item_type,) = get_args(cls) or (Any,)
    item_hook = converter.get_structure_hook(item_type)

    def structured(value: Any, _: Any) -> list[Any]:
        if type(value) is not list:
            raise _refuse("a list", value)
        return list(_each(enumerate(value), lambda item: item_hook(item, item_type)).values())

    return structured


def _dict_hook(cls: Any, converter: Converter) -> Hook:
    _, value_type = get_args(cls) or (str, Any)
    value_hook = converter.get_structure_hook(value_type)

    def structured(value: Any, _: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _refuse("an object", value)
        for name in value:
            if (message := _unfit(name)) is not None:
                raise Wrong([FieldError("", f"a name in it {message}")])
        return _each(value.items(), lambda member: value_hook(member, value_type))

    return structured


def _each(pairs: Iterable[tuple[Any, Any]], hook: Callable[[Any], Any]) -> dict[Any, Any]:
    """Apply `hook` to every value; all that go wrong are reported together."""
    good: dict[Any, Any] = {}
    wrong: list[FieldError] = []
    for key, value in pairs:
        try:
            good[key] = hook(value)
        except (Wrong, ClassValidationError) as error:
            wrong.extend(_under(key, _places(error)))
            if len(wrong) >= MAX_ERRORS:
                break
    if wrong:
        raise Wrong(wrong)
    return good


def _literal_hook(cls: Any) -> Hook:
    allowed: tuple[str, ...] = get_args(cls)
    listed = ", ".join(f"`{word}`" for word in allowed)

    def structured(value: Any, _: Any) -> str:
        if type(value) is not str:
            raise _refuse(f"one of {listed}", value)
        if value not in allowed:
            raise Wrong([FieldError("", f"expected one of {listed}, got `{shortened(value)}`")])
        return value

    return structured


_KINDS: Mapping[type, str] = {
    str: "a string", int: "a number", float: "a number", bool: "a boolean", list: "a list", dict: "an object",
    NoneType: "null",
}  # fmt: skip


def _union_hook(cls: Any, converter: Converter) -> Hook:
    """Pick the member by the value's JSON kind; a class stands for an object, a Literal for a string."""
    members: dict[str, tuple[Hook, Any]] = {}
    for member in get_args(cls):
        base = str if get_origin(member) is Literal else get_origin(member) or member
        members[_KINDS.get(base, "an object")] = (converter.get_structure_hook(member), member)
    expected = " or ".join(name for name in members if name != "null")

    def structured(value: Any, _: Any) -> Any:
        hook, member = members.get(kind(value)) or next(iter(members.values()))
        if kind(value) not in members and len(members) > 2:
            raise _refuse(expected, value)
        return hook(value, member)

    return structured


def _class_hook(cls: type[Any], converter: Converter) -> Hook:
    attrs.resolve_types(cls)
    overrides = {
        attribute.name: override(struct_hook=_held_to(schema, converter.get_structure_hook(attribute.type)))
        for attribute in attrs.fields(cls)
        if (schema := attribute.metadata.get("schema"))
    }
    fill = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **overrides)  # type: ignore[arg-type]

    def structured(value: Any, _: Any) -> Any:
        if type(value) is not dict:
            raise _refuse("an object", value)
        return fill(value, cls)

    return structured


def _held_to(schema: Mapping[str, Any], hook: Hook) -> Hook:
    """Wrap a field's hook so that the field's keywords hold as well, and both kinds of error come together."""

    def structured(value: Any, cls: Any) -> Any:
        if (crowded := too_many(value, schema)) is not None:
            raise Wrong([FieldError("", crowded)])
        errors: list[FieldError] = []
        result = None
        try:
            result = hook(value, cls)
        except (Wrong, ClassValidationError) as error:
            errors.extend(_places(error))
        seen = {wrong.pointer for wrong in errors}
        errors.extend(wrong for wrong in islice(violations(value, schema), MAX_ERRORS) if wrong.pointer not in seen)
        if errors:
            raise Wrong(errors)
        return result

    return structured


def _class_unhook(cls: type[Any], converter: Converter) -> Callable[[Any], dict[str, Any]]:
    overrides = {
        attribute.name: override(omit_if_default=True)
        for attribute in attrs.fields(cls)
        if attribute.metadata.get(OMITTED_WHEN_NONE)
    }
    attrs.resolve_types(cls)
    return make_dict_unstructure_fn(cls, converter, **overrides)  # type: ignore[arg-type]


def _is(*origins: Any) -> Callable[[Any], bool]:
    """Whether a type, or what it is made of (`list[str]` of `list`), is one of `origins`."""

    def matches(cls: Any) -> bool:
        origin: Any = get_origin(cls)
        return any(candidate is origin or candidate is cls for candidate in origins)

    return matches


def _strict_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook_factory(attrs.has, _class_hook)
    converter.register_unstructure_hook_factory(attrs.has, _class_unhook)
    converter.register_structure_hook_factory(_is(list), _list_hook)
    converter.register_structure_hook_factory(_is(dict), _dict_hook)
    converter.register_structure_hook_factory(_is(Literal), _literal_hook)
    converter.register_structure_hook_factory(_is(Union, UnionType), _union_hook)
    for plain, hook in {str: _string, int: _integer, float: _float, bool: _boolean, NoneType: _null}.items():
        converter.register_structure_hook(plain, hook)
    return converter


_CONVERTER = _strict_converter()
