"""What a neighbour notices while another instance takes all it can get."""

from __future__ import annotations

import http.client
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from bench import machine, rest
from bench.gateways import all_pids
from bench.programs import HERE, BenchError
from bench.results import CORRAL, FAULTS, UNDISTURBED, Results

if TYPE_CHECKING:
    from bench.corral import Corral

HOG = HERE.parent / "tests/servers/hog.py"
"""Each of its tools has a ceiling of its own."""
LIMITS = {"memory_mb": 256, "cpu_percent": 50, "processes": 64, "open_files": 128, "disk_mb": 64, "call_timeout_s": 10}
CALLS_MIN = 200
"""Of one stretch, for a p99 that means something."""
LATE_S = 30.0
"""A stretch ends after this however few calls were answered."""


@frozen(kw_only=True)
class Fault:
    """One of the hog's tools. `key` is that of the results."""

    key: str
    tool: str
    arguments: Mapping[str, Any] = field(factory=dict)
    is_held: bool = False
    """It is tried only where the kernel holds memory and processes."""


ALL: Sequence[Fault] = (
    Fault(key="memory", tool="memory", arguments={"mib": 3072}, is_held=True),
    Fault(key="children", tool="memory", arguments={"mib": 600, "children": 4}, is_held=True),
    Fault(key="leak", tool="leak", arguments={"mib_per_s": 60}, is_held=True),
    Fault(key="fork", tool="fork", arguments={"count": 1500}, is_held=True),
    Fault(key="disk", tool="disk", arguments={"mib": 192}),
    Fault(key="files", tool="descriptors", arguments={"count": 10_000}),
    Fault(key="spin", tool="spin", arguments={"threads": 8}),
    Fault(key="flood", tool="flood", arguments={"mib_per_s": 100, "seconds": 30}),
    Fault(key="hang", tool="hang"),
)


@frozen(kw_only=True)
class Faults:
    """Call the neighbour undisturbed, then while a fault runs, each for `seconds`; every fault with a hog of its own."""

    corral: Corral
    folder: Path
    python: Path
    seconds: float
    repeats: int
    limit_s: float
    patience_s: float

    def run(self, results: Results) -> None:
        program = self.folder / "hog.py"
        shutil.copyfile(HOG, program)
        program.chmod(0o755)
        for _ in machine.paced(self.repeats, self.limit_s, least=1):
            for fault in ALL:
                self._measure(fault, program, results)

    def _measure(self, fault: Fault, program: Path, results: Results) -> None:
        hog = self._deploy(program)
        try:
            if fault.is_held and hog["enforcement"]["memory_mb"] != "hard":
                results.missing[f"the fault {fault.key}"] = "no control groups here, and nothing else could hold it"
                return
            machine.wait_quiet(all_pids(self.corral), self.patience_s)
            quiet = self._stretch()
            trouble = threading.Thread(target=self._begin, args=(hog["instance_id"], fault), daemon=True)
            trouble.start()
            disturbed = self._stretch()
        finally:
            self.corral.remove(hog["instance_id"])
        trouble.join(rest.TIMEOUT_S)
        _note(results, UNDISTURBED, quiet)
        _note(results, fault.key, disturbed)
        ratio = _percentile(disturbed, 99) / _percentile(quiet, 99)
        results.add(f"{FAULTS} ratio {fault.key}", CORRAL, ratio)
        print(f"fault {fault.key}: {len(quiet)} and {len(disturbed)} calls, p99 x {ratio:.2f}", file=sys.stderr)

    def _deploy(self, program: Path) -> dict[str, Any]:
        instance = self.corral.deploy("hog", [str(self.python), str(program)], limits=LIMITS)
        return dict(self.corral.ask("GET", f"/instances/{instance}"))

    def _begin(self, instance: str, fault: Fault) -> None:
        with suppress(BenchError, OSError, http.client.HTTPException):  # whatever comes of it: it is the fault
            self.corral.call(instance, "tools/call", {"name": fault.tool, "arguments": dict(fault.arguments)})

    def _stretch(self) -> list[float]:
        """Milliseconds of each call, one after the other on one connection.

        Raises:
            BenchError: an answer was wrong.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.corral.port, timeout=rest.TIMEOUT_S)
        fields = {"Content-Type": "application/json", "Authorization": f"Bearer {self.corral.token}"}
        took: list[float] = []
        began = time.perf_counter()
        try:
            while not _is_enough(time.perf_counter() - began, self.seconds, len(took)):
                text = f"call {len(took)}"
                body = rest.encode({"method": "tools/call", "params": rest.echo_params(text)})
                sent = time.perf_counter()
                connection.request("POST", f"/mcp/{self.corral.instance}/execute", body, fields)
                answer = connection.getresponse()
                document = answer.read()
                took.append((time.perf_counter() - sent) * 1000)
                if answer.status != 200 or text.encode() not in document:
                    raise BenchError(f"the neighbour's call came to {answer.status} {document[:300]!r}")
        finally:
            connection.close()
        return took


def _is_enough(passed_s: float, seconds: float, calls: int) -> bool:
    return passed_s >= seconds and (calls >= CALLS_MIN or passed_s >= LATE_S)


def _percentile(took: list[float], percent: float) -> float:
    return sorted(took)[min(len(took) - 1, int(len(took) * percent / 100))]


def _note(results: Results, key: str, took: list[float]) -> None:
    for percent in (50, 99):
        results.add(f"{FAULTS} p{percent} {key}", CORRAL, _percentile(took, percent))
