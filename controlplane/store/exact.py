"""What must come back from the database as it was: refused, not cleaned, where Postgres cannot hold it; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from controlplane.errors import FieldError, InvalidRequest
from controlplane.store.text import is_clean


def exact_json(value: Any, pointer: str) -> str:
    """JSON text of a value.

    Raises:
        InvalidRequest: the database cannot hold a character of it; `pointer` says where the value stands.
    """
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        raise _unstorable(pointer) from None
    if "\\u0000" in text and "\x00" in "".join(_strings(value)):
        raise _unstorable(pointer)
    return text


def exact_text(text: str, pointer: str) -> str:
    """The text itself.

    Raises:
        InvalidRequest: the database cannot hold a character of it.
    """
    if not is_clean(text):
        raise _unstorable(pointer)
    return text


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for part in pair for text in _strings(part)]
    if isinstance(value, (list, tuple)):
        return [text for member in value for text in _strings(member)]
    return []


def _unstorable(pointer: str) -> InvalidRequest:
    message = "holds a NUL or an unpaired surrogate, which cannot be kept"
    return InvalidRequest(f"{pointer} {message}", errors=(FieldError(pointer, message),))
