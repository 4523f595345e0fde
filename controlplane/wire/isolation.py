"""What the API says about how far instances can be shut in here."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from controlplane.wire.fields import bounded

LevelName = Literal["process", "confined", "namespaced"]
Enforcement = Literal["hard", "soft"]


@frozen(kw_only=True)
class LevelOut:
    """An isolation level, and whether this host can give it."""

    name: LevelName = bounded(description="As in a deploy's `isolation`.")
    available: bool = bounded(description="It was tried at the start, and worked.")
    why: str | None = bounded(description="What is missing; null: nothing is.")
    unlock: str | None = bounded(description="What an operator can do about that.")


@frozen(kw_only=True)
class HostLimitsOut:
    """What holds an instance to its limits."""

    driver: Literal["cgroup1", "cgroup2"] | None = bounded(
        description="The control groups in use; null: there are none, and Corral itself looks and acts."
    )
    enforcement: dict[str, Enforcement] = bounded(
        description="By limit: `hard`, the kernel holds it; `soft`, Corral looks at it and acts."
    )
    unlock: str | None = bounded(description="What would make memory, CPU and processes hard; null: they are.")


@frozen(kw_only=True)
class IsolationOut:
    """All that this host and its operator allow."""

    levels: list[LevelOut] = bounded(description="From the weakest to the strongest.")
    auto: LevelName | None = bounded(
        description="What `isolation: auto` gives; null: less than the operator demands, so it is refused."
    )
    minimum: LevelName = bounded(description="The weakest level that is allowed.")
    limits: HostLimitsOut
    landlock: int = bounded(minimum=0, description="The kernel's Landlock ABI; 0: none.")
