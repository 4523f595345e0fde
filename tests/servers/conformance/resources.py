"""The resources that the suite reads, and the template among them."""

from __future__ import annotations

import json
import re
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from media import IMAGE

LEGACY_NOT_FOUND = -32002
"""Of a resource, before 2026; INVALID_PARAMS since then."""

LISTED = [
    types.Resource(
        uri="test://static-text", name="static-text", description="A text that never changes", mime_type="text/plain"
    ),
    types.Resource(uri="test://static-binary", name="static-binary", description="An image", mime_type="image/png"),
    types.Resource(
        uri="test://watched-resource",
        name="watched-resource",
        description="A text that clients are told of when it changes",
        mime_type="text/plain",
    ),
]
TEMPLATES = [
    types.ResourceTemplate(
        uri_template="test://template/{id}/data",
        name="template",
        description="Data by its id",
        mime_type="application/json",
    )
]
TEXTS = {
    "test://static-text": "This is the content of the static text resource.",
    "test://watched-resource": "This is the content of the watched resource.",
}
BY_ID = re.compile(r"test://template/([^/]+)/data")


async def list_resources(ctx: Any, params: Any) -> types.ListResourcesResult:
    return types.ListResourcesResult(resources=LISTED)


async def list_templates(ctx: Any, params: Any) -> types.ListResourceTemplatesResult:
    return types.ListResourceTemplatesResult(resource_templates=TEMPLATES)


async def read(ctx: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = params.uri
    if uri == "test://static-binary":
        content: Any = types.BlobResourceContents(uri=uri, mime_type="image/png", blob=IMAGE)
    elif uri in TEXTS:
        content = types.TextResourceContents(uri=uri, mime_type="text/plain", text=TEXTS[uri])
    elif found := BY_ID.fullmatch(uri):
        data = json.dumps({"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"})
        content = types.TextResourceContents(uri=uri, mime_type="application/json", text=data)
    else:
        modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        raise MCPError(types.INVALID_PARAMS if modern else LEGACY_NOT_FOUND, "Resource not found", {"uri": uri})
    return types.ReadResourceResult(contents=[content])
