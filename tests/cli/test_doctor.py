"""`corral doctor`: what it finds, and what it says to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from controlplane.cli import hostchecks, isolationchecks, runtimechecks
from controlplane.cli.hostchecks import ABSENT, BAD, GOOD, POOR
from tests.cli.fake_api import document, problem

HEALTH = {
    "status": "healthy",
    "services": {"redis": "connected", "mcp_manager": "healthy", "postgres": "connected"},
    "active_instances": 2,
    "version": "0.1.0",
    "uptime_s": 61.0,
}
STATS = {"orphans": 0, "dropped": {"logs": 0}, "instances": {"total": 2, "by_status": {"running": 2}}}
RUNTIMES = {
    "runtimes": [
        {
            "language": "python",
            "usable": True,
            "tools": [{"name": "python", "version": "3.11.2"}, {"name": "uv", "version": None}],
            "missing": [],
            "hint": None,
        },
        {"language": "node", "usable": False, "tools": [], "missing": ["node", "npm"], "hint": "apt install npm"},
        {
            "language": "rust",
            "usable": False,
            "tools": [{"name": "cc", "version": "12.2.0"}],
            "missing": ["cargo", "rustc"],
            "hint": "apt install cargo rustc",
        },
        {"language": "binary", "usable": True, "tools": [], "missing": [], "hint": None},
    ]
}
ISOLATION = {
    "levels": [
        {"name": "process", "available": True, "why": None, "unlock": None},
        {"name": "confined", "available": True, "why": None, "unlock": None},
        {
            "name": "namespaced",
            "available": False,
            "why": "bubblewrap is not installed",
            "unlock": "install bubblewrap",
        },
    ],
    "auto": "confined",
    "minimum": "process",
    "limits": {
        "driver": "cgroup2",
        "enforcement": {"memory_mb": "hard", "cpu_percent": "soft", "open_files": "hard", "disk_mb": "soft"},
        "unlock": "Delegate=yes",
    },
    "landlock": 7,
}


@pytest.fixture
def checks(api, corral):
    """Run the doctor and return its findings by name, with its exit code."""
    api.on("GET /runtimes", document(RUNTIMES))
    api.on("GET /isolation", document(ISOLATION))

    def run():
        result = corral("doctor", "--json")
        return result.code, {check["name"]: check for check in result.json["checks"]}

    return run


def test_a_healthy_control_plane_has_nothing_to_mend(api, checks):
    api.on("GET /health", document(HEALTH))
    api.on("GET /stats", document(STATS))
    code, found = checks()
    assert code == 0
    for name in ("running", "Postgres", "Redis", "supervisor", "orphans"):
        assert (found[name]["verdict"], found[name]["fix"]) == (GOOD, "")
    assert "version 0.1.0, up 1m1s" in found["running"]["found"]


def test_a_host_without_a_control_plane_is_no_fault(api, checks, monkeypatch):
    monkeypatch.setenv("CORRAL_URL", "http://127.0.0.1:1")
    code, found = checks()
    assert code == 0
    assert (found["running"]["verdict"], found["running"]["fix"]) == (POOR, "corral up")
    assert "Postgres" in found
    assert "Redis" in found


def test_orphans_are_a_fault_and_dropped_rows_a_warning(api, checks):
    api.on("GET /health", document(HEALTH))
    by_status = {"running": 1, "failed": 2}
    api.on(
        "GET /stats",
        document({"orphans": 3, "dropped": {"logs": 12, "samples": 0}, "instances": {"by_status": by_status}}),
    )
    code, found = checks()
    assert code == 1
    assert (found["orphans"]["verdict"], found["orphans"]["found"]) == (BAD, "3")
    assert (found["dropped rows"]["verdict"], found["dropped rows"]["found"]) == (POOR, "12 logs")
    assert found["instances"]["fix"] == "corral ls --status failed"


def test_a_database_that_is_away_is_named_also_when_health_answers_503(api, checks):
    down = {**HEALTH, "status": "unhealthy", "services": {"redis": "disconnected", "postgres": "disconnected"}}
    api.on("GET /health", document(down, 503))
    code, found = checks()
    assert code == 1
    assert found["running"]["verdict"] == BAD
    assert found["Postgres"]["verdict"] == BAD
    assert "DATABASE_URL" in found["Postgres"]["fix"]
    assert found["Redis"]["verdict"] == POOR


def test_a_refused_token_is_a_fault(api, checks):
    api.on("GET /health", document(HEALTH))
    api.on("GET /stats", problem(403, "forbidden"))
    code, found = checks()
    assert code == 1
    assert "title of forbidden" in found["answer"]["found"]


def test_each_language_is_a_line_with_its_versions_or_how_to_get_it(api, checks):
    api.on("GET /health", document(HEALTH))
    api.on("GET /stats", document(STATS))
    code, found = checks()
    assert code == 0, "a language that is missing is no fault"
    assert (found["python"]["verdict"], found["python"]["found"]) == (GOOD, "python 3.11.2, uv (version unknown)")
    assert (found["node"]["verdict"], found["node"]["fix"]) == (POOR, "apt install npm")
    assert (found["rust"]["verdict"], found["rust"]["found"]) == (ABSENT, "no cargo, rustc (there is cc 12.2.0)")
    assert found["rust"]["fix"] == "apt install cargo rustc"
    assert "binary" not in found


def test_each_level_says_whether_it_is_there_and_what_would_unlock_it(api, checks):
    api.on("GET /health", document(HEALTH))
    api.on("GET /stats", document(STATS))
    code, found = checks()
    assert code == 0, "a level that is missing is no fault"
    assert found["confined"]["verdict"] == GOOD
    assert (found["namespaced"]["verdict"], found["namespaced"]["fix"]) == (POOR, "install bubblewrap")
    assert found["namespaced"]["found"] == "not here: bubblewrap is not installed"
    assert found["auto"]["found"] == "gives confined; the operator allows process and stronger"
    assert found["hard limits"]["found"] == "memory, open files: the kernel holds them (cgroup2)"
    assert found["soft limits"]["found"].startswith("cpu, disk: Corral looks")
    assert (found["soft limits"]["verdict"], found["soft limits"]["fix"]) == (POOR, "Delegate=yes")


def test_a_disk_limit_that_is_soft_everywhere_is_nothing_to_mend():
    whole = {"enforcement": {"memory_mb": "hard", "disk_mb": "soft"}, "driver": "cgroup2", "unlock": None}
    findings = {one.name: one for one in isolationchecks.isolation({**ISOLATION, "limits": whole})}
    assert (findings["soft limits"].verdict, findings["soft limits"].fix) == (GOOD, "")


def test_an_auto_that_is_weaker_than_the_operator_demands_is_told():
    findings = {
        one.name: one for one in isolationchecks.isolation({**ISOLATION, "auto": None, "minimum": "namespaced"})
    }
    assert findings["auto"].verdict == POOR
    assert "MIN_ISOLATION is namespaced" in findings["auto"].found


def test_an_old_kernels_landlock_is_not_praised_for_what_it_lacks():
    findings = {one.name: one for one in isolationchecks.isolation({**ISOLATION, "landlock": 3})}
    assert findings["confined"].verdict == POOR
    assert "signals" in findings["confined"].found


def test_levels_of_this_host_are_tried_where_no_control_plane_runs(api, checks, monkeypatch, tmp_path):
    (tmp_path / "controlplane.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORRAL_URL", "http://127.0.0.1:1")
    _, found = checks()
    assert found["process"]["verdict"] == GOOD
    assert {"confined", "namespaced", "auto", "soft limits"} <= found.keys()
    monkeypatch.setattr(isolationchecks, "SURVEY", "no.such.module")
    (finding,) = isolationchecks.isolation(isolationchecks.survey_here())
    assert (finding.name, finding.verdict) == ("levels", POOR)


def test_without_a_control_plane_the_host_is_looked_at_in_the_same_way(api, checks, monkeypatch, tmp_path):
    (tmp_path / "controlplane.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORRAL_URL", "http://127.0.0.1:1")
    _, found = checks()
    assert found["python"]["verdict"] == GOOD
    assert found["python"]["found"].startswith("python 3.")
    assert {"go", "rust", "ruby", "deno"} <= found.keys()


def test_a_host_that_cannot_be_looked_at_is_said_to_be_unknown(monkeypatch):
    monkeypatch.setattr(runtimechecks, "SURVEY", "no.such.module")
    (finding,) = runtimechecks.runtimes(runtimechecks.survey_here())
    assert (finding.name, finding.verdict) == ("languages", POOR)


def test_the_list_for_people_has_a_sign_and_a_way_to_mend(api, corral):
    api.on("GET /runtimes", document(RUNTIMES))
    api.on("GET /health", document(HEALTH))
    api.on("GET /stats", document({**STATS, "orphans": 1}))
    out = corral("doctor").out
    assert "✓ Postgres        connected" in out
    assert "✗ orphans         1" in out
    assert "→ This is a bug of Corral's" in out
    assert "✓ python          python 3.11.2" in out
    assert "- rust            no cargo, rustc" in out


def test_credentials_that_others_can_read_are_a_fault(tmp_path):
    path = tmp_path / "credentials"
    path.touch(0o600)
    assert hostchecks.credentials({"CORRAL_HOME": str(tmp_path)})[0].verdict == GOOD
    path.chmod(0o640)
    finding = hostchecks.credentials({"CORRAL_HOME": str(tmp_path)})[0]
    assert (finding.verdict, finding.fix) == (BAD, f"chmod 600 {path}")
    assert hostchecks.credentials({"CORRAL_HOME": str(tmp_path / "none")}) == []


def test_a_named_database_is_tried_and_its_password_never_shown():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        there, _ = hostchecks.services({"DATABASE_URL": f"postgresql://u:s3cret@127.0.0.1:{port}/d"})
    assert (there.verdict, there.found) == (GOOD, f"127.0.0.1:{port} from DATABASE_URL takes connections")
    gone, _ = hostchecks.services({"DATABASE_URL": f"postgresql://u:s3cret@127.0.0.1:{port}/d"})
    assert gone.verdict == BAD
    assert "s3cret" not in repr(gone)
    assert hostchecks.services({"REDIS_URL": "redis://["})[1].verdict == BAD
    assert hostchecks.services({"REDIS_URL": "unix:///run/redis.sock"})[1].verdict == GOOD


def test_a_process_that_an_earlier_life_left_is_found_and_one_of_another_home_is_not(tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/owner-id").write_text("test-of-doctor\n")
    (tmp_path / "others").mkdir()
    (tmp_path / "others/owner-id").write_text("another\n")
    environment = {**os.environ, "CORRAL_OWNER": "test-of-doctor"}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=environment, stdin=subprocess.PIPE) as left:
        finding = hostchecks.leftovers(tmp_path / "ours")
        assert (finding.verdict, finding.found.split()[0]) == (POOR, "1")
        assert hostchecks.leftovers(tmp_path / "others").verdict == GOOD
        assert hostchecks.leftovers(tmp_path / "none").verdict == POOR
        left.kill()


@pytest.mark.parametrize(
    ("version", "verdict", "words"),
    [("v20.1.0", GOOD, "v20.1.0"), ("v16.20.0", POOR, "18 or newer"), ("", POOR, "up` installs one")],
)
def test_node_is_judged_by_its_version(monkeypatch, tmp_path, version, verdict, words):
    if version:
        for name in ("node", "npx"):
            (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
            (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(hostchecks.importlib.util, "find_spec", lambda _name: None)
    finding = hostchecks.node()[0]
    assert finding.verdict == verdict
    assert words in finding.found + finding.fix


def test_every_check_of_this_host_ends_with_a_verdict(tmp_path):
    findings = hostchecks.all_of_host({"CORRAL_HOME": str(tmp_path / "not" / "yet")})
    assert {finding.verdict for finding in findings} <= {GOOD, POOR, BAD}
    assert [finding.name for finding in findings if finding.name != "npx"] == [
        "Python",
        "Node",
        "uv",
        "disk",
        "memory",
        "open files",
    ]


@pytest.mark.parametrize(
    ("issuer", "verdict", "words"),
    [
        ({"keys": 2, "age_s": 12.0, "problem": None}, GOOD, "2 keys"),
        ({"keys": 0, "age_s": None, "problem": None}, POOR, "not been read yet"),
        ({"keys": 2, "age_s": 700.0, "problem": "ConnectError"}, POOR, "the 2 known stay in force"),
        ({"keys": 0, "age_s": None, "problem": "ConnectError"}, POOR, "its tokens are refused"),
    ],
)
def test_an_issuer_whose_keys_cannot_be_read_is_a_warning(api, checks, issuer, verdict, words):
    said = {"issuer": {"url": "https://login.example.com", **issuer}}
    api.on("GET /health", document(HEALTH))
    api.on("GET /stats", document({**STATS, "control_plane": said}))
    code, found = checks()
    assert code == 0
    assert found["issuer"]["verdict"] == verdict
    assert words in found["issuer"]["found"]
