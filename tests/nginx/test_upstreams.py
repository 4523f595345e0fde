"""Two control planes: what belongs to one instance goes to one of them, and to the other when that one is gone."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.nginx.front import Front, assert_problem
from tests.nginx.upstream import Upstream, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.nginx.upstream import Taken

pytestmark = pytest.mark.needs("nginx")

NAMES = [f"server-{number}" for number in range(24)]


@pytest.fixture
def two() -> Iterator[list[Upstream]]:
    servers = [Upstream(), Upstream()]
    yield servers
    for server in servers:
        server.close()


@pytest.fixture
def front(fronts: Callable[..., Front], two: list[Upstream]) -> Front:
    return fronts([server.port for server in two])


def holder(front: Front, two: list[Upstream], method: str, path: str) -> int:
    """Which of the two got a request."""
    before = [len(server.taken) for server in two]
    with front.client() as client:
        assert client.request(method, path, json={}).status_code == 200
    (found,) = [n for n, server in enumerate(two) if len(server.taken) > before[n]]
    return found


def test_whatever_is_asked_about_an_instance_goes_to_the_same_control_plane(front: Front, two: list[Upstream]) -> None:
    holders = set()
    for name in NAMES:
        asked = [
            ("POST", f"/mcp/{name}/execute"),
            ("POST", f"/mcp/{name}"),
            ("GET", f"/mcp/{name}"),
            ("GET", f"/mcp/{name}/sse"),
            ("POST", f"/mcp/{name}/messages?session=1"),
            ("GET", f"/mcp/{name}/stream?x=1"),
        ]
        found = {holder(front, two, method, path) for method, path in asked}
        assert len(found) == 1, name
        holders |= found
    assert holders == {0, 1}, "both have their share"


@pytest.mark.parametrize("ref", ["mine", "me/mine", "0193f0aa-1111-7222-8333-444455556666"])
def test_so_do_its_commands_by_the_same_name(front: Front, two: list[Upstream], ref: str) -> None:
    asked = [("POST", f"/mcp/{ref}")] + [
        ("GET", f"/instances/{ref}{rest}") for rest in ("", "?x=1", "/logs?follow=1", "/tools", "/revisions", "/wire")
    ]
    asked += [("POST", f"/instances/{ref}/{verb}") for verb in ("start", "stop", "restart", "rollback", "redeploy")]

    assert len({holder(front, two, method, path) for method, path in asked}) == 1


def test_the_other_answers_when_one_is_dead(front: Front, two: list[Upstream]) -> None:
    mine = [name for name in NAMES if holder(front, two, "POST", f"/mcp/{name}/execute") == 0]
    two[0].close()

    for name in mine * 3:
        assert front.post(f"/mcp/{name}/execute", json={}).status_code == 200
        assert front.get(f"/instances/{name}").status_code == 200
    assert {each.target.split("/")[2] for each in two[1].taken} >= set(mine)


def test_one_that_is_dead_is_not_asked_for_each_request_anew(front: Front, two: list[Upstream]) -> None:
    (mine, *_) = [name for name in NAMES if holder(front, two, "POST", f"/mcp/{name}/execute") == 0]
    two[0].close()

    lines = []
    for number in range(6):
        request_id = f"call-{number}"
        front.post(f"/mcp/{mine}/execute", json={}, headers={"X-Request-Id": request_id})
        lines.append(front.log(request_id))

    assert all(line["status"] == 200 for line in lines)
    asked_both = [line for line in lines if "," in line["upstream"]]
    assert len(asked_both) == 2, "max_fails"


def test_a_call_that_one_may_have_taken_is_not_sent_to_the_other(fronts: Callable[..., Front]) -> None:
    def break_off(_taken: Taken, _sock: socket.socket) -> bool:
        return False

    two = [Upstream(break_off), Upstream(break_off)]
    try:
        front = fronts([server.port for server in two])
        for method in ("POST", "PATCH"):
            for path in ("/mcp/mine/execute", "/instances/mine", "/api/v2/deploy"):
                before = sum(len(server.taken) for server in two)
                found = front.client().request(method, path, json={})
                assert_problem(found, 502, "bad_gateway")
                assert sum(len(server.taken) for server in two) - before <= 1, f"{method} {path} was repeated"
    finally:
        for server in two:
            server.close()


def test_what_only_reads_is_asked_of_the_other_when_one_breaks_off(fronts: Callable[..., Front]) -> None:
    two = [Upstream(lambda _taken, _sock: False), Upstream(answer)]
    try:
        front = fronts([server.port for server in two])

        assert {front.get(f"/mcp/{name}").status_code for name in NAMES} == {200}
        assert two[0].taken, front.log_text
    finally:
        for server in two:
            server.close()


def test_another_list_of_control_planes_is_taken_by_a_reload(front: Front, two: list[Upstream]) -> None:
    third = Upstream()
    try:
        front.point_at([third.port])
        assert front.run("-s", "reload").returncode == 0
        while not third.taken:  # the old processes go on for a moment
            assert front.get("/instances").status_code in {200, 429}
    finally:
        third.close()
