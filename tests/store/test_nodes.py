"""Nodes, their leases, and who takes what, on a real Postgres and by its clock."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import attrs
import pytest
import trio

from controlplane.core.lifecycle import Desired, State
from controlplane.model import Node, Origin, SourceType
from controlplane.store.base import HolderChanged
from controlplane.store.values import Batch, observation
from tests.store.rows import instance, spec

if TYPE_CHECKING:
    from controlplane.model import Instance
    from controlplane.store.postgres import PostgresStore

LEASE_S = 6.0
A, B, C = (UUID(int=number) for number in (1, 2, 3))


def node(node_id: UUID) -> Node:
    return Node(id=node_id, url=f"http://10.0.0.{node_id.int}:8000", version="1.2.3")


async def up(store: PostgresStore, node_id: UUID) -> int:
    return (await store.take_lease(node(node_id), LEASE_S)).epoch


async def let_expire(store: PostgresStore, *nodes: UUID) -> None:
    async def work(connection: Any) -> None:
        past = "UPDATE mcp_nodes SET lease_until = clock_timestamp() - interval '1 ms' WHERE id = ANY($1::uuid[])"
        await connection.execute(past, list(nodes))

    await store._call(work, writes=True)


async def holders(store: PostgresStore) -> dict[str, UUID | None]:
    return {found.name: found.node_id for found in await store.instances()}


async def fleet(store: PostgresStore, holder: UUID | None, count: int, prefix: str = "i") -> list[Instance]:
    made = [instance(f"{prefix}{number:02}", node_id=holder, epoch=1) for number in range(count)]
    for one in made:
        await store.add_instance(one, quota=1000)
    return made


async def test_a_lease_is_taken_renewed_and_told_by_the_databases_clock(store: PostgresStore) -> None:
    taken = await store.take_lease(node(A), LEASE_S)

    at = await store.renew_lease(A, taken.epoch, "http://elsewhere:9000", LEASE_S)

    assert taken.epoch == 1
    assert at is not None
    assert timedelta(0) <= at - taken.at < timedelta(seconds=5)
    [known] = await store.nodes(LEASE_S)
    assert (known.id, known.url, known.version, known.is_live) == (A, "http://elsewhere:9000", "1.2.3", True)
    assert 0 <= known.lease_age_s < 5


async def test_a_later_life_of_a_node_ends_the_lease_of_the_one_before(store: PostgresStore) -> None:
    first = await up(store, A)
    second = await up(store, A)

    assert second > first
    assert await store.renew_lease(A, first, "http://a", LEASE_S) is None
    assert await store.renew_lease(A, second, "http://a", LEASE_S) is not None


async def test_an_expired_lease_is_renewed_as_long_as_nobody_took_anything(store: PostgresStore) -> None:
    epoch = await up(store, A)
    await let_expire(store, A)

    assert not (await store.nodes(LEASE_S))[0].is_live
    assert await store.renew_lease(A, epoch, "http://a", LEASE_S) is not None
    assert (await store.nodes(LEASE_S))[0].is_live


async def test_what_nobody_holds_is_taken_and_what_a_live_node_holds_is_not(store: PostgresStore) -> None:
    epoch = await up(store, A)
    await up(store, B)
    await fleet(store, None, 1, "free")
    await fleet(store, B, 1, "held")

    await store.claim(A, epoch, dead=[B], archives=[])

    assert await holders(store) == {"free00": A, "held00": B}


async def test_what_is_taken_gets_a_new_epoch_and_its_former_holder_loses_the_lease(store: PostgresStore) -> None:
    mine, theirs = await up(store, A), await up(store, B)
    [lost] = await fleet(store, B, 1)
    await let_expire(store, B)

    assert await store.claim(A, mine, dead=[B], archives=[]) == (lost.id,)

    [found] = await store.instances()
    assert (found.node_id, found.epoch) == (A, lost.epoch + 1)
    assert await store.renew_lease(B, theirs, "http://b", LEASE_S) is None


async def test_nothing_is_taken_by_a_node_whose_own_lease_does_not_stand(store: PostgresStore) -> None:
    stale = await up(store, A)
    current = await up(store, A)
    await fleet(store, None, 1)

    assert await store.claim(A, stale, dead=[], archives=[]) == ()
    await let_expire(store, A)
    assert await store.claim(A, current, dead=[], archives=[]) == ()
    assert await holders(store) == {"i00": None}


async def test_a_dead_node_that_is_not_named_keeps_what_it_held(store: PostgresStore) -> None:
    """The one who asks knows that it does not know enough yet: after a standstill all leases look expired."""
    epoch = await up(store, A)
    await up(store, B)
    await fleet(store, B, 1)
    await let_expire(store, B)

    assert await store.claim(A, epoch, dead=[], archives=[]) == ()


@pytest.mark.parametrize(
    ("held", "fair", "left"),
    [((0, 0, 6), 3, 3), ((4, 0, 6), 1, 3), ((0, 6, 4), 4, 4), ((0, 6, 6), 6, 6), ((8, 0, 1), 0, 1)],
    ids=str,
)
@pytest.mark.parametrize("is_left", [False, True])
async def test_a_round_takes_a_fair_share_of_what_is_free(
    store: PostgresStore, held: tuple[int, int, int], fair: int, left: int, is_left: bool
) -> None:
    mine, others, free = held
    epoch = await up(store, A)
    await up(store, B)
    await up(store, C)
    await fleet(store, A, mine, "a")
    await fleet(store, B, others, "b")
    await fleet(store, C, free, "c")
    await let_expire(store, C)

    taken = await store.claim(A, epoch, dead=[C], archives=[], is_left=is_left)
    assert len(taken) == (left if is_left else fair)


async def test_two_survivors_that_claim_at_once_share_a_dead_nodes_instances_evenly(store: PostgresStore) -> None:
    epochs = {A: await up(store, A), B: await up(store, B)}
    await up(store, C)
    await fleet(store, C, 20)
    await let_expire(store, C)

    async def survive(node_id: UUID) -> None:
        with trio.fail_after(30):
            while C in (await holders(store)).values():
                await store.claim(node_id, epochs[node_id], dead=[C], archives=[])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(survive, A)
        nursery.start_soon(survive, B)

    held = list((await holders(store)).values())
    assert sorted((held.count(A), held.count(B))) == [10, 10]
    assert {found.epoch for found in await store.instances()} == {2}, "each was taken once"


async def test_what_comes_from_an_upload_is_taken_only_by_a_node_that_has_it(store: PostgresStore) -> None:
    epoch = await up(store, A)
    origin = Origin(sha256="ab" * 32, size_bytes=1)
    uploaded = instance("uploaded", spec=spec(source_type=SourceType.ZIP, command=None, origin=origin))
    await store.add_instance(uploaded, quota=10)

    assert await store.claim(A, epoch, dead=[], archives=["bob/" + "ab" * 32]) == ()
    assert await store.claim(A, epoch, dead=[], archives=["ada/" + "ab" * 32]) == (uploaded.id,)


async def test_a_node_that_nobody_remembers_holds_nothing(store: PostgresStore) -> None:
    epoch = await up(store, A)
    [lost] = await fleet(store, uuid4(), 1)

    assert await store.claim(A, epoch, dead=[], archives=[]) == (lost.id,)


async def test_a_restart_keeps_what_is_the_nodes_own_under_a_new_epoch(store: PostgresStore) -> None:
    await up(store, A)
    await fleet(store, A, 1, "mine")
    await fleet(store, B, 1, "theirs")

    await up(store, A)

    assert {found.name: (found.node_id, found.epoch) for found in await store.instances()} == {
        "mine00": (A, 2),
        "theirs00": (B, 1),
    }


async def test_a_node_that_is_alone_has_everything(store: PostgresStore) -> None:
    await up(store, B)
    await fleet(store, B, 1, "theirs")
    await fleet(store, None, 1, "free")

    await store.take_lease(node(A), LEASE_S, is_alone=True)

    assert await holders(store) == {"theirs00": A, "free00": A}


async def test_a_release_lets_go_of_everything_at_once_and_only_of_ones_own_lease(store: PostgresStore) -> None:
    stale, epoch = await up(store, A), await up(store, A)
    await fleet(store, A, 1)

    await store.release(A, stale)
    assert await holders(store) == {"i00": A}
    await store.release(A, epoch)

    assert await holders(store) == {"i00": None}
    assert not (await store.nodes(LEASE_S))[0].is_live


async def test_what_a_former_holder_saw_is_not_written(store: PostgresStore) -> None:
    epoch = await up(store, A)
    await up(store, B)
    [before] = await fleet(store, B, 1)
    await let_expire(store, B)
    await store.claim(A, epoch, dead=[B], archives=[])
    [after] = await store.instances()

    await store.write(Batch(observations=(observation(attrs.evolve(before, state=State.FAILED), phase="late"),)))
    assert (await store.instances())[0].state is after.state

    await store.write(Batch(observations=(observation(attrs.evolve(after, state=State.RUNNING), phase=""),)))
    assert (await store.instances())[0].state is State.RUNNING


async def test_a_former_holders_commands_are_refused(store: PostgresStore) -> None:
    epoch = await up(store, A)
    await up(store, B)
    [before] = await fleet(store, B, 1)
    await let_expire(store, B)
    await store.claim(A, epoch, dead=[B], archives=[])

    with pytest.raises(HolderChanged):
        await store.set_desired(before.id, Desired.STOPPED, epoch=before.epoch)
    with pytest.raises(HolderChanged):
        await store.delete_instance(before.id, epoch=before.epoch)
    with pytest.raises(HolderChanged):
        await store.update_instance(before)
    with pytest.raises(HolderChanged):
        await store.add_revision(before)
    with pytest.raises(HolderChanged):
        await store.switch_revision(before)
    [after] = await store.instances()
    assert (after.desired, after.spec.revision) == (before.desired, before.spec.revision)
    await store.set_desired(after.id, Desired.STOPPED, epoch=after.epoch)


async def test_a_node_is_forgotten_when_it_is_long_dead_and_holds_nothing(store: PostgresStore) -> None:
    for node_id in (A, B, C):
        await up(store, node_id)
    await fleet(store, B, 1)
    await let_expire(store, A, B)

    await store.forget_nodes(3600)
    assert len(await store.nodes(LEASE_S)) == 3
    await store.forget_nodes(0)

    assert {known.id for known in await store.nodes(LEASE_S)} == {B, C}


async def test_a_claim_is_heard_of_by_whoever_listens(store: PostgresStore) -> None:
    epoch = await up(store, A)
    [free] = await fleet(store, None, 1)
    heard: list[str] = []
    with trio.fail_after(10):
        async with store.open_listen(lambda change: heard.append(change.key), lambda reason: None):
            while not heard:
                await trio.sleep(0.005)
            await store.claim(A, epoch, dead=[], archives=[])
            while str(free.id) not in heard:
                await trio.sleep(0.005)
