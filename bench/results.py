"""What a run found, and the one table of it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from attrs import define, field, frozen

from bench.clients import PAIRS, Pair

CORRAL = "Corral"
RAW = "raw stdio"
BY_HAND = "`npx -y`, `uvx` by hand"
DATATABLE = "Textual's DataTable"
CONNECTIONS = (1, 16, 64)
SUBSCRIBERS = (1, 100, 1000)
CALLS = "calls"
"""Rows of what a gateway is mostly called by: `execute`, REST, or MCP."""
SPAWNS = (
    ("process", "process"),
    ("confined", "confined"),
    ("namespaced", "namespaced without a network"),
    ("gated", "namespaced with its gate"),
)
DIRECT = "direct"
NGINX = "nginx"
ONE_POOL = "one pool"
FRONTS = {
    DIRECT: "straight to Corral",
    NGINX: "through nginx",
    ONE_POOL: "through nginx with one pool for everything",
}
"""Ways to Corral, by key."""
UNTRACED = "off"
TRACED = {
    UNTRACED: "traces off",
    "passed": "traces off, with a client's context",
    "rare": "traces on, one in a hundred kept",
    "all": "traces on, all kept",
}
"""Ways to have a call traced, by key."""
NONE = "–"
FAULTS = "fault"
"""Rows of what a neighbour notices."""
UNDISTURBED = "none"
FAULT_LABELS = {
    UNDISTURBED: "undisturbed",
    "memory": "while another takes 3 GiB of memory",
    "children": "while 4 children of another take 600 MiB each",
    "leak": "while another leaks 60 MiB/s",
    "fork": "while another forks up to 1,500 times",
    "disk": "while another fills the disk",
    "files": "while another opens 10,000 files",
    "spin": "while another spins in 8 threads",
    "flood": "while another prints 100 MiB/s",
    "hang": "while another hangs",
}
"""What goes on, by key; `bench.faults` has the same keys."""


def through(pair: Pair) -> str:
    """Rows of calls through an MCP endpoint."""
    return f"mcp {pair.name}"


@frozen
class Row:
    """One measure. `better` says which way is better, "more" or "less"; with it, Corral is set against the best peer."""

    key: str
    label: str
    better: str = ""


def rows() -> list[Row]:
    """Every measure, in the order of the table."""
    found = []
    for c in CONNECTIONS:
        at = _connections(c)
        found += [
            Row(f"{CALLS} rate {c}", f"calls/s, {at}", "more"),
            Row(f"{CALLS} p50 {c}", f"p50 ms, {at}", "less"),
            Row(f"{CALLS} p99 {c}", f"p99 ms, {at}", "less"),
            Row(f"{CALLS} cpu {c}", f"gateway CPU s per 1,000 calls, {at}", "less"),
        ]
    for pair in PAIRS:
        for c in CONNECTIONS:
            at = f"MCP {pair.name}, {_connections(c)}"
            found += [
                Row(f"{through(pair)} rate {c}", f"{at}: calls/s", "more"),
                Row(f"{through(pair)} p50 {c}", f"{at}: p50 ms", "less"),
            ]
    found += [
        Row("errors", "wrong or missing answers, in all"),
        Row("rss", "RSS of the gateway after load, MiB", "less"),
        Row("rss main", "of that, the process that takes the calls, MiB", "less"),
        Row("ready", "process start → first answer, s", "less"),
        Row("deploy echo", "deploy → first result, `echo`, ms"),
        Row("deploy memory", "deploy → first result, npm memory server, ms"),
        Row("instance", "memory per instance in the control plane (1 → 50), MiB"),
    ]
    for server in ("memory", "filesystem", "time", "git"):
        found += [
            Row(f"cold {server}", f"{server}: deploy → first result, nothing installed, s", "less"),
            Row(f"warm {server}", f"{server}: the same again, installed, s", "less"),
        ]
    found += [
        Row(
            "fleet",
            "restart of 100 `npx` instances, no network → all running, s; by hand: 100 starts one by one",
            "less",
        ),
        Row("fleet running", "of these, running"),
    ]
    for n in SUBSCRIBERS:
        at = "1 subscriber" if n == 1 else f"{n:,} subscribers"
        found += [
            Row(f"fan rate {n}", f"SSE, {at}: events/s delivered"),
            Row(f"fan last {n}", f"SSE, {at}: last has the last event after, ms"),
            Row(f"fan missing {n}", f"SSE, {at}: events missing"),
        ]
    for key, label in FAULT_LABELS.items():
        found += [
            Row(f"{FAULTS} p50 {key}", f"neighbour {label}: p50 ms"),
            Row(f"{FAULTS} p99 {key}", f"neighbour {label}: p99 ms"),
            Row(f"{FAULTS} ratio {key}", f"neighbour {label}: p99, of its p99 undisturbed just before"),
        ]
    fleet = "dashboard, 500 instances changing each second"
    return [
        *found,
        *spawn_rows(),
        *level_rows(),
        *front_rows(),
        *tracing_rows(),
        Row("dashboard p50", f"{fleet}: key → paint, p50 ms"),
        Row("dashboard p95", f"{fleet}: key → paint, p95 ms"),
        Row("dashboard cpu", f"{fleet}: CPU, % of a core", "less"),
        Row("dashboard half", "RSS of the dashboard after half an hour's worth of events (900,000), MiB"),
        Row("dashboard hour", "after an hour's worth, MiB"),
    ]


def spawn_rows() -> list[Row]:
    """From the request to the program's first answer, at each level; beside it the same program started plainly."""
    found = []
    for name, label in SPAWNS:
        at = f"spawn request → first answer, {label}"
        found += [
            Row(f"spawn {name} p50", f"{at}: p50 ms"),
            Row(f"spawn {name} p95", f"{at}: p95 ms"),
            Row(f"spawn {name} more", f"{at}: p50 above the plain start, ms"),
        ]
    return found


def level_rows() -> list[Row]:
    """Calls to instances of each level, of one run."""
    found = []
    for level in ("process", "confined", "namespaced"):
        found.append(Row(f"level p50 {level}", f"call of an instance at level {level}, 1 connection: p50 ms"))
        found.append(Row(f"level share {level}", "of that at level process"))
    return found


def tracing_rows() -> list[Row]:
    """Calls to Corral that are traced, or not, of one run."""
    found = []
    for c in (1, 16):
        for name, label in TRACED.items():
            found.append(Row(f"traced {name} rate {c}", f"{label}, {_connections(c)}: calls/s"))
            found.append(Row(f"traced {name} cpu {c}", f"{label}, {_connections(c)}: CPU s per 1,000 calls"))
            if name != UNTRACED:
                found.append(Row(f"traced {name} share {c}", "of that with traces off"))
    return found


def front_rows() -> list[Row]:
    """Calls to Corral with nginx in front of it, while somebody else uses the API."""
    found = []
    for c in CONNECTIONS:
        for name, label in FRONTS.items():
            at = f"{label}, {_connections(c)}"
            for what, unit in (("rate", "calls/s"), ("p50", "p50 ms")):
                found.append(Row(f"front {name} {what} {c}", f"{at}: {unit}"))
                if name != DIRECT:
                    found.append(Row(f"front {name} share {what} {c}", "of that straight to Corral"))
    found += [
        Row(f"front {name} hot", f"{label}: share of calls that the hot lane answered")
        for name, label in FRONTS.items()
    ]
    return found


def _connections(c: int) -> str:
    return "1 connection" if c == 1 else f"{c} connections"


@define
class Results:
    """Samples by row and column; `missing` has the reason for each target that could not be measured."""

    columns: list[str] = field(factory=lambda: [CORRAL])
    missing: dict[str, str] = field(factory=dict)
    noise: list[float] = field(factory=list)
    """Cores that others took during each stretch that counts."""
    load: list[float] = field(factory=list)
    """Cores that the load program itself took."""
    _samples: dict[tuple[str, str], list[float]] = field(factory=dict, init=False)

    def add(self, row: str, column: str, value: float) -> None:
        self._samples.setdefault((row, column), []).append(value)

    def samples(self, row: str, column: str) -> list[float]:
        return self._samples.get((row, column), [])

    def value(self, row: str, column: str) -> float | None:
        """The median; for what is counted, the sum."""
        samples = self.samples(row, column)
        if not samples:
            return None
        return sum(samples) if _is_counted(row) else median(samples)


def _is_counted(row: str) -> bool:
    return row == "errors" or row.startswith("fan missing")


def table(results: Results) -> str:
    """The results as one Markdown table: medians, and in parentheses the spread (max - min) / median."""
    shown = [row for row in rows() if any(results.samples(row.key, column) for column in results.columns)]
    lines = [
        _line(["measure", *results.columns, "Corral : best peer"]),
        _line(["---", *("---:" for _ in results.columns), "---:"]),
    ]
    for row in shown:
        cells = [_cell(results, row.key, column) for column in results.columns]
        lines.append(_line([row.label, *cells, _ratio(results, row)]))
    return "\n".join(lines)


def endpoint_table(results: Results) -> str:
    """Corral's MCP endpoint beside its `execute`, of the same run; empty where either was not measured."""
    lines = [
        _line(
            ["through `/mcp/{id}`, of `execute`", *(f"{what}, {c}" for c in CONNECTIONS for what in ("calls/s", "p50"))]
        ),
        _line(["---", *("---:" for _ in CONNECTIONS for _ in range(2))]),
    ]
    for pair in PAIRS:
        shares = [_share(results, through(pair), f"{what} {c}") for c in CONNECTIONS for what in ("rate", "p50")]
        if all(share is not None for share in shares):
            lines.append(_line([f"client {pair.client.value} → server {pair.server.value}", *map(str, shares)]))
    return "\n".join(lines) if len(lines) > 2 else ""


def _share(results: Results, rows: str, what: str) -> str | None:
    """Of the same measure with `execute`."""
    mine, execute = results.value(f"{rows} {what}", CORRAL), results.value(f"{CALLS} {what}", CORRAL)
    return f"{mine / execute:.0%}" if mine and execute else None


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(results: Results, row: str, column: str) -> str:
    value = results.value(row, column)
    if value is None:
        return "missing" if column in results.missing else NONE
    samples = results.samples(row, column)
    if _is_counted(row) or len(samples) == 1:
        return number(value)
    spread = (max(samples) - min(samples)) / value if value else 0.0
    return f"{number(value)} ({spread:.0%})"


def _ratio(results: Results, row: Row) -> str:
    """How many times better than the best peer: above 1 is for Corral, whichever way is better."""
    mine = results.value(row.key, CORRAL)
    peers = [results.value(row.key, column) for column in results.columns if column not in {CORRAL, RAW}]
    known = [value for value in peers if value]
    if not row.better or not mine or not known:
        return NONE
    best = max(known) if row.better == "more" else min(known)
    return f"{mine / best if row.better == 'more' else best / mine:.2f} ×"


def add_spawns(results: Results, took: Mapping[str, Sequence[float]]) -> None:
    """Add what `bench.spawning` found, in milliseconds: `plain` stands beside every level of the same run."""
    plain = took["plain"]
    for name, _label in SPAWNS:
        if name not in took:
            continue
        for column, samples in ((CORRAL, took[name]), (RAW, plain)):
            results.add(f"spawn {name} p50", column, median(samples))
            results.add(f"spawn {name} p95", column, quantile(samples, 0.95))
        results.add(f"spawn {name} more", CORRAL, median(took[name]) - median(plain))


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample that this share of them does not exceed."""
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share))]


def number(value: float) -> str:
    """Three significant digits, and whole numbers as they are."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    for limit, digits in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if abs(value) >= limit:
            return f"{value:.{digits}f}"
    return f"{value:.4f}"


def summary(results: Results) -> str:
    """What disturbed the run, and what is missing from it."""
    said = [
        _range("CPU taken by others during the stretches that count", results.noise),
        _range("by the load program", results.load),
        *(f"{name} is missing: {reason.splitlines()[0][:200]}" for name, reason in results.missing.items()),
    ]
    return "; ".join(said) + "."


def _range(what: str, cores: list[float]) -> str:
    return f"{what}: median {median(cores):.2f} cores, at most {max(cores):.2f}" if cores else f"{what}: not measured"
