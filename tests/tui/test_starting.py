"""What `python -m tui` says before there is a screen."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.plane import ROOT

ANSWERS_S = 30


@pytest.mark.parametrize(
    "way", [[], ["--once"], ["--web", "--no-open", "--port", "0"]], ids=["terminal", "once", "web"]
)
def test_a_theme_that_is_not_there_is_refused_in_a_sentence_that_names_those_that_are(way: list[str]) -> None:
    command = [sys.executable, "-m", "tui", "--theme", "nosuch", *way]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=ANSWERS_S, check=False)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("There is no theme nosuch. There are corral-dark, corral-light, ")
    assert len(done.stderr.splitlines()) == 1
