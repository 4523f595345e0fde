"""Several control planes by name: which one is in force, how they are kept, and where their tokens go."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli.choosing import choose, chosen_target
from controlplane.cli.contextfile import COLOURS, MAX_BYTES, Context, Contexts, changing, parse, read, write
from controlplane.cli.exits import CommandFailed, Exit
from tests.cli.fake_api import TOKEN, FakeApi, document, instance
from tests.cli.terminal import COMMAND, TIMEOUT_S, Terminal, environment

OTHER_TOKEN = "other-token-0123456789abcdef"
FLEET = document({"instances": [instance()], "next_cursor": None})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/corral/contexts.json"


@pytest.fixture
def plain(api, file, monkeypatch) -> FakeApi:
    """Nothing in the environment names a control plane; the one on this machine is the fake one."""
    monkeypatch.delenv("CORRAL_URL")
    monkeypatch.delenv("CORRAL_TOKEN")
    home = Path(os.environ["CORRAL_HOME"])
    home.mkdir()
    (home / "credentials").write_text(json.dumps({"url": api.url, "token": TOKEN}))
    api.on("GET /instances", FLEET)
    return api


@pytest.fixture
def other() -> FakeApi:
    """Another control plane, which takes no token that a test has."""
    fake = FakeApi()
    yield fake
    fake.close()


def keep(file: Path, current: str | None = None, **contexts: Context) -> None:
    with changing(file) as path:
        write(path, Contexts(contexts, current))


def tokens_seen(api: FakeApi) -> set[str | None]:
    return {asked.headers.get("authorization") for asked in api.asked}


# --- which one is in force


@pytest.mark.parametrize(
    ("environ", "asked", "current", "name", "why"),
    [
        ({}, None, None, "local", "nothing else said"),
        ({}, None, "prod", "prod", "context use"),
        ({"CORRAL_URL": "http://x"}, None, "prod", "local", "CORRAL_URL"),
        ({"CORRAL_TOKEN": "t"}, None, "prod", "local", "CORRAL_TOKEN"),
        ({"CORRAL_URL": " "}, None, "prod", "prod", "context use"),
        ({"CORRAL_CONTEXT": "b", "CORRAL_URL": "http://x"}, None, "prod", "b", "CORRAL_CONTEXT"),
        ({"CORRAL_CONTEXT": " "}, None, "prod", "prod", "context use"),
        ({"CORRAL_CONTEXT": "local"}, None, "prod", "local", "CORRAL_CONTEXT"),
        ({"CORRAL_CONTEXT": "b", "CORRAL_TOKEN": "t"}, "a", "prod", "a", "--context"),
        ({"CORRAL_URL": "http://x"}, "local", "prod", "local", "--context"),
    ],
)
def test_the_order_of_what_chooses_a_context(environ, asked, current, name, why):
    choice = choose(environ, asked, current)
    assert (choice.name, choice.why) == (name, why)


def test_a_named_context_gives_its_own_server_and_token_and_never_the_environments(file, tmp_path):
    keep(file, a=Context(url="https://a.example", token="ta", colour="red", read_only=True), b=Context(url="http://b"))
    environ = {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "CORRAL_HOME": str(tmp_path),
        "CORRAL_URL": "http://env.example",
        "CORRAL_TOKEN": "tenv",
    }
    a, b = chosen_target(environ, "a"), chosen_target({**environ, "CORRAL_CONTEXT": "b"})
    assert (a.url, a.token, a.colour, a.read_only, a.context) == ("https://a.example", "ta", "red", True, "a")
    assert (b.url, b.token) == ("http://b", None)
    local = chosen_target(environ, "local")
    assert (local.url, local.token, local.context) == ("http://env.example", "tenv", "local")
    assert "ta" not in repr(a).replace("target", "")


def test_a_context_that_is_not_there_is_wrong_usage_and_names_the_likely_one(plain, corral, file):
    keep(file, prod=Context(url="https://a.example"))
    result = corral("--context", "prdo", "ls")
    assert result.code == Exit.USAGE
    assert "There is no context 'prdo'" in result.err
    assert "Did you mean prod?" in result.err
    assert plain.asked == []


def test_a_current_context_that_is_gone_is_an_error_and_not_another_server(plain, corral, file):
    keep(file, "gone", prod=Context(url="https://a.example"))
    result = corral("ls")
    assert (result.code, plain.asked) == (Exit.USAGE, [])
    assert "It was named by context use." in result.err
    assert "'gone', named by context use, is not there" in corral("context", "ls").err
    assert corral("context", "use", "local").code == 0
    assert corral("ls").code == 0


def test_commands_follow_the_context_and_each_server_gets_its_own_token_only(plain, other, corral, file):
    keep(file, other=Context(url=other.url, token=OTHER_TOKEN), bare=Context(url=other.url))
    assert corral("ls", "-q").out == "memory\n"
    assert corral("context", "use", "other").code == 0
    refused = corral("ls")
    assert refused.code == Exit.NOT_ALLOWED
    assert "The token came from the context other." in refused.err
    assert tokens_seen(other) == {f"Bearer {OTHER_TOKEN}"}
    bare = corral("--context", "bare", "ls")
    assert "The context bare has no token" in bare.err
    assert f"context add bare {other.url} --force" in bare.err
    assert tokens_seen(other) == {f"Bearer {OTHER_TOKEN}", None}
    assert corral("--context", "local", "ls", "-q").out == corral("ls", "-q", "--context", "local").out == "memory\n"
    assert tokens_seen(plain) == {f"Bearer {TOKEN}"}


def test_a_token_variable_never_goes_to_the_server_of_a_context(plain, other, corral, file, monkeypatch):
    keep(file, "other", other=Context(url=other.url, token=OTHER_TOKEN))
    monkeypatch.setenv("CORRAL_TOKEN", TOKEN)
    assert corral("ls", "-q").out == "memory\n"
    assert corral("--context", "other", "ls").code == Exit.NOT_ALLOWED
    assert tokens_seen(other) == {f"Bearer {OTHER_TOKEN}"}


def test_doctor_looks_at_the_control_plane_of_the_context(plain, other, corral, file):
    keep(file, other=Context(url=other.url, token=OTHER_TOKEN))
    corral("--context", "other", "doctor", "--json")
    assert {asked.path for asked in other.asked} >= {"/health"}
    assert plain.asked == []


# --- read-only


@pytest.mark.parametrize(
    "arguments",
    [
        ("stop", "memory"),
        ("rm", "memory"),
        ("deploy", "memory", "--", "npx"),
        ("redeploy", "memory"),
        ("call", "memory", "ping"),
        ("user", "role", "grace", "viewer"),
        ("token", "create", "ci", "--role", "viewer"),
        ("proxy", "memory"),
        ("proxy", "memory", "--context", "prod"),
    ],
)
def test_a_read_only_context_sends_nothing_that_changes(plain, corral, file, arguments):
    keep(file, "prod", prod=Context(url=plain.url, token=TOKEN, read_only=True))
    plain.on("GET /instances/memory", document(instance()))
    result = corral(*arguments)
    assert result.code == Exit.USAGE
    assert "The context prod is read-only" in result.err
    assert {asked.method for asked in plain.asked} <= {"GET"}


def test_an_import_into_a_read_only_context_says_so_once(plain, corral, file, tmp_path):
    keep(file, "prod", prod=Context(url=plain.url, token=TOKEN, read_only=True))
    servers = tmp_path / "mcp.json"
    servers.write_text('{"mcpServers": {"one": {"command": "npx"}, "two": {"command": "npx"}}}')
    result = corral("import", str(servers))
    assert (result.code, result.out) == (Exit.USAGE, "")
    assert result.err.count("The context prod is read-only") == 1
    assert plain.asked == []
    assert corral("import", str(servers), "--dry-run").code == 0


def test_a_read_only_context_can_be_read(plain, corral, file):
    keep(file, "prod", prod=Context(url=plain.url, token=TOKEN, read_only=True))
    plain.on("GET /instances/memory", document(instance()))
    assert corral("ls", "-q").out == "memory\n"
    assert corral("inspect", "memory").code == 0


# --- add, ls, show, use, rm


def test_a_context_is_added_chosen_shown_and_removed_without_its_token_being_seen(plain, corral, file):
    added = corral(
        "context", "add", "prod", "https://c.example/", "--colour", "red", "--read-only", stdin=b"s3cret-token\n"
    )
    assert (added.code, added.out) == (0, "prod is https://c.example\n")
    assert read(file).known["prod"] == Context(
        url="https://c.example", token="s3cret-token", colour="red", read_only=True
    )
    used = corral("context", "use", "prod")
    listed, as_json = corral("context", "ls"), corral("context", "ls", "--json")
    shown, local = corral("context", "show"), corral("context", "show", "local", "--json")
    removed = corral("context", "rm", "prod")
    assert [line.split() for line in listed.out.splitlines()] == [
        ["NAME", "URL", "COLOUR", "MAY", "TOKEN"],
        ["local", plain.url, "-", "all", "yes"],
        ["*", "prod", "https://c.example", "red", "read", "yes"],
    ]
    assert as_json.json["current"] == "prod"
    assert as_json.json["contexts"][1] == {
        "name": "prod",
        "current": True,
        "url": "https://c.example",
        "colour": "red",
        "read_only": True,
        "has_token": True,
        "origin": "the context prod",
    }
    assert "yes (context use)" in shown.out
    assert local.json["has_token"] is True
    assert "it was the current one; now local is" in removed.err
    assert read(file) == Contexts()
    for result in (added, used, listed, as_json, shown, local, removed):
        assert "s3cret" not in result.out + result.err
        assert TOKEN not in result.out + result.err


def test_a_context_is_replaced_only_when_that_is_said_and_takes_no_token_along(plain, corral, file):
    corral("context", "add", "prod", "https://a.example", stdin=b"first\n")
    refused = corral("context", "add", "prod", "https://b.example", stdin=b"second\n")
    assert refused.code == Exit.FAILED
    assert "It is https://a.example." in refused.err
    assert corral("context", "add", "prod", "https://b.example", "--force", "--no-token").code == 0
    assert read(file).known == {"prod": Context(url="https://b.example")}


def test_a_token_comes_from_a_file_or_standard_input(plain, corral, file, tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    corral("context", "add", "a", "https://a.example", "--token-file", str(tmp_path / "token"), stdin=b"other\n")
    corral("context", "add", "b", "https://a.example", "--token-file", "-", stdin=b"from-stdin\n")
    corral("context", "add", "c", "https://a.example")
    assert [context.token for context in read(file).known.values()] == ["from-file", "from-stdin", None]


def test_a_token_that_is_asked_for_is_not_shown(plain, file, tmp_path):
    terminal = Terminal.run(
        "", "context", "add", "prod", "https://a.example", XDG_CONFIG_HOME=str(tmp_path / "config"), CORRAL_TOKEN=""
    )
    terminal.read_until("Token")
    os.write(terminal._master, b"typed-token\n")
    assert terminal.end() == 0
    assert "typed-token" not in terminal.text
    assert read(file).known["prod"].token == "typed-token"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("local", "https://x"), "always there"),
        (("../x", "https://x"), "is no name"),
        (("a\x1b[31m", "https://x"), "is no name"),
        (("a" * 64, "https://x"), "is no name"),
        (("a", "ftp://x"), "is not an http:// or https:// URL"),
        (("a", "https://x\u202e.example"), "is not an http:// or https:// URL"),
        (("a", "https://grace:pw@x"), "holds a user or a password"),
        (("a", "https://x/?token=1"), "holds a query"),
        (("a", "https://x", "--colour", "pink"), "is not one of"),
        (("a", "https://x", "--token-file", "/no/such/file"), "No such file"),
        (("a", "https://x", "--token-file", os.devnull), "no token on its first line"),
    ],
)
def test_what_no_context_can_be_is_refused_and_nothing_is_written(plain, corral, file, arguments, message):
    result = corral("context", "add", *arguments)
    assert result.code == Exit.USAGE
    assert message in " ".join(result.err.split())
    assert "\x1b" not in result.err
    assert not file.exists()


def test_a_token_that_no_header_holds_is_refused_without_showing_it(plain, corral, file):
    result = corral("context", "add", "a", "https://x", stdin="tök en\n".encode())
    assert (result.code, file.exists()) == (Exit.USAGE, False)
    assert "tök" not in result.err


def test_a_token_in_the_clear_is_warned_about_unless_it_stays_on_this_machine(plain, corral):
    assert "can be read on its way" in corral("context", "add", "a", "http://a.example", stdin=b"t\n").err
    assert "can be read" not in corral("context", "add", "b", "http://127.0.0.1:9", stdin=b"t\n").err
    assert "can be read" not in corral("context", "add", "c", "https://a.example", stdin=b"t\n").err


def test_what_beats_the_chosen_context_is_said(plain, corral, file, monkeypatch):
    keep(file, prod=Context(url="https://a.example"))
    monkeypatch.setenv("CORRAL_URL", plain.url)
    assert "here CORRAL_URL is set, and beats it" in corral("context", "use", "prod").err
    listed = corral("context", "ls")
    assert "CORRAL_URL beats `context use prod`" in listed.err
    assert listed.out.splitlines()[1].startswith("*")


@pytest.mark.parametrize("colour", COLOURS)
def test_a_name_has_its_colour_on_a_terminal(file, tmp_path, colour):
    keep(file, prod=Context(url="https://a.example", colour=colour))
    terminal = Terminal.run("http://x.example", "context", "ls", XDG_CONFIG_HOME=str(tmp_path / "config"))
    assert terminal.end() == 0
    assert f"\x1b[1;{30 + COLOURS.index(colour)}mprod".encode() in terminal.seen


def test_a_control_plane_on_this_machine_that_cannot_be_used_is_listed_with_the_reason(plain, corral, file):
    keep(file, prod=Context(url="https://a.example"))
    (Path(os.environ["CORRAL_HOME"]) / "credentials").write_text("{")
    listed = corral("context", "ls")
    assert listed.code == 0
    assert "cannot be used" in listed.out.splitlines()[1]
    assert "https://a.example" in listed.out.splitlines()[2]


def test_completion_offers_contexts_to_the_option_and_the_commands(file, tmp_path):
    keep(file, prod=Context(url="https://a.example"), preview=Context(url="https://b.example"))

    def complete(*words: str) -> list[str]:
        more = {"COMP_WORDS": " ".join(("corral", *words)), "COMP_CWORD": str(len(words))}
        variables = {"_CORRAL_COMPLETE": "bash_complete", "XDG_CONFIG_HOME": str(tmp_path / "config"), **more}
        done = subprocess.run(
            COMMAND, env=environment("", **variables), capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
        return [line.split(",")[1] for line in done.stdout.split()]

    assert complete("--context", "pr") == ["prod", "preview"]
    assert complete("tui", "--context", "l") == ["local"]
    assert complete("context", "use", "") == ["local", "prod", "preview"]
    file.write_text("{")
    assert complete("context", "use", "") == ["local"]


def test_completion_of_instances_asks_the_server_of_the_context(plain, file, tmp_path):
    keep(file, mine=Context(url=plain.url, token=TOKEN))
    words = {"COMP_WORDS": "corral --context mine logs m", "COMP_CWORD": "4"}
    variables = {"_CORRAL_COMPLETE": "bash_complete", "XDG_CONFIG_HOME": str(tmp_path / "config"), **words}
    done = subprocess.run(
        COMMAND,
        env=environment("http://127.0.0.1:1", **variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert done.stdout.split() == ["plain,memory"]


# --- the file


def test_the_file_and_its_folder_are_the_owners_alone_whatever_the_umask(plain, corral, file):
    before = os.umask(0)
    try:
        corral("context", "add", "a", "https://a.example", stdin=b"t\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.parent.chmod(0o755)
    corral("context", "use", "a")
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_read_or_write_is_not_used_and_the_way_to_mend_it_is_said(plain, corral, file, mode):
    keep(file, "a", a=Context(url=plain.url, token=OTHER_TOKEN))
    file.chmod(mode)
    for arguments in (("ls",), ("--context", "a", "ls"), ("context", "ls"), ("context", "rm", "a")):
        result = corral(*arguments)
        assert result.code == Exit.USAGE
        assert f"chmod 600 {file}" in result.err
    assert plain.asked == []
    assert corral("--context", "local", "ls").code == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"[]", "no JSON object"),
        (b"\xff", "utf-8"),
        (b"[" * 5000, "nested too deeply"),
        (b" " * (MAX_BYTES + 1), "larger than 64 KiB"),
        (b'{"contexts": {"a": 1}}', "'a' has no url"),
        (b'{"contexts": {"a b": {"url": "https://x"}}}', "is no name"),
        (b'{"contexts": {"local": {"url": "https://x"}}}', "always there"),
        (b'{"contexts": {"a": {"url": "x"}}}', "is not an http:// or https:// URL"),
        (b'{"contexts": {"a": {"url": "https://x", "readonly": true}}}', "unknown member 'readonly'"),
        (b'{"contexts": {"a": {"url": "https://x", "read_only": "no"}}}', "neither true nor false"),
        (b'{"contexts": {"a": {"url": "https://x", "colour": []}}}', "unknown colour"),
        (b'{"contexts": {"a": {"url": "https://x", "token": "s3cret\\n"}}}', "what no token holds"),
        (b'{"contexts": {}, "current": 1}', '"current" is no name'),
    ],
)
def test_a_file_that_is_not_what_it_should_be_says_what_is_wrong(file, content, message):
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(CommandFailed) as failure:
        read(file)
    assert failure.value.exit_code is Exit.USAGE
    assert message in str(failure.value)
    assert "s3cret" not in str(failure.value)


@given(st.binary())
def test_no_content_of_the_file_breaks_the_command(content):
    with suppress(ValueError):
        assert isinstance(parse(content), Contexts)


def test_what_is_no_file_holds_nothing_up(file):
    file.parent.mkdir(parents=True)
    os.mkfifo(file, 0o600)
    with pytest.raises(CommandFailed, match="it is no file"):
        read(file)


def test_a_change_that_cannot_be_written_leaves_the_file_as_it_was(file):
    keep(file, a=Context(url="https://a.example", token="t"))
    before = file.read_bytes()
    many = {f"c{number}": Context(url="https://a.example", token="t" * 8000) for number in range(9)}
    with pytest.raises(CommandFailed, match="would be larger"):
        keep(file, **many)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["contexts.json"]


def test_a_change_replaces_the_file_and_never_writes_over_it(file):
    keep(file, a=Context(url="https://a.example"))
    with file.open() as reader:
        keep(file, b=Context(url="https://b.example"))
        assert list(parse(reader.read().encode()).known) == ["a"]  # whoever reads has the whole of the earlier one
    assert list(read(file).known) == ["b"]
    assert os.listdir(file.parent) == ["contexts.json"]


def test_a_link_in_the_files_place_stays_one(file, tmp_path):
    file.parent.mkdir(parents=True)
    file.symlink_to(tmp_path / "kept.json")
    keep(file, a=Context(url="https://a.example"))
    assert file.is_symlink()
    assert list(read(tmp_path / "kept.json").known) == ["a"]


def test_of_changes_at_once_none_is_lost(file):
    names = [f"c{number}" for number in range(16)]

    def add(name: str) -> None:
        with changing(file) as path:
            write(path, read(path).with_context(name, Context(url="https://a.example")))

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert sorted(read(file).known) == sorted(names)


# --- what is written for MCP clients


def test_a_client_that_starts_the_proxy_keeps_to_the_context_it_was_written_for(plain, corral, file, tmp_path):
    keep(file, "prod", prod=Context(url=plain.url, token=TOKEN))
    plain.on("GET /instances/memory", document(instance()))
    entry = corral("connect", "memory", "--client", "claude-desktop", "--json").json
    assert entry["entry"]["args"][-4:] == ["--context", "prod", "proxy", "memory"]
    entry = corral("--context", "local", "connect", "memory", "--client", "claude-desktop", "--json").json
    assert entry["entry"]["args"][-4:] == ["--context", "local", "proxy", "memory"]
