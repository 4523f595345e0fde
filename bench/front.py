"""What nginx costs in front of Corral, and what its two pools of connections are for.

The same calls straight to Corral, through `nginx/` as it is shipped, and through one pool for everything; in turns, of one
control plane. Others use the API meanwhile, the same way, as they do wherever people work: what that does to connections
which calls share with them is what two pools are for.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bench import machine, rest
from bench.gateways import Missing
from bench.programs import HERE, Native, Server, free_port, load_program
from bench.results import CONNECTIONS, CORRAL, DIRECT, FRONTS, NGINX, ONE_POOL, Results

if TYPE_CHECKING:
    from bench.corral import Corral

SOURCE = HERE.parent / "nginx"
CROWD = 64
"""Who look at something else before each stretch, all at once."""
LOOKS_PER_S = 20
"""Of one who goes on with that."""
WARM_UP_S = 2.0
"""Before anything counts: connections are opened."""
RUN_MARGIN_S = 30.0
RAISED = (
    (r"rate=\d+r/[sm]", "rate=1000000r/s"),
    (r"burst=\d+", "burst=100000"),
    (r"limit_conn open \d+", "limit_conn open 10000"),
)
"""The limits stay on, out of the way, as Corral's do."""


@define(eq=False)
class Front:
    """An nginx with the files of `nginx/`; with `one_pool`, everything goes through the pool for everything."""

    one_pool: bool
    port: int = field(factory=free_port, init=False)
    server: Server = field(init=False)

    def start(self, folder: Path, corral: Corral) -> None:
        """Start it before `corral`.

        Raises:
            Missing: there is no nginx here.
        """
        program = shutil.which("nginx")
        if program is None:
            raise Missing("no nginx on PATH")
        files = folder / f"nginx-{self.port}"
        shutil.copytree(SOURCE, files)
        (files / "tmp").mkdir()
        (files / "servers.conf").write_text(f"server 127.0.0.1:{corral.port} max_fails=2 fail_timeout=5s;\n")
        for path in files.glob("*.conf"):
            path.write_text(self._changed(path.read_text(), files))
        argv = [program, "-e", "stderr", "-c", str(files / "nginx.conf"), "-g", "daemon off;"]
        self.server = Server.start(argv, env={}, folder=files, name="nginx")
        self.server.wait_until(lambda: rest.ask(self.port, "GET", "/readyz").status == 200)

    def _changed(self, text: str, files: Path) -> str:
        text = text.replace("/tmp/", f"{files}/tmp/").replace("listen 8080 ", f"listen 127.0.0.1:{self.port} ")
        for pattern, value in RAISED:
            text = re.sub(pattern, value, text)
        return text.replace('"plain|" calls;', "").replace("keepalive 32;", "keepalive 64;") if self.one_pool else text


@frozen
class Way:
    """One of `FRONTS`, and the port where it begins."""

    name: str
    port: int


@frozen
class Stretch:
    """One load program run to its end, and what the hot lane had of it."""

    result: dict[str, Any]
    hot: float
    noise: float
    """Cores that others took."""


@frozen(kw_only=True)
class Fronts:
    """Measure them. `seconds` per stretch; no further round begins after `limit_s`; the quieter half of them counts."""

    corral: Corral
    native: Native
    folder: Path
    seconds: float
    limit_s: float
    patience_s: float
    """The longest wait for a quiet machine, before each stretch."""
    servers: list[Server] = field(factory=list, init=False)

    def run(self, results: Results) -> None:
        """Each way at each number of connections, in turns."""
        with ExitStack() as stack:
            ways = self._open(stack)
            for way in ways:
                self._measure(way, CONNECTIONS[-1], WARM_UP_S)
            found: dict[tuple[str, int], list[Stretch]] = {}
            deadline = time.monotonic() + self.limit_s
            while not found or time.monotonic() < deadline:
                for c in CONNECTIONS:
                    for way in ways:
                        found.setdefault((way.name, c), []).append(self._measure(way, c, self.seconds))
                ways = ways[1:] + ways[:1]
        for (name, c), stretches in found.items():
            quiet = sorted(stretches, key=lambda stretch: stretch.noise)[: (len(stretches) + 1) // 2]
            for stretch in quiet:
                _note(results, name, c, stretch)
        _compare(results)

    def _open(self, stack: ExitStack) -> list[Way]:
        ways = [Way(DIRECT, self.corral.port)]
        self.servers.append(self.corral.server)
        for name in (NGINX, ONE_POOL):
            front = Front(one_pool=name == ONE_POOL)
            front.start(self.folder, self.corral)
            stack.callback(front.server.stop)
            self.servers.append(front.server)
            ways.append(Way(name, front.port))
        return ways

    def _measure(self, way: Way, connections: int, seconds: float) -> Stretch:
        path = self.folder / f"requests-{way.name.replace(' ', '-')}-{connections}"
        requests = self.corral.requests(connections)
        path.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in requests))
        argv: list[str | Path] = [self.native.calls, str(way.port), str(seconds), str(connections), path]
        ours = [process.pid for server in self.servers for process in machine.tree(server.pid)] + [os.getpid()]
        machine.wait_quiet(ours, self.patience_s)
        with self._company(way.port), load_program(argv, seconds + RUN_MARGIN_S) as run:
            hot, cpu, busy, began = self._hot(), machine.cpu_of(ours), machine.busy_s(), time.monotonic()
            result = run()
            took = time.monotonic() - began
            used = machine.cpu_since(cpu, machine.cpu_of(ours)) + result["cpu_s"]
            others = machine.busy_s() - busy - used
            return Stretch(result, self._hot() - hot, max(0.0, others / took))

    @contextmanager
    def _company(self, port: int) -> Iterator[None]:
        """Others who use the API: many at once before, one all the while."""
        crowd = [threading.Thread(target=self._look, args=(port,), daemon=True) for _ in range(CROWD)]
        for each in crowd:
            each.start()
        for each in crowd:
            each.join(rest.TIMEOUT_S)
        enough = threading.Event()

        def go_on() -> None:
            while not enough.wait(1 / LOOKS_PER_S):
                self._look(port)

        one = threading.Thread(target=go_on, daemon=True)
        one.start()
        try:
            yield
        finally:
            enough.set()
            one.join(rest.TIMEOUT_S)

    def _look(self, port: int) -> None:
        rest.ask(port, "GET", "/stats", fields=self.corral.fields)

    def _hot(self) -> float:
        """How many calls the hot lane has answered so far."""
        text = rest.ask(self.corral.port, "GET", "/metrics", fields=self.corral.fields).body.decode()
        found = re.search(r"^corral_http_hot_requests_total (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def _note(results: Results, name: str, c: int, stretch: Stretch) -> None:
    result = stretch.result
    results.noise.append(stretch.noise)
    results.load.append(result["cpu_s"] / result["seconds"])
    results.add("errors", CORRAL, result["errors"])
    if result["calls"]:
        results.add(f"front {name} rate {c}", CORRAL, result["calls"] / result["seconds"])
        results.add(f"front {name} p50 {c}", CORRAL, result["p50_ms"])
        results.add(f"front {name} hot", CORRAL, min(1.0, stretch.hot / result["calls"]))


def _compare(results: Results) -> None:
    """Set every way against the one straight to Corral."""
    for key in (f"{what} {c}" for c in CONNECTIONS for what in ("rate", "p50")):
        direct = results.value(f"front {DIRECT} {key}", CORRAL)
        for name in FRONTS:
            mine = results.value(f"front {name} {key}", CORRAL)
            if mine and direct and name != DIRECT:
                results.add(f"front {name} share {key}", CORRAL, mine / direct)
