"""Users, tokens and idempotency keys, on a real Postgres."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import attrs
import pytest
import trio

from controlplane.errors import Conflict, NotFound, QuotaExceeded
from controlplane.model import Role, UsageDay, User
from controlplane.store.filters import FleetEventFilter
from controlplane.store.values import IDEMPOTENCY_VALID_S, Batch, EventRow, Idempotency
from tests.store.rows import ADA, ago, instance, now, token

if TYPE_CHECKING:
    from controlplane.store.postgres import PostgresStore


async def test_a_user_comes_back_with_role_and_time(store: PostgresStore) -> None:
    await store.add_user(User(name="bob", role=Role.VIEWER, disabled=True, created_at=ago(days=3)))

    ada, bob = await store.users()
    assert (ada.name, ada.role, ada.disabled) == ("ada", Role.ADMIN, False)
    assert ada.created_at is not None
    assert (bob.name, bob.role, bob.disabled) == ("bob", Role.VIEWER, True)
    assert bob.created_at is not None
    assert bob.created_at < ada.created_at


async def test_a_second_user_of_a_name_is_a_conflict(store: PostgresStore) -> None:
    with pytest.raises(Conflict, match="a user of this name"):
        await store.add_user(ADA)


async def test_role_and_disabled_change_apart_from_each_other(store: PostgresStore) -> None:
    assert (await store.update_user("ada", role=Role.CALLER)).role is Role.CALLER
    changed = await store.update_user("ada", disabled=True)

    assert (changed.role, changed.disabled) == (Role.CALLER, True)
    assert await store.users() == [changed]


async def test_changing_an_unknown_user_is_not_found(store: PostgresStore) -> None:
    with pytest.raises(NotFound):
        await store.update_user("nobody", disabled=True)


async def test_a_token_comes_back_as_it_was_added(store: PostgresStore) -> None:
    first = token("ci", expires_at=now() + timedelta(days=1))
    second = token("laptop", created_at=first.created_at + timedelta(seconds=1))
    await store.add_token(second)
    await store.add_token(first)

    assert await store.tokens() == [first, second]


async def test_a_token_of_an_unknown_user_is_not_found(store: PostgresStore) -> None:
    with pytest.raises(NotFound, match="no such user"):
        await store.add_token(token(owner="nobody"))


async def test_the_same_digest_twice_is_a_conflict(store: PostgresStore) -> None:
    first = token()
    await store.add_token(first)
    with pytest.raises(Conflict):
        await store.add_token(attrs.evolve(first, id=uuid4()))


async def test_the_quota_of_tokens_holds_for_each_owner_also_at_the_same_time(store: PostgresStore) -> None:
    await store.add_user(User(name="bob", role=Role.VIEWER))
    outcomes: list[str] = []

    async def add(name: str) -> None:
        try:
            await store.add_token(token(name), quota=3)
        except QuotaExceeded as refused:
            outcomes.append(refused.evidence["quota"])

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(add, f"t{number}")

    assert outcomes == ["tokens"] * 5
    assert len(await store.tokens()) == 3
    await store.add_token(token("bobs", owner="bob"), quota=3)
    await store.add_token(token("the administrator's at a start"))


async def test_expired_tokens_make_room_once_the_quota_is_reached(store: PostgresStore) -> None:
    expired, lives = token("expired", expires_at=ago(minutes=1)), token("lives", expires_at=now() + timedelta(days=1))
    await store.add_token(expired)
    await store.add_token(lives)
    third, fourth = token("third"), token("fourth")

    await store.add_token(third, quota=3)
    assert {kept.id for kept in await store.tokens()} == {expired.id, lives.id, third.id}
    await store.add_token(fourth, quota=3)
    assert {kept.id for kept in await store.tokens()} == {lives.id, third.id, fourth.id}
    with pytest.raises(QuotaExceeded):
        await store.add_token(token("fifth"), quota=3)


async def test_a_deleted_token_is_given_back_once(store: PostgresStore) -> None:
    kept, deleted = token("kept"), token("deleted")
    await store.add_token(kept)
    await store.add_token(deleted)

    assert await store.delete_token(deleted.id) == deleted
    assert await store.delete_token(deleted.id) is None
    assert await store.tokens() == [kept]


async def test_last_use_of_tokens_only_moves_forward(store: PostgresStore) -> None:
    one, other = token("one"), token("other")
    await store.add_token(one)
    await store.add_token(other)
    late, early = now(), ago(minutes=5)

    await store.touch_tokens({one.id: late, uuid4(): late})
    await store.touch_tokens({one.id: early})
    await store.touch_tokens({})

    used = {kept.id: kept.last_used_at for kept in await store.tokens()}
    assert used == {one.id: late, other.id: None}


def _key(instance_id: object, **changes: object) -> Idempotency:
    base = Idempotency(
        owner="ada",
        key="deploy-1",
        body_digest=b"\x01" * 32,
        instance_id=instance_id,  # type: ignore[arg-type]
        created_at=now(),
    )
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


async def test_an_idempotency_key_answers_for_a_day_and_for_its_owner_only(store: PostgresStore) -> None:
    made = instance()
    record = _key(made.id)
    await store.add_instance(made, quota=10, idempotency=record)

    assert await store.idempotent("ada", "deploy-1") == record
    assert await store.idempotent("bob", "deploy-1") is None
    assert await store.idempotent("ada", "deploy-2") is None


async def test_an_expired_key_may_be_used_again(store: PostgresStore) -> None:
    old, new = instance("old"), instance("new")
    await store.add_instance(old, quota=10, idempotency=_key(old.id, created_at=ago(seconds=IDEMPOTENCY_VALID_S + 5)))
    assert await store.idempotent("ada", "deploy-1") is None

    record = _key(new.id)
    await store.add_instance(new, quota=10, idempotency=record)
    assert await store.idempotent("ada", "deploy-1") == record


async def test_a_token_for_single_instances_comes_back_with_them(store: PostgresStore) -> None:
    limited = token("agent", instances=frozenset({uuid4(), uuid4()}))
    await store.add_token(limited)

    assert await store.tokens() == [limited]
    assert await store.delete_token(limited.id) == limited


async def test_a_user_is_removed_with_all_that_is_his_but_not_with_instances(store: PostgresStore) -> None:
    mine, other = instance("memory"), instance("files")
    for made in (mine, other):
        await store.add_instance(made, quota=10)
    await store.add_token(token("ci"))
    await store.put_secret("ada", "KEY", "value", quota=5)
    with pytest.raises(Conflict) as refused:
        await store.remove_user("ada")
    assert refused.value.evidence == {"instances": 2}
    await store.delete_instance(mine.id)
    with pytest.raises(Conflict, match=r"ada has 1 instance$"):
        await store.remove_user("ada")
    assert len(await store.tokens()) == 1

    await store.delete_instance(other.id)
    assert (await store.remove_user("ada")).name == "ada"
    assert (await store.users(), await store.tokens(), await store.secrets("ada")) == ([], [], [])
    assert await store.instance_of_deleted(mine.id) is None
    with pytest.raises(NotFound):
        await store.remove_user("ada")


async def test_whoever_gets_a_removed_users_name_inherits_no_history(store: PostgresStore) -> None:
    event = EventRow(at=now(), type="deployed", instance_id=None, owner="ada", data="{}")
    used = UsageDay(owner="ada", day=now().date(), calls=3)
    await store.write(Batch(events=(event,), usage=(used,)))
    assert (await store.fleet_events(FleetEventFilter(owner="ada"))).rows
    await store.remove_user("ada")
    await store.add_user(ADA)

    assert (await store.fleet_events(FleetEventFilter(owner="ada"))).rows == ()
    assert await store.usage_days(now().date(), "ada") == []


async def test_events_of_single_instances_alone_can_be_asked_for(store: PostgresStore) -> None:
    one, other = uuid4(), uuid4()
    rows = [
        EventRow(at=now(), type="status", instance_id=which, owner="ada", data="{}") for which in (one, other, None)
    ]
    await store.write(Batch(events=tuple(rows)))

    async def found(*ids: UUID) -> list[UUID | None]:
        page = await store.fleet_events(FleetEventFilter(owner="ada", instances=ids))
        return [row.event.instance_id for row in page.rows]

    assert await found(one) == [one]
    assert await found(uuid4()) == []
    assert await found() == []
