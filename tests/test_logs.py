"""The control plane's own log: one record, one line, whatever it holds."""

from __future__ import annotations

import io
import json
import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from controlplane import logs, tracing
from controlplane.core.tracecontext import TraceContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = 'a\n{"level":"INFO"}\r\x1b[31m\x00\x7f\x85\u2028\u202e\ud800"\\'


@contextmanager
def opened(level: str, folder: Path | None, form: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    root = logging.getLogger()
    before = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in logs.OURS}
    try:
        logs.open_log(level, folder, form=form)
        yield out, err
    finally:
        for handler in root.handlers:
            handler.close()
        logging.captureWarnings(capture=False)
        root.handlers[:], root.level = before[0], before[1]
        for name, was in before[2].items():
            logging.getLogger(name).setLevel(was)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_goes_to_standard_output_and_to_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("INFO", tmp_path / "logs", "json", monkeypatch) as (out, err):
        logging.getLogger("corral.web").info("hello %s", "you")

    (line,) = lines(out.getvalue())
    assert (tmp_path / "logs/corral.log").read_text() == out.getvalue()
    assert err.getvalue() == ""
    assert line.pop("time").endswith("Z")
    assert line == {"level": "INFO", "logger": "corral.web", "message": "hello you"}


def test_text_goes_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("INFO", None, "text", monkeypatch) as (out, err):
        logging.getLogger("corral.web").info("hello")

    assert out.getvalue() == ""
    assert err.getvalue().endswith("INFO    corral.web: hello\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_strangers_write_cannot_forge_a_line(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("INFO", None, form, monkeypatch) as (out, err):
        logging.getLogger("corral").info("said: %s", HOSTILE)

    text = out.getvalue() + err.getvalue()
    assert len(text.splitlines()) == 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text.rstrip("\n"))
    if form == "json":
        assert lines(text)[0]["message"] == f"said: {HOSTILE}"


def test_an_exception_is_a_field_of_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("INFO", None, "json", monkeypatch) as (out, _):
        try:
            raise ExceptionGroup("several", [ValueError("one\ntwo")])
        except ExceptionGroup:
            logging.getLogger("corral").exception("incident %s in request %s", "9f", "req-1")

    (line,) = lines(out.getvalue())
    assert "ValueError: one\n    | two\n" in line["exc"]
    assert line["request_id"] == "req-1"
    assert line["message"] == "incident 9f in request req-1"


def test_a_deep_traceback_is_cut_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("INFO", None, "json", monkeypatch) as (out, _):
        try:
            raise ValueError("x" * 100_000)
        except ValueError:
            logging.getLogger("corral").exception("no")

    exc = lines(out.getvalue())[0]["exc"]
    assert exc.startswith("Traceback")
    assert len(exc) < logs.EXC_MAX_CHARS + 10


@pytest.mark.parametrize(
    ("message", "arguments", "extra", "fields"),
    [
        ("instance %s: internal error in process %d", ("i-1", 3), {}, {"instance": "i-1"}),
        ("100%% of %s for owner %s", ("x", "ann"), {}, {"owner": "ann"}),
        ("%.1f s in request %s", (1.5, "r"), {}, {"request_id": "r"}),
        (
            "plain",
            (),
            {"instance": "i-2", "owner": "bob", "request_id": "r"},
            {"instance": "i-2", "owner": "bob", "request_id": "r"},
        ),
        ("plain", (), {}, {}),
    ],
)
def test_a_line_names_what_its_record_is_about(
    message: str,
    arguments: tuple[object, ...],
    extra: dict[str, str],
    fields: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with opened("INFO", None, "json", monkeypatch) as (out, _):
        logging.getLogger("corral").info(message, *arguments, extra=extra)

    (line,) = lines(out.getvalue())
    assert {name: line[name] for name in logs.FIELDS if name in line} == fields


def test_a_line_within_a_trace_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("INFO", None, "json", monkeypatch) as (out, _):
        token = tracing.active.set(TraceContext("a" * 32, "b" * 16))
        logging.getLogger("corral").info("within")
        tracing.active.reset(token)

    (line,) = lines(out.getvalue())
    assert (line["trace_id"], line["span_id"]) == ("a" * 32, "b" * 16)


def test_a_format_that_does_not_fit_costs_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("INFO", None, "json", monkeypatch) as (out, _):
        logging.getLogger("corral").info("%d of %d", "one")  # noqa: PLE1206

    assert lines(out.getvalue())[0]["message"] == "%d of %d ('one',)"


def test_the_level_is_for_our_own_loggers_and_others_are_heard_from_warning_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("DEBUG", None, "json", monkeypatch) as (out, _):
        logging.getLogger("corral.web").debug("ours")
        logging.getLogger("controlplane.spawn.client").debug("ours too")
        logging.getLogger("httpx").info("not this")
        logging.getLogger("httpx").warning("but this")

    assert [line["message"] for line in lines(out.getvalue())] == ["ours", "ours too", "but this"]
