"""What a deploy answers, for every outcome."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from controlplane.core.lifecycle import State
from controlplane.errors import Conflict, QuotaExceeded, RateLimited
from controlplane.model import Role
from controlplane.web.app import make_quart
from tests.web.fakes import TOKENS, request, running
from tests.web.fakes_api import in_process, make_api_services, pointers, problem_of, serving
from tests.wire.cases import INVALID_DEPLOYS, MEMORY, deploy

if TYPE_CHECKING:
    from controlplane.web.asgi import App

PATHS = ("/api/v2/deploy", "/deploy")


@pytest.mark.parametrize("path", PATHS)
async def test_a_server_that_runs_is_a_201_with_the_readmes_fields_and_its_place(path: str) -> None:
    async with serving() as api:
        response = await api.ask("POST", path, json=MEMORY)
        assert response.status_code == 201
        made = response.json()
        assert made["name"] == "memory-server"
        assert made["status"] == "running"
        assert made["owner"] == "alice"
        assert made["created_at"].endswith("Z")
        assert made["sse_endpoint"] == f"/mcp/{made['instance_id']}/stream"
        assert made["api_endpoint"] == f"/mcp/{made['instance_id']}/execute"
        assert response.headers["location"] == f"/instances/{made['instance_id']}"
        principal, body, digest, key = api.deployer.seen[0]
        assert principal.owner == "alice"
        assert body.mcp_config is not None
        assert body.mcp_config.args == ["-y", "@modelcontextprotocol/server-memory"]
        assert len(digest) == 32
        assert key is None


async def test_a_secret_among_the_arguments_is_warned_of_in_the_answer() -> None:
    async with serving() as api:
        made = (await api.ask("POST", "/deploy", json=MEMORY)).json()
        warnings = [note for note in made["notes"] if "looks like a secret" in note]
        assert len(warnings) == 2
        assert "abc" not in str(warnings)


async def test_a_server_that_is_not_up_within_the_wait_is_a_202_with_its_phase() -> None:
    async with serving() as api:
        api.deployer.outcome = State.PREPARING
        response = await api.ask("POST", "/deploy?wait=0.05", json=MEMORY)
        assert response.status_code == 202
        assert response.json()["status"] == "building"
        assert "location" in response.headers


async def test_a_deploy_answers_as_soon_as_the_outcome_is_there() -> None:
    async with serving() as api:
        api.deployer.outcome = State.PREPARING

        async def come_up() -> None:
            while len(api.supervisor.by_id) < 4:
                await trio.sleep(0.01)
            api.named("alice", "memory-server").become(State.RUNNING)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(come_up)
                response = await api.ask("POST", "/deploy?wait=300", json=MEMORY)
        assert response.status_code == 201


async def test_a_server_that_fails_is_a_422_with_the_evidence_and_stays() -> None:
    async with serving() as api:
        api.deployer.outcome = State.FAILED
        document = problem_of(await api.ask("POST", "/deploy", json=MEMORY), 422, "deploy_failed")
        assert document["detail"] == (
            "The instance memory-server failed: the process exited with status 3 before its handshake was done"
        )
        assert document["hint"] == "mend it"
        assert document["phase"] == "handshake"
        assert document["exit_code"] == 3
        assert "signal" not in document
        assert document["stderr_tail"][0].startswith("boom ")
        found = await api.ask("GET", f"/instances/{document['instance_id']}")
        assert found.json()["status"] == "failed"


@pytest.mark.parametrize(("value", "pointer", "message"), INVALID_DEPLOYS)
async def test_an_invalid_deploy_is_refused_before_anything_is_done(value: Any, pointer: str, message: str) -> None:
    async with in_process() as api:
        body = json.dumps(value)
        response = await api.ask("POST", "/deploy", content=body, headers={"content-type": "application/json"})
        if "surrogate" in message or "finite" in message:  # the strict JSON reader may be the one that refuses it
            assert response.status_code in {400, 422}
        else:
            document = problem_of(response, 422, "invalid_request")
            assert pointer in pointers(document)
        assert not api.deployer.seen


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"", {}, 400, "malformed_json"),
        (b"{", {}, 400, "malformed_json"),
        (b"\xff\xfe", {}, 400, "malformed_json"),
        (b"\xef\xbb\xbf{}", {}, 400, "malformed_json"),
        (b'{"name": NaN}', {}, 400, "malformed_json"),
        (b"[" * 50_000, {}, 400, "malformed_json"),
        ('{"name": "a"}'.encode("utf-16"), {}, 400, "malformed_json"),
        (b'{"name": "a"} x', {}, 400, "malformed_json"),
        (b"{}", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        (b"{}", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        (b"{}", {"content-type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
        (b"{}", {"content-encoding": "gzip"}, 415, "unsupported_media_type"),
        (b"{}", {}, 422, "invalid_request"),
        (b"null", {}, 422, "invalid_request"),
        (b"1e999", {}, 400, "malformed_json"),
    ],
)
async def test_a_malformed_body_is_told_as_such(
    content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with serving() as api:
        sent = {"content-type": "application/json", **headers}
        for path in ("/deploy", "/tokens"):
            problem_of(await api.ask("POST", path, content=content, headers=sent), status, code)


async def test_of_duplicate_names_the_last_counts() -> None:
    async with serving() as api:
        body = b'{"name":"a","source_type":"mcp_config","mcp_config":{"command":"x"},"name":"b"}'
        response = await api.ask("POST", "/deploy", content=body, headers={"content-type": "application/json"})
        assert response.json()["name"] == "b"


async def test_the_digest_is_of_what_the_body_says_not_of_how_it_is_written() -> None:
    async with serving() as api:
        headers = {"content-type": "application/json", "idempotency-key": "once"}
        bodies = [
            b'{"name":"a","source_type":"mcp_config","mcp_config":{"command":"x","args":["1","2"]}}',
            b'{ "mcp_config": {"args":["1","2"], "command":"x"}, "source_type":"mcp_config", "name":"a" }',
            b'{"name":"a","source_type":"mcp_config","mcp_config":{"command":"x","args":["2","1"]}}',
        ]
        for body in bodies:
            await api.ask("POST", "/deploy", content=body, headers=headers)
        first, second, third = (seen[2] for seen in api.deployer.seen)
        assert first == second != third
        assert {seen[3] for seen in api.deployer.seen} == {"once"}


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä"])
async def test_an_idempotency_key_must_be_a_plain_word(key: str) -> None:
    async with serving() as api:
        headers = {"idempotency-key": key.encode("latin-1")}
        document = problem_of(await api.ask("POST", "/deploy", json=MEMORY, headers=headers), 422, "invalid_request")
        assert pointers(document) == {"Idempotency-Key"}
        assert not api.deployer.seen


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Conflict("the name is taken"), 409, "conflict"),
        (QuotaExceeded("MAX_INSTANCES_PER_USER is 10"), 403, "quota_exceeded"),
        (RateLimited("10 deploys a minute are allowed", retry_after_s=6), 429, "rate_limited"),
    ],
)
async def test_what_the_deployer_refuses_is_told_as_it_says(error: Exception, status: int, code: str) -> None:
    async with serving() as api:
        api.deployer.error = error
        response = await api.ask("POST", "/deploy", json=MEMORY)
        assert problem_of(response, status, code)["detail"] == str(error)
        assert ("retry-after" in response.headers) == (status == 429)


async def test_a_bug_shows_an_incident_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as api:
        api.deployer.error = RuntimeError("secret /internal/path of ours")
        document = problem_of(await api.ask("POST", "/deploy", json=MEMORY), 500, "internal")
        assert "secret" not in str(document)
        assert "/internal/path" not in str(document)
        assert document["incident"] in caplog.text


@pytest.mark.parametrize("role", [Role.VIEWER, Role.CALLER])
async def test_deploying_needs_the_role(role: Role) -> None:
    async with serving() as api:
        document = problem_of(await api.ask("POST", "/deploy", token=TOKENS[role], json=MEMORY), 403, "forbidden")
        assert "deployer" in document["detail"]
        assert not api.deployer.seen


@pytest.mark.parametrize("wait", ["-1", "301", "x", "nan", "1e3", ""])
async def test_a_wait_that_is_no_time_is_refused(wait: str) -> None:
    async with serving() as api:
        document = problem_of(await api.ask("POST", f"/deploy?wait={wait}", json=MEMORY), 422, "invalid_request")
        assert pointers(document) == {"?wait"}


async def test_a_body_beyond_the_limit_is_a_413_by_its_declaration_alone() -> None:
    services = make_api_services()
    async with running(services, app=cast("App", make_quart(services))) as server:
        client = await server.connect()
        head = request(
            "POST", "/deploy", token=TOKENS[Role.DEPLOYER], content_type=None, content_length=str(10 * 2**30)
        )
        with trio.fail_after(10):
            reply = await client.ask(head)
        assert reply.status == 413
        assert reply.json()["code"] == "payload_too_large"


async def test_an_upload_of_more_than_a_calls_size_is_taken() -> None:
    async with serving() as api:
        body = deploy(source_type="direct", mcp_config=None, source_data="QUJD" * (2 * 2**20))
        assert (await api.ask("POST", "/deploy", json=body)).status_code == 201
