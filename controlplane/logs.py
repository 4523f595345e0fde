"""How the control plane's own log is written: text for people, JSON for machines.

Text goes to standard error, a JSON object a line to standard output, and either
to `corral.log` in a folder as well. A record is one line, whatever it holds
(a traceback in text excepted): what strangers write cannot forge another.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controlplane import tracing

LOG_FILE_BYTES = 10 * 2**20
LOG_FILES = 5
"""Those before the present one that are kept."""
EXC_MAX_CHARS = 16_000
"""Of a traceback in a JSON line: its first and its last part."""
OURS = ("corral", "controlplane", "egress")
"""Loggers that LOG_LEVEL is for. Others' are heard from WARNING on: at DEBUG some tell what they send, secrets included."""
FIELDS = ("request_id", "instance", "owner")
"""What a record may name: by `extra`, or in its message as `request %s`, `instance %s`, `owner %s`."""

AUDIT_FIELDS = ("actor", "credential", "address", "action", "target", "status", "count")
"""What a line of the audit log (`corral.audit`) holds beside those."""

_PLACE = re.compile(r"%%|(?:\b(request|instance|owner) )?%[sdr]|%[-0-9.]*[a-zA-Z]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class JsonLines(logging.Formatter):
    """One JSON object a line, ASCII only; absent fields are left out."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        line |= named(record)
        line |= {name: value for name in AUDIT_FIELDS if (value := record.__dict__.get(name)) is not None}
        context = tracing.active.get()
        if context is not None:
            line |= {"trace_id": context.trace_id, "span_id": context.span_id}
        if record.exc_info and record.exc_info[1] is not None:
            line["exc"] = _shortened("".join(traceback.format_exception(record.exc_info[1])))
        return json.dumps(line, default=str).replace("\x7f", "\\u007f")


class TextLines(logging.Formatter):
    """As people read it; control characters in a message are escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = _CONTROL.sub(_escaped, record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return "\n".join(_CONTROL.sub(_escaped, line) for line in super().formatException(ei).split("\n"))


def named(record: logging.LogRecord) -> dict[str, str]:
    """The request, instance and owner that a record is about."""
    found: dict[str, str] = {}
    if isinstance(record.args, tuple) and isinstance(record.msg, str):
        places = [match[1] for match in _PLACE.finditer(record.msg) if match[0] != "%%"]
        for what, value in zip(places, record.args, strict=False):
            if what is not None:
                found["request_id" if what == "request" else what] = str(value)
    for name in FIELDS:
        if (value := record.__dict__.get(name)) is not None:
            found[name] = str(value)
    return found


def open_log(level: str, folder: Path | None, *, form: str = "text") -> None:
    """Write the log from now on.

    Args:
        level: Of what is Corral's own.
        folder: Where `corral.log` is written too, and turned over at `LOG_FILE_BYTES`; None: nowhere.
        form: `text` or `json`.
    """
    is_json = form == "json"
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout if is_json else sys.stderr)]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.handlers.RotatingFileHandler(
                folder / "corral.log", maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILES, encoding="utf-8"
            )
        )
    for handler in handlers:
        handler.setFormatter(JsonLines() if is_json else TextLines())
    numeric = logging.getLevelNamesMapping()[level]
    logging.basicConfig(level=max(numeric, logging.WARNING), handlers=handlers, force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(numeric)
    logging.captureWarnings(capture=True)
    # asyncpg's own word on a lost connection; the store says it better.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a format that does not fit its values must not cost the line
        return f"{record.msg} {record.args!r}"


def _shortened(text: str) -> str:
    half = EXC_MAX_CHARS // 2
    return text if len(text) <= EXC_MAX_CHARS else f"{text[:half]}\n…\n{text[-half:]}"


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
