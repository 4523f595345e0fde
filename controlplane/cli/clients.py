"""The MCP clients that `corral connect` knows: where each keeps its servers, and how it writes one.

Pure: the environment and the platform are passed in. What stands here was taken from the clients' documentation and
issue trackers in November 2026; `docs/how-to/connect.md` says so, too. Refuses to know tokens: a credential comes in as
the text that belongs behind `Bearer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen

DEFAULT_VARIABLE = "CORRAL_TOKEN"

Platform = Literal["linux", "darwin", "win32"]
Entry = dict[str, Any]


@frozen
class Remote:
    """An endpoint over HTTP.

    Args:
        name: The server's name in the client's file.
        url: The endpoint.
        bearer: What belongs behind `Bearer`: a token, or the client's own way to name a variable.
        variable: The variable's name, where the token is one's.
    """

    name: str
    url: str
    bearer: str = field(repr=False)
    variable: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.bearer}"}


@frozen
class Local:
    """A command that the client starts and speaks to over stdio."""

    name: str
    command: str
    args: list[str]
    env: dict[str, str] = field(factory=dict, repr=False)


@frozen
class Folders:
    """Where programs of this user keep their settings."""

    home: Path
    config: Path
    """`~/.config`, `~/Library/Application Support` or `%APPDATA%`: where desktop programs do."""
    xdg: Path
    """`~/.config` on macOS as well: where command-line programs do."""
    environ: Mapping[str, str] = field(factory=dict, repr=False)


def folders_of(environ: Mapping[str, str], home: Path, platform: str) -> Folders:
    """Find this user's folders as the clients themselves do."""
    xdg = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    if platform == "darwin":
        return Folders(home, home / "Library/Application Support", xdg, environ)
    if platform == "win32":
        roaming = Path(environ.get("APPDATA") or home / "AppData/Roaming")
        return Folders(home, roaming, roaming, environ)
    return Folders(home, xdg, xdg, environ)


def _plain(local: Local) -> Entry:
    return {"command": local.command, "args": local.args} | ({"env": local.env} if local.env else {})


def _typed(local: Local) -> Entry:
    return {"type": "stdio", **_plain(local)}


@frozen(kw_only=True)
class Client:
    """One client.

    Args:
        name: What `--client` takes.
        title: What people call it.
        keys: The names that lead to its servers in its file.
        files: Its file, by preference: the first one that is there, else the first.
        project: Its file in a project's folder, for those that have one.
        remote: How it writes an endpoint; None: it speaks stdio only.
        local: How it writes a command.
        reference: How a header names an environment variable; None: it cannot.
        asks: It can ask for the token itself and keep it.
        form: The language of its file; `yaml` is only printed.
        after: What makes it read its file anew.
    """

    name: str
    title: str
    keys: tuple[str, ...] = ("mcpServers",)
    files: Callable[[Folders], tuple[Path, ...]]
    project: str | None = None
    remote: Callable[[Remote], Entry] | None
    local: Callable[[Local], Entry] = _plain
    reference: str | None = None
    asks: bool = False
    form: Literal["json", "toml", "yaml"] = "json"
    after: str = "Restart it."

    def refer(self, variable: str) -> str:
        """Return the text by which a header of this client's names an environment variable."""
        assert self.reference is not None
        return self.reference.replace("NAME", variable)


def _codex(remote: Remote) -> Entry:
    if remote.variable is not None:
        return {"url": remote.url, "bearer_token_env_var": remote.variable}
    return {"url": remote.url, "http_headers": remote.headers}


def _goose(remote: Remote) -> Entry:
    keys = {"env_keys": [remote.variable]} if remote.variable else {}
    named = {"enabled": True, "type": "streamable_http", "name": remote.name}
    return {**named, "uri": remote.url, **keys, "headers": remote.headers}


def _goose_local(local: Local) -> Entry:
    named = {"enabled": True, "type": "stdio", "name": local.name}
    return {**named, "cmd": local.command, "args": local.args, "envs": local.env}


def _cline_files(folders: Folders) -> tuple[Path, ...]:
    named = folders.environ.get("CLINE_MCP_SETTINGS_PATH")
    file = "cline_mcp_settings.json"
    extension = folders.config / "Code/User/globalStorage/saoudrizwan.claude-dev/settings" / file
    return (*((Path(named),) if named else ()), folders.home / ".cline/data/settings" / file, extension)


def _zed_files(folders: Folders) -> tuple[Path, ...]:
    windows = folders.xdg == folders.config and folders.config.name == "Roaming"
    return (folders.xdg / ("Zed" if windows else "zed") / "settings.json",)


def _codex_files(folders: Folders) -> tuple[Path, ...]:
    return (Path(folders.environ.get("CODEX_HOME") or folders.home / ".codex") / "config.toml",)


_ALL = (
    Client(
        name="claude-code",
        title="Claude Code",
        files=lambda folders: (folders.home / ".claude.json",),
        project=".mcp.json",
        remote=lambda remote: {"type": "http", "url": remote.url, "headers": remote.headers},
        local=_typed,
        reference="${NAME}",
        after="Start it anew; `/mcp` shows it.",
    ),
    Client(
        name="claude-desktop",
        title="Claude Desktop",
        files=lambda folders: (folders.config / "Claude/claude_desktop_config.json",),
        remote=None,
        after="Quit it and start it anew.",
    ),
    Client(
        name="cursor",
        title="Cursor",
        files=lambda folders: (folders.home / ".cursor/mcp.json",),
        project=".cursor/mcp.json",
        remote=lambda remote: {"url": remote.url, "headers": remote.headers},
        reference="${env:NAME}",
        after="Restart it, and look at Settings > MCP.",
    ),
    Client(
        name="vscode",
        title="VS Code",
        keys=("servers",),
        files=lambda folders: (folders.config / "Code/User/mcp.json",),
        project=".vscode/mcp.json",
        remote=lambda remote: {"type": "http", "url": remote.url, "headers": remote.headers},
        local=_typed,
        reference="${env:NAME}",
        asks=True,
        after="`MCP: List Servers` in the command palette starts it.",
    ),
    Client(
        name="codex",
        title="Codex",
        keys=("mcp_servers",),
        files=_codex_files,
        project=".codex/config.toml",
        remote=_codex,
        reference="NAME",
        form="toml",
        after="Start it anew; `/mcp` shows it.",
    ),
    Client(
        name="gemini",
        title="Gemini CLI",
        files=lambda folders: (folders.home / ".gemini/settings.json",),
        project=".gemini/settings.json",
        remote=lambda remote: {"httpUrl": remote.url, "headers": remote.headers},
        reference="${NAME}",
        after="Start it anew; `/mcp` shows it.",
    ),
    Client(
        name="windsurf",
        title="Windsurf",
        files=lambda folders: (folders.home / ".codeium/windsurf/mcp_config.json",),
        remote=lambda remote: {"serverUrl": remote.url, "headers": remote.headers},
        reference="${env:NAME}",
        after="Press refresh in its MCP panel.",
    ),
    Client(
        name="zed",
        title="Zed",
        keys=("context_servers",),
        files=_zed_files,
        project=".zed/settings.json",
        remote=lambda remote: {"url": remote.url, "headers": remote.headers},
        after="It reads the file by itself.",
    ),
    Client(
        name="cline",
        title="Cline",
        files=_cline_files,
        remote=lambda remote: {"type": "streamableHttp", "url": remote.url, "headers": remote.headers},
        after="It reads the file by itself.",
    ),
    Client(
        name="goose",
        title="goose",
        keys=("extensions",),
        files=lambda folders: (
            folders.xdg / ("Block/goose/config" if folders.xdg.name == "Roaming" else "goose") / "config.yaml",
        ),
        remote=_goose,
        local=_goose_local,
        reference="${NAME}",
        form="yaml",
        after="Start a new session.",
    ),
)

CLIENTS: Mapping[str, Client] = {client.name: client for client in _ALL}


def question(id_: str, server: str) -> Entry:
    """Return what makes VS Code ask for a control plane's token once, and keep it encrypted."""
    return {"type": "promptString", "id": id_, "description": f"Corral token for {server}", "password": True}


def masked(value: Any, secret: str) -> Any:
    """Return an entry with every token in it, whatever it is, as `secret`: to compare two that differ in that alone."""
    if isinstance(value, dict):
        return {
            name: secret if name == DEFAULT_VARIABLE and isinstance(item, str) else masked(item, secret)
            for name, item in value.items()
        }
    if isinstance(value, str) and value.startswith("Bearer "):
        return f"Bearer {secret}"
    return value
