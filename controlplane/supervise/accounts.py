"""What every owner has used today, and whether that leaves room for another call.

Lives in memory: counting adds to a few numbers, and asking is a look at them. What has come since the last time is
handed over now and then, as sums to be added to what the database has, where other control planes may add theirs;
what those say is taken in between (`Accounts.found`). The clock is Unix time, as a day is one of the calendar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import TYPE_CHECKING

from attrs import define, field

from controlplane.core import quotas
from controlplane.core.quotas import NO_OVERRIDES, Overrides, Quotas
from controlplane.model import UsageDay

if TYPE_CHECKING:
    from controlplane.config import Config

EPOCH = date(1970, 1, 1)
CLOSED_MAX = 10_000
"""Sums of days that are over and that nobody has fetched yet; there is one of each owner, fetched within seconds."""


def of_operator(config: Config) -> Quotas:
    """What the settings say for everybody."""
    return Quotas(
        instances=config.max_instances_per_user,
        memory_mb=config.max_memory_mb_per_user,
        cpu_s_per_day=config.max_cpu_seconds_per_day,
        calls_per_day=config.max_calls_per_day,
        mb_per_day=config.max_mb_per_day,
        instance_memory_mb=config.max_memory_mb,
        instance_cpu_percent=config.max_cpu_percent,
        instance_disk_mb=config.max_disk_usage_mb,
        instance_processes=config.max_processes,
        instance_open_files=config.max_open_files,
    )


@define(eq=False, slots=True)
class Account:
    """One owner's day. The numbers are all that is known of today, also from before a restart and from elsewhere."""

    owner: str
    accounts: Accounts
    day: int
    calls: int = 0
    """Those that were sent to a server; whoever sends one adds to it, and to `errors` when it fails."""
    errors: int = 0
    bytes_in: int = 0
    """Of requests; whoever takes one in adds to it."""
    bytes_out: int = 0
    cpu_s: float = 0.0
    peak_memory_mb: float = 0.0
    _told: UsageDay = field(init=False)
    """What of it the database has, or is on its way there."""
    _own: Overrides = field(init=False)
    _quotas: Quotas = field(init=False)
    _bounded: bool = field(init=False)
    """Whether a day can be used up at all. This and `_ends` spare every call the asking."""
    _ends: int = field(init=False)
    """The Unix time at which the day is over."""

    def __attrs_post_init__(self) -> None:
        self._told = UsageDay(owner=self.owner, day=_date(self.day))
        self._ends = (self.day + 1) * quotas.DAY_S
        self._review()

    @property
    def quotas(self) -> Quotas:
        """What holds for this owner now."""
        if self.accounts.overrides(self.owner) is not self._own:
            self._review()
        return self._quotas

    def _review(self) -> None:
        self._own = self.accounts.overrides(self.owner)
        self._quotas = quotas.in_force(self.accounts.operator, self._own)
        self._bounded = self._quotas.bounds_days

    def check_day(self) -> None:
        """Whether there is room for another call today; whoever makes it counts it in `calls`.

        Raises:
            QuotaExceeded: a quota is used up; says which, and when it begins anew.
        """
        now = self.accounts.clock()
        if now >= self._ends:
            self.turn(quotas.day_of(now))
        if self.accounts.overrides(self.owner) is not self._own:
            self._review()
        if self._bounded:
            exceeded = quotas.day_exceeded(
                self._quotas, calls=self.calls, cpu_s=self.cpu_s, size_bytes=self.bytes_in + self.bytes_out
            )
            if exceeded is not None:
                raise quotas.refusal_of_day(exceeded, quotas.until_next_day_s(now))

    def used_cpu(self, seconds: float) -> None:
        """Count the processor time of an instance since it was counted last."""
        self.cpu_s += seconds

    def turn(self, day: int) -> None:
        """Another day begins: what the last one came to is handed over, and all counts from nothing."""
        rest = self.take()
        if rest is not None:
            self.accounts.close(rest)
        self.day, self._ends = day, (day + 1) * quotas.DAY_S
        self.calls = self.errors = self.bytes_in = self.bytes_out = 0
        self.cpu_s = self.peak_memory_mb = 0.0
        self._told = UsageDay(owner=self.owner, day=_date(day))

    def today(self) -> UsageDay:
        """All that is known of the day."""
        return UsageDay(
            owner=self.owner,
            day=_date(self.day),
            cpu_s=self.cpu_s,
            calls=self.calls,
            errors=self.errors,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            peak_memory_mb=self.peak_memory_mb,
        )

    def take(self) -> UsageDay | None:
        """What is to be added to what the database has; None: nothing. Who takes it sees that it gets there."""
        now, told = self.today(), self._told
        if now == told:
            return None
        self._told = now
        return now.since(told)

    def found(self, kept: UsageDay) -> None:
        """Take in what the database has, all that was taken here included."""
        here, told = self.today(), self._told
        self._told = kept.since(UsageDay(owner=self.owner, day=kept.day))
        total = kept.plus(here.since(told))
        self.calls, self.errors, self.cpu_s = total.calls, total.errors, total.cpu_s
        self.bytes_in, self.bytes_out, self.peak_memory_mb = total.bytes_in, total.bytes_out, total.peak_memory_mb


def _nobody_has_any(_owner: str) -> Overrides:
    return NO_OVERRIDES


@define(eq=False)
class Accounts:
    """Every owner's account.

    Args:
        operator: What the settings say for everybody.
        overrides: What holds for one user besides; the same object as long as nothing has changed.
        clock: Unix seconds.
    """

    operator: Quotas
    overrides: Callable[[str], Overrides] = _nobody_has_any
    clock: Callable[[], float] = time.time
    _by_owner: dict[str, Account] = field(factory=dict, init=False)
    _closed: list[UsageDay] = field(factory=list, init=False)

    def of(self, owner: str) -> Account:
        """The account of one owner, who may be new."""
        account = self._by_owner.get(owner)
        if account is None:
            account = self._by_owner[owner] = Account(owner, self, quotas.day_of(self.clock()))
        return account

    def current(self, owner: str) -> Account:
        """As `of`, on the present day."""
        account, day = self.of(owner), quotas.day_of(self.clock())
        if day > account.day:
            account.turn(day)
        return account

    @property
    def date(self) -> date:
        """The present day, UTC."""
        return _date(quotas.day_of(self.clock()))

    def close(self, day: UsageDay) -> None:
        """Keep the rest of a day that is over, for the next `take`."""
        if len(self._closed) < CLOSED_MAX:
            self._closed.append(day)

    def forget(self, owner: str) -> None:
        """Somebody is gone: what he used is written no more."""
        self._by_owner.pop(owner, None)

    def note_memory(self, memory_mb: dict[str, float]) -> None:
        """Keep each day's peak of what an owner's instances use together."""
        for owner, used_mb in memory_mb.items():
            account = self.current(owner)
            account.peak_memory_mb = max(account.peak_memory_mb, round(used_mb, 2))

    def take(self) -> list[UsageDay]:
        """What has come since the last time, of every owner; to be added to what the database has."""
        taken = [rest for owner in list(self._by_owner) if (rest := self.current(owner).take()) is not None]
        closed, self._closed = self._closed, []
        return [*closed, *taken]

    def found(self, kept: Iterable[UsageDay]) -> None:
        """Take in what the database has of today, once all that was taken is written there."""
        for row in kept:
            account = self.current(row.owner)
            if row.day == _date(account.day):
                account.found(row)


def _date(day: int) -> date:
    return EPOCH + timedelta(days=day)
