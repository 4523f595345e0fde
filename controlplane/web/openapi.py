"""The OpenAPI 3.1 document, made from the route table and the payload classes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from controlplane.errors import PROBLEMS
from controlplane.model import Role
from controlplane.web.problem_texts import TEXTS
from controlplane.wire import schema
from controlplane.wire.answers import ProblemOut

if TYPE_CHECKING:
    from controlplane.web.route import Route

DESCRIPTION = """\
Corral runs MCP servers as a service: deploy one, call it, follow it, stop it.

Send `Authorization: Bearer <token>` with everything but the open routes. Roles build on each other: `viewer` reads,
`caller` calls, `deployer` deploys and removes its own, `admin` may do everything. Wherever a path has `{id}`, the
instance's name works as well as its UUID; an administrator names another user's instance `owner/name`.

Failures are problem documents (RFC 9457) with a stable `code`. Unknown body fields and query parameters are refused by
name. Of duplicate names in a JSON object the last one counts. Every answer carries `X-Request-Id`.
"""
TAGS = {
    "Deploy": "Bring a server up.",
    "Instances": "Look after what is deployed.",
    "Calls": "Talk to a server.",
    "Events": "Server-sent events, as things happen.",
    "History": "What was kept: logs, samples, events.",
    "Access": "Users and their tokens.",
    "Secrets": "Values that instances get by name, and the key that they are encrypted with.",
    "System": "The control plane itself.",
    "Documentation": "This document, and pages for people.",
}
EVERYWHERE = ("host_rejected", "origin_rejected", "internal")
"""Problems that any route may answer with."""
PROBLEM_TYPE = "application/problem+json"
_STORED = frozenset({"Deploy", "Instances", "History", "Access", "Secrets"})
_REFUSAL = "The protocol's own refusal."
_ANSWERS = {
    200: "Done.",
    201: "Made.",
    202: "Accepted; not settled yet.",
    400: _REFUSAL,
    404: _REFUSAL,
    405: _REFUSAL,
    406: _REFUSAL,
    409: _REFUSAL,
    503: "Calls cannot be served.",
}


def document(routes: Sequence[Route], *, version: str) -> dict[str, Any]:
    """The whole document.

    Args:
        routes: The route table.
        version: Of the control plane.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    answers = [content for route in routes for _, content in route.contents if isinstance(content, type)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Corral",
            "version": version,
            "summary": "MCP servers as a service",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schema.components([r.body for r in routes if r.body], [*answers, ProblemOut]),
            "responses": _problem_responses(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, or a JWT with `sub`, `role` and `exp`.",
                }
            },
        },
        "security": [{"bearer": []}],
    }


def problem_codes(route: Route) -> list[str]:
    """Every problem that a route may answer with, by status and then name."""
    codes = {*route.problems, *EVERYWHERE, "invalid_request"}
    if route.role is not None:
        codes |= {"unauthorized", "rate_limited"}
    if route.role not in (None, Role.VIEWER):
        codes.add("forbidden")
    if route.body is not None:
        codes |= {"malformed_json", "payload_too_large", "unsupported_media_type"}
    if route.tag in _STORED:
        codes |= {"storage_unavailable", "shutting_down"}
    if any(a.name == "owner" for a in attrs.fields(route.query)):
        codes.add("forbidden")
    return sorted(codes, key=lambda code: (PROBLEMS[code].status if code in PROBLEMS else 500, code))


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)],
        "responses": _responses(route),
        "x-role": route.role.value if route.role else None,
    }
    if route.description:
        operation["description"] = route.description
    if route.role is None:
        operation["security"] = []
        del operation["x-role"]
    if not operation["parameters"]:
        del operation["parameters"]
    if route.body is not None:
        operation["requestBody"] = {"required": not route.may_be_empty, "content": _bodies(route, route.body)}
    return operation


def _bodies(route: Route, cls: type[Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema.reference(cls), "example": route.example}}
    if route.takes_upload:
        content["multipart/form-data"] = {
            "schema": {
                "type": "object",
                "properties": {
                    "spec": schema.reference(cls),
                    "source": {"description": "The archive, as it is.", "contentMediaType": "application/octet-stream"},
                },
                "required": ["spec", "source"],
                "additionalProperties": False,
            },
            "encoding": {"spec": {"contentType": "application/json"}},
        }
    return content


_PLACEHOLDERS = {
    "id": "The instance: its name, its UUID, or for administrators `owner/name`.",
    "token_id": "The token's id.",
    "name": "The user's name.",
    "code": "A problem's code.",
}


def _path_parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name in route.placeholders:
        kind: dict[str, Any] = {"type": "string", "minLength": 1}
        if name == "code":
            kind["enum"] = list(PROBLEMS)
        yield {"name": name, "in": "path", "required": True, "description": _PLACEHOLDERS[name], "schema": kind}


def _query_parameters(route: Route) -> Iterable[dict[str, Any]]:
    attrs.resolve_types(route.query)
    for attribute in attrs.fields(route.query):
        kind = schema.property_of(attribute)
        parameter: dict[str, Any] = {"name": attribute.name, "in": "query", "required": False}
        if "description" in kind:
            parameter["description"] = kind.pop("description")
        if attribute.default is not None:
            kind["default"] = attribute.default
        yield {**parameter, "schema": kind}


def _header_parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name, keywords in route.headers.items():
        kind = {"type": "string", **keywords}
        yield {"name": name, "in": "header", "required": False, "description": kind.pop("description"), "schema": kind}


def _responses(route: Route) -> dict[str, Any]:
    """One response for each status; one that is an answer and a problem as well has the content of both."""
    responses = _answers(route)
    for status, codes in _problems(route).items():
        if status in responses:
            both = {**responses[status].get("content", {}), **_problem_content()}
            responses[status] = {"description": f"{responses[status]['description']} {_listed(codes)}", "content": both}
        elif len(codes) == 1:
            responses[status] = {"$ref": f"#/components/responses/{codes[0]}"}
        else:
            responses[status] = _problem_response(_listed(codes))
    return responses


def _answers(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, content in route.contents:
        response = found.setdefault(str(status), {"description": _ANSWERS[status]})
        if isinstance(content, str):
            response.setdefault("content", {})[content] = {"schema": {"type": "string"}}
        elif content is not None:
            response.setdefault("content", {})["application/json"] = {"schema": schema.reference(content)}
    return found


def _problems(route: Route) -> dict[str, list[str]]:
    """The codes of each status."""
    by_status: dict[str, list[str]] = {}
    for code in problem_codes(route):
        by_status.setdefault(str(_status(code)), []).append(code)
    return by_status


def _listed(codes: list[str]) -> str:
    return " ".join(f"`{code}`: {TEXTS[code].meaning}" for code in codes)


def _problem_responses() -> dict[str, Any]:
    return {code: _problem_response(_listed([code])) for code in TEXTS}


def _problem_response(description: str) -> dict[str, Any]:
    return {"description": description, "content": _problem_content()}


def _problem_content() -> dict[str, Any]:
    return {PROBLEM_TYPE: {"schema": schema.reference(ProblemOut)}}


def _status(code: str) -> int:
    return PROBLEMS[code].status
