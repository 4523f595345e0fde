"""What an owner may use, and whether something is still within it."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from controlplane.core.quotas import (
    CEILINGS,
    MB_BYTES,
    NO_OVERRIDES,
    Exceeded,
    Overrides,
    Quotas,
    day_exceeded,
    day_of,
    in_force,
    memory_exceeded,
    refusal_of_day,
    refusal_of_memory,
    until_next_day_s,
    wrong_overrides,
)
from controlplane.wire.answers import QUOTA_NAMES

OPERATOR = Quotas(
    instances=10,
    memory_mb=4096,
    cpu_s_per_day=100,
    calls_per_day=1000,
    mb_per_day=50,
    instance_memory_mb=1024,
    instance_cpu_percent=80,
    instance_disk_mb=2048,
    instance_processes=256,
    instance_open_files=1024,
)
NO_LIMITS = attrs.evolve(OPERATOR, memory_mb=0, cpu_s_per_day=0, calls_per_day=0, mb_per_day=0)


def test_the_same_names_are_in_force_may_be_said_for_a_user_and_stand_in_the_api() -> None:
    names = [attribute.name for attribute in attrs.fields(Quotas)]
    assert names == [attribute.name for attribute in attrs.fields(Overrides)] == list(QUOTA_NAMES)
    assert set(CEILINGS) == {name for name in names if name.startswith("instance_")}


@pytest.mark.parametrize(
    ("own", "changed"),
    [
        (NO_OVERRIDES, {}),
        (Overrides(instances=3), {"instances": 3}),
        (Overrides(instances=30, calls_per_day=9000), {"instances": 30, "calls_per_day": 9000}),
        (Overrides(calls_per_day=0, memory_mb=0), {"calls_per_day": 0, "memory_mb": 0}),
        (Overrides(instance_memory_mb=64), {"instance_memory_mb": 64}),
        (Overrides(instance_memory_mb=4096), {}),  # the operator has lowered it since
    ],
)
def test_what_was_said_for_a_user_holds_but_no_ceiling_above_the_operators(own: Overrides, changed: dict) -> None:
    assert in_force(OPERATOR, own) == attrs.evolve(OPERATOR, **changed)


@pytest.mark.parametrize(
    ("wanted", "wrong"),
    [
        ({}, {}),
        ({"instances": 1, "calls_per_day": 0, "memory_mb": 10**9}, {}),
        ({"instances": None, "instance_memory_mb": None}, {}),
        ({"instances": 0}, {"instances": "must be at least 1"}),
        ({"instance_memory_mb": 1024, "instance_cpu_percent": 80}, {}),
        (
            {"instance_memory_mb": 1025, "instance_open_files": 63},
            {
                "instance_memory_mb": "1,025 is above this control plane's ceiling of 1,024",
                "instance_open_files": "must be at least 64",
            },
        ),
    ],
)
def test_what_cannot_be_said_for_a_user_is_named_with_its_reason(wanted: dict, wrong: dict) -> None:
    assert wrong_overrides(OPERATOR, wanted) == wrong


@pytest.mark.parametrize(
    ("calls", "cpu_s", "size_bytes", "exceeded"),
    [
        (0, 0.0, 0, None),
        (999, 99.9, 50 * MB_BYTES - 1, None),
        (1000, 0.0, 0, Exceeded("calls_per_day", 1000, 1000)),
        (1, 100.04, 0, Exceeded("cpu_s_per_day", 100.0, 100)),
        (1, 0.0, 50 * MB_BYTES, Exceeded("mb_per_day", 50.0, 50)),
        (2000, 200.0, 2**40, Exceeded("calls_per_day", 2000, 1000)),
    ],
)
def test_a_day_is_used_up_when_a_quota_is_reached(
    calls: int, cpu_s: float, size_bytes: int, exceeded: Exceeded | None
) -> None:
    assert day_exceeded(OPERATOR, calls=calls, cpu_s=cpu_s, size_bytes=size_bytes) == exceeded
    assert day_exceeded(NO_LIMITS, calls=calls, cpu_s=cpu_s, size_bytes=size_bytes) is None


def test_only_quotas_of_a_day_bound_days() -> None:
    assert OPERATOR.bounds_days
    assert not attrs.evolve(NO_LIMITS, memory_mb=1).bounds_days
    for name in ("cpu_s_per_day", "calls_per_day", "mb_per_day"):
        assert attrs.evolve(NO_LIMITS, **{name: 1}).bounds_days


@pytest.mark.parametrize(
    ("limit", "others", "before", "wanted", "exceeded"),
    [
        (0, 10**6, 0, 10**6, None),
        (1000, 0, 0, 1000, None),
        (1000, 500, 0, 500, None),
        (1000, 500, 0, 501, Exceeded("memory_mb", 500, 1000)),
        (1000, 500, 400, 501, Exceeded("memory_mb", 900, 1000)),
        (1000, 5000, 400, 400, None),  # it was lowered, and this asks for no more
        (1000, 5000, 400, 399, None),
        (1000, 5000, 400, 401, Exceeded("memory_mb", 5400, 1000)),
    ],
)
def test_memory_is_for_all_that_run_together_and_less_may_always_be_asked_for(
    limit: int, others: int, before: int, wanted: int, exceeded: Exceeded | None
) -> None:
    assert memory_exceeded(limit, others_mb=others, before_mb=before, wanted_mb=wanted) == exceeded


def test_a_day_is_one_of_utc() -> None:
    late = datetime(2026, 11, 30, 23, 59, 30, tzinfo=UTC).timestamp()
    assert until_next_day_s(late) == 30
    assert day_of(late + 30) == day_of(late) + 1 == day_of(late + 86_429)


def test_a_refusal_names_the_quota_how_far_it_is_used_and_when_it_begins_anew() -> None:
    refused = refusal_of_day(Exceeded("calls_per_day", 1000, 1000), 30.0)
    assert refused.evidence == {"quota": "calls_per_day", "used": 1000, "limit": 1000}
    assert refused.retry_after_s == 30
    assert "calls_per_day" in refused.detail
    memory = refusal_of_memory(Exceeded("memory_mb", 900, 1000), 200)
    assert memory.evidence == {"quota": "memory_mb", "used": 900, "limit": 1000, "wanted": 200}
    assert memory.retry_after_s is None
