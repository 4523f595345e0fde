"""The administrator's token of each home that shares a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pytest
import trio
from attrs import define, evolve, field

from controlplane import administrator
from controlplane.cluster.lease import LEASE_S
from controlplane.cluster.roster import Roster
from controlplane.model import Node, Role, Token, User
from controlplane.store.postgres import PostgresStore, open_store
from controlplane.web.auth import digest_of

if TYPE_CHECKING:
    from controlplane.secretbox import SecretBox
    from controlplane.store.base import Store

ONE = Roster(node_id=UUID(int=1 << 100), is_alone=False)
OTHER = Roster(node_id=UUID(int=2 << 100), is_alone=False)
THIRD = Roster(node_id=UUID(int=3 << 100), is_alone=False)


async def opening(store: PostgresStore) -> set[bytes]:
    return {token.digest for token in await store.tokens() if token.owner == administrator.ADMIN}


def digests(*tokens: str) -> set[bytes]:
    return {digest_of(token.encode()) for token in tokens}


async def test_each_home_keeps_its_own(store: PostgresStore) -> None:
    await administrator.ensure(store, "first", ONE)
    await administrator.ensure(store, "second", OTHER)
    await administrator.ensure(store, "first", ONE)
    assert await opening(store) == digests("first", "second")


async def test_a_changed_one_replaces_that_homes_alone(store: PostgresStore) -> None:
    await administrator.ensure(store, "first", ONE)
    await administrator.ensure(store, "second", OTHER)
    await administrator.ensure(store, "third", ONE)
    assert await opening(store) == digests("second", "third")


async def test_homes_that_share_one_replace_it_one_after_the_other(store: PostgresStore) -> None:
    for roster in (ONE, OTHER):
        await administrator.ensure(store, "shared", roster)
    for roster in (OTHER, ONE):
        await administrator.ensure(store, "shared anew", roster)
    assert await opening(store) == digests("shared anew")


async def test_the_one_of_an_earlier_version_goes_when_it_was_changed(store: PostgresStore) -> None:
    await administrator.ensure(store, "before", Roster())
    await administrator.ensure(store, "after", ONE)
    assert await opening(store) == digests("after")


@define(eq=False)
class Meeting:
    """Whoever comes waits here for the others."""

    expected: int
    come: int = 0
    all_are_here: trio.Event = field(factory=trio.Event)

    async def wait(self) -> None:
        self.come += 1
        if self.come == self.expected:
            self.all_are_here.set()
        await self.all_are_here.wait()


@define(eq=False)
class InStep:
    """A store in which all have read before anybody writes."""

    store: PostgresStore
    users_read: Meeting
    tokens_read: Meeting

    async def users(self) -> list[User]:
        found = await self.store.users()
        await self.users_read.wait()
        return found

    async def tokens(self) -> list[Token]:
        found = await self.store.tokens()
        await self.tokens_read.wait()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.mark.parametrize("tokens", [("first", "second"), ("shared", "shared")], ids=["one each", "a shared one"])
async def test_two_that_start_at_the_same_time_on_an_empty_database_both_come_up(
    database_url: str, box: SecretBox, tokens: tuple[str, str]
) -> None:
    users_read, tokens_read = Meeting(2), Meeting(2)

    async def start(token: str, roster: Roster) -> None:
        async with open_store(database_url, box, wait_s=5) as store:
            await administrator.ensure(cast("Store", InStep(store, users_read, tokens_read)), token, roster)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for token, roster in zip(tokens, (ONE, OTHER), strict=True):
                nursery.start_soon(start, token, roster)

    async with open_store(database_url, box, wait_s=5) as store:
        assert [user.name for user in await store.users()] == [administrator.ADMIN]
        assert await opening(store) == digests(*tokens)


async def up(store: PostgresStore, roster: Roster, token: str) -> None:
    await store.take_lease(Node(id=roster.node_id, url="http://10.0.0.1:8000", version="1"), LEASE_S)
    await administrator.ensure(store, token, roster)


async def test_the_one_of_a_home_goes_once_its_node_is_forgotten_and_no_sooner(store: PostgresStore) -> None:
    for roster, token in ((ONE, "first"), (OTHER, "second"), (THIRD, "third")):
        await up(store, roster, token)
    user = evolve((await store.tokens())[0], id=UUID(int=9), name="admin of nodes", digest=b"u" * 32)
    await store.add_token(user)
    await store.release(OTHER.node_id, 1)
    await administrator.tidy(store, "first", ONE)
    assert await opening(store) == digests("first", "second", "third") | {user.digest}  # it may come back

    await store.forget_nodes(0)
    await administrator.tidy(store, "first", ONE)
    assert await opening(store) == digests("first", "third") | {user.digest}

    await up(store, OTHER, "second")  # after all
    await administrator.tidy(store, "third", THIRD)
    assert await opening(store) == digests("first", "second", "third") | {user.digest}


async def test_one_that_another_home_shares_stays_when_its_node_is_forgotten(store: PostgresStore) -> None:
    for roster, token in ((ONE, "shared"), (OTHER, "shared"), (THIRD, "third")):
        await up(store, roster, token)
    await store.release(ONE.node_id, 1)
    await store.forget_nodes(0)
    for roster, token in ((OTHER, "shared"), (THIRD, "third")):
        await administrator.tidy(store, token, roster)
        assert await opening(store) == digests("shared", "third")


OWN, REMEMBERED, GONE = (f"admin of node {str(roster.node_id)[:8]}" for roster in (ONE, OTHER, THIRD))


@pytest.mark.parametrize(
    ("owner", "name", "goes"),
    [
        ("admin", GONE, True),
        ("admin", REMEMBERED, False),
        ("admin", OWN, False),
        ("alice", GONE, False),
        ("admin", "admin", False),
        ("admin", "admin of node", False),
        ("admin", f"{GONE} too", False),
    ],
    ids=["gone", "remembered", "own", "somebody's", "of one alone", "of none", "an administrator's choice"],
)
def test_what_is_left_behind_is_a_node_of_no_more(owner: str, name: str, goes: bool) -> None:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    known = Token(id=UUID(int=1), owner=owner, name=name, role=Role.ADMIN, digest=b"a" * 32, created_at=at)
    others = Token(id=UUID(int=2), owner="admin", name=REMEMBERED, role=Role.ADMIN, digest=b"b" * 32, created_at=at)
    nodes = (ONE.node_id, OTHER.node_id)

    found = administrator.left_behind([others, known], b"o" * 32, ONE.node_id, nodes)

    assert found == ([known] if goes else [])
    assert administrator.left_behind([others, known], known.digest, ONE.node_id, nodes) == []  # it is this home's
