"""What the API answers about an owner's use, and what bounds it."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from controlplane.wire.answers import RoleName  # noqa: TC001  (the schema is read from the annotations)
from controlplane.wire.fields import bounded

Scope = Literal["owner", "token", "instance", "service"]


@frozen(kw_only=True)
class QuotaOut:
    """One thing that is used, and how much of it may be."""

    name: str = bounded(description="A stable word, for example `instances` or `memory`.")
    used: float | None = bounded(None, description="Now; null: it is not counted, only bounded.")
    limit: float | None = bounded(None, description="Null: it is not bounded.")
    unit: str = bounded(description="For example `MiB`, `percent` (100 is one core) or `calls/s`.")
    scope: Scope = bounded(
        description="What the limit is for: all that an owner has, each token or instance, or everybody."
    )


@frozen(kw_only=True)
class OwnerUsageOut:
    """What the instances of one owner add up to."""

    name: str
    instances: int
    running: int
    memory_mb: float = bounded(description="At the last samples, MiB.")
    cpu_percent: float = bounded(description="At the last samples; 100 is one core.")
    processes: int
    calls: int = bounded(description="Since the control plane started, of instances that are there.")
    errors: int = bounded(description="Calls among them that failed.")


@frozen(kw_only=True)
class UsageDayOut:
    """What an owner's instances used on one day."""

    day: str = bounded(description="`2026-11-30`, in UTC.")
    cpu_s: float = bounded(description="Processor time, seconds of one core.")
    calls: int = bounded(description="Calls that were sent to a server.")
    errors: int = bounded(description="Calls among them that failed.")
    bytes_in: int = bounded(description="Bodies of requests.")
    bytes_out: int = bounded(description="Bodies of answers.")
    peak_memory_mb: float = bounded(description="The most that all instances used together, MiB.")


@frozen(kw_only=True)
class UsageOut:
    """An owner's use. More quotas may come: go by their names."""

    owner: str
    role: RoleName = bounded(description="The caller's own; of another owner: the ceiling of all the owner's tokens.")
    quotas: list[QuotaOut]
    total: OwnerUsageOut = bounded(description="What the owner's instances add up to.")
    days: list[UsageDayOut] = bounded(
        [], description="Newest first, as many as were asked for; a day on which nothing was used is left out."
    )
    owners: list[OwnerUsageOut] = bounded(
        [], description="For administrators who name no owner: everybody who has instances, by name."
    )
