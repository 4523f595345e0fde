"""Lets in what a server of one era understands, and answers the rest as such a server would.

The SDK's servers know both eras. An older one has never heard of `server/discover` and overlooks the envelope in
`_meta`; one that came after the handshake was dropped knows no `initialize`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ERAS = ("dual", "legacy", "modern")
ENVELOPE = "io.modelcontextprotocol/"
"""What the names of the envelope's members in `_meta` begin with."""


@asynccontextmanager
async def only(era: str, reads: Any, writes: Any) -> AsyncIterator[Any]:
    """Yield the messages of `reads` that a server of this era takes; the others are answered on `writes`."""
    if era == "dual":
        yield reads
        return
    refusal = refuse_as_legacy if era == "legacy" else refuse_as_modern
    send, admitted = anyio.create_memory_object_stream[Any](0)

    async def sort() -> None:
        async with send:
            async for item in reads:
                request = item.message if isinstance(item, SessionMessage) else None
                error = refusal(request) if isinstance(request, types.JSONRPCRequest) else None
                if error is None:
                    await send.send(item)
                else:
                    await writes.send(SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=request.id, error=error)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sort)
        yield admitted
        tasks.cancel_scope.cancel()


def refuse_as_legacy(request: types.JSONRPCRequest) -> types.ErrorData | None:
    """Refuse what is of the modern era; an envelope on anything else is overlooked, as unknown `_meta` always was."""
    if request.method in {"server/discover", "subscriptions/listen"}:
        return types.ErrorData(code=types.METHOD_NOT_FOUND, message="Method not found")
    meta = (request.params or {}).get("_meta")
    if isinstance(meta, dict):
        for name in [name for name in meta if name.startswith(ENVELOPE)]:
            del meta[name]
    return None


def refuse_as_modern(request: types.JSONRPCRequest) -> types.ErrorData | None:
    """Refuse the handshake, and every request without an envelope."""
    params = request.params or {}
    if request.method == "initialize":
        return types.ErrorData(
            code=types.UNSUPPORTED_PROTOCOL_VERSION,
            message="Unsupported protocol version",
            data={"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": params.get("protocolVersion")},
        )
    meta = params.get("_meta")
    if not isinstance(meta, dict) or types.PROTOCOL_VERSION_META_KEY not in meta:
        return types.ErrorData(code=types.INVALID_PARAMS, message="The request has no envelope in _meta")
    return None
