"""What owners may have and what they have used, on a real Postgres."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from controlplane.core.lifecycle import Desired
from controlplane.core.quotas import NO_OVERRIDES, Overrides
from controlplane.errors import QuotaExceeded
from controlplane.model import Limits, Role, UsageDay, User
from controlplane.store.journal import Journal
from controlplane.store.postgres import open_store
from controlplane.store.values import USAGE_DAYS_KEPT, Batch, Retention, Subject
from tests.store.rows import instance, spec

if TYPE_CHECKING:
    from controlplane.model import Instance
    from controlplane.secretbox import SecretBox
    from controlplane.store.postgres import PostgresStore
    from controlplane.store.values import Change
    from tests.services import Postgres

TODAY = datetime.now(UTC).date()
BOUND_S = 30.0


def sized(name: str, memory_mb: int, **changes: object) -> Instance:
    return instance(name, spec=spec(limits=Limits(memory_mb=memory_mb)), **{"desired": Desired.RUNNING, **changes})


def used(owner: str = "ada", day: date = TODAY, **changes: float) -> UsageDay:
    return UsageDay(**{"owner": owner, "day": day, "calls": 1, **changes})  # type: ignore[arg-type]


# -- what an administrator says for one user


async def test_a_users_quotas_are_set_one_by_one_and_taken_away(store: PostgresStore) -> None:
    await store.add_user(User(name="bob", role=Role.VIEWER, quotas=Overrides(instances=7)))
    assert [user.quotas for user in await store.users()] == [NO_OVERRIDES, Overrides(instances=7)]

    await store.update_user("bob", quotas={"calls_per_day": 0, "memory_mb": 512})
    changed = await store.update_user("bob", quotas={"memory_mb": None, "instance_memory_mb": 64})
    assert changed.quotas == Overrides(instances=7, calls_per_day=0, instance_memory_mb=64)
    assert (await store.update_user("bob", role=Role.CALLER)).quotas == changed.quotas
    assert (await store.users())[1].quotas == changed.quotas


async def test_a_change_of_quotas_is_heard_of(store: PostgresStore) -> None:
    heard: list[Change] = []
    async with store.open_listen(heard.append, lambda _: None):
        with trio.fail_after(BOUND_S):
            while not heard:
                await trio.sleep(0.01)
            await store.update_user("ada", quotas={"instances": 3})
            while (Subject.USERS, "ada") not in [(change.subject, change.key) for change in heard]:
                await trio.sleep(0.01)


# -- memory


async def test_instances_that_are_to_run_share_an_owners_memory(store: PostgresStore) -> None:
    first = sized("first", 600)
    await store.add_instance(first, quota=10, memory_mb=1000)
    with pytest.raises(QuotaExceeded) as caught:
        await store.add_instance(sized("second", 401), quota=10, memory_mb=1000)
    assert caught.value.evidence == {"quota": "memory_mb", "used": 600, "limit": 1000, "wanted": 401}
    await store.add_instance(sized("second", 400), quota=10, memory_mb=1000)

    await store.set_desired(first.id, Desired.STOPPED, memory_mb=1000)
    await store.add_instance(sized("third", 600), quota=10, memory_mb=1000)
    with pytest.raises(QuotaExceeded):
        await store.set_desired(first.id, Desired.RUNNING, memory_mb=1000)
    await store.set_desired(first.id, Desired.RUNNING)
    await store.set_desired(first.id, Desired.RUNNING, memory_mb=1000)  # it counts already
    assert {kept.name: kept.desired for kept in await store.instances()}["first"] is Desired.RUNNING


async def test_owners_do_not_share_memory(store: PostgresStore) -> None:
    await store.add_user(User(name="bob", role=Role.DEPLOYER))
    await store.add_instance(sized("one", 1000), quota=10, memory_mb=1000)
    await store.add_instance(sized("one", 1000, owner="bob"), quota=10, memory_mb=1000)
    assert len(await store.instances()) == 2


async def test_a_patch_and_a_revision_may_take_no_more_than_is_left(store: PostgresStore) -> None:
    one = sized("one", 500)
    await store.add_instance(one, quota=10)
    await store.add_instance(sized("other", 500), quota=10)
    larger = attrs.evolve(one.spec, limits=Limits(memory_mb=501))
    with pytest.raises(QuotaExceeded):
        await store.update_instance(one, larger, memory_mb=1000)
    with pytest.raises(QuotaExceeded):
        await store.add_revision(attrs.evolve(one, spec=larger), memory_mb=1000)
    await store.update_instance(attrs.evolve(one, labels={"a": "b"}), memory_mb=100)
    smaller = attrs.evolve(one.spec, limits=Limits(memory_mb=400))
    changed = await store.update_instance(one, smaller, memory_mb=100)  # the quota was lowered, and this is less
    number = await store.add_revision(attrs.evolve(changed, spec=one.spec), memory_mb=1000)

    # Somebody else took what was left while the new one came up.
    await store.add_instance(sized("third", 100), quota=10, memory_mb=1000)
    in_force = attrs.evolve(changed, spec=attrs.evolve(one.spec, revision=number))
    with pytest.raises(QuotaExceeded):
        await store.switch_revision(in_force, memory_mb=1000)
    kept = {each.name: each for each in await store.instances()}["one"]
    assert (kept.spec.revision, kept.spec.limits.memory_mb) == (changed.spec.revision, 400)


async def test_memory_holds_also_for_deploys_at_the_same_time(store: PostgresStore) -> None:
    outcomes: list[str] = []

    async def add(number: int) -> None:
        try:
            await store.add_instance(sized(f"s{number}", 100), quota=100, memory_mb=500)
        except QuotaExceeded as refused:
            outcomes.append(refused.evidence["quota"])
        else:
            outcomes.append("added")

    with trio.fail_after(BOUND_S):
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(add, number)
    assert sorted(outcomes) == ["added"] * 5 + ["memory_mb"] * 7


# -- use by day


async def test_what_several_have_seen_adds_up_by_owner_and_day(store: PostgresStore) -> None:
    yesterday = TODAY - timedelta(days=1)
    full = used(cpu_s=1.5, errors=1, bytes_in=10, bytes_out=20, peak_memory_mb=64.5)
    await store.write(Batch(usage=(full, used("bob"), used(day=yesterday))))
    await store.write(Batch(usage=(used(cpu_s=0.25, bytes_in=2**40, peak_memory_mb=32.0),)))

    total = used(cpu_s=1.75, calls=2, errors=1, bytes_in=2**40 + 10, bytes_out=20, peak_memory_mb=64.5)
    assert await store.usage_days(TODAY) == [total, used("bob")]
    assert await store.usage_days(yesterday, "ada") == [total, used(day=yesterday)]
    assert await store.usage_days(TODAY + timedelta(days=1)) == []


async def test_the_journal_writes_what_it_is_given_as_one_row_for_each_day(store: PostgresStore) -> None:
    journal = Journal(store)
    for _ in range(100):
        journal.usage(used(cpu_s=0.5))
    assert len(journal) == 1
    assert await journal.flush(BOUND_S)
    assert await store.usage_days(TODAY) == [used(calls=100, cpu_s=50.0)]


async def test_a_day_is_kept_for_its_time(store: PostgresStore) -> None:
    last, past = (TODAY - timedelta(days=days) for days in (USAGE_DAYS_KEPT, USAGE_DAYS_KEPT + 1))
    await store.write(Batch(usage=(used(day=last), used(day=past))))
    await store.retain(Retention())
    assert [row.day for row in await store.usage_days(past)] == [last]


async def test_an_outage_costs_no_count(own_postgres: Postgres, box: SecretBox) -> None:
    async with open_store(own_postgres.url("postgres"), box, wait_s=5) as store:
        journal = Journal(store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            journal.usage(used())
            assert await journal.flush(BOUND_S)
            own_postgres.kill()
            for _ in range(5):
                journal.usage(used())
                assert not await journal.flush(0.2)
            own_postgres.start()
            with trio.fail_after(BOUND_S):
                while not await journal.flush(1.0):
                    await trio.sleep(0.05)
            assert await store.usage_days(TODAY) == [used(calls=6)]
            nursery.cancel_scope.cancel()
