"""Secrets over the API: names and times come out, values never."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from uuid import uuid4

import pytest
from attrs import evolve

from controlplane.core.lifecycle import State
from controlplane.core.redact import SECRET_MIN_LENGTH, redactor
from controlplane.model import Command, Node, Role
from controlplane.web.secrets import SECRETS_PER_USER
from controlplane.wire.secrets import VALUE_MAX_BYTES
from tests.web.fakes import TOKENS
from tests.web.fakes_api import BOB, Api, FakeLogbook, FakeRotation, make_spec, pointers, problem_of, serving

if TYPE_CHECKING:
    from controlplane.model import Instance

VALUE = "planted-secret-value"


async def put(api: Api, name: str = "TOKEN", value: str = VALUE, **more: str) -> dict[str, object]:
    answer = await api.ask("PUT", f"/secrets/{name}", json={"value": value}, **more)
    assert answer.status_code in (200, 201), answer.text
    assert VALUE not in answer.text
    document: dict[str, object] = answer.json()
    return document


async def test_a_secret_is_set_listed_shown_and_removed_without_its_value() -> None:
    async with serving() as api:
        first = await api.ask("PUT", "/secrets/TOKEN", json={"value": VALUE})
        assert first.status_code == 201
        assert first.json() == {
            "name": "TOKEN",
            "owner": "alice",
            "created_at": "2026-11-22T12:00:00.000Z",
            "updated_at": "2026-11-22T12:00:00.000Z",
            "used_by": [],
            "in_force_after_restart": [],
        }
        assert (await api.ask("PUT", "/secrets/TOKEN", json={"value": "another value"})).status_code == 200
        record = {k: v for k, v in first.json().items() if k != "in_force_after_restart"}
        assert (await api.ask("GET", "/secrets")).json() == {"secrets": [record], "next_cursor": None}
        assert (await api.ask("GET", "/secrets/TOKEN")).json() == record
        assert (await api.ask("DELETE", "/secrets/TOKEN")).json() == record
        problem_of(await api.ask("GET", "/secrets/TOKEN"), 404, "not_found")
        problem_of(await api.ask("DELETE", "/secrets/TOKEN"), 404, "not_found")


async def test_it_says_who_uses_a_secret_and_who_has_to_be_restarted_for_a_new_value() -> None:
    async with serving() as api:
        env = {"URL": "https://u:${secret:TOKEN}@x", "B": "$${secret:OTHER}"}
        api.named("alice", "memory").instance = _with(api, "memory", env)
        stopped = api.named("alice", "files")
        stopped.instance = _with(api, "files", env)
        assert stopped.state is State.STOPPED

        answer = await put(api)
        assert answer["used_by"] == ["files", "memory"]
        assert answer["in_force_after_restart"] == ["memory"]
        assert (await put(api, "OTHER"))["used_by"] == []


def _with(api: Api, name: str, env: dict[str, str]) -> Instance:
    return evolve(api.named("alice", name).instance, spec=evolve(make_spec(), env=env))


async def test_a_secret_that_is_needed_goes_only_by_force() -> None:
    async with serving() as api:
        api.named("alice", "memory").instance = _with(api, "memory", {"A": "${secret:TOKEN}"})
        await put(api)
        problem = problem_of(await api.ask("DELETE", "/secrets/TOKEN"), 409, "conflict")
        assert problem["used_by"] == ["memory"]
        assert "memory" in problem["detail"]
        assert (await api.ask("DELETE", "/secrets/TOKEN?force=true")).json()["used_by"] == ["memory"]


async def test_each_owner_has_secrets_of_their_own_and_an_administrator_manages_them_by_name() -> None:
    async with serving() as api:
        await put(api)
        assert (await api.ask("GET", "/secrets", token=BOB)).json()["secrets"] == []
        problem_of(await api.ask("GET", "/secrets/TOKEN", token=BOB), 404, "not_found")
        for method, path in (("GET", "/secrets"), ("GET", "/secrets/TOKEN"), ("DELETE", "/secrets/TOKEN")):
            problem_of(await api.ask(method, f"{path}?owner=alice", token=BOB), 403, "forbidden")
        answer = await api.ask("PUT", "/secrets/TOKEN?owner=alice", token=BOB, json={"value": VALUE})
        problem_of(answer, 403, "forbidden")

        assert (await api.admin("GET", "/secrets")).json()["secrets"] == []
        shown = await api.admin("GET", "/secrets?owner=alice")
        assert [row["name"] for row in shown.json()["secrets"]] == ["TOKEN"]
        assert VALUE not in shown.text
        made = await api.admin("PUT", "/secrets/HIS?owner=bob", json={"value": VALUE})
        assert made.json()["owner"] == "bob"
        problem_of(await api.admin("PUT", "/secrets/X?owner=nobody", json={"value": VALUE}), 404, "not_found")


@pytest.mark.parametrize("role", [Role.VIEWER, Role.CALLER])
async def test_who_may_not_deploy_sees_nothing_of_secrets(role: Role) -> None:
    async with serving() as api:
        for method, path in (("GET", "/secrets"), ("GET", "/secrets/A"), ("DELETE", "/secrets/A")):
            problem_of(await api.ask(method, path, token=TOKENS[role]), 403, "forbidden")
        answer = await api.ask("PUT", "/secrets/A", token=TOKENS[role], json={"value": VALUE})
        problem_of(answer, 403, "forbidden")


@pytest.mark.parametrize(
    ("name", "value", "places"),
    [
        ("1TOKEN", VALUE, {"name"}),
        ("a-b", VALUE, {"name"}),
        ("A" * 129, VALUE, {"name"}),
        ("TOKEN", "", {"/value"}),
        ("TOKEN", "x" * (SECRET_MIN_LENGTH - 1), {"/value"}),
        ("TOKEN", " abc\n", {"/value"}),
        ("TOKEN", "ä" * (VALUE_MAX_BYTES // 2 + 1), {"/value"}),
        ("TOKEN", "x" * (VALUE_MAX_BYTES + 1), {"/value"}),
        ("TOKEN", f"{VALUE}\0", {"/value"}),
        ("TOKEN", 12345678, {"/value"}),
    ],
)
async def test_a_name_or_value_that_cannot_be_kept_is_refused_without_repeating_it(
    name: str, value: object, places: set[str]
) -> None:
    async with serving() as api:
        answer = await api.ask("PUT", f"/secrets/{name}", json={"value": value})
        assert pointers(problem_of(answer, 422, "invalid_request")) == places
        assert VALUE not in answer.text
        assert "12345678" not in answer.text
        assert (await api.ask("GET", "/secrets")).json()["secrets"] == []


async def test_a_secret_of_four_characters_or_of_64_kib_is_taken() -> None:
    async with serving() as api:
        await put(api, "SHORT", "x" * SECRET_MIN_LENGTH)
        await put(api, "LONG", "x" * VALUE_MAX_BYTES)


async def test_the_quota_of_secrets_names_itself() -> None:
    async with serving() as api:
        for number in range(SECRETS_PER_USER):
            await put(api, f"S{number}")
        problem = problem_of(await api.ask("PUT", "/secrets/MORE", json={"value": VALUE}), 403, "quota_exceeded")
        assert problem["quota"] == "secrets"
        assert problem["limit"] == SECRETS_PER_USER
        await put(api, "S0", "changed value")


async def test_long_lists_come_in_pages() -> None:
    async with serving() as api:
        for name in "CABD":
            await put(api, name)
        first = (await api.ask("GET", "/secrets?limit=3")).json()
        assert [row["name"] for row in first["secrets"]] == ["A", "B", "C"]
        rest = (await api.ask("GET", f"/secrets?limit=3&cursor={first['next_cursor']}")).json()
        assert [row["name"] for row in rest["secrets"]] == ["D"]


async def test_the_key_is_replaced_by_administrators_alone() -> None:
    async with serving() as api:
        problem_of(await api.ask("POST", "/secrets/rotate-key"), 403, "forbidden")
        for more in ({}, {"json": {}}):
            answer = await api.admin("POST", "/secrets/rotate-key", **more)
            assert answer.json() == {"key_id": "0b" * 8, "previous_key_id": "0a" * 8, "boxes": 3}
        cast("FakeRotation", api.services.rotation).busy = True
        problem_of(await api.admin("POST", "/secrets/rotate-key"), 409, "conflict")


async def test_control_planes_that_are_away_are_named_when_the_key_is_replaced_as_they_have_the_old_one() -> None:
    async with serving() as api:
        own = api.services.roster.node_id
        api.services.roster.take_nodes(
            Node(id=node_id, url=url, version="1", is_live=is_live)
            for node_id, url, is_live in (
                (own, "http://10.0.0.1:8000", False),
                (uuid4(), "http://10.0.0.3:8000", False),
                (uuid4(), "http://10.0.0.2:8000", False),
                (uuid4(), "http://10.0.0.4:8000", True),
            )
        )
        answer = (await api.admin("POST", "/secrets/rotate-key")).json()
        assert answer["away"] == ["http://10.0.0.2:8000", "http://10.0.0.3:8000"]


async def test_an_argument_that_is_the_value_of_a_secret_is_hidden_though_the_spec_names_it_only() -> None:
    async with serving() as api:
        runner = api.named("alice", "memory")
        command = Command(command="srv", args=("--mode", "zq7X"))
        runner.instance = evolve(runner.instance, spec=evolve(make_spec(), command=command, env={"A": "${secret:PIN}"}))
        runner.logbook = FakeLogbook(redact=redactor({}, {"PIN": "zq7X"}))
        shown = (await api.ask("GET", "/instances/memory")).json()
        assert shown["mcp_config"]["args"] == ["--mode", "[redacted:PIN]"]
        assert shown["environment_vars"] == ["A"]
