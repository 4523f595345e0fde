"""What a route is: everything that serving it, and documenting it, needs to know.

The Quart rules and the OpenAPI document are both made from these values, so
neither can say what the other does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import Factory, field, frozen

from controlplane.web.query import NoQuery

if TYPE_CHECKING:
    from controlplane.model import Role
    from controlplane.web.call import Handler

Content = type[Any] | str | None
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@frozen
class Route:
    """One method of one path.

    `handler` is None for what is served in front of Quart. `role` None is open
    to everybody. `answers` maps a status to an attrs class (JSON), a media type
    (text), or None (no body), or to several of these. `problems` are codes
    beyond those of every route.
    """

    method: str
    path: str
    handler: Handler | None
    operation: str = field(kw_only=True)
    summary: str = field(kw_only=True)
    description: str = field(default="", kw_only=True)
    tag: str = field(kw_only=True)
    role: Role | None = field(kw_only=True)
    query: type[Any] = field(default=NoQuery, kw_only=True)
    body: type[Any] | None = field(default=None, kw_only=True)
    takes_upload: bool = field(default=False, kw_only=True)
    """Whether the body may also come as `multipart/form-data`: itself as the part `spec`, an archive as the part `source`."""
    may_be_empty: bool = field(default=False, kw_only=True)
    """Whether a request without any body stands for an empty object."""
    answers: Mapping[int, Content | tuple[Content, ...]] = field(kw_only=True)
    problems: tuple[str, ...] = field(default=(), kw_only=True)
    headers: Mapping[str, Mapping[str, Any]] = field(factory=dict, kw_only=True)
    """Request headers beyond those of every route: JSON Schema keywords, with a `description`."""
    example: Mapping[str, Any] | None = field(default=None, kw_only=True)
    """A body that works, for the document and the page."""
    open_to_limited: bool = field(default=Factory(lambda self: "{id}" in self.path, takes_self=True), kw_only=True)
    """Whether a token for single instances may use it: for one of them, or for a list, of which it sees those alone."""
    audited: bool = field(
        default=Factory(lambda self: self.method != "GET" and self.handler is not None, takes_self=True), kw_only=True
    )
    """Whether each request leaves a row in the audit log: all that change something, but for calls of instances."""

    @property
    def contents(self) -> list[tuple[int, Content]]:
        """Every status with each form of its answer."""
        return [
            (status, content)
            for status, answer in self.answers.items()
            for content in (answer if isinstance(answer, tuple) else (answer,))
        ]

    @property
    def placeholders(self) -> tuple[str, ...]:
        return tuple(_PLACEHOLDER.findall(self.path))

    @property
    def rule(self) -> str:
        """The path as Quart writes it: `{id}` is an instance's name, id, or `owner/name`."""
        converters = {"id": "ref:", "name": "secret:" if self.path.startswith("/secrets/") else ""}
        return _PLACEHOLDER.sub(lambda found: f"<{converters.get(found[1], '')}{found[1]}>", self.path)
