"""The deploy form without a screen: what is made of what was typed, and how a deploy's events add up."""

from __future__ import annotations

import pytest

from tui.deploying.batch import read_servers, told
from tui.deploying.course import KEPT_LINES, Course
from tui.deploying.draft import Draft, command_line, request_of, suggested_name
from tui.deploying.fields import field_at
from tui.deploying.levels import labels, missing


@pytest.mark.parametrize(
    ("way", "key", "text", "name"),
    [
        ("command", "command", "npx -y @modelcontextprotocol/server-memory@2.1", "server-memory"),
        ("command", "command", "uvx mcp-server-time", "mcp-server-time"),
        ("command", "command", "./Run.sh", "run-sh"),
        ("command", "command", "'unclosed", ""),
        ("git", "url", "https://example.com/a/Weather_Tools.git#v1", "weather-tools"),
        ("local", "path", "~/code/calculator.py", "calculator"),
        ("local", "path", "/tmp/weather.tar.gz", "weather"),
        ("local", "path", "", ""),
    ],
)
def test_a_name_is_suggested_by_what_is_deployed(way: str, key: str, text: str, name: str) -> None:
    assert suggested_name(Draft(way=way, texts={key: text})) == name  # type: ignore[arg-type]


def test_a_command_becomes_the_request_that_every_client_writes() -> None:
    texts = {"command": "npx -y 'a b'", "cwd": "/srv", "labels": "a=1, b=2", "memory_mb": "256", "restart": "always"}
    draft = Draft(texts=texts | {"name": "My_Server", "isolation": "auto"}, variables=[("KEY", "v"), ("", "")])
    document, wrong = request_of(draft)
    assert wrong == []
    assert document == {
        "name": "my-server",
        "source_type": "mcp_config",
        "mcp_config": {"command": "npx", "args": ["-y", "a b"], "cwd": "/srv", "env": {"KEY": "v"}},
        "labels": {"a": "1", "b": "2"},
        "limits": {"memory_mb": 256},
        "restart": {"mode": "always"},
    }


def test_a_repository_takes_its_variables_beside_the_source() -> None:
    texts = {
        "url": "https://x.example/y.git",
        "ref": "main",
        "dependencies": "a b",
        "network": "allow",
        "hosts": "c:443",
    }
    document, wrong = request_of(Draft(way="git", texts=texts, variables=[("K", "v")]))
    assert wrong == []
    assert document == {
        "name": "y",
        "source_type": "git",
        "source_url": "https://x.example/y.git",
        "source_ref": "main",
        "dependencies": ["a", "b"],
        "environment_vars": {"K": "v"},
        "network": {"mode": "allow", "hosts": ["c:443"]},
    }


@pytest.mark.parametrize(
    ("texts", "variables", "field"),
    [
        ({"command": "x", "name": "-a"}, [], "name"),
        ({"command": "x", "name": "a" * 64}, [], "name"),
        ({"command": ""}, [], "command"),
        ({"command": "x 'y"}, [], "command"),
        ({"command": "x", "labels": "team"}, [], "labels"),
        ({"command": "x", "memory_mb": "much"}, [], "memory_mb"),
        ({"command": "x", "hosts": "a"}, [], "hosts"),
        ({"command": "x"}, [("1A", "v")], "env"),
        ({"command": "x"}, [("", "v")], "env"),
    ],
)
def test_what_cannot_be_sent_names_its_field(
    texts: dict[str, str], variables: list[tuple[str, str]], field: str
) -> None:
    _, wrong = request_of(Draft(texts=texts, variables=variables))
    assert field in {entry.field for entry in wrong}


def test_the_same_as_a_command_has_no_value_of_a_variable_and_no_password_in_it() -> None:
    draft = Draft(way="git", texts={"url": "https://me:secret@x.example/y.git"}, variables=[("K", "hunter2")])
    assert command_line(draft) == "corral deploy y -e K 'https://…@x.example/y.git'"
    texts = {"command": "npx 'a b'", "cpu_percent": "50", "network": "none"}
    assert command_line(Draft(texts=texts)) == "corral deploy a-b --cpu 50 --network none -- npx 'a b'"
    texts = {"command": "srv", "disk_mb": "500", "network": "allow", "hosts": "a.example b.example:443"}
    hosts = "--allow-host a.example --allow-host b.example:443"
    assert command_line(Draft(texts=texts)) == f"corral deploy srv --limit disk=500 --network allow {hosts} -- srv"


def test_levels_that_the_host_cannot_give_say_so_and_why() -> None:
    document = {
        "levels": [
            {"name": "confined", "available": True, "why": None, "unlock": None},
            {"name": "namespaced", "available": False, "why": "no bwrap\x1b[2J", "unlock": "install it"},
        ],
        "auto": "confined",
    }
    assert labels(document) == {"auto": "auto: confined", "namespaced": "namespaced, not here"}
    assert missing(document) == {"namespaced": "this host cannot give it: no bwrap\\x1b[2J → install it"}
    assert labels({"auto": None}) == {"auto": "auto, refused here"}


@pytest.mark.parametrize(
    ("pointer", "field"),
    [
        ("/mcp_config/args/3", "command"),
        ("/mcp_config/env/KEY", "env"),
        ("/network/hosts/0", "hosts"),
        ("/network/mode", "network"),
        ("/limits/memory_mb", "memory_mb"),
        ("source", ""),
        ("?wait", ""),
    ],
)
def test_a_wrong_place_of_the_request_is_a_field_of_the_form(pointer: str, field: str) -> None:
    assert field_at(pointer, "command") == field


def status(phase: str, at: int, state: str = "building") -> dict[str, object]:
    return {
        "type": "status",
        "instance_id": "i",
        "status": state,
        "phase": phase,
        "timestamp": f"1970-01-01T00:00:{at:02}Z",
    }


def test_phases_keep_their_times_and_the_last_one_fails_with_the_deploy() -> None:
    course = Course("x", 0.0)
    for event in (status("fetch", 1), status("fetch", 2), status("build", 4), status("why it failed", 9, "failed")):
        course.take(event, 0.0)
    course.fail(10.0)
    assert [(phase.name, phase.began, phase.ended, phase.failed) for phase in course.phases] == [
        ("fetch", 1.0, 4.0, False),
        ("build", 4.0, 9.0, True),
    ]
    assert (course.state, course.instance_id, course.took(99.0)) == ("failed", "i", 10.0)


def test_a_redeploy_shows_the_phases_of_the_revision_on_its_way() -> None:
    course = Course("x", 0.0, "redeploy")
    course.take(status("running", 1, "running") | {"candidate": {"revision": 2, "phase": "handshake"}}, 0.0)
    assert [phase.name for phase in course.phases] == ["handshake"]
    course.finish(200, {"instance_id": "i", "name": "x", "candidate": None}, 5.0)
    assert course.state == "running"


def test_an_answer_before_it_runs_says_that_it_goes_on() -> None:
    course = Course("x", 0.0)
    course.finish(202, {"instance_id": "i", "name": "x"}, 5.0)
    assert course.state == "waiting"


def test_build_output_is_clean_and_bounded() -> None:
    course = Course("x", 0.0)
    for number in range(KEPT_LINES + 5):
        course.take({"type": "log", "stream": "build", "message": f"\x1b[2J{number}"}, 0.0)
    assert (course.printed, len(course.output), course.output[0]) == (KEPT_LINES + 5, KEPT_LINES, "\\x1b[2J5")


def test_servers_are_read_as_editors_write_them_and_variables_are_looked_up() -> None:
    text = (
        '{"servers": {"A b": {"command": "npx", "args": ["${env:X}"], "env": {"K": "v"},}, /* no */ "c": {"url": "u"}}}'
    )
    first, second = read_servers(text, {"X": "pkg"})
    assert (first.name, told(first)) == ("a-b", "npx pkg   with K")
    assert (second.request, told(second)) == (None, "a remote server: there is nothing to run")


@pytest.mark.parametrize("text", ["{", "[]", '{"other": {}}', "[" * 100_000])
def test_what_is_no_such_file_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"not valid JSON|there is no"):
        read_servers(text, {})
