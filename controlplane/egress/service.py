"""The egress process: gates for all instances, admitted and dropped by the control plane over one socket."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from controlplane.egress import orders
from controlplane.egress.gate import Gate
from controlplane.egress.notices import Notices
from controlplane.spawn import messages

if TYPE_CHECKING:
    from controlplane.egress.outside import Outside

log = logging.getLogger(__name__)


@define(eq=False)
class Service:
    """Serves `control`, a non-blocking SOCK_SEQPACKET socket, until its other end is closed."""

    control: socket.socket
    outside: Outside
    _gates: dict[str, trio.CancelScope] = field(factory=dict, init=False, repr=False)
    """What ends each, by key."""

    async def run(self) -> None:
        """Service loop."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    received = messages.receive(self.control)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self.control)
                    continue
                except OSError:
                    break
                if received is None:
                    break
                self._obey(nursery, *received)
            nursery.cancel_scope.cancel()

    def _obey(self, nursery: trio.Nursery, order: dict[str, Any], fds: list[int]) -> None:
        match order["op"]:
            case "admit" if len(fds) == 3:
                policy_fd, *sockets = fds
                policy = orders.from_memfd(policy_fd)
                os.close(policy_fd)
                key = order["key"]
                self._drop(key)
                gate = Gate(key, policy, self.outside, partial(self._tell_refused, key, Notices()))
                scope = self._gates[key] = trio.CancelScope()
                listener, names = (socket.socket(fileno=fd) for fd in sockets)
                nursery.start_soon(self._keep, key, gate, scope, listener, names)
            case "drop":
                self._drop(order["key"])

    async def _keep(
        self, key: str, gate: Gate, scope: trio.CancelScope, listener: socket.socket, names: socket.socket
    ) -> None:
        """Run one gate; its failure is no other's."""
        with scope, listener, names:
            try:
                await gate.run(listener, names)
            except* Exception:
                log.exception("the gate of %s failed", key)

    def _drop(self, key: str) -> None:
        if key in self._gates:
            self._gates.pop(key).cancel()

    # Telling

    def _tell_refused(self, key: str, notices: Notices, host: str, port: int, reason: str) -> None:
        if notices.is_news(host, port, trio.current_time()):
            self._tell(ev="refused", key=key, host=host, port=port, reason=reason)

    def _tell(self, **event: Any) -> None:
        """A control plane that does not read misses some: refusals come again."""
        with suppress(OSError):
            messages.send(self.control, messages.encode(event))
