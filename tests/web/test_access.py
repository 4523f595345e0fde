"""Tokens and users."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import trio

from controlplane.model import Role
from controlplane.web.auth import digest_of
from controlplane.web.tokens import TOKENS_PER_USER
from tests.web.fakes import JWT_KEY, TOKENS
from tests.web.fakes_api import BOB, pointers, problem_of, serving


async def test_a_new_token_is_shown_once_works_at_once_and_is_kept_as_a_hash() -> None:
    async with serving() as api:
        made = await api.ask("POST", "/tokens", json={"name": "ci", "role": "viewer", "expires_in": 60})
        assert made.status_code == 201
        token = made.json()["token"]
        assert len(token) >= 32
        assert made.headers["cache-control"] == "no-store"
        assert (await api.ask("GET", "/instances", token=token)).status_code == 200
        problem_of(await api.ask("POST", "/deploy", token=token, json={}), 403, "forbidden")
        listed = await api.ask("GET", "/tokens")
        assert token not in listed.text
        record = next(row for row in listed.json()["tokens"] if row["name"] == "ci")
        assert "token" not in record
        assert record["expires_at"] > record["created_at"]
        kept = next(kept for kept in api.store.tokens_.values() if kept.name == "ci")
        assert kept.digest == digest_of(token.encode())


async def test_a_revoked_token_is_refused_at_once() -> None:
    async with serving() as api:
        made = (await api.ask("POST", "/tokens", json={"name": "ci", "role": "viewer"})).json()
        removed = await api.ask("DELETE", f"/tokens/{made['token_id']}")
        assert removed.status_code == 200
        assert "token" not in removed.json()
        problem_of(await api.ask("GET", "/instances", token=made["token"]), 401, "unauthorized")
        problem_of(await api.ask("DELETE", f"/tokens/{made['token_id']}"), 404, "not_found")


async def test_nobody_makes_a_token_that_can_do_more_than_his_own() -> None:
    async with serving() as api:
        for role in ("viewer", "caller", "deployer"):
            assert (await api.ask("POST", "/tokens", json={"name": "x", "role": role})).status_code == 201
        problem_of(await api.ask("POST", "/tokens", json={"name": "x", "role": "admin"}), 403, "forbidden")
        for low in (Role.VIEWER, Role.CALLER):
            answer = await api.ask("POST", "/tokens", token=TOKENS[low], json={"name": "x", "role": "viewer"})
            problem_of(answer, 403, "forbidden")


async def test_nobody_makes_a_token_that_outlives_his_own() -> None:
    async with serving() as api:
        ends = datetime.now(UTC) + timedelta(seconds=100)
        mine = jwt.encode({"sub": "alice", "role": "deployer", "exp": ends}, JWT_KEY, "HS256")
        longer: dict[str, Any]
        for longer in ({}, {"expires_in": 200}):
            answer = await api.ask("POST", "/tokens", token=mine, json={"name": "x", "role": "viewer", **longer})
            problem_of(answer, 403, "forbidden")
        shorter = {"name": "x", "role": "viewer", "expires_in": 50}
        assert (await api.ask("POST", "/tokens", token=mine, json=shorter)).status_code == 201


async def test_a_user_has_so_many_tokens_and_no_more() -> None:
    async with serving(rate_limit_rps=0) as api:
        body = {"name": "x", "role": "viewer"}
        while (made := await api.ask("POST", "/tokens", json=body)).status_code == 201:
            pass
        assert problem_of(made, 403, "quota_exceeded")["quota"] == "tokens"
        assert sum(kept.owner == "alice" for kept in api.store.tokens_.values()) == TOKENS_PER_USER
        problem_of(await api.admin("POST", "/tokens", json={**body, "owner": "alice"}), 403, "quota_exceeded")

        one = next(kept for kept in api.store.tokens_.values() if kept.owner == "alice" and kept.name == "x")
        assert (await api.ask("DELETE", f"/tokens/{one.id}")).status_code == 200
        assert (await api.ask("POST", "/tokens", json=body)).status_code == 201


async def test_tokens_are_made_no_faster_than_calls() -> None:
    async with serving(rate_limit_rps=3) as api:
        answers = [await api.ask("POST", "/tokens", json={"name": "x", "role": "viewer"}) for _ in range(8)]
        assert "retry-after" in answers[-1].headers
        problem_of(answers[-1], 429, "rate_limited")


async def test_tokens_are_seen_and_revoked_by_their_owner_and_by_administrators_only() -> None:
    async with serving() as api:
        bobs = next(token for token in api.store.tokens_.values() if token.owner == "bob")
        assert {row["owner"] for row in (await api.ask("GET", "/tokens")).json()["tokens"]} == {"alice"}
        assert {row["owner"] for row in (await api.admin("GET", "/tokens")).json()["tokens"]} == {
            "alice",
            "bob",
            "root",
        }
        assert {row["owner"] for row in (await api.admin("GET", "/tokens?owner=bob")).json()["tokens"]} == {"bob"}
        problem_of(await api.ask("GET", "/tokens?owner=bob"), 403, "forbidden")
        problem_of(await api.ask("DELETE", f"/tokens/{bobs.id}"), 404, "not_found")
        problem_of(await api.ask("DELETE", "/tokens/nonsense"), 404, "not_found")
        assert (await api.ask("GET", "/instances", token=BOB)).status_code == 200
        assert (await api.admin("DELETE", f"/tokens/{bobs.id}")).status_code == 200
        problem_of(await api.ask("GET", "/instances", token=BOB), 401, "unauthorized")


async def test_an_administrator_makes_tokens_for_others() -> None:
    async with serving() as api:
        body = {"name": "x", "role": "deployer", "owner": "bob"}
        problem_of(await api.ask("POST", "/tokens", json=body), 403, "forbidden")
        made = (await api.admin("POST", "/tokens", json=body)).json()
        assert made["owner"] == "bob"
        seen = await api.ask("GET", "/instances", token=made["token"])
        assert {row["owner"] for row in seen.json()["instances"]} == {"bob"}
        problem_of(await api.admin("POST", "/tokens", json={**body, "owner": "nobody"}), 404, "not_found")


async def test_tokens_and_users_come_in_pages() -> None:
    async with serving() as api:
        first = (await api.admin("GET", "/tokens?limit=2")).json()
        rest = (await api.admin("GET", f"/tokens?limit=500&cursor={first['next_cursor']}")).json()
        ids = [row["token_id"] for row in (*first["tokens"], *rest["tokens"])]
        assert len(first["tokens"]) == 2
        assert len(set(ids)) == len(ids) == len(api.store.tokens_)
        users = (await api.admin("GET", "/users?limit=2")).json()
        assert [row["name"] for row in users["users"]] == ["alice", "bob"]
        last = (await api.admin("GET", f"/users?cursor={users['next_cursor']}")).json()
        assert [row["name"] for row in last["users"]] == ["root"]
        assert last["next_cursor"] is None


async def test_a_new_user_gets_a_first_token_that_works_at_once() -> None:
    async with serving() as api:
        made = await api.admin("POST", "/users", json={"name": "carol", "role": "caller"})
        assert made.status_code == 201
        token = made.json()["token"]
        assert (await api.ask("GET", "/instances", token=token)).json()["instances"] == []
        problem_of(await api.ask("POST", "/deploy", token=token, json={}), 403, "forbidden")
        assert token not in (await api.admin("GET", "/users")).text
        problem_of(await api.admin("POST", "/users", json={"name": "carol"}), 409, "conflict")
        document = problem_of(await api.admin("POST", "/users", json={"name": "Carol!"}), 422, "invalid_request")
        assert pointers(document) == {"/name"}


async def test_a_disabled_user_is_out_at_once_and_in_again_when_enabled() -> None:
    async with serving() as api:
        disabled = await api.admin("PATCH", "/users/bob", json={"disabled": True})
        assert disabled.json()["disabled"] is True
        problem_of(await api.ask("GET", "/instances", token=BOB), 401, "unauthorized")
        await api.admin("PATCH", "/users/bob", json={"disabled": False})
        assert (await api.ask("GET", "/instances", token=BOB)).status_code == 200
        await api.admin("PATCH", "/users/bob", json={"role": "viewer"})
        problem_of(await api.ask("POST", "/deploy", token=BOB, json={}), 403, "forbidden")
        problem_of(await api.admin("PATCH", "/users/nobody", json={}), 404, "not_found")


async def test_a_disabled_users_streams_end_and_the_instances_stay() -> None:
    async with serving() as api:
        headers = {"authorization": f"Bearer {BOB}", "accept": "text/event-stream"}
        async with api.client.stream("GET", "/events", headers=headers) as response:
            lines = response.aiter_lines()
            assert "connected" in await anext(lines) + await anext(lines)
            await api.admin("PATCH", "/users/bob", json={"disabled": True})
            with trio.fail_after(5):
                assert [line async for line in lines if line.startswith("data")] == []
        assert (await api.admin("GET", "/instances/bob/memory")).json()["status"] == "running"


async def test_a_user_goes_once_there_are_no_instances_and_takes_tokens_along() -> None:
    async with serving() as api:
        busy = problem_of(await api.admin("DELETE", "/users/bob"), 409, "conflict")
        assert busy["instances"] == 1
        assert "1 instance" in busy["detail"]
        assert (await api.admin("DELETE", "/instances/bob/memory")).status_code == 200
        gone = await api.admin("DELETE", "/users/bob")
        assert gone.json()["name"] == "bob"
        assert "token" not in gone.json()
        problem_of(await api.ask("GET", "/instances", token=BOB), 401, "unauthorized")
        problem_of(await api.admin("DELETE", "/users/bob"), 404, "not_found")
        assert (await api.admin("POST", "/users", json={"name": "bob"})).status_code == 201
        problem_of(await api.ask("GET", "/instances", token=BOB), 401, "unauthorized")


async def test_neither_oneself_nor_corrals_own_administrator_can_be_removed() -> None:
    async with serving() as api:
        for name in ("root", "admin"):
            problem_of(await api.admin("DELETE", f"/users/{name}"), 409, "conflict")
        problem_of(await api.ask("DELETE", "/users/bob"), 403, "forbidden")


async def test_quotas_of_a_user_are_set_one_by_one_shown_and_taken_back() -> None:
    async with serving(max_memory_mb=512) as api:
        made = await api.admin("PATCH", "/users/bob", json={"quotas": {"instances": 3, "instance_memory_mb": 512}})
        assert made.json()["quotas"] == {"instances": 3, "instance_memory_mb": 512}
        more = await api.admin("PATCH", "/users/bob", json={"quotas": {"calls_per_day": 0, "instances": None}})
        assert more.json()["quotas"] == {"instance_memory_mb": 512, "calls_per_day": 0}
        assert (await api.admin("PATCH", "/users/bob", json={"role": "viewer"})).json()["quotas"] == more.json()[
            "quotas"
        ]
        users = {row["name"]: row["quotas"] for row in (await api.admin("GET", "/users")).json()["users"]}
        assert users == {"alice": {}, "bob": more.json()["quotas"], "root": {}}
        problem_of(await api.ask("PATCH", "/users/alice", json={"quotas": {"instances": 99}}), 403, "forbidden")


@pytest.mark.parametrize(
    ("quotas", "wrong"),
    [
        ({"instance_memory_mb": 513}, {"/quotas/instance_memory_mb"}),
        (
            {"instance_memory_mb": 15, "instances": 0, "memory_mb": 10**6},
            {"/quotas/instance_memory_mb", "/quotas/instances"},
        ),
        ({"instanzes": 3}, {"/quotas/instanzes"}),
        ({"calls_per_day": -1}, {"/quotas/calls_per_day"}),
        ({"calls_per_day": 1.5}, {"/quotas/calls_per_day"}),
        ({"calls_per_day": "many"}, {"/quotas/calls_per_day"}),
    ],
)
async def test_quotas_that_cannot_be_are_refused_and_change_nothing(quotas: dict[str, Any], wrong: set[str]) -> None:
    async with serving(max_memory_mb=512) as api:
        body = {"quotas": {"cpu_s_per_day": 5, **quotas}}
        assert pointers(problem_of(await api.admin("PATCH", "/users/bob", json=body), 422, "invalid_request")) == wrong
        assert api.store.users_["bob"].quotas.cpu_s_per_day is None


@pytest.mark.parametrize("body", [{"disabled": True}, {"role": "viewer"}, {"role": "deployer", "disabled": False}])
async def test_an_administrator_cannot_lock_himself_out(body: dict[str, Any]) -> None:
    async with serving() as api:
        problem_of(await api.admin("PATCH", "/users/root", json=body), 409, "conflict")
        assert (await api.admin("GET", "/users")).status_code == 200


async def test_tokens_cannot_be_made_while_the_database_is_away() -> None:
    async with serving() as api:
        api.store.away = True
        with trio.fail_after(8):
            answer = await api.ask("POST", "/tokens", json={"name": "ci", "role": "viewer"})
        problem_of(answer, 503, "storage_unavailable")
        assert (await api.ask("GET", "/instances")).status_code == 200
