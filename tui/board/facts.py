"""What the overview says of an instance, as sections of named facts. Pure: documents of the API in, clean text out.

What changes with each sample comes from the board's row, what changes rarely from the instance's document.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen
from rich.cells import cell_len, chop_cells

from controlplane.wire.course import course
from controlplane.wire.text import clean, clean_lines
from controlplane.wire.units import count, duration, is_figure, local_date, mebibytes, millis, percent
from tui.board.cells import Cell, Tone
from tui.board.fleet_columns import status_cell

if TYPE_CHECKING:
    from tui.board.rows import Row

Document = Mapping[str, Any]
NAME_CELLS = 13
"""Of the column of names."""
BAR_CELLS = 16
NEAR, FULL = 0.8, 0.95
"""Shares of a limit from which it is worth a look, and worth a worry."""
STDERR_LINES = 200
FRAMES = 50
INSTRUCTION_LINES = 12
"""Of what the API gives; more is in the log, and nobody reads it here."""


@frozen
class Fact:
    """One thing to know; a fact without a name goes on from the one before it, or stands alone."""

    name: str
    cell: Cell


@frozen
class Section:
    """Facts under one heading."""

    title: str
    facts: tuple[Fact, ...]


def bar(share: float, cells: int = BAR_CELLS) -> str:
    """Return a share of one as a bar; anything above zero shows."""
    full = min(cells, max(0, round(share * cells)))
    if share > 0 and not full:
        full = 1
    return "█" * full + "░" * (cells - full)


def usage(row: Row | None, limits: Mapping[str, Any], enforcement: object = None) -> Section:
    """What it may use, what of it it uses now, and what holds it to that: `hard` is the kernel, `soft` is Corral."""
    held = enforcement if isinstance(enforcement, Mapping) else {}
    cpu, memory, processes = (row.cpu, row.memory, row.processes) if row is not None else (None, None, None)
    disk = row.disk if row is not None else None

    def measured(name: str, member: str, used: float | None, shown: Any) -> Fact:
        return _measured(name, used, limits.get(member), shown, clean(held.get(member) or ""))

    facts = [
        measured("CPU", "cpu_percent", cpu, percent),
        measured("memory", "memory_mb", memory, mebibytes),
        measured("processes", "processes", processes, _number),
        measured("disk", "disk_mb", disk, mebibytes),
        Fact("open files", Cell(f"{_number(limits.get('open_files'))} per process at most")),
        Fact("call time", Cell(f"{duration(limits.get('call_timeout_s'))} at most")),
        Fact("log", Cell(f"{_number(limits.get('log_kb_s'))} KiB a second at most")),
    ]
    return Section("Limits and use", tuple(facts))


def _measured(name: str, used: float | None, limit: object, shown: Any, held: str) -> Fact:
    how = f", {held}" if held else ""
    if not is_figure(limit) or not limit:
        return Fact(name, Cell(f"{shown(used)}, no limit"))
    if used is None:
        return Fact(name, Cell(f"{bar(0)} - of {shown(limit)}{how}", "dim"))
    share = used / limit
    tone: Tone = "bad" if share >= FULL else "warn" if share >= NEAR else ""
    word = " at the limit" if tone == "bad" else " near it" if tone == "warn" else ""
    return Fact(name, Cell(f"{bar(share)} {shown(used)} of {shown(limit)} ({percent(share * 100)}){word}{how}", tone))


def state(row: Row | None, now: float, document: Document | None = None, failure: Document | None = None) -> Section:
    """How it is now, and what last went wrong."""
    if row is None:
        return Section("Now", (Fact("status", Cell("deleted", "warn")),))
    calls = f"{count(row.calls)} calls, {count(row.errors)} failed, {row.rate:.1f} per second"
    facts = [
        Fact("status", status_cell(row)),
        Fact("wanted", Cell(row.desired or "-")),
        Fact("process", Cell(_process(row, now, (document or {}).get("incarnation")))),
        Fact("calls", Cell(calls, "warn" if row.errors else "")),
        Fact("latency", Cell(f"p50 {millis(row.p50)}, p95 {millis(row.p95)}")),
        Fact("restarts", Cell(count(row.restarts), "warn" if row.restarts else "")),
    ]
    if failure is not None:
        facts.append(Fact("last failure", Cell(f"✗ {clean(failure.get('reason') or '')} ({_when(failure)})", "warn")))
    if row.candidate:
        number, _, phase = row.candidate.partition(" ")
        facts.insert(1, Fact("coming up", Cell(f"◐ revision {number}: {phase or 'begun'}", "accent")))
    return Section("Now", tuple(facts))


def _process(row: Row, now: float, number: object) -> str:
    if row.pid is None:
        return "none now"
    known = row.incarnation or number  # a list of instances does not tell it, its status events do
    return f"pid {row.pid}" + (f", number {known}" if known else "") + f", up {duration(row.uptime(now))}"


def launch(document: Document) -> Section:
    """What is run, and where it comes from."""
    config = document.get("mcp_config")
    facts = [Fact("command", Cell(_command(config), "strong"))] if isinstance(config, Mapping) else []
    facts += [
        _said("folder", config.get("cwd") if isinstance(config, Mapping) else None),
        _said("source", document.get("source_type")),
        _said("language", document.get("language")),
        _said("entry point", document.get("entry_point")),
        *(
            Fact(f"{'found' if n == 0 else ''}", Cell(f"{clean(k)} {clean(v)}"))
            for n, (k, v) in _pairs(document, "resolved")
        ),
        _listed("packages", document.get("dependencies")),
        _said("build step", document.get("build_command")),
        _listed("variables", document.get("environment_vars")),
        *(Fact("labels" if n == 0 else "", Cell(f"{clean(k)}={clean(v)}")) for n, (k, v) in _pairs(document, "labels")),
        _said("owner", document.get("owner")),
        _said("id", document.get("instance_id")),
        Fact("deployed", Cell(local_date(document.get("created_at")) or "-")),
        *(Fact("note", Cell(f"! {clean(note)}", "warn")) for note in _strings(document.get("notes"))),
    ]
    return Section("What it is", _there(facts))


def confinement(document: Document) -> Section:
    """How it is kept apart, started again and shared."""
    restart, network = _mapping(document, "restart"), _mapping(document, "network")
    hosts = ", ".join(_strings(network.get("hosts")))
    mode = clean(network.get("mode") or "-")
    again = clean(restart.get("mode") or "-")
    if restart.get("burst"):
        again += f", at most {clean(restart['burst'])} in {duration(restart.get('window_s'))}"
        again += f", up to {duration(restart.get('max_delay_s'))} apart"
    facts = [
        _said("isolation", document.get("isolation")),
        Fact("network", Cell(f"{mode}: {clean(hosts)}" if hosts else mode)),
        *_mounts(document.get("mounts")),
        Fact("restart", Cell(again)),
        _said("sessions", document.get("sessions")),
    ]
    return Section("How it is kept", _there(facts))


def _mounts(mounts: object) -> list[Fact]:
    found: list[Fact] = []
    for mount in mounts if isinstance(mounts, list) else ():
        if not isinstance(mount, Mapping):
            continue
        source, target = clean(mount.get("source") or ""), clean(mount.get("target") or "")
        where = source if source == target else f"{source}, seen as {target}"
        how = "read and write" if mount.get("mode") == "rw" else "read-only"
        found.append(Fact("" if found else "mounts", Cell(f"{where}, {how}")))
    return found


def protocol(document: Document) -> Section:
    """What its server said of itself at the last handshake."""
    said = _mapping(document, "protocol")
    if not said:
        return Section("Protocol", (Fact("", Cell("It has not yet answered a handshake", "dim")),))
    server = _mapping(said, "server_info")
    named = " ".join(clean(server[part]) for part in ("name", "version") if server.get(part))
    instructions = clean_lines(said["instructions"]) if said.get("instructions") else []
    more = len(instructions) - INSTRUCTION_LINES
    facts = [
        Fact("version", Cell(f"{clean(said.get('version') or 'none')} ({clean(said.get('era') or '?')})")),
        Fact("server", Cell(named or "it gives no name")),
        _said("title", server.get("title")),
        _listed("can", [_ability(name, value) for name, value in sorted(_mapping(said, "capabilities").items())]),
        Fact("tools", Cell(count(len(_strings(document.get("tools")))))),
        *(
            Fact("advice" if n == 0 else "", Cell(line, "dim"))
            for n, line in enumerate(instructions[:INSTRUCTION_LINES])
        ),
    ]
    if more > 0:
        facts.append(Fact("", Cell(f"… {more} line{'s' * (more != 1)} more", "dim")))
    return Section("Protocol", _there(facts))


def _ability(name: object, value: object) -> str:
    inner = [clean(key) for key in value] if isinstance(value, Mapping) else []
    return clean(name) + (f" ({', '.join(inner)})" if inner else "")


def post_mortem(document: Document, title: str = "Post-mortem", next_steps: str = "") -> Section:
    """Why a process, or its start, came to a bad end: all that was seen. `next_steps` stand where it has no hint."""
    hint = clean(document.get("hint") or next_steps)
    facts = [
        Fact("why", Cell(f"✗ {clean(document.get('reason') or 'not known')}", "bad")),
        _said("code", document.get("code")),
        _said("during", document.get("phase")),
        Fact("ended", Cell(_end(document))),
        Fact("when", Cell(_when(document))),
        Fact("peaks", Cell(_peaks(document))),
        *([Fact("hint", Cell(f"→ {hint}", "accent"))] if hint else []),
        *_course(document.get("samples")),
        *_tail("stderr", _strings(document.get("stderr_tail")), STDERR_LINES),
        *_tail("frames", _strings(document.get("last_frames")), FRAMES),
    ]
    return Section(title, _there(facts))


def ending(document: Document) -> str:
    """How a process ended: `exit 3`, `SIGKILL`; empty for neither."""
    if document.get("signal"):
        return clean(document["signal"])
    return "" if document.get("exit_code") is None else f"exit {clean(document['exit_code'])}"


def _end(document: Document) -> str:
    how = ending(document) or "not by itself: no exit status"
    served = document.get("ran_s")
    return how + (f", after serving {duration(served)}" if served is not None else "")


def _when(document: Document) -> str:
    number = document.get("incarnation")
    return local_date(document.get("at")) + (f", process {clean(number)}" if number else "")


def _peaks(document: Document) -> str:
    memory, processes = document.get("peak_memory_mb"), document.get("peak_processes")
    if memory is None and processes is None:
        return "none were seen"
    return f"{mebibytes(memory)} memory, {_number(processes)} process{'' if processes == 1 else 'es'}"


def _course(samples: object) -> list[Fact]:
    """How its figures went before the end."""
    rows = [f"{name}: {how}" for name, how in course(samples)]
    return [Fact("before it" if n == 0 else "", Cell(row, "dim")) for n, row in enumerate(rows)]


def _tail(name: str, lines: Sequence[str], most: int) -> list[Fact]:
    """The last lines of many, whole; `name` at the first."""
    if not lines:
        return [Fact(name, Cell("nothing", "dim"))]
    left_out = len(lines) - most
    shown = [Fact("", Cell(line)) for text in lines[-most:] for line in clean_lines(text)]
    said = f"the last {most} of {len(lines)}" if left_out > 0 else f"the last {len(lines)}"
    return [Fact(name, Cell(said, "dim")), *shown]


def _command(config: Mapping[str, Any]) -> str:
    parts = [config.get("command") or "", *_strings(config.get("args"))]
    return clean(" ".join(shlex.quote(str(part)) for part in parts))


def _said(name: str, value: object) -> Fact:
    return Fact(name, Cell("" if value is None else clean(value)))


def _listed(name: str, values: object) -> Fact:
    return Fact(name, Cell(clean(", ".join(_strings(values)))))


def _strings(values: object) -> list[str]:
    return [str(value) for value in values] if isinstance(values, (list, tuple)) else []


def _pairs(document: Document, name: str) -> Iterable[tuple[int, tuple[Any, Any]]]:
    return enumerate(sorted(_mapping(document, name).items()))


def _mapping(document: Document, name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def _there(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Only those that say something."""
    return tuple(fact for fact in facts if fact.cell.text)


def _number(value: object) -> str:
    return f"{value:,.0f}" if is_figure(value) else "-"


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` cells, cut at blanks where there are any."""
    lines: list[str] = []
    rest = text
    while cell_len(rest) > width:
        head = chop_cells(rest, width)[0]
        place = len(head) if rest[len(head) : len(head) + 1] == " " else head.rfind(" ")
        cut = place if place > 0 else len(head)
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip(" ")
    return [*lines, rest]


def revision(document: Document) -> Section:
    """One revision: where it came from, and why it failed where it did."""
    failure = document.get("failure")
    facts = [
        _said("state", document.get("state")),
        _said("cause", document.get("cause")),
        Fact("made", Cell(local_date(document.get("created_at")) or "-")),
        Fact("first ran", Cell(local_date(document.get("ran_at")) or "never")),
        _said("language", document.get("language")),
        _said("source", document.get("source")),
        *(
            Fact("found" if n == 0 else "", Cell(f"{clean(k)} {clean(v)}"))
            for n, (k, v) in _pairs(document, "resolved")
        ),
        *(post_mortem(failure).facts if isinstance(failure, Mapping) else ()),
    ]
    return Section(f"Revision {clean(document.get('revision'))}", _there(facts))


def process(document: Document) -> Section:
    """One process that the instance had or has: its post-mortem where it failed."""
    title = f"Process {clean(document.get('number'))}"
    told = document.get("post_mortem")
    if isinstance(told, Mapping):
        return post_mortem(told, f"Post-mortem of process {clean(document.get('number'))}")
    runs = bool(document.get("is_running"))
    facts = [
        Fact("state", Cell("● runs", "good") if runs else Cell(f"○ {ending(document) or 'ended'}", "dim")),
        Fact("began", Cell(local_date(document.get("started_at")))),
        Fact("ended", Cell(local_date(document.get("ended_at")) or ("not yet" if runs else "nobody saw when"))),
        Fact("ran", Cell(duration(document.get("ran_s")) if not runs else "")),
        _said("revision", document.get("revision")),
        _said("pid", document.get("pid")),
        *([] if runs else [Fact("", Cell("It did not fail: no post-mortem", "dim"))]),
    ]
    return Section(title, _there(facts))
