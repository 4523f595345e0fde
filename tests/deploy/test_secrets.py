"""Secrets in a deploy: where they may be named, what is refused, and what a launch gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, field

from controlplane.config import Config
from controlplane.deploy.plan import plan
from controlplane.deploy.secrets import AWAY_LIMIT_S, AWAY_PAUSE_S, MAX_ENVIRONMENT_BYTES, resolve
from controlplane.errors import InvalidRequest, SecretMissing, StorageUnavailable
from controlplane.secretbox import SecretUnreadable
from controlplane.wire.convert import structure
from controlplane.wire.deploy import DeployIn
from tests.deploy.farm import Farm, open_farm
from tests.services import database_url, postgres_server, redis_url, valkey_server

__all__ = ["database_url", "postgres_server", "redis_url", "valkey_server"]

VALUE = "hunter2-hunter2"


@pytest.fixture
async def farm(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Farm]:
    async for opened in open_farm(database_url, redis_url, tmp_path):
        yield opened


@define
class Drawer:
    """Secrets of one owner, in memory; away for the first `away` times that it is asked."""

    values: dict[str, str]
    away: int = 0
    damaged: bool = False
    asked: list[tuple[str, list[str]]] = field(factory=list)

    async def secret_values(self, owner: str, names: Collection[str]) -> dict[str, str]:
        self.asked.append((owner, sorted(names)))
        if len(self.asked) <= self.away:
            raise StorageUnavailable("the database is away")
        if self.damaged:
            raise SecretUnreadable("an encrypted value does not fit its place")
        return {name: self.values[name] for name in names if name in self.values}


def refusal(**members: Any) -> InvalidRequest:
    body = {"name": "cow", "source_type": "mcp_config", "mcp_config": {"command": "cow"}} | members
    with pytest.raises(InvalidRequest) as refused:
        plan(structure(body, DeployIn), Config())
    return refused.value


# -- the request


def test_a_reference_that_cannot_be_read_is_refused_in_its_place() -> None:
    error = refusal(
        mcp_config={"command": "cow", "env": {"A": "fine ${secret:X}", "B": "hunter2 ${secret:"}},
        environment_vars={"C": "${secret:no name}", "D": "$${secret:text"},
    )

    assert [wrong.pointer for wrong in error.errors] == ["/mcp_config/env/B", "/environment_vars/C"]
    assert "hunter2" not in str(error.errors)


def test_a_reference_outside_the_environment_is_refused_because_everybody_can_read_it() -> None:
    error = refusal(
        mcp_config={
            "command": "/opt/${secret:X}",
            "args": ["--fine", "--token=${secret:X}", "$${secret:X}"],
            "cwd": "/srv/${secret:X}",
        }
    )

    assert {wrong.pointer for wrong in error.errors} == {"/mcp_config/command", "/mcp_config/args/1", "/mcp_config/cwd"}
    assert all("env only" in wrong.message for wrong in error.errors)


async def test_a_secret_that_is_not_set_is_refused_with_the_command_that_sets_it(farm: Farm) -> None:
    await farm.store.put_secret("ada", "KNOWN", VALUE, quota=5)
    await farm.store.put_secret("bob", "BOBS", VALUE, quota=5)

    with pytest.raises(InvalidRequest) as refused:
        await farm.deploy(
            "cow",
            mcp_config={"command": "cow", "env": {"A": "${secret:KNOWN}", "B": "u:${secret:BOBS}"}},
            environment_vars={"C": "${secret:NOWHERE}"},
        )

    assert [(wrong.pointer, wrong.message) for wrong in refused.value.errors] == [
        ("/mcp_config/env/B", "there is no secret BOBS"),
        ("/environment_vars/C", "there is no secret NOWHERE"),
    ]
    assert refused.value.hint == "corral secret set BOBS"
    assert await farm.kept() == {}


async def test_a_spec_keeps_the_reference_and_never_the_value(farm: Farm) -> None:
    await farm.store.put_secret("ada", "TOKEN", VALUE, quota=5)
    await farm.deploy("cow", environment_vars={"URL": "https://u:${secret:TOKEN}@x"})

    assert (await farm.kept())["cow"].spec.env == {"URL": "https://u:${secret:TOKEN}@x"}


async def test_a_redeploy_names_only_secrets_that_are_there(farm: Farm) -> None:
    runner = await farm.deploy("cow")
    with pytest.raises(InvalidRequest, match="no secret NOWHERE"):
        await farm.redeploy(runner, environment_vars={"A": "${secret:NOWHERE}"})


# -- the launch


async def test_a_launch_gets_the_values_and_what_went_into_them() -> None:
    drawer = Drawer({"TOKEN": VALUE, "OTHER": "unused"})

    resolved = await resolve({"A": "x ${secret:TOKEN}", "B": "$${secret:TOKEN}", "C": "c"}, "ada", drawer)

    assert resolved.env == {"A": f"x {VALUE}", "B": "${secret:TOKEN}", "C": "c"}
    assert resolved.secrets == {"TOKEN": VALUE}
    assert drawer.asked == [("ada", ["TOKEN"])]
    assert VALUE not in repr(resolved)


async def test_an_environment_without_references_asks_nobody() -> None:
    drawer = Drawer({})
    assert (await resolve({"A": "a"}, "ada", drawer)).env == {"A": "a"}
    assert drawer.asked == []


async def test_a_secret_that_has_gone_is_told_with_what_to_do() -> None:
    with pytest.raises(SecretMissing, match="the secret TOKEN is not set") as one:
        await resolve({"A": "${secret:TOKEN}"}, "ada", Drawer({}))
    assert one.value.hint == "corral secret set TOKEN, then start it"
    with pytest.raises(SecretMissing, match="the secrets A, B are not set"):
        await resolve({"A": "${secret:B}${secret:A}"}, "ada", None)


async def test_a_value_that_cannot_be_read_is_no_internal_error() -> None:
    with pytest.raises(SecretMissing, match="does not fit its place"):
        await resolve({"A": "${secret:TOKEN}"}, "ada", Drawer({}, damaged=True))


async def test_an_environment_that_its_secrets_make_too_large_is_refused() -> None:
    large = Drawer({"A": "x" * 60_000})
    assert (await resolve({"A": "${secret:A}"}, "ada", large)).secrets
    with pytest.raises(InvalidRequest, match=f"at most {MAX_ENVIRONMENT_BYTES}"):
        await resolve({"A": "${secret:A}", "B": "${secret:A}"}, "ada", large)


async def test_a_database_that_is_away_is_waited_for_and_not_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    drawer = Drawer({"A": VALUE}, away=3)
    assert (await resolve({"A": "${secret:A}"}, "ada", drawer)).env == {"A": VALUE}

    began = trio.current_time()
    with pytest.raises(StorageUnavailable):
        await resolve({"A": "${secret:A}"}, "ada", Drawer({}, away=10_000))
    assert AWAY_LIMIT_S <= trio.current_time() - began <= AWAY_LIMIT_S + 2 * AWAY_PAUSE_S
