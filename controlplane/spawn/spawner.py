"""The only place that forks: a small single-threaded process beside the control plane.

    python -I -S spawner.py FD MARKER

It starts processes, tells how they end, and kills them; it decides nothing. As
a child subreaper it inherits every orphan below it, and when its control socket
closes, for whatever reason, it kills all that it ever started and ends itself,
within two seconds. It does the same to all but services when its fence falls: the time that it was
told last, until which they may live. So a control plane that is frozen keeps nothing that another
one may have taken over. Standard library only: it starts in 30 ms, stays small and forks fast.

FD is the control socket (see `messages`). MARKER is the owner's id: a later life
of the control plane recognises this process by it, and control groups are named for it.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # -I and -S leave out both this folder and site-packages; our own stdlib-only modules come last.
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from controlplane.spawn import cgroups, confine, landlock, linux, messages, probe, trials
from controlplane.spawn.groups import Groups
from controlplane.spawn.jobtable import Job, Jobs

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE_GRACE_S = 1.5
"""Time for a service to stop by itself once the control socket has closed."""
CLOSE_LIMIT_S = 1.9
"""All is over by then: what cannot be killed is left to the next life's sweep."""
CLOSE_PAUSE_S = 0.02
"""Between two looks at whether all is over."""
TRIALS_LIMIT_S = 1.0
"""What has not ended by then is killed as an orphan."""
WAKEUP_BYTES = 4096


class Server:
    """The loop, the control socket and its requests."""

    def __init__(self, control: socket.socket, host: confine.Host, features: dict[str, Any]) -> None:
        self.control = control
        self.parent = os.getppid()
        self.host = host
        self.features = features
        self.groups = None if host.hierarchy is None else Groups(host.hierarchy)
        self.outbox: deque[bytes] = deque()
        self.deferred: deque[tuple[dict[str, Any], list[int]]] = deque()
        self.closing_at: float | None = None
        self.fence: float | None = None
        """By `messages.fence_clock`; None: none was ever set."""
        self.wakeup, wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)  # it ends when its control plane does, not before
        self.selector = selectors.DefaultSelector()
        private_fds = (control.fileno(), self.wakeup, wakeup_end)
        self.jobs = Jobs(self.tell, self.selector.unregister, private_fds, self.groups)
        self.selector.register(control, selectors.EVENT_READ, self.listen)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self.drain_wakeup)
        self.requests: dict[str, Callable[[dict[str, Any], list[int]], None]] = {
            "spawn": self.spawn,
            "signal": lambda message, _fds: self.jobs.signal(message["job"], message["sig"]),
            "kill": lambda message, _fds: self.kill(message["job"]),
            "fence": lambda message, _fds: self.set_fence(message["until"]),
            "ping": lambda _message, _fds: self.tell(ev="pong"),
        }

    def serve(self) -> None:
        """Until the control socket has closed and nothing is left."""
        self.tell(ev="hello", features=self.features)
        self.flush()
        while not self.is_over(time.monotonic()):
            for key, _events in self.selector.select(self.timeout(time.monotonic())):
                key.data()
            self.jobs.reap()
            self.heed_fence()
            self.jobs.advance(time.monotonic())
            self.spawn_deferred()
            self.flush()
            if os.getppid() != self.parent:
                self.close()

    def timeout(self, now: float) -> float:
        pause = self.jobs.next_due(now) - now
        if self.closing_at is not None:
            pause = min(pause, CLOSE_PAUSE_S)
        if self.fence is not None and (left := self.fence - messages.fence_clock()) > 0:
            pause = min(pause, left)
        return max(0.0, pause)

    def drain_wakeup(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.wakeup, WAKEUP_BYTES)

    # What is said

    def tell(self, **message: Any) -> None:
        self.outbox.append(messages.encode(message))

    def flush(self) -> None:
        """Send what there is room for. A control plane that does not read costs memory per job, no more."""
        try:
            while self.outbox:
                messages.send(self.control, self.outbox[0])
                self.outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.outbox.clear()
        if self.closing_at is None:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.outbox else 0)
            self.selector.modify(self.control, wanted, self.listen)

    # What is asked

    def listen(self) -> None:
        while self.closing_at is None:
            try:
                received = messages.receive(self.control)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self.close()
                return
            message, fds = received
            self.requests[message["op"]](message, fds)

    def kill(self, key: str) -> None:
        for item in [item for item in self.deferred if item[0]["job"] == key]:
            self.deferred.remove(item)
            _close_all(item[1])
        self.jobs.kill(key)

    def set_fence(self, until: float | None) -> None:
        """Jobs may live until then; what has fallen already stays down. None: without an end."""
        self.heed_fence()
        self.fence = until
        self.heed_fence()

    @property
    def is_fenced(self) -> bool:
        """Whether the time is over: nothing but services may live or start."""
        return self.fence is not None and messages.fence_clock() >= self.fence

    def heed_fence(self) -> None:
        """Once its time is over, begin to kill whatever may not live on."""
        if not self.is_fenced:
            return
        for job in list(self.jobs.table.values()):
            if job.kind != messages.UNFENCED_KIND and job.kill is None:
                self.jobs.kill(job.key)

    def spawn(self, message: dict[str, Any], fds: list[int]) -> None:
        """Start a job, or say why not. Takes over the descriptors."""
        key = message["job"]
        try:
            if len(fds) not in (messages.ORDER_FDS, messages.GATE_FDS):
                self.refuse(key, "descriptors", "the descriptors did not arrive: too many open files")
                return
            order = messages.from_memfd(fds[0])
            reason = confine.refusal(order, has_gate=len(fds) == messages.GATE_FDS)
            if self.is_fenced and order.kind != messages.UNFENCED_KIND:
                self.refuse(key, "fence", "this control plane may run nothing now: its lease is over")
            elif reason is not None:
                self.refuse(key, "refused", reason)
            elif self.jobs.is_emptying(order.uid):
                self.deferred.append((message, fds))
                fds = []
            else:
                self.start(key, order, fds[1:])
        except OSError as error:
            self.refuse(key, "fork", error.strerror or str(error), error.errno or 0)
        finally:
            _close_all(fds)

    def spawn_deferred(self) -> None:
        waiting, self.deferred = self.deferred, deque()
        for message, fds in waiting:
            self.spawn(message, fds)

    def refuse(self, key: str, stage: str, message: str, number: int = 0) -> None:
        self.tell(ev="failed", job=key, stage=stage, errno=number, message=message)

    def start(self, key: str, order: messages.Order, passed: list[int]) -> None:
        """Fork. `passed`: standard input, output and error, and the gate's socket if there is one."""
        if not self.features["private_tmp"] and order.confinement.level != "namespaced":
            order = order._replace(private_tmp=None)
        group = order.confinement.group
        if group is not None and self.groups is not None:
            self.groups.admit(key, group.name, cgroups.GroupLimits(*group[1:]))
        stdio, gate_fd = passed[:3], passed[3] if len(passed) > 3 else -1
        report_fd, child_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        spawner = os.getpid()
        try:
            pid = os.fork()
            if pid == 0:
                confine.become(confine.Child(order, stdio, child_end, gate_fd, spawner, self.host))
        except OSError:
            os.close(report_fd)
            if self.groups is not None:
                self.groups.dismiss(key)
            raise
        finally:
            os.close(child_end)
        job = self.jobs.table[key] = Job(key, order, pid, report_fd)
        self.selector.register(report_fd, selectors.EVENT_READ, partial(self.jobs.settle, job))

    # The end

    def close(self) -> None:
        """The control plane is gone or has let go: nothing may outlive it."""
        if self.closing_at is not None:
            return
        self.closing_at = time.monotonic()
        self.selector.unregister(self.control)
        while self.deferred:
            _close_all(self.deferred.popleft()[1])
        for job in list(self.jobs.table.values()):
            if job.kind == "service" and job.is_live:
                with suppress(ProcessLookupError):
                    os.kill(job.pid, job.stop_signal)
            else:
                self.jobs.kill(job.key)

    def is_over(self, now: float) -> bool:
        if self.closing_at is None:
            return False
        elapsed = now - self.closing_at
        for job in list(self.jobs.table.values()):
            if job.kill is None and (elapsed >= SERVICE_GRACE_S or not job.is_live):
                self.jobs.kill(job.key)
        self.jobs.tick_at = min(self.jobs.tick_at, now + CLOSE_PAUSE_S)
        is_late = elapsed >= CLOSE_LIMIT_S
        if self.groups is not None and (self.jobs.is_empty or is_late):
            self.groups.dismiss_all()
        return is_late or (self.jobs.is_empty and (self.groups is None or self.groups.is_settled))


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _look_around(marker: str) -> tuple[confine.Host, dict[str, Any]]:
    """What this host can give; see `job.Features`. Before `hurry`, under which some kernels share out no CPU time."""
    hierarchy = cgroups.find(marker)
    host = probe.look(hierarchy)
    levels = [verdict._asdict() for verdict in probe.levels(host)]
    _wait_for_trials()
    return host, {
        "private_tmp": trials.works(trials.try_private_tmp),
        "userns_root": trials.works(trials.try_userns_root),
        "levels": levels,
        "landlock": landlock.abi(),
        "hierarchy": None if hierarchy is None else hierarchy._asdict(),
    }


def _wait_for_trials() -> None:
    """What bubblewrap leaves ends by itself a moment after it, and is this process's to reap."""
    deadline = time.monotonic() + TRIALS_LIMIT_S
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(CLOSE_PAUSE_S / 10)


def main() -> None:
    """Run until the control plane goes."""
    linux.prctl(linux.PR_SET_DUMPABLE, 0)  # its memory holds environments; nobody may look into it
    linux.set_subreaper(True)
    host, features = _look_around(sys.argv[2])
    linux.hurry()
    control = socket.socket(fileno=int(sys.argv[1]))
    control.setblocking(False)
    os.set_inheritable(control.fileno(), False)
    os.umask(confine.UMASK)
    Server(control, host, features).serve()


if __name__ == "__main__":
    main()
