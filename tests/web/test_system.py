"""Health, statistics and metrics."""

from __future__ import annotations

import json
import platform
import re
import sys

import trio

from controlplane.core.lifecycle import State
from controlplane.model import Role, Sample
from controlplane.web.health import SLOW_S
from controlplane.web.prometheus import OTEL_BUCKETS_S
from tests.web.fakes import NOW, TOKENS
from tests.web.fakes_api import BOB, Api, problem_of, serving


async def test_health_has_the_readmes_fields_and_tells_nothing_about_tenants() -> None:
    async with serving() as api:
        response = await api.ask("GET", "/health", token=None)
        assert response.status_code == 200
        found = response.json()
        assert found["status"] == "healthy"
        assert found["services"] == {"redis": "connected", "postgres": "connected", "mcp_manager": "healthy"}
        assert found["active_instances"] == 2
        assert found["version"] == "1.2.3"
        assert found["uptime_s"] >= 0
        assert "alice" not in response.text


async def test_health_is_degraded_while_a_service_is_away_and_healthy_again_after() -> None:
    async with serving() as api:
        api.store.away = True
        found = await api.ask("GET", "/health", token=None)
        assert (found.status_code, found.json()["status"]) == (200, "degraded")
        assert found.json()["services"]["postgres"] == "disconnected"
        api.store.away, api.cache.available = False, False
        found = await api.ask("GET", "/health", token=None)
        assert (found.json()["status"], found.json()["services"]["redis"]) == ("degraded", "disconnected")
        api.cache.available = True
        assert (await api.ask("GET", "/health", token=None)).json()["status"] == "healthy"


async def test_health_answers_at_once_though_the_database_is_frozen() -> None:
    async with serving() as api, trio.open_nursery() as nursery:
        api.store.frozen = trio.Event()
        nursery.start_soon(api.services.pulse.run)
        with trio.fail_after(SLOW_S + 5):
            while (await _timed_health(api))["services"]["postgres"] == "connected":
                await trio.sleep(0.05)
        api.store.frozen.set()
        with trio.fail_after(5):
            while (await _timed_health(api))["services"]["postgres"] != "connected":
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


async def _timed_health(api: Api) -> dict[str, dict[str, str]]:
    with trio.fail_after(2):
        response = await api.ask("GET", "/health", token=None)
    found: dict[str, dict[str, str]] = response.json()
    return found


async def test_readiness_goes_off_when_the_control_plane_stops_and_liveness_stays() -> None:
    async with serving() as api:
        assert (await api.ask("GET", "/readyz", token=None)).status_code == 200
        api.services.stopping = True
        ready = await api.ask("GET", "/readyz", token=None)
        problem_of(ready, 503, "shutting_down")
        assert "retry-after" in ready.headers
        assert (await api.ask("GET", "/livez", token=None)).status_code == 200
        health = await api.ask("GET", "/health", token=None)
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")


async def test_runtimes_say_what_can_be_run_and_how_to_get_the_rest_but_not_where_it_is() -> None:
    async with serving() as api:
        answers: list[dict[str, list[dict[str, object]]]] = []

        async def ask() -> None:
            response = await api.ask("GET", "/runtimes", token=TOKENS[Role.VIEWER])
            assert response.status_code == 200
            assert sys.executable not in response.text
            answers.append(response.json())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert answers[0] == answers[1] == answers[2]
        found = {entry["language"]: entry for entry in answers[0]["runtimes"]}
        assert found["python"]["tools"] == [{"name": "python", "version": platform.python_version()}]
        assert found["go"] == {
            "language": "go",
            "usable": False,
            "tools": [],
            "missing": ["go"],
            "hint": api.services.toolchain.advice(["go"]),
        }
        problem_of(await api.ask("GET", "/runtimes", token=None), 401, "unauthorized")


async def test_isolation_says_what_the_host_can_give_and_what_would_unlock_the_rest() -> None:
    async with serving() as api:
        found = (await api.ask("GET", "/isolation", token=TOKENS[Role.VIEWER])).json()
        levels = {level["name"]: level for level in found["levels"]}
        assert [level for level in levels if levels[level]["available"]] == ["process", "confined"]
        assert levels["confined"] == {"name": "confined", "available": True, "why": None, "unlock": None}
        assert levels["namespaced"]["unlock"] == "apt-get install bubblewrap"
        assert (found["auto"], found["minimum"], found["landlock"]) == ("confined", "process", 7)
        assert found["limits"]["driver"] == "cgroup2"
        assert found["limits"]["enforcement"] == {
            "memory_mb": "hard",
            "cpu_percent": "soft",
            "processes": "hard",
            "open_files": "hard",
            "disk_mb": "soft",
        }
        assert "cgroup" in found["limits"]["unlock"]
        assert "/g" not in json.dumps(found), "where the groups are is nobody's business"
        problem_of(await api.ask("GET", "/isolation", token=None), 401, "unauthorized")
        short = (await api.ask("GET", "/stats")).json()["isolation"]
        assert (short["auto"], short["available"]) == ("confined", ["process", "confined"])
        assert (short["limits"], short["soft"]) == ("cgroup2", ["cpu_percent", "disk_mb"])


def _work(api: Api) -> None:
    for owner, calls in (("alice", 3), ("bob", 4)):
        runner = api.named(owner, "memory")
        for _ in range(calls):
            runner.meter.count(0.015, failed=owner == "bob")
        runner.last_sample = Sample(at=NOW, cpu_percent=10, memory_mb=20, processes=2)


async def test_statistics_add_up_what_the_caller_may_see() -> None:
    async with serving() as api:
        _work(api)
        mine = (await api.ask("GET", "/stats")).json()
        assert mine["instances"] == {
            "total": 2,
            "by_status": {"running": 1, "stopped": 1},
            "by_language": {"node": 1, "python": 1},
        }
        assert (mine["calls"]["total"], mine["calls"]["errors"]) == (3, 0)
        assert mine["fleet"] == {"cpu_percent": 10, "memory_mb": 20, "processes": 2}
        assert mine["host"] == mine["control_plane"] == mine["dropped"] == {}
        assert mine["orphans"] == 0
        bobs = (await api.ask("GET", "/stats", token=BOB)).json()
        assert (bobs["calls"]["total"], bobs["calls"]["errors"]) == (4, 4)


async def test_an_administrators_statistics_cover_everything() -> None:
    async with serving() as api:
        _work(api)
        with api.services.hub.subscribe(owner=None):
            found = (await api.admin("GET", "/stats")).json()
        assert found["instances"]["total"] == 3
        assert found["calls"]["total"] == 7
        assert 14 < found["calls"]["p95_ms"] < 20
        assert found["subscribers"] == 1
        assert found["dropped"] == {"logs": 2, "refused": 1, "log_lines": 0, "lagged_streams": 0}
        assert found["control_plane"]["memory_mb"] > 1
        assert found["control_plane"]["egress"] == {"restarts": 0}
        assert found["host"]["cpus"] >= 1
        assert found["isolation"]["in_force"] == {"process": 3}


SAMPLE_LINE = re.compile(
    r'[a-z_][a-z0-9_]*(\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*\})? '
    r"(?:[+-]?Inf|-?[0-9.]+(?:e[+-]?[0-9]+)?)"
)


async def test_metrics_are_prometheus_text_with_every_family_named_once() -> None:
    async with serving() as api:
        _work(api)
        response = await api.admin("GET", "/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = response.text.splitlines()
        assert response.text.endswith("\n")
        helps = [line.split()[2] for line in lines if line.startswith("# HELP")]
        assert len(helps) == len(set(helps))
        for line in lines:
            assert line.startswith("# ") or SAMPLE_LINE.fullmatch(line), line
        names = {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}
        known = {f"{name}{suffix}" for name in helps for suffix in ("", "_bucket", "_sum", "_count")}
        assert names <= known
        for expected in (
            "corral_orphans 0",
            "corral_orphans_killed_total 3",
            "corral_spawner_restarts_total 0",
            "corral_egress_restarts_total 0",
            "corral_subscribers 0",
            'corral_dropped_total{kind="logs"} 2',
            'corral_instances{status="running"} 2',
            'corral_backing_service_up{service="postgres"} 1',
            "mcp_server_operation_duration_seconds_count 7",
            'mcp_server_operation_duration_seconds_bucket{le="+Inf"} 7',
            'mcp_server_operation_duration_seconds_bucket{le="0.01"} 0',
            'mcp_server_operation_duration_seconds_bucket{le="0.02"} 7',
        ):
            assert expected in lines


async def test_a_histograms_buckets_only_grow() -> None:
    async with serving() as api:
        runner = api.named("alice", "memory")
        for exponent in range(-6, 3):
            runner.meter.count(10.0**exponent, failed=False)
        text = (await api.ask("GET", "/metrics")).text
        counts = [int(n) for n in re.findall(r"duration_seconds_bucket\{le=\"[^\"]+\"\} (\d+)", text)]
        assert counts == sorted(counts)
        assert len(counts) == len(OTEL_BUCKETS_S) + 1
        assert counts[-1] == 9


async def test_metrics_show_others_than_administrators_their_own_instances_only() -> None:
    async with serving() as api:
        text = (await api.ask("GET", "/metrics", token=TOKENS[Role.VIEWER])).text
        assert 'owner="alice"' in text
        assert "bob" not in text
        assert "corral_orphans" not in text
        assert "process_" not in text


async def test_paths_that_clients_make_up_add_no_series() -> None:
    async with serving() as api:
        for number in range(30):
            await api.ask("GET", f"/nothing/{number}?x={number}")
            await api.ask("GET", f"/instances/n{number}")
        text = (await api.admin("GET", "/metrics")).text
        assert len(re.findall(r"^corral_http_requests_total", text, re.MULTILINE)) < 5


async def test_a_stopped_instance_keeps_its_counters_and_loses_its_gauges() -> None:
    async with serving() as api:
        _work(api)
        api.named("alice", "memory").become(State.STOPPED)
        text = (await api.ask("GET", "/metrics")).text
        assert re.search(r"corral_instance_calls_total\{[^}]*name=\"memory\"[^}]*\} 3", text)
        assert "corral_instance_memory_bytes" not in text
