"""What a dashboard lives on: the fleet's stream, and what is kept of it, on a control plane that runs servers."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import define, field

from tests.e2e.plane import below, deployment, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.e2e.plane import Plane

HEARD_WITHIN_S = 60
"""Heartbeats come every 15 s, so that a reader looks at the clock at least that often."""


@define
class Ear:
    """Reads a stream of events, in the order in which they come."""

    _lines: Iterator[str]
    heard: list[dict[str, Any]] = field(factory=list)

    def until(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read on to the first event that is it, and return that."""
        deadline = time.monotonic() + HEARD_WITHIN_S
        for line in self._lines:
            if line.startswith("data: "):
                event: dict[str, Any] = json.loads(line[6:])
                self.heard.append(event)
                if is_it(event):
                    return event
                assert time.monotonic() < deadline, f"not among {[heard['type'] for heard in self.heard]}"
        raise AssertionError("the stream ended")

    def of_type(self, type_: str, **members: Any) -> dict[str, Any]:
        """Read on to an event of this type, with these members."""
        return self.until(lambda event: event["type"] == type_ and members.items() <= event.items())


@contextmanager
def listening(plane: Plane, path: str = "/events", token: str | None = None) -> Iterator[Ear]:
    """A stream whose first word was heard."""
    headers = {"Accept": "text/event-stream"}
    answer: httpx.Response
    with plane.client(token) as client, client.stream("GET", path, headers=headers) as answer:
        ear = Ear(answer.iter_lines())
        ear.of_type("connected")
        yield ear


def user_of(plane: Plane, name: str) -> str:
    """The token of a new user."""
    answer = plane.request("POST", "/users", json={"name": name, "role": "deployer"})
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["token"]
    return token


def test_the_fleets_stream_alone_keeps_a_table_true(plane: Plane) -> None:
    with listening(plane) as ear:
        instance_id = plane.deploy("cow", labels={"team": "dairy"})["instance_id"]
        deployed = ear.of_type("deployed")
        running = ear.of_type("status", status="running")
        plane.tool("cow", "echo", text="moo")
        sample = ear.until(lambda event: event["type"] == "sample" and event["calls_total"] == 1)
        changed = plane.request(
            "PATCH", "/instances/cow", json={"labels": {"team": "beef"}, "limits": {"memory_mb": 99}}
        )
        assert changed.status_code == 200, changed.text
        told = ear.of_type("changed", revision=2)

    row = plane.instance("cow")
    about_cow = [event for event in ear.heard if event.get("instance_id") == instance_id]
    assert about_cow[0] is deployed
    assert {event["owner"] for event in about_cow} == {"admin"}
    shown = {"name": "cow", "language": "python", "source_type": "direct", "revision": 1, "labels": {"team": "dairy"}}
    assert shown.items() <= deployed.items()
    assert deployed["limits"]["memory_mb"] > 99
    same = ("name", "status", "desired", "pid", "started_at", "restarts", "incarnation", "isolation")
    assert {name: running[name] for name in same} == {name: row[name] for name in same}
    assert (sample["calls"], sample["errors"], sample["errors_total"]) == (1, 0, 0)
    assert sample["interval_s"] > 0
    assert (told["labels"], told["limits"]["memory_mb"]) == ({"team": "beef"}, 99)


def test_an_instances_processes_tell_how_each_came_to_its_end(plane: Plane) -> None:
    pid = plane.deploy("calf")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: plane.instance("calf")["restarts"] == 1 and plane.instance("calf")["pid"], 60, "another process")
    answer = plane.request("POST", "/instances/calf/redeploy?wait=60")
    assert answer.status_code == 200, answer.text

    def processes() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = plane.get("/instances/calf/incarnations")["incarnations"]
        return found if found[1]["ended_at"] else []

    last, second, first = wait_until(processes, 60, "the end of the one that was replaced")
    assert [row["number"] for row in (last, second, first)] == [3, 2, 1]
    assert [row["revision"] for row in (last, second, first)] == [2, 1, 1]
    assert [row["is_running"] for row in (last, second, first)] == [True, False, False]
    assert (last["pid"], first["pid"]) == (plane.instance("calf")["pid"], pid)
    assert (first["signal"], first["post_mortem"]["code"], second["reason"]) == ("SIGKILL", "signalled", None)
    assert first["ran_s"] > 0

    page = plane.get("/instances/calf/incarnations?limit=1")
    assert page["incarnations"][0]["number"] == 3
    rest = plane.get(f"/instances/calf/incarnations?cursor={page['next_cursor']}")
    assert [row["number"] for row in rest["incarnations"]] == [2, 1]

    instance_id = plane.instance("calf")["instance_id"]
    assert plane.request("DELETE", "/instances/calf").status_code == 200
    kept = plane.get(f"/instances/{instance_id}/incarnations")["incarnations"]
    assert [row["is_running"] for row in kept] == [False, False, False]


def test_what_went_wrong_is_found_over_all_instances_by_those_who_may_see_them(plane: Plane) -> None:
    bob = plane.client(user_of(plane, "bob"))
    for client in (bob, plane.client()):
        answer = client.post("/api/v2/deploy?wait=60", json=deployment("dud", b"raise SystemExit(3)"))
        assert answer.status_code == 422, answer.text
    assert bob.delete("/instances/dud").status_code == 200

    path = "/events/history?type=post_mortem,revision_failed,gap,status&status=failed"
    everybodys, bobs = plane.get(path)["events"], bob.get(path).json()["events"]
    assert [(row["type"], row["name"], row["owner"]) for row in bobs] == [
        ("status", "dud", "bob"),
        ("post_mortem", "dud", "bob"),
    ]
    assert bobs[0]["data"]["status"] == "failed"
    assert "exited with status 3" in bobs[1]["data"]["reason"]
    mine = [row for row in everybodys if row["owner"] == "admin" and row["name"] == "dud"]
    assert [row for row in everybodys if row["owner"] == "bob"] == bobs
    assert [row["type"] for row in mine] == ["status", "post_mortem"]
    assert everybodys.index(mine[0]) < everybodys.index(bobs[0]), "newest first"

    page = bob.get(f"{path}&limit=1").json()
    assert page["events"] == bobs[:1]
    assert bob.get(f"{path}&cursor={page['next_cursor']}").json()["events"] == bobs[1:]
    assert bob.get(f"{path}&owner=admin").status_code == 403


def test_everybody_sees_the_own_use_and_administrators_all(plane: Plane) -> None:
    carol = plane.client(user_of(plane, "carol"))
    answer = carol.post("/api/v2/deploy?wait=60", json=deployment("goat"))
    assert answer.status_code == 201, answer.text
    called = carol.post("/mcp/goat/execute", json={"method": "tools/list"})
    assert called.status_code == 200, called.text

    def use() -> dict[str, Any] | None:
        found: dict[str, Any] = carol.get("/usage").json()
        return found if found["total"]["memory_mb"] else None

    found = wait_until(use, 60, "a sample")
    quotas = {row["name"]: row for row in found["quotas"]}
    assert (found["owner"], found["role"]) == ("carol", "deployer")
    assert (quotas["instances"]["used"], quotas["instances"]["limit"]) == (1, 1000)
    assert (quotas["tokens"]["used"], quotas["builds"]["used"]) == (1, 0)
    assert quotas["memory"]["used"] == found["total"]["memory_mb"] > 1
    assert (found["total"]["calls"], found["owners"]) == (1, [])

    everybody = plane.get("/usage")
    assert {"name": "carol", "instances": 1, "calls": 1}.items() <= next(
        row.items() for row in everybody["owners"] if row["name"] == "carol"
    )
    assert {row["name"]: row["limit"] for row in everybody["quotas"]}["store"] > 0
    shown = plane.corral("usage", "--owner", "carol")
    assert shown.returncode == 0, shown.stderr
    assert "carol" in shown.stdout


def test_administrators_are_told_when_a_service_goes_away_and_comes_back(plane: Plane) -> None:
    with listening(plane) as ear, listening(plane, token=user_of(plane, "dave")) as daves:
        valkey = next(process for process in below(plane.pid) if process.command.startswith("valkey"))
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            away = ear.of_type("services", status="degraded")
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        back = ear.of_type("services", status="healthy")
        daves.of_type("heartbeat")

    assert (away["services"]["redis"], back["services"]["redis"]) == ("disconnected", "connected")
    assert {event["type"] for event in daves.heard} == {"connected", "heartbeat"}
    kept = plane.get("/events/history?type=services")["events"]
    assert [(row["data"]["status"], row["name"], row["owner"]) for row in kept] == [
        ("healthy", None, None),
        ("degraded", None, None),
    ]
