"""What an owner may use, and whether something is still within it. Pure.

The operator's settings hold for everybody; an administrator may say something else for one user (`Overrides`). A
quota says how much an owner may have or use in all, and may be set to anything; a ceiling says how much one instance
may ask for, and is never above the operator's. Days are those of UTC.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from attrs import frozen

from controlplane.errors import QuotaExceeded

UNLIMITED = 0
"""As the value of a quota: no limit. `instances` and the ceilings of an instance have one always."""
DAY_S = 86_400
"""Unix time has days of the same length; leap seconds are not in it."""
MB_BYTES = 2**20
"""`mb_per_day` counts MiB, as every name that ends in `mb` does."""
LEAST = {
    "instances": 1,
    "instance_memory_mb": 16,
    "instance_cpu_percent": 1,
    "instance_disk_mb": 1,
    "instance_processes": 1,
    "instance_open_files": 64,
}
"""As for the settings; all others may be 0."""
CEILINGS = (
    "instance_memory_mb",
    "instance_cpu_percent",
    "instance_disk_mb",
    "instance_processes",
    "instance_open_files",
)


@frozen(kw_only=True)
class Overrides:
    """An administrator's word for one user. None: the operator's setting holds."""

    instances: int | None = None
    memory_mb: int | None = None
    cpu_s_per_day: int | None = None
    calls_per_day: int | None = None
    mb_per_day: int | None = None
    instance_memory_mb: int | None = None
    instance_cpu_percent: int | None = None
    instance_disk_mb: int | None = None
    instance_processes: int | None = None
    instance_open_files: int | None = None


NO_OVERRIDES = Overrides()


@frozen(kw_only=True)
class Quotas:
    """All that holds for one owner, in the units of the names.

    `memory_mb` is for the memory limits of all instances that are to run, added up; `mb_per_day` for requests and
    answers together.
    """

    instances: int
    memory_mb: int = UNLIMITED
    cpu_s_per_day: int = UNLIMITED
    calls_per_day: int = UNLIMITED
    mb_per_day: int = UNLIMITED
    instance_memory_mb: int
    instance_cpu_percent: int
    instance_disk_mb: int
    instance_processes: int
    instance_open_files: int

    @property
    def bounds_days(self) -> bool:
        """Whether there is any quota that a day can use up."""
        return bool(self.cpu_s_per_day or self.calls_per_day or self.mb_per_day)


def in_force(operator: Quotas, own: Overrides) -> Quotas:
    """What holds for one user. A ceiling that the operator has lowered since holds all the same."""
    said = attrs.asdict(own, filter=lambda _, value: value is not None)
    lowest = {name: min(value, getattr(operator, name)) for name, value in said.items() if name in CEILINGS}
    return attrs.evolve(operator, **said | lowest)


def wrong_overrides(operator: Quotas, wanted: Mapping[str, int | None]) -> dict[str, str]:
    """What of `wanted` cannot be said for a user, by name, and why."""
    wrong = {}
    for name, value in wanted.items():
        least, most = LEAST.get(name, UNLIMITED), getattr(operator, name)
        if value is not None and value < least:
            wrong[name] = f"must be at least {least}"
        elif value is not None and name in CEILINGS and value > most:
            wrong[name] = f"{value:,} is above this control plane's ceiling of {most:,}"
    return wrong


@frozen
class Exceeded:
    """Why something is refused: `used` of `limit`, in the unit that the quota's name ends in."""

    quota: str
    used: float
    limit: int


def day_exceeded(quotas: Quotas, *, calls: int, cpu_s: float, size_bytes: int) -> Exceeded | None:
    """Whether one more call is too many, after this much on the same day; the first quota that says so."""
    if quotas.calls_per_day and calls >= quotas.calls_per_day:
        return Exceeded("calls_per_day", calls, quotas.calls_per_day)
    if quotas.cpu_s_per_day and cpu_s >= quotas.cpu_s_per_day:
        return Exceeded("cpu_s_per_day", round(cpu_s, 1), quotas.cpu_s_per_day)
    if quotas.mb_per_day and size_bytes >= quotas.mb_per_day * MB_BYTES:
        return Exceeded("mb_per_day", round(size_bytes / MB_BYTES, 2), quotas.mb_per_day)
    return None


def memory_exceeded(limit_mb: int, *, others_mb: int, before_mb: int, wanted_mb: int) -> Exceeded | None:
    """Whether an instance may have `wanted_mb` from now on.

    Args:
        limit_mb: The owner's quota.
        others_mb: The limits of the owner's other instances that are to run.
        before_mb: What this one counts with until now; 0 for one that is not to run.
    """
    if limit_mb == UNLIMITED or wanted_mb <= before_mb or others_mb + wanted_mb <= limit_mb:
        return None  # who asks for less is let, also while what there is exceeds a quota that was lowered
    return Exceeded("memory_mb", others_mb + before_mb, limit_mb)


def day_of(unix_s: float) -> int:
    """The day that a time belongs to, counted from 1970-01-01."""
    return int(unix_s // DAY_S)


def until_next_day_s(unix_s: float) -> float:
    """Seconds to the next midnight, UTC."""
    return DAY_S - unix_s % DAY_S


def refusal_of_day(exceeded: Exceeded, wait_s: float) -> QuotaExceeded:
    """What a caller is told who comes after a day's quota was used up; it begins anew in `wait_s` seconds."""
    return QuotaExceeded(
        f"the owner's quota {exceeded.quota} is used up for today: {exceeded.used:,g} of {exceeded.limit:,}",
        hint="it begins anew at midnight UTC; an administrator may raise it: corral user quota",
        retry_after_s=wait_s,
        evidence=_members(exceeded),
    )


def refusal_of_memory(exceeded: Exceeded, wanted_mb: int) -> QuotaExceeded:
    """What is said to whoever asks for more memory than the owner's quota leaves."""
    return QuotaExceeded(
        f"the quota memory_mb does not allow {wanted_mb:,} MiB more than the other instances may use: "
        f"{exceeded.used:,g} of {exceeded.limit:,} are taken",
        hint="ask for less with limits.memory_mb, or stop an instance; an administrator may raise it: corral user quota",
        evidence=_members(exceeded) | {"wanted": wanted_mb},
    )


def refusal_of_instances(used: int, limit: int) -> QuotaExceeded:
    """What is said to whoever has as many instances as may be."""
    return QuotaExceeded(
        f"the quota instances is used up: {used} of {limit}",
        hint="delete an instance; an administrator may raise it: corral user quota",
        evidence=_members(Exceeded("instances", used, limit)),
    )


def _members(exceeded: Exceeded) -> dict[str, str | float]:
    return {"quota": exceeded.quota, "used": exceeded.used, "limit": exceeded.limit}
