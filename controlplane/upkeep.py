"""What keeps memory and database in step: the token table, the instances, what owners use, the retention of history.

Postgres is off the call path, so tokens and instances are held in memory, and
every change of them is pushed here by NOTIFY. After a lost connection
everything is read again; until that has worked the table says that it is stale.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.cluster.roster import Elsewhere
from controlplane.core.lifecycle import Desired, State
from controlplane.core.queueing import Priority
from controlplane.errors import CorralError, StorageUnavailable
from controlplane.store.values import Change, Retention, Subject

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.cluster.roster import Roster
    from controlplane.config import Config
    from controlplane.model import Instance, Listing
    from controlplane.store.base import Store
    from controlplane.store.journal import Journal
    from controlplane.supervise.accounts import Accounts
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.supervisor import Supervisor
    from controlplane.web.auth import TokenTable

TICK_S = 1.0
TOUCH_INTERVAL_S = 30.0
"""How exact `last_used_at` of a token is."""
ACCOUNT_INTERVAL_S = 5.0
"""What owners use is written this often, and a SIGKILL costs so much of it; so late another control plane knows of it."""
ACCOUNT_FLUSH_S = 2.0
"""For the writing. If it takes longer, what the database has is asked for the next time."""
RETAIN_INTERVAL_S = 300.0
"""Between two rounds a flood may pass the cap on logs by what it writes in this time."""
ADOPT_DELAY_S = 5.0
"""An instance that the database has and memory has not is adopted after this: a deploy under way adopts its own."""
FIRST_EPOCH = 1
"""What a deploy writes; whoever takes an instance over raises it."""
LISTINGS_MAX_BYTES = 32 * 2**20
"""Of what instances offer, read at start; the rest is read when somebody asks for it."""
AT_REST = frozenset({State.STOPPED, State.FAILED})
"""What every instance is in after an orderly stop of Corral's."""
log = logging.getLogger("corral.upkeep")


@define(eq=False)
class Upkeep:
    """Service loops; each survives an absent database."""

    config: Config
    store: Store
    tokens: TokenTable
    supervisor: Supervisor
    journal: Journal | None = None
    """Where what owners use is written; None: it is not kept."""
    _tokens_changed: bool = field(default=False, init=False)
    _instances_changed: bool = field(default=False, init=False)
    _may_run: bool = field(default=True, init=False)
    """False while this node has lost its lease."""
    _ended: set[UUID] = field(factory=set, init=False)
    """Let go of when the lease was lost."""
    _turn: trio.Lock = field(factory=trio.Lock, init=False)
    """Held from the reading of who holds what until it is followed: an older reading never comes after a newer one."""

    async def load(self) -> None:
        """Read everything once, at start.

        Raises:
            StorageUnavailable: the database went away meanwhile.
        """
        self.tokens.load(await self.store.users(), await self.store.tokens())
        await self._read_accounts()
        listings: dict[UUID, list[Listing]] = {}
        for listing in await self.store.listings(LISTINGS_MAX_BYTES):
            listings.setdefault(listing.instance_id, []).append(listing)
        async with self._turn:
            for instance in self._ours(await self.store.instances()) if self._may_run else ():
                runner = self._take_over(instance)
                if instance.id in listings:
                    runner.catalogue.restore(listings[instance.id])

    # -- what `Membership` asks for

    async def read_again(self) -> None:
        """See `Holdings`."""
        self._instances_changed = True
        await self._follow_changes()

    def give_up_all(self) -> None:
        """See `Holdings`."""
        self._may_run = self.supervisor.roster.may_run = False
        for runner in self.supervisor.runners():
            runner.give_up()

    async def let_go_of_all(self) -> None:
        """See `Holdings`."""
        self.give_up_all()  # at once: whoever has the turn may wait for a database that is away
        async with self._turn:
            self._ended |= self.supervisor.ids()
            await self.supervisor.let_go(*((runner, None) for runner in list(self.supervisor.runners())))

    async def take_up(self) -> None:
        """See `Holdings`."""
        self._may_run = self.supervisor.roster.may_run = True
        try:
            await self.read_again()
        except CorralError as error:
            log.warning("what this node holds is started when it can be read: %s", error)

    # -- service loops

    async def run(self) -> None:
        """Service loop: hear of changes and follow them."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._every, TICK_S, self._follow)
            nursery.start_soon(self._every, TOUCH_INTERVAL_S, self._touch)
            nursery.start_soon(self._every, RETAIN_INTERVAL_S, self._retain)
            nursery.start_soon(self._every, TICK_S, self._note_memory)
            nursery.start_soon(self._every, ACCOUNT_INTERVAL_S, self._account)
            async with self.store.open_listen(self._on_change, self._on_lost):
                await trio.sleep_forever()

    def _on_change(self, change: Change) -> None:
        everything = change.subject is Subject.EVERYTHING
        if everything:
            self.tokens.listen_restored()
        self._tokens_changed |= everything or change.subject in (Subject.TOKENS, Subject.USERS)
        self._instances_changed |= everything or change.subject is Subject.INSTANCES

    def _on_lost(self, reason: str) -> None:
        log.warning("changes in the database go unheard: %s", reason)
        self.tokens.listen_lost()

    async def _follow(self) -> None:
        self.tokens.sweep()
        if self._tokens_changed or self.tokens.reread_due:
            self._tokens_changed = False
            try:
                await self._reload_tokens()
            except StorageUnavailable:
                self._tokens_changed = True
                raise
        await self._follow_changes()

    async def _follow_changes(self) -> None:
        async with self._turn:
            if not self._instances_changed or not self._may_run:
                return
            self._instances_changed = False
            try:
                await self._follow_instances()
            except StorageUnavailable:
                self._instances_changed = True
                raise

    async def _reload_tokens(self) -> None:
        """Read the table anew, unless it was changed here meanwhile: that change is newer than what was read."""
        generation = self.tokens.generation
        users, tokens = await self.store.users(), await self.store.tokens()
        if self.tokens.generation != generation:
            self._tokens_changed = True
            return
        gone = self.tokens.user_names() - {user.name for user in users}
        self.tokens.load(users, tokens)
        for name in gone:  # another control plane was asked to remove them; whoever gets the name inherits nothing
            self._accounts.forget(name)
            self.supervisor.around.hub.forget_topic(name)

    async def _follow_instances(self) -> None:
        """A change whose commit was acknowledged by nobody stands in the database all the same."""
        runners = {runner.instance.id: runner for runner in self.supervisor.runners()}
        everything = await self.store.instances()
        if not self._may_run:
            return
        written = {instance.id: instance for instance in self._ours(everything)}
        for instance in [written[i] for i in written.keys() - runners.keys()]:
            if instance.epoch > FIRST_EPOCH or instance.id in self._ended:
                self._take_over(instance)
            elif _age_s(instance) > ADOPT_DELAY_S:
                log.warning("adopting instance %s, which the database has and memory had not", instance.id)
                self.supervisor.adopt(instance)
            else:
                self._instances_changed = True  # perhaps its deploy is under way; look again at the next turn
        self._ended.clear()
        lost = {instance.id: instance for instance in everything if instance.id not in written}
        await self._let_go_of(lost, runners)
        for instance_id, runner in runners.items():
            if instance_id not in lost and _is_other(written.get(instance_id), runner.instance):
                # It looks again, as this may be older than the last wish.
                self._instances_changed |= not await self.supervisor.follow(runner)

    def _ours(self, everything: list[Instance]) -> list[Instance]:
        """Those that this node holds; the others are the roster's from now on."""
        theirs = [instance for instance in everything if not self._roster.is_ours(instance)]
        self._roster.take_held(Elsewhere(each.id, each.owner, each.name, each.node_id) for each in theirs)
        return [instance for instance in everything if self._roster.is_ours(instance)]

    def _take_over(self, instance: Instance) -> Runner:
        """Run what an earlier life of this node ran, or another node."""
        runner = self.supervisor.adopt(instance, Priority.BOOT)
        if instance.state not in AT_REST:
            runner.herald.gap()
        return runner

    async def _let_go_of(self, lost: dict[UUID, Instance], runners: dict[UUID, Runner]) -> None:
        past = [
            (runner, lost[instance_id].node_id)
            for instance_id, runner in runners.items()
            # One that was adopted while this was read has the newer epoch.
            if instance_id in lost and lost[instance_id].epoch > runner.instance.epoch
        ]
        for runner, node_id in past:
            log.warning("instance %s is held by node %s now; letting go of it", runner.instance.name, node_id)
        await self.supervisor.let_go(*past)

    @property
    def _roster(self) -> Roster:
        return self.supervisor.roster

    async def _touch(self) -> None:
        used = self.tokens.touches()
        if used:
            await self.store.touch_tokens(used)

    async def _note_memory(self) -> None:
        used: dict[str, float] = {}
        for runner in self.supervisor.runners():
            if runner.pid is not None and runner.last_sample is not None:
                owner = runner.instance.owner
                used[owner] = used.get(owner, 0.0) + runner.last_sample.memory_mb
        self._accounts.note_memory(used)

    async def _account(self) -> None:
        """Have written what owners have used, and hear what others have added: in between nothing may be taken."""
        if self.journal is None:
            return
        for more in self._accounts.take():
            self.journal.usage(more)
        if await self.journal.flush(ACCOUNT_FLUSH_S):
            await self._read_accounts()

    async def _read_accounts(self) -> None:
        self._accounts.found(await self.store.usage_days(self._accounts.date))

    @property
    def _accounts(self) -> Accounts:
        return self.supervisor.around.accounts

    async def _retain(self) -> None:
        await self.store.retain(Retention.from_config(self.config))

    async def _every(self, seconds: float, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do `work` now and again; while the database is away it waits for the next turn."""
        while True:
            try:
                await work()
            except StorageUnavailable as away:
                log.debug("put off: %s", away)
            except CorralError:
                # A row that the database refuses, or one that is gone: this turn's work, not the control plane's end.
                log.exception("%s failed; it is tried again in %g s", work.__name__, seconds)
            await trio.sleep(seconds)


def _is_other(written: Instance | None, known: Instance) -> bool:
    if written is None:
        return known.desired is not Desired.DELETED
    return (written.desired, written.spec.revision) != (known.desired, known.spec.revision)


def _age_s(instance: Instance) -> float:
    return (datetime.now(UTC) - instance.created_at).total_seconds()
