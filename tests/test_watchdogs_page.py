"""The page about watchdogs says what the rules are: each number, each word."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.core import leak, liveness, watchdog
from controlplane.core.watchdog import CODES, Rule
from controlplane.supervise.meter import READINGS_KEPT
from controlplane.supervise.watchdog import NICE, TIDY_S

PAGE = (Path(__file__).parent.parent / "docs/reference/watchdogs.md").read_text()
RULES = {
    "memory": watchdog.MEMORY,
    "cpu": watchdog.CPU,
    "processes": watchdog.PROCESSES,
    "open_files": watchdog.OPEN_FILES,
    "disk": watchdog.DISK,
    "log_flood": watchdog.LOG_FLOOD,
}


def cell(share: float | None, seconds: float = 0) -> str:
    if share is None:
        return ""
    return f"{share * 100:.0f} %" + (f" for {seconds:g} s" if seconds else "")


@pytest.mark.parametrize(("what", "rule"), RULES.items())
def test_each_rule_has_its_row(what: str, rule: Rule) -> None:
    cells = [
        f"`{what}`",
        cell(rule.warn, rule.warn_s),
        cell(rule.restart, rule.restart_s),
        cell(rule.kill),
        cell(rule.calm, rule.calm_s),
    ]
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{what}`"))
    assert [part.strip() for part in row.strip("|").split("|")] == cells


def test_where_the_kernel_holds_memory_it_is_told_of_at_the_same_shares() -> None:
    held, soft = watchdog.HELD_MEMORY, watchdog.MEMORY
    assert (held.warn, held.warn_s, held.calm, held.calm_s) == (soft.warn, soft.warn_s, soft.calm, soft.calm_s)
    assert (held.restart, held.kill) == (None, None)


def test_every_code_and_every_word_is_there() -> None:
    missing = {word for word in (*CODES, *(set(CODES.values()) - {"log_flood"})) if f"`{word}`" not in PAGE}
    assert missing == set()


@pytest.mark.parametrize(
    "words",
    [
        f"of the last {leak.STRETCHES * leak.STRETCH_S / 60:.0f} minutes",
        f"within {leak.SOON_S / 60:.0f} minutes",
        f"At {watchdog.LEAK_RESTART * 100:.0f} % of the",
        f"have waited for {liveness.PING_AFTER_S:g} s",
        f"{liveness.WARN_S:g} s without an answer",
        f"silent for {liveness.GRACE_S:g} s longer",
        f"for {liveness.KILL_MIN_S:g} s at least",
        f"({liveness.FROZEN_LOOKS} samples)",
        f"reads nothing for {liveness.DEAF_S:g} s",
        f"(nice {NICE})",
        f"within {TIDY_S:g} s",
        f"the last {READINGS_KEPT} readings",
    ],
)
def test_each_number_is_there(words: str) -> None:
    assert words in PAGE
