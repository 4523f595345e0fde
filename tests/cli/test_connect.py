"""`corral connect`: every client's configuration, shown and written."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path

import pytest

from controlplane.cli.clients import CLIENTS, folders_of
from controlplane.cli.inputs import parse_jsonc
from tests.cli.fake_api import TOKEN, document, instance, problem

MEMORY = "GET /instances/memory"
TOKENS = "POST /tokens"
NEW = "new-token-0123456789"
REFERRED = {
    "claude-code": "Bearer ${CORRAL_TOKEN}",
    "cursor": "Bearer ${env:CORRAL_TOKEN}",
    "gemini": "Bearer ${CORRAL_TOKEN}",
    "windsurf": "Bearer ${env:CORRAL_TOKEN}",
    "goose": "Bearer ${CORRAL_TOKEN}",
}
PLACES = {
    "claude-code": ".claude.json",
    "claude-desktop": ".config/Claude/claude_desktop_config.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".config/Code/User/mcp.json",
    "codex": ".codex/config.toml",
    "gemini": ".gemini/settings.json",
    "windsurf": ".codeium/windsurf/mcp_config.json",
    "zed": ".config/zed/settings.json",
    "cline": ".cline/data/settings/cline_mcp_settings.json",
    "goose": ".config/goose/config.yaml",
}
WRITTEN = [name for name in CLIENTS if name != "goose"]


@pytest.fixture
def home(api, tmp_path, monkeypatch):
    """A user's home with nothing in it, and an instance to connect to; the token comes from the environment."""
    for name in ("XDG_CONFIG_HOME", "CODEX_HOME", "CLINE_MCP_SETTINGS_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    api.on(MEMORY, document(instance()))
    api.on(TOKENS, document({"token": NEW, "token_id": "1", "name": "x"}, 201))
    return tmp_path


@pytest.fixture
def credentials(api, home, monkeypatch):
    """The control plane is on this machine: `corral` finds it by its credentials file."""
    monkeypatch.delenv("CORRAL_URL")
    monkeypatch.delenv("CORRAL_TOKEN")
    monkeypatch.delenv("CORRAL_HOME")
    monkeypatch.setattr("controlplane.cli.target.CHECKOUT", home / "no-checkout")
    monkeypatch.setattr("controlplane.cli.target.default_home", lambda: home / "data")
    (home / "data").mkdir()
    (home / "data/credentials").write_text(json.dumps({"url": api.url, "token": TOKEN}))


def entry_in(home, client, name="memory", place=None):
    path = home / (place or PLACES[client])
    document = tomllib.loads(path.read_text()) if path.suffix == ".toml" else parse_jsonc(path.read_bytes(), "x")
    for key in (*CLIENTS[client].keys, name):
        document = document[key]
    return document


def backups(path):
    return sorted(path.parent.glob(path.name + ".*.bak"))


# --- without a client


def test_without_a_client_it_shows_the_endpoint_the_common_form_and_the_clients(api, corral, home):
    result = corral("connect", "memory")
    assert result.code == 0
    assert f"{api.url}/mcp/memory" in result.out
    assert '"mcpServers"' in result.out
    assert all(name in result.out for name in CLIENTS)
    assert TOKEN not in result.out + result.err
    assert corral("connect", "memory", "--json").json["clients"] == list(CLIENTS)


def test_an_instance_that_is_not_there_is_exit_3(api, corral, home):
    api.on(MEMORY, problem(404, "not_found"))
    result = corral("connect", "memory", "--client", "cursor", "--write")
    assert result.code == 3
    assert not (home / ".cursor").exists()


def test_an_instance_of_another_owner_is_named_by_its_id(api, corral, home):
    api.on("GET /instances/ada%2Fmemory", document(instance()))
    result = corral("connect", "ada/memory", "--client", "cursor", "--json").json
    assert result["url"] == f"{api.url}/mcp/{instance()['instance_id']}"


# --- every client


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_shown_holds_no_token_that_is_ours(api, corral, home, client):
    result = corral("connect", "memory", "--client", client)
    assert result.code == 0, result.err
    assert TOKEN not in result.out + result.err
    assert PLACES[client] in result.err
    assert result.out.strip()


@pytest.mark.parametrize("client", WRITTEN)
def test_what_is_shown_is_what_is_written(api, corral, home, client):
    shown = corral("connect", "memory", "--client", client).out
    assert corral("connect", "memory", "--client", client, "--write").code == 0
    written = (home / PLACES[client]).read_text()
    if client == "codex":
        assert tomllib.loads(shown) == tomllib.loads(written)
    else:
        assert json.loads(shown) == json.loads(written)
    assert stat.S_IMODE((home / PLACES[client]).stat().st_mode) == 0o600


@pytest.mark.parametrize("client", WRITTEN)
def test_a_second_time_changes_nothing_and_makes_no_token(api, corral, home, client):
    corral("connect", "memory", "--client", client, "--write")
    tokens, before = len(api.asked_for(TOKENS)), (home / PLACES[client]).read_bytes()
    result = corral("connect", "memory", "--client", client, "--write")
    assert (result.code, result.out) == (0, f"memory is in {home / PLACES[client]} already\n")
    assert (home / PLACES[client]).read_bytes() == before
    assert len(api.asked_for(TOKENS)) == tokens
    assert backups(home / PLACES[client]) == []


@pytest.mark.parametrize(("client", "bearer"), REFERRED.items())
def test_clients_that_can_take_the_token_from_the_environment(api, corral, home, client, bearer):
    result = corral("connect", "memory", "--client", client, "--json").json
    assert result["entry"]["headers"] == {"Authorization": bearer}
    assert result["credential"] == {"from": "environment", "variable": "CORRAL_TOKEN"}
    assert api.asked_for(TOKENS) == []
    other = corral("connect", "memory", "--client", client, "--token-env", "MINE", "--json").json
    assert other["entry"]["headers"] == {"Authorization": bearer.replace("CORRAL_TOKEN", "MINE")}


def test_the_form_of_each_client_over_http(api, corral, home):
    def entry(client):
        return corral("connect", "memory", "--client", client, "--token", "T", "--json").json["entry"]

    url, headers = f"{api.url}/mcp/memory", {"Authorization": "Bearer T"}
    assert entry("claude-code") == {"type": "http", "url": url, "headers": headers}
    assert entry("cursor") == {"url": url, "headers": headers}
    assert entry("vscode") == {"type": "http", "url": url, "headers": headers}
    assert entry("codex") == {"url": url, "http_headers": headers}
    assert entry("gemini") == {"httpUrl": url, "headers": headers}
    assert entry("windsurf") == {"serverUrl": url, "headers": headers}
    assert entry("zed") == {"url": url, "headers": headers}
    assert entry("cline") == {"type": "streamableHttp", "url": url, "headers": headers}
    assert entry("goose")["uri"] == url


def test_codex_names_the_variable_in_a_field_of_its_own(api, corral, home):
    corral("connect", "memory", "--client", "codex", "--write")
    assert entry_in(home, "codex") == {"url": f"{api.url}/mcp/memory", "bearer_token_env_var": "CORRAL_TOKEN"}


def test_vscode_asks_for_the_token_and_is_told_how_once(api, corral, home):
    corral("connect", "memory", "--client", "vscode", "--write")
    api.on("GET /instances/other", document(instance("other")))
    corral("connect", "other", "--client", "vscode", "--write")
    document_ = json.loads((home / PLACES["vscode"]).read_text())
    assert [asked["id"] for asked in document_["inputs"]] == ["corral-token"]
    assert document_["inputs"][0]["password"] is True
    assert {server["headers"]["Authorization"] for server in document_["servers"].values()} == {
        "Bearer ${input:corral-token}"
    }


def test_vscode_asks_for_the_token_of_each_control_plane(api, corral, home, monkeypatch):
    monkeypatch.setattr("controlplane.cli.wiring.is_loopback", lambda _host: False)
    shown = corral("connect", "memory", "--client", "vscode", "--json").json
    assert shown["entry"]["headers"] == {"Authorization": "Bearer ${input:corral-token-127.0.0.1}"}
    assert [asked["id"] for asked in shown["inputs"]] == ["corral-token-127.0.0.1"]


@pytest.mark.parametrize("client", ["claude-desktop", "zed", "cline"])
def test_clients_that_need_a_token_in_the_file_get_none_where_corral_finds_its_own(
    api, corral, home, credentials, client
):
    result = corral("connect", "memory", "--client", client, "--json").json
    assert (result["transport"], result["credential"]["from"]) == ("stdio", "proxy")
    assert result["entry"]["args"][-2:] == ["proxy", "memory"]
    assert Path(result["entry"]["command"]).is_absolute()
    assert "env" not in result["entry"]
    assert api.asked_for(TOKENS) == []


def test_a_home_of_its_own_is_handed_down(api, corral, home, credentials, monkeypatch):
    monkeypatch.setenv("CORRAL_HOME", str(home / "data"))
    result = corral("connect", "memory", "--client", "claude-desktop", "--json").json
    assert result["entry"]["env"] == {"CORRAL_HOME": str(home / "data")}


def test_elsewhere_they_get_a_token_of_the_role_caller_made_for_them(api, corral, home):
    result = corral("connect", "memory", "--client", "claude-desktop", "--write")
    assert entry_in(home, "claude-desktop")["env"] == {"CORRAL_URL": api.url, "CORRAL_TOKEN": NEW}
    assert api.asked_for(TOKENS)[0].json == {"name": "claude-desktop: memory", "role": "caller"}
    assert NEW not in result.out + result.err
    assert "token rm 'claude-desktop: memory'" in result.err
    corral("connect", "memory", "--client", "zed", "--write")
    assert entry_in(home, "zed") == {"url": f"{api.url}/mcp/memory", "headers": {"Authorization": f"Bearer {NEW}"}}


def test_a_token_can_be_given_and_read_from_standard_input(api, corral, home):
    corral("connect", "memory", "--client", "cursor", "--token", "-", "--write", stdin=b"from-stdin\n")
    assert entry_in(home, "cursor")["headers"] == {"Authorization": "Bearer from-stdin"}


def test_any_client_can_be_given_the_command(api, corral, home, credentials):
    assert corral("connect", "memory", "--client", "vscode", "--transport", "stdio", "--json").json["entry"][
        "type"
    ] == ("stdio")
    entry = corral("connect", "memory", "--client", "goose", "--transport", "stdio", "--json").json["entry"]
    assert (entry["type"], entry["args"][-1]) == ("stdio", "memory")


def test_goose_is_shown_yaml_and_its_file_left_alone(api, corral, home):
    shown = corral("connect", "memory", "--client", "goose").out
    assert shown.splitlines()[:4] == ["extensions:", "  memory:", "    enabled: true", '    type: "streamable_http"']
    result = corral("connect", "memory", "--client", "goose", "--write")
    assert (result.code, "YAML" in result.err) == (2, True)


def test_where_the_files_are_on_other_systems(home):
    mac, windows = folders_of({}, home, "darwin"), folders_of({"APPDATA": str(home / "Roaming")}, home, "win32")
    support = home / "Library/Application Support"
    assert CLIENTS["claude-desktop"].files(mac) == (support / "Claude/claude_desktop_config.json",)
    assert CLIENTS["vscode"].files(mac) == (support / "Code/User/mcp.json",)
    assert CLIENTS["zed"].files(mac) == (home / ".config/zed/settings.json",)
    assert CLIENTS["vscode"].files(windows) == (home / "Roaming/Code/User/mcp.json",)
    assert CLIENTS["zed"].files(windows) == (home / "Roaming/Zed/settings.json",)
    assert CLIENTS["goose"].files(windows) == (home / "Roaming/Block/goose/config/config.yaml",)


def test_a_file_that_is_there_is_preferred(api, corral, home):
    extension = home / ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"
    extension.parent.mkdir(parents=True)
    extension.write_text("{}")
    assert corral("connect", "memory", "--client", "cline", "--json").json["file"] == str(extension)


# --- writing


def test_comments_order_mode_and_a_link_stay(api, corral, home):
    real = home / "dotfiles/zed.json"
    real.parent.mkdir()
    text = '{\n  // the theme\n  "theme": "One Dark",\n  "context_servers": {\n    "b": {"url": "y"}, // b\n  },\n}\n'
    real.write_text(text)
    real.chmod(0o640)
    link = home / PLACES["zed"]
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    result = corral("connect", "memory", "--client", "zed", "--token", "T", "--write")
    assert result.code == 0, result.err
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.read_text().startswith(text.removesuffix("  },\n}\n"))
    assert entry_in(home, "zed", "b") == {"url": "y"}
    assert entry_in(home, "zed")["headers"] == {"Authorization": "Bearer T"}
    (backup,) = backups(real)
    assert backup.read_text() == text
    assert stat.S_IMODE(backup.stat().st_mode) == 0o640
    assert str(backup) in result.err
    assert "other users of this machine may read" in result.err


@pytest.mark.needs("root")
def test_a_file_that_root_changes_for_a_user_stays_the_users(api, corral, home):
    path = home / PLACES["cursor"]
    path.parent.mkdir()
    path.write_text("{}")
    os.chown(path, 12_345, 12_346)
    assert corral("connect", "memory", "--client", "cursor", "--write").code == 0
    assert {(file.stat().st_uid, file.stat().st_gid) for file in (path, *backups(path))} == {(12_345, 12_346)}
    assert len(backups(path)) == 1


def test_another_server_of_this_name_is_kept_until_force(api, corral, home):
    path = home / ".cursor/mcp.json"
    path.parent.mkdir()
    path.write_text('{"mcpServers": {"memory": {"command": "npx"}}}')
    before = path.read_bytes()
    refused = corral("connect", "memory", "--client", "cursor", "--write")
    assert refused.code == 1
    assert "--force" in refused.err
    assert path.read_bytes() == before
    assert backups(path) == []
    assert corral("connect", "memory", "--client", "cursor", "--write", "--name", "corral-memory").code == 0
    assert entry_in(home, "cursor") == {"command": "npx"}
    assert corral("connect", "memory", "--client", "cursor", "--write", "--force").code == 0
    assert entry_in(home, "cursor") == entry_in(home, "cursor", "corral-memory")
    assert len(backups(path)) == 2


@pytest.mark.parametrize(
    ("client", "text"),
    [
        ("cursor", "{ nonsense"),
        ("cursor", "[]"),
        ("cursor", '{"mcpServers": []}'),
        ("cursor", b"\xff\xfe"),
        ("codex", "model = "),
        ("codex", "mcp_servers = {}"),
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_left_alone_and_costs_no_token(api, corral, home, client, text):
    path = home / PLACES[client]
    path.parent.mkdir(parents=True)
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(content)
    result = corral("connect", "memory", "--client", client, "--new-token", "--write")
    assert result.code == 1
    assert f"{path} was left as it is" in result.err
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]
    assert api.asked_for(TOKENS) == []


def test_a_file_that_changes_in_between_is_left_alone(api, corral, home):
    path = home / PLACES["cursor"]
    path.parent.mkdir(parents=True)
    path.write_text("{}")

    class Meanwhile:
        def wait(self, _timeout):
            path.write_text('{"changed": true}')

        def set(self):
            pass

    made = document({"token": NEW}, 201)
    api.on(TOKENS, type(made)(made.status, made.body, gate=Meanwhile()))
    result = corral("connect", "memory", "--client", "cursor", "--new-token", "--write")
    assert result.code == 1
    assert "in the meantime" in result.err
    assert path.read_text() == '{"changed": true}'


def test_a_projects_file_gets_no_token(api, corral, home):
    corral("connect", "memory", "--client", "claude-code", "--project", "--write")
    assert entry_in(home, "claude-code", place=".mcp.json")["headers"] == {"Authorization": "Bearer ${CORRAL_TOKEN}"}
    result = corral("connect", "memory", "--client", "claude-code", "--project", "--new-token")
    assert (result.code, "shared" in result.err) == (2, True)
    assert api.asked_for(TOKENS) == []


def test_a_project_gets_the_command_where_a_header_cannot_name_a_variable(api, corral, home):
    entry = corral("connect", "memory", "--client", "zed", "--project", "--json").json["entry"]
    assert (entry["args"][-2:], entry["env"]) == (["proxy", "memory"], {"CORRAL_URL": api.url})


def test_a_file_of_ones_own_choice(api, corral, home):
    corral("connect", "memory", "--client", "cursor", "--file", "there/mcp.json", "--write")
    assert entry_in(home, "cursor", place="there/mcp.json")["url"] == f"{api.url}/mcp/memory"


@pytest.mark.parametrize("client", ["claude-desktop", "cursor"])
def test_what_was_written_is_not_taken_for_a_server_to_deploy(api, corral, home, client):
    corral("connect", "memory", "--client", client, "--write")
    result = corral("import", str(home / PLACES[client]))
    assert (result.code, "1 skipped" in result.out) == (0, True)
    assert api.asked_for("POST /api/v2/deploy") == []


def test_what_was_written_is_told_as_json(api, corral, home):
    (home / ".cursor").mkdir()
    (home / ".cursor/mcp.json").write_text("{}")
    first = corral("connect", "memory", "--client", "cursor", "--write", "--json").json
    assert (first["outcome"], first["file"]) == ("written", str(home / ".cursor/mcp.json"))
    assert Path(first["backup"]).read_text() == "{}"
    assert corral("connect", "memory", "--client", "cursor", "--write", "--json").json["outcome"] == "unchanged"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--write"], "--write needs --client"),
        (["--client", "claude-desktop", "--transport", "http"], "only commands"),
        (["--client", "claude-desktop", "--project"], "no file for a single project"),
        (["--client", "zed", "--token-env", "X", "--transport", "http"], "cannot take a header from a variable"),
        (["--client", "zed", "--token-env", "X"], "no other variable"),
        (["--client", "claude-desktop", "--token-env", "X"], "no other variable"),
        (["--client", "cursor", "--token-env", "a-b"], "no name of a variable"),
        (["--client", "cursor", "--token", "a b"], "no token holds"),
        (["--client", "cursor", "--token", "a", "--new-token"], "give one of them"),
        (["--client", "emacs"], "is not one of"),
    ],
)
def test_what_cannot_be_had_is_wrong_usage(api, corral, home, arguments, message):
    result = corral("connect", "memory", *arguments)
    assert result.code == 2
    assert message in result.err
    assert api.asked_for(TOKENS) == []


def test_a_token_that_may_not_be_made_is_exit_4_and_nothing_is_written(api, corral, home):
    api.on(TOKENS, problem(403, "forbidden"))
    assert corral("connect", "memory", "--client", "cursor", "--new-token", "--write").code == 4
    assert not (home / PLACES["cursor"]).exists()
