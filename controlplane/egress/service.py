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

TRAFFIC_INTERVAL_S = 2.0
"""Between two tellings of how much went through."""


@define(eq=False)
class Service:
    """Serves `control`, a non-blocking SOCK_SEQPACKET socket, until its other end is closed."""

    control: socket.socket
    outside: Outside
    _gates: dict[str, tuple[Gate, trio.CancelScope]] = field(factory=dict, init=False, repr=False)
    _told: dict[str, tuple[int, int]] = field(factory=dict, init=False, repr=False)
    """Traffic, by key, as last told."""

    async def run(self) -> None:
        """Service loop."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_traffic)
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
                scope = trio.CancelScope()
                self._gates[key] = gate, scope
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
            gate, scope = self._gates.pop(key)
            scope.cancel()
            self._tell_one(key, gate)
            self._told.pop(key, None)

    # Telling

    def _tell_refused(self, key: str, notices: Notices, host: str, port: int, reason: str) -> None:
        if notices.is_news(host, port, trio.current_time()):
            self._tell(ev="refused", key=key, host=host, port=port, reason=reason)

    async def _tell_traffic(self) -> None:
        while True:
            await trio.sleep(TRAFFIC_INTERVAL_S)
            for key, (gate, _scope) in self._gates.items():
                self._tell_one(key, gate)

    def _tell_one(self, key: str, gate: Gate) -> None:
        sums = gate.bytes_in, gate.bytes_out
        if sums != self._told.get(key, (0, 0)):
            self._told[key] = sums
            self._tell(ev="traffic", key=key, bytes_in=sums[0], bytes_out=sums[1])

    def _tell(self, **event: Any) -> None:
        """A control plane that does not read misses some: refusals come again, traffic is told in sums."""
        with suppress(OSError):
            messages.send(self.control, messages.encode(event))
