"""Every instance of this control plane: who they are, and the commands that write before they do.

The desired state is in Postgres before anything is done about it, so whatever
dies in between, the next life does what was promised.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

import trio
from attrs import define, evolve, field, frozen

from controlplane.cluster.roster import Elsewhere, Roster, held_elsewhere
from controlplane.core.lifecycle import PUBLIC_STATUS, Desired, State
from controlplane.core.queueing import Priority
from controlplane.errors import Conflict, NotFound, ShuttingDown
from controlplane.supervise.orders import LEAVE_S
from controlplane.supervise.refresh import keep_fresh
from controlplane.supervise.runner import Runner, Surroundings

if TYPE_CHECKING:
    from controlplane.model import Instance, Principal
    from controlplane.store.base import Store

STOP_ALL_S = LEAVE_S + 1.0
"""All instances stop in parallel, and what was sent SIGKILL ends at once, but for what the kernel holds on to."""
log = logging.getLogger("corral.supervise")


@frozen(kw_only=True)
class SupervisorStatistics:
    """The fleet in numbers."""

    instances: int
    by_status: dict[str, int]
    restarts: int
    waiting_to_start: int


@define(eq=False)
class Supervisor:
    """Owns the nursery in which every Runner lives."""

    around: Surroundings
    store: Store
    _nursery: trio.Nursery
    roster: Roster = field(factory=Roster)
    """What other nodes hold."""
    _runners: dict[UUID, Runner] = field(factory=dict, init=False)
    _names: dict[tuple[str, str], UUID] = field(factory=dict, init=False)
    _stopping: bool = field(default=False, init=False)

    # -- who

    def runners(self) -> Collection[Runner]:
        return self._runners.values()

    def ids(self) -> set[UUID]:
        return set(self._runners)

    def get(self, instance_id: UUID) -> Runner:
        """Raises `NotFound`."""
        try:
            return self._runners[instance_id]
        except KeyError:
            raise NotFound("there is no such instance", hint="corral ls shows what there is") from None

    def find(self, principal: Principal, ref: str) -> Runner:
        """The instance that `ref` (UUID, name, or an admin's `owner/name`) means to this caller.

        Raises:
            NotFound: there is none, or it is not for this caller, which looks the same.
            HeldElsewhere: another node holds it.
        """
        try:
            runner = self.get(self._resolve(principal, ref))
        except NotFound:
            found = self.roster.find(principal, ref)
            if found is None:
                raise
            raise held_elsewhere(found) from None
        instance = runner.instance
        if not principal.sees(instance.owner, instance.name, instance.id):
            raise NotFound("there is no such instance", hint="corral ls shows what there is")
        return runner

    def egress_refused(self, job: str, host: str, port: int, reason: str) -> None:
        """A process of some instance may not connect to where it wanted to, or not look it up (port 0): its log tells."""
        what = f"{host}:{port} refused" if port else f"the look-up of {host} is refused"
        for runner in self._runners.values():
            for child in runner.wiretap.children:
                if child.job.id == job:
                    child.logbook.system("warning", f"egress: {what}: {reason}")

    def builds(self, owner: str) -> tuple[int, int]:
        """How many builds an owner has under way, and how many may be at the same time."""
        scheduler = self.around.scheduler
        return scheduler.building(owner), scheduler.builds.places

    def statistics(self) -> SupervisorStatistics:
        by_status: dict[str, int] = {}
        for runner in self._runners.values():
            status = PUBLIC_STATUS[runner.state]
            by_status[status] = by_status.get(status, 0) + 1
        return SupervisorStatistics(
            instances=len(self._runners),
            by_status=by_status,
            restarts=sum(r.instance.restarts for r in self._runners.values()),
            waiting_to_start=self.around.scheduler.waiting,
        )

    # -- commands

    def adopt(self, instance: Instance, priority: Priority = Priority.COMMAND) -> Runner:
        """Take an instance that the database knows, once; it starts if that is desired, as urgently as `priority` says."""
        known = self._runners.get(instance.id)
        if known is not None:
            return known
        if self._stopping:
            raise ShuttingDown("the control plane is stopping", retry_after_s=5)
        runner = Runner(evolve(instance, state=State.STOPPED), self.around, priority)
        self._runners[instance.id] = runner
        self._names[instance.owner, instance.name] = instance.id
        self.roster.drop(instance.id)
        self._nursery.start_soon(self._run, runner, name=f"instance {instance.name}")
        return runner

    async def start(self, runner: Runner) -> None:
        """Raises `Conflict` when it is running or on its way, `QuotaExceeded`; `StorageUnavailable`: nothing can be written."""
        async with _turn(runner):
            if runner.instance.desired is Desired.RUNNING and runner.state not in (State.FAILED, State.STOPPED):
                raise Conflict(f"the instance is {PUBLIC_STATUS[runner.state]} already")
            await self._wish(runner, Desired.RUNNING)
            runner.want_running()

    async def stop(self, runner: Runner) -> None:
        """Raises `Conflict` when it is stopped already; `StorageUnavailable` when the wish cannot be written."""
        async with _turn(runner):
            if runner.instance.desired is Desired.STOPPED:
                raise Conflict(f"the instance is {PUBLIC_STATUS[runner.state]} already")
            await self._wish(runner, Desired.STOPPED)
            runner.want_stopped()

    async def restart(self, runner: Runner) -> None:
        """Raises `Conflict` when it was stopped on purpose; `StorageUnavailable` when the wish cannot be written."""
        async with _turn(runner):
            if runner.instance.desired is Desired.STOPPED:
                raise Conflict("the instance is stopped", hint=f"corral start {runner.instance.name}")
            await self._wish(runner, Desired.RUNNING)
            runner.want_running()

    async def remove(self, runner: Runner) -> None:
        """Forget the instance for good; its name is free at once, its logs stay.

        Raises:
            StorageUnavailable: the wish cannot be written; nothing was done.
        """
        async with _turn(runner):
            if runner.instance.desired is Desired.DELETED:
                raise NotFound("there is no such instance")
            await self.store.delete_instance(runner.instance.id, epoch=runner.instance.epoch)
            self._forget_name(runner)
            runner.want_removed()

    async def follow(self, runner: Runner) -> bool:
        """Do what the database says, should it be something else; False: look again later.

        A change that Postgres committed while it broke down was answered with 503, and stands all the same.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        async with _turn(runner):
            number = runner.instance.spec.revision
            written = {instance.id: instance for instance in await self.store.instances()}.get(runner.instance.id)
            if self._stopping:
                return True
            if written is not None and not self.roster.is_ours(written):
                return False  # another node's now; whoever reads next lets go of it
            if runner.instance.spec.revision != number:
                return False  # a patch came meanwhile, and what was read may be older
            self._follow_desired(runner, Desired.DELETED if written is None else written.desired)
            return written is None or _follow_revision(runner, written)

    async def let_go(self, *held: tuple[Runner, UUID | None]) -> None:
        """End what runs of instances that are not this node's any more, and know who holds them; nothing is written.

        Returns when their processes are gone. Files stay: they are this node's, should an instance come back.
        """
        for runner, node_id in held:
            runner.give_up()
            instance = runner.instance
            if self._runners.get(instance.id) is runner:
                del self._runners[instance.id]
                self._forget_name(runner)
                self.roster.add(Elsewhere(instance.id, instance.owner, instance.name, node_id))
        for runner, _ in held:
            await runner.gone.wait()
            runner.wiretap.close()
            if runner.instance.id not in self._runners:
                self.around.hub.forget_topic(runner.instance.id)

    async def stop_all(self) -> None:
        """End every process for the control plane's own stop; desired states stay. Bounded."""
        self._stopping = True
        for runner in self._runners.values():
            runner.leave()
        with trio.CancelScope(shield=True), trio.move_on_after(STOP_ALL_S):
            for runner in list(self._runners.values()):
                await runner.gone.wait()

    def ids_left(self) -> set[UUID]:
        """Those that a stop has not ended yet: something of them may run."""
        return {runner.instance.id for runner in self._runners.values() if not runner.gone.is_set()}

    # -- parts

    def _follow_desired(self, runner: Runner, desired: Desired) -> None:
        if desired is runner.instance.desired:
            return
        log.warning("instance %s: the database says %s; following it", runner.instance.name, desired.value)
        match desired:
            case Desired.RUNNING:
                runner.want_running()
            case Desired.STOPPED:
                runner.want_stopped()
            case Desired.DELETED:
                self._forget_name(runner)
                runner.want_removed()

    async def _wish(self, runner: Runner, desired: Desired) -> None:
        if self._stopping:
            raise ShuttingDown("the control plane is stopping", retry_after_s=5)
        if runner.instance.desired is Desired.DELETED:
            raise NotFound("there is no such instance")
        memory_mb = runner.account.quotas.memory_mb
        await self.store.set_desired(runner.instance.id, desired, memory_mb=memory_mb, epoch=runner.instance.epoch)

    def _forget_name(self, runner: Runner) -> None:
        name = (runner.instance.owner, runner.instance.name)
        if self._names.get(name) == runner.instance.id:  # a new instance may have it already
            del self._names[name]

    async def _run(self, runner: Runner) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_fresh, runner)
            await runner.run()
            if runner.instance.desired is Desired.DELETED:
                self._forget(runner)  # in the same moment in which it is gone
            nursery.cancel_scope.cancel()
        if self.around.cache is not None and runner.instance.desired is Desired.DELETED:
            await self.around.cache.drop_listings(runner.instance.id)

    def _forget(self, runner: Runner) -> None:
        instance, hub = runner.instance, self.around.hub
        if self._runners.get(instance.id) is not runner:
            return  # let go of meanwhile
        del self._runners[instance.id]
        hub.publish_nowait("deleted", instance_id=instance.id, owner=instance.owner, data={"name": instance.name})
        hub.forget_topic(instance.id)
        runner.wiretap.close()

    def _resolve(self, principal: Principal, ref: str) -> UUID:
        if len(ref) == 36 and (instance_id := _as_uuid(ref)) is not None:
            return instance_id
        owner, slash, name = ref.rpartition("/")
        key = (owner, name) if slash and principal.crosses_owners else (principal.owner, ref.lower())
        try:
            return self._names[key]
        except KeyError:
            raise NotFound("there is no such instance", hint="corral ls shows what there is") from None


def _follow_revision(runner: Runner, written: Instance) -> bool:
    """Have the revision that the database says, from the next start on; False: not while another is on its way."""
    before, succession = runner.instance.spec.revision, runner.succession
    if written.spec.revision == before:
        return True
    if succession is not None and not succession.done.is_set():
        return False
    log.warning(
        "instance %s: the database says revision %d, not %d; the next start follows it",
        runner.instance.name,
        written.spec.revision,
        before,
    )
    runner.replace(written)
    runner.take(written.spec, ever_ran=written.ever_ran)
    return True


@asynccontextmanager
async def _turn(runner: Runner) -> AsyncIterator[None]:
    """One wish at a time, so that the database and the runner get them in the same order.

    What was written is done though its caller leaves: shielded, as the store bounds its own time.
    """
    async with runner.commands:
        with trio.CancelScope(shield=True):
            yield


@lru_cache(maxsize=1024)
def _as_uuid(ref: str) -> UUID | None:
    """Remembered, because every call names its instance by one of a few, and parsing costs about a microsecond."""
    try:
        return UUID(ref)
    except ValueError:
        return None
