"""Numbers and times as people write them, both ways. Pure: the clock is passed in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TypeGuard

from controlplane.wire.text import clean

FIGURE_MAX = 1e15
"""No figure of a fleet comes near; JSON has integers that no float can hold."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def parse_duration(text: str) -> float:
    """Return the seconds that `90`, `90s`, `15m`, `1h30m` or `7d` mean.

    Raises:
        ValueError: it is none of these, or not more than zero.
    """
    squeezed = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", squeezed):
        seconds = float(squeezed)
    elif _DURATION.sub("", squeezed).strip() == "" and squeezed:
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(squeezed))
    else:
        raise ValueError(f"{text!r} is not a duration such as 90s, 15m, 1h30m or 7d")
    if not 0 < seconds < 1e10:
        raise ValueError(f"{text!r} is not a duration above zero")
    return seconds


def parse_moment(text: str, now: datetime) -> str:
    """Return, as RFC 3339 in UTC, the moment that a duration before `now` or an RFC 3339 time names.

    Raises:
        ValueError: it is neither.
    """
    try:
        moment = now - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ValueError(
                f"{text!r} is neither a duration such as 15m nor a time such as 2026-01-31T12:00"
            ) from None
        if moment.tzinfo is None:
            moment = moment.astimezone()
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local_time(timestamp: object, now: datetime) -> str:
    """Return an API timestamp in local time: the time of day, with the date before it where that is not today's."""
    try:
        moment = datetime.fromisoformat(str(timestamp)).astimezone()
    except (ValueError, OverflowError):
        return clean(timestamp)
    day = "" if moment.date() == now.astimezone().date() else moment.strftime("%Y-%m-%d ")
    return f"{day}{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"


def local_date(timestamp: object) -> str:
    """Return an API timestamp as local date and minute; empty for none."""
    if not timestamp:
        return ""
    try:
        return datetime.fromisoformat(str(timestamp)).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return clean(timestamp)


def is_figure(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number that people can read: JSON has larger ones, and Python writes NaN into it."""
    return isinstance(value, (int, float)) and -FIGURE_MAX < value < FIGURE_MAX


def duration(seconds: object) -> str:
    """Return seconds in the two largest units that matter; `-` for none."""
    if not is_figure(seconds):
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for unit, size, below in (("d", 86_400, "h"), ("h", 3600, "m"), ("m", 60, "s")):
        if whole >= size:
            rest = whole % size // _SECONDS[below]
            return f"{whole // size}{unit}{rest}{below}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"


def millis(value: object) -> str:
    """Return milliseconds with the digits that matter; `-` for none."""
    if not is_figure(value):
        return "-"
    if value >= 10_000:
        return f"{value / 1000:.0f}s"
    return f"{value:.0f}ms" if value >= 10 else f"{value:.1f}ms"


def mebibytes(value: object) -> str:
    """Return MiB, or GiB from 10,000 on; `-` for none."""
    if not is_figure(value):
        return "-"
    return f"{value / 1024:.1f}G" if value >= 10_000 else f"{value:.0f}M"


def percent(value: object) -> str:
    """Return per cent; `-` for none."""
    if not is_figure(value):
        return "-"
    return f"{value:.0f}%" if value >= 10 else f"{value:.1f}%"


def count(value: object) -> str:
    """Return a count with thin thousands (`12,345`); `-` for none."""
    return f"{value:,}" if is_figure(value) and isinstance(value, int) else "-"


def kibibytes_a_second(value: object) -> str:
    """Return a rate with its unit, for example `512 KiB/s`."""
    return f"{value:,} KiB/s" if isinstance(value, int | float) else "-"


_UNITS = (
    ("_kb_s", kibibytes_a_second),
    ("_ms", millis),
    ("_mb", mebibytes),
    ("_percent", percent),
    ("_seconds", duration),
    ("_s", duration),
)


def plain_name(name: str) -> str:
    """Return a field's name as words, without the unit at its end."""
    unit = next((suffix for suffix, _ in _UNITS if name.endswith(suffix)), "")
    return name.removesuffix(unit).replace("_", " ")


def in_unit(name: str, value: object) -> str:
    """Return a field's value in the unit that its name ends in."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    for suffix, shown in _UNITS:
        if name.endswith(suffix):
            return shown(value)
    if isinstance(value, list):
        return " ".join(str(item) for item in value) or "-"
    return f"{value:,}" if isinstance(value, int) else str(value)
