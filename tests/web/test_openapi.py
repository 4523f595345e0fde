"""The document, the pages, and that neither can differ from what is served."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from controlplane.errors import PROBLEMS
from controlplane.web.openapi import document
from controlplane.web.problem_texts import TEXTS
from controlplane.web.routes import ROUTES
from tests.web.fakes_api import Api, make_api_services, problem_of, serving

DOCUMENT = document(ROUTES, version="1.2.3")


def test_the_document_is_openapi_3_1() -> None:
    validator = jsonschema_rs.validator_for(OPENAPI_31)
    assert [error.message for error in validator.iter_errors(DOCUMENT)] == []
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def test_every_reference_leads_somewhere() -> None:
    for reference in set(re.findall(r"'\$ref': '#/([^']+)'", str(DOCUMENT))):
        place: Any = DOCUMENT
        for step in reference.split("/"):
            place = place[step]


def test_examples_are_valid_by_their_own_schemas() -> None:
    for route in ROUTES:
        if route.body is not None:
            schema = {"$ref": f"#/components/schemas/{route.body.__name__}", "components": DOCUMENT["components"]}
            assert jsonschema_rs.Draft202012Validator(schema).is_valid(route.example), route.path


def test_routes_that_take_an_archive_say_so() -> None:
    taking = {route.path for route in ROUTES if route.takes_upload}
    assert taking == {"/api/v2/deploy", "/deploy", "/instances/{id}/redeploy"}
    for route in ROUTES:
        body = DOCUMENT["paths"][route.path][route.method.lower()].get("requestBody")
        assert ("multipart/form-data" in str(body)) == route.takes_upload
        if body is not None:
            assert body["required"] != route.may_be_empty
    parts = DOCUMENT["paths"]["/deploy"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert parts["schema"]["required"] == ["spec", "source"]
    assert parts["schema"]["properties"]["spec"] == {"$ref": "#/components/schemas/DeployIn"}
    assert parts["encoding"] == {"spec": {"contentType": "application/json"}}


@pytest.mark.parametrize(
    ("path", "status"), [("/deploy", "200"), ("/instances/{id}/redeploy", "200"), ("/instances/{id}/rollback", "200")]
)
def test_answers_that_may_be_streams_say_so(path: str, status: str) -> None:
    assert "text/event-stream" in DOCUMENT["paths"][path]["post"]["responses"][status]["content"]


async def test_the_page_says_how_an_archive_is_sent() -> None:
    async with serving() as api:
        page = (await api.ask("GET", "/docs", token=None)).text
        assert page.count("source=@server.zip") == 3


def test_operations_have_names_of_their_own_and_say_what_may_go_wrong() -> None:
    names = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names)) == len(ROUTES)
    for route in ROUTES:
        responses = DOCUMENT["paths"][route.path][route.method.lower()]["responses"]
        assert set(map(str, route.answers)) <= set(responses)
        for code in route.problems:
            status = str(PROBLEMS[code].status)
            assert code in str(responses[status]), (route.path, code)


async def test_every_rule_that_is_served_is_documented_and_the_other_way_round() -> None:
    from controlplane.web import cluster
    from controlplane.web.app import make_quart

    app = make_quart(make_api_services())
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in {"HEAD", "OPTIONS"}
    }
    documented = {(route.method, route.path) for route in ROUTES}
    in_front = {(route.method, route.path) for route in ROUTES if route.handler is None}
    between_nodes = {(route.method, route.path) for route in cluster.ROUTES}  # no client may, so none is told
    assert served - between_nodes == documented - in_front
    assert in_front == {
        ("POST", "/mcp/{id}"),
        ("GET", "/mcp/{id}"),
        ("GET", "/mcp/{id}/sse"),
        ("POST", "/mcp/{id}/messages"),
        ("POST", "/mcp/{id}/execute"),
        ("GET", "/mcp/{id}/stream"),
        ("GET", "/events"),
    }


REQUIRED = """
POST /api/v2/deploy|POST /deploy|GET /instances|GET /instances/{id}|PATCH /instances/{id}|POST /instances/{id}/start
POST /instances/{id}/stop|POST /instances/{id}/restart|DELETE /mcp/{id}|DELETE /instances/{id}|GET /instances/{id}/logs
GET /instances/{id}/metrics|GET /instances/{id}/events|GET /instances/{id}/tools|GET /events|POST /mcp/{id}/execute
GET /mcp/{id}/stream|GET /health|GET /livez|GET /readyz|GET /stats|GET /runtimes|GET /metrics|POST /tokens|GET /tokens
POST /mcp/{id}|GET /mcp/{id}|DELETE /tokens/{token_id}|POST /users|GET /users|PATCH /users/{name}|GET /openapi.json|GET /docs|GET /problems
GET /problems/{code}|POST /instances/{id}/redeploy|POST /instances/{id}/rollback|GET /instances/{id}/revisions
GET /runtimes|GET /isolation|GET /cache|POST /cache/verify|POST /cache/prune|PUT /secrets/{name}|GET /secrets|GET /secrets/{name}
DELETE /secrets/{name}|POST /secrets/rotate-key
"""


def test_the_table_has_every_route_that_the_design_names() -> None:
    required = {tuple(entry.split()) for entry in re.split(r"[|\n]", REQUIRED.strip())}
    assert required <= {(route.method, route.path) for route in ROUTES}


async def test_answers_are_valid_by_the_document_that_is_served() -> None:
    async with serving() as api:
        served = (await api.ask("GET", "/openapi.json", token=None)).json()
        assert served["openapi"] == "3.1.0"
        made = await api.ask("POST", "/tokens", json={"name": "x", "role": "viewer"})
        _check(served, "/tokens", "post", made.status_code, made.json())
        for path, template in {
            "/instances": "/instances",
            "/instances/memory": "/instances/{id}",
            "/instances/memory/logs": "/instances/{id}/logs",
            "/instances/memory/metrics": "/instances/{id}/metrics",
            "/instances/memory/events": "/instances/{id}/events",
            "/instances/memory/tools": "/instances/{id}/tools",
            "/instances/memory/revisions": "/instances/{id}/revisions",
            "/instances/nothing": "/instances/{id}",
            "/instances?limit=0": "/instances",
            "/health": "/health",
            "/livez": "/livez",
            "/readyz": "/readyz",
            "/stats": "/stats",
            "/runtimes": "/runtimes",
            "/isolation": "/isolation",
            "/tokens": "/tokens",
            "/users": "/users",
            "/cache": "/cache",
        }.items():
            response = await (api.admin("GET", path) if path in {"/users", "/cache"} else api.ask("GET", path))
            _check(served, template, "get", response.status_code, response.json())


def _check(served: dict[str, Any], path: str, method: str, status: int, body: Any) -> None:
    response = served["paths"][path][method]["responses"][str(status)]
    if "$ref" in response:
        response = served["components"]["responses"][response["$ref"].rpartition("/")[2]]
    (content,) = response["content"].values()
    schema = {**content["schema"], "components": served["components"]}
    errors = [error.message for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(body)]
    assert errors == [], (path, body)


# -- pages


class _Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.inline: dict[str, str] = {}
        self.labels = 0
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "a":
            self.links.append(str(given.get("href")))
        for name in ("src", "srcset", "data", "poster"):
            if name in given:
                self.loads.append(str(given[name]))
        if tag == "link":
            self.loads.append(str(given.get("href")))
        assert "style" not in given, "the policy forbids style attributes"
        assert not any(name.startswith("on") for name in given), "the policy forbids event attributes"
        if tag in {"style", "script"}:
            self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inline[self._open] = self.inline.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""


async def _page(api: Api, path: str) -> tuple[_Page, str]:
    response = await api.ask("GET", path, token=None)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    return _Page(response.text), response.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/docs", "/problems", "/problems/busy"])
async def test_pages_load_nothing_and_run_only_what_their_policy_names(path: str) -> None:
    async with serving() as api:
        page, policy = await _page(api, path)
        assert page.loads == ["data:,"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for kind, text in page.inline.items():
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy
        assert ("script" in page.inline) == (path == "/docs")


async def test_the_page_names_every_operation_and_all_its_links_lead_somewhere() -> None:
    async with serving() as api:
        page, _ = await _page(api, "/docs")
        assert len(page.ids) == len(set(page.ids))
        assert {route.operation for route in ROUTES} <= set(page.ids)
        for link in set(page.links):
            if link.startswith("#"):
                assert link[1:] in page.ids, link
            else:
                assert (await api.ask("GET", link, token=None)).status_code == 200, link


async def test_the_page_never_keeps_the_token_anywhere() -> None:
    async with serving() as api:
        page, _ = await _page(api, "/docs")
        script = page.inline["script"]
        for store in ("localStorage", "sessionStorage", "cookie", "indexedDB", "innerHTML", "eval("):
            assert store not in script


def test_every_problem_has_a_text() -> None:
    assert set(TEXTS) == set(PROBLEMS)
    for code, text in TEXTS.items():
        assert text.meaning.endswith("."), code
        assert text.remedies, code


@pytest.mark.parametrize("code", list(PROBLEMS))
async def test_every_problem_has_a_page_where_its_type_leads(code: str) -> None:
    async with serving() as api:
        response = await api.ask("GET", f"/problems/{code}", token=None)
        assert response.status_code == 200
        assert f"{PROBLEMS[code].status} {code}" in response.text


async def test_a_problem_that_does_not_exist_is_one() -> None:
    async with serving() as api:
        problem_of(await api.ask("GET", "/problems/nonsense", token=None), 404, "not_found")
