"""The audit log: who leaves which rows, what they hold and what they never hold, and who may read them."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import attrs
import pytest
import trio

from controlplane.core.lifecycle import State
from controlplane.logs import JsonLines
from controlplane.model import Role, User
from controlplane.store.filters import AuditFilter
from controlplane.store.values import AuditRow, StoredAudit
from controlplane.web.auditing import ADDRESSES_MAX, ELSEWHERE, LEFT, REFUSALS_MAX, WINDOW_S, AuditLog
from controlplane.web.routes import ROUTES
from tests.web.fakes import NOW, TOKENS, FakeJournal
from tests.web.fakes_api import BOB, Api, in_process, problem_of, serving

if TYPE_CHECKING:
    from controlplane.web.route import Route

AUDITED = [route for route in ROUTES if route.audited]
CALLS = {"postMcpMessage", "postMcpSseMessage", "execute"}
ADMIN = TOKENS[Role.ADMIN]
LOCAL = "127.0.0.1"
SPEC = {"name": "new", "source_type": "mcp_config", "mcp_config": {"command": "npx"}}
VALUE = "correct horse battery staple"


def rows(api: Api) -> list[AuditRow]:
    return cast("FakeJournal", api.services.journal).audited


def only(api: Api) -> AuditRow:
    (row,) = rows(api)
    return row


def path_of(route: Route, instance: str = "alice/memory") -> str:
    values = {"id": instance, "token_id": str(uuid4()), "name": "bob"}
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], route.path)


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_all_that_is_not_read_is_audited_but_for_calls() -> None:
    changing = {route.operation for route in ROUTES if route.method != "GET"}
    assert {route.operation for route in AUDITED} == changing - CALLS | {"streamWire"}


@pytest.mark.parametrize("route", [route for route in AUDITED if route.method != "GET"], ids=named)
async def test_every_request_that_changes_something_leaves_one_row_whatever_comes_of_it(route: Route) -> None:
    async with in_process() as api:
        more: dict[str, Any] = {"json": route.example} if route.body is not None else {}
        settled = {"wait": "0"} if "wait" in attrs.fields_dict(route.query) else {}
        answer = await api.admin(route.method, path_of(route), params=settled, **more)
        row = only(api)
        assert (row.action, row.status) == (route.operation, answer.status_code)
        assert (row.actor, row.address, row.request_id) == ("root", LOCAL, answer.headers["x-request-id"])
        assert row.credential is not None
        assert row.count == 1

        rows(api).clear()
        refused = await api.ask(route.method, path_of(route), token=TOKENS[Role.VIEWER], **more)
        assert (only(api).action, only(api).status, refused.status_code) == (route.operation, 403, 403)
        assert only(api).actor == "alice"

        rows(api).clear()
        wrong = await api.admin(route.method, path_of(route), params={"definitely_unknown": "1"}, **more)
        assert (only(api).action, only(api).status, wrong.status_code) == (route.operation, 422, 422)

        rows(api).clear()
        await api.ask(route.method, path_of(route), token=None, **more)
        assert rows(api) == [], "without a token nobody tried to sign in"


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "GET"], ids=named)
async def test_reading_leaves_no_row_but_for_watching_what_others_send(route: Route) -> None:
    async with in_process() as api:
        if route.audited or "event-stream" in str(route.answers):
            return
        await api.admin("GET", re.sub(r"\{id\}", "alice/memory", route.path))
        assert rows(api) == []


async def test_what_it_is_about_is_told_by_id_and_whose_it_is_by_name() -> None:
    async with in_process() as api:
        memory, bobs = api.named("alice", "memory").instance, api.named("bob", "memory").instance
        await api.ask("POST", "/instances/memory/restart")
        await api.admin("DELETE", f"/instances/{bobs.id}")
        made = (await api.ask("POST", "/deploy", json=SPEC)).json()
        token = (await api.ask("POST", "/tokens", json={"name": "ci", "role": "viewer"})).json()
        await api.ask("DELETE", f"/tokens/{token['token_id']}")
        await api.admin("PATCH", "/users/bob", json={"disabled": True})
        await api.ask("DELETE", "/secrets/API_KEY")
        assert [(row.action, row.target, row.owner) for row in rows(api)] == [
            ("restartInstance", str(memory.id), "alice"),
            ("removeInstance", str(bobs.id), "bob"),
            ("deployShort", made["instance_id"], "alice"),
            ("addToken", f"{token['token_id']} ci", "alice"),
            ("removeToken", f"{token['token_id']} ci", "alice"),
            ("patchUser", "bob", "bob"),
            ("removeSecret", "API_KEY", "alice"),
        ]


async def test_what_the_caller_does_not_see_stands_as_it_was_sent_and_is_nobodys() -> None:
    async with in_process() as api:
        bobs = str(api.named("bob", "memory").instance.id)
        for ref in (bobs, "nothing", "x" * 300, "a%0a2026 forged", "corral_" + "s3cret" * 6):
            problem_of(await api.ask("POST", f"/instances/{ref}/stop"), 404, "not_found")
        assert [row.owner for row in rows(api)] == [None] * 5
        assert [row.target for row in rows(api)] == [bobs, "nothing", "x" * 128, "a\\x0a2026 forged", "[redacted]"]


async def test_no_value_ever_gets_into_it(caplog: pytest.LogCaptureFixture) -> None:
    async with in_process() as api:
        with caplog.at_level(logging.INFO, "corral.audit"):
            await api.ask("PUT", "/secrets/API_KEY", json={"value": VALUE})
            await api.ask("PUT", f"/secrets/{VALUE}", json={"value": VALUE})
            await api.ask("DELETE", f"/secrets/{VALUE}")
            env = {"command": "npx", "args": [VALUE], "env": {"KEY": VALUE}}
            await api.ask("POST", "/deploy", json={**SPEC, "mcp_config": env})
            made = (await api.ask("POST", "/tokens", json={"name": "ci", "role": "viewer"})).json()
            await api.ask("DELETE", f"/tokens/{made['token']}")
        kept = str(rows(api)) + caplog.text + str([vars(record) for record in caplog.records])
        assert len(rows(api)) == len(caplog.records) == 6
        assert VALUE not in kept
        assert made["token"] not in kept
        assert not any(token in kept for token in TOKENS.values())


async def test_each_row_is_a_line_of_the_log_with_the_same_members(caplog: pytest.LogCaptureFixture) -> None:
    async with in_process() as api:
        with caplog.at_level(logging.INFO, "corral.audit"):
            await api.admin("PATCH", "/users/bob", json={"disabled": True})
        (record,) = caplog.records
        assert record.getMessage() == f"root from {LOCAL}: patchUser bob: 200"
        members = attrs.asdict(only(api), filter=lambda member, _: member.name != "at")
        assert {name: vars(record)[name] for name in members} == members


async def test_as_json_a_line_has_them_too(caplog: pytest.LogCaptureFixture) -> None:
    async with in_process() as api:
        with caplog.at_level(logging.INFO, "corral.audit"):
            await api.admin("PATCH", "/users/bob", json={"disabled": True})
        (record,) = caplog.records
        line = json.loads(JsonLines().format(record))
        members = attrs.asdict(only(api), filter=lambda member, _: member.name != "at")
        assert {name: line[name] for name in members} == members
        assert line["logger"] == "corral.audit"


@pytest.mark.parametrize(
    ("proxies", "address"),
    [((), LOCAL), (("10.0.0.0/8",), LOCAL), (("127.0.0.0/8",), "203.0.113.9")],
    ids=["none", "not this one", "trusted"],
)
async def test_the_address_is_the_clients_only_where_a_trusted_proxy_says_so(proxies: Any, address: str) -> None:
    async with in_process(trusted_proxies=proxies) as api:
        forwarded = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
        await api.ask("POST", "/instances/memory/stop", headers=forwarded)
        await api.ask("POST", "/instances/memory/stop", token="wrong-token", headers=forwarded)
        assert [(row.action, row.address) for row in rows(api)] == [("stopInstance", address), ("signIn", address)]


async def test_a_deploy_as_a_stream_has_the_status_of_its_outcome() -> None:
    async with serving() as api:
        events = {"Accept": "text/event-stream"}
        assert (await api.ask("POST", "/deploy", json=SPEC, headers=events)).status_code == 200
        api.deployer.outcome = State.FAILED
        failed = await api.ask("POST", "/deploy", json={**SPEC, "name": "other"}, headers=events)
        assert failed.status_code == 200
        assert [(row.status, row.owner) for row in rows(api)] == [(201, "alice"), (422, "alice")]


async def test_a_client_that_leaves_before_the_answer_leaves_a_row_all_the_same() -> None:
    async with serving() as api:
        api.deployer.outcome = State.STARTING
        with trio.move_on_after(0.5) as left:
            await api.ask("POST", "/deploy", json=SPEC)
        assert left.cancelled_caught
        with trio.fail_after(5):
            while not rows(api):
                await trio.sleep(0.01)
        made = api.named("alice", "new").instance
        assert (only(api).status, only(api).target) == (LEFT, str(made.id))


async def test_opening_the_wire_is_a_row_and_asking_whether_it_is_there_is_none() -> None:
    async with in_process() as api:
        assert (await api.ask("GET", "/instances/nothing/wire")).status_code == 404
        assert (await api.ask("HEAD", "/instances/nothing/wire")).status_code == 404
        assert (only(api).action, only(api).status) == ("streamWire", 404)


# -- what can be repeated without end


def log_at(clock: list[float]) -> tuple[AuditLog, list[AuditRow]]:
    journal = FakeJournal()
    return AuditLog(cast("Any", journal), clock=lambda: clock[0]), journal.audited


async def test_wrong_tokens_are_a_row_at_once_whichever_route_they_came_to_and_then_a_number() -> None:
    async with in_process(auth_failures_per_minute=3) as api:
        for path in ("/tokens", "/deploy", "/mcp/memory/execute", "/mcp/memory", "/users"):
            await api.ask("POST", path, token="corral_wrong", json={})
        row = only(api)
        assert (row.action, row.status, row.address, row.count) == ("signIn", 401, LOCAL, 1)
        assert (row.actor, row.credential, row.target, row.owner, row.request_id) == (None, None, "", None, "")
        api.services.audit.sweep(everything=True)
        assert [row.count for row in rows(api)] == [1, 4]


def test_a_flood_of_wrong_tokens_is_a_few_rows_a_minute_from_however_many_addresses() -> None:
    clock = [0.0]
    log, kept = log_at(clock)
    for minute in range(3):
        for n in range(1_000):
            log.wrong_token(f"192.0.2.{n % 250}")
        clock[0] = (minute + 1) * WINDOW_S
        log.sweep()
    assert len(kept) == 3 * (2 * ADDRESSES_MAX + 1)
    assert sum(row.count for row in kept) == 3_000
    assert sum(row.count for row in kept if row.address == ELSEWHERE) == 3 * 4 * (250 - ADDRESSES_MAX)


def test_one_callers_refusals_of_one_kind_are_counted_once_they_are_many() -> None:
    clock = [0.0]
    log, kept = log_at(clock)
    row = AuditRow(
        at=NOW,
        actor="eve",
        credential="c",
        address=LOCAL,
        action="stopInstance",
        target="x",
        owner=None,
        status=404,
        request_id="r",
    )
    for _ in range(1_000):
        log.note(row)
        log.note(attrs.evolve(row, status=200))
        log.note(attrs.evolve(row, status=503))
    log.note(attrs.evolve(row, action="startInstance"))
    assert sum(kept_row.status == 404 for kept_row in kept) == REFUSALS_MAX + 1
    assert sum(kept_row.status == 200 for kept_row in kept) == 1_000, "what was done is never only counted"
    clock[0] = WINDOW_S
    log.sweep()
    counted = {(last.actor, last.action, last.status): last.count for last in kept[-2:]}
    rest = 1_000 - REFUSALS_MAX
    assert counted == {("eve", "stopInstance", 404): rest, ("eve", "stopInstance", 503): rest}


# -- who may read it


async def test_administrators_see_all_and_others_what_concerns_them() -> None:
    async with in_process() as api:
        for token, sees in ((ADMIN, None), (TOKENS[Role.VIEWER], "alice"), (BOB, "bob")):
            assert (await api.ask("GET", "/audit", token=token)).status_code == 200
            which = api.store.asked[-1]
            assert isinstance(which, AuditFilter)
            assert which.seen_by == sees


async def test_who_gets_the_name_of_somebody_who_was_removed_sees_nothing_of_him() -> None:
    async with in_process() as api:
        tokens = api.services.tokens
        for name, role in (("alice", Role.DEPLOYER), ("root", Role.ADMIN)):
            tokens.put_user(User(name=name, role=role, created_at=NOW))
        for token, query, since in (
            (TOKENS[Role.VIEWER], "", NOW),
            (TOKENS[Role.VIEWER], "?since=2020-01-01T00:00:00Z", NOW),
            (TOKENS[Role.VIEWER], "?since=2099-01-01T00:00:00Z", datetime(2099, 1, 1, tzinfo=UTC)),
            (ADMIN, "", None),
        ):
            assert (await api.ask("GET", f"/audit{query}", token=token)).status_code == 200
            assert api.store.asked[-1].since == since


async def test_the_filters_arrive_and_a_row_is_told_with_all_it_has() -> None:
    async with in_process() as api:
        memory = api.named("alice", "memory").instance
        row = AuditRow(
            at=NOW,
            actor="root",
            credential="c",
            address=LOCAL,
            action="stopInstance",
            target=str(memory.id),
            owner="alice",
            status=200,
            request_id="r-1",
        )
        api.store.audit_ = [StoredAudit(row, "memory")]
        path = "/audit?actor=root&action=stopInstance,patchUser&owner=alice&status=2xx,4xx&since=2026-11-22T00:00:00Z"
        answer = await api.ask("GET", f"{path}&target=memory&limit=7&cursor=abc")
        assert answer.json() == {
            "audit": [
                {
                    "timestamp": "2026-11-22T12:00:00.000Z",
                    "name": "memory",
                    "actor": "root",
                    "credential": "c",
                    "address": LOCAL,
                    "action": "stopInstance",
                    "target": str(memory.id),
                    "owner": "alice",
                    "status": 200,
                    "request_id": "r-1",
                    "count": 1,
                }
            ],
            "next_cursor": "more",
        }
        which = api.store.asked[-1]
        assert which.targets == ("memory", str(memory.id))
        assert (which.actor, which.owner, which.actions) == ("root", "alice", ("stopInstance", "patchUser"))
        assert (which.classes, which.limit, which.cursor) == ((2, 4), 7, "abc")


@pytest.mark.parametrize(
    ("target", "owner", "shown"),
    [
        (f"{uuid4()} my ci", "alice", "my ci"),
        (f"{uuid4()} it was sent so", None, None),
        ("", "alice", None),
    ],
    ids=["removed", "not seen", "not made"],
)
async def test_a_token_is_told_with_its_name_though_it_is_gone(
    target: str, owner: str | None, shown: str | None
) -> None:
    row = AuditRow(
        at=NOW,
        actor="root",
        credential="c",
        address=LOCAL,
        action="removeToken",
        target=target,
        owner=owner,
        status=200,
        request_id="r-1",
    )
    async with in_process() as api:
        api.store.audit_ = [StoredAudit(row, None)]
        (told,) = (await api.admin("GET", "/audit")).json()["audit"]
    assert told.get("name") == shown
    assert told["target"] == (target if shown is None else target.removesuffix(f" {shown}"))


async def test_names_of_actions_that_there_are_not_are_refused_with_those_that_are_near() -> None:
    async with in_process() as api:
        problem = problem_of(await api.admin("GET", "/audit?action=signIn,addTokens,nope"), 422, "invalid_request")
        assert [error["pointer"] for error in problem["errors"]] == ["/action/1", "/action/2"]
        assert "addToken" in problem["errors"][0]["message"]
        for action in {route.operation for route in AUDITED} | {"signIn"}:
            assert (await api.admin("GET", f"/audit?action={action}")).status_code == 200


async def test_nothing_of_it_can_be_changed_or_removed() -> None:
    async with in_process() as api:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            problem_of(await api.admin(method, "/audit"), 405, "method_not_allowed")
