"""Decoded JSON to the API's attrs classes and back, strictly.

Nothing is coerced: a number is not a string, `true` is not a number, a string
is not a list, an unknown field is an error. All wrong places are found in one
go and reported as JSON Pointers with a message for a person. The keywords in a
field's `metadata["schema"]` are enforced here, the same ones that the OpenAPI
document states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from controlplane.errors import FieldError
from controlplane.wire.fields import OMITTED_WHEN_NONE
from controlplane.wire.keywords import too_many, violations
from controlplane.wire.wrong import MAX_ERRORS, Wrong, invalid_request, kind, places, refuse, shortened, under

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]


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
        raise invalid_request(places(error)) from None


def unstructure(value: Any) -> Any:
    """Turn an attrs instance of `wire/` into plain dicts, lists and scalars."""
    return _CONVERTER.unstructure(value)


def _string(value: Any, _: Any) -> str:
    if type(value) is not str:
        raise refuse("a string", value)
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
        raise refuse("a whole number", value)
    return value


def _float(value: Any, _: Any) -> float:
    if type(value) not in {int, float}:
        raise refuse("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Wrong([FieldError("", "must be a finite number")])
    return number


def _boolean(value: Any, _: Any) -> bool:
    if type(value) is not bool:
        raise refuse("true or false", value)
    return value


def _null(value: Any, _: Any) -> None:
    if value is not None:
        raise refuse("null", value)


def _list_hook(cls: Any, converter: Converter) -> Hook:
    (item_type,) = get_args(cls) or (Any,)
    item_hook = converter.get_structure_hook(item_type)

    def structured(value: Any, _: Any) -> list[Any]:
        if type(value) is not list:
            raise refuse("a list", value)
        return list(_each(enumerate(value), lambda item: item_hook(item, item_type)).values())

    return structured


def _dict_hook(cls: Any, converter: Converter) -> Hook:
    _, value_type = get_args(cls) or (str, Any)
    value_hook = converter.get_structure_hook(value_type)

    def structured(value: Any, _: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise refuse("an object", value)
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
            wrong.extend(under(key, places(error)))
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
            raise refuse(f"one of {listed}", value)
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
            raise refuse(expected, value)
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
            raise refuse("an object", value)
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
            errors.extend(places(error))
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
