"""Listing, looking at, changing, starting, stopping and removing instances."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from controlplane.core.lifecycle import State
from controlplane.errors import CallTimeout
from controlplane.model import Listing, Role, Sample, Section
from tests.web.fakes import NOW, TOKENS
from tests.web.fakes_api import BOB, SECRET, Api, pointers, problem_of, serving


async def names(api: Api, query: str = "", token: str = TOKENS[Role.VIEWER]) -> list[str]:
    response = await api.ask("GET", f"/instances{query}", token=token)
    assert response.status_code == 200, response.text
    return [f"{row['owner']}/{row['name']}" for row in response.json()["instances"]]


async def test_everybody_sees_his_own_and_an_administrator_all() -> None:
    async with serving() as api:
        assert await names(api) == ["alice/memory", "alice/files"]
        assert await names(api, token=BOB) == ["bob/memory"]
        assert await names(api, token=TOKENS[Role.ADMIN]) == ["alice/memory", "alice/files", "bob/memory"]
        assert await names(api, "?owner=bob", token=TOKENS[Role.ADMIN]) == ["bob/memory"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?status=running", ["alice/memory"]),
        ("?status=stopped", ["alice/files"]),
        ("?status=running,stopped", ["alice/memory", "alice/files"]),
        ("?status=running&status=stopped", ["alice/memory", "alice/files"]),
        ("?status=failed", []),
        ("?name=memory", ["alice/memory"]),
        ("?name=MEMORY", ["alice/memory"]),
        ("?name=mem", []),
        ("?name=*e*", ["alice/memory", "alice/files"]),
        ("?name=m?mory", []),
        ("?name=[m]*", []),
        ("?language=python", ["alice/files"]),
        ("?label=team", ["alice/memory"]),
        ("?label=team=docs", ["alice/memory"]),
        ("?label=team=docs&label=tier=1", ["alice/memory"]),
        ("?label=team=docs&label=tier=2", []),
        ("?label=team=other", []),
        ("?owner=alice", ["alice/memory", "alice/files"]),
        ("?status=running&language=python", []),
    ],
)
async def test_filters_that_are_given_must_all_hold(query: str, expected: list[str]) -> None:
    async with serving() as api:
        assert await names(api, query) == expected


async def test_another_users_list_is_forbidden_even_if_the_user_does_not_exist() -> None:
    async with serving() as api:
        for owner in ("bob", "nobody"):
            problem_of(await api.ask("GET", f"/instances?owner={owner}"), 403, "forbidden")


async def test_pages_follow_each_other_without_holes_though_rows_come_and_go() -> None:
    async with serving() as api:
        for number in range(7):
            api.supervisor.add(f"n{number}", "alice")
        seen: list[str] = []
        cursor = ""
        while True:
            page = (await api.ask("GET", f"/instances?limit=2{cursor}")).json()
            seen += [row["name"] for row in page["instances"]]
            if len(seen) == 4:
                del api.supervisor.by_id[api.named("alice", "memory").instance.id]
                api.supervisor.add("late", "alice")
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert sorted(seen) == sorted(["memory", "files", *(f"n{n}" for n in range(7)), "late"])
        assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("cursor", ["x", "e30", "bm9wZQ", "%00", "WzFd", "a" * 600])
async def test_a_cursor_of_somebody_elses_making_is_refused(cursor: str) -> None:
    async with serving() as api:
        document = problem_of(await api.ask("GET", f"/instances?cursor={cursor}"), 422, "invalid_request")
        assert pointers(document) == {"?cursor"}


async def test_a_row_has_the_figures_of_the_last_sample() -> None:
    async with serving() as api:
        runner = api.named("alice", "memory")
        runner.last_sample = Sample(at=NOW, cpu_percent=12.5, memory_mb=33.0, processes=3, p50_ms=1.5, p95_ms=None)
        runner.meter.count(0.010, failed=False)
        runner.meter.count(0.020, failed=True)
        row = (await api.ask("GET", "/instances/memory")).json()
        assert (row["cpu_percent"], row["memory_mb"], row["processes"]) == (12.5, 33.0, 3)
        assert (row["calls"], row["errors"], row["p50_ms"]) == (2, 1, 1.5)
        assert 19 < row["p95_ms"] < 25
        runner.become(State.FAILED)
        row = (await api.ask("GET", "/instances/memory")).json()
        assert row["cpu_percent"] is None
        assert row["pid"] is None


async def test_one_instance_shows_names_of_its_environment_and_hides_secrets_in_their_place() -> None:
    async with serving() as api:
        response = await api.ask("GET", "/instances/memory")
        assert SECRET not in response.text
        found = response.json()
        assert found["environment_vars"] == ["A", "API_KEY"]
        assert found["mcp_config"] == {
            "command": "npx",
            "args": ["-y", "srv", "--token", "[redacted]", "x[redacted:API_KEY]"],
            "cwd": "/srv",
        }
        assert found["limits"]["memory_mb"] == 1024
        assert found["restart"]["mode"] == "on-failure"
        assert found["notes"][0] == "network is not in force at level process"
        assert [note.partition(" ")[0] for note in found["notes"][1:]] == ["mcp_config.args[3]", "mcp_config.args[4]"]
        assert found["post_mortem"]["exit_code"] == 3


async def test_an_instance_is_shown_from_memory_while_the_database_is_away() -> None:
    async with serving() as api:
        api.store.away = True
        found = await api.ask("GET", "/instances/memory")
        assert found.status_code == 200
        assert found.json()["post_mortem"] is None


async def test_an_instance_is_found_by_id_by_name_and_by_owner_and_name() -> None:
    async with serving() as api:
        bobs = str(api.named("bob", "memory").instance.id)
        for path in (bobs, "bob/memory", "bob%2Fmemory"):
            assert (await api.admin("GET", f"/instances/{path}")).json()["instance_id"] == bobs
            assert (await api.admin("GET", f"/instances/{path}/logs")).status_code == 200
        assert (await api.ask("GET", "/instances/memory", token=BOB)).json()["instance_id"] == bobs


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/instances/{}"),
        ("PATCH", "/instances/{}"),
        ("POST", "/instances/{}/start"),
        ("POST", "/instances/{}/stop"),
        ("POST", "/instances/{}/restart"),
        ("DELETE", "/instances/{}"),
        ("DELETE", "/mcp/{}"),
        ("GET", "/instances/{}/logs"),
        ("GET", "/instances/{}/logs?follow=true"),
        ("GET", "/instances/{}/metrics"),
        ("GET", "/instances/{}/events"),
        ("GET", "/instances/{}/tools"),
        ("GET", "/mcp/{}/stream"),
    ],
)
async def test_another_owners_instance_looks_as_if_it_did_not_exist(method: str, path: str) -> None:
    async with serving() as api:
        bobs = api.named("bob", "memory")
        body: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        answers: list[dict[str, Any]] = []
        for ref in (str(bobs.instance.id), "bob/memory", "00000000-0000-0000-0000-000000000000", "nothing"):
            document = problem_of(await api.ask(method, path.format(ref), **body), 404, "not_found")
            answers.append({key: value for key, value in document.items() if key != "request_id"})
        assert all(answer == answers[0] for answer in answers)
        assert bobs.state is State.RUNNING


async def test_start_stop_and_restart_answer_with_the_state_that_was_reached() -> None:
    async with serving() as api:
        stopped = await api.ask("POST", "/instances/memory/stop")
        assert (stopped.status_code, stopped.json()["status"], stopped.json()["desired"]) == (200, "stopped", "stopped")
        started = await api.ask("POST", "/instances/memory/start")
        assert (started.status_code, started.json()["status"]) == (200, "running")
        api.supervisor.outcome = State.STARTING
        waiting = await api.ask("POST", "/instances/memory/restart?wait=0.05")
        assert (waiting.status_code, waiting.json()["status"]) == (202, "starting")


async def test_starting_what_runs_is_a_conflict_and_a_failed_start_tells_why() -> None:
    async with serving() as api:
        problem_of(await api.ask("POST", "/instances/memory/start"), 409, "conflict")
        api.supervisor.outcome = State.FAILED
        document = problem_of(await api.ask("POST", "/instances/files/start"), 422, "deploy_failed")
        assert document["exit_code"] == 3


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
async def test_what_cannot_be_written_is_not_done(verb: str) -> None:
    async with serving() as api:
        api.supervisor.away = True
        response = await api.ask("POST", f"/instances/memory/{verb}")
        problem_of(response, 503, "storage_unavailable")
        assert response.headers["retry-after"] == "2"
        assert api.named("alice", "memory").state is State.RUNNING


@pytest.mark.parametrize("path", ["/instances/memory", "/mcp/memory"])
async def test_removing_answers_with_the_final_record_and_a_second_time_not_at_all(path: str) -> None:
    async with serving() as api:
        gone = await api.ask("DELETE", path)
        assert gone.status_code == 200
        assert (gone.json()["status"], gone.json()["desired"]) == ("stopped", "deleted")
        problem_of(await api.ask("DELETE", path), 404, "not_found")


async def test_removing_says_202_while_a_process_is_left() -> None:
    async with serving() as api:
        api.named("alice", "memory").gone = False
        assert (await api.ask("DELETE", "/instances/memory")).status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp-session-id": "abc"},
        {"mcp-session-id": "abc", "mcp-protocol-version": "2025-11-25"},
        {"mcp-protocol-version": "2026-07-28"},
        {"mcp-protocol-version": "2025-11-25"},
        {"mcp-protocol-version": "nonsense"},
        {"mcp-session-id": ""},
    ],
)
async def test_an_mcp_clients_delete_never_removes_the_instance(headers: dict[str, str]) -> None:
    async with serving() as api:
        response = await api.ask("DELETE", "/mcp/memory", headers=headers)
        assert response.status_code in {400, 404, 405}
        assert api.named("alice", "memory").state is State.RUNNING
        problem_of(await api.ask("DELETE", "/mcp/nothing", headers=headers), 404, "not_found")


async def test_a_caller_may_end_sessions_but_not_remove() -> None:
    async with serving() as api:
        token = TOKENS[Role.CALLER]
        ended = await api.ask("DELETE", "/mcp/memory", token=token, headers={"mcp-session-id": "x"})
        assert ended.status_code == 404
        problem_of(await api.ask("DELETE", "/mcp/memory", token=token), 403, "forbidden")
        problem_of(await api.ask("DELETE", "/mcp/memory", token=TOKENS[Role.VIEWER]), 403, "forbidden")
        assert api.named("alice", "memory").state is State.RUNNING


async def test_a_patch_says_what_waits_for_the_next_start() -> None:
    async with serving() as api:
        body = {"labels": {"team": "ops"}, "limits": {"memory_mb": 64}}
        changed = await api.ask("PATCH", "/instances/memory", json=body)
        assert changed.status_code == 200
        assert changed.json()["labels"] == {"team": "ops"}
        assert "limits take effect at the next start" in changed.json()["notes"]
        document = problem_of(await api.ask("PATCH", "/instances/memory", json={"name": "x"}), 422, "invalid_request")
        assert pointers(document) == {"/name"}


async def test_tools_are_asked_anew_while_it_runs_and_remembered_for_when_it_does_not() -> None:
    async with serving() as api:
        runner = api.named("alice", "memory")
        assert (await api.ask("GET", "/instances/memory/tools")).json() == {"tools": [{"name": "add"}], "stale": False}
        runner.listed = [{"name": "sub"}]
        assert (await api.ask("GET", "/instances/memory/tools")).json()["tools"] == [{"name": "sub"}]
        runner.listed = CallTimeout("too slow")
        assert (await api.ask("GET", "/instances/memory/tools")).json() == {"tools": [{"name": "sub"}], "stale": True}
        runner.become(State.BACKOFF)
        assert (await api.ask("GET", "/instances/memory/tools")).json() == {"tools": [{"name": "sub"}], "stale": True}


async def test_what_an_earlier_life_saw_is_looked_up_in_the_cache_and_then_in_the_database() -> None:
    for by_cache in (True, False):
        async with serving() as api:
            runner = api.named("alice", "memory")
            runner.become(State.BACKOFF)
            items = b'[{"name":"sub"}]'
            listing = Listing(
                instance_id=runner.instance.id, section=Section.TOOLS, items=items, digest=b"", seen_at=NOW
            )
            if by_cache:
                api.cache.listings[runner.instance.id, Section.TOOLS] = listing
            else:
                api.store.listings.append(listing)
            assert (await api.ask("GET", "/instances/memory")).json()["tools"] == [{"name": "sub"}]
            found = (await api.ask("GET", "/instances/memory/tools")).json()
            assert found == {"tools": [{"name": "sub"}], "stale": True}
            api.store.away = True
            assert (await api.ask("GET", "/instances/memory/prompts")).json() == {"prompts": [], "stale": True}


async def test_prompts_and_resources_are_listed_as_tools_are() -> None:
    async with serving() as api:
        runner = api.named("alice", "memory")
        added = {"name": "add"}
        assert (await api.ask("GET", "/instances/memory/prompts")).json() == {"prompts": [added], "stale": False}
        found = (await api.ask("GET", "/instances/memory/resources")).json()
        assert found == {"resources": [added], "resource_templates": [added], "stale": False}
        runner.become(State.BACKOFF)
        found = (await api.ask("GET", "/instances/memory/resources")).json()
        assert found == {"resources": [added], "resource_templates": [added], "stale": True}


async def test_text_of_a_child_that_is_no_unicode_is_shown_with_escapes() -> None:
    async with serving() as api:
        runner = api.named("alice", "memory")
        runner.phase = "said \ud800"
        found = await api.ask("GET", "/instances/memory")
        assert found.json()["phase"] == "said \\ud800"
        assert found.json()["post_mortem"]["stderr_tail"] == ["boom \\udc80"]


async def test_a_time_of_another_zone_is_shown_in_utc() -> None:
    from datetime import timedelta, timezone

    async with serving() as api:
        runner = api.named("alice", "memory")
        local = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
        runner.instance = evolve(runner.instance, created_at=local)
        assert (await api.ask("GET", "/instances/memory")).json()["created_at"] == "2026-11-22T12:00:00.000Z"
