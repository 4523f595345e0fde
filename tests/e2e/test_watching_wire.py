"""Watching an instance's traffic, on a real control plane with real servers: what is shown, to whom, and what is not."""

from __future__ import annotations

import json
from base64 import b64encode
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests import servers
from tests.e2e.plane import wait_until
from tests.e2e.test_watching import Ear, listening, user_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane

SECRET = "s3cr3t+of/this=instance"
WATCHERS = 16
GONE_S = 10.0
TOKEN = "ghp_" + "Zz9" * 12
INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "ada", "version": "1"}}


@contextmanager
def watching(plane: Plane, name: str, query: str = "", token: str | None = None) -> Iterator[Ear]:
    with listening(plane, f"/instances/{name}/wire{query}", token) as ear:
        yield ear


def frames(ear: Ear) -> list[dict[str, Any]]:
    return [event for event in ear.heard if event["type"] == "wire"]


def call_over_mcp(plane: Plane, name: str, text: str) -> None:
    """One tool call through the MCP endpoint, by a client of the era with sessions."""
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    with plane.client() as client:
        hello = client.post(
            f"/mcp/{name}",
            json={"jsonrpc": "2.0", "id": "hi", "method": "initialize", "params": INITIALIZE},
            headers=headers,
        )
        assert hello.status_code == 200, hello.text
        headers["Mcp-Session-Id"] = hello.headers["mcp-session-id"]
        client.post(f"/mcp/{name}", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
        params = {"name": "echo", "arguments": {"text": text}}
        answer = client.post(
            f"/mcp/{name}",
            json={"jsonrpc": "2.0", "id": "one", "method": "tools/call", "params": params},
            headers=headers,
        )
        assert answer.status_code == 200, answer.text
        assert text in answer.text
        client.delete(f"/mcp/{name}", headers=headers)


def test_calls_of_every_door_are_seen_in_both_directions(plane: Plane) -> None:
    instance_id = plane.deploy("doors")["instance_id"]
    with watching(plane, "doors") as ear:
        plane.tool("doors", "echo", text="by execute")
        asked = ear.of_type("wire", method="tools/call", direction="to_server")
        answered = ear.of_type("wire", method="tools/call", direction="from_server")
        call_over_mcp(plane, "doors", "by mcp")
        asked_too = ear.of_type("wire", method="tools/call", direction="to_server")
        answered_too = ear.of_type("wire", method="tools/call", direction="from_server")

    pid = plane.instance("doors")["pid"]
    for question, answer, text in ((asked, answered, "by execute"), (asked_too, answered_too, "by mcp")):
        assert (question["kind"], answer["kind"]) == ("request", "response")
        assert question["id"] == answer["id"] == json.loads(question["frame"])["id"]
        assert question["ms"] is None
        assert answer["ms"] > 0
        assert json.loads(question["frame"])["params"]["arguments"] == {"text": text}
        assert json.loads(answer["frame"])["result"]["content"][0]["text"] == text
        assert answer["size_bytes"] == len(answer["frame"])
        assert question["instance_id"] == instance_id
        assert (question["incarnation"], question["truncated"]) == (1, False)
    assert (asked["lane"], asked["pid"]) == ("primary", pid)
    numbers = [frame["seq"] for frame in frames(ear)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_no_secret_is_shown_whoever_says_it(plane: Plane) -> None:
    plane.deploy("secretive", environment_vars={"API_SECRET": SECRET})
    with watching(plane, "secretive") as ear:
        plane.tool("secretive", "env")
        plane.tool("secretive", "echo", text=f"{SECRET} https://u:hunter2@h/ Bearer {TOKEN}\n{TOKEN}", api_key="pw1")
        plane.tool("secretive", "noise")
        plane.tool("secretive", "echo", text="last")
        ear.until(lambda event: event["type"] == "wire" and "last" in event["frame"] and event["kind"] == "response")

    shown = json.dumps(frames(ear))
    for secret in (SECRET, SECRET.replace("/", "\\/"), TOKEN, "hunter2", "pw1"):
        assert secret not in shown
    assert "[redacted:API_SECRET]" in shown
    assert [frame["frame"] for frame in frames(ear) if frame["kind"] == "noise"] == ["this is not JSON", "{]"]


def test_a_filter_lets_through_what_it_names_and_answers_to_it(plane: Plane) -> None:
    plane.deploy("filtered")
    with (
        watching(plane, "filtered", "?method=tools/*,prompts/list&direction=from_server") as ear,
        watching(plane, "filtered", "?method=tools/list") as other,
    ):
        plane.execute("filtered", "ping")
        plane.execute("filtered", "prompts/list")
        plane.execute("filtered", "tools/list")
        plane.tool("filtered", "noise")
        ear.of_type("wire", method="tools/call")
        other.of_type("wire", method="tools/list", kind="response")

    assert [(e["kind"], e["method"]) for e in frames(ear)] == [
        ("error", "prompts/list"),
        ("response", "tools/list"),
        ("response", "tools/call"),
    ]
    assert [(e["kind"], e["method"]) for e in frames(other)] == [("request", "tools/list"), ("response", "tools/list")]


def test_the_traffic_of_the_next_process_follows(plane: Plane) -> None:
    plane.deploy("restarting")
    with watching(plane, "restarting") as ear:
        first = plane.instance("restarting")["pid"]
        assert plane.request("POST", "/instances/restarting/restart").status_code in (200, 202)
        greeted = ear.of_type("wire", method="initialize", kind="response")
        ear.of_type("wire", method="notifications/initialized", direction="to_server")

    assert greeted["incarnation"] == 2
    assert greeted["pid"] != first


def test_the_processes_of_a_redeploy_are_told_apart(plane: Plane) -> None:
    plane.deploy("changing")
    with watching(plane, "changing") as ear:
        source = servers.source("echo.py") + b"\n# again\n"
        plane.request("POST", "/instances/changing/redeploy?wait=60", json={"source_data": b64encode(source).decode()})
        greeted = ear.of_type("wire", method="initialize", kind="response")
        plane.tool("changing", "echo", text="new")
        called = ear.of_type("wire", method="tools/call", kind="response")

    assert (greeted["lane"], called["lane"]) == ("candidate", "primary")
    assert greeted["pid"] == called["pid"]


def test_only_who_may_deploy_sees_only_their_own(plane: Plane) -> None:
    owner, stranger = user_of(plane, "wirer"), user_of(plane, "nosy")
    with plane.client(owner) as client:
        body = {"name": "mine", "source_type": "direct", "language": "python", "entry_point": "server.py"}
        body["source_data"] = b64encode(servers.source("echo.py")).decode()
        assert client.post("/api/v2/deploy?wait=60", json=body).status_code == 201
        weak = client.post("/tokens", json={"name": "weak", "role": "caller"}).json()["token"]

    def status(token: str, ref: str, query: str = "", accept: str = "text/event-stream") -> int:
        with (
            plane.client(token) as client,
            client.stream("GET", f"/instances/{ref}/wire{query}", headers={"Accept": accept}) as answer,
        ):
            return answer.status_code

    assert status(owner, "mine") == 200
    assert status(plane.token, "wirer/mine") == 200
    assert status(weak, "mine") == 403
    assert status(stranger, "mine") == 404
    assert status(stranger, plane.get("/instances/wirer/mine")["instance_id"]) == 404
    assert status(owner, "mine", "?methods=x") == 422
    assert status(owner, "mine", "?direction=up") == 422
    assert status(owner, "mine", accept="application/json") == 406


def test_the_stream_ends_with_the_instance_and_with_the_token(plane: Plane) -> None:
    plane.deploy("ending")
    token = plane.request("POST", "/tokens", json={"name": "short", "role": "deployer"}).json()
    with watching(plane, "ending") as ear, watching(plane, "ending", token=token["token"]) as other:
        assert plane.request("DELETE", f"/tokens/{token['token_id']}").status_code in (200, 204)
        with pytest.raises(AssertionError, match="the stream ended"):
            other.of_type("deleted")
        assert plane.request("DELETE", "/mcp/ending").status_code in (200, 202, 204)
        with pytest.raises(AssertionError, match="the stream ended"):
            ear.of_type("deleted")


def test_what_passes_is_on_no_other_stream(plane: Plane) -> None:
    plane.deploy("apart")
    with listening(plane, "/mcp/apart/stream") as instance, listening(plane) as fleet, watching(plane, "apart") as ear:
        plane.tool("apart", "echo", text="x")
        ear.of_type("wire", method="tools/call", kind="response")
        plane.request("PATCH", "/instances/apart", json={"labels": {"a": "b"}})
        fleet.of_type("changed")
        instance.of_type("changed")

    assert not [event for event in [*instance.heard, *fleet.heard] if event["type"] == "wire"]


def test_a_reader_that_comes_back_is_told_of_the_gap(plane: Plane) -> None:
    plane.deploy("again")
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "x-7"}
    with plane.client() as client, client.stream("GET", "/instances/again/wire", headers=headers) as answer:
        ear = Ear(answer.iter_lines())
        assert ear.of_type("gap")["missed"] is None
    assert [event["type"] for event in ear.heard] == ["connected", "gap"]


def test_who_leaves_leaves_nothing_behind_and_readers_are_counted(plane: Plane) -> None:
    plane.deploy("crowded")

    def refused() -> int:
        return plane.request("GET", "/instances/crowded/wire", headers={"Accept": "text/event-stream"}).status_code

    with ExitStack() as readers:
        for _ in range(WATCHERS):
            readers.enter_context(watching(plane, "crowded"))
        assert plane.metric("corral_subscribers") == WATCHERS
        assert refused() == 503
    wait_until(lambda: plane.metric("corral_subscribers") == 0, GONE_S, "the end of every stream")
    plane.tool("crowded", "echo", text="still there")
    with watching(plane, "crowded"):
        pass
