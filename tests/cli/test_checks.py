"""`corral test`, on a small checkout with steps of its own."""

from __future__ import annotations

import pytest

from controlplane.cli import checks
from controlplane.cli.app import run

SUITE = """
import pytest
def test_one(): pass
def test_two(record_property): record_property("measured", 1)
@pytest.mark.skip(reason="no moon tonight")
def test_three(): pass
"""
GOOD, BAD = ("-c", "print('fine')"), ("-c", "print('not fine'); raise SystemExit(3)")


@pytest.fixture
def suite(tmp_path, monkeypatch, capfd):
    """Run `corral test` on a checkout with these steps; returns its exit code and what it printed."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    monkeypatch.setattr(checks, "SUITES", {"pytest": ()})

    def run_suite(text: str, *arguments: str, steps=(("lint", GOOD),)):
        (tmp_path / "tests" / "test_small.py").write_text(text)
        monkeypatch.setattr(checks, "STEPS", steps)
        code = run(["test", *arguments])
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err

    return run_suite


def test_it_ends_with_the_numbers_and_the_reason_of_every_skip(suite):
    code, out, err = suite(SUITE)
    assert code == 0
    assert out[-1] == "2 passed, 0 failed, 1 skipped"
    assert "skipped 1: no moon tonight" in out
    assert out.index("fine") < next(at for at, line in enumerate(out) if "1 skipped in" in line)
    assert "✓ passed  lint" in err
    assert "✓ passed  pytest" in err


def test_a_failed_step_does_not_stop_the_others_and_fails_the_run(suite):
    code, out, err = suite(SUITE, steps=(("types", BAD), ("lint", GOOD)))
    assert code == 1
    assert "✗ failed  types" in err
    assert "✓ passed  lint" in err
    assert out[-2:] == ["✗ failed: types", "2 passed, 0 failed, 1 skipped"]


def test_a_failed_test_fails_the_run(suite):
    code, out, _ = suite(SUITE + "\ndef test_four(): assert False\n")
    assert code == 1
    assert out[-2:] == ["✗ failed: pytest", "2 passed, 1 failed, 1 skipped"]


def test_further_arguments_are_pytests(suite):
    code, out, _ = suite(SUITE, "-k", "one", "--maxfail=1")
    assert (code, out[-1]) == (0, "1 passed, 0 failed, 0 skipped")


def test_the_dashboards_tests_run_in_a_process_of_their_own_and_are_counted_in(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "SUITES", {"pytest": ("--ignore=tests/tui",), "pytest tests/tui": ("tests/tui",)})
    (tmp_path / "tests" / "tui").mkdir()
    alone = "import os, sys\ndef test_alone(): assert not [name for name in sys.modules if 'test_small' in name]\n"
    (tmp_path / "tests" / "tui" / "test_dashboard.py").write_text(alone + "def test_bad(): assert False\n")
    code, out, err = suite(SUITE)
    assert code == 1
    assert out[-2:] == ["✗ failed: pytest tests/tui", "3 passed, 1 failed, 1 skipped"]
    assert "✓ passed  pytest " in err


def test_without_a_checkout_it_says_where_the_tests_are(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    assert run(["test"]) == 2
    assert "Run `./corral test` in a clone" in capfd.readouterr().err
