"""What is measured: something that serves a stdio MCP server over HTTP. `Corral` is in `corral.py`, its peers are here.

A peer is installed once, into `.peers`, by its own package manager and at the version named here; one that cannot be
installed is `Missing`, and stands in the table as that.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from attrs import define, field

from bench import clients, machine, rest
from bench.clients import NATIVE_LEGACY, Era, Pair
from bench.programs import HERE, Server, free_port

PEERS = HERE / ".peers"
INSTALL_S = 45.0
"""For one package, which takes a few seconds: a registry out of reach must not eat the time of the run."""
MEMORY_SERVER = "@modelcontextprotocol/server-memory"
MEMORY_SERVER_VERSION = "2026.8.31"


class Missing(Exception):
    """It cannot be had on this machine; the text says why in a few words."""


class Gateway(Protocol):
    """One gateway with one MCP server behind it."""

    name: ClassVar[str]
    pairs: ClassVar[tuple[Pair, ...]]
    """What `requests` also are: calls through its MCP endpoint, of these clients to these servers."""
    program: Path
    """The MCP server's program: what runs it is not the gateway's cost."""
    server: Server
    port: int

    def start(self, folder: Path) -> None:
        """Serve; returns once a call has been answered."""

    def requests(self, connections: int) -> list[bytes]:
        """One complete `echo` call per connection, `rest.MARK` where its text goes."""


def own_pids(gateway: Gateway) -> list[int]:
    """The gateway's processes: all that descend from it, but for the MCP server."""
    return [process.pid for process in _tree(gateway) if not _is_program(process, gateway.program)]


def all_pids(gateway: Gateway) -> list[int]:
    return [process.pid for process in _tree(gateway)]


def _tree(gateway: Gateway) -> list[machine.Process]:
    return machine.tree(gateway.server.pid)


def _is_program(process: machine.Process, program: Path) -> bool:
    return str(program) in process.command[:2]


def environment(folder: Path) -> dict[str, str]:
    """A small one, in which a home is the run's own folder."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        **{f"XDG_{kind}_HOME": str(folder / "xdg") for kind in ("CONFIG", "DATA", "STATE", "CACHE")},
    }


# --- Installing -------------------------------------------------------------------------------------------------------


def install_npm(package: str, version: str) -> Path:
    """Install one npm package, without running any script of it; returns its `node_modules`.

    Raises:
        Missing: there is no npm, or it could not.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Missing("no node and npm")
    folder = PEERS / f"{package.replace('/', '-').lstrip('@')}-{version}"
    flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
    _install(folder, ["npm", "install", "--prefix", folder, *flags, f"{package}@{version}"])
    return folder / "node_modules"


def install_pypi(package: str, version: str) -> Path:
    """Install one package from PyPI into an environment of its own; returns that.

    Raises:
        Missing: it could not be installed.
    """
    folder = PEERS / f"pypi-{package}-{version}"
    uv = shutil.which("uv", path=f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")
    python, wanted = folder / "bin" / "python", f"{package}=={version}"
    if uv is not None:
        make: Sequence[Any] = [uv, "venv", "--quiet", "--python", sys.executable, folder]
        fill: Sequence[Any] = [uv, "pip", "install", "--quiet", "--python", python, wanted]
    else:
        make = [sys.executable, "-m", "venv", folder]
        fill = [python, "-m", "pip", "install", "--quiet", wanted]
    _install(folder, make, fill)
    return folder


def _install(folder: Path, *commands: Sequence[Any]) -> None:
    """Run the commands, once; half an installation is taken away again."""
    marker = folder / "complete"
    if marker.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"installing {folder.name}", file=sys.stderr)
    for command in commands:
        try:
            done = subprocess.run(
                [str(word) for word in command], capture_output=True, text=True, check=False, timeout=INSTALL_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise Missing(f"not installed: {error}") from None
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise Missing(f"not installed: {lines[0][:120] if lines else f'status {done.returncode}'}")
    marker.touch()


# --- The peers --------------------------------------------------------------------------------------------------------


@define(eq=False)
class McpHub:
    """npm mcp-hub: Node and Express, calls by REST, no authentication."""

    name: ClassVar[str] = "mcp-hub 4.2.1"
    pairs: ClassVar[tuple[Pair, ...]] = ()
    program: Path
    server: Server = field(init=False)
    port: int = field(factory=free_port, init=False)

    def start(self, folder: Path) -> None:
        modules = install_npm("mcp-hub", "4.2.1")
        config = _write_config(folder, self.program)
        argv: list[str | Path] = ["node", modules / ".bin" / "mcp-hub", "--port", str(self.port), "--config", config]
        self.server = Server.start(argv, env=_node_environment(folder), folder=folder, name="mcp-hub")
        self.server.wait_until(lambda: self._call("hello").status == 200)

    def _call(self, text: str) -> rest.Answer:
        return rest.ask(self.port, "POST", "/api/servers/tools", _hub_call(text))

    def requests(self, connections: int) -> list[bytes]:
        return [rest.request(self.port, "POST", "/api/servers/tools", _hub_call(rest.MARK))] * connections


def _hub_call(text: str) -> dict[str, Any]:
    return {"server_name": "bench", "tool": "echo", "arguments": {"text": text}}


@define(eq=False)
class NpmMcpProxy:
    """npm mcp-proxy: Node, MCP Streamable HTTP, a session per connection."""

    name: ClassVar[str] = "mcp-proxy 6.7.19 (npm)"
    pairs: ClassVar[tuple[Pair, ...]] = (NATIVE_LEGACY,)
    program: Path
    server: Server = field(init=False)
    port: int = field(factory=free_port, init=False)

    def start(self, folder: Path) -> None:
        modules = install_npm("mcp-proxy", "6.7.19")
        flags = ["--host", "127.0.0.1", "--port", str(self.port), "--server", "stream"]
        argv: list[str | Path] = ["node", modules / ".bin" / "mcp-proxy", *flags, "--", self.program]
        self.server = Server.start(argv, env=_node_environment(folder), folder=folder, name="npm-mcp-proxy")
        self.server.wait_until(lambda: clients.open_session(self.port, "/mcp") is not None)

    def requests(self, connections: int) -> list[bytes]:
        return clients.requests(Era.LEGACY, self.port, "/mcp", connections)


@define(eq=False)
class PypiMcpProxy:
    """PyPI mcp-proxy: Python SDK and uvicorn, MCP Streamable HTTP, a session per connection."""

    name: ClassVar[str] = "mcp-proxy 0.13.0 (PyPI)"
    pairs: ClassVar[tuple[Pair, ...]] = (NATIVE_LEGACY,)
    program: Path
    server: Server = field(init=False)
    port: int = field(factory=free_port, init=False)

    def start(self, folder: Path) -> None:
        environ = install_pypi("mcp-proxy", "0.13.0")
        flags = ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "ERROR"]
        argv: list[str | Path] = [
            environ / "bin" / "mcp-proxy",
            *flags,
            "--named-server-config",
            _write_config(folder, self.program),
        ]
        self.server = Server.start(argv, env=environment(folder), folder=folder, name="pypi-mcp-proxy")
        self.server.wait_until(lambda: clients.open_session(self.port, "/servers/bench/mcp") is not None)

    def requests(self, connections: int) -> list[bytes]:
        return clients.requests(Era.LEGACY, self.port, "/servers/bench/mcp", connections)


def _write_config(folder: Path, program: Path) -> Path:
    path = folder / "servers.json"
    path.write_text(json.dumps({"mcpServers": {"bench": {"command": str(program), "args": []}}}))
    return path


def _node_environment(folder: Path) -> Mapping[str, str]:
    """Peers on Node listen on loopback alone and look nothing up outside; see native/loopback.cjs."""
    return environment(folder) | {"NODE_OPTIONS": f"--require={HERE / 'native' / 'loopback.cjs'}"}
