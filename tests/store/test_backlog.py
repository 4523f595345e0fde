"""What waits to be written, and what is given up when too much waits; no I/O."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import attrs
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.lifecycle import State
from controlplane.model import UsageDay
from controlplane.store import backlog as backlog_module
from controlplane.store.backlog import INCARNATIONS_PER_INSTANCE, ROW_BYTES, Backlog
from controlplane.store.values import observation
from tests.store.rows import audit_row, event, evidence, incarnation, instance, line, now, sample

if TYPE_CHECKING:
    import pytest

    from controlplane.store.values import Batch

ONE, OTHER = UUID(int=1), UUID(int=2)


def everything(backlog: Backlog) -> list[Batch]:
    """All batches until nothing is left."""
    batches = []
    while len(backlog):
        batches.append(backlog.take())
    return batches


def test_a_batch_holds_what_came_in_in_order() -> None:
    backlog = Backlog()
    backlog.push_log(line(ONE, "first"))
    backlog.push_log(line(ONE, "second", stream="system"))
    backlog.push_log(line(OTHER, "third"))
    backlog.push_log(line(ONE, "fourth"))
    backlog.push_event(event(ONE))
    backlog.push_sample(ONE, sample())

    batch = backlog.take()
    assert [row.message for row in batch.logs] == ["first", "second", "third", "fourth"]
    assert (len(batch.events), len(batch.samples), len(batch)) == (1, 1, 6)
    assert (len(backlog), backlog.size_bytes, len(backlog.take())) == (0, 0, 0)


def test_what_an_owner_used_on_a_day_is_one_row_and_no_more_are_kept_than_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog_module, "USAGE_ROWS_MAX", 2)
    backlog = Backlog()
    for owner, calls in (("ada", 1), ("bob", 2), ("eve", 4), ("ada", 8)):
        backlog.push_usage(UsageDay(owner=owner, day=date(2026, 11, 30), calls=calls, peak_memory_mb=calls))
    assert backlog.shed == {"usage": 1}
    taken = everything(backlog)[0].usage
    assert [(row.owner, row.calls, row.peak_memory_mb) for row in taken] == [("ada", 9, 8), ("bob", 2, 2)]


def test_samples_go_first_then_output_then_events_and_oldest_first() -> None:
    backlog = Backlog(max_rows=6)
    for number in range(2):
        backlog.push_event(event(ONE, f'{{"n": {number}}}'))
    for number in range(2):
        backlog.push_log(line(ONE, str(number)))
    for number in range(2):
        backlog.push_sample(ONE, sample(calls=number))
    assert backlog.shed == {}

    backlog.push_event(event(ONE))
    assert backlog.shed == {"samples": 1}
    backlog.push_event(event(ONE))
    assert backlog.shed == {"samples": 2}
    backlog.push_event(event(ONE))
    assert backlog.shed == {"samples": 2, "logs": 1}
    assert [row.message for row in attrs.evolve(backlog.take()).logs] == ["1"]


def test_who_did_what_outlives_all_else_that_may_be_given_up_and_is_written_first() -> None:
    backlog = Backlog(max_rows=3)
    for number in range(5):
        backlog.push_audit(audit_row(str(number)))
        backlog.push_event(event(ONE))
        backlog.push_log(line(ONE))
    assert backlog.shed == {"logs": 5, "events": 5, "audit": 2}

    backlog.push_sample(ONE, sample())
    batch = backlog.take(max_rows=2)
    assert [row.target for row in batch.audit] == ["2", "3"], "the oldest was given up"
    assert len(batch) == 2


def test_of_equal_worth_the_older_sample_goes() -> None:
    backlog = Backlog(max_rows=2)
    for number in range(3):
        backlog.push_sample(ONE, sample(calls=number))
    assert [taken.calls for _, taken in backlog.take().samples] == [1, 2]


def test_corrals_own_lines_outlive_what_servers_print() -> None:
    backlog = Backlog(max_rows=10)
    for number in range(5):
        backlog.push_log(line(ONE, f"own {number}", stream="system"))
    for number in range(100):
        backlog.push_log(line(ONE, f"printed {number}"))
    kept = [row.message for row in backlog.take().logs]
    assert kept[:5] == [f"own {number}" for number in range(5)]
    assert kept[-1] == "printed 99"


def test_an_instance_that_floods_loses_its_own_lines_only() -> None:
    backlog = Backlog(max_rows=1_000)
    for number in range(50):
        backlog.push_log(line(OTHER, f"quiet {number}"))
    for number in range(20_000):
        backlog.push_log(line(ONE, str(number)))

    kept = [row for batch in everything(backlog) for row in batch.logs]
    assert [row.message for row in kept if row.instance_id == OTHER] == [f"quiet {number}" for number in range(50)]
    assert kept[-1].message == "19999"
    assert backlog.shed["logs"] == 20_050 - len(kept)
    assert backlog.take_shed_lines() == {ONE: 20_050 - len(kept)}
    assert backlog.take_shed_lines() == {}


def test_long_lines_reach_the_bound_of_bytes_before_that_of_rows() -> None:
    backlog = Backlog(max_rows=1_000, max_bytes=100_000)
    for _ in range(100):
        backlog.push_log(line(ONE, "x" * 10_000))
    assert backlog.size_bytes <= 100_000
    assert 1 <= backlog.rows < 10
    assert backlog.shed["logs"] == 100 - backlog.rows


def test_one_row_beyond_every_bound_does_not_stay_and_does_not_loop() -> None:
    backlog = Backlog(max_bytes=1_000)
    backlog.push_log(line(ONE, "x" * 10_000))
    assert (backlog.rows, backlog.size_bytes, backlog.shed["logs"]) == (0, 0, 1)


def test_observations_and_incarnations_are_never_shed_and_the_latest_wins() -> None:
    backlog = Backlog(max_rows=1)
    made = instance()
    for state in (State.STARTING, State.RUNNING, State.FAILED):
        backlog.push_observation(observation(attrs.evolve(made, state=state), phase=state.value))
    backlog.push_incarnation(incarnation(made.id, 1))
    backlog.push_incarnation(incarnation(made.id, 1, ended_at=now(), exit_code=3, evidence=evidence()))
    for _ in range(100):
        backlog.push_log(line(made.id))

    batch = backlog.take()
    assert [(seen.state, seen.phase) for seen in batch.observations] == [(State.FAILED, "failed")]
    assert [row.exit_code for row in batch.incarnations] == [3]


def test_of_a_crash_loop_the_latest_incarnations_are_kept() -> None:
    backlog = Backlog()
    for number in range(1, 101):
        backlog.push_incarnation(incarnation(ONE, number))
    kept = [row.number for row in backlog.take().incarnations]
    assert kept == list(range(101 - INCARNATIONS_PER_INSTANCE, 101))
    assert backlog.shed == {"incarnations": 100 - INCARNATIONS_PER_INSTANCE}


def test_a_batch_is_bounded_and_every_instance_gets_its_turn() -> None:
    backlog = Backlog()
    for number in range(3_000):
        backlog.push_log(line(ONE, str(number)))
    backlog.push_log(line(OTHER, "short"))

    batch = backlog.take()
    assert len(batch) == 1_000
    assert "short" in [row.message for row in batch.logs]
    assert [len(rest) for rest in everything(backlog)] == [1_000, 1_000, 1]


def test_a_batch_of_long_lines_is_bounded_by_bytes() -> None:
    backlog = Backlog()
    for _ in range(100):
        backlog.push_log(line(ONE, "x" * 10_000))
    assert len(backlog.take(max_bytes=100_000)) == 10


operations = st.lists(
    st.tuples(
        st.sampled_from(["log", "system", "sample", "event", "audit", "take"]), st.integers(0, 3), st.integers(0, 300)
    ),
    max_size=200,
)


@given(operations, st.integers(1, 20))
def test_whatever_comes_the_bounds_hold_and_every_row_is_accounted_for(
    steps: list[tuple[str, int, int]], max_rows: int
) -> None:
    backlog = Backlog(max_rows=max_rows, max_bytes=max_rows * ROW_BYTES + 1_000)
    came = went = 0
    for step, who, size in steps:
        one = UUID(int=who)
        came += step != "take"
        match step:
            case "log":
                backlog.push_log(line(one, "x" * size))
            case "system":
                backlog.push_log(line(one, "x" * size, stream="system"))
            case "sample":
                backlog.push_sample(one, sample())
            case "event":
                backlog.push_event(event(one if who else None))
            case "audit":
                backlog.push_audit(audit_row("x" * size))
            case "take":
                went += len(backlog.take(max_rows=1 + size % 5))
        assert backlog.rows <= backlog.max_rows
        assert 0 <= backlog.size_bytes <= backlog.max_bytes
        assert came == went + backlog.rows + backlog.shed.total()
    went += sum(len(batch) for batch in everything(backlog))
    assert came == went + backlog.shed.total()
    assert backlog.size_bytes == 0


def test_many_instances_stay_cheap() -> None:
    """Shedding looks for the fullest queue once for many rows, not once per row."""
    backlog = Backlog(max_rows=2_000)
    ids = [uuid4() for _ in range(500)]
    for number in range(20_000):
        backlog.push_log(line(ids[number % 7], ""))
        backlog.push_sample(ids[number % 500], sample())
    assert backlog.rows <= 2_000
