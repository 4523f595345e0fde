"""How long a deploy takes to its first result, and what an instance costs the control plane's memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from bench import clients, machine, rest
from bench.gateways import own_pids
from bench.results import CORRAL, RAW, Results

if TYPE_CHECKING:
    from bench.corral import Corral

INSTANCES = 50
SETTLE_S = 2.0
"""After the last deploy: two samples of every instance, and the journal's next writes."""
Call = tuple[str, Mapping[str, Any]]
"""Method and parameters."""


def measure_memory(corral: Corral, results: Results) -> None:
    """Let the control plane grow from one instance to many, and shrink again. It must be freshly started."""
    time.sleep(SETTLE_S)
    before = machine.rss_mb([corral.server.pid])
    added = [corral.deploy(f"many-{number}", [str(corral.program)]) for number in range(INSTANCES - 1)]
    for instance in added:
        corral.call(instance, "tools/call", rest.echo_params("hello"))
    time.sleep(SETTLE_S)
    after = machine.rss_mb([corral.server.pid])
    results.add("instance", CORRAL, (after - before) / len(added))
    for instance in added:
        corral.remove(instance)


@frozen(kw_only=True)
class Deploys:
    """Deploy a command that has run before and call it; beside it, the bare command over its pipes."""

    row: str
    argv: Sequence[str]
    env: Mapping[str, str]
    call: Call
    repeats: int
    limit_s: float
    patience_s: float

    def run(self, corral: Corral, results: Results) -> None:
        name = self.row.replace(" ", "-")
        _deploy_and_call(corral, name, self)
        for number in machine.paced(self.repeats, self.limit_s):
            machine.wait_quiet(own_pids(corral), self.patience_s)
            results.add(self.row, CORRAL, _deploy_and_call(corral, f"{name}-{number}", self) * 1000)
            env = {"PATH": os.environ.get("PATH", os.defpath), **self.env}
            results.add(self.row, RAW, start_and_call(self.argv, env, self.call) * 1000)


def _deploy_and_call(corral: Corral, name: str, what: Deploys) -> float:
    began = time.perf_counter()
    instance = corral.deploy(name, list(what.argv), what.env)
    corral.call(instance, *what.call)
    took = time.perf_counter() - began
    corral.remove(instance)
    return took


def start_and_call(argv: Sequence[str], env: Mapping[str, str], call: Call) -> float:
    """Seconds from the start of a command to its first result, over its pipes; `env` is its whole environment."""
    method, params = call
    began = time.perf_counter()
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(env),
        bufsize=0,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        lines = child.stdout
        for message in (clients.HELLO, clients.THANKS, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}):
            child.stdin.write(rest.encode(message) + b"\n")
            if "id" in message:
                while json.loads(_line(lines)).get("id") != message["id"]:
                    pass
        took = time.perf_counter() - began
        child.stdin.close()
        child.kill()
    return took


def _line(stream: Any) -> bytes:
    """Read one line of an unbuffered pipe."""
    line = bytearray()
    while not line.endswith(b"\n"):
        line += stream.read(65536) or _ended()
    return bytes(line)


def _ended() -> bytes:
    raise EOFError("the server ended")


def memory_server(modules: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The npm memory server as a command, from a copy that every user can read, and what it needs of the environment."""
    own = folder / "memory" / "node_modules"
    shutil.copytree(modules, own, symlinks=True)
    script = own / "@modelcontextprotocol" / "server-memory" / "dist" / "index.js"
    return ["node", str(script)], {"MEMORY_FILE_PATH": "/tmp/bench-memory.jsonl"}  # read, found missing, never written
