"""The official conformance suite as a program: installed from npm as the lock file has it, run, and its report read.

Both lines of it are here, as npm calls them: `LATEST` knows the revisions up to 2025-11-25, `NEXT` knows 2026-07-28
too. They need a Node newer than many machines have, so one is installed beside them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from attrs import frozen

from tests import npm_packages

if TYPE_CHECKING:
    from collections.abc import Mapping

LATEST, NEXT = "conformance-2025", "conformance-2026"
MANIFEST = Path(__file__).parent / "suite"
RUN_LIMIT_S = 300
"""For a whole suite; measured 2 to 10 s, 50 s on a machine with six times the work, and a scenario ends after 30 s by itself."""

_FOLDER = re.compile(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
_NOT_SCORED = re.compile(r"^Not scored for \S+: (\d+) scenario", re.MULTILINE)


@frozen
class Report:
    """What one run said. A scenario passes when none of its checks fails or warns."""

    status: int
    """The exit status: 0 says that nothing that counts has failed, whatever warned."""
    output: str
    scenarios: Mapping[str, list[dict[str, Any]]]
    """The checks of each scenario, as the suite wrote them."""

    @property
    def not_passed(self) -> set[str]:
        return {name for name in self.scenarios if self.complaints(name)}

    @property
    def scored(self) -> int:
        """How many scenarios count for the revision (of a run with --requirements)."""
        found = _NOT_SCORED.search(self.output)
        assert found is not None, self.output[-2000:]
        return len(self.scenarios) - int(found[1])

    def complaints(self, name: str) -> list[str]:
        """What was wrong in one scenario, a line each."""
        return [
            f"{name}: {check['status']} {check['id']}: {check.get('errorMessage', '')}"
            for check in self.scenarios[name]
            if check["status"] in ("FAILURE", "WARNING")
        ]


def installed() -> Path:
    """The folder with the suite's packages; see `npm_packages.installed`."""
    return npm_packages.installed(MANIFEST, "conformance")


async def run(package: str, url: str, *arguments: str) -> Report:
    """Run the server scenarios of one line of the suite against an endpoint."""
    suite = await trio.to_thread.run_sync(installed)
    machine = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
    node = suite / "node_modules" / f"node-linux-{machine}" / "bin" / "node"
    program = suite / "node_modules" / package / "dist" / "index.js"
    with tempfile.TemporaryDirectory() as results, trio.fail_after(RUN_LIMIT_S):
        argv = [str(node), str(program), "server", "--url", url, "--output-dir", results, *arguments]
        done = await trio.run_process(
            argv, check=False, capture_stdout=True, stderr=subprocess.STDOUT, env=_environment()
        )
        return Report(done.returncode, done.stdout.decode(errors="replace"), _scenarios(Path(results)))


def _environment() -> dict[str, str]:
    """No proxy: what is tested is on this machine."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


def _scenarios(results: Path) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for checks in results.glob("*/checks.json"):
        name = _FOLDER.fullmatch(checks.parent.name)
        assert name is not None, checks
        found[name[1]] = json.loads(checks.read_text())
    return found
