"""Calls per second, latency and CPU: every gateway beside the others and beside raw stdio, interleaved.

The rounds are the outermost loop, so a slow drift of the machine hits all alike. Rounds go on until every cell has
enough stretches during which others left the machine alone, or until the time is up; then each cell keeps its quietest
ones. What decides is what others did, never the result.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bench import machine
from bench.clients import PAIRS
from bench.gateways import Gateway, all_pids, own_pids
from bench.programs import Native, load_program
from bench.results import CALLS, CONNECTIONS, RAW, Results, through

if TYPE_CHECKING:
    from bench.corral import Corral

WARM_UP_S = 2.0
"""Before anything counts: for compilers that work while the program runs, and for caches."""
RUN_MARGIN_S = 30.0
"""Beyond its own time, for a load program whose gateway answers no more."""


@frozen
class Stretch:
    """One load program run to its end."""

    result: dict[str, Any]
    gateway_s: float
    noise: float
    """Cores that others took."""


@frozen
class Target:
    """One way to call a gateway: it counts for each of these rows. `requests` makes one for each connection."""

    rows: tuple[str, ...]
    gateway: Gateway
    requests: Callable[[int], list[bytes]]


def targets(gateways: Sequence[Gateway]) -> list[Target]:
    """What each gateway is mostly called by."""
    return [Target((CALLS, *map(through, each.pairs)), each, each.requests) for each in gateways]


def endpoint_targets(corral: Corral) -> list[Target]:
    """Corral's MCP endpoint, for clients and servers of both eras."""
    return [Target((through(pair),), corral, partial(corral.endpoint_requests, pair)) for pair in PAIRS]


@define(eq=False)
class Cell:
    """One target at one number of connections. `gateway` is None for raw stdio."""

    rows: tuple[str, ...]
    name: str
    connections: int
    gateway: Gateway | None
    command: list[str | Path]
    stretches: list[Stretch] = field(factory=list, init=False)

    def is_settled(self, repeats: int) -> bool:
        """Whether it has been measured often enough in quiet."""
        return sum(stretch.noise < machine.QUIET_CORES for stretch in self.stretches) >= repeats

    def note(self, results: Results, repeats: int) -> None:
        """Hand in the quietest stretches; wrong answers count wherever they came."""
        c, name = self.connections, self.name
        for stretch in self.stretches:
            results.add("errors", name, stretch.result["errors"])
        for stretch in sorted(self.stretches, key=lambda stretch: stretch.noise)[:repeats]:
            result = stretch.result
            results.noise.append(stretch.noise)
            if self.gateway is not None:
                results.load.append(result["cpu_s"] / result["seconds"])
            for row in self.rows:
                results.add(f"{row} rate {c}", name, result["calls"] / result["seconds"])
                if not result["calls"]:
                    continue
                results.add(f"{row} p50 {c}", name, result["p50_ms"])
                results.add(f"{row} p99 {c}", name, result["p99_ms"])
                if self.gateway is not None:
                    results.add(f"{row} cpu {c}", name, stretch.gateway_s * 1000 / result["calls"])


@frozen(kw_only=True)
class Calls:
    """Measure calls. `seconds` per stretch; the last round begins before `deadline` (monotonic)."""

    native: Native
    folder: Path
    targets: Sequence[Target]
    raw: Path | None
    """The server to drive over its own pipes as well."""
    seconds: float
    repeats: int
    patience_s: float
    deadline: float

    def run(self, results: Results) -> None:
        for target in self.targets:
            with load_program(self._command(target, 16, min(WARM_UP_S, self.seconds * 2)), RUN_MARGIN_S) as run:
                run()
        cells = [cell for c in CONNECTIONS for cell in self._cells(c)]
        rounds = 0
        while (todo := [cell for cell in cells if not cell.is_settled(self.repeats)]) and (
            rounds == 0 or time.monotonic() < self.deadline
        ):
            turn = rounds % len(todo)
            for cell in todo[turn:] + todo[:turn]:
                stretch = self._measure(cell)
                cell.stretches.append(stretch)
                rate = stretch.result["calls"] / stretch.result["seconds"]
                what = f"{cell.name:24} {cell.rows[0]:16} {cell.connections:3}"
                print(f"{what} {rate:10,.0f}/s  others {stretch.noise:.2f}", file=sys.stderr)
            rounds += 1
        for cell in cells:
            cell.note(results, self.repeats)
        for gateway in self._gateways:
            results.add("rss", gateway.name, machine.rss_mb(own_pids(gateway)))
            results.add("rss main", gateway.name, machine.rss_mb([gateway.server.pid]))

    @property
    def _gateways(self) -> list[Gateway]:
        """Each once."""
        return list({id(target.gateway): target.gateway for target in self.targets}.values())

    def _cells(self, c: int) -> list[Cell]:
        cells = [
            Cell(each.rows, each.gateway.name, c, each.gateway, self._command(each, c, self.seconds))
            for each in self.targets
        ]
        if self.raw is None:
            return cells
        return [*cells, Cell((CALLS,), RAW, c, None, [self.native.pipe, str(self.seconds), str(c), self.raw])]

    def _command(self, target: Target, connections: int, seconds: float) -> list[str | Path]:
        name = f"requests-{target.gateway.port}-{self.targets.index(target)}-{connections}"
        path = self.folder / name
        path.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in target.requests(connections)))
        return [self.native.calls, str(target.gateway.port), str(seconds), str(connections), path]

    def _measure(self, cell: Cell) -> Stretch:
        everything = [pid for each in self._gateways for pid in all_pids(each)]
        own = own_pids(cell.gateway) if cell.gateway is not None else []
        machine.wait_quiet(everything, self.patience_s)
        with load_program(cell.command, self.seconds + RUN_MARGIN_S) as run:
            own_before, all_before = machine.cpu_of(own), machine.cpu_of(everything)
            busy, began = machine.busy_s(), time.monotonic()
            result = run()
            took = time.monotonic() - began
            ours = machine.cpu_since(all_before, machine.cpu_of(everything)) + result["cpu_s"]
            others = machine.busy_s() - busy - ours
            return Stretch(result, machine.cpu_since(own_before, machine.cpu_of(own)), max(0.0, others / took))
