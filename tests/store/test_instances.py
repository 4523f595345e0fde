"""Instances and their specs, on a real Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import attrs
import pytest
import trio

from controlplane.core.lifecycle import Desired, State
from controlplane.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from controlplane.model import Command, Instance, Role, SourceType, Spec, User
from controlplane.secretbox import SecretBox, SecretUnreadable
from controlplane.store.base import IdempotencyKeyUsed
from controlplane.store.filters import LogFilter
from controlplane.store.pool import SLOTS
from controlplane.store.postgres import PostgresStore, open_store
from controlplane.store.values import Batch, Idempotency, observation
from tests.store.rows import FULL_SPEC, evidence, instance, line, now, spec

if TYPE_CHECKING:
    from tests.services import Postgres


def full_instance() -> Instance:
    return instance(
        "everything",
        spec=FULL_SPEC,
        labels={"team": "blue", "ü": "✓"},
        desired=Desired.STOPPED,
        state=State.BACKOFF,
        uid=60_001,
        ever_ran=True,
        restarts=3,
        incarnation=4,
        last_error=evidence(exit_code=3, signal="SIGKILL", peak_memory_mb=1.5, last_frames=("{}",), hint="try again"),
        node_id=uuid4(),
        epoch=5,
    )


def test_the_fullest_instance_differs_from_the_defaults_in_every_field() -> None:
    """Guards the test below: a field that is added to the nouns must be kept by the store."""
    plain = Spec(source_type=SourceType.GIT, language="")
    assert [a.name for a in attrs.fields(Spec) if getattr(plain, a.name) == getattr(FULL_SPEC, a.name)] == []
    full, bare = full_instance(), instance("bare")
    assert [a.name for a in attrs.fields(Instance) if getattr(full, a.name) == getattr(bare, a.name)] == ["owner"]


async def test_an_instance_comes_back_with_every_field(store: PostgresStore) -> None:
    added = full_instance()
    await store.add_instance(added, quota=10)
    assert await store.instances() == [added]


async def test_instances_come_oldest_first_and_of_all_owners(store: PostgresStore) -> None:
    await store.add_user(User(name="bob", role=Role.DEPLOYER))
    first, second, third = instance("a"), instance("b", owner="bob"), instance("c")
    for added in (third, first, second):
        await store.add_instance(added, quota=10)
    assert [found.name for found in await store.instances()] == ["a", "b", "c"]


async def test_a_taken_name_is_a_conflict_until_its_holder_is_deleted(store: PostgresStore) -> None:
    await store.add_user(User(name="bob", role=Role.DEPLOYER))
    holder = instance("memory")
    await store.add_instance(holder, quota=10)
    await store.add_instance(instance("memory", owner="bob"), quota=10)

    with pytest.raises(Conflict, match="'memory'"):
        await store.add_instance(instance("memory"), quota=10)
    await store.delete_instance(holder.id)
    await store.add_instance(instance("memory"), quota=10)


async def test_an_instance_of_an_unknown_owner_is_not_found(store: PostgresStore) -> None:
    with pytest.raises(NotFound, match="no such user"):
        await store.add_instance(instance(owner="nobody"), quota=10)


async def test_thirty_parallel_deploys_at_a_quota_of_ten_make_exactly_ten(store: PostgresStore) -> None:
    outcomes: list[str] = []
    turns = trio.CapacityLimiter(SLOTS)  # more would wait before the store, for as long as its bound lets them

    async def deploy(number: int) -> None:
        try:
            async with turns:
                await store.add_instance(instance(f"i{number}"), quota=10)
        except QuotaExceeded as error:
            outcomes.append(
                f"refused at {error.evidence['used']} of {error.evidence['limit']} {error.evidence['quota']}"
            )
        else:
            outcomes.append("made")

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(deploy, number)

    assert sorted(outcomes) == ["made"] * 10 + ["refused at 10 of 10 instances"] * 20
    assert len(await store.instances()) == 10


async def test_a_deleted_instance_frees_its_place_in_the_quota(store: PostgresStore) -> None:
    first = instance("first")
    await store.add_instance(first, quota=1)
    with pytest.raises(QuotaExceeded):
        await store.add_instance(instance("second"), quota=1)
    await store.delete_instance(first.id)
    await store.add_instance(instance("second"), quota=1)


async def test_parallel_deploys_with_one_idempotency_key_make_one_instance(store: PostgresStore) -> None:
    firsts = []

    async def deploy(number: int) -> None:
        made = instance(f"i{number}")
        record = Idempotency(owner="ada", key="k", body_digest=b"d" * 32, instance_id=made.id, created_at=now())
        try:
            await store.add_instance(made, quota=10, idempotency=record)
        except IdempotencyKeyUsed as used:
            firsts.append(used.first.instance_id)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(deploy, number)

    (only,) = await store.instances()
    assert firsts == [only.id] * 5


async def test_a_refused_deploy_leaves_its_idempotency_key_free(store: PostgresStore) -> None:
    made = instance()
    record = Idempotency(owner="ada", key="k", body_digest=b"d" * 32, instance_id=made.id, created_at=now())
    with pytest.raises(QuotaExceeded):
        await store.add_instance(made, quota=0, idempotency=record)
    assert await store.idempotent("ada", "k") is None


async def test_a_new_revision_is_kept_beside_the_earlier_one(
    store: PostgresStore, postgres_server: Postgres, database_url: str
) -> None:
    first = instance()
    await store.add_instance(first, quota=10)
    patch = spec(language="python", env={"API_KEY": "another"}, cause="patch")
    changed = await store.update_instance(attrs.evolve(first, labels={"team": "red"}, updated_at=now()), patch)

    assert changed.spec == attrs.evolve(patch, revision=2)
    assert await store.instances() == [changed]
    database = database_url.split("/")[3].split("?")[0]
    assert postgres_server.sql(database, "SELECT revision FROM mcp_specs ORDER BY 1").split() == ["1", "2"]


async def test_a_change_of_labels_writes_no_revision(store: PostgresStore) -> None:
    first = instance()
    await store.add_instance(first, quota=10)
    changed = attrs.evolve(first, labels={"team": "red"}, updated_at=now())
    assert await store.update_instance(changed) == changed
    assert await store.instances() == [changed]


async def test_the_wish_is_kept_and_a_deleted_instance_has_none(store: PostgresStore) -> None:
    made = instance()
    await store.add_instance(made, quota=10)
    await store.set_desired(made.id, Desired.STOPPED)
    (found,) = await store.instances()
    assert found.desired is Desired.STOPPED

    await store.set_desired(made.id, Desired.DELETED)
    assert await store.instances() == []
    for change in (store.set_desired(made.id, Desired.RUNNING), store.update_instance(made)):
        with pytest.raises(NotFound):
            await change


async def test_a_deleted_instance_keeps_its_logs_and_loses_its_secrets(
    store: PostgresStore, postgres_server: Postgres, database_url: str
) -> None:
    made = instance()
    await store.add_instance(made, quota=10)
    await store.write(Batch(logs=(line(made.id),)))
    assert await store.instance_of_deleted(made.id) is None

    await store.delete_instance(made.id)
    await store.delete_instance(made.id)

    assert await store.instance_of_deleted(made.id) == ("ada", "memory")
    assert await store.instance_of_deleted(uuid4()) is None
    assert len((await store.logs(made.id, LogFilter())).rows) == 1
    database = database_url.split("/")[3].split("?")[0]
    assert postgres_server.sql(database, "SELECT count(*) FROM mcp_specs").strip() == "0"


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"a": "\x00"}},
        {"labels": {"\ud800": "a"}},
        {"spec": spec(command=Command(command="npx", args=("\x00",)))},
        {"spec": spec(command=Command(command="npx\udfff"))},
        {"spec": spec(entry_point="a\x00b")},
    ],
)
async def test_what_must_come_back_exactly_is_refused_where_postgres_cannot_hold_it(
    store: PostgresStore, changes: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest, match="cannot be kept"):
        await store.add_instance(instance(**changes), quota=10)
    assert await store.instances() == []


async def test_an_observation_changes_what_was_seen_and_nothing_else(store: PostgresStore) -> None:
    made = instance()
    await store.add_instance(made, quota=10)
    await store.set_desired(made.id, Desired.STOPPED)
    seen = attrs.evolve(
        made,
        state=State.FAILED,
        restarts=5,
        incarnation=6,
        ever_ran=True,
        uid=60_002,
        last_error=evidence(reason="nul \x00"),
        updated_at=now(),
        spec=spec(env={}),
        labels={"never": "written"},
    )
    await store.write(Batch(observations=(observation(seen, phase="handshake"),)))

    (found,) = await store.instances()
    expected = attrs.evolve(
        seen,
        desired=Desired.STOPPED,
        spec=made.spec,
        labels={},
        last_error=found.last_error,
        updated_at=found.updated_at,
    )
    assert found == expected
    assert found.last_error is not None
    assert found.last_error.reason == "nul \\x00"


async def test_an_observation_of_an_earlier_revision_does_not_vouch_for_the_new_one(store: PostgresStore) -> None:
    made = instance()
    await store.add_instance(made, quota=10)
    late = observation(attrs.evolve(made, ever_ran=True, state=State.RUNNING), phase="")
    await store.update_instance(made, spec())
    await store.write(Batch(observations=(late,)))

    (found,) = await store.instances()
    assert (found.state, found.ever_ran) == (State.RUNNING, False)


async def test_a_very_large_post_mortem_loses_its_frames_and_keeps_its_reason(store: PostgresStore) -> None:
    big = evidence(stderr_tail=("x" * 5_000,) * 100, last_frames=("y" * 10_000,) * 20)
    made = instance(last_error=big)
    await store.add_instance(made, quota=10)

    (found,) = await store.instances()
    assert found.last_error is not None
    assert found.last_error.reason == big.reason
    assert found.last_error.last_frames == ()
    assert len(found.last_error.stderr_tail) == 20


async def test_no_secret_is_in_a_dump_of_the_database(
    store: PostgresStore, postgres_server: Postgres, database_url: str
) -> None:
    planted = "planted-secret"
    made = instance()
    assert planted in made.spec.env.values()
    await store.add_instance(made, quota=10)
    await store.update_instance(made, spec(env={"OTHER": planted}))

    dump = postgres_server.dump(database_url.split("/")[3].split("?")[0])
    assert "mcp_specs" in dump
    assert "server-memory" in dump, "the dump holds the rows"
    for form in (planted, planted.encode().hex(), "API_KEY", b"API_KEY".hex()):
        assert form not in dump


async def test_another_key_is_refused_by_name(store: PostgresStore, database_url: str, box: SecretBox) -> None:
    await store.add_instance(instance(spec=spec(env={})), quota=10)
    wrong = SecretBox("another secret key of thirty-two bytes")
    async with open_store(database_url, wrong, wait_s=5) as other:
        with pytest.raises(SecretUnreadable, match=f"key {box.key_id}.*in use is {wrong.key_id}"):
            await other.instances()


async def test_an_environment_moved_to_another_row_does_not_open(
    store: PostgresStore, postgres_server: Postgres, database_url: str
) -> None:
    one, other = instance("one"), instance("other")
    await store.add_instance(one, quota=10)
    await store.add_instance(other, quota=10)
    postgres_server.sql(
        database_url.split("/")[3].split("?")[0],
        f"UPDATE mcp_specs SET env = (SELECT env FROM mcp_specs WHERE instance_id = '{one.id}') "
        f"WHERE instance_id = '{other.id}'",
    )
    with pytest.raises(SecretUnreadable, match="changed outside Corral"):
        await store.instances()
