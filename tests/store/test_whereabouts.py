"""Who holds an instance, and which database this is: what a control plane asks before it says that there is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from controlplane.store.postgres import PostgresStore, open_store
from controlplane.store.values import Whereabouts
from tests.store.rows import instance

if TYPE_CHECKING:
    from controlplane.secretbox import SecretBox
    from tests.services import Postgres


async def test_an_instance_is_found_by_its_id_or_its_owners_name_as_long_as_it_exists(store: PostgresStore) -> None:
    node_id = uuid4()
    held, free = instance("held", node_id=node_id), instance("free")
    for each in (held, free):
        await store.add_instance(each, quota=10)
    place = Whereabouts(id=held.id, owner="ada", name="held", node_id=node_id)

    assert await store.whereabouts(held.id, "", "") == place
    assert await store.whereabouts(None, "ada", "held") == place
    assert await store.whereabouts(None, "ada", "free") == Whereabouts(
        id=free.id, owner="ada", name="free", node_id=None
    )
    assert await store.whereabouts(None, "bob", "held") is None
    assert await store.whereabouts(uuid4(), "ada", "held") is None
    await store.delete_instance(held.id)
    assert await store.whereabouts(held.id, "", "") is None
    assert await store.whereabouts(None, "ada", "held") is None


async def test_a_database_is_known_by_whatever_name_it_is_reached_and_is_no_other(
    postgres_server: Postgres, box: SecretBox
) -> None:
    names = [postgres_server.new_database() for _ in range(2)]
    try:
        seen = []
        for url in (
            postgres_server.url(names[0]),
            postgres_server.url(names[0]) + "&application_name=another",
            postgres_server.url(names[1]),
        ):
            async with open_store(url, box, wait_s=5) as opened:
                seen.append(await opened.identity())
    finally:
        for name in names:
            postgres_server.drop_database(name)

    assert seen[0] == seen[1] != seen[2]
