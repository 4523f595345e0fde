"""The suite's own bookkeeping: `needs(…)`, `--require-all`, `--long`, and what `corral test` reads from a report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.cli.checks import Counts, read_report
from tests.needs import NEEDS, may_be_skipped

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 60.0

SUITE = """
import pytest
from tests.needs import NEEDS, Need
NEEDS["moon"] = Need(lambda: False, "no moon tonight", optional=True)
NEEDS["tool"] = Need(lambda: False, "no tool")

def test_passes(): pass
@pytest.mark.needs("moon")
def test_moon(): raise AssertionError
@pytest.mark.long
def test_long(): raise AssertionError
"""
TOOL = """
@pytest.mark.needs("tool")
def test_tool(): raise AssertionError
"""


def run_suite(folder: Path, text: str, *flags: str) -> tuple[int, str, Counts]:
    """Run pytest on a small suite of its own, with the real `conftest.py`."""
    (folder / "conftest.py").write_text("from tests.conftest import *\nfrom tests.conftest import _note_skip\n")
    (folder / "test_small.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    long: soak\n    network: registry\n")
    report = folder / "report.xml"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", f"--junitxml={report}", *flags, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    return run.returncode, run.stdout + run.stderr, read_report(report)


def test_an_unmet_need_is_a_skip_with_its_reason(tmp_path):
    code, _, counts = run_suite(tmp_path, SUITE + TOOL)
    assert code == 0
    assert counts == Counts(1, 0, {"needs moon: no moon tonight": 1, "needs tool: no tool": 1})


def test_require_all_lets_pass_what_a_machine_may_lack(tmp_path):
    assert run_suite(tmp_path, SUITE, "--require-all")[0] == 0


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (TOOL, "test_tool: needs tool: no tool"),
        ("def test_other(): pytest.skip('just so')", "test_other: just so"),
        ("@pytest.mark.skipif(True, reason='not today')\ndef test_other(): pass", "test_other: not today"),
        ("pytest.importorskip('no_such_module_here')", "test_small.py: could not import 'no_such_module_here'"),
    ],
)
def test_require_all_fails_for_any_other_skip(tmp_path, more, reason):
    code, text, _ = run_suite(tmp_path, SUITE + more, "--require-all")
    assert code in (1, 5)  # 5: no test was left at all
    assert "skipped, though --require-all was given" in text
    assert reason in text


def test_require_all_does_not_mind_an_expected_failure(tmp_path):
    assert run_suite(tmp_path, SUITE + "@pytest.mark.xfail\ndef test_known(): assert False", "--require-all")[0] == 0


def test_long_tests_run_when_asked_for_only(tmp_path):
    code, _, counts = run_suite(tmp_path, SUITE, "--long")
    assert (code, counts.failed) == (1, 1)


def test_an_unknown_need_is_an_error_not_a_skip(tmp_path):
    code, text, _ = run_suite(tmp_path, "import pytest\n@pytest.mark.needs('rot')\ndef test_a(): pass")
    assert code == 4
    assert "unknown need 'rot'" in text


def test_a_run_without_a_report_counts_as_a_failure(tmp_path):
    assert read_report(tmp_path / "none.xml") == Counts(0, 1, {})
    (tmp_path / "half.xml").write_text("<testsuites><testcase")
    assert read_report(tmp_path / "half.xml").failed == 1


def test_a_broken_module_counts_as_failed(tmp_path):
    code, _, counts = run_suite(tmp_path, "raise RuntimeError('broken')")
    assert (code, counts.failed) == (2, 1)


def test_only_optional_needs_may_be_skipped():
    for name, need in NEEDS.items():
        assert may_be_skipped(f"needs {name}: {need.reason}") == need.optional
    assert not may_be_skipped("needs something: else")
    assert not may_be_skipped("root")
