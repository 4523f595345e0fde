"""What traces cost a call: off, off with a client's context to pass on, and on, for one trace in a hundred and for all.

A control plane each, all of them up at the same time and called in turns. What decides is the CPU time of a call, which
says the same on a machine that others use as well. Spans go to a receiver that throws them away,
in a process of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from attrs import define, frozen

from bench import rest
from bench.corral import Corral
from bench.programs import HERE, Native, Server, free_port, load_program
from bench.results import CORRAL, TRACED, UNTRACED, Results

CONNECTIONS = (1, 16)
CONTEXT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
WARM_UP_S = 1.0
RUN_MARGIN_S = 30.0


@define(eq=False)
class Sink:
    """A receiver of spans."""

    server: Server
    url: str

    @classmethod
    def start(cls, folder: Path) -> Sink:
        port = free_port()
        argv = [sys.executable, HERE / "sink.py", str(port)]
        server = Server.start(argv, env={}, folder=folder, name="sink")
        server.wait_until(lambda: rest.ask(port, "GET", "/").status == 200)
        return cls(server, f"http://127.0.0.1:{port}")


@frozen
class Way:
    """One of `results.TRACED`: a control plane, and what goes with each request to it."""

    name: str
    corral: Corral
    fields: Mapping[str, str]

    def cpu_s(self) -> float:
        """What the process that takes the calls has used so far, the thread that sends spans included."""
        times = psutil.Process(self.corral.server.pid).cpu_times()
        return float(times.user + times.system)

    def request(self) -> bytes:
        body = {"method": "tools/call", "params": rest.echo_params(rest.MARK)}
        path = f"/mcp/{self.corral.instance}/execute"
        return rest.request(self.corral.port, "POST", path, body, {**self.corral.fields, **self.fields})


@frozen(kw_only=True)
class Tracing:
    """Measure it. `seconds` per stretch; no further round begins after `limit_s`."""

    program: Path
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
            cost: dict[tuple[str, int], list[float]] = {}
            deadline = time.monotonic() + self.limit_s
            rounds = 0
            while rounds == 0 or time.monotonic() < deadline:
                turn = rounds % len(ways)
                for c in CONNECTIONS:
                    for way in ways[turn:] + ways[:turn]:
                        before = way.cpu_s()
                        result = self._measure(way, c, self.seconds)
                        spent = way.cpu_s() - before
                        results.add("errors", CORRAL, result["errors"])
                        results.add(f"traced {way.name} rate {c}", CORRAL, result["calls"] / result["seconds"])
                        cost.setdefault((way.name, c), []).append(1000 * spent / result["calls"])
                rounds += 1
        for (name, c), samples in cost.items():
            for sample in samples:
                results.add(f"traced {name} cpu {c}", CORRAL, sample)
            if name != UNTRACED:
                results.add(f"traced {name} share {c}", CORRAL, median(samples) / median(cost[UNTRACED, c]))

    def _open(self, stack: ExitStack) -> list[Way]:
        sink = Sink.start(self.folder)
        stack.callback(sink.server.stop)
        on = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url}
        rare = on | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
        planes = {UNTRACED: self._plane(stack, {}), "rare": self._plane(stack, rare), "all": self._plane(stack, on)}
        found = [Way(name, plane, {}) for name, plane in planes.items()]
        found.insert(1, Way("passed", planes[UNTRACED], CONTEXT))
        assert {way.name for way in found} == set(TRACED)
        return found

    def _plane(self, stack: ExitStack, settings: Mapping[str, str]) -> Corral:
        corral = Corral(self.program, settings)
        folder = self.folder / f"traced-{corral.port}"
        folder.mkdir(mode=0o711)
        stack.callback(lambda: corral.server.stop() if hasattr(corral, "server") else None)
        corral.start(folder)
        return corral

    def _measure(self, way: Way, connections: int, seconds: float) -> dict[str, Any]:
        request = way.request()
        path = self.folder / f"requests-{way.name}-{connections}"
        path.write_bytes((b"%d\n%b" % (len(request), request)) * connections)
        argv: list[str | Path] = [self.native.calls, str(way.corral.port), str(seconds), str(connections), path]
        with load_program(argv, seconds + RUN_MARGIN_S) as run:
            return run()
