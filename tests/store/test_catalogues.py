"""What instances offer, kept in a real Postgres through the journal's batches."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from controlplane.model import Listing, Section
from controlplane.store.backlog import Backlog
from controlplane.store.journal import Journal
from controlplane.store.values import Batch, Retention
from tests.store.rows import instance, line, listing

if TYPE_CHECKING:
    from controlplane.store.postgres import PostgresStore
    from tests.services import Postgres

ALL = 2**30
ODD = b'[{"name":"\\ud83d","n":123456789012345678901234567890,"n":1.50,"s":"\\u0000"}, {}]'
"""Half a surrogate pair, a NUL, a long number, a name twice, white space: jsonb would refuse or change each of them."""


async def add(store: PostgresStore, name: str = "memory") -> UUID:
    made = instance(name)
    await store.add_instance(made, quota=100)
    return made.id


async def write(store: PostgresStore, *listings: Listing) -> None:
    await store.write(Batch(listings=listings))


async def test_a_listing_comes_back_byte_for_byte(store: PostgresStore) -> None:
    one = await add(store)
    kept = [listing(one, ODD), listing(one, b"[]", Section.RESOURCE_TEMPLATES)]
    journal = Journal(store)
    for each in kept:
        journal.listing(each)
    assert await journal.flush(10)

    assert sorted(await store.listings(ALL), key=lambda row: -len(row.items)) == kept
    assert sorted(await store.listings_of(one), key=lambda row: -len(row.items)) == kept
    assert await store.listings_of(uuid4()) == []


async def test_a_later_listing_replaces_the_first_and_the_same_one_again_changes_nothing(store: PostgresStore) -> None:
    one = await add(store)
    first, again, later = listing(one), listing(one), listing(one, b'[{"name":"add"}]')
    await write(store, first)
    await write(store, again)
    assert await store.listings_of(one) == [first]  # with the time at which it was first seen
    await write(store, later)
    assert await store.listings_of(one) == [later]


async def test_a_catalogue_goes_with_its_instance_and_does_not_come_back(store: PostgresStore) -> None:
    one, other = await add(store), await add(store, "other")
    await write(store, listing(one), listing(other))
    await store.delete_instance(one)
    assert [row.instance_id for row in await store.listings(ALL)] == [other]
    assert await store.listings_of(one) == []

    await write(store, listing(one), listing(uuid4()))  # late: both are gone, and nothing else is lost with them
    assert [row.instance_id for row in await store.listings(ALL)] == [other]
    assert await store.listings_of(one) == []


async def test_retention_forgets_what_was_written_while_its_instance_was_deleted(
    store: PostgresStore, database_url: str, postgres_server: Postgres
) -> None:
    gone, there = await add(store, "gone"), await add(store, "there")
    await write(store, listing(gone), listing(there))
    database = database_url.split("/")[3].split("?")[0]
    mark = "UPDATE mcp_instances SET desired = 'deleted', deleted_at = now() WHERE id = '{}'"
    postgres_server.sql(database, mark.format(gone))
    assert [row.instance_id for row in await store.listings(ALL)] == [there]

    await store.retain(Retention())
    assert await store.listings_of(gone) == []
    assert len(await store.listings_of(there)) == 1


async def test_only_so_much_is_read_at_once_and_the_smaller_ones_first(store: PostgresStore) -> None:
    small, large = await add(store, "small"), await add(store, "large")
    await write(store, listing(large, b"[" + b" " * 50_000 + b"]"), listing(small))
    assert [row.instance_id for row in await store.listings(10_000)] == [small]
    assert len(await store.listings(100_000)) == 2
    assert await store.listings(1) == []


def test_of_each_section_only_the_latest_listing_waits() -> None:
    backlog, one = Backlog(), uuid4()
    for each in (listing(one), listing(one, b"[]"), listing(one, b"[1]", Section.PROMPTS)):
        backlog.push_listing(each)
    assert len(backlog) == 2
    assert [row.items for row in backlog.take().listings] == [b"[]", b"[1]"]
    assert len(backlog) == 0


def test_a_batch_takes_large_listings_one_at_a_time_and_leaves_none() -> None:
    backlog = Backlog()
    large = [listing(uuid4(), b" " * 3000) for _ in range(3)]
    for each in large:
        backlog.push_listing(each)
    taken = []
    while len(backlog):
        batch = backlog.take(max_bytes=2000)
        assert len(batch.listings) == 1
        taken += batch.listings
    assert taken == large


async def test_a_row_that_is_refused_takes_no_listing_with_it(store: PostgresStore) -> None:
    one = await add(store)
    journal = Journal(store)
    journal.log(line(one))
    journal.listing(listing(one, b"[1]", Section.PROMPTS))
    wrong = Listing(instance_id=one, section=Section.TOOLS, items=b"[]", digest=b"short", seen_at=listing(one).seen_at)
    journal.listing(wrong)
    assert await journal.flush(10)
    assert journal.statistics().refused == 1
    assert [row.section for row in await store.listings_of(one)] == [Section.PROMPTS]
