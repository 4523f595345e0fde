"""One burst of a server's notifications, delivered to many subscribers of its event stream."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import machine
from bench.gateways import all_pids, own_pids
from bench.programs import Native, load_program
from bench.results import CORRAL, SUBSCRIBERS, Results

if TYPE_CHECKING:
    from bench.corral import Corral

EVENTS = 1000
"""In one burst, written by the server at once."""
RUN_S = 60.0


def measure(
    corral: Corral, native: Native, folder: Path, results: Results, *, repeats: int, limit_s: float, patience_s: float
) -> None:
    """Let the server emit `EVENTS` notifications in front of 1, 100 and 1,000 subscribers."""
    subscribe, trigger = folder / "subscribe", folder / "trigger"
    subscribe.write_bytes(corral.request("GET", f"/mcp/{corral.instance}/stream"))
    params = {"name": "burst", "arguments": {"n": EVENTS}}
    call = {"method": "tools/call", "params": params}
    trigger.write_bytes(corral.request("POST", f"/mcp/{corral.instance}/execute", call))
    for _ in machine.paced(repeats, limit_s):
        for subscribers in SUBSCRIBERS:
            machine.wait_quiet(all_pids(corral), patience_s)
            command: list[str | Path] = [
                native.fan,
                str(corral.port),
                str(subscribers),
                str(EVENTS),
                subscribe,
                trigger,
            ]
            with load_program(command, RUN_S) as run:
                own = own_pids(corral)
                before = machine.cpu_of(own)
                result = run()
                used = machine.cpu_since(before, machine.cpu_of(own))
            print(f"fan {subscribers}: {result} gateway {used:.2f} s", file=sys.stderr)
            missing = result["expected"] - result["delivered"]
            results.add(f"fan missing {subscribers}", CORRAL, missing)
            if result["delivered"]:
                results.add(f"fan rate {subscribers}", CORRAL, result["delivered"] / result["seconds"])
                results.add(f"fan last {subscribers}", CORRAL, result["seconds"] * 1000)
