"""The use case of a deploy: validate, count against quota and rate, write, hand to the supervisor.

What is acknowledged is in Postgres; what fails before that leaves nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import trio
from attrs import define, evolve, field

from controlplane.core.lifecycle import Desired
from controlplane.deploy.plan import plan, plan_patch
from controlplane.deploy.refusals import Refusals
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
    _arriving: dict[UUID, trio.Event] = field(factory=dict, init=False)
    """Instances that may be in the database already and are not with the supervisor yet."""
    _patching: dict[UUID, trio.Lock] = field(factory=dict, init=False)
    """One patch of an instance at a time: each is a revision on top of the last."""

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
                return await self._again(first, body_digest)
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
            runner = await self._bring_in(
                instance, _record(principal.owner, idempotency_key, body_digest, instance.id, now)
            )
        except IdempotencyKeyUsed as used:
            return await self._again(used.first, body_digest)
        data = {"name": name, "source_type": spec.source_type.value, "language": spec.language}
        self.hub.publish_nowait("deployed", instance_id=instance.id, owner=instance.owner, data=data)
        return runner

    async def patch(self, runner: Runner, body: PatchIn) -> tuple[str, ...]:
        """Change limits, restart policy, network or labels; returns what takes effect only later.

        Raises:
            InvalidRequest, NotFound, StorageUnavailable
        """
        turn = self._patching.setdefault(runner.instance.id, trio.Lock())
        try:
            async with turn:
                notes = await self._patch(runner, body)
        finally:
            if not turn.locked():  # nobody waits for it
                self._patching.pop(runner.instance.id, None)
        return notes

    async def _patch(self, runner: Runner, body: PatchIn) -> tuple[str, ...]:
        before = runner.instance
        spec, notes = plan_patch(body, before.spec, self.config)
        changed = None if spec == before.spec else evolve(spec, cause="patch")
        labels = before.labels if body.labels is None else dict(body.labels)
        now = datetime.now(UTC)
        written = await self.store.update_instance(evolve(before, labels=labels, updated_at=now), changed)
        # It may have been stopped, or have crashed, meanwhile.
        runner.replace(evolve(runner.instance, spec=written.spec, labels=labels, updated_at=now))
        return notes

    async def _bring_in(self, instance: Instance, idempotency: Idempotency | None) -> Runner:
        """Write and adopt. What was written is adopted though its caller leaves; the store bounds its own time."""
        arrived = self._arriving[instance.id] = trio.Event()
        try:
            with trio.CancelScope(shield=True):
                quota = self.config.max_instances_per_user
                await self.store.add_instance(instance, quota=quota, idempotency=idempotency)
            return self.supervisor.adopt(instance)
        finally:
            del self._arriving[instance.id]
            arrived.set()

    async def _rate(self, owner: str) -> None:
        per_minute = self.config.deploys_per_minute
        if await self.cache.allow(f"deploys:{owner}", per_minute) is False:
            raise RateLimited(
                f"{per_minute} deploys a minute are allowed",
                retry_after_s=60 / per_minute,
                hint="the operator sets DEPLOYS_PER_MINUTE",
            )

    async def _again(self, first: Idempotency, body_digest: bytes) -> Runner:
        if first.body_digest != body_digest:
            raise Conflict("this Idempotency-Key was used with another body", hint="use a new key for a new request")
        arriving = self._arriving.get(first.instance_id)
        if arriving is not None:  # the first request is between its commit and the supervisor
            await arriving.wait()
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
    if not await _is_folder(cwd):
        refusals = Refusals()
        refusals.add("/mcp_config/cwd", "there is no such folder on this host", "see mounts in the API reference")
        refusals.raise_if_any()


async def _is_folder(path: str) -> bool:
    try:
        return await trio.Path(path).is_dir()
    except OSError:  # a name too long, a folder that Corral may not enter
        return False
