"""Hearing of changes: what is told, and what a lost connection leads to."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing
from attrs import define, field

from controlplane.core.lifecycle import Desired, State
from controlplane.store.listening import change_of
from controlplane.store.mailbox import MAILBOX_MAX, Mailbox
from controlplane.store.values import Batch, Change, Subject, observation
from tests.store.rows import instance, line, now, spec, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.store.postgres import PostgresStore
    from tests.services import Postgres

EVERYTHING = Change(Subject.EVERYTHING)
HEARD_S = 10.0
LOST_S = 15.0
"""A frozen server is noticed within 4 s."""


@define(eq=False)
class Heard:
    """What was told, in order."""

    news: list[Change | str] = field(factory=list)

    def on_change(self, change: Change) -> None:
        self.news.append(change)

    def on_lost(self, reason: str) -> None:
        self.news.append(reason)

    async def until(self, count: int, timeout_s: float = HEARD_S) -> list[Change | str]:
        """Wait for `count` news and take them."""
        with trio.fail_after(timeout_s):
            while len(self.news) < count:
                await trio.sleep(0.01)
        taken, self.news[:] = self.news[:], []
        return taken


@asynccontextmanager
async def listening(store: PostgresStore) -> AsyncIterator[Heard]:
    heard = Heard()
    async with store.open_listen(heard.on_change, heard.on_lost):
        assert await heard.until(1) == [EVERYTHING]
        yield heard


async def test_changes_of_users_tokens_and_instances_are_told_by_key(store: PostgresStore) -> None:
    made, card = instance(), token()
    async with listening(store) as heard:
        await store.add_token(card)
        assert await heard.until(1) == [Change(Subject.TOKENS, str(card.id))]
        await store.delete_token(card.id)
        assert await heard.until(1) == [Change(Subject.TOKENS, str(card.id))]
        await store.update_user("ada", disabled=True)
        assert await heard.until(1) == [Change(Subject.USERS, "ada")]
        told = [Change(Subject.INSTANCES, str(made.id))]
        await store.add_instance(made, quota=10)
        assert await heard.until(1) == told
        await store.set_desired(made.id, Desired.STOPPED)
        assert await heard.until(1) == told
        await store.update_instance(made, spec())
        assert await heard.until(1) == told
        await store.delete_instance(made.id)
        assert await heard.until(1) == told


async def test_what_the_journal_writes_and_the_use_of_tokens_are_not_told(store: PostgresStore) -> None:
    made, card = instance(), token()
    await store.add_instance(made, quota=10)
    await store.add_token(card)
    async with listening(store) as heard:
        seen = observation(attrs.evolve(made, state=State.RUNNING), phase="")
        await store.write(Batch(logs=(line(made.id),), observations=(seen,)))
        await store.touch_tokens({card.id: now()})
        await store.update_user("ada", disabled=False)  # is told, so all before it would have been
        assert await heard.until(1) == [Change(Subject.USERS, "ada")]


async def test_a_change_made_elsewhere_is_heard(
    store: PostgresStore, postgres_server: Postgres, database_url: str
) -> None:
    database = database_url.split("/")[3].split("?")[0]
    async with listening(store) as heard:
        postgres_server.sql(database, "INSERT INTO mcp_users (name, role) VALUES ('eve:colon', 'viewer')")
        assert await heard.until(1) == [Change(Subject.USERS, "eve:colon")]


async def test_a_lost_connection_is_told_and_after_it_everything(
    own_postgres: Postgres, own_store: PostgresStore
) -> None:
    async with listening(own_store) as heard:
        assert own_store.statistics().listening
        own_postgres.kill()
        (reason,) = await heard.until(1, LOST_S)
        assert isinstance(reason, str)
        assert not own_store.statistics().listening
        own_postgres.start()
        assert await heard.until(1, LOST_S) == [EVERYTHING]
        await own_store.update_user("ada", disabled=True)
        assert await heard.until(1) == [Change(Subject.USERS, "ada")]


async def test_a_backend_that_is_ended_is_noticed_at_once(own_postgres: Postgres, own_store: PostgresStore) -> None:
    async with listening(own_store) as heard:
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'corral'"
        own_postgres.sql("postgres", ends)
        lost, everything = await heard.until(2)
        assert isinstance(lost, str)
        assert everything == EVERYTHING


async def test_a_frozen_postgres_is_noticed_though_nothing_is_sent(
    own_postgres: Postgres, own_store: PostgresStore
) -> None:
    async with listening(own_store) as heard:
        own_postgres.freeze()
        (reason,) = await heard.until(1, LOST_S)
        assert isinstance(reason, str)
        await trio.sleep(0)
        own_postgres.thaw()
        assert await heard.until(1, LOST_S) == [EVERYTHING]


async def test_a_loss_is_told_once_however_long_it_lasts(own_postgres: Postgres, own_store: PostgresStore) -> None:
    own_postgres.kill()
    heard = Heard()
    async with own_store.open_listen(heard.on_change, heard.on_lost):
        (reason,) = await heard.until(1, LOST_S)
        assert "cannot be reached" in str(reason)
        await trio.testing.wait_all_tasks_blocked(0.5)
        assert heard.news == []
        own_postgres.start()
        assert await heard.until(1, LOST_S) == [EVERYTHING]


@pytest.mark.parametrize(
    ("payload", "change"),
    [
        ("users:ada", Change(Subject.USERS, "ada")),
        ("tokens:", Change(Subject.TOKENS, "")),
        ("users:a:b", Change(Subject.USERS, "a:b")),
        ("", EVERYTHING),
        ("users", EVERYTHING),
        ("cows:1", EVERYTHING),
    ],
)
def test_a_payload_that_makes_no_sense_means_everything(payload: str, change: Change) -> None:
    assert change_of(payload) == change


async def test_too_many_changes_collapse_into_everything() -> None:
    heard = Heard()
    mailbox = Mailbox(heard.on_change, heard.on_lost)
    for number in range(MAILBOX_MAX + 1):
        mailbox.changed(Change(Subject.USERS, str(number)))
    mailbox.changed(Change(Subject.USERS, "last"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.deliver)
        assert await heard.until(2) == [EVERYTHING, Change(Subject.USERS, "last")]
        nursery.cancel_scope.cancel()
