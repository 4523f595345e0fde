"""`/usage`: what an owner uses, and what bounds it, as far as either is known."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.core.lifecycle import Desired, State
from controlplane.deploy.installs import collecting
from controlplane.errors import NotFound
from controlplane.model import Role, UsageDay
from controlplane.store.values import USAGE_DAYS_KEPT
from controlplane.web import gather
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.gather import is_asked_alone
from controlplane.web.instances import whose
from controlplane.web.route import Route
from controlplane.web.stats import MIB, fleet
from controlplane.web.sums import usage_of_fleet
from controlplane.web.tokens import TOKENS_PER_USER
from controlplane.wire.convert import unstructure
from controlplane.wire.fields import bounded
from controlplane.wire.usage import OwnerUsageOut, QuotaOut, UsageDayOut, UsageOut

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.config import Config
    from controlplane.core.quotas import Quotas
    from controlplane.supervise.runner import Runner
    from controlplane.web.services import Services


@frozen(kw_only=True)
class UsageQuery:
    """Whose use, and since when."""

    owner: str | None = bounded(None, minLength=1, maxLength=63, description="For administrators: another user's.")
    days: int = bounded(
        0, minimum=0, maximum=USAGE_DAYS_KEPT, description="How many days (UTC) to list, today included; 0: none."
    )


async def get_usage(call: Call) -> Reply:
    """The caller's own, or for an administrator anybody's."""
    services, principal = call.services, call.principal
    asked = whose(call)
    owner = asked or principal.owner
    total = owner_usage(owner, (r for r in services.supervisor.runners() if r.instance.owner == owner))
    allowed = services.accounts.current(owner).quotas
    quotas = [
        *_own(services, owner, total),
        *_today(services, owner),
        *_rates(services.config),
        *_ceilings(services.config, allowed),
    ]
    if principal.is_admin:
        quotas.append(await _store(services))
    own = unstructure(
        UsageOut(
            owner=owner,
            role=_role(call, owner).value,
            quotas=quotas,
            total=total,
            days=await _days(services, owner, call.query.days) if call.query.days else [],
            owners=_everybody(services) if principal.is_admin and asked is None else [],
        )
    )
    if is_asked_alone(call):
        return json_reply(own)
    parts = await gather.parts(call)
    return json_reply(usage_of_fleet(own, parts.documents, parts.rest))


def _role(call: Call, owner: str) -> Role:
    if owner == call.principal.owner:
        return call.principal.role
    user = call.services.tokens.user(owner)
    if user is None:
        raise NotFound("There is no such user.", hint="corral user ls shows who there is")
    return user.role


def owner_usage(name: str, runners: Iterable[Runner]) -> OwnerUsageOut:
    """Add up what is known of one owner's instances."""
    runners = list(runners)
    sums = fleet(runners)
    return OwnerUsageOut(
        name=name,
        instances=sums.instances,
        running=sum(runner.state is State.RUNNING for runner in runners),
        memory_mb=sums.memory_mb,
        cpu_percent=sums.cpu_percent,
        processes=sums.processes,
        calls=sums.calls,
        errors=sums.errors,
    )


def _everybody(services: Services) -> list[OwnerUsageOut]:
    by_owner: dict[str, list[Runner]] = {}
    for runner in services.supervisor.runners():
        by_owner.setdefault(runner.instance.owner, []).append(runner)
    return [owner_usage(name, by_owner[name]) for name in sorted(by_owner)]


def _own(services: Services, owner: str, total: OwnerUsageOut) -> list[QuotaOut]:
    """What all of an owner's instances and tokens share. What is used of memory, CPU and processes is bounded for each
    instance only; `memory_mb` is what those that are to run may use together."""
    allowed = services.accounts.of(owner).quotas
    building, builds = services.supervisor.builds(owner)
    rows = (
        ("instances", total.instances, allowed.instances, "instances"),
        ("tokens", services.tokens.tokens_of(owner), TOKENS_PER_USER, "tokens"),
        ("builds", building, builds, "builds"),
        ("memory_mb", _allowed_mb(services, owner), allowed.memory_mb or None, "MiB"),
        ("memory", total.memory_mb, None, "MiB"),
        ("cpu", total.cpu_percent, None, "percent"),
        ("processes", total.processes, None, "processes"),
    )
    return [QuotaOut(name=name, used=used, limit=limit, unit=unit, scope="owner") for name, used, limit, unit in rows]


def _allowed_mb(services: Services, owner: str) -> int:
    """The memory limits of those that are to run, added up."""
    instances = (runner.instance for runner in services.supervisor.runners() if runner.instance.owner == owner)
    return sum(each.spec.limits.memory_mb for each in instances if each.desired is Desired.RUNNING)


def _today(services: Services, owner: str) -> list[QuotaOut]:
    """What begins anew at midnight, UTC."""
    account = services.accounts.current(owner)
    allowed, size_bytes = account.quotas, account.bytes_in + account.bytes_out
    rows = (
        ("cpu_s_per_day", round(account.cpu_s, 1), allowed.cpu_s_per_day, "s"),
        ("calls_per_day", account.calls, allowed.calls_per_day, "calls"),
        ("mb_per_day", round(size_bytes / MIB, 2), allowed.mb_per_day, "MiB"),
    )
    return [
        QuotaOut(name=name, used=used, limit=limit or None, unit=unit, scope="owner")
        for name, used, limit, unit in rows
    ]


async def _days(services: Services, owner: str, count: int) -> list[UsageDayOut]:
    """As the database has them; today as it is known here.

    Raises:
        StorageUnavailable
    """
    today = services.accounts.current(owner).today()
    kept = await services.store.usage_days(today.day - timedelta(days=count - 1), owner)
    rows = [today, *(row for row in kept if row.day < today.day)]
    return [_day(row) for row in rows if row != UsageDay(owner=owner, day=row.day)]


def _day(row: UsageDay) -> UsageDayOut:
    return UsageDayOut(
        day=row.day.isoformat(),
        cpu_s=round(row.cpu_s, 3),
        calls=row.calls,
        errors=row.errors,
        bytes_in=row.bytes_in,
        bytes_out=row.bytes_out,
        peak_memory_mb=round(row.peak_memory_mb, 2),
    )


def _rates(config: Config) -> list[QuotaOut]:
    """How often something may be done; how often it was, nobody counts."""
    return [
        QuotaOut(name="call_rate", limit=config.rate_limit_rps or None, unit="calls/s", scope="token"),
        QuotaOut(name="deploy_rate", limit=config.deploys_per_minute, unit="deploys/min", scope="owner"),
    ]


def _ceilings(config: Config, allowed: Quotas) -> list[QuotaOut]:
    """What a spec of this owner's may ask for at most."""
    rows = (
        ("instance_memory", allowed.instance_memory_mb, "MiB"),
        ("instance_cpu", allowed.instance_cpu_percent, "percent"),
        ("instance_disk", allowed.instance_disk_mb, "MiB"),
        ("instance_processes", allowed.instance_processes, "processes"),
        ("instance_open_files", allowed.instance_open_files, "files"),
        ("instance_call_timeout", config.max_call_timeout_s, "s"),
        ("instance_calls_in_flight", config.calls_in_flight, "calls"),
    )
    return [QuotaOut(name=name, limit=limit, unit=unit, scope="instance") for name, limit, unit in rows]


async def _store(services: Services) -> QuotaOut:
    use = await collecting.listing(services.installs)
    used, limit = round(use.total_bytes / MIB, 2), round(use.limit_bytes / MIB, 2)
    return QuotaOut(name="store", used=used, limit=limit, unit="MiB", scope="service")


ROUTES = (
    Route(
        "GET",
        "/usage",
        get_usage,
        operation="getUsage",
        summary="What an owner uses, and what bounds it",
        description=(
            "A row for each quota, by name: how much is used, of how much. A `limit` of null is no limit, a `used` of null is"
            " not counted. What ends in `_per_day` begins anew at midnight UTC; `memory_mb` is the memory limits of all instances"
            " that are to run, added up. With `days`, what was used on each of the last days. Administrators see anybody's by `owner`, and without it everybody's sums beside their own."
        ),
        tag="System",
        role=Role.VIEWER,
        query=UsageQuery,
        answers={200: UsageOut},
        problems=("not_found",),
    ),
)
