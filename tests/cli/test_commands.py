"""What each command asks of the API, and what it prints."""

from __future__ import annotations

import json

import pytest

from tests.cli.fake_api import EVIDENCE, Reply, document, instance, problem, stream

MEMORY = "/instances/memory"


# --- deploy


def test_deploy_sends_what_a_client_would_write_and_says_that_it_runs(api, corral):
    api.on("POST /api/v2/deploy", document(instance(), 201))
    result = corral("deploy", "memory", "--", "npx", "-y", "@modelcontextprotocol/server-memory", "--flag")
    asked = api.asked_for("POST /api/v2/deploy")[0]
    assert asked.json == {
        "name": "memory",
        "source_type": "mcp_config",
        "mcp_config": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-memory", "--flag"]},
    }
    assert asked.query == {"wait": "300.0"}
    assert result.code == 0
    assert result.out.startswith("memory is running  (pid 4711, confined, ")


def test_deploy_options_become_fields(api, corral, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "s3cret")
    api.on("POST /api/v2/deploy", document(instance("gh"), 201))
    options = [
        "-e",
        "GITHUB_TOKEN",
        "-e",
        "A=b=c",
        "--cwd",
        "/srv",
        "-l",
        "team=x",
        "--memory",
        "256",
        "--cpu",
        "50",
        "--restart",
        "never",
    ]
    options += ["--isolation", "process", "--sessions", "per-session", "--wait", "5", "--idempotency-key", "k1"]
    assert corral("deploy", "gh", *options, "--", "srv").code == 0
    asked = api.asked_for("POST /api/v2/deploy")[0]
    assert asked.json == {
        "name": "gh",
        "source_type": "mcp_config",
        "mcp_config": {"command": "srv", "args": [], "cwd": "/srv", "env": {"GITHUB_TOKEN": "s3cret", "A": "b=c"}},
        "limits": {"memory_mb": 256, "cpu_percent": 50},
        "restart": {"mode": "never"},
        "isolation": "process",
        "sessions": "per-session",
        "labels": {"team": "x"},
    }
    assert asked.query == {"wait": "5.0"}
    assert asked.headers["idempotency-key"] == "k1"


def test_deploy_sends_a_file_as_it_stands_and_a_name_overrides_its_own(api, corral, tmp_path):
    api.on("POST /api/v2/deploy", document(instance(), 201))
    spec = tmp_path / "spec.json"
    spec.write_bytes(b'{"name": "a",  "source_type": "git", "n": 1e400}')
    corral("deploy", "-f", str(spec))
    corral("deploy", "b", "-f", "-", stdin=b'{"name": "a", "source_type": "git"}')
    first, second = api.asked_for("POST /api/v2/deploy")
    assert first.body == spec.read_bytes()
    assert second.json == {"name": "b", "source_type": "git"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["deploy"], "Missing a name and a command"),
        (["deploy", "x"], "Missing the command to run, after `--`"),
        (["deploy", "x", "npx", "-y", "z"], "put `--` before that command"),
        (["deploy", "-f", "/nowhere.json"], "/nowhere.json: No such file or directory"),
        (["deploy", "-f", "-"], "-: not valid JSON: Expecting value: line 1 column 1"),
        (["deploy", "x", "-f", "-", "--", "npx"], "everything but NAME belongs in the file"),
        (["deploy", "x", "-e", "NOT_SET_HERE", "--", "npx"], "no variable of that name is set here"),
        (["deploy", "x", "-l", "novalue", "--", "npx"], "'novalue' is not KEY=VALUE"),
        (["deploy", "x", "--wait", "301", "--", "npx"], "301.0 is not in the range 0<=x<=300"),
        (["lst"], "There is no command 'lst'. Did you mean `corral ls`?"),
        (["call", "memory"], "Missing METHOD"),
        (["call", "memory", "m", "{nope"], "the JSON argument: not valid JSON"),
        (["call", "memory", "m", "{}", "more"], "Too many words: 'more'"),
        (["call", "memory", "m", "[1]", "-p", "a=1"], "-p adds members to a JSON object"),
        (["logs", "memory", "--since", "yesterday"], "'yesterday' is neither a duration such as 15m nor a time"),
        (["token", "create", "x", "--role", "viewer", "--expires", "soon"], "'soon' is not a duration"),
        (["up", "--port", "65536"], "65536 is not in the range"),
        (["completion", "csh"], "'csh' is not one of"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_reason_and_asks_the_api_for_nothing(api, corral, arguments, message):
    result = corral(*arguments)
    assert result.code == 2
    assert message in " ".join(result.err.split())
    assert result.out == ""
    assert api.asked == []


def test_deploy_shows_the_evidence_of_a_failure(api, corral):
    evidence = {"phase": "handshake", "exit_code": 1, "stderr_tail": EVIDENCE["stderr_tail"], "hint": "check the name"}
    api.on("POST /api/v2/deploy", problem(422, "deploy_failed", **evidence))
    result = corral("deploy", "memory", "--", "npx")
    assert result.code == 5
    assert result.out == ""
    for words in ("title of deploy_failed", "detail of deploy_failed", "handshake", "│ npm error 404 Not Found"):
        assert words in result.err
    assert "│ npm error \\x1b]0;owned\\x07 done" in result.err
    assert "Hint: check the name" in result.err
    assert "422 deploy_failed  request req-1" in result.err


def test_deploy_that_takes_longer_than_the_wait_is_a_timeout_that_says_how_to_follow(api, corral):
    api.on("POST /api/v2/deploy", document(instance(status="building", phase="install: npm"), 202))
    result = corral("deploy", "memory", "--wait", "2", "--", "npx")
    assert result.code == 6
    assert "memory is not running after " in result.err
    assert "It is building (install: npm), and goes on." in result.err
    assert "corral logs -f memory" in result.err


def test_an_instance_that_was_stopped_meanwhile_is_no_timeout(api, corral):
    api.on("POST /api/v2/deploy", document(instance(status="stopped", phase="stopped"), 202))
    result = corral("deploy", "memory", "--", "npx")
    assert result.code == 1
    assert "memory was stopped before it ran" in result.err


def test_deploy_without_a_wait_is_done_once_it_is_accepted(api, corral):
    api.on("POST /api/v2/deploy", document(instance(status="pending"), 202))
    result = corral("deploy", "memory", "--wait", "0", "--", "npx")
    assert (result.code, result.out) == (0, "memory is pending: follow it with `corral logs -f memory`\n")


def result(status=201, **members):
    """The last event of a deploy's own stream."""
    return {"type": "result", "status": status, "instance": instance(**members)}


def test_phases_of_a_deploy_and_what_its_build_prints_are_shown_as_they_happen(api, corral):
    def status(phase: str, **more):
        return {"type": "status", "instance_id": "i1", "name": "memory", "phase": phase, **more}

    printed = {"type": "log", "stream": "build", "message": "added 91 packages \x1b[1m"}
    quiet = {"type": "log", "stream": "stderr", "message": "the server's own"}
    events = [{"type": "connected"}, status("build: install"), printed, quiet, status("handshake"), status("handshake")]
    api.on("POST /api/v2/deploy", stream(*events, result()))
    shown = corral("deploy", "Memory", "--", "npx")
    assert api.asked_for("POST /api/v2/deploy")[0].headers["accept"].startswith("text/event-stream")
    assert shown.err.splitlines()[:3] == [
        "memory: build: install",
        "memory: build: added 91 packages ",
        "memory: handshake",
    ]
    assert "the server's own" not in shown.err
    assert shown.out.startswith("memory is running")


def test_a_problem_at_the_end_of_a_deploys_stream_is_the_commands(api, corral):
    last = {"type": "build_failed", "title": "The build failed", "status": 422, "code": "build_failed"}
    last |= {"detail": "install: npm exited with status 1", "instance_id": "i1", "stderr_tail": ["npm error E404"]}
    api.on("POST /api/v2/deploy", stream({"type": "connected"}, {"type": "problem", "status": 422, "problem": last}))
    shown = corral("deploy", "memory", "--", "npx")
    assert shown.code == 5
    assert "npm exited with status 1" in shown.err
    assert "│ npm error E404" in shown.err
    assert "It stays, failed" in shown.err


def test_a_deploys_stream_that_breaks_off_says_that_the_work_goes_on(api, corral):
    api.on("POST /api/v2/deploy", stream({"type": "connected"}))
    shown = corral("deploy", "memory", "--", "npx")
    assert shown.code == 7
    assert "The work goes on there." in shown.err


def test_notes_of_the_server_reach_the_operator(api, corral):
    api.on("POST /api/v2/deploy", document(instance(notes=["network.mode is not in force at process"]), 201))
    assert "Note: network.mode is not in force at process" in corral("deploy", "memory", "--", "npx").err


# --- start, stop, restart, rm


@pytest.mark.parametrize(("verb", "status"), [("start", "running"), ("stop", "stopped"), ("restart", "running")])
def test_lifecycle_commands_wait_for_what_was_asked(api, corral, verb, status):
    api.on(f"GET {MEMORY}", document(instance()))
    api.on(f"POST {MEMORY}/{verb}", document(instance(status=status, pid=None)))
    result = corral(verb, "memory", "--wait", "3")
    assert api.asked_for(f"POST {MEMORY}/{verb}")[0].query == {"wait": "3.0"}
    assert result.code == 0
    assert result.out.startswith(f"memory is {status}")


def test_start_of_an_instance_that_fails_shows_why(api, corral):
    api.on(f"GET {MEMORY}", document(instance()))
    api.on(f"POST {MEMORY}/start", document(instance(status="failed", last_error=EVIDENCE)))
    result = corral("start", "memory")
    assert result.code == 5
    assert "the process exited with status 1" in result.err
    assert "Hint: check the package name" in result.err


def test_stop_of_a_failed_instance_is_no_failure_of_the_stop(api, corral):
    api.on(f"GET {MEMORY}", document(instance(status="failed")))
    api.on(f"POST {MEMORY}/stop", document(instance(status="stopped", last_error=EVIDENCE)))
    assert corral("stop", "memory").code == 0


def test_rm_takes_several_and_stops_at_the_first_that_is_not_there(api, corral):
    api.on("DELETE /instances/a", document(instance("a", "stopped")))
    result = corral("rm", "a", "b", "c")
    assert result.code == 3
    assert result.out == "a is removed\n"
    assert [asked.path for asked in api.asked] == ["/instances/a", "/instances/b"]


def test_an_owner_and_name_travel_as_one_path_segment(api, corral):
    corral("rm", "alice/memory")
    assert api.asked[0].path == "/instances/alice%2Fmemory"


# --- ls, inspect


def test_ls_on_a_pipe_is_plain_columns_without_any_cut(api, corral):
    long_name = "a" * 63
    api.on(
        "GET /instances",
        document({"instances": [instance(), instance(long_name, "failed", pid=None)], "next_cursor": None}),
    )
    result = corral("ls", "--status", "failed")
    header, first, second = result.out.splitlines()
    assert header.split() == ["NAME", "STATUS", "LANG", "UP", "CPU", "MEM", "CALLS", "ERR", "P95"]
    assert first.split() == ["memory", "●", "running", "node", "2m5s", "1.2%", "84M", "1,234", "0", "3.2ms"]
    assert second.startswith(long_name + "  ✗ failed")
    assert "\x1b" not in result.out
    assert api.asked[0].query["status"] == "failed"


def test_ls_follows_the_pages_and_json_is_one_document(api, corral):
    pages = [
        document({"instances": [instance("a")], "next_cursor": "c1"}),
        document({"instances": [instance("b")], "next_cursor": None}),
    ]
    api.on("GET /instances", *pages)
    result = corral("ls", "--json")
    assert [row["name"] for row in result.json["instances"]] == ["a", "b"]
    assert result.json["next_cursor"] is None
    assert api.asked[1].query["cursor"] == "c1"


def test_ls_quiet_prints_names_only(api, corral):
    api.on("GET /instances", document({"instances": [instance("a"), instance("b")], "next_cursor": None}))
    assert corral("ls", "-q").out == "a\nb\n"


def test_ls_says_which_control_plane_did_not_answer(api, corral):
    silent, away = "Node n2 does not answer.", "Node n3 does not answer."
    pages = [
        document({"instances": [instance("a")], "next_cursor": "c1", "notes": [silent]}),
        document({"instances": [instance("b")], "next_cursor": None, "notes": [silent, away]}),
    ]
    api.on("GET /instances", *pages, *pages)
    assert corral("ls").err.splitlines() == [silent, away]
    assert corral("ls", "--json").json["notes"] == [silent, away]


def test_ls_wide_has_isolation_soft_limits_nodes_and_ids(api, corral):
    held = {"memory_mb": "hard", "cpu_percent": "soft", "disk_mb": "soft"}
    rows = [instance("a", enforcement=held, node="n1"), instance("b", "stopped", pid=None)]
    api.on("GET /instances", document({"instances": rows, "next_cursor": None}))
    nodes = [{"id": "n1", "url": "http://10.0.0.1:8000"}, {"id": "n2", "url": "http://10.0.0.2:8000"}]
    api.on("GET /nodes", document({"nodes": nodes, "unheld": 0}))
    header, first, second = corral("ls", "--wide").out.splitlines()
    assert header.split()[-6:] == ["ISOLATION", "SOFT", "LIMITS", "PID", "NODE", "ID"]
    assert first.split()[-6:-3] == ["confined", "cpu", "disk"]
    assert first.split()[-3:] == ["4711", "http://10.0.0.1:8000", rows[0]["instance_id"]]
    assert second.split()[-3:] == ["-", "-", rows[1]["instance_id"]]


def test_ls_wide_names_no_control_plane_where_there_is_but_one(api, corral):
    api.on("GET /instances", document({"instances": [instance("a", node="n1")], "next_cursor": None}))
    api.on("GET /nodes", document({"nodes": [{"id": "n1", "url": "http://127.0.0.1:8000"}], "unheld": 0}))
    header, row = corral("ls", "--wide").out.splitlines()
    assert "NODE" not in header.split()
    assert row.split()[-2] == "4711"


def test_ls_wide_has_ids_of_control_planes_for_those_who_may_not_ask_where_they_are(api, corral):
    rows = [instance("a", node="n1"), instance("b", node="n2")]
    api.on("GET /instances", document({"instances": rows, "next_cursor": None}))
    refused = {"status": 403, "code": "forbidden", "title": "Not allowed", "detail": "Only administrators see nodes."}
    api.on("GET /nodes", document(refused, 403))
    _, first, second = corral("ls", "--wide").out.splitlines()
    assert (first.split()[-2], second.split()[-2]) == ("n1", "n2")


def test_ls_of_an_empty_fleet_says_what_to_try(api, corral):
    api.on("GET /instances", document({"instances": [], "next_cursor": None}))
    result = corral("ls")
    assert (result.code, result.out) == (0, "")
    assert "corral deploy memory -- npx" in result.err
    assert corral("ls", "--name", "x").err == "No instance matches.\n"


def test_ls_names_owners_once_there_are_several(api, corral):
    rows = [instance("a"), instance("b", owner="alice")]
    api.on("GET /instances", document({"instances": rows, "next_cursor": None}))
    assert [line.split()[0] for line in corral("ls").out.splitlines()] == ["OWNER", "admin", "alice"]


def test_inspect_shows_what_runs_and_why_it_failed(api, corral):
    detail = {
        "mcp_config": {"command": "npx", "args": ["-y", "srv"], "cwd": None},
        "environment_vars": ["API_KEY"],
        "limits": {"memory_mb": 256},
        "enforcement": {"memory_mb": "hard", "disk_mb": "soft"},
        "network": {"mode": "allow", "hosts": ["a.example", "b.example:443"]},
        "mounts": [
            {"source": "/srv/a", "target": "/srv/a", "mode": "ro"},
            {"source": "/srv/b", "target": "/data", "mode": "rw"},
        ],
        "protocol": {"era": "modern", "version": "2025-06-18", "server_info": {"name": "srv", "version": "1.0"}},
        "tools": [{"name": "echo"}],
        "revision": 1,
        "last_error": EVIDENCE,
    }
    api.on(f"GET {MEMORY}", document(instance(**detail)))
    out = corral("inspect", "memory").out
    for words in ("npx -y srv", "API_KEY", "memory 256M", "srv 1.0", "era modern", "echo", "check the package name"):
        assert words in out
    for words in ("hard: memory; soft: disk", "allow: a.example, b.example:443", "/srv/a, read-only", "confined"):
        assert words in out
    assert "/srv/b, seen as /data, read and write" in out
    assert "\x1b" not in out
    assert "\\x1b]0;owned\\x07" in out


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("failed", "✗ failed 2026-11-22"),
        ("restarting", "✗ failed 2026-11-22"),
        ("running", "last failure 2026-11-22"),
        ("stopped", "last failure 2026-11-22"),
    ],
)
def test_inspect_calls_a_failure_past_once_it_is(api, corral, status, words):
    api.on(f"GET {MEMORY}", document(instance(status=status, last_error=EVIDENCE)))
    out = corral("inspect", "memory").out
    assert words in out
    assert ("(recovered)" in out) == (status == "running")
    assert EVIDENCE["reason"] in out


# --- call, tools


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (["tools/list"], b"", {"method": "tools/list"}),
        (
            ["tools/call", '{"name": "read_graph", "arguments": {}}'],
            b"",
            {"method": "tools/call", "params": {"name": "read_graph", "arguments": {}}},
        ),
        (["m", "-"], b'{"a": 1}', {"method": "m", "params": {"a": 1}}),
        (
            ["m", "-p", "a=1", "-p", "b=x y", "-p", 'c="1"'],
            b"",
            {"method": "m", "params": {"a": 1, "b": "x y", "c": "1"}},
        ),
        (["m", '{"a": 1}', "-p", "b=null"], b"", {"method": "m", "params": {"a": 1, "b": None}}),
        (
            ["--tool", "search", "-p", "q=ada"],
            b"",
            {"method": "tools/call", "params": {"name": "search", "arguments": {"q": "ada"}}},
        ),
        (["--tool", "now"], b"", {"method": "tools/call", "params": {"name": "now", "arguments": {}}}),
        (["m", "--timeout", "2.5"], b"", {"method": "m", "timeout_s": 2.5}),
    ],
)
def test_call_sends_the_request_that_the_words_mean(api, corral, arguments, stdin, expected):
    api.on("POST /mcp/memory/execute", document({"jsonrpc": "2.0", "id": 1, "result": {"ok": True}}))
    result = corral("call", "memory", *arguments, stdin=stdin)
    assert api.asked[0].json == expected
    assert result.code == 0
    assert result.json == {"ok": True}


def test_call_reads_parameters_from_a_file(api, corral, tmp_path):
    (tmp_path / "p.json").write_text('{"a": [1]}')
    api.on("POST /mcp/memory/execute", document({"jsonrpc": "2.0", "id": 1, "result": None}))
    corral("call", "memory", "m", f"@{tmp_path}/p.json")
    assert api.asked[0].json["params"] == {"a": [1]}


def test_a_json_rpc_error_goes_to_standard_error_and_exits_with_1(api, corral):
    error = {"code": -32602, "message": "bad \x1b[31margument", "data": {"at": "name"}}
    api.on("POST /mcp/memory/execute", document({"jsonrpc": "2.0", "id": 1, "error": error}))
    result = corral("call", "memory", "m")
    assert (result.code, result.out) == (1, "")
    assert "memory answered with an error" in result.err
    assert "bad argument" in result.err
    assert "-32602" in result.err
    assert '{"at": "name"}' in result.err


def test_a_tool_that_failed_prints_its_result_and_exits_with_1(api, corral):
    failed = {"content": [{"type": "text", "text": "no such\nfile"}], "isError": True}
    api.on("POST /mcp/memory/execute", document({"jsonrpc": "2.0", "id": 1, "result": failed}))
    result = corral("call", "memory", "--tool", "read")
    assert result.code == 1
    assert result.json == failed
    assert corral("call", "memory", "--tool", "read", "--text").out == "no such\nfile\n"


def test_commands_in_a_hint_of_the_server_are_the_ones_that_work_here(api, corral, monkeypatch):
    monkeypatch.setenv("CORRAL_PROGRAM", "./corral")
    api.on(
        f"GET {MEMORY}", problem(404, "not_found", hint="`corral ls` shows it; see /var/lib/corral data, mycorral ls")
    )
    err = corral("inspect", "memory").err
    assert "Hint: `./corral ls` shows it; see /var/lib/corral data, mycorral ls" in err


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "unauthorized", 4),
        (403, "forbidden", 4),
        (403, "quota_exceeded", 4),
        (404, "not_found", 3),
        (409, "not_running", 1),
        (422, "invalid_request", 1),
        (429, "rate_limited", 1),
        (500, "internal", 1),
        (502, "instance_crashed", 5),
        (502, "bad_child_message", 5),
        (503, "instance_unavailable", 5),
        (503, "busy", 1),
        (503, "storage_unavailable", 1),
        (504, "call_timeout", 6),
    ],
)
def test_each_problem_has_its_exit_code(api, corral, status, code, expected):
    api.on("POST /mcp/memory/execute", problem(status, code))
    result = corral("call", "memory", "ping")
    assert result.code == expected
    assert f"Error: title of {code}" in result.err
    assert ("Try again in 1 s." in result.err) == (status in (429, 503))


def test_every_wrong_field_of_a_request_is_shown(api, corral):
    errors = [{"pointer": "/name", "message": "is required"}, {"pointer": "/limits/memory_mb", "message": "too much"}]
    api.on("POST /api/v2/deploy", problem(422, "invalid_request", errors=errors))
    err = corral("deploy", "x", "--", "y").err
    assert "/name              is required" in err
    assert "/limits/memory_mb  too much" in err


def test_tools_lists_arguments_and_marks_required_ones(api, corral):
    tools = [
        {
            "name": "search",
            "description": "Find.\nMore.",
            "inputSchema": {"properties": {"q": {}, "n": {}}, "required": ["q"]},
        },
        {"name": "odd", "inputSchema": [], "description": None},
        {"name": "evil\x1b[2J", "inputSchema": {"properties": [], "required": 3}},
    ]
    api.on(f"GET {MEMORY}/tools", document({"tools": tools, "stale": True}))
    result = corral("tools", "memory")
    assert [line.split() for line in result.out.splitlines()] == [
        ["TOOL", "ARGUMENTS", "DESCRIPTION"],
        ["search", "q*", "n", "Find."],
        ["odd", "-"],
        ["evil\\x1b[2J", "-"],
    ]
    assert "memory is not running" in result.err


def test_prompts_and_resources_are_listed_whatever_is_in_them(api, corral):
    prompts = [
        {"name": "greet", "title": "Greet", "arguments": [{"name": "who", "required": True}, {"name": "how"}, 7]},
        {"name": None, "arguments": "none", "description": ["x"]},
    ]
    api.on(f"GET {MEMORY}/prompts", document({"prompts": prompts, "stale": False}))
    result = corral("prompts", "memory")
    assert [line.split()[:3] for line in result.out.splitlines()][:2] == [
        ["PROMPT", "ARGUMENTS", "DESCRIPTION"],
        ["greet", "who*", "how"],
    ]
    assert result.err == ""

    resources = [{"uri": "file:///a", "name": "a", "mimeType": "text/plain"}, {"uri": 7, "title": {}}]
    templates = [{"uriTemplate": "file:///{name}", "name": "any"}]
    body = {"resources": resources, "resource_templates": templates, "stale": True}
    api.on(f"GET {MEMORY}/resources", document(body))
    result = corral("resources", "memory")
    assert [line.split() for line in result.out.splitlines()] == [
        ["URI", "NAME", "TYPE"],
        ["file:///a", "a", "text/plain"],
        ["7", "-", "-"],
        ["file:///{name}", "any", "-"],
    ]
    assert "memory is not running" in result.err

    api.on(f"GET {MEMORY}/prompts", document({"prompts": [], "stale": True}))
    assert "memory has no prompts" in corral("prompts", "memory").err


# --- json


@pytest.mark.parametrize(
    ("request_line", "arguments"),
    [
        ("GET /instances", ["ls"]),
        (f"GET {MEMORY}", ["inspect", "memory"]),
        (f"GET {MEMORY}/tools", ["tools", "memory"]),
        (f"GET {MEMORY}/prompts", ["prompts", "memory"]),
        (f"GET {MEMORY}/resources", ["resources", "memory"]),
        (f"GET {MEMORY}/logs", ["logs", "memory"]),
        (f"GET {MEMORY}/events", ["events", "memory"]),
        ("GET /stats", ["stats"]),
        ("GET /tokens", ["token", "ls"]),
        ("POST /tokens", ["token", "create", "x", "--role", "viewer"]),
        ("GET /users", ["user", "ls"]),
        ("POST /users", ["user", "add", "x"]),
        ("PATCH /users/x", ["user", "role", "x", "viewer"]),
        ("DELETE /users/x", ["user", "rm", "x"]),
        ("POST /mcp/memory/execute", ["call", "memory", "ping"]),
        ("DELETE /instances/memory", ["rm", "memory"]),
        ("POST /api/v2/deploy", ["deploy", "memory", "--", "npx"]),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_json_is_exactly_what_the_api_gave(api, corral, request_line, arguments, first):
    body = b'{"status": "running",  "name": "memory", "big": 123456789012345678901234567890, "result": 1e400}'
    api.on(request_line, Reply(200, body))
    before = arguments.index("--") if "--" in arguments else len(arguments)
    words = ["--json", *arguments] if first else [*arguments[:before], "--json", *arguments[before:]]
    result = corral(*words)
    assert result.code == 0
    assert result.out.encode() == body + b"\n"
    assert result.err == ""


def test_json_of_a_refused_request_is_the_problem_document(api, corral):
    result = corral("inspect", "nothing", "--json")
    assert result.code == 3
    assert result.json["code"] == "not_found"
    assert result.err == ""


def test_json_escapes_what_a_terminal_would_obey_and_means_the_same(api, corral):
    body = '{"name": "a\u009b31m\u202eb\x7f"}'.encode()
    api.on(f"GET {MEMORY}", Reply(200, body))
    result = corral("inspect", "memory", "--json")
    assert result.out == '{"name": "a\\u009b31m\\u202eb\\u007f"}\n'
    assert result.json == json.loads(body)


# --- tokens, stats


def test_token_create_puts_the_token_alone_on_standard_output(api, corral):
    made = {"token_id": "t", "name": "ci", "owner": "admin", "role": "caller", "created_at": "2026-11-22T10:00:00Z"}
    api.on("POST /tokens", document({**made, "token": "crl_abc", "expires_at": None}, 201))
    result = corral("token", "create", "ci", "--role", "caller", "--expires", "1h30m")
    assert api.asked[0].json == {"name": "ci", "role": "caller", "expires_in": 5400.0}
    assert (result.code, result.out) == (0, "crl_abc\n")
    assert "not shown again" in result.err


def test_an_administrator_creates_tokens_for_others(api, corral):
    api.on("POST /tokens", document({"token": "crl_abc", "expires_at": None}, 201))
    corral("token", "create", "ci", "--role", "caller", "--owner", "grace")
    assert api.asked[0].json == {"name": "ci", "role": "caller", "owner": "grace"}


def test_a_token_for_single_instances_is_asked_for_by_their_names(api, corral):
    api.on("POST /tokens", document({"token": "crl_abc", "expires_at": None}, 201))
    words = ("--role", "caller", "--instance", "memory", "--instance", "files")
    result = corral("token", "create", "agent", *words)
    assert api.asked[0].json == {"name": "agent", "role": "caller", "instances": ["memory", "files"]}
    assert "opens memory, files only" in result.err


def test_token_ls_says_what_each_opens_and_until_when(api, corral):
    common = {"owner": "ada", "created_at": "2026-11-22T10:00:00Z", "last_used_at": None, "role": "caller"}
    known, gone = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
    tokens = [
        {**common, "token_id": "t1", "name": "whole", "expires_at": None, "instances": None},
        {**common, "token_id": "t2", "name": "agent", "expires_at": "2099-01-01T10:00:00Z", "instances": [known, gone]},
    ]
    api.on("GET /tokens", document({"tokens": tokens, "next_cursor": None}))
    api.on("GET /instances", document({"instances": [{"instance_id": known, "name": "memory"}], "next_cursor": None}))
    header, whole, agent = corral("token", "ls").out.splitlines()
    assert {"OPENS", "EXPIRES"} <= set(header.split())
    assert whole.split()[-3:] == ["never", "everything", "t1"]
    assert "2099-01-01" in agent
    assert "memory, 99999999… (gone)" in agent


def test_user_rm_removes_each_that_is_named(api, corral):
    for name in ("ada", "grace"):
        api.on(f"DELETE /users/{name}", document({"name": name}))
    result = corral("user", "rm", "ada", "grace")
    assert result.out == "ada is removed\ngrace is removed\n"


def test_user_add_puts_the_first_token_alone_on_standard_output(api, corral):
    api.on("POST /users", document({"name": "grace", "role": "deployer", "disabled": False, "token": "crl_abc"}, 201))
    result = corral("user", "add", "grace")
    assert api.asked[0].json == {"name": "grace", "role": "deployer"}
    assert (result.code, result.out) == (0, "crl_abc\n")
    assert "not shown again" in result.err


def test_user_ls_says_who_may_what(api, corral):
    users = [
        {"name": "admin", "role": "admin", "disabled": False, "created_at": None},
        {"name": "grace", "role": "viewer", "disabled": True, "created_at": "2026-11-22T10:00:00Z"},
    ]
    api.on("GET /users", document({"users": users, "next_cursor": None}))
    header, first, second = corral("user", "ls").out.splitlines()
    assert header.split() == ["NAME", "ROLE", "STATE", "CREATED"]
    assert first.split() == ["admin", "admin", "active", "-"]
    assert second.split()[:3] == ["grace", "viewer", "disabled"]


@pytest.mark.parametrize(
    ("words", "sent", "said"),
    [
        (["role", "grace", "viewer"], {"role": "viewer"}, "grace is active, role viewer"),
        (["disable", "grace"], {"disabled": True}, "grace is disabled, role viewer"),
        (["enable", "grace"], {"disabled": False}, "grace is active, role viewer"),
    ],
)
def test_a_user_is_changed_by_what_is_named(api, corral, words, sent, said):
    api.on("PATCH /users/grace", document({"name": "grace", "role": "viewer", "disabled": bool(sent.get("disabled"))}))
    result = corral("user", *words)
    assert api.asked[0].json == sent
    assert result.out == said + "\n"


@pytest.mark.parametrize(
    ("words", "sent", "said"),
    [
        ([], {}, "what the operator's settings say"),
        (
            ["instances=3", "calls_per_day=default", "memory_mb=0"],
            {"quotas": {"instances": 3, "calls_per_day": None, "memory_mb": 0}},
            "instances=3 memory_mb=0",
        ),
    ],
)
def test_a_users_quotas_are_set_and_shown(api, corral, words, sent, said):
    quotas = {name: value for name, value in sent.get("quotas", {}).items() if value is not None}
    api.on("PATCH /users/grace", document({"name": "grace", "role": "viewer", "disabled": False, "quotas": quotas}))
    result = corral("user", "quota", "grace", *words)
    assert api.asked[0].json == sent
    assert result.out == f"grace may have {said}\n"


@pytest.mark.parametrize(
    ("pair", "message"),
    [("instances", "QUOTA=VALUE"), ("instancez=3", "is no quota"), ("instances=many", "a whole number or `default`")],
)
def test_a_quota_that_is_none_is_wrong_usage(api, corral, pair, message):
    result = corral("user", "quota", "grace", pair)
    assert result.code == 2
    assert message in " ".join(result.err.split())
    assert api.asked == []


def test_users_are_listed_with_quotas_where_somebody_has_any(api, corral):
    users = [
        {"name": "admin", "role": "admin", "disabled": False, "created_at": None, "quotas": {}},
        {"name": "grace", "role": "viewer", "disabled": False, "created_at": None, "quotas": {"instances": 3}},
    ]
    api.on("GET /users", document({"users": users, "next_cursor": None}))
    header, first, second = corral("user", "ls").out.splitlines()
    assert header.split() == ["NAME", "ROLE", "STATE", "CREATED", "QUOTAS"]
    assert first.split()[-1] == "-"
    assert second.split()[-1] == "instances=3"


def test_token_rm_takes_a_name_or_an_id(api, corral):
    identity = "7f8de0a5-9f0a-4f0e-8f5e-0000000000aa"
    listed = [{"token_id": identity, "name": "ci"}, {"token_id": "x", "name": "two"}, {"token_id": "y", "name": "two"}]
    api.on("GET /tokens", document({"tokens": listed, "next_cursor": None}))
    api.on(f"DELETE /tokens/{identity}", document({}))
    assert corral("token", "rm", "ci", identity).out == f"ci is removed\n{identity} is removed\n"
    assert corral("token", "rm", "nobody").code == 3
    ambiguous = corral("token", "rm", "two")
    assert ambiguous.code == 1
    assert "2 tokens are named 'two'" in ambiguous.err


def test_stats_shows_numbers_with_their_units(api, corral):
    content = {"instances": {"total": 2, "by_status": {"running": 2}}, "restarts": 1234, "fleet": {"memory_mb": 90.2}}
    api.on("GET /stats", document(content))
    lines = [line.split(None, 1) for line in corral("stats").out.splitlines()]
    assert lines == [["instances", "total 2, by status running 2"], ["restarts", "1,234"], ["fleet", "memory 90M"]]
