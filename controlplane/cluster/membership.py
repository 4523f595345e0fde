"""This node's membership: it takes the lease, renews it, takes what dead nodes held, and lets go of what it lost.

What it may run, and until when, it tells the spawner, which keeps to it whatever becomes of us. While the database is
away it asks the other nodes whether they can renew (`lease.decide`). On the embedded database it is alone: nobody
could take anything, so it has no fence and renews nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Protocol

import trio
from attrs import define, field

from controlplane.cluster import lease
from controlplane.cluster.lease import Blind, Standing
from controlplane.errors import CorralError
from controlplane.model import Node
from controlplane.secretbox import SecretUnreadable
from controlplane.spawn.messages import fence_clock

if TYPE_CHECKING:
    from controlplane.cluster.asking import Asker
    from controlplane.cluster.roster import Roster
    from controlplane.store.base import Store

BLIND_PAUSE_S = 0.5
"""Between two attempts to renew while the last one failed."""
LET_GO_S = 0.3
"""So long before the fence falls what runs is let go of, that its end is told as what it is, and not as a crash."""
RELEASE_LIMIT_S = 1.0
"""At the end of a stop, which is bounded as a whole."""
FORGET_EVERY_S = 3600.0
log = logging.getLogger("corral.cluster")


class Fence(Protocol):
    """The spawner."""

    on_fenced: Callable[[], None] | None

    def set_fence(self, until: float | None, /) -> None: ...


class Holdings(Protocol):
    """Who runs what this node holds."""

    async def read_again(self) -> None:
        """Who holds what has changed: run what is this node's, let go of the rest. May put it off."""

    def give_up_all(self) -> None:
        """This node may run nothing: begin to end all of it, and tell nobody how it ends."""

    async def let_go_of_all(self) -> None:
        """As `give_up_all`; returns when nothing is left. Until `take_up`, nothing is run."""

    async def take_up(self) -> None:
        """It may again: run what is this node's now."""


@define(eq=False)
class Membership:
    """`run` takes the lease and keeps it, before anything is read; `attach` says who runs things; `release` is for the end.

    Args:
        roster: Knows this node's id; is told of the others.
        url: Where they reach this one.
        archives: Gives `<owner>/<sha256>` of every upload that this node has.
    """

    store: Store
    roster: Roster
    fence: Fence
    asker: Asker
    version: str
    url: str
    archives: Callable[[], Awaitable[Collection[str]]]
    standing: Standing | None = field(default=None, init=False)
    _holdings: Holdings | None = field(default=None, init=False)
    _until: float = field(default=0.0, init=False)
    """The fence as the spawner knows it."""
    _is_down: bool = field(default=False, init=False)
    """Nothing may run here: the fence has fallen, or the lease was lost."""
    _is_deposed: bool = field(default=False, init=False)
    """The lease is not this node's any more: others may have taken what it held."""
    _free_since: float | None = field(default=None, init=False)
    """When an instance was first found that nobody runs; None: there is none."""
    _takes: bool = field(default=True, init=False)
    _has_heir: bool = field(default=False, init=False)
    _is_locked_out: bool = field(default=False, init=False)
    """Told already that the key is another now."""
    _is_over: bool = field(default=False, init=False)
    _renewing: trio.Lock = field(factory=trio.Lock, init=False)
    _wake: trio.Event = field(factory=trio.Event, init=False)
    _moved: trio.Event = field(factory=trio.Event, init=False)
    """The fence was set anew."""

    @property
    def runs(self) -> bool:
        """Whether processes may live here."""
        return self.roster.is_alone or not (self._is_down or self._is_over or fence_clock() >= self._until)

    @property
    def lease_left_s(self) -> float | None:
        """How long the lease stands, in seconds, unless it is renewed; 0: it has ended. None: there is none to lose."""
        if self.roster.is_alone or self.standing is None:
            return None
        if self._is_deposed or self._is_over:
            return 0.0
        return max(0.0, self.standing.sent + lease.LEASE_S - fence_clock())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Service loop; survives an absent database.

        It has started once it has the lease, and with it what this node held before and what nobody holds.

        Raises:
            StorageUnavailable: before that.
        """
        await self._take_lease()
        if not self.roster.is_alone:
            self._move_fence(self._stands.fence)
            await self._claim(())
        self.roster.take_nodes(await self.store.nodes(lease.LEASE_S))
        task_status.started()
        if self.roster.is_alone:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            nursery.start_soon(self._mind_hanging)
            nursery.start_soon(self._mind_fence)
            nursery.start_soon(self._claim_again_and_again)
            nursery.start_soon(self._forget)

    async def attach(self, holdings: Holdings) -> None:
        """From now on they are told; they have read nothing yet."""
        self._holdings = holdings
        if self._is_down:
            await holdings.let_go_of_all()

    def reached_at(self, url: str) -> None:
        """It listens now, at this address."""
        if url != self.url:
            self.url = url
            self._wake.set()

    async def can_renew(self) -> bool:
        """Find out now, for another node that cannot. After a no, this one takes nothing for as long as a lease stands."""
        if self._is_over:
            return False
        with trio.move_on_after(lease.PEER_RENEW_LIMIT_S):
            return await self._renew(lease.PEER_RENEW_LIMIT_S)
        if self.standing is not None:
            self.standing = lease.failed(self.standing)  # whatever comes of the renewal that is under way
        return False

    def take_no_more(self) -> None:
        """This control plane is stopping."""
        self._takes = False

    def expect_heir(self) -> None:
        """Another control plane takes over on this home, and with it what this node holds: it is not let go of."""
        self._has_heir = True

    def fence_fell(self) -> None:
        """The spawner tells of ends, and the fence has fallen: what it killed has not crashed."""
        if not self._is_down and self._holdings is not None and not self.runs:
            self._is_down = True
            self._holdings.give_up_all()

    async def release(self) -> None:
        """Nothing runs here any more: let the others have it at once. Bounded; if it fails, they wait for the lease's end."""
        self._is_over = True
        if self.roster.is_alone or self._has_heir or self.standing is None or self._is_deposed:
            return
        with trio.move_on_after(RELEASE_LIMIT_S, shield=True):
            try:
                await self.store.release(self.roster.node_id, self.standing.epoch)
            except CorralError as error:
                log.debug("not released: %s", error)
            else:
                return
        log.warning("the database does not answer: what this node held is free when its lease ends")

    # -- the lease

    @property
    def _stands(self) -> Standing:
        assert self.standing is not None, "the lease is taken before anything else"
        return self.standing

    async def _take_lease(self) -> None:
        async with self._renewing:
            sent = fence_clock()
            node = Node(id=self.roster.node_id, url=self.url, version=self.version)
            given = await self.store.take_lease(node, lease.LEASE_S, is_alone=self.roster.is_alone)
            self._is_deposed = False
            self.standing = lease.taken(given.epoch, sent=sent, answered=fence_clock(), at=given.at)

    async def _renew(self, limit_s: float) -> bool:
        """Whether that worked."""
        async with self._renewing:
            standing = self._stands
            sent, at, is_answered = fence_clock(), None, False
            with trio.move_on_after(limit_s):
                try:
                    at = await self.store.renew_lease(self.roster.node_id, standing.epoch, self.url, lease.LEASE_S)
                    is_answered = True
                except CorralError as error:
                    log.debug("the lease cannot be renewed: %s", error)
            # From here on `_stands`: somebody may have been told meanwhile that it cannot be renewed.
            if at is None:
                self._is_deposed |= is_answered
                self.standing = lease.failed(self._stands)
                return False
            self.standing = lease.renewed(self._stands, sent=sent, answered=fence_clock(), at=at)
            if not self._is_down:
                self._move_fence(self._stands.fence)
            return True

    async def _keep(self) -> None:
        while not self._is_over:
            if self._is_deposed:
                await self._begin_anew()
            elif await self._renew(lease.RENEW_LIMIT_S):
                if self._is_down:
                    await self._rise()
            elif not self._is_deposed:
                await self._look_around()
            certain = self.standing is not None and self.standing.since is not None
            await self._pause(lease.RENEW_S if certain else BLIND_PAUSE_S)

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._wake.wait()
        self._wake = trio.Event()

    async def _look_around(self) -> None:
        """This node cannot renew: go on if none of the others can either."""
        asked = fence_clock()
        others = self.roster.others()
        words = await self.asker.ask(others)
        verdict = lease.decide(None if word is None else word.can_renew for word in words)
        log.warning("the lease cannot be renewed; of %d other nodes: %s", len(others), verdict.value)
        if verdict is Blind.GO_ON and not self._is_down:
            self._move_fence(lease.fence_after(asked))

    async def _mind_hanging(self) -> None:
        """A renewal may outlast its limit, where the driver does not let go at once: look around meanwhile as well."""
        while not self._is_over:
            await trio.sleep(BLIND_PAUSE_S)
            is_late = fence_clock() - self._stands.answered > lease.RENEW_S + lease.RENEW_LIMIT_S
            if is_late and self._renewing.locked() and not (self._is_down or self._is_deposed):
                self.standing = lease.failed(self._stands)
                await self._look_around()

    # -- the fence

    def _move_fence(self, until: float) -> None:
        self._until = max(self._until, until)
        self.fence.set_fence(self._until)
        self._moved.set()

    async def _mind_fence(self) -> None:
        """Let go in good order of what the spawner is about to kill."""
        while True:
            left = self._until - LET_GO_S - fence_clock()
            if not self._is_down and left <= 0:
                log.error("this node's lease could not be renewed: whatever runs here is ended, for others may take it")
                await self._fall()
            self._moved = trio.Event()
            with trio.move_on_after(max(left, LET_GO_S)):
                await self._moved.wait()

    async def _fall(self) -> None:
        self._is_down = True
        if self._holdings is not None:
            await self._holdings.let_go_of_all()

    async def _rise(self) -> None:
        """The lease stands again: run what is this node's, unless the others have replaced the key meanwhile."""
        if not await self._can_read():
            return
        if self._holdings is not None:
            await self._holdings.let_go_of_all()  # in case that the fall was noticed by `fence_fell` alone
        log.warning("this node's lease stands again")
        self._is_down = False
        self._move_fence(self._stands.fence)
        if self._holdings is not None:
            await self._holdings.take_up()

    async def _can_read(self) -> bool:
        """Whether what is in the database can be read with this node's key; it is asked again with the next renewal."""
        try:
            await self.store.check_keys()
        except SecretUnreadable as error:
            if not self._is_locked_out:
                log.error("nothing runs here until this node is started again with the others' key: %s", error)
            self._is_locked_out = True
            return False
        except CorralError as error:
            log.debug("the keys cannot be checked now: %s", error)
            return False
        self._is_locked_out = False
        return True

    async def _begin_anew(self) -> None:
        """Others may have taken what this node held: end all of it before anything is run again."""
        log.error("this node's lease was taken over: whatever runs here is ended")
        self._until = fence_clock()
        self.fence.set_fence(self._until)
        await self._fall()
        try:
            await self._take_lease()
        except CorralError as error:
            log.warning("no lease can be taken: %s", error)
            return
        await self._rise()

    # -- what others held

    async def _claim_again_and_again(self) -> None:
        while not self._is_over:
            took = 0
            try:
                took = await self._claim_round()
            except CorralError as error:
                log.debug("nothing can be taken now: %s", error)
            await trio.sleep(lease.CLAIM_AGAIN_S if took else lease.CLAIM_EVERY_S)

    async def _claim_round(self) -> int:
        self.roster.take_nodes(await self.store.nodes(lease.LEASE_S))
        standing = self.standing
        may = self._takes and not self._is_down
        if standing is None or not may or not lease.is_certain(standing, fence_clock()):
            return 0
        dead = await self._dead() if lease.may_take(standing, fence_clock()) else ()
        took = await self._claim(dead)
        if took and self._holdings is not None:
            await self._holdings.read_again()
        return took

    async def _dead(self) -> list[Node]:
        """Nodes whose lease has ended, but for those that live and go on because nobody they know could renew."""
        ended = [node for node in self.roster.nodes.values() if not node.is_live and node.id != self.roster.node_id]
        words = await self.asker.ask(ended)
        return [
            node for node, word in zip(ended, words, strict=True) if word is None or word.can_renew or not word.runs
        ]

    async def _claim(self, dead: Collection[Node]) -> int:
        ids = [node.id for node in dead]
        if not await self.store.is_any_free(ids):
            self._free_since = None
            return 0
        now = fence_clock()
        self._free_since = now if self._free_since is None else self._free_since
        taken = await self.store.claim(
            self.roster.node_id,
            self._stands.epoch,
            dead=ids,
            archives=await self.archives(),
            is_left=now - self._free_since >= lease.LEFT_S,
        )
        if taken:
            log.warning("took over %d instances", len(taken))
        return len(taken)

    async def _forget(self) -> None:
        while True:
            try:
                await self.store.forget_nodes(lease.FORGET_NODE_S)
            except CorralError as error:
                log.debug("put off: %s", error)
            await trio.sleep(FORGET_EVERY_S)
