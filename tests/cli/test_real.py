"""The command line against a real control plane, from the first deploy to what is left after the last."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.cli.terminal import COMMAND, TIMEOUT_S, Terminal
from tests.e2e.plane import deployment, plane

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.plane import Plane

__all__ = ["plane"]


@pytest.fixture
def echo(plane: Plane) -> str:
    """A running instance, gone after the test."""
    name = "echo"
    plane.deploy(name)
    yield name
    plane.corral("rm", name)


def test_a_server_lives_its_whole_life_by_the_command_line(plane, tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(deployment("calc")))
    deployed = plane.corral("deploy", "-f", str(spec))
    assert deployed.returncode == 0, deployed.stderr
    assert deployed.stdout.startswith("calc is running  (pid ")
    assert "calc: handshake" in deployed.stderr.splitlines()
    assert plane.corral("ls", "-q").stdout == "calc\n"
    assert plane.corral("call", "calc", "--tool", "echo", "-p", "text=hello", "--text").stdout == "hello\n"
    words = '{"name": "echo", "arguments": {"text": "word for word"}}'
    assert "word for word" in plane.corral("call", "calc", "tools/call", words).stdout
    assert plane.corral("tools", "calc").stdout.split()[:3] == ["TOOL", "ARGUMENTS", "DESCRIPTION"]
    assert plane.corral("stop", "calc").stdout.startswith("calc is stopped")
    stopped = plane.corral("call", "calc", "ping")
    assert stopped.returncode == 1
    assert "-m controlplane" not in stopped.stderr
    assert "Hint: " in stopped.stderr
    assert plane.corral("start", "calc").stdout.startswith("calc is running")
    assert plane.corral("restart", "calc").stdout.startswith("calc is running")
    past = plane.corral("events", "calc").stdout
    assert "deployed" in past
    assert "running" in past
    assert plane.corral("inspect", "calc").stdout.startswith("calc  ● running\n")
    assert plane.corral("rm", "calc").stdout == "calc is removed\n"
    gone = plane.corral("rm", "calc")
    assert (gone.returncode, gone.stdout) == (3, "")


def test_a_failed_deploy_shows_phase_exit_code_and_last_words_and_exits_with_5(plane):
    words = "import sys; sys.exit('no \\x1b[2Jway')"
    result = plane.corral("deploy", "broken", "--restart", "never", "--", sys.executable, "-c", words)
    try:
        assert result.returncode == 5
        assert "handshake" in result.stderr or "spawn" in result.stderr
        assert "`corral rm broken` removes it" in result.stderr
        assert "\x1b" not in result.stderr
        shown = plane.corral("deploy", "broken", "--", "x")
        assert shown.returncode == 1  # the name is taken: it stays, failed
        assert "409 conflict" in shown.stderr
    finally:
        plane.corral("rm", "broken")


def test_a_crash_in_a_call_is_exit_5_and_a_timeout_exit_6(plane, echo):
    assert plane.corral("call", echo, "-t", "sleep", "-p", "seconds=2", "--timeout", "0.2").returncode == 6
    crashed = plane.corral("call", echo, "-t", "exit", "-p", "last_words=goodbye")
    assert crashed.returncode == 5, crashed.stderr


def test_a_json_rpc_error_of_a_real_server_is_exit_1(plane, echo):
    result = plane.corral("call", echo, "no/such/method")
    assert result.returncode == 1
    assert f"{echo} answered with an error" in result.stderr


def test_logs_are_listed_and_followed(plane, echo):
    plane.corral("call", echo, "-t", "spam", "-p", "lines=3", "-p", "word=tick")
    assert [line.split()[-3:] for line in plane.corral("logs", echo, "--stream", "stderr").stdout.splitlines()] == [
        ["line", str(number), "tick"] for number in range(3)
    ]
    environment = plane.environment | {"CORRAL_URL": plane.url, "CORRAL_TOKEN": plane.token}
    command = [*COMMAND, "logs", "-f", "-n", "1", "--stream", "stderr", echo]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline().endswith("line 2 tick\n")
        plane.corral("call", echo, "-t", "spam", "-p", "lines=1", "-p", "word=live")
        assert follower.stdout.readline().endswith("line 0 live\n")
        follower.kill()


def test_the_fleets_events_are_followed_as_json_lines(plane, echo):
    environment = plane.environment | {"CORRAL_URL": plane.url, "CORRAL_TOKEN": plane.token}
    with subprocess.Popen(
        [*COMMAND, "events", "--json"], stdout=subprocess.PIPE, env=environment, text=True
    ) as follower:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["type"] == "connected"
        plane.corral("stop", echo)
        types = (json.loads(line) for line in follower.stdout)
        assert next(event for event in types if event.get("status") == "stopped")["name"] == echo
        follower.kill()


def test_tokens_are_made_used_listed_and_removed(plane, echo):
    token = plane.corral("token", "create", "reader", "--role", "viewer", "--expires", "1h").stdout.strip()
    environment = plane.environment | {"CORRAL_URL": plane.url, "CORRAL_TOKEN": token}

    def as_reader(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )

    assert as_reader("ls", "-q").stdout == f"{echo}\n"
    refused = as_reader("stop", echo)
    assert refused.returncode == 4
    assert "403 forbidden" in refused.stderr
    assert "reader" in plane.corral("token", "ls").stdout
    assert plane.corral("token", "rm", "reader").returncode == 0
    revoked = as_reader("ls")
    assert revoked.returncode == 4
    assert "The token came from CORRAL_URL and CORRAL_TOKEN." in revoked.stderr


def test_users_are_made_given_tokens_changed_and_disabled(plane):
    first = plane.corral("user", "add", "grace", "--role", "deployer").stdout.strip()
    second = plane.corral("token", "create", "ci", "--role", "caller", "--owner", "grace").stdout.strip()
    with plane.client(first) as grace, plane.client(second) as ci:
        assert grace.get("/instances").status_code == ci.get("/instances").status_code == 200
        assert {row["owner"] for row in grace.get("/tokens").json()["tokens"]} == {"grace"}
        assert plane.corral("user", "role", "grace", "viewer").stdout == "grace is active, role viewer\n"
        assert grace.post("/tokens", json={"name": "x", "role": "viewer"}).status_code == 403
        assert plane.corral("user", "disable", "grace").stdout == "grace is disabled, role viewer\n"
        assert grace.get("/instances").status_code == ci.get("/instances").status_code == 401
    assert plane.corral("user", "ls").stdout.split()[-4:-2] == ["viewer", "disabled"]
    assert plane.corral("user", "role", "nobody", "viewer").returncode == 3


def test_a_disabled_users_instance_runs_on_and_the_user_goes_without_instances_only(plane):
    first = plane.corral("user", "add", "ada", "--role", "deployer").stdout.strip()
    with plane.client(first) as ada:
        deployed = ada.post("/deploy", json=deployment("hers"), timeout=TIMEOUT_S)
        assert deployed.status_code == 201, deployed.text
        limited = plane.corral("token", "create", "agent", "--role", "caller", "--owner", "ada", "--instance", "hers")
        assert "opens hers only" in limited.stderr
        assert "hers" in plane.corral("token", "ls").stdout
    with plane.client(limited.stdout.strip()) as agent:
        assert agent.post("/mcp/hers/execute", json={"method": "tools/list"}).status_code == 200
        assert agent.post("/deploy", json={}).status_code == 403
        plane.corral("user", "disable", "ada")
        assert agent.post("/mcp/hers/execute", json={"method": "tools/list"}).status_code == 401
    assert plane.corral("ls", "--owner", "ada", "-q").stdout == "hers\n"
    assert plane.corral("call", "ada/hers", "tools/list").returncode == 0
    refused = plane.corral("user", "rm", "ada")
    assert refused.returncode != 0
    assert "ada has 1 instance" in refused.stderr
    assert plane.corral("rm", "ada/hers").returncode == 0
    assert plane.corral("user", "rm", "ada").stdout == "ada is removed\n"
    assert "ada" not in plane.corral("user", "ls").stdout


def test_the_credentials_file_is_enough(plane):
    environment = {**plane.environment, "CORRAL_URL": "", "CORRAL_TOKEN": ""}
    kept = json.loads((plane.home / "credentials").read_text())
    assert kept["url"] == plane.url
    result = subprocess.run(
        [*COMMAND, "ls"], env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert (result.returncode, result.stdout) == (0, "")
    assert "Nothing is deployed yet." in result.stderr


def test_an_import_deploys_what_it_can(plane, tmp_path):
    script = tmp_path / "server.py"
    script.write_bytes(servers.source("echo.py"))
    code = servers.source("echo.py").decode()
    good = {"command": "python3", "args": ["-c", code]}
    (tmp_path / "mcp.json").write_text(
        json.dumps({"mcpServers": {"Good One": good, "bad": {"command": "no-such-program"}}})
    )
    result = plane.corral("import", str(tmp_path / "mcp.json"))
    try:
        assert result.returncode == 1
        assert result.stdout.splitlines()[-1] == "1 deployed, 1 failed, 0 skipped"
        assert plane.corral("call", "good-one", "-t", "echo", "-p", "text=x", "--text").stdout == "x\n"
    finally:
        plane.corral("rm", "good-one", "bad")


def test_stats_and_doctor_are_content(plane, echo):
    numbers = dict(line.split(None, 1) for line in plane.corral("stats").stdout.splitlines() if line)
    assert numbers["instances"].startswith("total 1, by status running 1")
    assert numbers["orphans"] == "0"
    doctor = plane.corral("doctor", "--json")
    assert doctor.returncode == 0, doctor.stdout
    verdicts = {check["name"]: check["verdict"] for check in json.loads(doctor.stdout)["checks"]}
    assert {verdicts[name] for name in ("running", "Postgres", "Redis", "orphans", "credentials")} == {"ok"}


def test_json_of_every_reading_command_is_one_document_of_the_api(plane, echo):
    for arguments in (
        ["ls"],
        ["inspect", echo],
        ["tools", echo],
        ["prompts", echo],
        ["resources", echo],
        ["logs", echo],
        ["events", echo],
        ["stats"],
        ["token", "ls"],
    ):
        result = plane.corral(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        assert len(result.stdout.splitlines()) == 1
        assert isinstance(json.loads(result.stdout), dict)
        assert result.stderr == ""


def test_ctrl_c_during_a_deploy_leaves_it_to_the_server(plane, tmp_path):
    script = "import time; time.sleep(600)"
    terminal = Terminal.run(plane.url, "deploy", "slow", "--", "python3", "-c", script, CORRAL_TOKEN=plane.token)
    terminal.read_until("handshake")
    terminal.interrupt()
    assert terminal.end() == 130
    assert "the deploy of slow goes on" in terminal.text
    assert plane.instance("slow")["status"] == "starting"
    assert plane.corral("rm", "slow").returncode == 0


def test_up_by_the_command_line_serves_and_ends_with_ctrl_c(tmp_path: Path):
    """The same program that `corral up` becomes; the checkout's own `./corral` is tested in test_bootstrap.py."""
    home = tmp_path / "home"
    terminal = Terminal.run("", "up", "--port", "0", "--home", str(home), columns=120, CORRAL_URL="", CORRAL_TOKEN="")
    terminal.read_until(r"serves at http://127\.0\.0\.1:\d+")
    terminal.read_until("Ctrl-C")
    assert (home / "credentials").stat().st_mode & 0o777 == 0o600
    terminal.interrupt()
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text
