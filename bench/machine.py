"""What processes and the whole machine used, from /proc: CPU seconds, memory, and what others took meanwhile.

Linux only, and only what every user may read, so that nothing here needs root.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from attrs import frozen

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
QUIET_CORES = 0.25
"""What others may take while something is measured: gateway, child and load program leave about that much of two cores."""
LOOK_S = 0.2
"""How long the machine is looked at before it counts as quiet; ticks are 10 ms."""


@frozen
class Process:
    """One line of /proc."""

    pid: int
    parent: int
    command: tuple[str, ...]


def processes() -> list[Process]:
    """Every process that is not a zombie."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
            command = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            found.append(Process(int(name), int(parent), tuple(command.decode(errors="replace").split("\0"))))
    return found


def tree(root: int) -> list[Process]:
    """A process and all that descends from it; empty when it is gone."""
    children: dict[int, list[Process]] = {}
    todo: list[Process] = []
    for process in processes():
        children.setdefault(process.parent, []).append(process)
        if process.pid == root:
            todo.append(process)
    members = []
    while todo:
        process = todo.pop()
        members.append(process)
        todo += children.get(process.pid, [])
    return members


def cpu_of(pids: Iterable[int]) -> dict[int, float]:
    """CPU seconds of each process, all its threads together, to the nanosecond (clock_getcpuclockid)."""
    used = {}
    for pid in pids:
        try:
            used[pid] = time.clock_gettime((~pid << 3) | 2)
        except OSError:
            continue
    return used


def cpu_since(before: dict[int, float], now: dict[int, float]) -> float:
    """CPU seconds that the processes of `now` used since `before`."""
    return sum(used - before.get(pid, 0.0) for pid, used in now.items())


def rss_mb(pids: Iterable[int]) -> float:
    """Resident memory in MiB, pages that processes share counted for each of them."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * PAGE_BYTES / 2**20


def busy_s() -> float:
    """CPU seconds that the whole machine has been busy, time stolen by its host included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def wait_quiet(ours: Collection[int], patience_s: float) -> None:
    """Wait until others take less than `QUIET_CORES`, or for `patience_s` at most."""
    end = time.monotonic() + patience_s
    while True:
        cpu, busy, began = cpu_of(ours), busy_s(), time.monotonic()
        time.sleep(LOOK_S)
        others = busy_s() - busy - cpu_since(cpu, cpu_of(ours))
        if others / (time.monotonic() - began) < QUIET_CORES or time.monotonic() > end:
            return


def paced(most: int, limit_s: float, *, least: int = 2) -> Iterator[int]:
    """Count to `most`; stop early after `limit_s` seconds, but not before `least`."""
    end = time.monotonic() + limit_s
    for number in range(most):
        if number >= least and time.monotonic() > end:
            return
        yield number


def description() -> str:
    """The machine in a few words."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        os.uname().machine,
    )
    memory_kb = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return f"{os.cpu_count()} cores ({model}), {memory_kb / 2**20:.0f} GiB, Linux {os.uname().release.split('-')[0]}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
