"""`python -m bench`: one run, its Markdown tables on standard output; what happens meanwhile on standard error."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from attrs import frozen

from bench import dashboard, fanout, faults, front, installs, levels, machine, programs, rest, starts, tracing
from bench.calls import Calls, endpoint_targets, targets
from bench.corral import Corral
from bench.gateways import (
    MEMORY_SERVER,
    MEMORY_SERVER_VERSION,
    Gateway,
    McpHub,
    Missing,
    NpmMcpProxy,
    PypiMcpProxy,
    install_npm,
)
from bench.programs import BenchError, Native
from bench.results import BY_HAND, RAW, Results, add_spawns, endpoint_table, summary, table

RUN_PARENT = Path("/var/tmp")
"""Not /tmp: instances have a /tmp of their own."""
FOLDER_PREFIX = "corral-bench-"
ENTER_ONLY = 0o711
SYSTEM_PYTHON = Path("/usr/bin/python3")
PARTS = ("calls", "mcp", "starts", "installs", "fanout", "faults", "spawn", "levels", "nginx", "traces", "dashboard")
EX_UNAVAILABLE = 69
SPAWN_S = 60.0
Peer = McpHub | NpmMcpProxy | PypiMcpProxy


@frozen(kw_only=True)
class Plan:
    """How long and how often. Seconds, but for the counts."""

    seconds: float
    repeats: int
    patience_s: float
    """The longest wait for a quiet machine, before each stretch."""
    calls_s: float
    """For all calls together: the last round begins before."""
    part_s: float
    """For each other part: no further repeat begins after."""
    deploys: int
    fans: int
    spawns: int
    installs: int
    """Whole installs from the registry."""
    keys: int
    """Pressed in the dashboard."""
    dashboard_s: float
    hour_s: int
    """How many seconds' worth of events the dashboard's memory is watched over."""


FULL = Plan(
    seconds=1.5,
    repeats=5,
    patience_s=1.0,
    calls_s=330.0,
    part_s=40.0,
    deploys=15,
    fans=5,
    spawns=60,
    installs=3,
    keys=200,
    dashboard_s=20.0,
    hour_s=3600,
)
QUICK = Plan(
    seconds=0.5,
    repeats=3,
    patience_s=0.4,
    calls_s=40.0,
    part_s=6.0,
    deploys=4,
    fans=2,
    spawns=20,
    installs=1,
    keys=50,
    dashboard_s=8.0,
    hour_s=120,
)


@frozen(kw_only=True)
class Run:
    """One run: where it works, with what, and what it has found."""

    plan: Plan
    native: Native
    program: Path
    """The MCP server behind every gateway."""
    folder: Path
    results: Results

    def measure_calls(self, parts: list[str]) -> None:
        """Calls through every gateway, and through Corral's MCP endpoint; or that alone, beside `execute` and its like."""
        with ExitStack() as stack:
            corral = Corral(self.program)
            self._start(corral, stack)
            peers = self._start_peers(
                stack, [McpHub, NpmMcpProxy, PypiMcpProxy] if "calls" in parts else [NpmMcpProxy, PypiMcpProxy]
            )
            deadline = time.monotonic() + self.plan.calls_s
            self.results.columns += [RAW]
            Calls(
                native=self.native,
                folder=self.folder,
                targets=[*targets([corral]), *(endpoint_targets(corral) if "mcp" in parts else []), *targets(peers)],
                raw=self.program if "calls" in parts else None,
                seconds=self.plan.seconds,
                repeats=self.plan.repeats,
                patience_s=self.plan.patience_s,
                deadline=deadline,
            ).run(self.results)

    def _start_peers(self, stack: ExitStack, kinds: Sequence[type[Peer]]) -> list[Gateway]:
        running: list[Gateway] = []
        for kind in kinds:
            peer = kind(self.program)
            self.results.columns.append(peer.name)
            try:
                self._start(peer, stack)
            except (Missing, BenchError, OSError) as error:
                self.results.missing[peer.name] = str(error)
            else:
                running.append(peer)
        return running

    def _start(self, gateway: Gateway, stack: ExitStack) -> None:
        folder = self.folder / f"gateway-{gateway.port}"
        folder.mkdir(mode=ENTER_ONLY)
        stack.callback(lambda: gateway.server.stop() if hasattr(gateway, "server") else None)
        gateway.start(folder)
        self.results.add("ready", gateway.name, time.monotonic() - gateway.server.started)

    def measure_starts(self, corral: Corral) -> None:
        """Deploys, and memory per instance; `corral` must be freshly started."""
        starts.measure_memory(corral, self.results)
        echo = ("tools/call", rest.echo_params("hello"))
        self._deploys("deploy echo", [str(self.program)], {}, echo).run(corral, self.results)
        try:
            modules = install_npm(MEMORY_SERVER, MEMORY_SERVER_VERSION)
        except Missing as error:
            self.results.missing["npm memory server"] = str(error)
            return
        argv, env = starts.memory_server(modules, self.folder)
        read = ("tools/call", {"name": "read_graph", "arguments": {}})
        self._deploys("deploy memory", argv, env, read).run(corral, self.results)

    def _deploys(self, row: str, argv: list[str], env: dict[str, str], call: starts.Call) -> starts.Deploys:
        plan = self.plan
        return starts.Deploys(
            row=row,
            argv=argv,
            env=env,
            call=call,
            repeats=plan.deploys,
            limit_s=plan.part_s,
            patience_s=plan.patience_s,
        )

    def measure_fanout(self, corral: Corral) -> None:
        """Bursts of notifications to many."""
        fanout.measure(
            corral,
            self.native,
            self.folder,
            self.results,
            repeats=self.plan.fans,
            limit_s=self.plan.part_s,
            patience_s=self.plan.patience_s,
        )

    def measure_faults(self, corral: Corral) -> None:
        """What a neighbour notices of an instance that takes all it can get."""
        faults.Faults(
            corral=corral,
            folder=self.folder,
            python=SYSTEM_PYTHON if SYSTEM_PYTHON.exists() else Path(sys.executable),
            seconds=2 * self.plan.seconds,
            repeats=self.plan.fans,
            limit_s=2 * self.plan.part_s,
            patience_s=self.plan.patience_s,
        ).run(self.results)

    def measure_spawn(self) -> None:
        """The spawner alone."""
        folder = self.folder / "spawn"
        folder.mkdir(mode=ENTER_ONLY)
        argv = [sys.executable, "-m", "bench.spawning", str(self.program), str(folder), str(self.plan.spawns)]
        done = subprocess.run(
            argv,
            cwd=programs.HERE.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=SPAWN_S,
            preexec_fn=programs.die_with_parent,
        )
        if done.returncode:
            raise BenchError(f"the spawner: {done.stderr[-programs.LOG_TAIL_CHARS :]}")
        add_spawns(self.results, json.loads(done.stdout))

    def measure_levels(self) -> None:
        """What an isolation level costs a call."""
        with ExitStack() as stack:
            corral = Corral(self.program)
            self._start(corral, stack)
            seconds, limit_s = self.plan.seconds, self.plan.part_s
            levels.measure(corral, self.native, self.folder, self.results, seconds=seconds, limit_s=limit_s)

    def measure_front(self) -> None:
        """Calls through nginx."""
        with ExitStack() as stack:
            corral = Corral(self.program)
            self._start(corral, stack)
            plan = self.plan
            ways = front.Fronts(
                corral=corral,
                native=self.native,
                folder=self.folder,
                seconds=plan.seconds,
                limit_s=3 * plan.part_s,
                patience_s=plan.patience_s,
            )
            try:
                ways.run(self.results)
            except Missing as error:
                self.results.missing["nginx"] = str(error)

    def measure_traces(self) -> None:
        """What traces cost a call."""
        tracing.Tracing(
            program=self.program,
            native=self.native,
            folder=self.folder,
            seconds=self.plan.seconds,
            limit_s=2 * self.plan.part_s,
        ).run(self.results)

    def run(self, parts: list[str]) -> None:
        """Everything, in order."""
        if {"calls", "mcp"} & set(parts):
            self.measure_calls(parts)
        else:
            self.results.columns += [RAW]
        if {"starts", "fanout", "faults"} & set(parts):
            with ExitStack() as stack:
                corral = Corral(self.program)
                self._start(corral, stack)
                if "starts" in parts:
                    self.measure_starts(corral)
                if "fanout" in parts:
                    self.measure_fanout(corral)
                if "faults" in parts:
                    self.measure_faults(corral)
        if "installs" in parts:
            self.results.columns.append(BY_HAND)
            installs.measure_first_and_next(self.folder, self.program, self.results, repeats=self.plan.installs)
            installs.measure_fleet(self.folder, self.program, self.results)
        for part, measure in (
            ("spawn", self.measure_spawn),
            ("levels", self.measure_levels),
            ("nginx", self.measure_front),
            ("traces", self.measure_traces),
        ):
            if part in parts:
                measure()
        if "dashboard" in parts:
            dashboard.measure(
                self.results, keys=self.plan.keys, stretch_s=self.plan.dashboard_s, hour_s=self.plan.hour_s
            )


def main() -> int:
    options = _options()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    began = time.monotonic()
    results = Results()
    plan = QUICK if options.quick else FULL
    try:
        native = programs.build()
        with _only_one(), _folder() as folder:
            program = _program(folder, native, options.child)
            Run(plan=plan, native=native, program=program, folder=folder, results=results).run(options.only)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    print(table(results))
    if shares := endpoint_table(results):
        print(f"\n{shares}")
    print(f"\n{_circumstances(plan, options.child, time.monotonic() - began)} {summary(results)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes: shorter stretches, fewer repeats")
    parser.add_argument("--child", choices=("c", "python"), default="c", help="the MCP server behind each gateway")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="parts of the run")
    return parser.parse_args()


@contextmanager
def _only_one() -> Iterator[None]:
    """Two runs at once would measure each other."""
    with (programs.BUILD / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError("another run is under way in this checkout") from None
        yield


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that every user may enter, gone at the end."""
    for old in RUN_PARENT.glob(f"{FOLDER_PREFIX}*"):  # of runs that were killed
        pid = old.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        if old.stat().st_uid == os.geteuid() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=RUN_PARENT))
    folder.chmod(ENTER_ONLY)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(folder: Path, native: Native, child: str) -> Path:
    """The MCP server, where every user can run it."""
    program = folder / "echo"
    if child == "c":
        shutil.copyfile(native.echo, program)
    else:
        source = (programs.HERE / "echo.py").read_text()
        # A Python in somebody's home is not for the users that instances run as.
        python = SYSTEM_PYTHON if SYSTEM_PYTHON.exists() else Path(sys.executable)
        program.write_text(f"#!{python}\n{source}")
    program.chmod(0o755)
    return program


def _circumstances(plan: Plan, child: str, took_s: float) -> str:
    root = "root" if os.geteuid() == 0 else "a plain user"
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine.description()}, Python {sys.version.split()[0]}, as {root}; "
        f"MCP server in {'C' if child == 'c' else 'Python'}, {plan.repeats} × {plan.seconds:g} s per cell of calls, "
        f"{took_s:.0f} s in all. Cells are medians, (max - min) / median in parentheses."
    )


def _on_signal(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
