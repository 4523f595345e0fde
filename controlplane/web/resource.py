"""Protected-resource metadata (RFC 9728): which authorization server gives tokens for this server, and for an endpoint.

Open to everybody, and the same for an instance that exists and for one that does not.
"""

from __future__ import annotations

import re

from controlplane.errors import NotFound
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.challenge import METADATA_PATH
from controlplane.web.oidc.claims import SCOPES
from controlplane.web.route import Route
from controlplane.wire.answers import ProtectedResourceOut

REF_MAX_CHARS = 160
_REF = re.compile(r"[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)?")


async def get_metadata(call: Call) -> Reply:
    """Of the whole server, or of one endpoint."""
    issuer, ref = call.services.tokens.issuer, call.path.get("id")
    if issuer is None:
        raise NotFound(
            "This server names no authorization server.",
            hint="Its tokens are made with corral token create; OIDC_ISSUER names one.",
        )
    if ref is not None and (len(ref) > REF_MAX_CHARS or not _REF.fullmatch(ref)):
        raise NotFound("There is no such path.", hint="/docs lists what there is.")
    base = call.services.guards.base_url(call.head)
    return json_reply(
        ProtectedResourceOut(
            resource=base if ref is None else f"{base}/mcp/{ref}",
            authorization_servers=[issuer.url],
            scopes_supported=list(SCOPES),
            bearer_methods_supported=["header"],
            resource_name="Corral",
        )
    )


def _route(path: str, operation: str, summary: str, description: str) -> Route:
    return Route(
        "GET",
        path,
        get_metadata,
        operation=operation,
        summary=summary,
        description=description,
        tag="Access",
        role=None,
        answers={200: ProtectedResourceOut},
        problems=("not_found",),
    )


ROUTES = (
    _route(
        METADATA_PATH,
        "getResourceMetadata",
        "Where tokens for this server come from",
        "OAuth protected-resource metadata (RFC 9728). 404 where no authorization server is named (`OIDC_ISSUER`).",
    ),
    _route(
        METADATA_PATH + "/mcp/{id}",
        "getEndpointMetadata",
        "Where tokens for one MCP endpoint come from",
        "As above, for the endpoint that an MCP client asks about. It is the same whether there is such an instance or not.",
    ),
)
