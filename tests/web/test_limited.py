"""Tokens that open single instances only."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest
import trio

from controlplane.model import Principal, Role
from controlplane.store.filters import FleetEventFilter
from controlplane.web.limited import ids_opened
from tests.web.fakes import TOKENS
from tests.web.fakes_api import BOB, ApiSupervisor, in_process, pointers, problem_of, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.fakes_api import Api

ID, OTHER = uuid4(), uuid4()


@pytest.mark.parametrize(
    ("role", "only", "instance", "seen"),
    [
        (Role.CALLER, None, ("alice", "memory", ID), True),
        (Role.CALLER, None, ("bob", "memory", ID), False),
        (Role.ADMIN, None, ("bob", "memory", ID), True),
        (Role.CALLER, {ID}, ("alice", "memory", ID), True),
        (Role.CALLER, {ID}, ("alice", "memory", OTHER), False),
        (Role.CALLER, {ID}, ("bob", "memory", ID), False),
        (Role.ADMIN, {ID}, ("bob", "memory", ID), True),
        (Role.ADMIN, {ID}, ("alice", "memory", OTHER), False),
        (Role.CALLER, {"alice/memory"}, ("alice", "memory", ID), True),
        (Role.CALLER, {"alice/memory"}, ("alice", "files", ID), False),
        (Role.CALLER, {"bob/memory"}, ("bob", "memory", ID), False),
        (Role.ADMIN, {"bob/memory"}, ("bob", "memory", ID), True),
        (Role.ADMIN, set(), ("alice", "memory", ID), False),
    ],
)
def test_who_sees_which_instance(
    role: Role, only: set[Any] | None, instance: tuple[str, str, UUID], seen: bool
) -> None:
    instances = None if only is None else frozenset(only)
    principal = Principal(owner="alice", role=role, token_id="t", instances=instances)
    assert principal.sees(*instance) is seen
    assert principal.is_admin is (role is Role.ADMIN and only is None)


async def limited(api: Api, *refs: str, role: str = "deployer", maker: str = TOKENS[Role.DEPLOYER], **more: Any) -> str:
    body = {"name": "limited", "role": role, "instances": list(refs), **more}
    made = await api.ask("POST", "/tokens", token=maker, json=body)
    assert made.status_code == 201, made.text
    assert all(len(instance_id) == 36 for instance_id in made.json()["instances"])
    return str(made.json()["token"])


async def test_it_opens_those_alone_and_everything_else_is_not_there() -> None:
    async with in_process() as api:
        token = await limited(api, "memory")
        mine = str(api.named("alice", "memory").instance.id)
        for ref in ("memory", mine):
            assert (await api.ask("GET", f"/instances/{ref}", token=token)).status_code == 200
            assert (await api.ask("POST", f"/instances/{ref}/restart", token=token)).status_code == 200
        for ref in ("files", str(api.named("alice", "files").instance.id), str(api.named("bob", "memory").instance.id)):
            problem_of(await api.ask("GET", f"/instances/{ref}", token=token), 404, "not_found")
            problem_of(await api.ask("GET", f"/instances/{ref}/logs", token=token), 404, "not_found")
            problem_of(
                await api.ask("POST", f"/mcp/{ref}/execute", token=token, json={"method": "m"}), 404, "not_found"
            )
            problem_of(await api.ask("POST", f"/mcp/{ref}", token=token, json={"id": 1}), 404, "not_found")


async def test_lists_totals_and_figures_are_of_those_alone() -> None:
    async with in_process() as api:
        token = await limited(api, "memory")
        mine = str(api.named("alice", "memory").instance.id)
        listed = (await api.ask("GET", "/instances", token=token)).json()["instances"]
        assert [row["instance_id"] for row in listed] == [mine]
        assert (await api.ask("GET", "/stats", token=token)).json()["instances"]["total"] == 1
        metrics = (await api.ask("GET", "/metrics", token=token)).text
        assert mine in metrics
        assert str(api.named("alice", "files").instance.id) not in metrics
        await api.ask("GET", "/events/history", token=token)
        (which,) = [asked for asked in api.store.asked if isinstance(asked, FleetEventFilter)]
        assert which.owner == "alice"
        assert [str(one) for one in which.instances or ()] == [mine]


async def test_what_is_about_more_than_instances_is_forbidden() -> None:
    async with in_process() as api:
        token = await limited(api, "memory")
        deploy = {"name": "x", "source_type": "mcp_config", "mcp_config": {"command": "npx"}}
        for method, path, body in (
            ("POST", "/deploy", deploy),
            ("POST", "/api/v2/deploy", deploy),
            ("GET", "/secrets", None),
            ("PUT", "/secrets/KEY", {"value": "v"}),
            ("GET", "/tokens", None),
            ("POST", "/tokens", {"name": "more", "role": "viewer"}),
            ("POST", "/tokens", {"name": "same", "role": "viewer", "instances": ["memory"]}),
            ("GET", "/usage", None),
        ):
            response = await api.ask(method, path, token=token, json=body)
            problem_of(response, 403, "forbidden")
        assert not api.deployer.seen


async def test_an_administrators_is_no_administrators_but_for_its_instances() -> None:
    async with in_process() as api:
        token = await limited(api, "bob/memory", role="admin", maker=TOKENS[Role.ADMIN])
        assert (await api.ask("GET", "/instances/bob/memory", token=token)).status_code == 200
        problem_of(await api.ask("GET", "/instances/alice/memory", token=token), 404, "not_found")
        listed = (await api.ask("GET", "/instances", token=token)).json()["instances"]
        assert [row["owner"] for row in listed] == ["bob"]
        assert (await api.ask("GET", "/stats", token=token)).json()["control_plane"] == {}
        for path in ("/users", "/cache"):
            problem_of(await api.ask("GET", path, token=token), 403, "forbidden")


async def test_an_administrator_makes_one_for_somebody_by_that_users_names() -> None:
    async with in_process() as api:
        token = await limited(api, "memory", role="caller", maker=TOKENS[Role.ADMIN], owner="bob")
        listed = (await api.ask("GET", "/instances", token=token)).json()["instances"]
        assert [row["instance_id"] for row in listed] == [str(api.named("bob", "memory").instance.id)]


async def test_nobody_makes_one_for_instances_that_he_or_its_owner_does_not_see() -> None:
    async with in_process() as api:
        foreign = str(api.named("bob", "memory").instance.id)
        body = {"name": "x", "role": "viewer", "instances": ["memory", "none", foreign]}
        document = problem_of(await api.ask("POST", "/tokens", json=body), 422, "invalid_request")
        assert pointers(document) == {"/instances/1", "/instances/2"}
        empty = await api.ask("POST", "/tokens", json={**body, "instances": []})
        assert pointers(problem_of(empty, 422, "invalid_request")) == {"/instances"}
        of_bob = await api.admin("POST", "/tokens", json={**body, "owner": "bob", "instances": ["alice/memory"]})
        assert pointers(problem_of(of_bob, 422, "invalid_request")) == {"/instances/0"}


@asynccontextmanager
async def events(api: Api, token: str) -> AsyncIterator[AsyncIterator[str]]:
    headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
    async with api.client.stream("GET", "/events", headers=headers) as response:
        assert response.status_code == 200
        yield (line async for line in response.aiter_lines() if line.startswith("data: "))


async def test_the_fleets_stream_tells_of_those_alone_and_ends_with_the_token() -> None:
    async with serving() as api:
        token = await limited(api, "memory")
        mine, other = api.named("alice", "memory").instance, api.named("alice", "files").instance
        async with events(api, token) as told:
            assert '"connected"' in await anext(told)
            for instance in (other, mine, other, mine):
                api.services.hub.publish_nowait("status", instance_id=instance.id, owner="alice", data={"status": "x"})
            for _ in range(2):
                assert str(mine.id) in await anext(told)
            (record,) = [kept for kept in api.store.tokens_.values() if kept.name == "limited"]
            await api.ask("DELETE", f"/tokens/{record.id}")
            with trio.fail_after(5):
                assert [line async for line in told] == []
        problem_of(await api.ask("GET", "/instances", token=token), 401, "unauthorized")


async def test_the_list_of_tokens_says_what_each_opens() -> None:
    async with in_process() as api:
        await limited(api, "memory", "files")
        rows = {row["name"]: row["instances"] for row in (await api.ask("GET", "/tokens")).json()["tokens"]}
        expected = sorted(str(api.named("alice", name).instance.id) for name in ("memory", "files"))
        assert rows["limited"] == expected
        assert rows["deployer"] is None
        assert all(row["instances"] is None for row in (await api.ask("GET", "/tokens", token=BOB)).json()["tokens"])


def test_names_and_ids_of_what_a_token_opens_come_to_ids() -> None:
    supervisor = ApiSupervisor()
    memory = supervisor.add("memory", "alice").instance
    of_bob = supervisor.add("memory", "bob").instance

    def opened(role: Role, *only: UUID | str) -> set[UUID] | None:
        principal = Principal(owner="alice", role=role, token_id="t", instances=frozenset(only) if only else None)
        found = ids_opened(cast("Any", supervisor), principal)
        return None if found is None else set(found)

    assert opened(Role.CALLER) is None
    assert opened(Role.CALLER, ID, "alice/memory", "alice/none", "bob/memory") == {ID, memory.id}
    assert opened(Role.ADMIN, "bob/memory") == {of_bob.id}
