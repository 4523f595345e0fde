"""The use case of a deploy: validate, count against quota and rate, write, hand to the supervisor.

What is acknowledged is in Postgres; what fails before that leaves nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import trio
from attrs import define, evolve

from controlplane.core.lifecycle import Desired
from controlplane.deploy.plan import Refusals, plan, plan_patch
from controlplane.errors import Conflict, NotFound, RateLimited
from controlplane.model import Instance, Spec
from controlplane.store.base import Idempotency, IdempotencyKeyUsed

if TYPE_CHECKING:
    from controlplane.cache import Cache
    from controlplane.config import Config
    from controlplane.hub import Hub
    from controlplane.model import Principal
    from controlplane.store.base import Store
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.supervisor import Supervisor
    from controlplane.wire.deploy import DeployIn, PatchIn


@define(eq=False)
class Deployer:
    """Turns requests into instances."""

    config: Config
    store: Store
    cache: Cache
    hub: Hub
    supervisor: Supervisor

    async def deploy(
        self, principal: Principal, body: DeployIn, *, body_digest: bytes, idempotency_key: str | None = None
    ) -> Runner:
        """Accept a deploy; the instance starts by itself from here on.

        Args:
            body_digest: SHA-256 of the request's body, for the idempotency key.
            idempotency_key: The same key and body within 24 h give the first instance again.

        Raises:
            InvalidRequest, Conflict, QuotaExceeded, RateLimited, StorageUnavailable
        """
        name, spec = plan(body, self.config)
        await _check_cwd(spec)
        if idempotency_key is not None:
            first = await self.store.idempotent(principal.owner, idempotency_key)
            if first is not None:
                return self._again(first, body_digest)
        await self._rate(principal.owner)
        now = datetime.now(UTC)
        instance = Instance(
            id=uuid4(),
            owner=principal.owner,
            name=name,
            spec=spec,
            labels=dict(body.labels),
            desired=Desired.RUNNING,
            created_at=now,
            updated_at=now,
        )
        try:
            await self._write(instance, _record(principal.owner, idempotency_key, body_digest, instance.id, now))
        except IdempotencyKeyUsed as used:
            return self._again(used.first, body_digest)
        runner = self.supervisor.adopt(instance)
        data = {"name": name, "source_type": spec.source_type.value, "language": spec.language}
        self.hub.publish_nowait("deployed", instance_id=instance.id, owner=instance.owner, data=data)
        return runner

    async def patch(self, runner: Runner, body: PatchIn) -> tuple[str, ...]:
        """Change limits, restart policy, network or labels; returns what takes effect only later.

        Raises:
            InvalidRequest, NotFound, StorageUnavailable
        """
        before = runner.instance
        spec, notes = plan_patch(body, before.spec, self.config)
        if spec != before.spec:
            spec = evolve(spec, revision=before.spec.revision + 1)
        labels = before.labels if body.labels is None else dict(body.labels)
        changed = evolve(before, spec=spec, labels=labels, updated_at=datetime.now(UTC))
        await self.store.update_instance(changed)
        runner.replace(changed)
        return notes

    async def _write(self, instance: Instance, idempotency: Idempotency | None) -> None:
        quota = self.config.max_instances_per_user
        await self.store.add_instance(instance, quota=quota, idempotency=idempotency)

    async def _rate(self, owner: str) -> None:
        per_minute = self.config.deploys_per_minute
        if await self.cache.allow(f"deploys:{owner}", per_minute) is False:
            raise RateLimited(
                f"{per_minute} deploys a minute are allowed",
                retry_after_s=60 / per_minute,
                hint="the operator sets DEPLOYS_PER_MINUTE",
            )

    def _again(self, first: Idempotency, body_digest: bytes) -> Runner:
        if first.body_digest != body_digest:
            raise Conflict("this Idempotency-Key was used with another body", hint="use a new key for a new request")
        try:
            return self.supervisor.get(first.instance_id)
        except NotFound:
            raise Conflict("this Idempotency-Key was used for an instance that was deleted since") from None


def _record(owner: str, key: str | None, digest: bytes, instance_id: UUID, now: datetime) -> Idempotency | None:
    if key is None:
        return None
    return Idempotency(owner=owner, key=key, body_digest=digest, instance_id=instance_id, created_at=now)


async def _check_cwd(spec: Spec) -> None:
    """A working folder of the host must exist; one below /tmp is made in the instance's own /tmp."""
    cwd = spec.command.cwd if spec.command else None
    if cwd is None or not cwd.startswith("/") or Path(cwd).is_relative_to("/tmp"):  # noqa: S108
        return
    if not await trio.Path(cwd).is_dir():
        refusals = Refusals()
        refusals.add("/mcp_config/cwd", "there is no such folder on this host", "see mounts in the API reference")
        refusals.raise_if_any()
