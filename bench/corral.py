"""Corral as it is run: auth, limits, metrics, journal and log on, its own Postgres and Valkey, a home of its own."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from attrs import define, field

from bench import clients, rest
from bench.clients import Era, Pair
from bench.gateways import environment
from bench.programs import HERE, BenchError, Server, free_port

ENTER_ONLY = 0o711
"""Instances run as users of their own and must get at what is theirs."""
RAISED = {"RATE_LIMIT_RPS": "1000000", "DEPLOYS_PER_MINUTE": "100000", "MAX_INSTANCES_PER_USER": "500"}
"""The limits stay on, out of the way: the defaults are 100 calls a second and token, 10 deploys a minute, 10 instances."""
START_S = 20.0
"""The longest wait for a deploy."""


@define(eq=False)
class Corral:
    """A control plane with one instance, `bench`, of the MCP server, and one of it as a server of the modern era."""

    name: ClassVar[str] = "Corral"
    pairs: ClassVar[tuple[Pair, ...]] = ()
    program: Path
    settings: Mapping[str, str] = field(factory=dict)
    """More of its environment."""
    server: Server = field(init=False)
    port: int = field(factory=free_port, init=False)
    token: str = field(factory=lambda: secrets.token_urlsafe(32), init=False, repr=False)
    instance: str = field(default="", init=False)
    modern: str = field(default="", init=False)

    def start(self, folder: Path) -> None:
        home = folder / f"home-{self.port}"
        home.mkdir(mode=ENTER_ONLY)
        home.chmod(ENTER_ONLY)
        self.serve(folder)
        self.instance = self.deploy("bench", [str(self.program)])
        self.call(self.instance, "tools/call", rest.echo_params("hello"))

    def serve(self, folder: Path, more: Mapping[str, str] | None = None) -> None:
        """Start the control plane alone, on the home that is there; `more` goes into its environment."""
        home = folder / f"home-{self.port}"
        own = {"CORRAL_HOME": str(home), "HOST": "127.0.0.1", "PORT": str(self.port), "ADMIN_TOKEN": self.token}
        own["ALLOWED_MOUNTS"] = str(self.program.parent)
        env = (
            environment(folder)
            | own
            | RAISED
            | {"PYTHONPATH": str(HERE.parent)}
            | dict(self.settings)
            | dict(more or {})
        )
        argv = [sys.executable, "-m", "controlplane"]
        self.server = Server.start(argv, env=env, folder=folder, name=f"corral-{self.port}")
        self.server.wait_until(lambda: rest.ask(self.port, "GET", "/readyz").status == 200)

    def requests(self, connections: int) -> list[bytes]:
        """Through `execute`."""
        body = {"method": "tools/call", "params": rest.echo_params(rest.MARK)}
        return [self.request("POST", f"/mcp/{self.instance}/execute", body)] * connections

    def endpoint_requests(self, pair: Pair, connections: int) -> list[bytes]:
        """Through `/mcp/{id}`; the server of the modern era starts when it is first wanted."""
        if pair.server is Era.MODERN and not self.modern:
            self.modern = self.deploy("modern", [str(self.program), "modern"])
        instance = self.modern if pair.server is Era.MODERN else self.instance
        return clients.requests(pair.client, self.port, f"/mcp/{instance}", connections, self.fields)

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """A request with the token, for the load programs."""
        return rest.request(self.port, method, path, body, self.fields)

    def deploy(
        self,
        name: str,
        argv: list[str],
        env: Mapping[str, str] | None = None,
        *,
        limits: Mapping[str, float] | None = None,
        wait_s: float = START_S,
    ) -> str:
        """Start one more instance; returns its id once it runs, or at once where nothing is to be waited for."""
        config = {"command": argv[0], "args": argv[1:], "env": dict(env or {})}
        body = {"name": name, "source_type": "mcp_config", "mcp_config": config, "mounts": self._shown(argv)}
        if limits is not None:
            body["limits"] = dict(limits)
        status = 201 if wait_s else 202
        return str(self.ask("POST", f"/api/v2/deploy?wait={wait_s:g}", body, status)["instance_id"])

    def _shown(self, argv: list[str]) -> list[dict[str, str]]:
        """What a command needs of this run's folder, which is hidden from instances otherwise."""
        run = self.program.parent
        inside = {Path(word).relative_to(run).parts[0] for word in argv if Path(word).is_relative_to(run)}
        return [{"source": str(run / name), "target": str(run / name)} for name in sorted(inside)]

    def call(self, instance: str, method: str, params: Any) -> Any:
        """One call; returns its result."""
        return self.ask("POST", f"/mcp/{instance}/execute", {"method": method, "params": params})["result"]

    def remove(self, instance: str) -> None:
        """Stop and remove an instance; returns once it is gone."""
        self.ask("DELETE", f"/instances/{instance}")

    def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """One request to the API.

        Raises:
            BenchError: another status came back.
        """
        answer = rest.ask(self.port, method, path, body, self.fields)
        if answer.status != status:
            raise BenchError(f"{method} {path}: {answer.status} {answer.body.decode(errors='replace')[:600]}")
        return answer.json()

    @property
    def fields(self) -> dict[str, str]:
        """What every request needs."""
        return {"Authorization": f"Bearer {self.token}"}
