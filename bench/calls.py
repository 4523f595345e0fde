"""Calls per second, latency and CPU: every gateway beside the others and beside raw stdio, interleaved.

The repeats are the outermost loop, so a slow drift of the machine hits all alike. A stretch during which others took
much of the CPU is tried again, and the quietest try counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from bench import machine
from bench.gateways import Gateway, all_pids, own_pids
from bench.programs import Native, load_program
from bench.results import CONNECTIONS, RAW, Results

WARM_UP_S = 2.0
"""Before anything counts: for compilers that work while the program runs, and for caches."""
RUN_MARGIN_S = 30.0
"""Beyond its own time, for a load program whose gateway answers no more."""
TRIES = 3


@frozen
class Stretch:
    """One load program run to its end."""

    result: dict[str, Any]
    gateway_s: float
    noise: float
    """Cores that others took."""


@frozen(kw_only=True)
class Calls:
    """Measure calls. `seconds` per stretch; retries end at `deadline` (monotonic)."""

    native: Native
    folder: Path
    gateways: Sequence[Gateway]
    seconds: float
    repeats: int
    patience_s: float
    deadline: float

    def run(self, results: Results) -> None:
        commands = {(each.name, c): self._command(each, c, self.seconds) for each in self.gateways for c in CONNECTIONS}
        commands |= {(RAW, c): self._raw(c) for c in CONNECTIONS}
        for gateway in self.gateways:
            warm_up = self._command(gateway, 16, min(WARM_UP_S, self.seconds * 2))
            with load_program(warm_up, RUN_MARGIN_S) as run:
                run()
        targets: list[tuple[str, Gateway | None]] = [(each.name, each) for each in self.gateways] + [(RAW, None)]
        for repeat in range(self.repeats):
            turn = repeat % len(targets)
            for c in CONNECTIONS:
                for name, target in targets[turn:] + targets[:turn]:
                    _note(results, name, c, target, self._quietest(commands[name, c], target))
        for gateway in self.gateways:
            results.add("rss", gateway.name, machine.rss_mb(own_pids(gateway)))
            results.add("rss main", gateway.name, machine.rss_mb([gateway.server.pid]))

    def _command(self, gateway: Gateway, connections: int, seconds: float) -> list[str | Path]:
        path = self.folder / f"requests-{gateway.port}-{connections}"
        path.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in gateway.requests(connections)))
        return [self.native.calls, str(gateway.port), str(seconds), str(connections), path]

    def _raw(self, depth: int) -> list[str | Path]:
        program = self.gateways[0].program
        return [self.native.pipe, str(self.seconds), str(depth), program]

    def _quietest(self, command: list[str | Path], gateway: Gateway | None) -> Stretch:
        best: Stretch | None = None
        for _ in range(TRIES):
            stretch = self._stretch(command, gateway)
            if best is None or stretch.noise < best.noise:
                best = stretch
            if best.noise < machine.QUIET_CORES or time.monotonic() > self.deadline:
                break
        assert best is not None
        return best

    def _stretch(self, command: list[str | Path], gateway: Gateway | None) -> Stretch:
        everything = [pid for each in self.gateways for pid in all_pids(each)]
        machine.wait_quiet(everything, self.patience_s)
        with load_program(command, self.seconds + RUN_MARGIN_S) as run:
            own = own_pids(gateway) if gateway is not None else []
            own_before, all_before = machine.cpu_of(own), machine.cpu_of(everything)
            busy, began = machine.busy_s(), time.monotonic()
            result = run()
            took = time.monotonic() - began
            ours = machine.cpu_since(all_before, machine.cpu_of(everything)) + result["cpu_s"]
            others = machine.busy_s() - busy - ours
            return Stretch(result, machine.cpu_since(own_before, machine.cpu_of(own)), max(0.0, others / took))


def _note(results: Results, name: str, c: int, gateway: Gateway | None, stretch: Stretch) -> None:
    result = stretch.result
    rate = result["calls"] / result["seconds"]
    results.add(f"rate {c}", name, rate)
    results.add("errors", name, result["errors"])
    if result["calls"]:
        results.add(f"p50 {c}", name, result["p50_ms"])
        results.add(f"p99 {c}", name, result["p99_ms"])
        if gateway is not None:
            results.add(f"cpu {c}", name, stretch.gateway_s * 1000 / result["calls"])
    results.noise.append(stretch.noise)
    if gateway is not None:
        results.load.append(result["cpu_s"] / result["seconds"])
    print(f"{name:24} {c:3} {rate:10,.0f}/s  others {stretch.noise:.2f} cores", file=sys.stderr)
