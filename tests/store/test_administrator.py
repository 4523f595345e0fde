"""The administrator's token of each home that shares a database."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from controlplane import administrator
from controlplane.cluster.roster import Roster
from controlplane.web.auth import digest_of

if TYPE_CHECKING:
    from controlplane.store.postgres import PostgresStore

ONE = Roster(node_id=UUID(int=1 << 100), is_alone=False)
OTHER = Roster(node_id=UUID(int=2 << 100), is_alone=False)


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
