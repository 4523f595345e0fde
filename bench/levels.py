"""What an isolation level costs a call: the same calls to one instance of each level, in turns, of one control plane."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import rest
from bench.programs import Native, load_program
from bench.results import CORRAL, Results

if TYPE_CHECKING:
    from bench.corral import Corral

LEVELS = ("process", "confined", "namespaced")
RUN_MARGIN_S = 30.0
"""Beyond its own time, for a load program whose instance answers no more."""


def measure(corral: Corral, native: Native, folder: Path, results: Results, *, seconds: float, limit_s: float) -> None:
    """One connection at a time, which is where a delay would show; rounds go on until the time is up."""
    deadline = time.monotonic() + limit_s
    requests = {level: _request(corral, level) for level in _available(corral)}
    files = {}
    for level, request in requests.items():
        files[level] = folder / f"requests-{level}"
        files[level].write_bytes(b"%d\n%b" % (len(request), request))
    p50: dict[str, list[float]] = {level: [] for level in requests}
    while not all(p50.values()) or time.monotonic() < deadline:
        for level, file in files.items():
            with load_program([native.calls, str(corral.port), str(seconds), "1", file], seconds + RUN_MARGIN_S) as run:
                result = run()
            results.add("errors", CORRAL, result["errors"])
            p50[level].append(result["p50_ms"])
    for level, samples in p50.items():
        for sample in samples:
            results.add(f"level p50 {level}", CORRAL, sample)
        results.add(f"level share {level}", CORRAL, median(samples) / median(p50["process"]))


def _available(corral: Corral) -> list[str]:
    levels = corral.ask("GET", "/isolation")["levels"]
    return [level["name"] for level in levels if level["available"]]


def _request(corral: Corral, level: str) -> bytes:
    """A call to an instance of this level, which is started for it."""
    config = {"command": str(corral.program), "args": []}
    body = {"name": f"at-{level}", "source_type": "mcp_config", "mcp_config": config, "isolation": level}
    if level != "process":  # which hides nothing, so there is nothing to show
        body["mounts"] = [{"source": str(corral.program), "target": str(corral.program)}]
    instance = corral.ask("POST", "/api/v2/deploy?wait=20", body, 201)["instance_id"]
    call = {"method": "tools/call", "params": rest.echo_params(rest.MARK)}
    return corral.request("POST", f"/mcp/{instance}/execute", call)
