"""Quotas and use of a real control plane: refused through either door, counted for their owner, kept over its end."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from attrs import frozen

from tests import servers
from tests.e2e.plane import deployment, wait_until
from tests.services import own_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.e2e.plane import Plane
    from tests.services import Postgres

__all__ = ["own_postgres"]

WRITTEN_S = 30
"""For what was used to be in the database, or in another control plane's memory; it takes 5 s."""
DAY_S = 86_400
ECHO = {"method": "tools/call", "params": {"name": "echo", "arguments": {"text": "x" * 1000}}}
SPINNING = b"""
import threading
def spin():
    while True:
        pass
threading.Thread(target=spin, daemon=True).start()
"""
MODERN = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


@frozen
class Person:
    """A user of the control plane's, with a token."""

    plane: Plane
    name: str
    token: str

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self.plane.client(self.token) as client:
            return client.request(method, path, **options)

    def deploy(self, name: str, *, wait: float = 60, source: bytes | None = None, **body: Any) -> httpx.Response:
        return self.ask("POST", f"/deploy?wait={wait:g}", json=deployment(name, source, **body))

    def call(self, name: str = "echo", *, hot: bool = True) -> httpx.Response:
        """A call; the hot lane leaves a body without a length to Hypercorn."""
        body = json.dumps(ECHO).encode()
        content = body if hot else iter([body])
        return self.ask("POST", f"/mcp/{name}/execute", content=content, headers={"content-type": "application/json"})

    def mcp(self, name: str = "echo") -> httpx.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**ECHO["params"], "_meta": MODERN}}  # type: ignore[dict-item]
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "echo",
        }
        return self.ask("POST", f"/mcp/{name}", json=body, headers=headers)

    def usage(self, **params: Any) -> dict[str, Any]:
        answer = self.ask("GET", "/usage", params=params)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def quotas(self) -> dict[str, tuple[float, float]]:
        return {row["name"]: (row["used"], row["limit"]) for row in self.usage()["quotas"]}

    def may(self, **quotas: int | None) -> dict[str, int]:
        """What the administrator says."""
        answer = self.plane.request("PATCH", f"/users/{self.name}", json={"quotas": quotas})
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["quotas"])


def join(plane: Plane, name: str) -> Person:
    answer = plane.request("POST", "/users", json={"name": name, "role": "deployer"})
    assert answer.status_code == 201, answer.text
    return Person(plane, name, answer.json()["token"])


@pytest.fixture
def people(plane: Plane, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Person]]:
    """Makes users; their instances are removed in the end."""
    made: list[Person] = []

    def new(name: str) -> Person:
        made.append(join(plane, name))
        return made[-1]

    yield new
    for person in made:
        for row in person.ask("GET", "/instances").json()["instances"]:
            person.ask("DELETE", f"/instances/{row['instance_id']}")


def refused(answer: httpx.Response, quota: str) -> dict[str, Any]:
    assert answer.status_code == 403, answer.text
    document: dict[str, Any] = answer.json()
    assert (document["code"], document["quota"]) == ("quota_exceeded", quota)
    return document


def test_a_days_calls_are_refused_at_the_quota_through_both_doors_and_for_mcp_clients(
    plane: Plane, people: Callable[[str], Person]
) -> None:
    ada, bob = people("ada"), people("bob")
    for person in (ada, bob):
        assert person.deploy("echo").status_code == 201
    assert ada.may(calls_per_day=5) == {"calls_per_day": 5}
    before = ada.quotas()["calls_per_day"][0]
    assert before == 0

    assert [ada.call(hot=hot).status_code for hot in (True, False, True, False)] == [200] * 4
    assert "result" in ada.mcp().json()
    served = ada.ask("GET", "/instances/echo").json()["calls"]

    for hot in (True, False):
        answer = ada.call(hot=hot)
        document = refused(answer, "calls_per_day")
        assert (document["used"], document["limit"]) == (5, 5)
        assert "calls_per_day" in document["detail"]
        until_midnight = DAY_S - time.time() % DAY_S
        assert int(answer.headers["retry-after"]) == pytest.approx(until_midnight, abs=60)
    error = ada.mcp().json()["error"]
    assert (error["code"], error["data"]["code"], error["data"]["quota"]) == (403, "quota_exceeded", "calls_per_day")
    assert ada.ask("GET", "/instances/echo").json()["calls"] == served, "nothing of it reached the server"

    assert bob.call().status_code == 200
    assert ada.quotas()["calls_per_day"] == (5, 5)
    assert bob.quotas()["calls_per_day"] == (1, None)
    # The administrator's calls of somebody's instance are that owner's.
    refused(plane.request("POST", "/mcp/ada%2Fecho/execute", json=ECHO), "calls_per_day")

    assert ada.may(calls_per_day=None) == {}
    assert ada.call().status_code == 200


def test_bytes_and_processor_time_are_counted_for_their_owner_and_outlive_the_instance(
    people: Callable[[str], Person],
) -> None:
    ada, bob = people("ines"), people("otto")
    assert ada.deploy("echo").status_code == 201
    assert bob.deploy("echo").status_code == 201
    for hot in (True, False):
        assert ada.call(hot=hot).status_code == 200
    assert "result" in ada.mcp().json()
    day = ada.usage(days=1)["days"][0]
    assert day["calls"] == 3
    assert 3000 < day["bytes_in"] < 5000
    assert 3000 < day["bytes_out"] < 5000
    assert bob.usage(days=400)["days"] == [] or bob.usage(days=400)["days"][0]["bytes_in"] == 0

    assert ada.deploy("spin", source=SPINNING + servers.source("echo.py")).status_code == 201
    wait_until(lambda: ada.usage(days=1)["days"][0]["peak_memory_mb"] > 1, WRITTEN_S, "memory is noted")
    cpu_s = wait_until(lambda: _more_than(ada.quotas()["cpu_s_per_day"][0], 0.5), 120, "processor time is counted")
    for name in ("spin", "echo"):
        assert ada.ask("DELETE", f"/instances/{name}").status_code == 200
    assert ada.quotas()["cpu_s_per_day"][0] >= cpu_s
    day = ada.usage(days=1)["days"][0]
    assert day["calls"] == 3
    assert day["peak_memory_mb"] > 1
    assert bob.quotas()["mb_per_day"] == (0, None)


def _more_than(value: float, least: float) -> float | None:
    return value if value > least else None


def test_thirty_deploys_at_once_at_a_quota_of_ten_are_ten(people: Callable[[str], Person]) -> None:
    eve = people("eve")
    eve.may(instances=10)

    def one(number: int) -> httpx.Response:
        return eve.deploy(f"s{number}", wait=0, mcp_config={"command": "sleep", "args": ["300"]})

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(one, range(30)))
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [202] * 10 + [403] * 20, statuses
    for answer in answers:
        if answer.status_code == 403:
            assert refused(answer, "instances")["limit"] == 10
    assert eve.quotas()["instances"] == (10, 10)
    # What was refused has left nothing behind: one that goes makes room for one.
    gone = answers[statuses.index(202)].json()["instance_id"]
    assert eve.ask("DELETE", f"/instances/{gone}").status_code == 200
    assert one(40).status_code == 202
    refused(one(41), "instances")


def test_memory_is_shared_by_what_is_to_run(people: Callable[[str], Person]) -> None:
    kim = people("kim")
    kim.may(memory_mb=300)
    command = {"mcp_config": {"command": "sleep", "args": ["300"]}}

    def deploy(name: str, memory_mb: int) -> httpx.Response:
        return kim.deploy(name, wait=0, limits={"memory_mb": memory_mb}, **command)

    assert deploy("one", 200).status_code == 202
    assert refused(deploy("two", 200), "memory_mb")["used"] == 200
    assert deploy("two", 100).status_code == 202
    assert kim.quotas()["memory_mb"] == (300, 300)
    refused(kim.ask("PATCH", "/instances/two", json={"limits": {"memory_mb": 101}}), "memory_mb")
    refused(kim.ask("POST", "/instances/two/redeploy?wait=0", json={"limits": {"memory_mb": 101}}), "memory_mb")

    assert kim.ask("POST", "/instances/one/stop").status_code == 200
    assert kim.ask("PATCH", "/instances/two", json={"limits": {"memory_mb": 101}}).status_code == 200
    refused(kim.ask("POST", "/instances/one/start?wait=0"), "memory_mb")
    kim.may(memory_mb=0)
    assert kim.ask("POST", "/instances/one/start?wait=0").status_code in (200, 202)
    assert kim.quotas()["memory_mb"] == (301, None)


def test_an_owners_ceilings_are_the_default_and_the_most_of_every_instance(
    plane: Plane, people: Callable[[str], Person]
) -> None:
    lea = people("lea")
    lea.may(instance_memory_mb=128, instance_processes=32)
    command = {"mcp_config": {"command": "sleep", "args": ["300"]}}

    too_much = lea.deploy("one", wait=0, limits={"memory_mb": 129}, **command)
    assert too_much.status_code == 422
    assert [wrong["pointer"] for wrong in too_much.json()["errors"]] == ["/limits/memory_mb"]
    made = lea.deploy("one", wait=0, **command)
    assert made.status_code == 202
    limits = lea.ask("GET", "/instances/one").json()["limits"]
    assert (limits["memory_mb"], limits["processes"]) == (128, 32)
    assert lea.quotas()["instance_memory"][1] == 128

    above = plane.request("PATCH", "/users/lea", json={"quotas": {"instance_memory_mb": 10**6, "tea": 1}})
    assert above.status_code == 422
    above = plane.request("PATCH", "/users/lea", json={"quotas": {"instance_memory_mb": 10**6}})
    assert [wrong["pointer"] for wrong in above.json()["errors"]] == ["/quotas/instance_memory_mb"]
    listed = {user["name"]: user["quotas"] for user in plane.get("/users")["users"]}
    assert listed["lea"] == {"instance_memory_mb": 128, "instance_processes": 32}
    assert lea.ask("PATCH", "/users/lea", json={"quotas": {}}).status_code == 403
    shown = plane.corral("user", "quota", "lea", "instance_processes=default")
    assert shown.stdout == "lea may have instance_memory_mb=128\n", shown.stderr
    assert "128" in plane.corral("usage", "--owner", "lea", "--days", "2").stdout


def test_what_was_used_is_known_after_a_restart_and_an_outage(
    planes: Callable[..., Plane], own_postgres: Postgres
) -> None:
    plane = planes(DATABASE_URL=own_postgres.url("postgres"), MAX_CALLS_PER_DAY="6")
    mia = join(plane, "mia")
    assert mia.deploy("echo").status_code == 201
    for _ in range(2):
        assert mia.call().status_code == 200
    assert plane.stop() == 0
    plane.start()
    plane.wait_status("mia/echo".replace("/", "%2F"), "running")
    assert mia.quotas()["calls_per_day"] == (2, 6)

    own_postgres.kill()
    for _ in range(2):
        assert mia.call().status_code == 200
    own_postgres.start()

    def is_written() -> bool:
        query = "SELECT calls FROM mcp_usage_days WHERE owner = 'mia'"
        try:
            return own_postgres.sql("postgres", query).split() == ["4"]
        except Exception:  # it is starting
            return False

    wait_until(is_written, WRITTEN_S, "the calls of the outage are written")
    plane.kill()
    plane.start()
    plane.wait_status("mia%2Fecho", "running")
    for _ in range(2):
        assert mia.call().status_code == 200
    refused(mia.call(), "calls_per_day")
    assert mia.usage(days=1)["days"][0]["calls"] == 6


def test_two_control_planes_on_one_database_add_up_and_hear_of_quotas(
    planes: Callable[..., Plane], own_postgres: Postgres
) -> None:
    one = planes(DATABASE_URL=own_postgres.url("postgres"))
    two = planes(DATABASE_URL=own_postgres.url("postgres"), ADMIN_TOKEN=one.token)
    admins = [plane.client(one.token) for plane in (one, two)]
    assert admins[0].post("/users", json={"name": "zoe", "role": "deployer"}).status_code == 201
    # It hears of the user a moment later, and of the quota as well.
    wait_until(
        lambda: admins[1].patch("/users/zoe", json={"quotas": {"calls_per_day": 3}}).status_code == 200,
        WRITTEN_S,
        "a quota is set",
    )
    own_postgres.sql(
        "postgres",
        "INSERT INTO mcp_usage_days (owner, day, cpu_s, calls, errors, bytes_in, bytes_out, peak_memory_mb)"
        " VALUES ('zoe', (now() AT TIME ZONE 'UTC')::date, 0, 3, 0, 0, 0, 0)",
    )

    def knows(admin: httpx.Client) -> bool:
        answer = admin.get("/usage", params={"owner": "zoe"})
        rows = {row["name"]: row for row in answer.json().get("quotas", [])}
        return bool(rows) and (rows["calls_per_day"]["used"], rows["calls_per_day"]["limit"]) == (3, 3)

    wait_until(lambda: all(map(knows, admins)), WRITTEN_S, "both know of the quota and of what is used elsewhere")
