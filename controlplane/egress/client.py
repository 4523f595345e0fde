"""The control plane's side of the egress process: keeps it running, admits sandboxes to it and drops them, hears what it tells.

The sockets of every sandbox stay here as well: a process that died is started again and gets them all, and what the
sandboxes asked for meanwhile has waited in them. Connections that were open are lost.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from controlplane.egress import orders
from controlplane.spawn import messages, netns
from controlplane.spawn.client import JobSpec, LeftOvers, SpawnFailed

if TYPE_CHECKING:
    from controlplane.egress.policy import Policy
    from controlplane.spawn.client import Spawner

log = logging.getLogger(__name__)

MODULE = "controlplane.egress"
PASSED = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "PATH", "LANG", "LOCALDOMAIN")
"""What the process sees of the control plane's environment."""
MAX_OPEN_FILES = 65536
"""Two for each connection and each sandbox; the host's hard limit holds as well."""
GATE_LIMIT_S = 30.0
"""From `admit` to the sandbox's sockets: the spawner gives a start up after 15 s."""
FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0
"""Pause before a process that died is started again; doubles."""
HEALTHY_S = 10.0
"""A run of this length makes the next pause the first one again."""
READ_BYTES = 65536

OnRefused = Callable[[str, str, int, str], None]
"""Key, host, port (0: a name was looked up) and reason."""


@define(eq=False)
class _Sandbox:
    """One that may reach out, from its `admit` to its `drop`."""

    policy: Policy
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    fds: list[int] = field(factory=list, init=False)
    """Its listener and its DNS socket, once they have come."""

    def close(self) -> None:
        self.scope.cancel()
        while self.fds:
            os.close(self.fds.pop())


@define(eq=False)
class Egress:
    """The way out for sandboxes. Made by `open_egress`."""

    _spawner: Spawner = field(repr=False)
    _environ: Mapping[str, str] = field(repr=False)
    _nursery: trio.Nursery = field(repr=False)
    _on_refused: OnRefused = field(repr=False)
    restarts: int = field(default=0, init=False)
    """Times the process died, or could not be started."""
    _sandboxes: dict[str, _Sandbox] = field(factory=dict, init=False, repr=False)
    _is_closed: bool = field(default=False, init=False)
    _changed: trio.Event = field(factory=trio.Event, init=False, repr=False)

    def admit(self, key: str, policy: Policy) -> int:
        """Let a sandbox out as far as its policy goes, from when it has sent its sockets (`netns.open_gate`).

        Returns:
            The descriptor that it sends them over: the caller hands it to the child, and closes it.

        Raises:
            OSError: no descriptor is left, or egress is closed.
        """
        if self._is_closed:
            raise OSError(errno.ESHUTDOWN, "the way out is closed: Corral is stopping")
        self.drop(key)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        sandbox = self._sandboxes[key] = _Sandbox(policy)
        self._nursery.start_soon(self._take_sockets, key, sandbox, ours)
        return theirs.detach()

    def drop(self, key: str) -> None:
        """Cut a sandbox off; does nothing for one that was never admitted."""
        sandbox = self._sandboxes.pop(key, None)
        if sandbox is not None:
            sandbox.close()
            self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _take_sockets(self, key: str, sandbox: _Sandbox, report: socket.socket) -> None:
        """Wait for what the child sends; one that ends before has no need of a gate."""
        received: list[int] = []
        with report, sandbox.scope, trio.move_on_after(GATE_LIMIT_S):
            await trio.lowlevel.wait_readable(report)
            with suppress(OSError):
                received = socket.recv_fds(report, len(netns.GATE_MESSAGE), 2, socket.MSG_CMSG_CLOEXEC)[1]
        if len(received) == 2 and self._sandboxes.get(key) is sandbox:
            sandbox.fds = received
            self._note_change()
            return
        for fd in received:
            os.close(fd)
        if self._sandboxes.get(key) is sandbox:
            del self._sandboxes[key]

    # The process

    async def _keep(self) -> None:
        """Service loop."""
        pause = FIRST_RETRY_S
        while True:
            began = trio.current_time()
            try:
                await self._run_once()
            except* (SpawnFailed, LeftOvers, OSError) as failures:
                for failure in failures.exceptions:
                    log.error("the egress process cannot be kept running: %s", failure)
            self.restarts += 1
            if trio.current_time() - began > HEALTHY_S:
                pause = FIRST_RETRY_S
            await trio.sleep(pause)
            pause = min(pause * 2, LONGEST_RETRY_S)

    async def _run_once(self) -> None:
        job = await self._spawner.spawn(self._spec())
        try:
            with socket.socket(fileno=os.dup(job.stdin_fd)) as control:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_drain, job.stdout_fd)
                    nursery.start_soon(_drain, job.stderr_fd)
                    nursery.start_soon(self._hear, control)
                    nursery.start_soon(self._tell, control)
                    ended = await job.wait()
                    nursery.cancel_scope.cancel()
            log.error("the egress process ended with %d; starting another", ended.code)
        finally:
            with trio.CancelScope(shield=True):  # bounded by the kill's own limit
                try:
                    await job.kill_all()
                finally:
                    job.close_fds()

    def _spec(self) -> JobSpec:
        return JobSpec(
            argv=(sys.executable, "-I", "-m", MODULE),
            env={name: self._environ[name] for name in PASSED if name in self._environ},
            cwd="/",
            kind="service",
            rlimits={"NOFILE": MAX_OPEN_FILES},
            stdin_socket=True,
        )

    async def _tell(self, control: socket.socket) -> None:
        """Bring what one process knows in line with what is admitted, again and again."""
        told: dict[str, _Sandbox] = {}
        while True:
            changed = self._changed
            order = self._next_order(told)
            if order is None:
                await changed.wait()
                continue
            await trio.lowlevel.wait_writable(control)
            order = self._next_order(told)  # as it is now
            if order is None:
                continue
            op, key = order
            try:
                self._send(control, op, key)
            except BlockingIOError:
                continue
            except ConnectionError:
                return  # it has ended, which `_run_once` sees
            except OSError as error:  # no descriptor is left, here or on the way
                log.error("the egress process cannot be told of a sandbox: %s", error)
                await trio.sleep(FIRST_RETRY_S)
                continue
            if op == "admit":
                told[key] = self._sandboxes[key]
            else:
                del told[key]

    def _next_order(self, told: Mapping[str, _Sandbox]) -> tuple[str, str] | None:
        """What to say next. Those that go come first: their sockets shall not stay open."""
        for key, sandbox in told.items():
            if self._sandboxes.get(key) is not sandbox:
                return "drop", key
        for key, sandbox in self._sandboxes.items():
            if sandbox.fds and key not in told:
                return "admit", key
        return None

    def _send(self, control: socket.socket, op: str, key: str) -> None:
        packet = messages.encode({"op": op, "key": key})
        if op == "drop":
            messages.send(control, packet)
            return
        sandbox = self._sandboxes[key]
        policy_fd = orders.to_memfd(sandbox.policy)
        try:
            messages.send(control, packet, [policy_fd, *sandbox.fds])
        finally:
            os.close(policy_fd)

    async def _hear(self, control: socket.socket) -> None:
        while True:
            try:
                received = messages.receive(control)
                if received is None:
                    return
                self._on_event(received[0])
            except BlockingIOError:
                await trio.lowlevel.wait_readable(control)
            except OSError:
                return
            except (KeyError, ValueError):  # it reads what strangers send: nothing that it says may end us
                log.exception("the egress process tells what cannot be understood")

    def _on_event(self, event: dict[str, Any]) -> None:
        match event["ev"]:
            case "refused":
                self._on_refused(event["key"], event["host"], event["port"], event["reason"])

    def _close(self) -> None:
        self._is_closed = True
        for key in list(self._sandboxes):
            self.drop(key)


async def _drain(fd: int) -> None:
    """What the process prints goes to the control plane's own log."""
    while True:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(fd)
            continue
        if not data:
            return
        for line in data.decode(errors="replace").splitlines():
            log.warning("the egress process says: %s", line)


@asynccontextmanager
async def open_egress(spawner: Spawner, *, environ: Mapping[str, str], on_refused: OnRefused) -> AsyncIterator[Egress]:
    """Keep the egress process running for the length of the block.

    Args:
        spawner: Starts it.
        environ: The control plane's: HTTPS_PROXY and its like lead out.
        on_refused: Told what a sandbox may not reach, not more than `notices` lets through.
    """
    async with trio.open_nursery() as nursery:
        egress = Egress(spawner, environ, nursery, on_refused)
        nursery.start_soon(egress._keep)
        try:
            yield egress
        finally:
            nursery.cancel_scope.cancel()
            egress._close()
