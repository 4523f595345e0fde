"""What the host page says, as sections of named facts. Pure: documents in, clean text out.

The documents are `/health`, `/stats`, `/isolation`, `/runtimes` and `/cache`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.wire.text import clean
from controlplane.wire.units import count, duration, is_figure, mebibytes, millis, percent, plain_name
from tui.board.alerts import SERVICES
from tui.board.cells import Cell, Tone
from tui.board.facts import Fact, Section, bar
from tui.board.reading import mapping

Document = Mapping[str, Any]
MIB = 2**20
FOR_ADMINISTRATORS = "only administrators see this"
NEAR = 0.9
"""Share of memory, load or store from which it is worth a look."""
INSTALLS_SHOWN = 8
"""The ones used last; `corral cache ls` has all."""


def sections(
    health: Document, stats: Document, isolation: Document, runtimes: Document, cache: Document | None
) -> dict[str, Section]:
    """Every section by its name; `cache` is None for who may not see it."""
    own, host = mapping(stats.get("control_plane")), mapping(stats.get("host"))
    return {
        "control": control_plane(health, stats, own),
        "services": services(health, own),
        "machine": machine(host),
        "isolation": host_isolation(isolation),
        "fleet": fleet(stats),
        "runtimes": languages(runtimes),
        "store": store(cache),
    }


def control_plane(health: Document, stats: Document, own: Document) -> Section:
    """The server's own process, and what must be nothing."""
    facts = [
        Fact("status", _status(health.get("status"))),
        Fact("version", Cell(clean(health.get("version") or "-"))),
        Fact("up for", Cell(duration(health.get("uptime_s")))),
        Fact("orphans", _orphans(stats.get("orphans"))),
    ]
    if not own:
        return Section("Control plane", (*facts, Fact("its process", Cell(FOR_ADMINISTRATORS, "dim"))))
    spent, up = own.get("cpu_seconds"), own.get("uptime_s")
    share = f", {percent(100 * spent / up)} of a core" if is_figure(spent) and is_figure(up) and up else ""
    facts += [
        Fact(
            "process",
            Cell(f"pid {clean(own.get('pid'))}, {count(own.get('threads'))} threads, {count(own.get('tasks'))} tasks"),
        ),
        Fact("CPU", Cell(f"{duration(spent)} so far{share}")),
        Fact(
            "memory", Cell(f"{mebibytes(own.get('memory_mb'))}, events held {mebibytes(own.get('event_buffers_mb'))}")
        ),
        Fact("open files", Cell(count(own.get("open_files")))),
        Fact("connections", Cell(f"{count(own.get('connections'))}, {count(own.get('requests'))} requests")),
        Fact("subscribers", Cell(f"{count(stats.get('subscribers'))} event streams")),
        Fact("dropped", _dropped(mapping(stats.get("dropped")))),
        Fact("tokens", Cell(f"{count(own.get('tokens'))} of {count(own.get('users'))} users")),
    ]
    return Section("Control plane", tuple(facts))


def _status(value: object) -> Cell:
    signs: dict[str, tuple[str, Tone]] = {
        "healthy": ("●", "good"),
        "degraded": ("!", "warn"),
        "unhealthy": ("✗", "bad"),
    }
    sign, tone = signs.get(clean(value), ("?", "warn"))
    return Cell(f"{sign} {clean(value or 'not known')}", tone)


def _orphans(value: object) -> Cell:
    if value == 0:
        return Cell("● 0: no process is left behind", "good")
    return Cell(f"✗ {count(value)} PROCESSES BELONG TO NOTHING: see corral doctor", "bad")


def _dropped(rows: Document) -> Cell:
    lost = {name: n for name, n in rows.items() if isinstance(n, int) and n}
    if not lost:
        return Cell("● nothing", "good")
    return Cell("! " + ", ".join(f"{count(n)} {clean(name).replace('_', ' ')}" for name, n in lost.items()), "warn")


def services(health: Document, own: Document) -> Section:
    """What the server needs: each with a word, and more for an administrator."""
    words = mapping(health.get("services"))
    facts = [Fact(SERVICES.get(name, clean(name)), _service(word)) for name, word in words.items()]
    if not own:
        return Section("Services", tuple(facts))
    postgres, journal, spawner = (mapping(own.get(key)) for key in ("postgres", "journal", "spawner"))
    embedded = own.get("embedded")
    if postgres.get("problem"):
        facts.append(Fact("Postgres says", Cell(f"! {clean(postgres['problem'])}", "bad")))
    elif postgres.get("writable") is False:
        facts.append(Fact("Postgres", Cell("! can be read but not written", "bad")))
    behind = journal.get("behind_s")
    slow = isinstance(behind, (int, float)) and behind > 5
    facts += [
        Fact(
            "journal",
            Cell(f"{count(journal.get('rows'))} rows waiting, {duration(behind)} behind", "warn" if slow else ""),
        ),
        Fact("", Cell(f"{count(journal.get('written'))} written", "dim")),
        Fact("spawner", Cell(f"{count(spawner.get('jobs'))} jobs, {count(spawner.get('spawned'))} begun")),
        Fact(
            "", Cell(f"restarted {count(spawner.get('restarts'))} times", "warn" if spawner.get("restarts") else "dim")
        ),
        Fact("waiting", Cell(f"{count(own.get('waiting_to_start'))} instances to start")),
        Fact("embedded", Cell(" ".join(map(clean, embedded)) if isinstance(embedded, list) and embedded else "none")),
    ]
    return Section("Services", tuple(facts))


def _service(word: object) -> Cell:
    good = clean(word) in {"connected", "healthy"}
    return Cell(f"{'●' if good else '✗'} {clean(word)}", "good" if good else "bad")


def machine(host: Document) -> Section:
    """The host itself."""
    if not host:
        return Section("Machine", (Fact("", Cell(FOR_ADMINISTRATORS, "dim")),))
    cores, load = host.get("cpus"), host.get("load")
    loads = [one for one in load if is_figure(one)] if isinstance(load, list) else []
    facts = [Fact("cores", Cell(count(cores)))]
    if loads and is_figure(cores):
        busy = loads[0] / max(1, cores)
        text = " ".join(f"{value:.2f}" for value in loads)
        facts.append(
            Fact("load", Cell(f"{bar(busy)} {text}" + (" busy" if busy > 1 else ""), "warn" if busy > 1 else ""))
        )
    facts.append(_share("memory", host.get("memory_mb"), host.get("memory_available_mb")))
    if "disk_mb" in host:
        facts.append(_share("disk", host.get("disk_mb"), host.get("disk_free_mb")))
    facts += [
        Fact("kernel", Cell(clean(host.get("kernel") or "-"))),
        Fact("Python", Cell(clean(host.get("python") or "-"))),
    ]
    return Section("Machine", tuple(facts))


def _share(name: str, total: object, free: object) -> Fact:
    if not is_figure(total) or not is_figure(free) or not total:
        return Fact(name, Cell(mebibytes(total)))
    share = 1 - free / total
    word = " nearly full" if share > NEAR else ""
    text = f"{bar(share)} {mebibytes(total - free)} of {mebibytes(total)}{word}"
    return Fact(name, Cell(text, "warn" if word else ""))


def fleet(stats: Document) -> Section:
    """The instances that one may see, added up."""
    instances, calls, sums = (mapping(stats.get(key)) for key in ("instances", "calls", "fleet"))
    isolation = mapping(stats.get("isolation"))
    levels = mapping(isolation.get("in_force"))
    facts = (
        Fact("instances", Cell(f"{count(instances.get('total'))}: {_counts(mapping(instances.get('by_status')))}")),
        Fact("languages", Cell(_counts(mapping(instances.get("by_language"))))),
        Fact("use", Cell(f"{percent(sums.get('cpu_percent'))} CPU, {mebibytes(sums.get('memory_mb'))}")),
        Fact("", Cell(f"{count(sums.get('processes'))} processes", "dim")),
        Fact(
            "calls",
            Cell(
                f"{count(calls.get('total'))}, {count(calls.get('errors'))} failed",
                "warn" if calls.get("errors") else "",
            ),
        ),
        Fact("latency", Cell(f"p50 {millis(calls.get('p50_ms'))}, p95 {millis(calls.get('p95_ms'))}")),
        Fact("restarts", Cell(count(stats.get("restarts")))),
        Fact("isolation", Cell(_counts(levels))),
    )
    return Section("Fleet", facts)


def host_isolation(document: Document) -> Section:
    """The levels that the host can give, what `auto` comes to, and what holds the limits."""
    if not document:
        return Section("Isolation", (Fact("", Cell("this server does not say", "dim")),))
    facts = [_level(mapping(level)) for level in _list(document.get("levels"))]
    auto, minimum = document.get("auto"), clean(document.get("minimum") or "-")
    given = Cell(f"gives {clean(auto)}") if auto else Cell(f"! refused: less than {minimum}", "warn")
    facts += [Fact("auto", given), Fact("", Cell(f"at least {minimum} is demanded", "dim"))]
    return Section("Isolation", (*facts, *_limits(mapping(document.get("limits")))))


def _level(level: Document) -> Fact:
    name = clean(level.get("name") or "?")
    if level.get("available"):
        return Fact(name, Cell("● available", "good"))
    unlock = f" → {clean(level['unlock'])}" if level.get("unlock") else ""
    return Fact(name, Cell(f"○ {clean(level.get('why') or 'not here')}{unlock}", "dim"))


def _limits(limits: Document) -> list[Fact]:
    held = mapping(limits.get("enforcement"))
    hard, soft = (", ".join(clean(plain_name(str(n))) for n in held if held[n] == kind) for kind in ("hard", "soft"))
    driver = f" ({clean(limits['driver'])})" if limits.get("driver") else ""
    unlock = limits.get("unlock")
    facts = [Fact("hard limits", Cell(f"{hard or 'none'}{driver}"))]
    if soft:
        facts.append(
            Fact("soft limits", Cell(f"! {soft} → {clean(unlock)}" if unlock else soft, "warn" if unlock else ""))
        )
    return facts


def _counts(numbers: Document) -> str:
    return ", ".join(f"{count(n)} {clean(name or 'not yet known')}" for name, n in numbers.items()) or "none"


def languages(document: Document) -> Section:
    """What can be run here, and how to get what cannot."""
    rows = document.get("runtimes")
    return Section("Runtimes", tuple(_language(mapping(row)) for row in (rows if isinstance(rows, list) else ())))


def _language(row: Document) -> Fact:
    name, tools = clean(row.get("language") or "?"), [mapping(tool) for tool in _list(row.get("tools"))]
    there = ", ".join(f"{clean(tool.get('name'))} {clean(tool.get('version') or '')}".strip() for tool in tools)
    missing = ", ".join(map(clean, _list(row.get("missing"))))
    hint = f" → {clean(row['hint'])}" if row.get("hint") else ""
    if not row.get("usable"):
        return Fact(name, Cell(f"○ needs {missing}{hint}", "dim"))
    more = f"; without {missing}{hint}" if missing else ""
    return Fact(name, Cell(f"● {there or 'nothing needed'}{more}", "good"))


def store(cache: Document | None) -> Section:
    """What is installed and kept."""
    if cache is None:
        return Section("Install store", (Fact("", Cell(FOR_ADMINISTRATORS, "dim")),))
    total, limit = cache.get("total_bytes"), cache.get("limit_bytes")
    facts: list[Fact] = []
    if is_figure(total) and is_figure(limit) and limit:
        share = total / limit
        facts.append(
            Fact(
                "size",
                Cell(
                    f"{bar(share)} {mebibytes(total / MIB)} of {mebibytes(limit / MIB)}", "warn" if share > NEAR else ""
                ),
            )
        )
    rows = cache.get("installs")
    installs = rows if isinstance(rows, list) else []
    facts.append(Fact("installs", Cell(count(len(installs)))))
    facts += _installs(installs[:INSTALLS_SHOWN])
    return Section("Install store", tuple(facts))


def _installs(rows: Iterable[Any]) -> Iterable[Fact]:
    for row in map(mapping, rows):
        users = row.get("in_use_by")
        used = f"used by {count(users)}" if users else "unused"
        size = row.get("size_bytes")
        text = f"{clean(row.get('label') or '?')}, {mebibytes(size / MIB if is_figure(size) else None)}, {used}"
        yield Fact("", Cell(text, "" if users else "dim"))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
