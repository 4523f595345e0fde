"""What nginx costs in front of Corral, and what its two pools of connections are for.

The same calls straight to Corral, through `nginx/` as it is shipped, and through one pool for everything; in turns, of one
control plane. Others use the API meanwhile, the same way, as they do wherever people work: what that does to connections
which calls share with them is what two pools are for.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bench import rest
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


@frozen(kw_only=True)
class Fronts:
    """Measure them. `seconds` per stretch; no further round begins after `limit_s`."""

    corral: Corral
    native: Native
    folder: Path
    seconds: float
    limit_s: float

    def run(self, results: Results) -> None:
        """Each way at each number of connections, in turns."""
        with ExitStack() as stack:
            ways = self._open(stack)
            for way in ways:
                self._measure(way, CONNECTIONS[-1], WARM_UP_S)
            deadline = time.monotonic() + self.limit_s
            rounds = 0
            while rounds == 0 or time.monotonic() < deadline:
                turn = rounds % len(ways)
                for c in CONNECTIONS:
                    for way in ways[turn:] + ways[:turn]:
                        self._note(results, way, c)
                rounds += 1
        for key in (f"{what} {c}" for c in CONNECTIONS for what in ("rate", "p50")):
            direct = results.value(f"front {DIRECT} {key}", CORRAL)
            for name in FRONTS:
                mine = results.value(f"front {name} {key}", CORRAL)
                if mine and direct and name != DIRECT:
                    results.add(f"front {name} share {key}", CORRAL, mine / direct)

    def _open(self, stack: ExitStack) -> list[Way]:
        ways = [Way(DIRECT, self.corral.port)]
        for name in (NGINX, ONE_POOL):
            front = Front(one_pool=name == ONE_POOL)
            front.start(self.folder, self.corral)
            stack.callback(front.server.stop)
            ways.append(Way(name, front.port))
        return ways

    def _note(self, results: Results, way: Way, c: int) -> None:
        hot = self._hot()
        result = self._measure(way, c, self.seconds)
        results.add("errors", CORRAL, result["errors"])
        if result["calls"]:
            results.add(f"front {way.name} rate {c}", CORRAL, result["calls"] / result["seconds"])
            results.add(f"front {way.name} p50 {c}", CORRAL, result["p50_ms"])
            results.add(f"front {way.name} hot", CORRAL, min(1.0, (self._hot() - hot) / result["calls"]))

    def _measure(self, way: Way, connections: int, seconds: float) -> dict[str, Any]:
        path = self.folder / f"requests-{way.name.replace(' ', '-')}-{connections}"
        requests = self.corral.requests(connections)
        path.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in requests))
        argv: list[str | Path] = [self.native.calls, str(way.port), str(seconds), str(connections), path]
        with self._company(way.port), load_program(argv, seconds + RUN_MARGIN_S) as run:
            return run()

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
