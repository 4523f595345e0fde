"""Two control planes on one Postgres: when one dies, is frozen, or stops, the other runs its instances; never both."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.e2e.nodes import NAME, Watch, open_nodes
from tests.e2e.plane import Plane, marked, wait_until
from tests.services import *  # noqa: F403 -- fixtures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services import Postgres, Valkey

EACH = 3
TAKEN_LIMIT_S = 15.0
"""What is promised for the instances of a control plane that dies."""
LEASE_S = 6.0


@pytest.fixture
def nodes(own_postgres: Postgres, valkey_server: Valkey) -> Iterator[list[Plane]]:
    valkey_server.command("FLUSHALL")
    with open_nodes(own_postgres, valkey_server) as planes:
        for plane in planes:
            plane.start()
        yield planes


def deploy_on_each(nodes: list[Plane]) -> list[list[str]]:
    """Some instances on each; returns their names."""
    return [
        [plane.deploy(name, environment_vars={NAME: name})["name"] for name in names]
        for number, plane in enumerate(nodes)
        for names in [[f"n{number}-{each}" for each in range(EACH)]]
    ]


def answers(plane: Plane, name: str) -> bool:
    return plane.execute(name, "tools/call", {"name": "echo", "arguments": {"text": "hi"}}).status_code == 200


def test_the_instances_of_a_control_plane_that_dies_run_on_the_other_and_never_on_both(
    nodes: list[Plane], figure: Callable[..., None]
) -> None:
    first, second = nodes
    with Watch(nodes) as watch:
        lost, kept = deploy_on_each(nodes)
        pids = {name: second.tool(name, "pid") for name in kept}

        began = time.monotonic()
        first.kill()
        for name in lost:
            wait_until(lambda name=name: answers(second, name), TAKEN_LIMIT_S, f"{name} runs on the other")
        took = time.monotonic() - began

        assert {name: second.tool(name, "pid") for name in kept} == pids, "its own were not touched"
        assert marked(first.owner_id) == []
    watch.assert_never_both()
    assert took < TAKEN_LIMIT_S
    figure("all answer on the other after a SIGKILL", took, "s")
    gap = min(watch.first(name, second) - watch.last(name, first) for name in lost)
    figure("least time between the last process there and the first here", gap, "s")
    figure("looks", watch.looks)


def test_a_control_plane_that_is_frozen_past_its_lease_loses_its_instances_and_does_not_run_them_when_it_goes_on(
    nodes: list[Plane], figure: Callable[..., None]
) -> None:
    first, second = nodes
    with Watch(nodes) as watch:
        lost, _kept = deploy_on_each(nodes)
        watch.forget(first)

        began = time.monotonic()
        first.send(signal.SIGSTOP)
        try:
            for name in lost:
                wait_until(lambda name=name: answers(second, name), TAKEN_LIMIT_S, f"{name} runs on the other")
            took = time.monotonic() - began
            for name in lost:
                assert watch.last(name, first) < watch.first(name, second), "gone here before they ran there"
            gone = max(watch.last(name, first) for name in lost)
            there = min(watch.first(name, second) for name in lost)
        finally:
            first.send(signal.SIGCONT)
        watch.forget(first)
        wait_until(lambda: first.get("/health")["status"] == "healthy", 30, "it goes on")
        pids = {name: second.tool(name, "pid") for name in lost}
        wait_until(lambda: answers(first, lost[0]), 30, "it knows who has them now, and asks there")
        fresh = first.deploy("fresh", environment_vars={NAME: "fresh"})
        assert first.tool("fresh", "pid") == str(fresh["pid"])
        assert {name: second.tool(name, "pid") for name in lost} == pids
        assert not [key for key in watch.seen if key[1] == first.owner_id and key[0] in lost]
        for name in lost:
            assert second.instance(name)["status"] == "running"
            kept = second.get(f"/instances/{name}/events", params={"limit": 100})["events"]
            assert not [event for event in kept if event["type"] == "post_mortem"], "it has not crashed"
    watch.assert_never_both()
    figure("all answer on the other after a SIGSTOP", took, "s")
    figure("last process there after a SIGSTOP", gone - began, "s")
    figure("first process on the other after a SIGSTOP", there - began, "s")


def test_while_postgres_is_away_both_go_on_and_nobody_takes_anything(
    nodes: list[Plane], own_postgres: Postgres, figure: Callable[..., None]
) -> None:
    with Watch(nodes) as watch:
        names = deploy_on_each(nodes)
        pids = [[plane.tool(name, "pid") for name in mine] for plane, mine in zip(nodes, names, strict=True)]
        calls = failed = 0

        def call_all() -> None:
            nonlocal calls, failed
            for plane, mine in zip(nodes, names, strict=True):
                for name in mine:
                    calls += 1
                    failed += not answers(plane, name)

        for away in (own_postgres.kill, own_postgres.freeze):
            away()
            end = time.monotonic() + 2 * LEASE_S
            while time.monotonic() < end:
                call_all()
            own_postgres.thaw() if away == own_postgres.freeze else own_postgres.start()
            end = time.monotonic() + 2 * LEASE_S
            while time.monotonic() < end:
                call_all()
        assert failed == 0, f"{failed} of {calls}"
        after = [[plane.tool(name, "pid") for name in mine] for plane, mine in zip(nodes, names, strict=True)]
        assert after == pids, "the same processes"
    watch.assert_never_both()
    figure("calls while Postgres was killed, frozen and back", calls)
    figure("of them failed", failed)


def test_two_control_planes_know_each_other_and_do_not_replace_the_key_that_they_share(nodes: list[Plane]) -> None:
    first, second = nodes

    def refused() -> httpx.Response:
        answer = first.request("POST", "/secrets/rotate-key")
        assert answer.status_code == 409, answer.text  # before as well, as the key is a setting here
        return answer

    wait_until(lambda: "other control planes" in refused().json()["detail"], 10, "it knows of the other")
    assert "stop all but one" in refused().json()["hint"]
    assert first.request("GET", "/cluster/lease").status_code == 404, "an administrator is no node"
    with httpx.Client() as stranger:
        assert stranger.get(f"{first.url}/cluster/lease").status_code == 404
    assert second.is_running()


def test_what_a_control_plane_held_is_taken_at_once_when_it_stops_and_stays_when_it_starts_again(
    nodes: list[Plane], figure: Callable[..., None]
) -> None:
    first, second = nodes
    with Watch(nodes) as watch:
        lost, kept = deploy_on_each(nodes)
        began = time.monotonic()
        assert first.stop() == 0
        stopped = time.monotonic()
        for name in lost:
            wait_until(lambda name=name: answers(second, name), TAKEN_LIMIT_S, f"{name} runs on the other")
        figure("stop", stopped - began, "s")
        figure("all answer on the other after it had stopped", time.monotonic() - stopped, "s")
        assert time.monotonic() - stopped < LEASE_S, "without waiting for the lease to end"
        pids = {name: second.tool(name, "pid") for name in (*lost, *kept)}

        first.start()
        wait_until(lambda: answers(first, lost[0]), 30, "it asks the other")

        assert {name: second.tool(name, "pid") for name in (*lost, *kept)} == pids
    watch.assert_never_both()


def test_a_control_plane_that_is_killed_and_starts_again_on_its_home_takes_its_own_back_at_once(
    nodes: list[Plane], figure: Callable[..., None]
) -> None:
    first, _ = nodes
    with Watch(nodes) as watch:

        def again() -> None:
            first.kill()
            watch.forget(first)
            first.start()

        figure("all answer again on the same home after a SIGKILL", keeps_its_own(nodes, watch, again), "s")
    watch.assert_never_both()


def test_one_that_takes_over_on_the_same_home_keeps_what_was_held_there(
    nodes: list[Plane], figure: Callable[..., None]
) -> None:
    with Watch(nodes) as watch:
        figure(
            "all answer when another one serves on the same home", keeps_its_own(nodes, watch, nodes[0].replace), "s"
        )
    watch.assert_never_both()


def keeps_its_own(nodes: list[Plane], watch: Watch, again: Callable[[], object]) -> float:
    """Have the first serve `again` on its home, and see that it holds what it held; returns the seconds until all answer."""
    first, second = nodes
    own, _ = deploy_on_each(nodes)
    began = time.monotonic()
    again()
    in_time = time.monotonic() - began < LEASE_S - 1  # on a machine too busy for that, the other has them, rightly
    for name in own:
        wait_until(lambda name=name: answers(first, name), TAKEN_LIMIT_S, f"{name} answers")
    took = time.monotonic() - began
    if in_time:
        assert all(watch.seen.get((name, second.owner_id)) is None for name in own), "the other took nothing"
        assert all((name, first.owner_id) in watch.seen for name in own)
    return took
