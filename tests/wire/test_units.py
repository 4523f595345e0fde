"""Fields by their names: the words, and the value in its unit."""

from __future__ import annotations

import pytest

from controlplane.wire.units import in_unit, plain_name


@pytest.mark.parametrize(
    ("name", "value", "words", "shown"),
    [
        ("memory_mb", 256, "memory", "256M"),
        ("cpu_percent", 80, "cpu", "80%"),
        ("call_timeout_s", 60, "call timeout", "1m"),
        ("log_kb_s", 1024, "log", "1,024 KiB/s"),
        ("open_files", 1024, "open files", "1,024"),
    ],
)
def test_a_limit_reads_as_a_person_says_it(name: str, value: float, words: str, shown: str) -> None:
    assert (plain_name(name), in_unit(name, value)) == (words, shown)
