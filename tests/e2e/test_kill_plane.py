"""The control plane is killed with SIGKILL, under load, again and again: nothing runs on, nothing promised is lost."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from controlplane.web.tokens import TOKENS_PER_USER
from tests.e2e.load import moment
from tests.e2e.plane import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane

FLEET = 4
WRITES_BEFORE_KILL = 12
CALLS_BEFORE_KILL = 50
BACK_S = 60
NOT_WRITTEN_S = 0.5 * 5
"""The journal writes what is half a second old; on a busy machine five times that."""
TICKING = b"""
import json, sys, threading, time

def tick():
    number = 0
    while True:
        number += 1
        print("tick", number, file=sys.stderr, flush=True)
        time.sleep(0.01)

for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
        threading.Thread(target=tick, daemon=True).start()
    elif "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
"""


class Load:
    """Threads that call and change things until the control plane is gone; they remember what it acknowledged.

    What was under way when it died may have happened or not, whole or not at all.
    """

    def __init__(self, plane: Plane, life: int) -> None:
        self.plane, self.life = plane, life
        self.calls = self.writes = 0
        self.wrong: list[str] = []
        self.deploys: dict[str, bool] = {}
        """name -> acknowledged"""
        self.removals: dict[str, bool] = {}
        self.labels: dict[str, tuple[int, int]] = {}
        """name -> (acknowledged, tried)"""
        self.tokens: list[str] = []
        self.revoked: list[str] = []
        self.wishes: list[tuple[str, bool]] = []
        """(stop or start, acknowledged), in order"""
        works = (self._call, self._call, self._deploy, self._label, self._make_tokens, self._toggle)
        self._threads = [threading.Thread(target=self._until_gone, args=(work,)) for work in works]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)

    def _until_gone(self, step: Callable[[httpx.Client, int], None]) -> None:
        with self.plane.client() as client:
            try:
                for number in range(1, 1_000_000):
                    step(client, number)
            except httpx.HTTPError:
                return  # it was killed

    def _acknowledged(self, answer: httpx.Response, *statuses: int) -> None:
        if answer.status_code not in statuses:
            self.wrong.append(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}")
        self.writes += 1

    def _call(self, client: httpx.Client, number: int) -> None:
        nonce = f"{self.life}-{number}-{threading.get_ident()}"
        body = {"method": "tools/call", "params": {"name": "echo", "arguments": {"text": nonce}}}
        answer = client.post(f"/mcp/base{number % FLEET}/execute", json=body)
        if answer.status_code != 200 or answer.json()["result"]["content"][0]["text"] != nonce:
            self.wrong.append(answer.text)
        self.calls += 1

    def _deploy(self, client: httpx.Client, number: int) -> None:
        name, old = f"l{self.life}-{number}", f"l{self.life}-{number - 2}"
        self.deploys[name] = False
        self._acknowledged(deploy(client, name), 202)
        self.deploys[name] = True
        if old in self.deploys:
            self.removals[old] = False
            self._acknowledged(client.delete(f"/instances/{old}"), 200)
            self.removals[old] = True

    def _label(self, client: httpx.Client, number: int) -> None:
        name = f"base{number % FLEET}"
        number += self.life * 1_000_000  # rises over all lives
        acknowledged, _ = self.labels.get(name, (0, 0))
        self.labels[name] = (acknowledged, number)
        answer = client.patch(f"/instances/{name}", json={"labels": {"n": str(number), "twin": str(number)}})
        self._acknowledged(answer, 200)
        self.labels[name] = (number, number)

    def _make_tokens(self, client: httpx.Client, number: int) -> None:
        owner = f"life-{self.life}"
        if number == 1:
            self._acknowledged(client.post("/users", json={"name": owner, "role": "viewer"}), 201)
        answer = client.post("/tokens", json={"name": str(number), "role": "viewer", "owner": owner})
        self._acknowledged(answer, 201)
        made = answer.json()
        if number % 2 and number < TOKENS_PER_USER:
            self.tokens.append(made["token"])
        else:
            self._acknowledged(client.delete(f"/tokens/{made['token_id']}"), 200, 204)
            self.revoked.append(made["token"])

    def _toggle(self, client: httpx.Client, number: int) -> None:
        wish = ("stop", "start")[len(self.wishes) % 2]
        self.wishes.append((wish, False))
        answer = client.post(f"/instances/toggled/{wish}?wait=0")
        self._acknowledged(answer, 200, 202)
        self.wishes[-1] = (wish, True)


def deploy(client: httpx.Client, name: str) -> httpx.Response:
    """Deploy under a key made of the name; the process itself is of no interest."""
    command = {"command": "cat", "args": ["-", name]}
    body = {"name": name, "source_type": "mcp_config", "mcp_config": command, "labels": {"named": name}}
    return client.post("/api/v2/deploy?wait=0", json=body, headers={"Idempotency-Key": f"key-{name}"})


@pytest.fixture
def fleet(planes: Callable[..., Plane]) -> Iterator[Plane]:
    plane = planes()
    for number in range(FLEET):
        plane.deploy(f"base{number}")
    plane.deploy("ticking", TICKING)
    plane.deploy("toggled")
    yield plane
    for row in plane.instances():
        plane.request("DELETE", f"/instances/{row['name']}")


def kill_and_return(plane: Plane, life: int, figure: Callable[..., None]) -> None:
    ensure_running(plane, "toggled")
    with Load(plane, life) as load:

        def enough() -> bool:
            assert load.wrong == []
            return load.writes >= WRITES_BEFORE_KILL + life % 7 * 5 and load.calls >= CALLS_BEFORE_KILL

        wait_until(enough, 60, "enough work under way")
        killed_at = datetime.now(UTC)
        gone_after_s = plane.kill()
    assert load.wrong == []
    began = time.monotonic()
    plane.start()

    def all_back() -> bool:
        status = {row["name"]: row["status"] for row in plane.instances()}
        return all(status[f"base{number}"] == "running" for number in range(FLEET))

    wait_until(all_back, BACK_S, "the fleet is back")
    back_s = time.monotonic() - began
    for number in range(FLEET):
        assert plane.tool(f"base{number}", "echo", text="back") == "back"
    assert_nothing_promised_is_lost(plane, load)
    missing_s = assert_history_is_whole(plane, killed_at)
    plane.assert_no_orphans()
    figure(f"life {life}: nothing left after", gone_after_s, "s")
    figure(f"life {life}: ready again after", plane.ready_after_s, "s")
    figure(f"life {life}: the whole fleet serves again after", back_s, "s")
    figure(f"life {life}: writes acknowledged before", load.writes)
    figure(f"life {life}: log missing before the kill", missing_s, "s")


def ensure_running(plane: Plane, name: str) -> None:
    if plane.instance(name)["desired"] != "running":
        assert plane.request("POST", f"/instances/{name}/start?wait=60").status_code == 200
    plane.wait_status(name, "running")


def assert_nothing_promised_is_lost(plane: Plane, load: Load) -> None:
    rows = {row["name"]: row for row in plane.instances()}
    assert all(rows[name]["desired"] == "running" for name in rows if name.startswith("base"))
    assert_deploys(plane, load, rows)
    for name, (acknowledged, tried) in load.labels.items():
        labels = rows[name]["labels"]
        assert acknowledged <= int(labels.get("n", 0)) <= tried, f"{name}: {labels}, of {acknowledged} to {tried}"
        assert labels.get("n") == labels.get("twin")
    for token in load.tokens:
        with plane.client(token) as client:
            assert client.get("/instances").status_code == 200, "an acknowledged token was lost"
    for token in load.revoked:
        with plane.client(token) as client:
            assert client.get("/instances").status_code == 401, "a revoked token works again"
    if load.wishes:
        desired = {"stop": "stopped", "start": "running"}
        possible = [desired[wish] for wish, acknowledged in load.wishes[-2:]]
        if load.wishes[-1][1]:
            possible = possible[-1:]
        assert rows["toggled"]["desired"] in possible


def assert_deploys(plane: Plane, load: Load, rows: dict[str, Any]) -> None:
    removed = {name for name, acknowledged in load.removals.items() if acknowledged}
    assert not removed & rows.keys(), "a deleted instance is back"
    kept = {name for name, acknowledged in load.deploys.items() if acknowledged} - load.removals.keys()
    assert kept <= rows.keys(), "an acknowledged deploy was lost"
    for name in load.deploys.keys() & rows.keys():
        whole = plane.instance(name)
        assert (whole["labels"], whole["mcp_config"]["args"]) == ({"named": name}, ["-", name])
    with plane.client() as client:  # a client that got no answer asks again
        for name in load.deploys.keys() - load.removals.keys():
            again = deploy(client, name)
            assert again.status_code in (201, 202, 422), again.text  # 422: it is no MCP server, and has been found out
            assert plane.instance(name)["labels"] == {"named": name}
            assert name not in rows or again.json()["instance_id"] == rows[name]["instance_id"]


def assert_history_is_whole(plane: Plane, killed_at: datetime) -> float:
    """No hole in the log up to the kill, but for its last moments; returns how many seconds are missing."""
    page = {"stream": "stderr", "until": killed_at.isoformat().replace("+00:00", "Z"), "tail": 50}
    lines = plane.get("/instances/ticking/logs", params=page)["logs"]
    numbers = [int(line["message"].removeprefix("tick ")) for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    missing_s = (killed_at - moment(lines[-1]["timestamp"])).total_seconds()
    assert missing_s < NOT_WRITTEN_S
    since = killed_at.isoformat().replace("+00:00", "Z")
    system = plane.get("/instances/ticking/logs", params={"stream": "system", "since": since})["logs"]
    assert any("may be missing here" in line["message"] for line in system)
    events = plane.get("/instances/ticking/events", params={"type": "gap", "since": since})["events"]
    assert len(events) == 1
    return missing_s


def test_three_kills_in_a_row_leave_nothing_and_lose_nothing(fleet: Plane, figure: Callable[..., None]) -> None:
    for life in range(3):
        kill_and_return(fleet, life, figure)


@pytest.mark.long
def test_twenty_kills_in_a_row_leave_nothing_and_lose_nothing(fleet: Plane, figure: Callable[..., None]) -> None:
    for life in range(20):
        kill_and_return(fleet, life, figure)


def test_a_reader_of_an_earlier_life_is_told_of_the_gap_and_one_after_an_orderly_stop_of_none_in_the_log(
    planes: Callable[..., Plane],
) -> None:
    plane = planes()
    plane.deploy("quiet")

    def first_events(last_id: str | None, count: int) -> list[tuple[str, dict[str, Any]]]:
        events, event_id = [], ""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with plane.client() as client, client.stream("GET", "/mcp/quiet/stream", headers=headers) as answer:
            for line in answer.iter_lines():
                if line.startswith("id:"):
                    event_id = line.removeprefix("id:").strip()
                if line.startswith("data:"):
                    events.append((event_id, json.loads(line.removeprefix("data:"))))
                    if len(events) == count:
                        return events
        raise AssertionError("the stream ended early")

    ((seen, _),) = first_events(None, 1)
    assert plane.stop() == 0
    plane.start()
    plane.wait_status("quiet", "running")

    types = {event["type"]: event for _, event in first_events(seen, 2)}
    assert types["gap"]["missed"] is None
    assert plane.get("/instances/quiet/events", params={"type": "gap"})["events"] == []
