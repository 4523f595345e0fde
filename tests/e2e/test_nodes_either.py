"""Two control planes on one Postgres and Redis: what is asked of either is answered as by the one that has it."""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import statistics
import threading
import time
import zipfile
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from controlplane.wire.sse import SseParser
from tests import servers
from tests.e2e.http1 import connected
from tests.e2e.mcp_clients import LegacyClient, ModernClient, said, tool_call
from tests.e2e.nodes import open_nodes
from tests.e2e.plane import Plane, deployment, text_of, wait_until
from tests.nginx.front import Front
from tests.services import Postgres, Valkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT_S = 60
KNOWN_S = 20
"""A hang guard for what one is to hear of the other."""
LARGE_BYTES = 10 * 2**20


@contextmanager
def both_started() -> Iterator[list[Plane]]:
    with ExitStack() as stack:
        postgres, valkey = Postgres(), Valkey()
        for server in (postgres, valkey):
            stack.callback(server.remove)
            server.start()
        planes = stack.enter_context(open_nodes(postgres, valkey))
        for plane in planes:
            plane.start()
        wait_until(lambda: all(len(live(plane)) == 2 for plane in planes), KNOWN_S, "each knows the other")
        yield planes


def rows_of_all(plane: Plane) -> list[dict[str, Any]] | None:
    """None while the other is too busy to answer within its time, which the list says."""
    document = plane.get("/instances")
    return None if document.get("notes") else document["instances"]


def live(plane: Plane) -> list[dict[str, Any]]:
    return [node for node in plane.get("/nodes")["nodes"] if node["live"]]


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Plane]]:
    """For tests that leave both as they were."""
    with both_started() as planes:
        yield planes


@pytest.fixture
def own_nodes() -> Iterator[list[Plane]]:
    """For tests that kill."""
    with both_started() as planes:
        yield planes


@pytest.fixture
def deployed(nodes: list[Plane]) -> Iterator[Callable[..., dict[str, Any]]]:
    """Deploys on one of them; gone with the test, by way of the other."""
    names: list[str] = []

    def deploy(on: int, name: str, source: bytes | None = None, **body: Any) -> dict[str, Any]:
        document = nodes[on].deploy(name, source, **body)
        names.append(name)
        return document

    yield deploy
    for name in names:
        assert nodes[1].request("DELETE", f"/instances/{name}").status_code in (200, 202, 404)


class Stream:
    """An event stream that is read in a thread of its own."""

    def __init__(self, plane: Plane, path: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._client = httpx.Client(**plane._options(None, {"timeout": httpx.Timeout(5, read=LIMIT_S)}))
        self._path = path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        parser = SseParser()
        try:
            with self._client.stream("GET", self._path, headers={"Accept": "text/event-stream"}) as answer:
                assert answer.status_code == 200
                for chunk in answer.iter_raw():
                    self.events += [json.loads(event.data) for event in parser.feed(chunk) if event.data]
        except (httpx.HTTPError, httpx.StreamError, OSError):
            pass
        finally:
            self._ended.set()

    def until(self, **members: Any) -> dict[str, Any]:
        """Wait for an event that has these members."""

        def found() -> dict[str, Any] | None:
            return next((event for event in list(self.events) if event.items() >= members.items()), None)

        event: dict[str, Any] = wait_until(found, LIMIT_S, f"an event with {members}; there are {self.events[-5:]}")
        return event

    def has_ended(self) -> bool:
        return self._ended.is_set()

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def streams() -> Iterator[Callable[[Plane, str], Stream]]:
    opened: list[Stream] = []

    def follow(plane: Plane, path: str) -> Stream:
        stream = Stream(plane, path)
        opened.append(stream)
        stream.until(type="connected")
        return stream

    yield follow
    for stream in opened:
        stream.close()


# -- lists


def test_lists_and_sums_are_of_both_whichever_is_asked(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]]
) -> None:
    ids = {plane.owner_id for plane in nodes}
    for number in range(3):
        deployed(number % 2, f"cow-{number}")

    for plane in nodes:
        rows = wait_until(lambda at=plane: rows_of_all(at), KNOWN_S, "both give their part in time")
        assert [row["name"] for row in rows] == ["cow-0", "cow-1", "cow-2"]
        assert {row["node"].replace("-", "") for row in rows} == {each.replace("-", "") for each in ids}
        assert all(row["pid"] and row["status"] == "running" for row in rows)
        pages, cursor = [], ""
        while cursor is not None:
            page = plane.get("/instances", params={"limit": 1} | ({"cursor": cursor} if cursor else {}))
            pages.append([row["name"] for row in page["instances"]])
            cursor = page["next_cursor"]
        assert pages == [["cow-0"], ["cow-1"], ["cow-2"]]
        assert [row["name"] for row in plane.get("/instances?name=*-1")["instances"]] == ["cow-1"]
        assert plane.get("/stats")["instances"]["by_status"] == {"running": 3}
        assert plane.get("/usage")["total"]["running"] == 3
        assert {node["asked"]: node["instances"] for node in live(plane)}.keys() == {True, False}
        # Who holds what it knows from the database, at which it looks once a second.
        wait_until(lambda at=plane: sum(node["instances"] for node in live(at)) == 3, KNOWN_S, "all are counted")
        shown = plane.corral("nodes").stdout
        assert shown.count("stands") == 2
        assert "cow-2" in plane.corral("ls", "--wide").stdout


def test_one_instance_is_the_same_by_either_and_what_it_says_of_itself_too(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]]
) -> None:
    made = deployed(0, "same")
    for path in ("", "/tools", "/revisions", "/incarnations", "/events", "/logs"):
        one, other = (plane.request("GET", f"/instances/same{path}") for plane in nodes)
        assert one.status_code == other.status_code == 200, other.text
        assert one.headers["content-type"] == other.headers["content-type"]
    for ref in ("same", made["instance_id"], "admin/same"):
        assert nodes[1].instance(ref)["pid"] == made["pid"]
    told = wait_until(lambda: nodes[1].get("/audit?target=same")["audit"], KNOWN_S, "the audit log has its deploy")
    assert "deploy" in {row["action"] for row in told}


def test_the_holder_knows_the_client_of_what_is_handed_on_and_believes_no_other(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]]
) -> None:
    made = deployed(0, "known")
    forged = {"X-Corral-Client": "0" * 64 + " counted 203.0.113.9", "X-Forwarded-For": "203.0.113.9"}

    for plane, request_id in ((nodes[1], "by-the-other"), (nodes[0], "straight")):
        options = plane._options(None, {"transport": httpx.HTTPTransport(local_address="127.0.0.2")})
        headers = {"X-Request-Id": request_id, **forged} | (
            {"X-Corral-Node": nodes[1].owner_id} if plane is nodes[0] else {}
        )
        with httpx.Client(**options) as client:
            assert (
                client.patch("/instances/known", json={"labels": {"by": request_id}}, headers=headers).status_code
                == 200
            )

    def told() -> dict[str, str] | None:
        rows = nodes[0].get(f"/audit?target={made['instance_id']}&action=patchInstance")["audit"]
        return {row["request_id"]: row["address"] for row in rows} if len(rows) == 2 else None

    assert wait_until(told, KNOWN_S, "both rows") == {"by-the-other": "127.0.0.2", "straight": "127.0.0.2"}
    shown = [plane.request("GET", "/metrics").text for plane in nodes]
    assert all('corral_nodes{state="live"} 2' in page and "corral_bus_up 1" in page for page in shown)
    handed_on = [
        line for line in shown[1].splitlines() if line.startswith('corral_handed_on_total{outcome="answered"}')
    ]
    assert int(handed_on[0].rpartition(" ")[2]) > 0


# -- calls


def test_a_call_reaches_the_holder_at_once_after_the_deploy(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]]
) -> None:
    for number in range(4):
        on = number % 2
        made = deployed(on, f"fresh-{number}")
        assert nodes[1 - on].tool(f"fresh-{number}", "pid") == str(made["pid"])


def test_calls_by_the_other_are_answered_as_the_holder_answers_them(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]], figure: Callable[..., None]
) -> None:
    deployed(0, "called")
    body = {"method": "tools/call", "params": {"name": "echo", "arguments": {"text": "moo"}}}
    took: list[list[float]] = [[], []]
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(**plane._options(None, {}))) for plane in nodes]
        for _ in range(300):  # in turn, so that whatever else the host does is the same for both
            for http, samples in zip(clients, took, strict=True):
                began = time.perf_counter()
                answer = http.post("/mcp/called/execute", json=body)
                samples.append(time.perf_counter() - began)
                assert text_of(answer) == "moo"
        for http in clients:
            refused = http.post("/mcp/called/execute", json={"method": "tools/call", "params": []})
            assert refused.status_code == 422
            assert http.post("/mcp/called/execute", json=body, headers={"Authorization": "Bearer x"}).status_code == 401
    straight, by_the_other = (statistics.median(samples) for samples in took)
    figure("a call that is handed on takes", by_the_other / straight, "times as long")
    figure("which is more by", (by_the_other - straight) * 1000, "ms")

    large = nodes[1].execute("called", "tools/call", {"name": "big", "arguments": {"size": 2_000_000}})
    assert len(text_of(large)) == 2_000_000


def test_notifications_of_a_call_come_by_the_other_as_they_are_told(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]]
) -> None:
    deployed(0, "steps")
    body = {
        "method": "tools/call",
        "params": {"name": "progress", "arguments": {"steps": 3}, "_meta": {"progressToken": 1}},
    }
    answer = nodes[1].request("POST", "/mcp/steps/execute", json=body, headers={"Accept": "text/event-stream"})

    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(event.data) for event in SseParser().feed(answer.content)]
    assert len(events) == 4
    assert "result" in events[-1]


async def test_sessions_of_both_eras_are_held_by_way_of_the_other(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]]
) -> None:
    in_thread = trio.to_thread.run_sync
    await in_thread(lambda: deployed(0, "session", servers.source("eras.py"), environment_vars={"ERA": "legacy"}))

    with trio.fail_after(LIMIT_S):
        async with connected(nodes[1]) as http, trio.open_nursery() as nursery:
            legacy, modern = LegacyClient(http, "/mcp/session"), ModernClient(http, "/mcp/session")
            assert "result" in await legacy.initialize()
            await nursery.start(legacy.run_stream)
            await legacy.request("resources/subscribe", {"uri": "nonce://x"})
            await legacy.request("tools/call", tool_call("update", uri="nonce://x"))
            await legacy.until_told("resources/updated")
            wanted = {"resourceSubscriptions": ["nonce://y"]}
            await nursery.start(modern.listen, wanted)
            assert said(await modern.request("tools/call", tool_call("pid"))) == said(
                await legacy.request("tools/call", tool_call("pid"))
            )
            await modern.request("tools/call", tool_call("update", uri="nonce://y"))
            await modern.until_told("resources/updated")
            assert await legacy.delete() == 200
            await legacy.stream_ended.wait()
            assert (await legacy.post({"id": 99, "method": "ping"}))[0] == 404
            nursery.cancel_scope.cancel()


# -- streams


def test_events_of_either_are_in_the_streams_of_both(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]], streams: Callable[[Plane, str], Stream]
) -> None:
    fleets = [streams(plane, "/events") for plane in nodes]
    made = deployed(0, "told")
    of_one = streams(nodes[1], "/mcp/told/stream")
    log = streams(nodes[1], "/instances/told/logs?follow=true")

    for stream in fleets:
        stream.until(type="deployed", instance_id=made["instance_id"], name="told")
        stream.until(type="status", instance_id=made["instance_id"], status="running")
    nodes[1].tool("told", "spam", lines=3, word="grass")
    nodes[1].request("POST", "/instances/told/restart")
    for stream in (*fleets, of_one):
        stream.until(type="status", instance_id=made["instance_id"], incarnation=2, status="running")
    fleets[1].until(type="sample", instance_id=made["instance_id"])
    of_one.until(type="log", message="line 0 grass")
    log.until(type="log", message="line 2 grass")
    nodes[1].request("DELETE", "/instances/told")
    for stream in fleets:
        stream.until(type="deleted", instance_id=made["instance_id"])
    wait_until(of_one.has_ended, LIMIT_S, "the end of the stream of what is no more")
    for stream in fleets:
        told = [event for event in stream.events if event["type"] == "deployed" and event.get("name") == "told"]
        assert len(told) == 1


# -- commands


def test_commands_are_carried_out_by_the_holder(nodes: list[Plane], deployed: Callable[..., dict[str, Any]]) -> None:
    holder, other = nodes
    made = deployed(0, "moved")
    assert other.request("POST", "/instances/moved/stop").json()["status"] == "stopped"
    assert holder.instance("moved")["status"] == "stopped"
    assert other.request("POST", "/instances/moved/start").json()["status"] == "running"
    patched = other.request("PATCH", "/instances/moved", json={"labels": {"team": "blue"}})
    assert patched.json()["labels"] == holder.instance("moved")["labels"] == {"team": "blue"}
    redone = other.request("POST", "/instances/moved/redeploy", json={"environment_vars": {"A": "1"}})
    assert (redone.status_code, redone.json()["revision"]) == (200, 2)
    back = other.request("POST", "/instances/moved/rollback", json={"revision": 1})
    assert (back.status_code, back.json()["revision"]) == (200, 3)
    events = other.request(
        "POST", "/instances/moved/redeploy", json={}, headers={"Accept": "text/event-stream"}
    ).content
    assert json.loads([event.data for event in SseParser().feed(events)][-1])["type"] == "result"
    assert holder.instance("moved")["instance_id"] == made["instance_id"]
    assert other.request("POST", "/api/v2/deploy", json=deployment("moved")).status_code == 409
    removed = other.request("DELETE", "/instances/moved")
    assert removed.status_code == 200
    for plane in nodes:
        assert plane.request("GET", "/instances/moved").status_code == 404
    assert other.request("GET", f"/instances/{made['instance_id']}/logs").status_code == 200


def test_a_deploy_that_is_sent_again_by_way_of_the_other_is_the_same_one(nodes: list[Plane]) -> None:
    body, key = deployment("once"), {"Idempotency-Key": secrets.token_hex(8)}
    try:
        first = nodes[0].request("POST", "/api/v2/deploy?wait=60", json=body, headers=key)
        again = nodes[1].request("POST", "/api/v2/deploy?wait=60", json=body, headers=key)
        other = nodes[1].request("POST", "/api/v2/deploy", json={**body, "labels": {"a": "b"}}, headers=key)
        assert (first.status_code, again.status_code, other.status_code) == (201, 201, 409), again.text
        assert first.json()["instance_id"] == again.json()["instance_id"]
    finally:
        nodes[1].request("DELETE", "/instances/once")


def archive() -> bytes:
    """A server with more beside it than can be held in a few pieces."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("server.py", servers.source("echo.py"))
        packed.writestr("ballast.bin", os.urandom(LARGE_BYTES))
    return buffer.getvalue()


def test_an_upload_by_way_of_the_other_arrives_whole(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]], figure: Callable[..., None]
) -> None:
    deployed(0, "laden")
    spec = {"source_type": "zip", "language": "python", "entry_point": "server.py"}
    files = {"spec": (None, json.dumps(spec), "application/json"), "source": ("s.zip", archive(), "application/zip")}

    began = time.monotonic()
    answer = nodes[1].request("POST", "/instances/laden/redeploy?wait=120", files=files)

    assert answer.status_code == 200, answer.text
    figure("a redeploy of 10 MiB by way of the other", time.monotonic() - began, "s")
    assert nodes[1].tool("laden", "echo", text="full") == "full"
    assert nodes[0].instance("laden")["revision"] == 2


def test_a_secrets_users_are_known_to_both(nodes: list[Plane], deployed: Callable[..., dict[str, Any]]) -> None:
    nodes[0].request("PUT", "/secrets/GRASS", json={"value": "green-green-green"})
    deployed(0, "grazer", environment_vars={"GRASS": "${secret:GRASS}"})
    assert wait_until(lambda: nodes[1].get("/secrets/GRASS")["used_by"], KNOWN_S, "it is used") == ["grazer"]
    assert nodes[1].request("DELETE", "/secrets/GRASS").status_code == 409
    assert nodes[1].request("DELETE", "/secrets/GRASS?force=true").status_code == 200


# -- whose it is


def test_another_owner_sees_nothing_of_it_by_either(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]], streams: Callable[[Plane, str], Stream]
) -> None:
    made = deployed(0, "private")
    token = nodes[0].request("POST", "/users", json={"name": "bob", "role": "deployer"}).json()["token"]
    wait_until(
        lambda: nodes[1].client(token).get("/instances").status_code == 200, KNOWN_S, "the token is known to the other"
    )
    for plane in nodes:
        bob = plane.client(token)
        assert bob.get("/instances").json()["instances"] == []
        for ref in ("private", made["instance_id"], "admin/private"):
            assert bob.get(f"/instances/{ref}").status_code == 404
            assert bob.post(f"/mcp/{ref}/execute", json={"method": "tools/list"}).status_code == 404
            assert bob.delete(f"/instances/{ref}").status_code == 404
        assert bob.get("/nodes").status_code == 403
    assert nodes[0].instance("private")["status"] == "running"


# -- when the holder is away


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_call_whose_holder_goes_away_is_told_so_and_does_not_hang(
    own_nodes: list[Plane], how: str, figure: Callable[..., None]
) -> None:
    holder, other = own_nodes
    holder.deploy("doomed")
    stream = Stream(other, "/mcp/doomed/stream")
    stream.until(type="connected")
    answers: list[httpx.Response] = []
    body = {"method": "tools/call", "params": {"name": "sleep", "arguments": {"seconds": 60}}, "timeout_s": 90}
    call = threading.Thread(target=lambda: answers.append(other.request("POST", "/mcp/doomed/execute", json=body)))
    call.start()
    wait_until(lambda: holder.get("/stats")["calls"]["in_flight"] == 1, KNOWN_S, "the call is under way")

    began = time.monotonic()
    if how == "killed":
        holder.kill()
    else:
        holder.send(signal.SIGSTOP)
    try:
        call.join(LIMIT_S)
        figure(f"told after it was {how}", time.monotonic() - began, "s")
        assert answers[0].status_code == 502, answers[0].text
        assert "control plane" in answers[0].json()["detail"]
        wait_until(stream.has_ended, LIMIT_S, "the stream is cut")
        stream.close()

        rows = {row["name"]: row for row in other.instances()}
        assert rows["doomed"]["desired"] == "running", "no row is lost, on whatever step of its start it is there"
        wait_until(
            lambda: (
                other.execute("doomed", "tools/call", {"name": "echo", "arguments": {"text": "hi"}}).status_code == 200
            ),
            LIMIT_S,
            "it runs on the other",
        )
        assert "its lease ran out" in other.corral("doctor").stdout
    finally:
        if how == "frozen":
            holder.send(signal.SIGCONT)


# -- behind nginx


@pytest.mark.needs("nginx")
def test_behind_nginx_either_is_as_good_as_the_other(
    nodes: list[Plane], deployed: Callable[..., dict[str, Any]], streams: Callable[[Plane, str], Stream]
) -> None:
    front = Front([int(plane.url.rpartition(":")[2]) for plane in nodes])
    try:
        front.start()
        through = Plane(nodes[0].folder, {}, token=nodes[0].token)
        through.url = front.url
        names = [f"herd-{secrets.token_hex(2)}" for _ in range(4)]
        events = streams(through, "/events")
        pids = {name: deployed(number % 2, name)["pid"] for number, name in enumerate(names)}
        for name in names:
            events.until(type="status", name=name, status="running")
            assert [through.tool(name, "pid") for _ in range(3)] == [str(pids[name])] * 3
        assert {row["name"] for row in through.get("/instances")["instances"]} >= set(names)
        of_one = [streams(through, f"/mcp/{name}/stream") for name in names]
        for name, stream in zip(names, of_one, strict=True):
            through.tool(name, "spam", lines=1, word=name)
            stream.until(type="log", message=f"line 0 {name}")
    finally:
        front.close()
