"""What installing once is worth: deploys of registry packages beside `npx -y` and `uvx` by hand, and a fleet's restart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from bench import machine
from bench.corral import Corral
from bench.programs import BenchError
from bench.results import BY_HAND, CORRAL, Results
from bench.starts import Call, start_and_call

if TYPE_CHECKING:
    from collections.abc import Callable

FLEET = 100
FLEET_S = 300.0
"""The time in which a platform of this size once had 74 of its 99 servers running into their limit."""
COLD_S = 55.0
"""For a package and all it needs, from the registry."""
POLL_S = 0.05
QUIET_S = 5.0
"""After a hundred processes have ended."""
DEAD_PROXY = "http://127.0.0.1:9"
"""Nothing listens on the discard port: whoever asks the network for anything fails at once."""
UV = Path(sys.prefix) / "bin"


@frozen(kw_only=True)
class Package:
    """A server from a registry, and a call that shows that it works."""

    name: str
    argv: Sequence[str]
    call: Call
    env: Mapping[str, str] = field(factory=dict)


def packages(folder: Path) -> list[Package]:
    """The four that people deploy first."""
    repository = folder / "repository"
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
    subprocess.run(["git", "init", "-q", repository], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=repository, check=True)
    subprocess.run(["chmod", "-R", "a+rX", repository], check=True)
    trusted = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    npm = "@modelcontextprotocol/server-"
    return [
        Package(name="memory", argv=("npx", "-y", f"{npm}memory"), call=_tool("read_graph")),
        Package(
            name="filesystem", argv=("npx", "-y", f"{npm}filesystem", "/tmp"), call=_tool("list_allowed_directories")
        ),
        Package(name="time", argv=("uvx", "mcp-server-time"), call=_tool("get_current_time", timezone="UTC")),
        Package(
            name="git", argv=("uvx", "mcp-server-git"), call=_tool("git_status", repo_path=str(repository)), env=trusted
        ),
    ]


def _tool(name: str, **arguments: str) -> Call:
    return "tools/call", {"name": name, "arguments": arguments}


def measure_first_and_next(folder: Path, program: Path, results: Results, *, repeats: int) -> None:
    """Deploy → first result with nothing there yet, and again with all of it there; beside the command by hand."""
    wanted = packages(folder)
    for number in range(repeats):
        place = folder / f"installs-{number}"
        place.mkdir(mode=0o711)
        corral = _fresh(place, program)
        try:
            for package in wanted:
                by_hand = _by_hand(place, package)
                _measure(results, f"cold {package.name}", corral, package, by_hand, number)
                _measure(results, f"warm {package.name}", corral, package, by_hand, number + 1)
        finally:
            corral.server.stop()
            shutil.rmtree(place, ignore_errors=True)


def _fresh(place: Path, program: Path) -> Corral:
    corral = Corral(program)
    (place / f"home-{corral.port}").mkdir(mode=0o711)
    corral.serve(place)
    return corral


def _by_hand(place: Path, package: Package) -> Callable[[], float]:
    """The command with a home and a cache of its own, empty the first time."""
    home = place / f"hand-{package.name}"
    home.mkdir()
    passed = {name: os.environ[name] for name in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE") if name in os.environ}
    env = {"HOME": str(home), "PATH": f"{UV}:{os.environ['PATH']}", "UV_SYSTEM_CERTS": "1", **passed, **package.env}
    return lambda: start_and_call(package.argv, env, package.call)


def _measure(
    results: Results, row: str, corral: Corral, package: Package, by_hand: Callable[[], float], number: int
) -> None:
    """Both ways, in turns who is first."""

    def with_corral() -> float:
        began = time.perf_counter()
        instance = corral.deploy(
            f"{package.name}-{time.monotonic_ns()}", list(package.argv), package.env, wait_s=COLD_S
        )
        corral.call(instance, *package.call)
        took = time.perf_counter() - began
        corral.remove(instance)
        return took

    ways = [(CORRAL, with_corral), (BY_HAND, by_hand)]
    for column, way in ways if number % 2 else reversed(ways):
        results.add(row, column, way())


def measure_fleet(folder: Path, program: Path, results: Results) -> None:
    """Start a control plane whose hundred `npx` instances are to run, with no network in reach.

    Raises:
        BenchError: not all of them run.
    """
    place = folder / "fleet"
    place.mkdir(mode=0o711)
    package = packages(place)[0]
    corral = _fresh(place, program)
    try:
        corral.deploy("server-0", list(package.argv), wait_s=COLD_S)
        for number in range(1, FLEET):
            corral.deploy(f"server-{number}", list(package.argv), wait_s=0)
        _wait_all(corral)
        by_hand = _by_hand(place, package)
        by_hand()
        serial = [by_hand() for _ in range(5)]
        corral.server.stop()
        machine.wait_quiet([], QUIET_S)
        began = time.monotonic()
        corral.serve(place, dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), DEAD_PROXY))
        _wait_all(corral)
        results.add("fleet", CORRAL, time.monotonic() - began)
        results.add("fleet", BY_HAND, FLEET * sorted(serial)[len(serial) // 2])
        results.add("fleet running", CORRAL, _running(corral))
    finally:
        corral.server.stop()


def _running(corral: Corral) -> int:
    rows = corral.ask("GET", "/instances?limit=500&status=running")["instances"]
    return len(rows)


def _wait_all(corral: Corral) -> None:
    deadline = time.monotonic() + FLEET_S
    while (running := _running(corral)) < FLEET:
        if time.monotonic() > deadline:
            raise BenchError(f"{running} of {FLEET} instances run after {FLEET_S:g} s")
        time.sleep(POLL_S)
