"""Sources that cannot be built, or of which nothing says how: what the answer says, and what is left of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from attrs import frozen

from tests import servers
from tests.e2e.plane import wait_until
from tests.e2e.sources import files_of, in_base64, zip_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.e2e.plane import Plane

BUILD_S = 120
LOGGED_S = 10
"""Lines are written in batches."""
NEIGHBOUR = "neighbour"
SDK = servers.HERE / "sdk"


@frozen
class Broken:
    """A source that a tool refuses: what it is deployed with, and words of the tool's own about it."""

    name: str
    body: dict[str, Any]
    words: tuple[str, ...]
    marks: tuple[pytest.MarkDecorator, ...] = ()


def direct(entry_point: str, text: str, *dependencies: str) -> dict[str, Any]:
    data = in_base64(text.encode())
    return {
        "source_type": "direct",
        "source_data": data,
        "entry_point": entry_point,
        "dependencies": list(dependencies),
    }


def zipped(files: dict[str, str]) -> dict[str, Any]:
    encoded = {name: text.encode() for name, text in files.items()}
    return {"source_type": "zip", "source_data": in_base64(zip_of(encoded))}


def mistyped() -> dict[str, Any]:
    """The server of the TypeScript SDK, with one wrong type."""
    files = files_of(SDK / "typescript")
    files["src/server.ts"] += b'\nexport const wrong: number = "a text";\n'
    return {"source_type": "zip", "source_data": in_base64(zip_of(files))}


NETWORK = pytest.mark.network
BROKEN = (
    Broken("npm-missing", direct("server.js", "\n", "zod@99.0.0"), ("ETARGET", "zod@99.0.0"), (pytest.mark.needs("npm"), NETWORK)),
    Broken("pypi-missing", direct("server.py", "\n", "mcp==999"), ("mcp==999", "no version of mcp"), (NETWORK,)),
    Broken("typescript-mistyped", mistyped(), ("src/server.ts", "TS2322"), (pytest.mark.needs("npm"), NETWORK)),
    Broken("go-misspelt", direct("main.go", "package main\n\nfunc main() {\n\tfoo(\n}\n"), ("main.go:5", "syntax error"), (pytest.mark.needs("go"),)),
    Broken("rust-misspelt", direct("main.rs", "fn main() {\n    foo(\n}\n"), ("main.rs:2", "error"), (pytest.mark.needs("rust"),)),
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def neighbour(plane: Plane) -> dict[str, Any]:
    return plane.deploy(NEIGHBOUR)


@pytest.fixture(autouse=True)
def unaffected(plane: Plane, neighbour: dict[str, Any]) -> Iterator[None]:
    """Nothing half made stays in the store, and the neighbour is the process that it was."""
    yield
    wait_until(lambda: not os.listdir(plane.home / "store" / "staging"), LOGGED_S, "nothing in store/staging")
    assert plane.tool(NEIGHBOUR, "echo", text="still here") == "still here"
    now = plane.instance(NEIGHBOUR)
    assert (now["pid"], now["restarts"], now["status"]) == (neighbour["pid"], 0, "running")


def deploy(plane: Plane, name: str, body: dict[str, Any]) -> httpx.Response:
    return plane.request("POST", f"/api/v2/deploy?wait={BUILD_S}", json={"name": name, **body}, timeout=BUILD_S)


def build_log(plane: Plane, name: str) -> list[str]:
    """The lines that the tools printed."""
    lines = plane.get(f"/instances/{name}/logs", params={"stream": "build", "tail": 1000})["logs"]
    return [line["message"] for line in lines]


@pytest.mark.parametrize("broken", [pytest.param(broken, marks=broken.marks, id=broken.name) for broken in BROKEN])
def test_a_failed_build_shows_the_tool_s_own_last_lines(plane: Plane, broken: Broken) -> None:
    answer = deploy(plane, broken.name, broken.body)

    document = answer.json()
    assert (answer.status_code, document["code"]) == (422, "build_failed"), answer.text
    assert document["exit_code"] > 0
    tail = "\n".join(document["stderr_tail"])
    assert all(word in tail for word in broken.words), tail
    assert plane.instance(broken.name)["status"] == "failed"
    wait_until(lambda: document["stderr_tail"][-1] in build_log(plane, broken.name), LOGGED_S, "the lines in the log")
    assert set(document["stderr_tail"]) <= set(build_log(plane, broken.name))


def test_a_language_that_nobody_knows_is_refused_at_once(plane: Plane) -> None:
    answer = deploy(plane, "punched", {**direct("main.cob", "STOP RUN."), "language": "cobol"})

    document = answer.json()
    assert (answer.status_code, document["code"]) == (422, "invalid_request"), answer.text
    assert document["errors"][0]["pointer"] == "/language"
    assert "python" in document["errors"][0]["message"]
    assert plane.request("GET", "/instances/punched").status_code == 404


PACKAGE = '{"name": "either", "main": "server.js"}'
PROJECT = '[project]\nname = "either"\nversion = "1"\n'


@pytest.mark.parametrize(
    ("name", "files", "asked", "said"),
    [
        ("either", {"package.json": PACKAGE, "pyproject.toml": PROJECT}, {}, ("python or node", "package.json")),
        ("several", {"a.py": "", "b.js": ""}, {}, ("a.py, b.js", "python or node")),
        ("nothing", {"README": "", "deep/er/go.mod": "module a"}, {}, ("which language", "deep/er")),
        ("near", {"serve.py": "", "app.py": ""}, {"entry_point": "server.py"}, ("no file server.py", "serve.py")),
        ("elsewhere", {"src/server.js": "", "package.json": "{}"}, {"entry_point": "server.js"}, ("src/server.js",)),
    ],
    ids=["two-manifests", "two-suffixes", "nothing", "a-near-name", "another-folder"],
)
def test_a_source_that_does_not_say_how_it_runs_is_refused_with_what_there_is(
    plane: Plane, name: str, files: dict[str, str], asked: dict[str, str], said: tuple[str, ...]
) -> None:
    answer = deploy(plane, name, {**zipped(files), **asked})

    document = answer.json()
    assert (answer.status_code, document["code"]) == (422, "source_rejected"), answer.text
    assert all(words in f"{document['detail']}: {document['hint']}" for words in said), answer.text
    assert plane.instance(name)["status"] == "failed"


def test_a_failed_build_can_be_mended_by_a_new_revision(plane: Plane) -> None:
    deploy(plane, "mended", {**zipped({"serve.py": "", "app.py": ""}), "entry_point": "server.py"})

    answer = plane.request(
        "POST",
        f"/instances/mended/redeploy?wait={BUILD_S}",
        json={**zipped({"serve.py": servers.source("echo.py").decode()}), "entry_point": "serve.py"},
    )

    assert answer.status_code in (200, 201), answer.text
    assert plane.instance("mended")["entry_point"] == "serve.py"
    assert plane.tool("mended", "echo", text="well") == "well"
