"""A deployer on a real database, cache and folder; only the processes are left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from controlplane.cache import open_cache
from controlplane.config import Config
from controlplane.deploy.deployer import Deployer
from controlplane.deploy.inbox import Inbox
from controlplane.deploy.source.uploads import Uploads
from controlplane.hub import Event, Hub
from controlplane.model import Principal, Role, User
from controlplane.secretbox import SecretBox
from controlplane.store.postgres import PostgresStore, open_store
from controlplane.supervise.runner import Surroundings
from controlplane.supervise.scheduler import StartScheduler
from controlplane.supervise.supervisor import Supervisor
from controlplane.wire.convert import structure
from controlplane.wire.deploy import DeployIn, PatchIn, RedeployIn

if TYPE_CHECKING:
    from controlplane.deploy.source.uploads import Upload
    from controlplane.model import Instance
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.succession import Succession

WAIT_S = 30.0
ADA = Principal(owner="ada", role=Role.DEPLOYER, token_id="t")
BOB = Principal(owner="bob", role=Role.DEPLOYER, token_id="t")


@define
class NeverReady:
    """A prepare step that does not come to an end: nothing is started."""

    discarded: list[Instance] = field(factory=list)

    async def prepare(self, instance: Instance, report: Any) -> Any:
        await trio.sleep_forever()

    async def retire(self, instance: Instance, launch: Any) -> None:
        raise AssertionError("nothing is ever prepared")

    async def discard(self, instance: Instance) -> None:
        self.discarded.append(instance)


class Silence:
    """A journal that keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: None


@define(eq=False)
class Farm:
    """A deployer and what it works with."""

    deployer: Deployer
    store: PostgresStore
    events: list[Event]
    folder: Path

    async def deploy(
        self,
        name: str,
        principal: Principal = ADA,
        *,
        key: str | None = None,
        upload: Upload | None = None,
        **members: Any,
    ) -> Runner:
        body = {"name": name, "source_type": "mcp_config", "mcp_config": {"command": "cow"}, **members}
        if body["source_type"] != "mcp_config":
            del body["mcp_config"]
        digest = hashlib.sha256(json.dumps(body).encode()).digest()
        with trio.fail_after(WAIT_S):
            return await self.deployer.deploy(
                principal, structure(body, DeployIn), body_digest=digest, idempotency_key=key, upload=upload
            )

    async def redeploy(self, runner: Runner, upload: Upload | None = None, **members: Any) -> Succession:
        with trio.fail_after(WAIT_S):
            return await self.deployer.redeploy(ADA, runner, structure(members, RedeployIn), upload)

    async def rollback(self, runner: Runner, revision: int | None = None) -> Succession:
        with trio.fail_after(WAIT_S):
            return await self.deployer.rollback(ADA, runner, revision)

    async def patch(self, runner: Runner, **members: Any) -> tuple[str, ...]:
        with trio.fail_after(WAIT_S):
            return await self.deployer.patch(runner, structure(members, PatchIn))

    @property
    def runners(self) -> set[str]:
        return {runner.instance.name for runner in self.deployer.supervisor.runners()}

    @property
    def files(self) -> list[str]:
        """All that was written below the store's folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir())

    async def kept(self) -> dict[str, Instance]:
        return {instance.name: instance for instance in await self.store.instances()}


async def open_farm(database_url: str, redis_url: str, folder: Path, **settings: Any) -> AsyncIterator[Farm]:
    config = Config(**{"max_instances_per_user": 3, "deploys_per_minute": 100, **settings})
    box = SecretBox("a secret key of thirty-two bytes or more")
    events: list[Event] = []
    hub = Hub(2**24, events.append)
    async with open_store(database_url, box, wait_s=5) as store, open_cache(redis_url) as cache:
        for name in ("ada", "bob"):
            await store.add_user(User(name=name, role=Role.DEPLOYER))
        around = Surroundings(
            config=config,
            version="0.0.test",
            spawner=None,  # type: ignore[arg-type]
            prepare=NeverReady(),
            scheduler=StartScheduler(4),
            journal=Silence(),  # type: ignore[arg-type]
            hub=hub,
        )
        async with trio.open_nursery() as nursery:
            supervisor = Supervisor(around, store, nursery)
            inbox = Inbox(Uploads(folder / "uploads"), store, folder / "scratch")
            yield Farm(Deployer(config, store, cache, supervisor, inbox), store, events, folder)
            await supervisor.stop_all()
