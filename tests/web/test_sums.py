"""What several nodes say of themselves, added up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from controlplane.core.latency import Histogram
from controlplane.core.lifecycle import Desired, State
from controlplane.model import Command, Instance, Limits, SourceType, Spec
from controlplane.web.sums import LATENCY, counts_of, histogram_of, stats_of_fleet, usage_of_fleet

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def instance(owner: str = "alice", state: State = State.RUNNING, desired: Desired = Desired.RUNNING) -> Instance:
    spec = Spec(
        source_type=SourceType.MCP_CONFIG, language="go", command=Command(command="x"), limits=Limits(memory_mb=100)
    )
    return Instance(
        id=uuid4(), owner=owner, name="lost", spec=spec, state=state, desired=desired, created_at=NOW, updated_at=NOW
    )


def latency(*milliseconds: float) -> Histogram:
    histogram = Histogram()
    for each in milliseconds:
        histogram.add(each / 1000)
    return histogram


def stats(running: int, calls: int, seen: Histogram) -> dict[str, Any]:
    return {
        "instances": {"total": running, "by_status": {"running": running}, "by_language": {"python": running}},
        "calls": {"total": calls, "errors": 1, "in_flight": 2, "p50_ms": 0.0, LATENCY: counts_of(seen)},
        "restarts": 3,
        "fleet": {"cpu_percent": 1.5, "memory_mb": 10.25, "processes": 4},
        "subscribers": 1,
        "orphans": 0,
        "dropped": {"logs": 2},
        "control_plane": {"pid": running},
        "host": {"cpus": running},
        "isolation": {"minimum": "process", "in_force": {"process": running}},
    }


def test_a_histogram_comes_as_it_was_told_and_what_is_none_is_empty() -> None:
    told = latency(1, 2, 300)

    assert histogram_of(counts_of(told)) == told
    assert histogram_of(None) == histogram_of({"counts": [1], "total_s": 1}) == Histogram()


def test_figures_are_added_and_quantiles_are_of_all_calls_together() -> None:
    slow, fast = latency(*[1000] * 10), latency(*[1] * 90)

    whole = stats_of_fleet(stats(1, 10, slow), [stats(2, 90, fast)])

    assert whole["instances"] == {"total": 3, "by_status": {"running": 3}, "by_language": {"python": 3}}
    assert whole["calls"]["total"] == 100
    assert LATENCY not in whole["calls"]
    assert whole["calls"]["p50_ms"] < 2
    assert whole["calls"]["p95_ms"] > 800
    assert whole["fleet"] == {"cpu_percent": 3.0, "memory_mb": 20.5, "processes": 8}
    assert (whole["restarts"], whole["subscribers"], whole["dropped"]) == (6, 2, {"logs": 4})
    assert whole["isolation"] == {"minimum": "process", "in_force": {"process": 3}}
    assert (whole["control_plane"], whole["host"]) == ({"pid": 1}, {"cpus": 1})


def test_what_no_node_answers_for_is_counted_as_the_database_has_it() -> None:
    whole = stats_of_fleet(stats(1, 0, latency()), [], [instance(state=State.FAILED)])

    assert whole["instances"]["by_status"] == {"running": 1, "failed": 1}
    assert whole["instances"]["total"] == 2


def total(name: str, instances: int) -> dict[str, Any]:
    figures = {"running": instances, "memory_mb": 1.5, "cpu_percent": 2.0, "processes": 1, "calls": 7, "errors": 0}
    return {"name": name, "instances": instances, **figures}


def usage(instances: int, *, owners: bool = False) -> dict[str, Any]:
    rows = {"instances": (instances, 10), "builds": (1, 2), "memory_mb": (256 * instances, None), "tokens": (4, 50)}
    quotas = [{"name": n, "used": u, "limit": most, "unit": "x", "scope": "owner"} for n, (u, most) in rows.items()]
    everybody = [total("alice", instances), total("bob", 1)] if owners else []
    return {"owner": "alice", "quotas": quotas, "total": total("alice", instances), "owners": everybody, "days": []}


def test_what_is_counted_from_instances_is_added_and_what_the_database_counts_is_not() -> None:
    lost, stopped = instance(), instance(desired=Desired.STOPPED, state=State.STOPPED)

    whole = usage_of_fleet(usage(1), [usage(2)], [lost, stopped, instance("bob")])

    assert {row["name"]: (row["used"], row["limit"]) for row in whole["quotas"]} == {
        "instances": (5, 10),
        "builds": (2, 4),
        "memory_mb": (256 * 3 + 100, None),
        "tokens": (4, 50),
    }
    assert (whole["total"]["instances"], whole["total"]["running"], whole["total"]["calls"]) == (5, 3, 14)
    assert whole["owners"] == []


def test_owners_are_added_by_name() -> None:
    whole = usage_of_fleet(usage(1, owners=True), [usage(2, owners=True)], [instance("carol")])

    assert [(row["name"], row["instances"]) for row in whole["owners"]] == [("alice", 3), ("bob", 2), ("carol", 1)]


def test_one_node_alone_says_what_it_says() -> None:
    own = usage(1, owners=True)

    assert usage_of_fleet(own, []) == own
