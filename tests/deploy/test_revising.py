"""New revisions of what is deployed, and back: what is written when, and what is refused."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from attrs import define, evolve, field

from controlplane.core.lifecycle import Desired, State
from controlplane.errors import (
    ArchiveRejected,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ShuttingDown,
    StorageUnavailable,
)
from controlplane.model import Evidence, Resolved
from controlplane.store.postgres import PostgresStore
from controlplane.supervise.succession import Succession
from controlplane.upkeep import Upkeep
from controlplane.web.auth import TokenTable
from controlplane.wire.convert import structure
from controlplane.wire.deploy import RedeployIn
from tests.deploy.farm import ADA, WAIT_S, Farm, open_farm
from tests.deploy.test_inbox import ZIP, encoded, pieces, zipped
from tests.services import database_url, postgres_server, redis_url, valkey_server

if TYPE_CHECKING:
    from controlplane.model import Instance, Spec
    from controlplane.supervise.runner import Runner

__all__ = ["database_url", "postgres_server", "redis_url", "valkey_server"]

NOW = datetime(2026, 11, 22, tzinfo=UTC)
FAILURE = Evidence(code="build_failed", reason="no such package", phase="build", at=NOW, exit_code=1)
FILE = base64.b64encode(b"print('moo')\n").decode()
OTHER = base64.b64encode(b"print('baa')\n").decode()
SWITCH = PostgresStore.switch_revision
SETTLES_S = 30.0
"""A hang guard."""


@define(eq=False)
class Serving:
    """Stands in for a runner whose process serves: a new revision waits until the test says what becomes of it."""

    runner: Runner
    successions: list[Succession] = field(factory=list)
    refuses: Exception | None = None

    def succeed(
        self, spec: Spec, *, commit: Callable[[Spec], Awaitable[None]], failed: Callable[[Evidence], Awaitable[None]]
    ) -> Succession:
        if self.refuses is not None:
            raise self.refuses
        self.runner.succession = Succession(spec, commit, failed)
        self.successions.append(self.runner.succession)
        return self.runner.succession

    async def comes_up(self, resolved: Resolved | None = None) -> None:
        succession = self.successions[-1]
        spec = evolve(succession.spec, resolved=resolved or succession.spec.resolved)
        await succession.commit(spec)
        self.runner.instance = evolve(self.runner.instance, spec=spec)
        succession.done.set()

    async def fails(self) -> None:
        succession = self.successions[-1]
        await succession.failed(FAILURE)
        succession.failure = FAILURE
        succession.done.set()


@pytest.fixture
async def farm(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Farm]:
    async for opened in open_farm(database_url, redis_url, tmp_path):
        yield opened


@pytest.fixture
async def serving(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> Serving:
    runner = await farm.deploy("cow", source_type="direct", source_data=FILE, language="python", labels={"a": "1"})
    with trio.fail_after(SETTLES_S):
        while runner.state is not State.PREPARING:  # where it stays: no test finds it on its way there
            await runner.orders.wait()
    serving = Serving(runner)
    monkeypatch.setattr(type(runner), "succeed", lambda _self, *args, **options: serving.succeed(*args, **options))
    return serving


async def ran(farm: Farm, runner: Runner) -> None:
    """Note that the revision in force has run."""
    await farm.store.switch_revision(runner.instance, ran_at=NOW)


async def test_a_new_revision_is_written_before_it_is_tried_and_in_force_after(farm: Farm, serving: Serving) -> None:
    runner = serving.runner

    succession = await farm.redeploy(runner, source_data=OTHER, labels={"b": "2"})

    assert (succession.revision, succession.spec.source, succession.spec.cause) == (2, b"print('baa')\n", "redeploy")
    assert (await farm.kept())["cow"].spec.revision == 1
    assert [revision.spec.revision for revision in await farm.store.revisions(runner.instance.id)] == [2, 1]

    found = Resolved(language="python", entry_point="server.py", facts={"lock": "ab"})
    await serving.comes_up(found)

    kept = (await farm.kept())["cow"]
    assert (kept.spec.revision, kept.spec.source, kept.spec.resolved) == (2, b"print('baa')\n", found)
    assert dict(kept.labels) == dict(runner.instance.labels) == {"b": "2"}


async def test_a_token_for_single_instances_gives_one_no_other_secrets_than_it_has(
    farm: Farm, serving: Serving
) -> None:
    for name in ("HELD", "OTHER"):
        await farm.store.put_secret("ada", name, "value", quota=5)
    limited = evolve(ADA, instances=frozenset({serving.runner.instance.id}))
    held, other = {"A": "${secret:HELD}"}, {"A": "${secret:HELD}", "B": "x${secret:OTHER}"}
    await farm.redeploy(serving.runner, environment_vars=held)
    await serving.comes_up()

    async def by_limited(**members: Any) -> Succession:
        return await farm.deployer.redeploy(limited, serving.runner, structure(members, RedeployIn))

    with pytest.raises(Forbidden, match="OTHER"):
        await by_limited(environment_vars=other)
    assert (await by_limited(environment_vars=held)).spec.env == held


async def test_a_token_for_single_instances_gives_one_no_secret_back_that_was_withdrawn(
    farm: Farm, serving: Serving
) -> None:
    """Nor by the way back: its next redeploy would read it."""
    for name in ("HELD", "WITHDRAWN"):
        await farm.store.put_secret("ada", name, "value", quota=5)
    limited = evolve(ADA, instances=frozenset({serving.runner.instance.id}))
    held = {"A": "${secret:HELD}"}
    for variables in (held | {"B": "${secret:WITHDRAWN}"}, held, held | {"C": "new"}):  # revisions 2, 3 and 4
        await farm.redeploy(serving.runner, environment_vars=variables)
        await serving.comes_up()

    with pytest.raises(Forbidden, match="WITHDRAWN"):
        await farm.deployer.rollback(limited, serving.runner, 2)
    assert serving.runner.instance.spec.env == held | {"C": "new"}
    assert (await farm.deployer.rollback(limited, serving.runner, 3)).spec.env == held
    await serving.comes_up()
    assert "WITHDRAWN" in str((await farm.rollback(serving.runner, 2)).spec.env)


async def test_labels_that_are_not_named_stay(farm: Farm, serving: Serving) -> None:
    await farm.redeploy(serving.runner)
    await serving.comes_up()

    assert dict((await farm.kept())["cow"].labels) == {"a": "1"}


async def test_a_revision_that_fails_is_remembered_and_changes_nothing(farm: Farm, serving: Serving) -> None:
    await farm.redeploy(serving.runner, source_data=OTHER)
    await serving.fails()

    failed, first = await farm.store.revisions(serving.runner.instance.id)
    assert (failed.spec.revision, failed.failure, first.failure) == (2, FAILURE, None)
    assert (await farm.kept())["cow"].spec.revision == 1


async def test_one_revision_at_a_time(farm: Farm, serving: Serving) -> None:
    await farm.redeploy(serving.runner)

    for attempt in (farm.redeploy(serving.runner), farm.rollback(serving.runner, 1)):
        with pytest.raises(Conflict, match="revision 2 is on its way"):
            await attempt
    with pytest.raises(Conflict, match="revision 2 is on its way"):
        await farm.patch(serving.runner, limits={"memory_mb": 64})
    assert len(await farm.store.revisions(serving.runner.instance.id)) == 2

    await farm.patch(serving.runner, labels={"b": "2"})
    await serving.comes_up()
    assert dict((await farm.kept())["cow"].labels) == {"b": "2"}, "a label that was changed meanwhile stays"


async def test_redeploys_at_the_same_time_are_one_and_conflicts(farm: Farm, serving: Serving) -> None:
    outcomes: list[object] = []

    async def one() -> None:
        try:
            outcomes.append(await farm.redeploy(serving.runner))
        except Conflict as conflict:
            outcomes.append(conflict)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)

    assert sum(isinstance(outcome, Succession) for outcome in outcomes) == 1
    assert len(await farm.store.revisions(serving.runner.instance.id)) == 2


async def test_a_revision_that_nobody_takes_is_not_left_pending(farm: Farm, serving: Serving) -> None:
    serving.refuses = ShuttingDown("the control plane is stopping")

    with pytest.raises(ShuttingDown):
        await farm.redeploy(serving.runner)

    newest = (await farm.store.revisions(serving.runner.instance.id))[0]
    assert newest.failure is not None
    assert newest.failure.code == "shutting_down"


async def test_a_wrong_redeploy_leaves_no_revision(farm: Farm, serving: Serving) -> None:
    with pytest.raises(InvalidRequest):
        await farm.redeploy(serving.runner, source_data="!")
    with pytest.raises(InvalidRequest):
        await farm.redeploy(serving.runner, source_type="mcp_config", mcp_config={"command": "x", "cwd": "/no/such"})
    with pytest.raises(ArchiveRejected):
        await farm.redeploy(serving.runner, source_type="zip", source_data=encoded(b"no archive"))

    assert len(await farm.store.revisions(serving.runner.instance.id)) == 1
    assert farm.files == []


async def test_a_new_archive_is_kept_beside_the_one_before(farm: Farm, serving: Serving) -> None:
    await farm.redeploy(serving.runner, source_type="zip", source_data=encoded(ZIP))
    await serving.comes_up()
    other = zipped(**{"other.py": "x"})
    async with farm.deployer.inbox.visit("ada") as visit:
        succession = await farm.redeploy(serving.runner, await visit.receive(pieces(other)))

    assert succession.spec.origin is not None
    assert succession.spec.origin.size_bytes == len(other)
    assert len(farm.files) == 2


async def test_the_same_archive_again_is_a_new_revision(farm: Farm, serving: Serving) -> None:
    await farm.redeploy(serving.runner, source_type="zip", source_data=encoded(ZIP))
    await serving.comes_up()

    assert (await farm.redeploy(serving.runner, source_data=encoded(ZIP))).revision == 3
    assert len(farm.files) == 1


async def test_redeploys_are_counted_as_deploys(database_url: str, redis_url: str, tmp_path: Path) -> None:
    async for farm in open_farm(database_url, redis_url, tmp_path, deploys_per_minute=2):
        runner = await farm.deploy("cow")
        await farm.deploy("goat")
        with pytest.raises(RateLimited):
            await farm.redeploy(runner)
        with pytest.raises(RateLimited):
            await farm.rollback(runner, 1)


# -- back


async def test_a_rollback_is_a_revision_of_its_own_with_what_was_found_then(farm: Farm, serving: Serving) -> None:
    runner = serving.runner
    found = Resolved(language="python", facts={"package": "moo@1.2.3"})
    await farm.store.set_resolved(runner.instance.id, 1, found)
    await farm.redeploy(runner, source_data=OTHER, environment_vars={"A": "1"})
    await serving.comes_up()

    succession = await farm.rollback(runner, 1)

    spec = succession.spec
    assert (spec.revision, spec.cause, spec.source, spec.env) == (3, "rollback to 1", b"print('moo')\n", {})
    assert spec.resolved == found
    await serving.comes_up()
    assert (await farm.kept())["cow"].spec == spec


async def test_without_a_number_it_is_the_newest_earlier_one_that_ran(farm: Farm, serving: Serving) -> None:
    runner = serving.runner
    with pytest.raises(Conflict, match="no earlier revision has run"):
        await farm.rollback(runner)
    await ran(farm, runner)
    await farm.redeploy(runner)
    await serving.fails()
    await farm.redeploy(runner)
    await serving.comes_up()

    assert (await farm.rollback(runner)).spec.cause == "rollback to 1"


async def test_the_way_back_is_known_though_the_journal_has_yet_to_write_that_it_ran(
    farm: Farm, serving: Serving
) -> None:
    """Deploy, run and redeploy in less than the journal waits: its next word is about the new revision."""
    runner = serving.runner
    runner.take(runner.instance.spec, ever_ran=True)
    await farm.redeploy(runner)
    await serving.comes_up()
    assert (await farm.rollback(runner)).spec.cause == "rollback to 1"
    await serving.fails()

    await farm.patch(runner, limits={"memory_mb": 64})
    assert (await farm.rollback(runner)).spec.cause == "rollback to 2"


async def test_what_was_tried_beside_a_process_ran_though_that_process_is_gone_when_it_takes_over(
    farm: Farm, serving: Serving
) -> None:
    runner = serving.runner
    runner.instance = evolve(runner.instance, state=State.RUNNING, ever_ran=True)
    runner.child = object()  # type: ignore[assignment]
    await farm.redeploy(runner)
    runner.child = None
    await serving.comes_up()

    assert None not in [revision.ran_at for revision in await farm.store.revisions(runner.instance.id)]
    assert (await farm.kept())["cow"].ever_ran


async def test_there_is_no_way_to_what_is_in_force_or_is_not_there(farm: Farm, serving: Serving) -> None:
    with pytest.raises(Conflict, match="in force already"):
        await farm.rollback(serving.runner, 1)
    with pytest.raises(NotFound, match="9"):
        await farm.rollback(serving.runner, 9)


# -- what nobody knows


async def fall_silent(self: PostgresStore, instance: Instance, **options: Any) -> None:
    """A switch that stands, though nobody hears of it."""
    await SWITCH(self, instance, **options)
    raise StorageUnavailable("the connection was lost")


async def test_a_switch_that_stands_though_nobody_heard_of_it_is_followed(
    farm: Farm, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, supervisor = serving.runner, farm.deployer.supervisor
    await farm.redeploy(runner, source_data=OTHER, labels={"b": "2"})
    with monkeypatch.context() as patch:
        patch.setattr(PostgresStore, "switch_revision", fall_silent)
        with pytest.raises(StorageUnavailable):
            await serving.comes_up()

    assert not await supervisor.follow(runner), "not while it is under way"
    assert runner.instance.spec.revision == 1
    await serving.fails()
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Upkeep(farm.deployer.config, farm.store, TokenTable(), supervisor).run)
            while runner.instance.spec.revision == 1:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    kept = (await farm.kept())["cow"]
    assert (kept.spec.revision, kept.spec.source) == (2, b"print('baa')\n")
    assert (runner.instance.spec, dict(runner.instance.labels)) == (kept.spec, {"b": "2"})
    assert (await farm.store.revision(runner.instance.id, 2)).failure is None
    assert await supervisor.follow(runner)


# -- where nothing serves


async def test_a_stopped_instance_is_started_with_the_new_revision(farm: Farm) -> None:
    runner = await farm.deploy("cow")
    await farm.deployer.supervisor.stop(runner)
    await runner.wait_settled(WAIT_S)

    succession = await farm.redeploy(runner, mcp_config={"command": "goat"})
    assert await succession.wait(WAIT_S)

    assert succession.failure is None
    kept = (await farm.kept())["cow"]
    assert (kept.spec.revision, kept.desired) == (2, Desired.RUNNING)
    assert kept.spec.command is not None
    assert kept.spec.command.command == "goat"
    assert runner.instance.spec == kept.spec
    assert runner.instance.desired is Desired.RUNNING
