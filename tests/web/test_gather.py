"""Lists and sums of several nodes: two real servers, and nodes that say nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest
import trio
from attrs import define, evolve, field

from controlplane.cluster.roster import Elsewhere, Node, Roster
from controlplane.core.lifecycle import State
from controlplane.model import Instance, Role
from controlplane.web import gather
from tests.web.fakes import NOW, TOKENS
from tests.web.fakes_api import BOB, Api, FakeStore, make_spec, problem_of, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE, THERE, GONE = UUID(int=1), UUID(int=2), UUID(int=3)
ADMIN = TOKENS[Role.ADMIN]


@define(eq=False)
class Kept(FakeStore):
    """A store that has instances."""

    kept: list[Instance] = field(factory=list)

    async def instances(self) -> list[Instance]:
        self._read()
        return self.kept


def node(node_id: UUID, port: int, *, is_live: bool = True) -> Node:
    return Node(id=node_id, url=f"http://127.0.0.1:{port}", version="1", is_live=is_live)


def join(api: Api, node_id: UUID) -> Kept:
    """Make a server one of several nodes; returns its store."""
    services = api.services
    services.roster = services.peers.roster = Roster(node_id, is_alone=False)
    old = api.store
    store = Kept(old.users_, old.tokens_)
    services.store = cast("Any", store)
    return store


@define
class Both:
    """`here` is asked; `stored` is what the database has, as `here` reads it."""

    here: Api
    there: Api
    stored: Kept

    def hold(self, instance: Instance, node_id: UUID | None) -> None:
        """The database has this one; `here` knows who holds it."""
        self.stored.kept.append(evolve(instance, node_id=node_id))
        self.here.services.roster.add(Elsewhere(instance.id, instance.owner, instance.name, node_id))

    async def rows(self, query: str = "", token: str = ADMIN) -> list[dict[str, Any]]:
        answer = await self.here.ask("GET", f"/instances{query}", token=token)
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["instances"]
        return rows


def lost(name: str = "lost", owner: str = "alice", state: State = State.RUNNING) -> Instance:
    at = NOW + timedelta(minutes=1)
    return Instance(id=uuid4(), owner=owner, name=name, spec=make_spec(), state=state, created_at=at, updated_at=at)


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    """Each has alice's `memory` and `files` and bob's `memory`; those of `there` were made in between those of `here`."""
    async with serving() as here, serving() as there:
        pair = Both(here, there, join(here, HERE))
        join(there, THERE)
        for runner in there.supervisor.runners():
            moved = evolve(
                runner.instance,
                name=f"{runner.instance.name}-2",
                created_at=runner.instance.created_at + timedelta(milliseconds=500),
            )
            runner.instance = moved
            pair.hold(moved, THERE)
        nodes = [node(HERE, here.port), node(THERE, there.port)]
        for api in (here, there):
            api.services.roster.take_nodes(nodes)
        yield pair
        for api in (here, there):
            await api.services.peers.close()


@asynccontextmanager
async def mute_node() -> AsyncIterator[Node]:
    """A node that takes connections and says nothing."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        yield node(GONE, listener.socket.getsockname()[1])


ALL = ["memory", "memory-2", "files", "files-2", "memory", "memory-2"]


async def test_a_list_has_the_rows_of_all_in_their_order(both: Both) -> None:
    assert [row["name"] for row in await both.rows()] == ALL
    assert [row["name"] for row in await both.rows(token=TOKENS[Role.VIEWER])] == ALL[:4]
    assert [row["name"] for row in await both.rows(token=BOB)] == ["memory", "memory-2"]
    assert [row["name"] for row in await both.rows("?status=stopped")] == ["files", "files-2"]
    assert [row["name"] for row in await both.rows("?name=*-2&owner=bob")] == ["memory-2"]


@pytest.mark.parametrize("limit", [1, 2, 4, 5, 6])
async def test_pages_go_over_all_and_end_with_the_last(both: Both, limit: int) -> None:
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = f"?limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        page = (await both.here.ask("GET", f"/instances{query}", token=ADMIN)).json()
        assert 0 < len(page["instances"]) <= limit
        names += [row["name"] for row in page["instances"]]
        cursor = page["next_cursor"]

    assert names == ALL


async def test_another_node_is_told_of_ones_own_alone(both: Both) -> None:
    answer = await both.here.ask("GET", "/instances", headers={"X-Corral-Node": str(THERE)}, token=ADMIN)

    assert len(answer.json()["instances"]) == 3


async def test_what_is_wrong_with_a_query_is_said_once(both: Both) -> None:
    problem_of(await both.here.ask("GET", "/instances?cursor=nonsense"), 422, "invalid_request")
    problem_of(await both.here.ask("GET", "/instances?owner=bob"), 403, "forbidden")


async def test_instances_of_a_dead_node_and_of_none_are_shown_as_the_database_has_them(both: Both) -> None:
    both.hold(lost("of-the-dead"), GONE)
    both.hold(lost("of-none", state=State.FAILED), None)
    both.hold(lost("bobs", "bob"), GONE)

    rows = {row["name"]: row for row in await both.rows(token=TOKENS[Role.VIEWER])}

    assert rows.keys() == {*ALL, "of-the-dead", "of-none"}
    assert (rows["of-the-dead"]["status"], rows["of-the-dead"]["pid"]) == ("running", None)
    assert rows["of-the-dead"]["notes"] == [gather.STALE]
    assert rows["of-the-dead"]["node"] == str(GONE)
    assert (rows["of-none"]["status"], rows["of-none"]["node"]) == ("failed", None)
    assert [row["name"] for row in await both.rows("?status=failed")] == ["of-none"]


async def test_a_node_that_says_nothing_is_not_waited_for_and_none_of_its_rows_is_lost(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "PART_S", 0.2)
    async with mute_node() as mute:
        both.here.services.roster.take_nodes([*both.here.services.roster.nodes.values(), mute])
        both.hold(lost(), GONE)

        with trio.fail_after(5):
            answer = (await both.here.ask("GET", "/instances", token=ADMIN)).json()

    assert [row["name"] for row in answer["instances"]] == [*ALL, "lost"]
    assert answer["notes"] == [f"Node {mute.url} does not answer."]


async def test_what_was_just_deployed_on_one_that_does_not_answer_is_there_before_the_roster_knows_of_it(
    both: Both,
) -> None:
    nodes = both.here.services.roster.nodes.values()
    both.here.services.roster.take_nodes([*nodes, node(GONE, 1, is_live=False)])
    both.stored.kept.append(evolve(lost("just-now"), node_id=GONE))

    assert [row["name"] for row in await both.rows()] == [*ALL, "just-now"]


async def test_who_may_not_see_where_the_nodes_are_is_told_the_id_of_one_that_is_silent(both: Both) -> None:
    both.here.services.roster.take_nodes([*both.here.services.roster.nodes.values(), node(GONE, 1)])

    answer = (await both.here.ask("GET", "/instances", token=TOKENS[Role.VIEWER])).json()

    assert answer["notes"] == [f"Node {GONE} does not answer."]


async def test_a_node_that_is_silent_is_warned_of_once_until_it_has_answered(
    both: Both, caplog: pytest.LogCaptureFixture
) -> None:
    roster = both.here.services.roster
    there = roster.nodes[THERE]
    with caplog.at_level("WARNING", "corral.web"):
        for is_there in (False, False, True, False):
            roster.take_nodes([roster.nodes[HERE], there if is_there else node(THERE, 1)])
            await both.rows()

    warned = [record.getMessage() for record in caplog.records if "did not give its part" in record.getMessage()]
    assert len(warned) == 2
    assert node(THERE, 1).url in warned[0]


async def test_a_node_that_is_not_there_is_no_failure_even_without_the_database(both: Both) -> None:
    both.here.services.roster.take_nodes([*both.here.services.roster.nodes.values(), node(GONE, 1)])
    both.hold(lost(), GONE)
    both.stored.away = True

    answer = (await both.here.ask("GET", "/instances", token=ADMIN)).json()

    assert [row["name"] for row in answer["instances"]] == ALL
    assert len(answer["notes"]) == 2
    assert "1 instances are not shown" in answer["notes"][1]


async def test_an_instance_that_changes_hands_meanwhile_is_there_once(both: Both) -> None:
    moved = both.here.supervisor.runners()[0].instance
    both.hold(moved, GONE)

    assert [row["name"] for row in await both.rows()] == ALL


async def test_sums_are_of_all(both: Both) -> None:
    both.hold(lost(state=State.FAILED), GONE)

    stats = (await both.here.ask("GET", "/stats", token=ADMIN)).json()
    usage = (await both.here.ask("GET", "/usage?owner=alice", token=ADMIN)).json()

    assert stats["instances"]["by_status"] == {"running": 4, "stopped": 2, "failed": 1}
    assert "latency" not in stats["calls"]
    assert (usage["total"]["instances"], usage["total"]["running"]) == (5, 2)
    assert next(row["used"] for row in usage["quotas"] if row["name"] == "instances") == 5


async def test_nodes_are_listed_with_what_each_holds(both: Both) -> None:
    both.hold(lost(), GONE)
    problem_of(await both.here.ask("GET", "/nodes"), 403, "forbidden")

    answer = (await both.here.ask("GET", "/nodes", token=ADMIN)).json()

    assert [(row["id"], row["live"], row["instances"], row["asked"]) for row in answer["nodes"]] == [
        (str(HERE), True, 3, True),
        (str(THERE), True, 3, False),
    ]
    assert answer["unheld"] == 1


async def test_one_that_is_alone_lists_itself() -> None:
    async with serving() as api:
        (row,) = (await api.ask("GET", "/nodes", token=ADMIN)).json()["nodes"]

    assert (row["live"], row["asked"], row["instances"]) == (True, True, 3)
