"""`corral tui`: what the dashboard is started with, and when it is not started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.cli.contextfile import Context, Contexts, changing, write
from controlplane.cli.target import Target
from controlplane.cli.tui import CONTEXTS_VARIABLE, Wish, launch
from tests.cli.terminal import COMMAND, ROOT, TIMEOUT_S, Terminal, environment

PROD = Context(url="https://c.example", token="t-prod", colour="red", read_only=True)


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """An environment with a stand-in for the dashboard, which prints what it was started with, and with contexts."""
    package = tmp_path / "path" / "tui"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import json, os, sys\n"
        f"print(json.dumps([os.getpid(), sys.argv[1:], json.loads(os.environ[{CONTEXTS_VARIABLE!r}])]))\n"
    )
    with changing(tmp_path / "config/corral/contexts.json") as path:
        write(path, Contexts({"prod": PROD}, "prod"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/credentials").write_text(json.dumps({"url": "http://127.0.0.1:8123", "token": "t-local"}))
    return {
        "CORRAL_URL": "",
        "CORRAL_TOKEN": "",
        "CORRAL_HOME": str(tmp_path / "home"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PYTHONPATH": f"{tmp_path / 'path'}{os.pathsep}{ROOT}",
    }


def started(variables: dict[str, str], *arguments: str) -> tuple[list[str], dict]:
    """Run it on pipes; return the dashboard's arguments and its contexts."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=environment("", **variables), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    output, _ = process.communicate(timeout=TIMEOUT_S)
    pid, words, contexts = json.loads(output)
    assert pid == process.pid  # it became the dashboard: a signal to one is one to the other
    return words, contexts


def refused(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "tui", *arguments],
        env=environment("", **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def test_the_dashboard_gets_all_contexts_and_the_one_in_force(variables, tmp_path):
    words, contexts = started(variables, "tui", "--once")
    assert words == ["--once"]
    assert contexts == {
        "current": "prod",
        "contexts": [
            {
                "name": "local",
                "url": "http://127.0.0.1:8123",
                "token": "t-local",
                "colour": "",
                "read_only": False,
                "origin": str(tmp_path / "home/credentials"),
            },
            {
                "name": "prod",
                "url": "https://c.example",
                "token": "t-prod",
                "colour": "red",
                "read_only": True,
                "origin": "the context prod",
            },
        ],
    }


@pytest.mark.parametrize(
    "arguments", [("--context", "local", "tui", "--once"), ("tui", "--context", "local", "--once")]
)
def test_a_context_is_named_before_or_after_the_command(variables, arguments):
    assert started(variables, *arguments)[1]["current"] == "local"


def test_the_environment_counts_as_it_does_for_every_command(variables):
    assert started({**variables, "CORRAL_CONTEXT": "local"}, "tui", "--once")[1]["current"] == "local"
    _, contexts = started({**variables, "CORRAL_URL": "https://env.example", "CORRAL_TOKEN": "t-env"}, "tui", "--once")
    assert (contexts["current"], contexts["contexts"][0]["token"]) == ("local", "t-env")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--once", "--json", "--read-only"), ["--read-only", "--once", "--json"]),
        (("--web",), ["--web"]),
        (("--web", "--port", "0", "--no-open"), ["--web", "--no-open", "--port", "0"]),
        (("--once", "--theme", "nord"), ["--once", "--theme", "nord"]),
    ],
)
def test_options_are_handed_on(variables, arguments, words):
    assert started(variables, "tui", *arguments)[0] == words


def test_no_token_is_in_the_arguments_of_the_process():
    target = Target("https://c.example", "s3cret", "the context c", "c")
    arguments, environ = launch(Wish(read_only=True), "c", [target], {"PATH": "/bin"})
    assert arguments == [sys.executable, "-P", "-m", "tui", "--read-only"]
    assert set(environ) == {"PATH", CONTEXTS_VARIABLE}
    assert json.loads(environ[CONTEXTS_VARIABLE])["contexts"][0]["token"] == "s3cret"


def test_on_a_terminal_it_starts_with_nothing_else_said(variables):
    terminal = Terminal.run("", "tui", columns=2000, **variables)
    terminal.read_until(r'"current": "prod"')
    assert terminal.end() == 0


def test_without_a_terminal_it_says_what_there_is_instead(variables):
    result = refused(variables)
    assert result.returncode == 2
    assert "needs a terminal" in result.stderr
    assert "--once" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--json",), "--json needs --once"),
        (("--once", "--web"), "give one of them"),
        (("--port", "1"), "need --web"),
        (("--no-open", "--once"), "need --web"),
        (("--context", "prdo", "--once"), "There is no context 'prdo'"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(variables, arguments, message):
    result = refused(variables, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_missing_textual_is_said_plainly(variables):
    code = "import sys; sys.modules['textual'] = None; from controlplane.cli.app import run; sys.exit(run(['tui', '--once']))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment("", **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 1
    assert "package `textual`" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_control_plane_on_this_machine_that_cannot_be_used_is_left_out_unless_asked_for(variables, tmp_path):
    (tmp_path / "home/credentials").write_text("{")
    _, contexts = started(variables, "tui", "--once")
    assert [context["name"] for context in contexts["contexts"]] == ["prod"]
    assert refused(variables, "--once", "--context", "local").returncode == 2


def test_the_one_on_this_machine_is_there_even_when_the_contexts_cannot_be_used(variables, tmp_path):
    (tmp_path / "config/corral/contexts.json").chmod(0o644)
    assert "chmod 600" in refused(variables, "--once").stderr
    _, contexts = started(variables, "tui", "--once", "--context", "local")
    assert [context["name"] for context in contexts["contexts"]] == ["local"]


def test_a_module_in_the_callers_folder_is_not_the_dashboard(variables, tmp_path):
    (tmp_path / "here/tui").mkdir(parents=True)
    (tmp_path / "here/tui/__main__.py").write_text("raise SystemExit('the caller\\'s folder was searched')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "controlplane.cli", "tui", "--once"],
        env=environment("", **variables),
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert json.loads(done.stdout)[1] == ["--once"]


def test_its_help_names_the_keys():
    text = subprocess.run(
        [*COMMAND, "tui", "--help"], env=environment(""), capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    ).stdout
    for words in ("--context NAME", "--once", "--web", "all keys", "ctrl+p"):
        assert words in text
