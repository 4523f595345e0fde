"""What owners have used today, how it gets to the database and comes back, and when it is too much."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime

import attrs
import pytest
from attrs import define, field

from controlplane.config import Config
from controlplane.core.quotas import NO_OVERRIDES, Overrides
from controlplane.errors import QuotaExceeded
from controlplane.model import UsageDay
from controlplane.supervise.accounts import Account, Accounts, of_operator

MONDAY = datetime(2026, 11, 30, 23, 0, tzinfo=UTC).timestamp()
HOUR_S = 3600.0


@define
class World:
    """A clock that stands still, and what an administrator said."""

    at: float = MONDAY
    said: dict[str, Overrides] = field(factory=dict)

    def accounts(self, **settings: int) -> Accounts:
        config = Config(**settings)  # type: ignore[arg-type]
        return Accounts(of_operator(config), lambda owner: self.said.get(owner, NO_OVERRIDES), lambda: self.at)


def call(account: Account, count: int = 1) -> None:
    for _ in range(count):
        account.check_day()
        account.calls += 1


def sum_up(kept: dict[tuple[str, date], UsageDay], rows: list[UsageDay]) -> None:
    """What the database does with them."""
    for row in rows:
        known = kept.get((row.owner, row.day))
        kept[row.owner, row.day] = row if known is None else known.plus(row)


def refused(account: Account) -> Mapping[str, object]:
    with pytest.raises(QuotaExceeded) as caught:
        account.check_day()
    return caught.value.evidence


def test_the_call_that_would_be_one_too_many_is_refused_until_midnight() -> None:
    world = World()
    account = world.accounts(max_calls_per_day=3).of("ada")
    call(account, 3)

    with pytest.raises(QuotaExceeded) as caught:
        account.check_day()
    assert caught.value.retry_after_s == HOUR_S
    assert caught.value.evidence == {"quota": "calls_per_day", "used": 3, "limit": 3}

    world.at += HOUR_S
    call(account, 3)
    assert refused(account)["quota"] == "calls_per_day"


def test_processor_time_and_bytes_use_up_a_day_too() -> None:
    accounts = World().accounts(max_cpu_seconds_per_day=2, max_mb_per_day=1)
    one, other = accounts.of("ada"), accounts.of("bob")
    one.used_cpu(1.5)
    call(one)
    one.used_cpu(1.5)
    assert refused(one) == {"quota": "cpu_s_per_day", "used": 3.0, "limit": 2}

    other.bytes_in += 2**19
    call(other)
    other.bytes_out += 2**19
    assert refused(other) == {"quota": "mb_per_day", "used": 1.0, "limit": 1}


def test_an_administrators_word_holds_from_the_next_call_on_and_for_one_owner_only() -> None:
    world = World()
    accounts = world.accounts(max_calls_per_day=2)
    ada, bob = accounts.of("ada"), accounts.of("bob")
    call(ada, 2)
    call(bob, 2)
    world.said["ada"] = Overrides(calls_per_day=0)
    call(ada, 50)
    assert refused(bob)["limit"] == 2
    world.said["ada"] = Overrides(calls_per_day=5)
    assert refused(ada) == {"quota": "calls_per_day", "used": 52, "limit": 5}


def test_what_is_taken_is_what_has_come_since_the_last_time() -> None:
    accounts = World().accounts()
    account = accounts.of("ada")
    assert accounts.take() == []
    call(account, 2)
    account.bytes_in += 10
    accounts.note_memory({"ada": 64.123})
    day = accounts.date
    assert accounts.take() == [UsageDay(owner="ada", day=day, calls=2, bytes_in=10, peak_memory_mb=64.12)]
    assert accounts.take() == []
    call(account)
    accounts.note_memory({"ada": 32.0})
    assert accounts.take() == [UsageDay(owner="ada", day=day, calls=1, peak_memory_mb=64.12)]


def test_a_day_that_is_over_is_taken_apart_from_the_new_one() -> None:
    world = World()
    accounts = world.accounts()
    account = accounts.of("ada")
    call(account, 2)
    world.at += 2 * HOUR_S
    call(account)
    rows = accounts.take()
    assert [(row.day, row.calls) for row in rows] == [(date(2026, 11, 30), 2), (date(2026, 12, 1), 1)]


def test_a_day_ends_also_for_an_owner_whom_nobody_calls() -> None:
    world = World()
    accounts = world.accounts()
    accounts.of("ada").cpu_s += 1.5
    world.at += 2 * HOUR_S
    assert accounts.current("ada").today() == UsageDay(owner="ada", day=date(2026, 12, 1))
    assert accounts.take() == [UsageDay(owner="ada", day=date(2026, 11, 30), cpu_s=1.5)]


def test_a_restart_goes_on_where_the_last_life_ended() -> None:
    world, kept = World(), {}
    first = world.accounts(max_calls_per_day=5)
    call(first.of("ada"), 3)
    sum_up(kept, first.take())

    second = world.accounts(max_calls_per_day=5)
    second.found(kept.values())
    call(second.of("ada"), 2)
    assert refused(second.of("ada"))["used"] == 5
    sum_up(kept, second.take())
    assert [row.calls for row in kept.values()] == [5]


def test_two_control_planes_add_up_and_know_of_each_other() -> None:
    world, kept = World(), {}
    planes = [world.accounts(), world.accounts()]
    for turn in range(1, 4):
        for number, accounts in enumerate(planes):
            call(accounts.of("ada"), number + 1)
            accounts.of("ada").cpu_s += 0.25
            sum_up(kept, accounts.take())
            call(accounts.of("ada"))  # while it is being written
            accounts.found(kept.values())
        assert planes[1].of("ada").calls == turn * 5 - 1  # all but the last one of the other, which is not written
    for accounts in planes:
        sum_up(kept, accounts.take())
    assert [(row.calls, row.cpu_s) for row in kept.values()] == [(15, 1.5)]


def test_what_the_database_has_of_another_day_is_not_todays() -> None:
    accounts = World().accounts()
    accounts.found([UsageDay(owner="ada", day=date(2026, 11, 29), calls=100)])
    assert accounts.of("ada").calls == 0


def test_the_operators_settings_are_all_in_the_quotas() -> None:
    operator = of_operator(
        Config(max_memory_mb_per_user=1, max_cpu_seconds_per_day=2, max_calls_per_day=3, max_mb_per_day=4)
    )
    assert (operator.memory_mb, operator.cpu_s_per_day, operator.calls_per_day, operator.mb_per_day) == (1, 2, 3, 4)
    assert attrs.asdict(of_operator(Config())) == {
        "instances": 10,
        "memory_mb": 0,
        "cpu_s_per_day": 0,
        "calls_per_day": 0,
        "mb_per_day": 0,
        "instance_memory_mb": 1024,
        "instance_cpu_percent": 80,
        "instance_disk_mb": 2048,
        "instance_processes": 256,
        "instance_open_files": 1024,
    }
