"""The stack as an operator runs it: a checkout, a copy of `.env.example`, and docker compose. Driven from outside, through nginx."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from attrs import define, field

from tests.e2e.plane import ROOT, text_of
from tests.stack.engine import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.stack.engine import Engine

PROJECT = "corral-stack"
BACKEND = "mcp-saas-backend"
SERVICES = ("nginx", BACKEND, "postgres", "redis")
PROXY = ("10.213.77.1", 3128)
"""As compose.test.yaml has it."""
FILES = ("docker-compose.yml", "compose.override.yaml", "compose.test.yaml")
FILES_1 = ("docker-compose.yml", "compose.test.yaml")
"""What version 1 reads."""
BUILD_LIMIT_S = 600
UP_LIMIT_S = 180
"""Measured 25 s; the first start makes the database."""
ANSWER_LIMIT_S = 330
"""A deploy may be waited for 300 s."""
PAUSE_S = 0.25
"""Between two looks: nginx lets 10 requests a second through."""


def until(condition: Callable[[], Any], within_s: float, what: str) -> Any:
    """Look until the condition holds, which may fail to connect meanwhile; returns what it returned."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if value := condition():
                return value
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(PAUSE_S)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@define(slots=False)
class Stack:
    """One checkout on one engine."""

    engine: Engine
    folder: Path
    """The checkout; the operator's own settings are in `home` beside it."""
    port: int = field(factory=free_port)

    # -- what `tests.tui.tmux` wants to know

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        return self.folder.parent / "home"

    @cached_property
    def token(self) -> str:
        return self.inside("cat", "/run/corral/admin-token").strip()

    # -- compose

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            **self.engine.environment,
            "COMPOSE_PROJECT_NAME": PROJECT,
            "HTTP_PORT": str(self.port),
        }

    def compose(self, *words: str, within_s: float = UP_LIMIT_S, given: str = "") -> str:
        """Run `docker compose`, which must succeed; returns what it printed."""
        environment = {**self.environment, "COMPOSE_FILE": ":".join(FILES)}
        return run(["docker", "compose", *words], environment, within_s=within_s, cwd=self.folder, given=given)

    def compose_1(self, *words: str) -> str:
        """Run `docker-compose`, the program of version 1."""
        environment = {**self.environment, "COMPOSE_FILE": ":".join(FILES_1)}
        return run(["docker-compose", *words], environment, within_s=UP_LIMIT_S, cwd=self.folder)

    def up(self) -> float:
        """Bring it up and wait until all is healthy; returns how many seconds that took."""
        began = time.monotonic()
        try:
            self.compose("up", "--detach", "--wait")
        except AssertionError as failed:
            raise AssertionError(f"{failed}\n{self.compose('logs', '--tail', '30')}") from None
        return time.monotonic() - began

    def inside(self, *command: str, service: str = BACKEND) -> str:
        """Run a command in a service's container."""
        return self.compose("exec", "--no-TTY", service, *command)

    def container(self, service: str) -> str:
        """The id of a service's container."""
        label = f"label=com.docker.compose.service={service}"
        return self.engine.docker("ps", "--all", "--quiet", "--no-trunc", "--filter", label).strip()

    def about(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        found: dict[str, Any] = json.loads(self.engine.docker("inspect", self.container(service)))[0]
        return found

    def processes(self, service: str, name: str) -> list[str]:
        """What /proc has under a name for each process in a service's container; some end while one looks."""
        listed = self.engine.docker("top", self.container(service), "-eo", "pid")
        found = []
        for pid in listed.split()[1:]:
            with suppress(FileNotFoundError, ProcessLookupError):
                found.append(Path(f"/proc/{pid}/{name}").read_text(errors="replace"))
        assert found, f"no process in {service}"
        return found

    # -- the API, through nginx

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request on a connection of its own."""
        options = {"headers": {}, **options}
        options["headers"] = {"Authorization": f"Bearer {self.token}", **options["headers"]}
        with httpx.Client(base_url=self.url, timeout=ANSWER_LIMIT_S, trust_env=False) as client:
            return client.request(method, path, **options)

    def get(self, path: str) -> Any:
        """The JSON document at a path, which must be there."""
        answer = self.request("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def health(self) -> dict[str, Any]:
        """What anybody may ask; empty while it cannot be answered."""
        answer = httpx.get(f"{self.url}/health", timeout=10, trust_env=False)
        document: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        return document

    def deploy(self, name: str, *args: str) -> dict[str, Any]:
        """Deploy a package from npm; it must come to run."""
        spec = {"name": name, "source_type": "mcp_config", "mcp_config": {"command": "npx", "args": ["-y", *args]}}
        answer = self.request("POST", "/api/v2/deploy?wait=300", json=spec)
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def execute(self, name: str, tool: str, **arguments: Any) -> httpx.Response:
        """Call a tool, whatever comes of it."""
        call = {"method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        return self.request("POST", f"/mcp/{name}/execute", json=call)

    def tool(self, name: str, tool: str, **arguments: Any) -> str:
        """Call a tool, which must answer; returns its text."""
        answer = self.execute(name, tool, **arguments)
        assert answer.status_code == 200, answer.text
        return text_of(answer)

    # -- the command line of the host's checkout

    def corral(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run `corral` as a person on this machine would: with nothing of the stack's but what it is told."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return subprocess.run(
            [sys.executable, "-P", "-m", "controlplane.cli", *words],
            env={**kept, "HOME": str(self.home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            cwd=self.home,
            input=given,
            capture_output=True,
            text=True,
            timeout=UP_LIMIT_S,
            check=False,
        )


def checked_out(folder: Path) -> Path:
    """Copy what git has of this checkout, changes included, and do what the quick start says."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    target = folder / "checkout"
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    shutil.copyfile(target / ".env.example", target / ".env")
    shutil.copyfile(Path(__file__).with_name("compose.test.yaml"), target / "compose.test.yaml")
    (folder / "home").mkdir()
    return target
