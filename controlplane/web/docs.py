"""The API explains itself: `/openapi.json`, the page `/docs`, and a page for each problem. All work offline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field

from controlplane.errors import PROBLEMS, NotFound
from controlplane.web.call import Call, Reply, encode
from controlplane.web.docs_model import answer_schemas, operations_by_tag
from controlplane.web.openapi import TAGS, document
from controlplane.web.pages import render
from controlplane.web.problem_texts import TEXTS
from controlplane.web.problems import STEADY_HEADERS
from controlplane.web.route import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INTRODUCTION = """\
Send `Authorization: Bearer <token>` with everything but the open routes. Roles build on each other: `viewer` reads, \
`caller` calls, `deployer` deploys and removes its own, `admin` may do everything. Wherever a path has `{id}`, the \
instance's name works as well as its UUID; an administrator names another user's instance `owner/name`.

Failures are problem documents (RFC 9457) with a stable `code`, each with a page of its own. Unknown body fields and query \
parameters are refused by name, all wrong places at once. Every answer carries `X-Request-Id`.
"""


@define(eq=False)
class Documentation:
    """The handlers. What they answer is made when it is first asked for."""

    routes: Sequence[Route] = ()
    _pages: dict[tuple[str, str], Reply] = field(factory=dict, init=False)
    """By name and version."""

    async def openapi(self, call: Call) -> Reply:
        """The document."""
        return self._once("openapi", call, lambda: Reply(200, encode(self._document(call)), headers=STEADY_HEADERS))

    async def page(self, call: Call) -> Reply:
        """The document for people, to read and to try."""
        return self._once("docs", call, lambda: self._render_docs(call))

    async def problems(self, call: Call) -> Reply:
        """All problems, in a list."""
        return self._once(
            "problems", call, lambda: render("problems.html", problems=[_problem(code) for code in TEXTS])
        )

    async def problem(self, call: Call) -> Reply:
        """What one problem means and what to do."""
        code = call.path["code"]
        if code not in TEXTS:
            raise NotFound("There is no such problem.", hint="/problems lists them all.")
        return self._once(code, call, lambda: render("problem.html", problem=_problem(code)))

    def _once(self, name: str, call: Call, make: Callable[[], Reply]) -> Reply:
        key = (name, call.services.version)
        if key not in self._pages:
            self._pages[key] = make()
        return self._pages[key]

    def _document(self, call: Call) -> dict[str, Any]:
        return document(self.routes, version=call.services.version)

    def _render_docs(self, call: Call) -> Reply:
        made = self._document(call)
        return render(
            "docs.html",
            script="docs.js",
            version=call.services.version,
            introduction=INTRODUCTION,
            tags=TAGS,
            groups=operations_by_tag(made, self.routes),
            schemas=answer_schemas(made, self.routes),
            problems=[_problem(code) for code in TEXTS],
        )


def _problem(code: str) -> dict[str, Any]:
    known, text = PROBLEMS[code], TEXTS[code]
    return {
        "code": code,
        "status": known.status,
        "title": known.title,
        "meaning": text.meaning,
        "remedies": text.remedies,
    }


def with_documentation(*routes: Route) -> tuple[Route, ...]:
    """The table with the routes that document it, themselves included."""
    documentation = Documentation()
    documentation.routes = (
        *routes,
        Route(
            "GET",
            "/openapi.json",
            documentation.openapi,
            operation="getOpenapi",
            summary="This API as an OpenAPI 3.1 document",
            tag="Documentation",
            role=None,
            answers={200: "application/json"},
        ),
        Route(
            "GET",
            "/docs",
            documentation.page,
            operation="getDocs",
            summary="This API as a page to read and try",
            description="One page, whole in itself: it loads nothing from anywhere.",
            tag="Documentation",
            role=None,
            answers={200: "text/html"},
        ),
        Route(
            "GET",
            "/problems",
            documentation.problems,
            operation="listProblems",
            summary="All problems, as a page",
            tag="Documentation",
            role=None,
            answers={200: "text/html"},
        ),
        Route(
            "GET",
            "/problems/{code}",
            documentation.problem,
            operation="getProblem",
            summary="What a problem means and what to do, as a page",
            description="Where the `type` of a problem document leads.",
            tag="Documentation",
            role=None,
            answers={200: "text/html"},
            problems=("not_found",),
        ),
    )
    return tuple(documentation.routes)
