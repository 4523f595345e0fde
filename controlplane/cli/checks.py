"""`corral test`: every check and test of a source checkout, in one go, with a line that sums them up.

Runs the tools of the checkout's own environment one after the other, goes on past a failed one, and reads the tests'
results from pytest's report. Knows nothing of the tests themselves: `tests/conftest.py` owns what may be skipped.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import click
from attrs import frozen

from controlplane.cli.exits import CommandFailed, Exit, Problem, program
from controlplane.cli.screen import Screen
from controlplane.wire.units import duration

ROOT = Path(__file__).resolve().parents[2]
BOOTSTRAP = "corral"
"""The script without a suffix: linters do not find it by themselves."""
LINT_IMPORTS = str(Path(sys.executable).with_name("lint-imports"))
"""Its module cannot be run with `-m`."""
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ruff check", ("-m", "ruff", "check", "--quiet", ".", BOOTSTRAP)),
    ("ruff format", ("-m", "ruff", "format", "--check", "--quiet", ".", BOOTSTRAP)),
    ("mypy", ("-m", "mypy")),
    ("lint-imports", (LINT_IMPORTS,)),
)
REPORT_FAMILY = "xunit1"
"""The later one refuses tests that record what they measured."""
NOT_HERE = Problem(
    title="The tests are not here",
    detail="`test` runs the checks and tests of a source checkout.",
    hint="Run `./corral test` in a clone of the repository.",
)


@frozen
class Counts:
    """What became of the tests; `skips` holds (reason, how many)."""

    passed: int
    failed: int
    skips: dict[str, int]

    @property
    def skipped(self) -> int:
        return sum(self.skips.values())


@click.command(
    short_help="Run all checks and tests of this checkout.", context_settings={"ignore_unknown_options": True}
)
@click.option("--long", is_flag=True, help="Also the soak and chaos runs.")
@click.option("--require-all", is_flag=True, help="A skip fails, unless the machine may lack what it needs.")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def test(*, long: bool, require_all: bool, pytest_arguments: tuple[str, ...]) -> None:
    """Run ruff, mypy, lint-imports and pytest on this checkout; further arguments go to pytest.

    Ends with the numbers of tests passed, failed and skipped, and with the reason of every skip. Exits with 1 when
    any check or test failed.
    """
    if not (ROOT / "tests").is_dir() or importlib.util.find_spec("pytest") is None:
        raise CommandFailed(NOT_HERE, Exit.USAGE)
    screen = Screen()
    failed = [name for name, argv in STEPS if not _step(screen, name, argv)]
    flags = [flag for flag, wanted in (("--long", long), ("--require-all", require_all)) if wanted]
    with tempfile.TemporaryDirectory(prefix="corral-test-") as folder:
        report = Path(folder) / "report.xml"
        pytest = ("-m", "pytest", f"--junitxml={report}", "-o", f"junit_family={REPORT_FAMILY}")
        if not _step(screen, "pytest", (*pytest, *flags, *pytest_arguments)):
            failed.append("pytest")
        counts = read_report(report)
    _sum_up(screen, counts, failed, long=long)
    if failed:
        raise click.exceptions.Exit(Exit.FAILED)


def _step(screen: Screen, name: str, argv: tuple[str, ...]) -> bool:
    """Run one tool with its output as it comes, then say how it went."""
    screen.note((f"── {name} ", "bold"))
    began = time.monotonic()
    passed = subprocess.run([sys.executable, *argv], cwd=ROOT, check=False).returncode == 0
    sign = ("✓ passed", "green") if passed else ("✗ failed", "bold red")
    screen.note(sign, f"  {name}  ", (duration(time.monotonic() - began), "dim"))
    return passed


def read_report(path: Path) -> Counts:
    """Read pytest's JUnit report; a run that left none counts as one failure."""
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))  # noqa: S314  (our own pytest wrote it)
    except (OSError, ElementTree.ParseError):
        return Counts(0, 1, {})
    failed = sum(any(case.find(tag) is not None for tag in ("failure", "error")) for case in cases)
    skips: dict[str, int] = {}
    for case in cases:
        skip = case.find("skipped")
        if skip is not None:
            reason = skip.get("message") or "no reason given"
            skips[reason] = skips.get(reason, 0) + 1
    return Counts(len(cases) - failed - sum(skips.values()), failed, skips)


def _sum_up(screen: Screen, counts: Counts, failed: list[str], *, long: bool) -> None:
    if not long:
        screen.line(("Not run: the soak and chaos tests", "dim"), (f" ({program()} test --long)", "dim"))
    for reason, times in counts.skips.items():
        screen.line(f"skipped {times}: {reason}")
    if failed:
        screen.line((f"✗ failed: {', '.join(failed)}", "bold red"))
    screen.line((f"{counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped", "bold"))
