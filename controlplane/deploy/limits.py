"""What an instance's limits are to the kernel, process by process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

if TYPE_CHECKING:
    from controlplane.config import Config
    from controlplane.model import Limits

MIN_DATA_MB = 512
"""Node does not start below this RLIMIT_DATA; a smaller memory limit is the watchdog's business."""
MIB = 2**20


def rlimits_of(limits: Limits, *, own_user: bool, has_group: bool = False) -> dict[str, int]:
    """Resource limits by name, for instances and builds alike.

    Args:
        limits: The ceilings asked for.
        own_user: RLIMIT_NPROC counts per user, so it means something only where the job has one of its own.
        has_group: A control group holds memory and processes, of the whole tree and as they are used; these would only
            be in the way of programs that set much aside and use little of it.
    """
    rlimits = {"NOFILE": limits.open_files, "FSIZE": limits.disk_mb * MIB}
    if has_group:
        return rlimits
    rlimits["DATA"] = max(MIN_DATA_MB, limits.memory_mb) * MIB
    return rlimits | ({"NPROC": limits.processes} if own_user else {})


def within(limits: Limits, config: Config) -> Limits:
    """These limits, none above its ceiling: one that was lowered since they were asked for holds from the next revision on."""
    return evolve(
        limits,
        memory_mb=min(limits.memory_mb, config.max_memory_mb),
        cpu_percent=min(limits.cpu_percent, config.max_cpu_percent),
        disk_mb=min(limits.disk_mb, config.max_disk_usage_mb),
        processes=min(limits.processes, config.max_processes),
        open_files=min(limits.open_files, config.max_open_files),
        call_timeout_s=min(limits.call_timeout_s, config.max_call_timeout_s),
    )
