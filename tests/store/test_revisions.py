"""Revisions of an instance on a real Postgres: numbered, switched over to, rolled back, forgotten."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import uuid4

import attrs
import pytest
import trio

from controlplane.core.lifecycle import Desired, State
from controlplane.errors import CorralError, InvalidRequest, NotFound
from controlplane.model import Origin, Resolved, Role, SourceType, User
from controlplane.secretbox import SecretUnreadable
from controlplane.store.queries_revisions import REVISIONS_KEPT
from controlplane.store.values import Batch, observation
from tests.store.rows import FULL_SPEC, ago, evidence, instance, now, spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from controlplane.model import Instance, Spec
    from controlplane.store.postgres import PostgresStore
    from tests.services import Postgres

RESOLVED = Resolved(language="python", entry_point="server.py", facts={"commit": "c0ffee"})
UPLOAD = sha256(b"an archive").hexdigest()


@pytest.fixture
def sql(postgres_server: Postgres, database_url: str) -> Callable[[str], str]:
    """Runs SQL on the store's database, past the store."""
    database = database_url.split("/")[3].split("?")[0]
    return lambda text: postgres_server.sql(database, text).strip()


@pytest.fixture
async def made(store: PostgresStore) -> Instance:
    added = instance()
    await store.add_instance(added, quota=10)
    return added


def on_top(made: Instance, number: int = 1, **changes: object) -> Instance:
    """The instance with another Spec, under `number`."""
    return attrs.evolve(made, spec=spec(revision=number, **changes), updated_at=now())


def unsourced(of: Spec, number: int) -> Spec:
    """What a list of revisions shows of a Spec."""
    return attrs.evolve(of, revision=number, source=None)


async def numbers(store: PostgresStore, instance_id: UUID) -> list[int]:
    return [kept.spec.revision for kept in await store.revisions(instance_id)]


async def in_force(store: PostgresStore) -> Instance:
    (only,) = await store.instances()
    return only


# -- numbers


async def test_a_revision_is_added_beside_the_one_in_force(store: PostgresStore, made: Instance) -> None:
    candidate = on_top(made, cause="redeploy", env={"API_KEY": "another"})
    assert await store.add_revision(candidate) == 2

    assert await store.instances() == [made]
    newest, first = await store.revisions(made.id)
    assert (newest.spec, first.spec) == (attrs.evolve(candidate.spec, revision=2), made.spec)
    assert (newest.ran_at, newest.failure) == (None, None)
    assert first.created_at <= newest.created_at <= now()


async def test_ten_revisions_added_at_once_get_ten_numbers(store: PostgresStore, made: Instance) -> None:
    given: list[int] = []

    async def add(number: int) -> None:
        given.append(await store.add_revision(on_top(made, entry_point=f"{number}.py")))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(add, number)

    assert sorted(given) == list(range(2, 12))
    assert len(await store.revisions(made.id)) == REVISIONS_KEPT


async def test_a_patch_does_not_take_the_row_of_a_failed_candidate(store: PostgresStore, made: Instance) -> None:
    """It would be written nowhere, and the candidate that failed would run at the next start."""
    candidate = on_top(made, cause="redeploy", entry_point="broken.py")
    await store.fail_revision(made.id, await store.add_revision(candidate), evidence())

    patch = spec(entry_point="patched.py", cause="patch")
    patched = await store.update_instance(made, patch)

    assert patched.spec == attrs.evolve(patch, revision=3)
    assert await store.instances() == [patched]
    third, second, _ = await store.revisions(made.id)
    assert (third.spec.entry_point, third.failure) == ("patched.py", None)
    assert (second.spec.entry_point, second.failure is not None) == ("broken.py", True)


async def test_what_cannot_be_kept_exactly_is_refused_and_uses_no_number(store: PostgresStore, made: Instance) -> None:
    wrong = ({"build_command": "a\x00"}, {"origin": Origin(ref="\udfff")}, {"dependencies": ("\x00",)})
    for changes in (*wrong, {"resolved": Resolved(language="go", facts={"\x00": ""})}):
        with pytest.raises(InvalidRequest, match="cannot be kept"):
            await store.add_revision(on_top(made, **changes))
    with pytest.raises(InvalidRequest, match="cannot be kept"):
        await store.set_resolved(made.id, 1, Resolved(language="go", entry_point="\udc80"))
    assert await store.add_revision(on_top(made)) == 2


# -- what is in force


async def test_a_switch_puts_the_added_revision_in_force(store: PostgresStore, made: Instance) -> None:
    await store.write(Batch(observations=(observation(attrs.evolve(made, ever_ran=True), phase=""),)))
    candidate = on_top(made, language="python", cause="redeploy")
    number = await store.add_revision(candidate)
    switched = attrs.evolve(candidate, spec=attrs.evolve(candidate.spec, revision=number), labels={"team": "red"})
    await store.switch_revision(switched)

    found = await in_force(store)
    assert found == attrs.evolve(switched, updated_at=found.updated_at)
    assert not found.ever_ran, "it is the earlier revision that ran"


async def test_a_switch_after_the_handshake_says_that_the_revision_ran(store: PostgresStore, made: Instance) -> None:
    number = await store.add_revision(on_top(made))
    await store.fail_revision(made.id, number, evidence(reason="too early"))
    at = now()
    await store.switch_revision(on_top(made, number), ran_at=at)

    newest = (await store.revisions(made.id))[0]
    assert ((await in_force(store)).ever_ran, newest.ran_at, newest.failure) == (True, at, None)


async def test_a_switch_back_to_what_ran_before_knows_that_it_ran(store: PostgresStore, made: Instance) -> None:
    await store.write(Batch(observations=(observation(attrs.evolve(made, ever_ran=True), phase=""),)))
    await store.switch_revision(on_top(made, await store.add_revision(on_top(made))))
    assert not (await in_force(store)).ever_ran

    await store.switch_revision(made)
    found = await in_force(store)
    assert (found.spec, found.ever_ran) == (made.spec, True)


async def test_a_switch_to_what_is_not_there_is_refused_and_changes_nothing(
    store: PostgresStore, made: Instance
) -> None:
    with pytest.raises(NotFound, match="no revision 7"):
        await store.switch_revision(attrs.evolve(on_top(made, 7), labels={"never": "written"}))
    assert await store.instances() == [made]


async def test_a_switch_knows_that_what_it_replaces_ran_before_the_journal_does(
    store: PostgresStore, made: Instance
) -> None:
    """The journal's next word is about the new revision: the earlier would look as if it had never run."""
    switched = on_top(made, await store.add_revision(on_top(made)))
    await store.switch_revision(switched, ran_at=now(), replaced_ran=1)
    await store.write(Batch(observations=(observation(attrs.evolve(switched, ever_ran=True), phase=""),)))

    second, first = await store.revisions(made.id)
    assert first.ran_at == switched.updated_at
    await store.switch_revision(on_top(made, await store.add_revision(on_top(made))), ran_at=now(), replaced_ran=2)
    await store.switch_revision(attrs.evolve(made, updated_at=now()), replaced_ran=3)
    assert (await store.revisions(made.id))[1:] == [second, first], "the first time is kept"


async def test_a_patch_knows_that_what_it_replaces_ran_before_the_journal_does(
    store: PostgresStore, made: Instance
) -> None:
    patched = await store.update_instance(attrs.evolve(made, ever_ran=True), spec())
    await store.update_instance(attrs.evolve(patched, ever_ran=False), spec())
    assert [kept.ran_at for kept in await store.revisions(made.id)] == [None, None, made.updated_at]


async def test_a_switch_writes_the_wish_and_what_the_build_found(store: PostgresStore, made: Instance) -> None:
    await store.set_desired(made.id, Desired.STOPPED)
    number = await store.add_revision(on_top(made, language=""))
    switched = on_top(made, number, language="", resolved=RESOLVED)
    await store.switch_revision(switched)

    assert await in_force(store) == attrs.evolve(switched, spec=attrs.evolve(switched.spec, language="python"))


async def test_a_switch_that_fails_half_way_leaves_nothing(
    store: PostgresStore, made: Instance, sql: Callable[[str], str]
) -> None:
    await store.set_desired(made.id, Desired.STOPPED)
    number = await store.add_revision(on_top(made))
    await store.fail_revision(made.id, number, evidence())
    before = await store.instances(), await store.revisions(made.id)
    sql(f"ALTER TABLE mcp_instances ADD CONSTRAINT never CHECK (revision <> {number})")

    with pytest.raises(CorralError):
        await store.switch_revision(on_top(made, number, resolved=RESOLVED), ran_at=now(), replaced_ran=1)
    assert (await store.instances(), await store.revisions(made.id)) == before


async def test_a_revision_in_force_has_not_failed_to_take_over(store: PostgresStore, made: Instance) -> None:
    """Whoever heard nothing of its switch says so; it stands all the same."""
    number = await store.add_revision(on_top(made))
    await store.switch_revision(on_top(made, number), ran_at=now())
    await store.fail_revision(made.id, number, evidence(code="storage_unavailable"))
    assert [kept.failure for kept in await store.revisions(made.id)] == [None, None]


async def test_a_revision_comes_back_whole_for_a_rollback_and_without_its_source_in_the_list(
    store: PostgresStore,
) -> None:
    added = instance(spec=attrs.evolve(FULL_SPEC, revision=1))
    await store.add_instance(added, quota=10)
    failure = evidence(code="build_failed", exit_code=1)
    await store.switch_revision(on_top(added, await store.add_revision(on_top(added))))
    await store.fail_revision(added.id, 1, failure)

    whole = await store.revision(added.id, 1)
    assert (whole.spec, whole.failure) == (added.spec, failure)
    assert (await store.revisions(added.id))[1] == attrs.evolve(whole, spec=unsourced(added.spec, 1))
    for instance_id, number in ((added.id, 9), (uuid4(), 1)):
        with pytest.raises(NotFound, match="no revision"):
            await store.revision(instance_id, number)


# -- what became of it


async def test_what_the_first_build_found_is_kept_and_names_the_language(
    store: PostgresStore, sql: Callable[[str], str]
) -> None:
    added = instance(spec=spec(source_type=SourceType.GIT, language="", command=None, origin=Origin(url="https://x")))
    await store.add_instance(added, quota=10)
    assert (await in_force(store)).spec == added.spec

    await store.set_resolved(added.id, 1, RESOLVED)
    assert (await in_force(store)).spec == attrs.evolve(added.spec, language="python", resolved=RESOLVED)
    assert sql("SELECT language FROM mcp_instances") == "python"


async def test_what_a_candidates_build_found_is_no_word_about_the_one_in_force(
    store: PostgresStore, made: Instance, sql: Callable[[str], str]
) -> None:
    number = await store.add_revision(on_top(made, language=""))
    await store.set_resolved(made.id, number, RESOLVED)
    assert sql("SELECT language FROM mcp_instances") == "node"

    await store.switch_revision(on_top(made, number))
    assert sql("SELECT language FROM mcp_instances") == "python"


async def test_a_language_that_was_asked_for_stays_as_it_was_asked_for(store: PostgresStore, made: Instance) -> None:
    await store.set_resolved(made.id, 1, RESOLVED)
    assert (await in_force(store)).spec == attrs.evolve(made.spec, resolved=RESOLVED)


async def test_the_first_time_that_a_revision_ran_is_kept(store: PostgresStore, made: Instance) -> None:
    async def see(at: object, *, number: int = 1, ever_ran: bool = True) -> None:
        seen = attrs.evolve(on_top(made, number), updated_at=at, ever_ran=ever_ran, state=State.RUNNING)
        await store.write(Batch(observations=(observation(seen, phase=""),)))

    async def ran_at() -> list[object]:
        return [kept.ran_at for kept in await store.revisions(made.id)]

    first = ago(minutes=3)
    await see(ago(minutes=4), ever_ran=False)
    assert await ran_at() == [None]
    await see(first)
    await see(ago(minutes=2))
    assert await ran_at() == [first]

    await store.add_revision(on_top(made))
    await see(ago(minutes=1))
    assert await ran_at() == [None, first]
    second = now()
    await see(second, number=2)
    assert await ran_at() == [second, first]


async def test_members_that_a_later_version_wrote_are_ignored(store: PostgresStore, sql: Callable[[str], str]) -> None:
    added = instance(spec=attrs.evolve(FULL_SPEC, revision=1))
    await store.add_instance(added, quota=10)
    await store.fail_revision(added.id, await store.add_revision(added), evidence())
    before = await store.revision(added.id, 2)
    later = """'{"later": {"a": [1]}}'"""
    sql(
        f"UPDATE mcp_specs SET origin = origin || {later}, resolved = resolved || {later}, failure = failure || {later}"
    )

    assert await store.revision(added.id, 2) == before
    assert (await in_force(store)).spec == added.spec


# -- what is kept


async def test_only_the_latest_are_kept(store: PostgresStore, made: Instance, sql: Callable[[str], str]) -> None:
    for number in range(2, 14):
        assert (await store.update_instance(made, spec(source=b"x"))).spec.revision == number

    assert await numbers(store, made.id) == list(range(13, 13 - REVISIONS_KEPT, -1))
    assert sql("SELECT count(*), min(revision) FROM mcp_specs") == "10|4"


async def test_failed_candidates_push_out_neither_what_runs_nor_the_way_back(
    store: PostgresStore, made: Instance
) -> None:
    await store.write(Batch(observations=(observation(attrs.evolve(made, ever_ran=True), phase=""),)))
    await store.switch_revision(on_top(made, await store.add_revision(on_top(made))), ran_at=now())
    for _ in range(3 * REVISIONS_KEPT):
        await store.fail_revision(made.id, await store.add_revision(on_top(made)), evidence())

    kept = await numbers(store, made.id)
    assert len(kept) == REVISIONS_KEPT
    assert kept == [*range(32, 24, -1), 2, 1]
    assert (await in_force(store)).spec.revision == 2


async def test_uploads_in_use_are_those_of_kept_revisions_of_living_instances(
    store: PostgresStore, made: Instance
) -> None:
    await store.add_user(User(name="bob", role=Role.DEPLOYER))
    assert await store.sources_in_use() == set()
    archive = spec(source_type=SourceType.ZIP, command=None, origin=Origin(sha256=UPLOAD, size_bytes=10))
    linked = spec(source_type=SourceType.GIT, command=None, origin=Origin(url="https://example.com/x"))
    theirs = instance("theirs", owner="bob", spec=archive)
    await store.add_instance(theirs, quota=10)
    await store.add_instance(instance("linked", spec=linked), quota=10)
    await store.add_revision(attrs.evolve(made, spec=archive))
    await store.add_revision(attrs.evolve(made, spec=archive))
    assert await store.sources_in_use() == {("ada", UPLOAD), ("bob", UPLOAD)}

    await store.delete_instance(theirs.id)
    assert await store.sources_in_use() == {("ada", UPLOAD)}
    for _ in range(REVISIONS_KEPT):
        await store.add_revision(on_top(made))
    assert await store.sources_in_use() == set()


# -- deleted meanwhile


async def test_of_an_instance_that_was_deleted_meanwhile_nothing_is_written(
    store: PostgresStore, made: Instance, sql: Callable[[str], str]
) -> None:
    await store.add_revision(on_top(made))
    await store.delete_instance(made.id)

    await store.set_resolved(made.id, 1, RESOLVED)
    await store.fail_revision(made.id, 2, evidence())
    for change in (
        store.add_revision(made),
        store.switch_revision(on_top(made, 2)),
        store.update_instance(made, spec()),
    ):
        with pytest.raises(NotFound, match="was deleted"):
            await change

    assert await store.revisions(made.id) == []
    assert sql("SELECT count(*) FROM mcp_specs") == "0"
    assert sql("SELECT language, revision FROM mcp_instances") == "node|1"


async def test_a_delete_among_new_revisions_leaves_no_secret(
    store: PostgresStore, made: Instance, sql: Callable[[str], str]
) -> None:
    async def add() -> None:
        with suppress(NotFound):
            await store.add_revision(on_top(made))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(add)
                if number == 3:
                    nursery.start_soon(store.set_desired, made.id, Desired.DELETED)

    assert sql("SELECT count(*) FROM mcp_specs") == "0"


# -- secrets


async def test_an_environment_moved_to_another_revision_does_not_open(
    store: PostgresStore, made: Instance, sql: Callable[[str], str]
) -> None:
    await store.add_revision(on_top(made, env={"API_KEY": "of the second"}))
    sql("UPDATE mcp_specs SET env = (SELECT env FROM mcp_specs WHERE revision = 2) WHERE revision = 1")

    for look in (store.instances(), store.revisions(made.id), store.revision(made.id, 1)):
        with pytest.raises(SecretUnreadable, match="changed outside Corral"):
            await look
    assert (await store.revision(made.id, 2)).spec.env == {"API_KEY": "of the second"}
