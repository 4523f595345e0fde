"""Which log messages a client gets that asked for a minimum."""

from __future__ import annotations

import pytest

from controlplane.protocol.logging_levels import LEVELS, level_in, minimum_in, passes


def test_a_minimum_lets_itself_and_everything_more_severe_through() -> None:
    for rank, minimum in enumerate(LEVELS):
        assert [level for level in LEVELS if passes(level, minimum)] == list(LEVELS[rank:])


def test_severities_are_those_of_syslog_the_least_severe_first() -> None:
    assert LEVELS == ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


@pytest.mark.parametrize("minimum", [None, "", "warn", "DEBUG"])
def test_without_a_minimum_nothing_passes(minimum: str | None) -> None:
    assert not any(passes(level, minimum) for level in (*LEVELS, None))


@pytest.mark.parametrize("level", [None, "", "warn", "trace"])
def test_a_message_of_no_known_level_is_not_lost(level: str | None) -> None:
    assert passes(level, "emergency")


@pytest.mark.parametrize(
    ("params", "level"),
    [
        (b'{"level":"info","data":[1]}', "info"),
        (b'{"data":"\\ud83d","level":"info"}', "info"),
        (b'{"data":' + b"[" * 50_000 + b"]" * 50_000 + b',"level":"info"}', None),
        (b'{"level":5}', None),
        (b"{}", None),
        (b"[]", None),
        (None, None),
    ],
)
def test_a_level_is_read_from_raw_parameters(params: bytes | None, level: str | None) -> None:
    assert level_in(params) == level


def test_a_minimum_that_is_no_level_is_refused_by_name() -> None:
    assert minimum_in(b'{"level":"notice"}') == "notice"
    for params in (b'{"level":"warn"}', b"{}", None):
        with pytest.raises(ValueError, match="`level` must be one of debug, info, "):
            minimum_in(params)
