"""The use cases of a deploy and of a new revision: validate, count against quota and rate, write, hand over.

What is acknowledged is in Postgres; what fails before that leaves nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import trio
from attrs import define, evolve, field

from controlplane.cluster.roster import Elsewhere, held_elsewhere
from controlplane.core.lifecycle import Desired
from controlplane.core.secretrefs import names_in_env
from controlplane.deploy.inbox import bring, with_archive
from controlplane.deploy.isolation import HostLevels, level_of, refuse_hidden
from controlplane.deploy.limits import within
from controlplane.deploy.plan import plan, plan_patch, replan
from controlplane.deploy.references import check_known, names_wanted
from controlplane.deploy.refusals import Refusals
from controlplane.errors import Conflict, CorralError, Forbidden, NotFound, RateLimited, StorageUnavailable
from controlplane.model import Evidence, Instance, Spec
from controlplane.store.base import IdempotencyKeyUsed
from controlplane.store.values import Idempotency
from controlplane.supervise.holding import hold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.cache import Cache
    from controlplane.config import Config
    from controlplane.core.quotas import Quotas
    from controlplane.deploy.inbox import Inbox
    from controlplane.deploy.source.uploads import Upload
    from controlplane.model import Limits, Principal
    from controlplane.store.base import Store
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.succession import Succession
    from controlplane.supervise.supervisor import Supervisor
    from controlplane.wire.deploy import DeployIn, PatchIn, RedeployIn


@define(eq=False)
class Deployer:
    """Turns requests into instances and revisions."""

    config: Config
    store: Store
    cache: Cache
    supervisor: Supervisor
    inbox: Inbox
    levels: HostLevels = field(factory=HostLevels, kw_only=True)
    """What this host can give."""
    _arriving: dict[UUID, trio.Event] = field(factory=dict, init=False)
    """Instances that may be in the database already and are not with the supervisor yet."""
    _revising: dict[UUID, trio.Lock] = field(factory=dict, init=False)
    """One change of an instance at a time: each is a revision on top of the last."""

    async def deploy(
        self,
        principal: Principal,
        body: DeployIn,
        *,
        body_digest: bytes,
        idempotency_key: str | None = None,
        upload: Upload | None = None,
    ) -> Runner:
        """Accept a deploy; the instance starts by itself from here on.

        Args:
            body_digest: SHA-256 of the request's body, for the idempotency key.
            idempotency_key: The same key and body within 24 h give the first instance again.
            upload: The archive that came beside the request, held by a visit of the caller's.

        Raises:
            InvalidRequest, SourceRejected, ArchiveRejected, Conflict, QuotaExceeded, RateLimited, StorageUnavailable
        """
        if not self.supervisor.roster.may_run:
            raise StorageUnavailable("this control plane cannot renew its lease and may run nothing", retry_after_s=2)
        name, spec = plan(body, self._config_of(principal.owner), uploaded=upload is not None, host=self.levels)
        await self._check_places(spec)
        await self._check_secrets(principal.owner, body)
        if idempotency_key is not None:
            first = await self.store.idempotent(principal.owner, idempotency_key)
            if first is not None:
                return await self._again(first, body_digest)
        await self._rate(principal.owner)
        async with self.inbox.visit(principal.owner) as visit:
            brought = await bring(visit, spec, body.source_data, upload)
            now = datetime.now(UTC)
            instance = Instance(
                id=uuid4(),
                owner=principal.owner,
                name=name,
                spec=with_archive(spec, brought),
                labels=dict(body.labels),
                desired=Desired.RUNNING,
                created_at=now,
                updated_at=now,
                node_id=self.supervisor.roster.node_id,
                epoch=1,
            )
            try:
                runner = await self._bring_in(
                    instance, _record(principal.owner, idempotency_key, body_digest, instance.id, now)
                )
            except IdempotencyKeyUsed as used:
                return await self._again(used.first, body_digest)
        return runner

    async def redeploy(
        self, principal: Principal, runner: Runner, body: RedeployIn, upload: Upload | None = None
    ) -> Succession:
        """Begin to bring up a new revision, which takes over once it answers; until then nothing changes.

        Args:
            upload: As for a deploy.

        Raises:
            InvalidRequest, SourceRejected, ArchiveRejected, QuotaExceeded, RateLimited, NotFound, StorageUnavailable
            ShuttingDown
            Conflict: another revision is on its way.
        """
        _check_free(runner)
        config = self._config_of(runner.instance.owner)
        wanted = names_wanted(body.mcp_config, body.environment_vars or {})
        _refuse_new_secrets(principal, runner.instance.spec, wanted)
        spec = replan(body, runner.instance.spec, config, uploaded=upload is not None, host=self.levels)
        await self._check_places(spec)
        await self._check_secrets(runner.instance.owner, body)
        await self._rate(principal.owner)
        async with self.inbox.visit(runner.instance.owner) as visit:
            brought = await bring(visit, spec, body.source_data, upload)
            async with self._turn(runner):
                # It may have been patched meanwhile.
                spec = replan(body, runner.instance.spec, config, uploaded=upload is not None, host=self.levels)
                return await self._succeed(runner, with_archive(spec, brought), body.labels)

    async def rollback(self, principal: Principal, runner: Runner, revision: int | None) -> Succession:
        """Begin to go back to what an earlier revision was, as a revision of its own; else as `redeploy`.

        Args:
            revision: Its number; None: the newest before the present one that ran.

        Raises:
            Forbidden: a token for single instances would have it read secrets that it was given then, and has no more.
            QuotaExceeded, RateLimited, NotFound, StorageUnavailable, ShuttingDown
            Conflict: it is in force, there is none to go back to, or another is on its way.
        """
        _check_free(runner)
        await self._rate(principal.owner)
        async with self._turn(runner):
            number = revision if revision is not None else await self._way_back(runner)
            if number == runner.instance.spec.revision:
                raise Conflict(f"revision {number} is in force already")
            earlier = await self.store.revision(runner.instance.id, number)
            _refuse_new_secrets(principal, runner.instance.spec, names_in_env(earlier.spec.env))
            return await self._succeed(runner, evolve(earlier.spec, cause=f"rollback to {number}"), None)

    async def patch(self, runner: Runner, body: PatchIn) -> tuple[str, ...]:
        """Change limits, restart policy, network or labels; returns what takes effect only later.

        Raises:
            InvalidRequest, QuotaExceeded, NotFound, StorageUnavailable
            Conflict: a new revision is on its way, which knows nothing of this; or more memory is in use than it may have.
        """
        async with self._turn(runner):
            if (body.limits, body.restart, body.network) != (None, None, None):
                _check_free(runner)
            return await self._patch(runner, body)

    @asynccontextmanager
    async def _turn(self, runner: Runner) -> AsyncIterator[None]:
        turn = self._revising.setdefault(runner.instance.id, trio.Lock())
        try:
            async with turn:
                yield
        finally:
            if not turn.locked():  # nobody waits for it
                self._revising.pop(runner.instance.id, None)

    async def _patch(self, runner: Runner, body: PatchIn) -> tuple[str, ...]:
        before = runner.instance
        config = self._config_of(before.owner)
        spec, notes = plan_patch(body, before.spec, config)
        if body.limits is not None:
            spec = evolve(spec, limits=within(spec.limits, config))
        changed = None if spec == before.spec else evolve(spec, cause="patch")
        labels = before.labels if body.labels is None else dict(body.labels)
        now = datetime.now(UTC)
        memory_mb = runner.account.quotas.memory_mb
        described = evolve(before, labels=labels, updated_at=now)
        async with self._lowered(runner, spec.limits):
            written = await self.store.update_instance(described, changed, memory_mb=memory_mb)
        # It may have been stopped, or have crashed, meanwhile.
        runner.replace(evolve(runner.instance, spec=written.spec, labels=labels, updated_at=now))
        await self._hold(runner)
        return notes

    @asynccontextmanager
    async def _lowered(self, runner: Runner, limits: Limits) -> AsyncIterator[None]:
        """Less memory counts against the quota as soon as it is written, so it is in force before; not if that fails.

        Raises:
            Conflict: the kernel refuses, as more is in use.
        """
        if limits.memory_mb >= runner.instance.spec.limits.memory_mb:
            yield
            return
        try:
            await hold(runner, limits)
        except OSError as error:
            raise Conflict(
                f"the instance uses more than {limits.memory_mb:,} MiB now: {error.strerror or error}",
                hint="stop it, change the limit, and start it again",
            ) from error
        try:
            yield
        except BaseException:
            await self._hold(runner)
            raise

    async def _hold(self, runner: Runner) -> None:
        """Have what is written be in force. A kernel that refuses leaves what was until the next start."""
        try:
            await hold(runner, runner.instance.spec.limits)
        except OSError as error:
            runner.logbook.system("warning", f"the new limits are in force at the next start: {error}")

    async def _bring_in(self, instance: Instance, idempotency: Idempotency | None) -> Runner:
        """Write and adopt. What was written is adopted though its caller leaves; the store bounds its own time."""
        arrived = self._arriving[instance.id] = trio.Event()
        try:
            with trio.CancelScope(shield=True):
                quotas = self._quotas_of(instance.owner)
                await self.store.add_instance(
                    instance, quota=quotas.instances, memory_mb=quotas.memory_mb, idempotency=idempotency
                )
            runner = self.supervisor.adopt(instance)
            runner.herald.deployed(runner.instance)  # before anything else is told of it, hence no await in between
            return runner
        finally:
            del self._arriving[instance.id]
            arrived.set()

    async def _succeed(self, runner: Runner, spec: Spec, labels: Mapping[str, str] | None) -> Succession:
        """Write a revision and hand it over. What was written is tried though its caller leaves."""
        _check_free(runner)
        spec = evolve(spec, limits=within(spec.limits, self._config_of(runner.instance.owner)))
        instance_id = runner.instance.id
        with trio.CancelScope(shield=True):  # the store bounds its own time
            memory_mb = self._quotas_of(runner.instance.owner).memory_mb
            number = await self.store.add_revision(evolve(runner.instance, spec=spec), memory_mb=memory_mb)
            failed = partial(self.store.fail_revision, instance_id, number)
            # What is tried beside a process that serves is committed once it has answered, whatever has become of that.
            has_answered = runner.serving and runner.orders.obeyed == runner.orders.newest
            commit = partial(self._commit, runner, labels, has_answered)
            try:
                succession = runner.succeed(evolve(spec, revision=number), commit=commit, failed=failed)
            except CorralError as error:
                now = datetime.now(UTC)
                await failed(Evidence(code=error.code, reason=error.detail or error.title, phase="pending", at=now))
                raise
        return succession

    async def _commit(self, runner: Runner, labels: Mapping[str, str] | None, has_answered: bool, spec: Spec) -> None:
        """Write which revision is in force from now on, and that it is to run.

        Raises:
            StorageUnavailable: it may stand all the same; `Supervisor.follow` finds out.
            QuotaExceeded: others of the owner's have come meanwhile.
        """
        now = datetime.now(UTC)
        before = runner.instance
        labels = before.labels if labels is None else dict(labels)
        await self.store.switch_revision(
            evolve(before, spec=spec, labels=labels, desired=Desired.RUNNING, updated_at=now),
            ran_at=now if has_answered else None,
            replaced_ran=before.spec.revision if before.ever_ran else None,
            memory_mb=self._quotas_of(before.owner).memory_mb,
        )
        runner.replace(evolve(runner.instance, labels=labels, updated_at=now))

    def _quotas_of(self, owner: str) -> Quotas:
        return self.supervisor.around.accounts.of(owner).quotas

    def _config_of(self, owner: str) -> Config:
        """The settings, with the ceilings of this owner's instances."""
        ceilings = self._quotas_of(owner)
        return evolve(
            self.config,
            max_memory_mb=ceilings.instance_memory_mb,
            max_cpu_percent=ceilings.instance_cpu_percent,
            max_disk_usage_mb=ceilings.instance_disk_mb,
            max_processes=ceilings.instance_processes,
            max_open_files=ceilings.instance_open_files,
        )

    async def _way_back(self, runner: Runner) -> int:
        now = runner.instance.spec.revision
        for revision in await self.store.revisions(runner.instance.id):
            if revision.spec.revision < now and revision.ran_at is not None:
                return revision.spec.revision
        raise Conflict("no earlier revision has run", hint="the list of revisions shows those that are kept")

    async def _check_secrets(self, owner: str, body: DeployIn | RedeployIn) -> None:
        """The secrets that a request names are there now; one that goes later is a failed start."""
        variables = body.environment_vars or {}
        if names_wanted(body.mcp_config, variables):
            refusals = Refusals()
            known = {secret.name for secret in await self.store.secrets(owner)}
            check_known(body.mcp_config, variables, known, refusals)
            refusals.raise_if_any()

    async def _check_places(self, spec: Spec) -> None:
        """A working folder of the host must exist (one below /tmp is made in the instance's own), and be seen."""
        level = level_of(spec.isolation, self.config, self.levels)
        refusals = Refusals()
        refuse_hidden(spec, level, await trio.to_thread.run_sync(os.listdir, "/"), refusals)
        cwd = spec.command.cwd if spec.command else None
        is_ours = cwd is None or not cwd.startswith("/") or Path(cwd).is_relative_to("/tmp")  # noqa: S108
        if level == "process" and cwd is not None and not is_ours and not await _is_folder(cwd):
            refusals.add("/mcp_config/cwd", "there is no such folder on this host", "see mounts in the API reference")
        refusals.raise_if_any()

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
            place = await self.store.whereabouts(first.instance_id, "", "")
            if place is None:
                raise Conflict("this Idempotency-Key was used for an instance that was deleted since") from None
            raise held_elsewhere(Elsewhere(place.id, place.owner, place.name, place.node_id)) from None


def _check_free(runner: Runner) -> None:
    """Raises `Conflict` while a new revision is on its way."""
    under_way = runner.succession
    if under_way is not None and not under_way.done.is_set():
        raise Conflict(
            f"revision {under_way.revision} is on its way", hint="wait for it, or end it with a stop or a restart"
        )


def _refuse_new_secrets(principal: Principal, present: Spec, wanted: frozenset[str]) -> None:
    """Raises Forbidden when a token for single instances would have one read secrets that it has not been given.

    Whoever chooses an instance's program reads all that it is given, and secrets are the owner's, not the instance's.
    """
    if not principal.is_limited:
        return
    new = wanted - names_in_env(present.env)
    if new:
        raise Forbidden(
            f"a token for single instances cannot give them other secrets than they have: {', '.join(sorted(new))}",
            hint="do it once with a token that was made without `instances`",
        )


def _record(owner: str, key: str | None, digest: bytes, instance_id: UUID, now: datetime) -> Idempotency | None:
    if key is None:
        return None
    return Idempotency(owner=owner, key=key, body_digest=digest, instance_id=instance_id, created_at=now)


async def _is_folder(path: str) -> bool:
    try:
        return await trio.Path(path).is_dir()
    except OSError:  # a name too long, a folder that Corral may not enter
        return False
