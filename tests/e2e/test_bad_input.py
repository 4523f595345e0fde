"""Hostile and mistaken requests against a whole control plane: nothing is a 500, nothing hangs, nobody else is disturbed."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.e2e.plane import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane

NO_LIMITS = {
    "RATE_LIMIT_RPS": "0",
    "DEPLOYS_PER_MINUTE": "100000",
    "AUTH_FAILURES_PER_MINUTE": "100000",
    "MAX_INSTANCES_PER_USER": "1000",
}
FUZZ_LIMIT_S = 300
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
STREAMS = r"(stream|/events|logs|/wire|/sse)$"
"""They do not end by themselves; their own tests end them."""
ENDPOINT = r"/mcp/\{id\}(/messages)?$"
"""Its streams need a session, which no random field names."""


def git(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "source_type": "git", "source_url": "https://example.org/x.git", **changes}


def deploy(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "source_type": "mcp_config", "mcp_config": {"command": "true"}} | changes


BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "malformed_json"),
    "not JSON": (b"{name: x}", "malformed_json"),
    "half": (b'{"name": "x"', "malformed_json"),
    "two documents": (b"{}{}", "malformed_json"),
    "NaN": (b'{"name": NaN}', "malformed_json"),
    "invalid UTF-8": (b'{"name": "\xff"}', "malformed_json"),
    "UTF-16": ('{"name": "x"}'.encode("utf-16"), "malformed_json"),
    "nested 50,000 deep": (b"[" * 50_000 + b"]" * 50_000, "malformed_json"),
    "lone surrogate": (b'{"name": "\\ud800"}', "malformed_json"),
    "an array": (b"[]", "invalid_request"),
    "a string": (b'"x"', "invalid_request"),
    "null": (b"null", "invalid_request"),
}

DEPLOYS: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"source_type": "mcp_config", "mcp_config": {"command": "true"}}, "/name"),
    "empty name": (deploy(name=""), "/name"),
    "name with a slash": (deploy(name="a/b"), "/name"),
    "name like a UUID": (deploy(name="9f0c2c1e-6d3c-4c39-9d0e-0d5f3f0f9a11"), "/name"),
    "name of 64": (deploy(name="a" * 64), "/name"),
    "unknown source type": (deploy(source_type="telepathy"), "/source_type"),
    "no command": (deploy(mcp_config={"args": []}), "/mcp_config/command"),
    "command is a number": (deploy(mcp_config={"command": 1}), "/mcp_config/command"),
    "args is a string": (deploy(mcp_config={"command": "true", "args": "-y"}), "/mcp_config/args"),
    "an arg is a number": (deploy(mcp_config={"command": "true", "args": ["a", 3]}), "/mcp_config/args/1"),
    "NUL in an arg": (deploy(mcp_config={"command": "true", "args": ["a\0b"]}), "/mcp_config/args/0"),
    "variable with =": (deploy(environment_vars={"A=B": "1"}), "/environment_vars/A=B"),
    "Corral's own variable": (deploy(environment_vars={"CORRAL_OWNER": "1"}), "/environment_vars/CORRAL_OWNER"),
    "variable is a number": (deploy(environment_vars={"A": 1}), "/environment_vars/A"),
    "a misspelt field": (deploy(enviroment_vars={}), "/enviroment_vars"),
    "too much memory": (deploy(limits={"memory_mb": 1_000_000}), "/limits/memory_mb"),
    "memory as text": (deploy(limits={"memory_mb": "512"}), "/limits/memory_mb"),
    "no such isolation": (deploy(isolation="total"), "/isolation"),
    "a mount that nobody allows": (deploy(mounts=[{"source": "/etc", "target": "/etc"}]), "/mounts/0/source"),
    "no such cwd": (deploy(mcp_config={"command": "true", "cwd": "/no/such/folder"}), "/mcp_config/cwd"),
    "direct without source": ({"name": "x", "source_type": "direct", "language": "python"}, "/source_data"),
    "not base64": ({"name": "x", "source_type": "direct", "language": "python", "source_data": "%%%"}, "/source_data"),
    "entry point above": (
        {"name": "x", "source_type": "direct", "entry_point": "../a.py", "source_data": "eA=="},
        "/entry_point",
    ),
    "a repository without an address": ({"name": "x", "source_type": "git"}, "/source_url"),
    "an archive without a source": ({"name": "x", "source_type": "tar"}, "/source_data"),
    "a ref that is an option": (git(source_ref="--upload-pack=id"), "/source_ref"),
    "a folder above": (git(source_subdir="../../etc"), "/source_subdir"),
    "a package that is an option": (git(dependencies=["--index-url=https://evil.example"]), "/dependencies/0"),
    "a package that is an editable": (git(dependencies=["-e", "."]), "/dependencies/0"),
    "a package that is an address": (git(dependencies=["x @ https://evil.example/x.whl"]), "/dependencies/0"),
    "a package with a marker": (git(dependencies=["x; python_version > '3'"]), "/dependencies/0"),
    "a package that is a path": (git(dependencies=["@scope/../.."]), "/dependencies/0"),
    "5,000 packages": (git(dependencies=["x"] * 5000), "/dependencies"),
}

ADDRESSES = (
    "http://example.org/x.git", "git://example.org/x.git", "file:///etc", "/etc", "ssh://git@example.org/x", "git@example.org:x",
    "ext::sh -c id", "--upload-pack=id", "https://user:pass@example.org/x", "https://127.0.0.1/x", "https://localhost/x",
    "https://[::1]/x", "https://0x7f000001/x", "https://2130706433/x", "https://169.254.169.254/latest", "https://10.0.0.1/x",
    "https://[::ffff:127.0.0.1]/x", "https://example.org:22/x", "https://example.org/x#--upload-pack=id", "https://exa mple.org/x",
)  # fmt: skip


@pytest.fixture(scope="module")
def open_plane_without_limits() -> Iterator[Plane]:
    from tests.e2e.plane import open_plane

    with open_plane(**NO_LIMITS) as opened:
        yield opened.start()


@pytest.fixture
def lax(open_plane_without_limits: Plane) -> Plane:
    return open_plane_without_limits


@pytest.mark.parametrize("path", ["/api/v2/deploy", "/tokens", "/mcp/nobody/execute"])
@pytest.mark.parametrize("body", BODIES)
def test_a_malformed_body_is_a_problem_that_says_so(lax: Plane, path: str, body: str) -> None:
    content, code = BODIES[body]

    answer = lax.request("POST", path, content=content, headers={"Content-Type": "application/json"})

    expected = {code, "not_found"} if "nobody" in path else {code}
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] in expected, answer.text


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_not_fetched_from_is_a_rejected_source(lax: Plane, address: str) -> None:
    answer = lax.request("POST", "/deploy", json=git(source_url=address))

    assert (answer.status_code, answer.json()["code"]) == (422, "source_rejected"), answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/source_url"]
    assert lax.instances() == []


def test_a_hostile_archive_is_refused_by_its_entry_and_nothing_is_left(lax: Plane) -> None:
    hostile = io.BytesIO()
    with zipfile.ZipFile(hostile, "w") as file:
        file.writestr("server.py", "print()")
        file.writestr("../../evil.py", "print()")

    in_base64 = {"name": "x", "source_type": "zip", "source_data": base64.b64encode(hostile.getvalue()).decode()}
    spec = json.dumps({"name": "x", "source_type": "zip"})
    in_parts = {"spec": (None, spec, "application/json"), "source": ("x.zip", hostile.getvalue(), "application/zip")}
    for answer in (lax.request("POST", "/deploy", json=in_base64), lax.request("POST", "/deploy", files=in_parts)):
        assert (answer.status_code, answer.json()["code"]) == (422, "archive_rejected"), answer.text
        assert "../../evil.py" in answer.json()["detail"]
    assert lax.instances() == []
    assert [path for path in (lax.home / "uploads").rglob("*") if path.is_file()] == []
    assert list((lax.home / "store/staging").iterdir()) == []


@pytest.mark.parametrize("case", DEPLOYS)
def test_a_wrong_deploy_is_a_422_that_points_at_the_place(lax: Plane, case: str) -> None:
    body, pointer = DEPLOYS[case]

    answer = lax.request("POST", "/api/v2/deploy", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert lax.instances() == []


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer x",
        "Basic YTpi",
        "bearer  x y",
        "Bearer " + "a" * 5_000,
        "Token x",
        "Bearer \u00e9",
    ],
)
def test_a_bad_credential_is_a_401_everywhere_and_tells_nothing(lax: Plane, authorization: str) -> None:
    with httpx.Client(base_url=lax.url, trust_env=False) as client:
        answers = [
            client.request(method, path, headers={"Authorization": authorization.encode()})
            for method, path in (
                ("GET", "/instances"),
                ("GET", "/stats"),
                ("GET", "/instances/x"),
                ("DELETE", "/mcp/x"),
            )
        ]

    assert {answer.status_code for answer in answers} == {401}
    assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in answers)
    assert len({answer.json()["detail"] for answer in answers}) == 1


def test_a_foreign_host_or_origin_is_refused(lax: Plane) -> None:
    assert lax.request("GET", "/instances", headers={"Host": "evil.example"}).status_code == 421
    evil = lax.request("GET", "/instances", headers={"Origin": "https://evil.example"})
    assert evil.status_code == 403
    assert "access-control-allow-origin" not in evil.headers


def test_one_tenant_cannot_see_touch_or_count_anothers_instance(lax: Plane) -> None:
    lax.deploy("secret-project")
    made = lax.request("POST", "/users", json={"name": "mallory", "role": "deployer"}).json()
    with lax.client(token=made["token"]) as mallory:
        instance_id = lax.instance("secret-project")["instance_id"]
        for ref in (instance_id, "secret-project", "admin/secret-project"):
            statuses = {
                mallory.post(f"/mcp/{ref}/execute", json={"method": "ping"}).status_code,
                mallory.delete(f"/mcp/{ref}").status_code,
                mallory.get(f"/instances/{ref}").status_code,
                mallory.get(f"/instances/{ref}/logs").status_code,
                mallory.post(f"/instances/{ref}/stop").status_code,
                mallory.get(f"/mcp/{ref}/stream").status_code,
            }
            assert statuses == {404}
        assert mallory.get("/instances").json()["instances"] == []
        assert mallory.get("/stats").json()["instances"]["total"] == 0
        assert mallory.get("/users").status_code == 403

    assert lax.instance("secret-project")["status"] == "running"
    lax.request("DELETE", "/instances/secret-project")


def test_thirty_parallel_deploys_at_quota_ten_make_exactly_ten(planes: Callable[..., Plane]) -> None:
    plane = planes(**NO_LIMITS | {"MAX_INSTANCES_PER_USER": "10"})
    answers: list[httpx.Response] = []

    def attempt(number: int) -> None:
        body = deploy(name=f"p{number}", mcp_config={"command": "cat"})
        answers.append(plane.request("POST", "/api/v2/deploy?wait=0", json=body))

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [202] * 10 + [403] * 20
    assert {answer.json()["code"] for answer in answers if answer.status_code == 403} == {"quota_exceeded"}


def test_numbers_and_unknown_members_pass_through_a_call_unchanged(lax: Plane) -> None:
    lax.deploy("faithful", source=MIRROR)
    params = '{"big":9223372036854775808,"tiny":-0.0,"wide":1e308,"text":"\\u00e9\\n","nested":{"_x":[null,true]}}'

    answer = lax.request(
        "POST",
        "/mcp/faithful/execute",
        content=b'{"method":"mirror","params":' + params.replace(",", ",\n").encode() + b"}",
        headers={"Content-Type": "application/json"},
    )

    assert answer.json()["result"]["line"].count("\n") == 0
    assert '"big":9223372036854775808' in answer.json()["result"]["line"]
    assert '"tiny":-0.0' in answer.json()["result"]["line"]
    assert '"wide":1e308' in answer.json()["result"]["line"]
    lax.request("DELETE", "/instances/faithful")


def test_a_document_driven_fuzz_finds_no_server_error(lax: Plane) -> None:
    lax.deploy("canary")

    fuzz(lax, "--exclude-path-regex", STREAMS, "--max-examples", "12")

    lax.assert_no_orphans()


def test_a_document_driven_fuzz_of_an_instances_mcp_endpoint_finds_no_server_error(lax: Plane) -> None:
    lax.deploy("spoken-to")
    (lax.folder / "spoken-to.toml").write_text('[parameters]\n"path.id" = "spoken-to"\n')

    fuzz(
        lax,
        "--include-path-regex",
        ENDPOINT,
        "--exclude-method",
        "DELETE",
        "--max-examples",
        "60",
        config="spoken-to.toml",
    )

    assert lax.request("GET", "/instances/spoken-to").json()["restarts"] == 0
    lax.request("DELETE", "/instances/spoken-to")


def fuzz(plane: Plane, *options: str, config: str | None = None) -> None:
    program = Path(sys.executable).parent / "schemathesis"
    if not program.exists():
        program = Path(shutil.which("schemathesis") or "")
    command = [
        *(str(program), *(("--config-file", config) if config else ()), "run", f"{plane.url}/openapi.json"),
        *("-H", f"Authorization: Bearer {plane.token}", "--checks", CHECKS, "--phases", "examples,fuzzing"),
        # It tries ids that it has seen in answers, and would revoke the token that it asks with.
        *("--exclude-operation-id", "removeToken"),
        *("--request-timeout", "30", "--seed", "20261122", "--workers", "2", *options),
    ]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=FUZZ_LIMIT_S,
        cwd=plane.folder,
        env=plane.environment,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6_000:]
    assert plane.is_running()


def test_a_call_still_works_after_all_that(lax: Plane) -> None:
    lax.deploy("survivor")

    assert text_of(lax.execute("survivor", "tools/call", {"name": "echo", "arguments": {"text": "alive"}})) == "alive"


MIRROR = b"""
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        info = {"name": "mirror", "version": "1"}
        result = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": info}
    elif message["method"] == "server/discover":
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "?"}}), flush=True)
        continue
    else:
        result = {"line": line.rstrip(chr(10))}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""
