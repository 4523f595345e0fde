"""The command as a real process: terminals, pipes, Ctrl-C, and what it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from tests.cli.fake_api import EVIDENCE, Reply, document, instance, stream
from tests.cli.terminal import COMMAND, ROOT, TIMEOUT_S, Terminal, environment, piped

DEPLOY = "POST /api/v2/deploy"


def fleet(*rows) -> Reply:
    return document({"instances": list(rows), "next_cursor": None})


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
def test_a_table_on_a_terminal_fits_its_width_and_has_colours(api, columns):
    rows = [instance(), instance("a" * 63, "failed", restarts=12, errors=3, last_error=EVIDENCE)]
    api.on("GET /instances", fleet(*rows))
    terminal = Terminal.run(api.url, "ls", columns=columns)
    assert terminal.end() == 0
    table = terminal.text.splitlines()[:3]
    assert all(len(line.rstrip()) <= columns for line in table)
    assert "aaaa…  ✗ failed (12×)" in table[2]
    assert ("LANG" in table[0]) == (columns > 60)
    assert "✗ failed" in table[2]
    assert "\x1b[" in terminal.seen.decode()
    assert EVIDENCE["reason"] in " ".join(terminal.text.split())


def test_no_color_is_honoured(api):
    api.on("GET /instances", fleet(instance(), instance("b", "failed")))
    terminal = Terminal.run(api.url, "ls", NO_COLOR="1")
    assert terminal.end() == 0
    assert not any(f"\x1b[{colour}m".encode() in terminal.seen for colour in (31, 32, 33, 36))
    assert "✗ failed" in terminal.text


def test_phases_and_their_times_are_seen_live_on_a_terminal(api):
    told = threading.Event()
    about = {"type": "status", "name": "memory", "instance_id": "i"}
    install = {**about, "status": "building", "phase": "install"}
    done = {"type": "result", "status": 201, "instance": instance()}
    api.on(DEPLOY, stream(install, gate=told, last=done))
    terminal = Terminal.run(api.url, "deploy", "memory", "--", "npx")
    terminal.read_until(r"[⠀-⣿] install  0\.[2-9]s")
    told.set()
    assert terminal.end() == 0
    last = terminal.text.splitlines()[-2:]
    assert last[0].startswith("memory is running")
    assert last[1] == "Next: corral tools memory"


@pytest.mark.parametrize(("status", "sign"), [("starting", "✓"), ("failed", "✗")])
def test_phases_and_their_times_of_a_start_are_seen_live_on_a_terminal(api, status, sign):
    accepted, told = threading.Event(), threading.Event()
    about = {"type": "status", "name": "memory", "instance_id": instance()["instance_id"]}
    install = {**about, "status": "building", "phase": "install"}
    api.on("GET /instances/memory", document(instance()))
    api.on("GET /events", stream(install, gate=told, last={**about, "status": status, "phase": "handshake"}))
    api.on("POST /instances/memory/start", Reply(200, json.dumps(instance()).encode(), gate=accepted))
    terminal = Terminal.run(api.url, "start", "memory")
    terminal.read_until(r"[⠀-⣿] install  0\.[2-9]s")
    told.set()
    terminal.read_until(rf"{sign} install  \d\.\ds")
    terminal.read_until(r"handshake  \d\.\ds" if status == "starting" else "waiting")
    accepted.set()
    assert terminal.end() == 0
    assert terminal.text.splitlines()[-1].startswith("memory is running")


def test_ctrl_c_during_a_deploy_leaves_it_running_and_says_how_to_follow_it(api):
    gate = threading.Event()
    api.on(DEPLOY, Reply(201, json.dumps(instance()).encode(), gate=gate))
    terminal = Terminal.run(api.url, "deploy", "memory", "--", "npx")
    api.wait_for(DEPLOY)
    terminal.read_until("waiting")
    terminal.interrupt()
    assert terminal.end() == 130
    gate.set()
    assert "the deploy of memory goes on" in terminal.text
    assert "corral logs -f memory" in terminal.text
    assert "Traceback" not in terminal.text


def test_ctrl_c_ends_a_stream_without_a_word(api):
    gate = threading.Event()
    api.on("GET /instances/memory/logs", stream({"type": "log", "message": "hello", "stream": "stdout"}, gate=gate))
    terminal = Terminal.run(api.url, "logs", "-f", "memory")
    terminal.read_until("hello")
    terminal.interrupt()
    assert terminal.end() == 130
    gate.set()
    assert "Traceback" not in terminal.text


def test_a_followed_line_reaches_a_pipe_at_once(api):
    gate = threading.Event()
    api.on("GET /instances/memory/logs", stream({"type": "log", "message": "hello", "stream": "stdout"}, gate=gate))
    command = [*COMMAND, "logs", "-f", "memory"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(api.url), text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("  stdout  hello\n")  # the stream is still open
        process.kill()
    gate.set()


def test_a_reader_that_leaves_early_is_no_error(api):
    api.on("GET /instances", fleet(*(instance(f"server-{number}") for number in range(2000))))
    command = [*COMMAND, "ls"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(api.url)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(TIMEOUT_S) == 0


def test_a_terminal_without_utf8_shows_escapes_rather_than_a_traceback(api):
    api.on("GET /instances", fleet(instance("naïve")))
    result = piped(api.url, "ls", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert result.returncode == 0
    assert "na\\xefve" in result.stdout


def test_a_server_that_is_not_there_is_exit_7_and_says_how_to_start_it(api):
    result = piped("http://127.0.0.1:1", "ls", CORRAL_PROGRAM="./corral")
    assert result.returncode == 7
    assert "Cannot connect to http://127.0.0.1:1" in result.stderr
    assert "Start it with `./corral up`." in result.stderr


def test_a_proxy_of_the_environment_never_sees_a_request_to_this_machine(api):
    api.on("GET /instances", fleet())
    result = piped(api.url, "ls", HTTP_PROXY="http://127.0.0.1:1", ALL_PROXY="http://127.0.0.1:1")
    assert result.returncode == 0


def test_a_refused_token_says_where_it_came_from(api):
    assert "The token came from CORRAL_URL and CORRAL_TOKEN." in piped(api.url, "ls", CORRAL_TOKEN="wrong").stderr
    result = piped(api.url, "ls", CORRAL_TOKEN="")
    assert result.returncode == 4
    assert "No token was sent to 127.0.0.1" in result.stderr


def test_help_lists_every_command_by_task_with_examples_and_exit_codes():
    text = piped("http://x.example", "--help", CORRAL_PROGRAM="./corral").stdout
    for words in ("Start here:", "Deploy:", "  ./corral up\n", "Exit codes:", "  7    cannot connect", "CORRAL_TOKEN"):
        assert words in text
    for command in "up doctor deploy import rm tools prompts resources call ls inspect logs events incarnations stats usage tui start stop restart context user token redeploy revisions rollback cache".split():  # noqa: SIM905
        assert f"\n  {command} " in text


@pytest.mark.parametrize(
    "command",
    "up doctor deploy import rm tools prompts resources call ls inspect logs events incarnations stats usage tui start stop restart context user token completion test redeploy revisions rollback cache".split(),  # noqa: SIM905
)
def test_every_command_explains_itself_within_the_width_of_a_terminal(command):
    result = piped("http://x.example", command, "--help")
    assert result.returncode == 0
    head = result.stdout.split("Examples:")[0]
    assert all(len(line) <= 80 for line in head.splitlines()), head


def test_the_command_line_loads_nothing_of_the_server():
    code = (
        "import sys, controlplane.cli.app as app\n"
        "for section in app.SECTIONS.values():\n"
        "    for name in section: app.root.get_command(None, name)\n"
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('trio', 'trio_asyncio', 'quart', 'asyncpg', 'redis', 'psutil', 'hypercorn') or "
        "name.startswith('controlplane.') and name.split('.')[1] not in ('cli', 'packing', 'wire', 'errors')])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_starting_the_control_plane_pays_for_no_http_client_and_no_tables():
    code = "import sys, controlplane.cli.up; print({'httpx', 'rich'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_up_becomes_the_server_with_its_flags_as_variables(tmp_path):
    """A stand-in for the server is found first; `-P` keeps the caller's folder out of the search."""
    package = tmp_path / "path" / "controlplane"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "cli").symlink_to(ROOT / "controlplane" / "cli")
    (package / "__main__.py").write_text(
        "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)]))"
    )
    (tmp_path / "controlplane").mkdir()
    (tmp_path / "controlplane" / "__main__.py").write_text("raise SystemExit('the caller\\'s folder was searched')")
    flags = "--host ::1 --port 0 --home h --database-url postgresql://d --redis-url redis://r --log-level debug".split()  # noqa: SIM905
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "controlplane.cli", "up", *flags],
        env=environment("http://x.example", PYTHONPATH=str(tmp_path / "path")),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
    )
    output, _ = process.communicate(timeout=TIMEOUT_S)
    pid, arguments, variables = json.loads(output)
    assert (pid, arguments) == (process.pid, [])
    assert {
        name: variables[name] for name in ("HOST", "PORT", "CORRAL_HOME", "DATABASE_URL", "REDIS_URL", "LOG_LEVEL")
    } == {
        "HOST": "::1",
        "PORT": "0",
        "CORRAL_HOME": "h",
        "DATABASE_URL": "postgresql://d",
        "REDIS_URL": "redis://r",
        "LOG_LEVEL": "DEBUG",
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_one_that_the_shell_reads(shell, tmp_path):
    if shell != "bash":
        from tests.needs import skip_unless

        skip_unless(shell)
    script = tmp_path / "script"
    script.write_text(piped("http://x.example", "completion", shell).stdout)
    assert "_CORRAL_COMPLETE" in script.read_text()
    check = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert (check.returncode, check.stderr) == (0, "")


def complete(api, *words: str) -> list[str]:
    more = {
        "_CORRAL_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("corral", *words)),
        "COMP_CWORD": str(len(words)),
    }
    return [line.split(",")[1] for line in piped(api.url, **more).stdout.split()]


def test_completion_offers_commands_options_and_instances(api):
    api.on("GET /instances", fleet(instance("memory"), instance("maps"), instance("other")))
    assert complete(api, "st") == ["stats", "start", "stop"]
    assert complete(api, "logs", "m") == ["memory", "maps"]
    assert "--follow" in complete(api, "logs", "--")
    assert complete(api, "stop", "memory", "o") == ["other"]


def test_completion_is_silent_when_the_server_is_away():
    class Away:
        url = "http://127.0.0.1:1"

    assert complete(Away, "logs", "m") == []


def test_the_package_runs_as_a_module():
    assert os.access(ROOT / "corral", os.X_OK)
    assert piped("http://x.example", "nothing").returncode == 2
