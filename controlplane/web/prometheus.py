"""`/metrics`: what Prometheus scrapes.

Names of OpenTelemetry's MCP conventions where they exist, in Prometheus'
spelling. Every label has few values: those of closed sets, and the instances
that exist now. A viewer sees its own instances; the control plane's own series
are for administrators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import trio

from controlplane import tracing
from controlplane.core.latency import BOUNDS_S
from controlplane.core.lifecycle import PUBLIC_STATUS
from controlplane.model import Role
from controlplane.web.call import Call, Reply
from controlplane.web.exposition import CONTENT_TYPE, Exposition
from controlplane.web.instances import visible
from controlplane.web.prometheus_host import host_facts
from controlplane.web.prometheus_nodes import node_facts
from controlplane.web.route import Route
from controlplane.web.stats import dropped, fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from controlplane.core.latency import Histogram
    from controlplane.supervise.runner import Runner
    from controlplane.web.exposition import Labels
    from controlplane.web.services import Services

OTEL_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""The bounds that OpenTelemetry's MCP conventions advise for `mcp.server.operation.duration`."""
_process = psutil.Process()


async def get_metrics(call: Call) -> Reply:
    """The page."""
    page = Exposition()
    runners = sorted(visible(call), key=lambda runner: str(runner.instance.id))
    _fleet(page, runners)
    _instances(page, runners)
    if call.principal.is_admin:
        _control_plane(page, call.services)
        node_facts(page, call.services)
        _process_facts(page, call.services)
        host_facts(page, call.services.config.home)
    return Reply(200, page.text().encode("utf-8", "backslashreplace"), CONTENT_TYPE)


def otel_buckets(latency: Histogram) -> Iterator[tuple[float, int]]:
    """Our fine buckets in OpenTelemetry's coarse ones: cumulative, each counted where its upper bound falls."""
    for bound in OTEL_BUCKETS_S:
        yield bound, sum(count for edge, count in zip(BOUNDS_S, latency.counts, strict=True) if edge <= bound)


def _fleet(page: Exposition, runners: list[Runner]) -> None:
    total = fleet(runners)
    by_status = [({"status": word}, total.by_status.get(word, 0)) for word in PUBLIC_STATUS.values()]
    page.family("corral_instances", "gauge", "Instances by status.", by_status)
    page.one("corral_calls_in_flight", "gauge", "Calls that instances have not answered yet.", total.in_flight)
    page.histogram(
        "mcp_server_operation_duration_seconds",
        "Duration of MCP requests to instances, as the control plane sees it.",
        otel_buckets(total.latency),
        total.latency.count,
        total.latency.total_s,
    )


def _instances(page: Exposition, runners: list[Runner]) -> None:
    def each(value: Callable[[Runner], float | None]) -> list[tuple[Labels, float]]:
        found = ((runner, value(runner)) for runner in runners)
        return [(_labels(runner), number) for runner, number in found if number is not None]

    page.family(
        "corral_instance_up", "gauge", "1 while the instance serves.", each(lambda r: r.state.value == "running")
    )
    page.family("corral_instance_calls_total", "counter", "Calls since the start.", each(lambda r: r.meter.calls))
    page.family("corral_instance_call_errors_total", "counter", "Calls that failed.", each(lambda r: r.meter.errors))
    page.family(
        "corral_instance_call_seconds_total",
        "counter",
        "Time that its calls took.",
        each(lambda r: r.meter.latency.total_s),
    )
    page.family(
        "corral_instance_calls_in_flight", "gauge", "Calls that wait for it.", each(lambda r: r.calls_in_flight)
    )
    page.family("corral_instance_restarts_total", "counter", "Restarts.", each(lambda r: r.instance.restarts))
    page.family("corral_instance_uptime_seconds", "gauge", "Age of its process.", each(lambda r: r.uptime_s))
    page.family("corral_instance_cpu_percent", "gauge", "CPU of its tree; 100 is one core.", each(_cpu))
    page.family("corral_instance_memory_bytes", "gauge", "Memory of its tree.", each(_memory))
    page.family("corral_instance_memory_limit_bytes", "gauge", "What of it it may have.", each(_memory_limit))
    page.family("corral_instance_processes", "gauge", "Processes of its tree.", each(_processes))
    page.family("corral_instance_disk_bytes", "gauge", "What lies in its folder and is its own.", each(_disk))


def _labels(runner: Runner) -> Labels:
    instance = runner.instance
    return {"instance_id": instance.id, "name": instance.name, "owner": instance.owner}


def _cpu(runner: Runner) -> float | None:
    return runner.last_sample.cpu_percent if runner.last_sample is not None and runner.pid is not None else None


def _memory(runner: Runner) -> float | None:
    sample = runner.last_sample
    return sample.memory_mb * 2**20 if sample is not None and runner.pid is not None else None


def _memory_limit(runner: Runner) -> float:
    return runner.instance.spec.limits.memory_mb * 2**20


def _disk(runner: Runner) -> float | None:
    sample = runner.last_sample
    return sample.disk_mb * 2**20 if sample is not None and sample.disk_mb is not None else None


def _processes(runner: Runner) -> float | None:
    return runner.last_sample.processes if runner.last_sample is not None and runner.pid is not None else None


def _control_plane(page: Exposition, services: Services) -> None:
    hub, spawner, journal = services.hub.statistics(), services.spawner.statistics(), services.journal.statistics()
    page.one("corral_orphans", "gauge", "Processes of Corral's that belong to nothing: must read 0.", spawner.orphans)
    page.one("corral_orphans_killed_total", "counter", "Such processes found and killed.", spawner.orphans_killed)
    page.one("corral_spawner_restarts_total", "counter", "Times the spawner died.", spawner.restarts)
    restarts = services.egress.restarts
    page.one("corral_egress_restarts_total", "counter", "Times the egress process died.", restarts)
    page.one("corral_subscribers", "gauge", "Open event streams.", hub.subscribers)
    page.one("corral_events_total", "counter", "Events published.", hub.published)
    page.one("corral_event_buffer_bytes", "gauge", "Event rings and subscriber queues together.", hub.buffered_bytes)
    lost = [({"kind": kind}, count) for kind, count in sorted(dropped(services).items())]
    page.family("corral_dropped_total", "counter", "Rows, lines and streams that were not kept, by kind.", lost)
    page.one("corral_journal_rows", "gauge", "Rows that wait for the database.", journal.rows)
    page.one("corral_journal_behind_seconds", "gauge", "Age of the oldest of them.", journal.oldest_s)
    backing = [({"service": name}, word == "connected") for name, word in services.pulse.words().items()]
    page.family("corral_backing_service_up", "gauge", "1 while Postgres and Redis answer.", backing)
    spans = tracing.statistics()
    outcomes = [({"outcome": "exported"}, spans.exported), ({"outcome": "dropped"}, spans.dropped)]
    page.family("corral_spans_total", "counter", "Spans of traces: delivered, or lost on the way.", outcomes)
    tokens = services.tokens.statistics()
    page.one("corral_tokens_stale", "gauge", "1 while revocations cannot be heard of.", tokens.stale)
    _mcp(page, services)
    _http(page, services)


def _mcp(page: Exposition, services: Services) -> None:
    sessions, parked = services.mcp.legacy.table.statistics(), services.mcp.modern.parked.statistics()
    page.one("corral_mcp_sessions", "gauge", "Sessions of MCP clients.", sessions.sessions)
    page.one("corral_mcp_streams", "gauge", "Event streams of sessions that are read.", sessions.readers)
    page.one("corral_mcp_buffered_bytes", "gauge", "Events kept for readers and resumes.", sessions.buffered_bytes)
    page.one("corral_mcp_parked_calls", "gauge", "Calls that wait for their client's answers.", parked.parked)


def _http(page: Exposition, services: Services) -> None:
    meters = services.meters
    answers = [
        ({"route": route, "status": status}, count) for (route, status), count in sorted(meters.requests.items())
    ]
    page.family("corral_http_requests_total", "counter", "Answers by route and status.", answers)
    seconds = [({"route": route}, total) for route, total in sorted(meters.seconds.items())]
    page.family("corral_http_request_seconds_total", "counter", "Time spent on them.", seconds)
    page.one("corral_http_hot_requests_total", "counter", "Calls that the hot lane answered.", meters.hot)
    page.one("corral_http_connections", "gauge", "Open client connections.", meters.connections)
    page.one("corral_http_connections_refused_total", "counter", "Turned away at the cap.", meters.refused)
    page.one("corral_http_connections_cut_total", "counter", "Ended for being slow or idle.", meters.cut)


def _process_facts(page: Exposition, services: Services) -> None:
    with _process.oneshot():
        times, memory = _process.cpu_times(), _process.memory_info()
        page.one("process_cpu_seconds_total", "counter", "CPU of the control plane.", times.user + times.system)
        page.one("process_resident_memory_bytes", "gauge", "Memory of the control plane.", memory.rss)
        page.one("process_open_fds", "gauge", "Its open file descriptors.", _process.num_fds())
        most = _process.rlimit(psutil.RLIMIT_NOFILE)[0]
        page.one("process_max_fds", "gauge", "And how many there may be.", most)
        page.one("corral_tasks", "gauge", "Its Trio tasks.", trio.lowlevel.current_statistics().tasks_living)
        page.one("process_start_time_seconds", "gauge", "When it started, Unix time.", _process.create_time())
    uptime = trio.current_time() - services.started_at
    page.one("corral_uptime_seconds", "gauge", "Since the control plane was ready.", uptime)
    page.family("corral_build_info", "gauge", "The version, as a label.", [({"version": services.version}, 1)])


ROUTES = (
    Route(
        "GET",
        "/metrics",
        get_metrics,
        operation="getPrometheusMetrics",
        summary="Metrics for Prometheus",
        description="Text format 0.0.4. A token of any role sees its own instances, an administrator's everything.",
        tag="System",
        role=Role.VIEWER,
        answers={200: "text/plain"},
        open_to_limited=True,
    ),
)
