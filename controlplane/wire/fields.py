"""Fields of the API's payload classes: an attrs field that carries its JSON Schema keywords.

`metadata["schema"]` goes into the OpenAPI document as it stands, and the
converter enforces the same keywords, so the two cannot differ. Keywords that
begin with `x_` steer the converter's messages and stay out of the document.
"""

from __future__ import annotations

from typing import Any

from attrs import field

OMITTED_WHEN_NONE = "omitted_when_none"
"""Metadata key: the answer leaves the member out instead of saying `null`."""


def bounded(default: Any = ..., /, **schema: Any) -> Any:
    """A field whose JSON Schema keywords (`minimum`, `pattern`, `description` …) are part of the API.

    Args:
        default: The value of an absent member; `...` (or nothing) makes the member required.
        schema: JSON Schema keywords; `keywords.py` enforces those that bound a value.
    """
    metadata = {"schema": schema}
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, (list, dict)):
        return field(factory=type(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def omitted_when_none(**schema: Any) -> Any:
    """A field that an answer leaves out while there is nothing to say."""
    return field(default=None, metadata={"schema": schema, OMITTED_WHEN_NONE: True})
