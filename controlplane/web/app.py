"""The Quart application: rules from the route table, guards around every handler, problems for every failure.

What holds for all answers (Host, Origin, body limits, request ids, CORS) is
`mount`'s, in front of this. Here: credentials, role, query, body, then the
handler. Quart's own body parsing is not used; see `request.decode_json`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from attrs import evolve
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod
from werkzeug.routing import BaseConverter

from controlplane.errors import CorralError, Internal, MalformedJson, MethodNotAllowed, NotFound, PayloadTooLarge
from controlplane.model import Role
from controlplane.web import cluster, guards
from controlplane.web.asgi import AUDIT_KEY, BODY_FLOW_KEY, REQUEST_ID_KEY
from controlplane.web.auditing import target_of
from controlplane.web.bodies import reading
from controlplane.web.call import Call, Reply
from controlplane.web.mount import mount
from controlplane.web.problems import Answer, answer_for
from controlplane.web.query import parse_query
from controlplane.web.request import Head
from controlplane.web.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.web.asgi import App, Scope
    from controlplane.web.auditing import Entry
    from controlplane.web.body_guard import BodyFlow
    from controlplane.web.call import Handler
    from controlplane.web.problems import Headers
    from controlplane.web.route import Route
    from controlplane.web.services import Services

View = Callable[..., Awaitable[Response]]


_BELOW_AN_INSTANCE = sorted({route.path.partition("{id}/")[2] for route in ROUTES if route.handler is not None} - {""})
"""`logs`, `start` …: what stands there is never read as the name in `owner/name`; such an instance is named by its id."""


class RefConverter(BaseConverter):
    """An instance's name or id, or `owner/name`."""

    regex = rf"[^/]+(?:/(?!(?:{'|'.join(_BELOW_AN_INSTANCE)})(?:/|$))[^/]+)?"
    part_isolating = False
    weight = 300


_BESIDE_SECRETS = sorted({path for route in ROUTES if "{" not in (path := route.path.partition("/secrets/")[2])} - {""})
"""`rotate-key`: what it does not take is a 405 there, not the secret of that name."""


class SecretConverter(BaseConverter):
    """A secret's name; words of the API's own, which stand in the same place, are none."""

    regex = rf"(?!(?:{'|'.join(_BESIDE_SECRETS)})$)[^/]+"


def make_app(services: Services) -> App:
    """The whole ASGI application, as the door serves it."""
    return mount(cast("App", make_quart(services)), services)


def make_quart(services: Services) -> QuartTrio:
    """What stands behind `mount`: every route of the table that has a handler."""
    app = QuartTrio("corral", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = None  # `BodyGuard` counts, for chunked bodies as well
    app.url_map.merge_slashes = False  # a path that is not exactly right is a 404, never a redirect
    app.url_map.converters |= {"ref": RefConverter, "secret": SecretConverter}
    for route in (*ROUTES, *cluster.ROUTES):
        if route.handler is not None:
            _add(app, route, _view(route, route.handler, services))
    for path in dict.fromkeys(route.path for route in ROUTES if route.handler is not None):
        _add_options(app, path, services)
    app.register_error_handler(HTTPException, _on_http_exception)  # apart: a handler of Exception takes these too
    app.register_error_handler(Exception, _on_exception)
    return app


def _add(app: QuartTrio, route: Route, view: View) -> None:
    app.add_url_rule(
        route.rule,
        endpoint=route.operation,
        view_func=view,
        methods=[route.method],
        provide_automatic_options=False,
        strict_slashes=True,
    )


def _add_options(app: QuartTrio, path: str, services: Services) -> None:
    """OPTIONS for one path: `Allow`, and the preflight of an allowed origin."""
    here = [route for route in ROUTES if route.path == path]
    methods = {route.method for route in here} | ({"HEAD"} if any(r.method == "GET" for r in here) else set())
    allow = (*sorted(methods), "OPTIONS")

    async def options(**_: str) -> Response:
        return _response(Reply(204, b"", "", services.guards.preflight(_head(), allow)))

    app.add_url_rule(
        here[0].rule,
        endpoint=f"OPTIONS {path}",
        view_func=options,
        methods=["OPTIONS"],
        provide_automatic_options=False,
    )


def _view(route: Route, handler: Handler, services: Services) -> View:
    async def view(**path: str) -> Response:
        head = _head()
        caller = services.guards.authenticate(head) if route.role is not None else None
        entry = _entry()
        if caller is not None:
            if route.audited and head.method == route.method:  # a HEAD opens nothing
                entry.begin(route.operation, caller, services.guards.client(head))
                entry.about(*target_of(services.supervisor, caller, route.path, path))
            services.guards.check_role(head, caller, route.role or Role.ADMIN)
            if not route.open_to_limited:
                guards.require_whole(caller)
        query = parse_query(head.query, route.query)
        call = Call(
            services=services,
            head=head,
            request_id=_request_id(),
            path=path,
            query=query,
            caller=caller,
            entry=entry,
        )
        async with reading(route, call, request, _flow()) as body:
            call = evolve(call, body=body.value, digest=body.digest, upload=body.upload)
            return _response(await handler(call), head_only=head.method == "HEAD")

    return view


def _head() -> Head:
    return Head.of_scope(request.scope)


def _request_id() -> str:
    """As `mount` left it in the scope."""
    return str(cast("Scope", request.scope)[REQUEST_ID_KEY])


def _entry() -> Entry:
    """As `mount` left it in the scope."""
    return cast("Entry", cast("Scope", request.scope)[AUDIT_KEY])


def _flow() -> BodyFlow:
    """As the guard around left it in the scope."""
    return cast("BodyFlow", cast("Scope", request.scope)[BODY_FLOW_KEY])


def _response(reply: Reply, *, head_only: bool = False) -> Response:
    body = b"" if head_only and isinstance(reply.body, bytes) else reply.body
    response = Response(body, reply.status)
    response.headers.clear()
    if reply.content_type:
        response.headers["content-type"] = reply.content_type
    if isinstance(reply.body, bytes):
        response.headers["content-length"] = str(len(reply.body))
    else:
        response.timeout = None  # Quart would cut a stream after a minute
    _add_headers(response, reply.headers)
    return response


def _add_headers(response: Response, headers: Headers) -> None:
    for name, value in headers:
        response.headers[name.decode("ascii")] = value.decode("latin-1")


async def _on_exception(error: Exception) -> Response:
    return _problem(error)


async def _on_http_exception(error: HTTPException) -> Response:
    return _problem(_known(error))


def _problem(error: BaseException) -> Response:
    answer: Answer = answer_for(error, request_id=_request_id())
    response = Response(b"" if request.method == "HEAD" else answer.body, answer.status)
    response.headers.clear()
    _add_headers(response, answer.headers)
    return response


def _known(error: HTTPException) -> CorralError:
    """Quart's own refusals in our words."""
    match error.code:
        case 404:
            return NotFound("There is no such path.", hint="/docs lists what there is.")
        case 405 if isinstance(error, WrongMethod):
            allow: Iterable[str] = error.valid_methods or ()
            return MethodNotAllowed("The path does not take this method.", evidence={"allow": sorted(allow)})
        case 408:
            return MalformedJson("The body did not arrive in time.")
        case 413:
            return PayloadTooLarge("The body is too large.")
    return Internal(error.description or "")
