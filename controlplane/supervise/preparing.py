"""One preparing of an instance: its time limit, its slots, and who hears of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING

import trio
from attrs import define, evolve, field

from controlplane.core.redact import redactor
from controlplane.errors import BuildFailed

if TYPE_CHECKING:
    from controlplane.core.redact import Redactor
    from controlplane.model import Instance, Spec
    from controlplane.supervise.launch import Launch
    from controlplane.supervise.logbook import Logbook
    from controlplane.supervise.runner import Surroundings
    from controlplane.supervise.scheduler import StartSlot


@define(eq=False)
class Preparing:
    """Prepares once, under a start slot that is held already. A `launch.Progress`."""

    around: Surroundings
    slot: StartSlot
    told: Callable[[str], None]
    logbook: Logbook
    launch: Launch | None = field(default=None, init=False)
    """What was prepared, also where nobody waited for a slot to run it."""
    _time: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _is_work: bool = field(default=False, init=False)

    async def run(self, instance: Instance) -> Launch:
        """Returns with a start slot held, whatever was held meanwhile.

        Raises:
            CorralError: see `launch.Prepare`; BuildFailed also when it took too long.
        """
        limit = self.around.config.build_timeout_s
        with self._time:
            self._time.deadline = trio.current_time() + limit
            prepared = await self.around.prepare.prepare(instance, self)
            self.launch = launch = evolve(prepared, revision=instance.spec.revision)
            self.logbook.redact = _redactor(instance.spec, launch)
        if self._time.cancelled_caught:
            raise BuildFailed(f"preparing took longer than {limit:g} s")
        await self.slot.acquire()
        return launch

    # -- launch.Progress

    def phase(self, phase: str, detail: str) -> None:
        """A step begins."""
        self.told(f"{phase}: {detail}" if detail else phase)

    def output(self, line: bytes) -> None:
        """A tool has printed a line."""
        self.logbook.printed("build", line)

    async def begin_work(self, turn: Callable[[], Awaitable[None]] | None = None) -> None:
        """Wait for a turn without any slot, and then for a build slot; the time for the work begins anew then."""
        if self._is_work:
            return
        self._is_work = True
        self._time.deadline = inf
        if turn is not None:
            self.slot.release()
            await turn()
        await self.slot.acquire_build()
        self._time.deadline = trio.current_time() + self.around.config.build_timeout_s


def _redactor(spec: Spec, launch: Launch) -> Redactor:
    """Hides what the process will know: its owner's variables as they are filled in, and the secrets in them."""
    return redactor({name: launch.env.get(name, value) for name, value in spec.env.items()}, launch.secrets)
