"""`corral test`: every check and test of a source checkout, in one go, with a line that sums them up.

Runs the tools of the checkout's own environment one after the other, goes on past a failed one, and reads the tests'
results from pytest's reports. The control plane and the dashboard are two programs, on Trio and on asyncio, so their
tests run in two processes, side by side. Knows nothing of the tests themselves: `tests/conftest.py` owns what may be
skipped.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click
from attrs import frozen

from controlplane.cli.exits import CommandFailed, Exit, Problem, program
from controlplane.cli.screen import Screen
from controlplane.wire.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterable

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
SUITES: dict[str, tuple[str, ...]] = {
    "pytest": ("--ignore=tests/tui",),
    "pytest tests/tui": ("tests/tui",),
}
"""Name -> what it runs, where no arguments say what to run."""
REPORT_FAMILY = "xunit1"
"""The later one refuses tests that record what they measured."""
LOOK_AGAIN_S = 0.2
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
    suites = {"pytest": pytest_arguments} if pytest_arguments else SUITES
    with tempfile.TemporaryDirectory(prefix="corral-test-") as folder:
        runs = [_Run.start(name, (*flags, *selection), Path(folder)) for name, selection in suites.items()]
        try:
            failed += [run.name for run in runs if not run.finish(screen)]
        finally:
            for run in runs:
                run.process.terminate()
                run.process.wait()
        counts = _sum(read_report(run.report) for run in runs)
    _sum_up(screen, counts, failed, long=long)
    if failed:
        raise click.exceptions.Exit(Exit.FAILED)


def _step(screen: Screen, name: str, argv: tuple[str, ...]) -> bool:
    """Run one tool with its output as it comes, then say how it went."""
    screen.note((f"── {name} ", "bold"))
    began = time.monotonic()
    passed = subprocess.run([sys.executable, *argv], cwd=ROOT, check=False).returncode == 0
    _say_how_it_went(screen, name, began, passed=passed)
    return passed


def _say_how_it_went(screen: Screen, name: str, began: float, *, passed: bool) -> None:
    sign = ("✓ passed", "green") if passed else ("✗ failed", "bold red")
    screen.note(sign, f"  {name}  ", (duration(time.monotonic() - began), "dim"))


@frozen
class _Run:
    """One pytest process, with its output in a file until its turn to be shown."""

    name: str
    process: subprocess.Popen[bytes]
    report: Path
    _output: Path
    _began: float

    @classmethod
    def start(cls, name: str, arguments: tuple[str, ...], folder: Path) -> _Run:
        slug = name.replace("/", "-").replace(" ", "-")
        report, output = folder / f"{slug}.xml", folder / f"{slug}.txt"
        argv = ("-m", "pytest", f"--junitxml={report}", "-o", f"junit_family={REPORT_FAMILY}", *arguments)
        with output.open("wb") as sink:
            process = subprocess.Popen([sys.executable, *argv], cwd=ROOT, stdout=sink, stderr=subprocess.STDOUT)
        return cls(name, process, report, output, time.monotonic())

    def finish(self, screen: Screen) -> bool:
        """Show the output from its start, as it comes, until the process has ended; returns whether it passed."""
        screen.note((f"── {self.name} ", "bold"))
        with self._output.open("rb") as output:
            ended = False
            while not ended:
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(LOOK_AGAIN_S)
                    ended = True
                shutil.copyfileobj(output, sys.stdout.buffer)
                sys.stdout.flush()
        passed = self.process.returncode == 0
        _say_how_it_went(screen, self.name, self._began, passed=passed)
        return passed


def _sum(parts: Iterable[Counts]) -> Counts:
    passed, failed, skips = 0, 0, Counter[str]()
    for part in parts:
        passed, failed = passed + part.passed, failed + part.failed
        skips.update(part.skips)
    return Counts(passed, failed, dict(skips))


def read_report(path: Path) -> Counts:
    """Read pytest's JUnit report; a run that left none counts as one failure."""
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))  # noqa: S314  (our own pytest wrote it)
    except (OSError, ElementTree.ParseError):
        return Counts(0, 1, {})
    failed = sum(any(case.find(tag) is not None for tag in ("failure", "error")) for case in cases)
    skipped = [skip for case in cases if (skip := case.find("skipped")) is not None]
    skips = Counter(skip.get("message") or "no reason given" for skip in skipped)
    return Counts(len(cases) - failed - len(skipped), failed, dict(skips))


def _sum_up(screen: Screen, counts: Counts, failed: list[str], *, long: bool) -> None:
    if not long:
        screen.line(("Not run: the soak and chaos tests", "dim"), (f" ({program()} test --long)", "dim"))
    for reason, times in counts.skips.items():
        screen.line(f"skipped {times}: {reason}")
    if failed:
        screen.line((f"✗ failed: {', '.join(failed)}", "bold red"))
    screen.line((f"{counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped", "bold"))
