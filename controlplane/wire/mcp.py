"""JSON-RPC messages as the MCP endpoint takes and gives them: for the document alone, they are passed on as bytes."""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from controlplane.wire.fields import bounded, omitted_when_none

MESSAGE_ID = "A string or an integer; absent in a notification."


@frozen(kw_only=True)
class McpMessageIn:
    """A request or a notification; from clients of the versions before 2026-07-28 also the answer to a server's request."""

    jsonrpc: Literal["2.0"]
    id: Any = bounded(None, description=MESSAGE_ID)
    method: str | None = bounded(None, minLength=1, description="For example `tools/list`.")
    params: dict[str, Any] | None = bounded(None, description="With `_meta`, as the protocol's version has it.")
    result: Any = bounded(None, description="Of an answer.")
    error: Any = bounded(None, description="Of an answer: `{code, message, data?}`.")


@frozen(kw_only=True)
class McpMessageOut:
    """The answer to a request: the server's own `result` or `error`, or the protocol's refusal."""

    jsonrpc: Literal["2.0"]
    id: Any = bounded(description="The request's; null when it could not be read.")
    result: Any = omitted_when_none(description="What the server answered.")
    error: Any = omitted_when_none(description="`{code, message, data?}`.")
