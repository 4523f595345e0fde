"""`/stats`: totals over what the caller may see; host and control-plane facts for administrators."""

from __future__ import annotations

import os
import platform
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
import trio
from attrs import frozen

from controlplane.core.latency import Histogram
from controlplane.model import Role
from controlplane.web import gather
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.gather import is_asked_alone
from controlplane.web.instances import seen, visible
from controlplane.web.isolation import host_isolation
from controlplane.web.route import Route
from controlplane.web.sums import LATENCY, counts_of, quantiles, stats_of_fleet
from controlplane.web.views import language_of, status_of
from controlplane.wire.answers import StatsOut
from controlplane.wire.convert import unstructure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from controlplane.supervise.runner import Runner
    from controlplane.web.services import Services

MIB = 2**20
_process = psutil.Process()


@frozen(kw_only=True)
class Fleet:
    """Sums over some runners."""

    by_status: Counter[str]
    by_language: Counter[str]
    calls: int
    errors: int
    in_flight: int
    latency: Histogram
    restarts: int
    cpu_percent: float
    memory_mb: float
    processes: int

    @property
    def instances(self) -> int:
        return sum(self.by_status.values())


def fleet(runners: Iterable[Runner]) -> Fleet:
    """Add up what is known of some instances; resources are those of the last samples."""
    runners = list(runners)
    latency = Histogram()
    for runner in runners:
        latency.merge(runner.meter.latency)
    samples = [r.last_sample for r in runners if r.pid is not None and r.last_sample is not None]
    return Fleet(
        by_status=Counter(status_of(r) for r in runners),
        by_language=Counter(language_of(r.instance.spec) for r in runners),
        calls=sum(r.meter.calls for r in runners),
        errors=sum(r.meter.errors for r in runners),
        in_flight=sum(r.calls_in_flight for r in runners),
        latency=latency,
        restarts=sum(r.instance.restarts for r in runners),
        cpu_percent=round(sum(s.cpu_percent for s in samples), 1),
        memory_mb=round(sum(s.memory_mb for s in samples), 2),
        processes=sum(s.processes for s in samples),
    )


async def get_stats(call: Call) -> Reply:
    """What the caller's instances add up to, and for an administrator the rest."""
    services, is_admin = call.services, call.principal.is_admin
    runners: Sequence[Runner] = list(visible(call))
    total = fleet(runners)
    own = StatsOut(
        instances={
            "total": total.instances,
            "by_status": dict(total.by_status),
            "by_language": dict(total.by_language),
        },
        calls=_calls(total),
        restarts=total.restarts,
        fleet={
            "cpu_percent": total.cpu_percent,
            "memory_mb": total.memory_mb,
            "processes": total.processes,
        },
        subscribers=services.hub.statistics().subscribers if is_admin else 0,
        orphans=services.spawner.statistics().orphans,
        dropped=dropped(services) if is_admin else {},
        control_plane=_control_plane(services) if is_admin else {},
        host=_host(services.config.home) if is_admin else {},
        isolation=_isolation(services, runners),
    )
    document: dict[str, Any] = unstructure(own)
    if services.roster.is_alone:
        return json_reply(document)
    document["calls"][LATENCY] = counts_of(total.latency)
    if is_asked_alone(call):
        return json_reply(document)
    parts = await gather.parts(call)
    return json_reply(stats_of_fleet(document, parts.documents, seen(call, parts.rest)))


def _isolation(services: Services, runners: Iterable[Runner]) -> dict[str, Any]:
    """What is in force, and in short what `/isolation` says."""
    can = host_isolation(services)
    return {
        "minimum": can.minimum,
        "auto": can.auto,
        "available": [level.name for level in can.levels if level.available],
        "limits": can.limits.driver,
        "soft": [name for name, how in can.limits.enforcement.items() if how == "soft"],
        "in_force": dict(Counter(runner.isolation for runner in runners)),
    }


def _calls(total: Fleet) -> dict[str, Any]:
    return {
        "total": total.calls,
        "errors": total.errors,
        "in_flight": total.in_flight,
        **quantiles(total.latency),
    }


def dropped(services: Services) -> dict[str, int]:
    """Rows that were not kept, by kind, and what slow subscribers lost."""
    return {
        **services.journal.statistics().dropped,
        "log_lines": sum(runner.logbook.dropped for runner in services.supervisor.runners()),
        "lagged_streams": services.hub.statistics().lagged,
    }


def _control_plane(services: Services) -> dict[str, Any]:
    spawner, store, journal = services.spawner.statistics(), services.store.statistics(), services.journal.statistics()
    meters, tokens, hub = services.meters, services.tokens.statistics(), services.hub.statistics()
    with _process.oneshot():
        times, memory = _process.cpu_times(), _process.memory_info()
        own = {
            "pid": _process.pid,
            "cpu_seconds": round(times.user + times.system, 2),
            "memory_mb": round(memory.rss / MIB, 2),
            "open_files": _process.num_fds(),
            "threads": _process.num_threads(),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        }
    return {
        "version": services.version,
        "uptime_s": round(trio.current_time() - services.started_at, 3),
        **own,
        "connections": meters.connections,
        "requests": sum(meters.requests.values()),
        "waiting_to_start": services.supervisor.statistics().waiting_to_start,
        "event_buffers_mb": round(hub.buffered_bytes / MIB, 2),
        "journal": {"rows": journal.rows, "written": journal.written, "behind_s": round(journal.oldest_s, 3)},
        "postgres": {"available": store.available, "writable": store.writable, "problem": store.problem},
        "spawner": {"jobs": spawner.jobs, "spawned": spawner.spawned, "restarts": spawner.restarts},
        "egress": {"restarts": services.egress.restarts},
        "orphans_killed": spawner.orphans_killed,
        "users": tokens.users,
        "tokens": tokens.tokens,
        "tokens_stale": tokens.stale,
        "issuer": _issuer(services),
        "embedded": list(services.embedded),
    }


def _issuer(services: Services) -> dict[str, Any] | None:
    """Whose JWTs are accepted, and how current its keys are."""
    issuer = services.tokens.issuer
    if issuer is None:
        return None
    known = issuer.statistics()
    age_s = None if known.age_s is None else round(known.age_s, 1)
    return {"url": known.url, "keys": known.keys, "age_s": age_s, "problem": known.problem}


def _host(home: Path) -> dict[str, Any]:
    memory, disk = psutil.virtual_memory(), _disk(home)
    return {
        "cpus": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "memory_mb": memory.total // MIB,
        "memory_available_mb": memory.available // MIB,
        **disk,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _disk(home: Path) -> dict[str, int]:
    """Of the file system that all data is on; empty where that cannot be asked."""
    try:
        usage = psutil.disk_usage(str(home))
    except OSError:
        return {}
    return {"disk_mb": usage.total // MIB, "disk_free_mb": usage.free // MIB}


ROUTES = (
    Route(
        "GET",
        "/stats",
        get_stats,
        operation="getStats",
        summary="Totals of the fleet",
        description=(
            "Over what the caller may see, at every control plane on the database. Host and control-plane facts are for"
            " administrators, and those of the control plane that answers."
        ),
        tag="System",
        role=Role.VIEWER,
        answers={200: StatsOut},
        open_to_limited=True,
    ),
)
