"""Another key for everything: in force at once, done to the end whatever breaks off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane.config import Config
from controlplane.errors import Conflict, StorageUnavailable
from controlplane.home import open_home
from controlplane.rotation import KeyRotation
from controlplane.secretbox import SecretBox, SecretUnreadable
from controlplane.store.postgres import open_store
from tests.store.rows import ADA, SECRET_KEY, instance, spec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from controlplane.home import Home
    from controlplane.store.postgres import PostgresStore
    from tests.services import Postgres

from contextlib import asynccontextmanager

from attrs import frozen

NEXT_KEY = "the next secret key of thirty-two bytes"
LIMIT_S = 30


@frozen
class Life:
    """One run of a control plane, as far as keys go."""

    home: Home
    box: SecretBox
    store: PostgresStore
    rotation: KeyRotation
    turns: list[str]


@asynccontextmanager
async def _life(url: str, folder: Path, settings: dict[str, str], runs: bool) -> AsyncIterator[Life]:
    with open_home(Config(home=folder, **settings)) as home:  # type: ignore[arg-type]
        box = SecretBox(home.secret_key, home.previous_keys)
        async with open_store(url, box, wait_s=5) as store, trio.open_nursery() as nursery:
            await store.check_keys()
            if not await store.users():
                await store.add_user(ADA)
            turns: list[str] = []
            rotation = KeyRotation(home, box, store, lambda: turns.append(box.key_id))
            if runs:
                nursery.start_soon(rotation.run)
            with trio.fail_after(LIMIT_S):
                yield Life(home, box, store, rotation, turns)
            nursery.cancel_scope.cancel()


def life(url: str, folder: Path, *, runs: bool = True, **settings: str) -> AbstractAsyncContextManager[Life]:
    return _life(url, folder, settings, runs)


async def fill(store: PostgresStore) -> None:
    await store.add_instance(instance(spec=spec(env={"A": "of the environment"})), quota=5)
    await store.put_secret("ada", "TOKEN", "of the secret", quota=5)


async def assert_whole(store: PostgresStore) -> None:
    assert [found.spec.env for found in await store.instances()] == [{"A": "of the environment"}]
    assert await store.secret_values("ada", ["TOKEN"]) == {"TOKEN": "of the secret"}


async def settled(home: Home) -> None:
    while home.is_rotating:
        await trio.sleep(0.01)


async def test_a_key_of_corrals_own_is_replaced_and_destroyed(database_url: str, tmp_path: Path) -> None:
    async with life(database_url, tmp_path) as one:
        await fill(one.store)
        old, old_id = one.home.secret_key, one.box.key_id
        done = await one.rotation.rotate()
        assert (done.previous_key_id, done.key_id, done.boxes) == (old_id, one.box.key_id, 2)
        assert one.turns == [done.key_id]
        assert not one.home.is_rotating
        assert one.box.previous_key_ids == ()
        await assert_whole(one.store)
        again = await one.rotation.rotate()
        assert again.previous_key_id == done.key_id
    assert old not in "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())
    async with life(database_url, tmp_path) as other:
        assert other.box.key_id == again.key_id
        await assert_whole(other.store)


async def test_what_a_crash_breaks_off_is_done_at_the_next_start(database_url: str, tmp_path: Path) -> None:
    async with life(database_url, tmp_path, runs=False) as one:
        await fill(one.store)
        one.box.turn_to(one.home.begin_rotation())
        await one.store.put_secret("ada", "LATER", "with the new key", quota=5)  # and nothing more: it ends here

    async with life(database_url, tmp_path, runs=False) as two:
        await assert_whole(two.store)
        with pytest.raises(Conflict, match="already"):
            await two.rotation.rotate()

    async with life(database_url, tmp_path) as three:
        await settled(three.home)
        await assert_whole(three.store)
    async with life(database_url, tmp_path) as four:
        assert four.box.previous_key_ids == ()
        await assert_whole(four.store)
        assert (await four.store.secret_values("ada", ["LATER"])) == {"LATER": "with the new key"}


async def test_one_who_leaves_meanwhile_does_not_break_it_off(database_url: str, tmp_path: Path) -> None:
    async with life(database_url, tmp_path) as one:
        await fill(one.store)
        with trio.move_on_after(0):
            await one.rotation.rotate()
        await settled(one.home)
        await assert_whole(one.store)


async def test_two_at_the_same_time_are_one_and_a_conflict(database_url: str, tmp_path: Path) -> None:
    async with life(database_url, tmp_path) as one:
        outcomes: list[str] = []

        async def rotate() -> None:
            try:
                await one.rotation.rotate()
                outcomes.append("done")
            except Conflict:
                outcomes.append("conflict")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rotate)
            nursery.start_soon(rotate)
        assert sorted(outcomes) == ["conflict", "done"]


async def test_without_a_database_both_keys_stay(own_postgres: Postgres, tmp_path: Path) -> None:
    async with life(own_postgres.url("postgres"), tmp_path) as one:
        await fill(one.store)
        old_id = one.box.key_id
        own_postgres.kill()
        with pytest.raises(StorageUnavailable):
            await one.rotation.rotate()
        assert one.home.is_rotating
        assert one.box.previous_key_ids == (old_id,)


async def test_a_key_of_the_operators_is_replaced_by_two_settings(database_url: str, tmp_path: Path) -> None:
    async with life(database_url, tmp_path, secret_key=SECRET_KEY) as one:
        await fill(one.store)
        old_id = one.box.key_id
        with pytest.raises(Conflict, match="SECRET_KEY") as refused:
            await one.rotation.rotate()
        assert "SECRET_KEY_PREVIOUS" in (refused.value.hint or "")

    with pytest.raises(SecretUnreadable, match=f"written with key {old_id}.*SECRET_KEY_PREVIOUS"):
        async with life(database_url, tmp_path, secret_key=NEXT_KEY):
            pass

    async with life(database_url, tmp_path, secret_key=NEXT_KEY, secret_key_previous=SECRET_KEY) as two:
        await assert_whole(two.store)
        done = await two.rotation.rotate()
        assert (done.previous_key_id, done.boxes) == (old_id, 2)
    async with life(database_url, tmp_path, secret_key=NEXT_KEY) as three:
        await assert_whole(three.store)
    assert not (tmp_path / "secret-key").exists()


async def test_a_row_that_cannot_be_read_keeps_the_old_key(
    database_url: str, postgres_server: Postgres, tmp_path: Path
) -> None:
    async with life(database_url, tmp_path) as one:
        await fill(one.store)
        await one.store.put_secret("ada", "OTHER", "to be damaged", quota=5)
        database = database_url.split("/")[3].split("?")[0]
        postgres_server.sql(database, "UPDATE mcp_secrets SET name = 'MOVED' WHERE name = 'OTHER'")
        with pytest.raises(Conflict, match="changed outside Corral"):
            await one.rotation.rotate()
        assert one.home.is_rotating
        await assert_whole(one.store)
