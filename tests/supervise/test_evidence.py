"""Post-mortems in words: what is said of a process that is gone."""

from __future__ import annotations

from datetime import UTC, datetime

from controlplane.supervise.evidence import Seen, of_memory_limit

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_what_the_kernel_ended_at_its_limit_has_the_limit_as_its_last_reading() -> None:
    looked_at = Seen(phase="running", at=AT, incarnation=1, samples=({"ago_s": 1.2, "memory_mb": 40.0},))
    assert of_memory_limit(looked_at, -9, 256).samples == (
        {"ago_s": 1.2, "memory_mb": 40.0},
        {"ago_s": 0.0, "memory_mb": 256.0},
    )


def test_it_has_one_although_nobody_had_looked_yet() -> None:
    evidence = of_memory_limit(Seen(phase="running", at=AT, incarnation=1), -9, 256)
    assert evidence.samples == ({"ago_s": 0.0, "memory_mb": 256.0},)
