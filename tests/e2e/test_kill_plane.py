"""The control plane is killed with SIGKILL, under load, again and again: nothing runs on, nothing promised is lost."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from tests.e2e.plane import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.plane import Plane

FLEET = 4
WRITES_BEFORE_KILL = 6
BACK_S = 60
LAX = {"RATE_LIMIT_RPS": "0", "DEPLOYS_PER_MINUTE": "100000", "MAX_INSTANCES_PER_USER": "1000"}


class Load:
    """Threads that call, deploy and relabel until the control plane is gone; they remember what was acknowledged."""

    def __init__(self, plane: Plane, life: int) -> None:
        self.plane, self.life = plane, life
        self.deployed: set[str] = set()
        self.labelled: dict[str, int] = {}
        self.calls = 0
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=work) for work in (self._call, self._call, self._deploy, self._label)]

    @property
    def writes(self) -> int:
        return len(self.deployed) + sum(self.labelled.values())

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)

    def _until_gone(self, step: Callable[[httpx.Client, int], None]) -> None:
        with httpx.Client(**self.plane._options(None, {})) as client:
            try:
                for number in range(1, 100_000):
                    step(client, number)
            except httpx.HTTPError:
                return  # it was killed: what was under way is not acknowledged

    def _call(self) -> None:
        def step(client: httpx.Client, number: int) -> None:
            nonce = f"{self.life}-{number}"
            body = {"method": "tools/call", "params": {"name": "echo", "arguments": {"text": nonce}}}
            answer = client.post(f"/mcp/base{number % FLEET}/execute", json=body)
            if answer.status_code != 200 or answer.json()["result"]["content"][0]["text"] != nonce:
                self.wrong.append(answer.text)
            self.calls += 1

        self._until_gone(step)

    def _deploy(self) -> None:
        def step(client: httpx.Client, number: int) -> None:
            name = f"l{self.life}-{number}"
            body = {"name": name, "source_type": "mcp_config", "mcp_config": {"command": "cat"}}
            if client.post("/api/v2/deploy?wait=0", json=body).status_code == 202:
                self.deployed.add(name)
            if number > 1 and client.delete(f"/instances/l{self.life}-{number - 1}").status_code == 200:
                self.deployed.discard(f"l{self.life}-{number - 1}")

        self._until_gone(step)

    def _label(self) -> None:
        def step(client: httpx.Client, number: int) -> None:
            name = f"base{number % FLEET}"
            if client.patch(f"/instances/{name}", json={"labels": {"n": str(number)}}).status_code == 200:
                self.labelled[name] = number

        self._until_gone(step)


@pytest.fixture
def fleet(planes: Callable[..., Plane]) -> Plane:
    plane = planes(**LAX)
    for number in range(FLEET):
        plane.deploy(f"base{number}")
    return plane


def kill_and_return(plane: Plane, life: int, figure: Callable[..., None]) -> None:
    with Load(plane, life) as load:
        wait_until(lambda: load.writes >= WRITES_BEFORE_KILL and load.calls >= 50, 60, "enough work under way")
        gone_after_s = plane.kill()
    assert load.wrong == []
    plane.start()

    def all_back() -> bool:
        return all(plane.instance(f"base{number}")["status"] == "running" for number in range(FLEET))

    wait_until(all_back, BACK_S, "the fleet is back")
    names = {row["name"]: row for row in plane.instances()}
    assert load.deployed <= set(names), "an acknowledged deploy was lost"
    for name, number in load.labelled.items():
        assert int(names[name]["labels"]["n"]) >= number, "an acknowledged change was lost"
    for number in range(FLEET):
        assert plane.tool(f"base{number}", "echo", text="back") == "back"
    plane.assert_no_orphans()
    figure(f"life {life}: nothing left after", gone_after_s, "s")
    figure(f"life {life}: ready again after", plane.ready_after_s, "s")


def test_three_kills_in_a_row_leave_nothing_and_lose_nothing(fleet: Plane, figure: Callable[..., None]) -> None:
    for life in range(3):
        kill_and_return(fleet, life, figure)


@pytest.mark.long
def test_twenty_kills_in_a_row_leave_nothing_and_lose_nothing(fleet: Plane, figure: Callable[..., None]) -> None:
    for life in range(20):
        kill_and_return(fleet, life, figure)


def test_a_reader_of_an_earlier_life_is_told_of_the_gap(fleet: Plane) -> None:
    def first_events(last_id: str | None, count: int) -> list[tuple[str, dict[str, Any]]]:
        events, event_id = [], ""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with fleet.client() as client, client.stream("GET", "/mcp/base0/stream", headers=headers) as answer:
            for line in answer.iter_lines():
                if line.startswith("id:"):
                    event_id = line.removeprefix("id:").strip()
                if line.startswith("data:"):
                    events.append((event_id, json.loads(line.removeprefix("data:"))))
                    if len(events) == count:
                        return events
        raise AssertionError("the stream ended early")

    ((seen, _),) = first_events(None, 1)
    fleet.kill()
    fleet.start()
    fleet.wait_status("base0", "running")

    types = {event["type"]: event for _, event in first_events(seen, 2)}
    assert types["gap"]["missed"] is None


def test_logs_written_half_a_second_before_the_kill_are_there_afterwards(fleet: Plane) -> None:
    fleet.tool("base1", "spam", lines=5, word="before-the-kill")

    def is_written() -> bool:
        lines = fleet.get("/instances/base1/logs", params={"q": "before-the-kill"})["logs"]
        return len(lines) == 5

    wait_until(is_written, 20, "the journal's next flush")
    fleet.kill()
    fleet.start()

    assert is_written()
