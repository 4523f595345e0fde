"""Options and skip bookkeeping of the whole test suite: `--long`, `--require-all`, `needs(…)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.needs import NEEDS, may_be_skipped, skip_unless

if TYPE_CHECKING:
    from collections.abc import Iterator

REFUSED_SKIPS = pytest.StashKey[dict[str, str]]()
"""Skips that `--require-all` does not let pass: test -> reason."""

# A busy machine is no failure, and neither is a test that fails one time in many: the examples are the same in each
# run. `--hypothesis-profile=default` looks further.
settings.register_profile("corral", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("corral")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("corral")
    group.addoption("--long", action="store_true", help="also run the soak and chaos tests (marked `long`)")
    group.addoption(
        "--require-all",
        action="store_true",
        help="a skip fails the run, unless the machine may lack what the test needs (tests/needs.py)",
    )
    group.addoption("--update-snapshots", action="store_true", help="take the dashboard's pictures anew")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(name, …): skipped where the machine lacks it; names in tests/needs.py")
    config.stash[REFUSED_SKIPS] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        unknown = [name for mark in item.iter_markers("needs") for name in mark.args if name not in NEEDS]
        if unknown:
            raise pytest.UsageError(f"{item.nodeid}: unknown need {unknown[0]!r}: tests/needs.py lists them")
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_runtest_setup(item: pytest.Item) -> None:
    skip_unless(*(name for mark in item.iter_markers("needs") for name in mark.args))
    if item.get_closest_marker("network"):
        skip_unless("registry")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    _note_skip(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    _note_skip(collector.config, report)
    return report


def _note_skip(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
        return
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if not may_be_skipped(reason):
        config.stash[REFUSED_SKIPS][report.nodeid] = reason


def pytest_sessionfinish(session: pytest.Session) -> None:
    refused = session.config.stash[REFUSED_SKIPS]
    if refused and session.config.getoption("--require-all") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    refused = config.stash[REFUSED_SKIPS]
    if refused and config.getoption("--require-all"):
        terminalreporter.section("skipped, though --require-all was given", red=True)
        for test, reason in refused.items():
            terminalreporter.write_line(f"{test}: {reason}")
