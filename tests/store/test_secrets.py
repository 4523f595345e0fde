"""Secrets as they are kept, and everything that is encrypted under another key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from attrs import evolve

from controlplane.errors import NotFound, QuotaExceeded
from controlplane.model import Role, User
from controlplane.secretbox import SecretBox, SecretUnreadable
from controlplane.store.postgres import PostgresStore, open_store
from tests.store.rows import SECRET_KEY, instance, spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services import Postgres

PLANTED = "planted-secret-value"
NEXT_KEY = "the next secret key of thirty-two bytes"


@pytest.fixture
def sql(postgres_server: Postgres, database_url: str) -> Callable[[str], str]:
    database = database_url.split("/")[3].split("?")[0]
    return lambda statement: postgres_server.sql(database, statement).strip()


async def test_a_secret_is_set_changed_read_and_forgotten(store: PostgresStore) -> None:
    first, is_new = await store.put_secret("ada", "TOKEN", PLANTED, quota=5)
    assert is_new
    second, is_new = await store.put_secret("ada", "TOKEN", "another välue", quota=5)
    assert not is_new
    assert second.created_at == first.created_at < second.updated_at

    assert await store.secrets("ada") == [second]
    assert await store.secret_values("ada", {"TOKEN", "NONE"}) == {"TOKEN": "another välue"}
    assert await store.delete_secret("ada", "TOKEN") == second
    assert await store.delete_secret("ada", "TOKEN") is None
    assert await store.secrets("ada") == []


async def test_secrets_of_one_name_are_each_owners_own(store: PostgresStore) -> None:
    await store.add_user(User(name="bob", role=Role.DEPLOYER))
    await store.put_secret("ada", "TOKEN", "adas value", quota=5)
    await store.put_secret("bob", "TOKEN", "bobs value", quota=5)

    assert await store.secret_values("ada", ["TOKEN"]) == {"TOKEN": "adas value"}
    assert await store.secret_values("bob", ["TOKEN"]) == {"TOKEN": "bobs value"}
    assert await store.secret_values("bob", []) == {}
    with pytest.raises(NotFound, match="no such user"):
        await store.put_secret("nobody", "TOKEN", PLANTED, quota=5)


async def test_the_quota_of_secrets_holds_also_at_the_same_time_and_lets_known_ones_change(
    store: PostgresStore,
) -> None:
    refused: list[str] = []

    async def put(name: str) -> None:
        try:
            await store.put_secret("ada", name, PLANTED, quota=3)
        except QuotaExceeded as error:
            refused.append(error.evidence["quota"])

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(put, f"S{number}")

    assert refused == ["secrets"] * 5
    kept = await store.secrets("ada")
    assert len(kept) == 3
    assert not (await store.put_secret("ada", kept[0].name, "changed", quota=3))[1]


async def test_a_value_stands_nowhere_and_opens_in_no_other_row(
    store: PostgresStore, postgres_server: Postgres, database_url: str, sql: Callable[[str], str]
) -> None:
    await store.put_secret("ada", "ONE", PLANTED, quota=5)
    await store.put_secret("ada", "OTHER", "something else", quota=5)
    dump = postgres_server.dump(database_url.split("/")[3].split("?")[0])
    assert "OTHER" in dump
    assert PLANTED not in dump
    assert PLANTED.encode().hex() not in dump

    sql("UPDATE mcp_secrets SET box = (SELECT box FROM mcp_secrets WHERE name = 'ONE') WHERE name = 'OTHER'")
    with pytest.raises(SecretUnreadable, match="changed outside Corral"):
        await store.secret_values("ada", ["OTHER"])


@pytest.mark.parametrize("what", ["a secret", "a revision that is not in force"])
async def test_what_another_key_closed_is_told_by_its_id_before_it_is_used(
    store: PostgresStore, database_url: str, box: SecretBox, what: str
) -> None:
    if what == "a secret":
        await store.put_secret("ada", "TOKEN", PLANTED, quota=5)
    else:
        made = instance(spec=spec(env={"A": PLANTED}))
        await store.add_instance(made, quota=5)
        await store.add_revision(evolve(made, spec=spec(env={})))
    await store.check_keys()

    async with open_store(database_url, SecretBox(NEXT_KEY), wait_s=5) as other:
        with pytest.raises(SecretUnreadable, match=f"key {box.key_id}, and the key in use is"):
            await other.check_keys()
    async with open_store(database_url, SecretBox(NEXT_KEY, [SECRET_KEY]), wait_s=5) as both:
        await both.check_keys()


async def test_everything_is_closed_with_the_new_key_and_opens_with_it_alone(
    store: PostgresStore, database_url: str, box: SecretBox
) -> None:
    made = instance(spec=spec(env={"A": PLANTED}))
    await store.add_instance(made, quota=5)
    await store.add_revision(evolve(made, spec=spec(env={"B": "b"})))
    for number in range(120):
        await store.put_secret("ada", f"S{number}", f"value {number}", quota=1000)

    box.turn_to(NEXT_KEY)
    await store.put_secret("ada", "LATER", "with the new key", quota=1000)
    assert await store.secret_values("ada", ["S7"]) == {"S7": "value 7"}, "both keys open meanwhile"
    assert await store.seal_again() == 122
    assert await store.seal_again() == 0
    box.forget_previous()

    async with open_store(database_url, SecretBox(NEXT_KEY), wait_s=5) as other:
        await other.check_keys()
        assert (await other.instances())[0].spec.env == {"A": PLANTED}
        assert [revision.spec.env for revision in await other.revisions(made.id)] == [{"B": "b"}, {"A": PLANTED}]
        assert await other.secret_values("ada", ["S7", "LATER"]) == {"S7": "value 7", "LATER": "with the new key"}


async def test_what_is_written_while_everything_is_closed_anew_is_of_the_new_key(
    store: PostgresStore, database_url: str, box: SecretBox
) -> None:
    """Writers encrypt before their statement is on its way: one that took the old key must not come in too late."""
    names = [f"S{number}" for number in range(60)]

    async def put(name: str) -> None:
        await store.put_secret("ada", name, f"value of {name}", quota=1000)

    async def rotate() -> None:
        await trio.lowlevel.checkpoint()
        box.turn_to(NEXT_KEY)
        await store.seal_again()
        box.forget_previous()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for name in names[:30]:
                nursery.start_soon(put, name)
            nursery.start_soon(rotate)
            for name in names[30:]:
                nursery.start_soon(put, name)

    async with open_store(database_url, SecretBox(NEXT_KEY), wait_s=5) as other:
        await other.check_keys()
        assert await other.secret_values("ada", names) == {name: f"value of {name}" for name in names}


async def test_a_box_that_somebody_holds_is_waited_for(
    store: PostgresStore, box: SecretBox, postgres_server: Postgres, database_url: str
) -> None:
    await store.put_secret("ada", "HELD", PLANTED, quota=5)
    database = database_url.split("/")[3].split("?")[0]
    done: list[int] = []

    async def rotate() -> None:
        box.turn_to(NEXT_KEY)
        done.append(await store.seal_again())

    async def hold() -> None:
        await trio.to_thread.run_sync(
            postgres_server.sql,
            database,
            "BEGIN; SELECT 1 FROM mcp_secrets FOR UPDATE; SELECT pg_sleep(1); COMMIT",
        )

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            while not postgres_server.sql(database, "SELECT 1 FROM pg_locks WHERE mode = 'RowShareLock'").strip():
                await trio.lowlevel.checkpoint()
            nursery.start_soon(rotate)
    assert done == [1]
