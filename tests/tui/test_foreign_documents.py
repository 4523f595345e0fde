"""Documents of what only calls itself a control plane: every reader takes them, and no text of theirs comes out raw."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import attrs
import pytest

from tui.board import event_columns, facts, fleet_history, frames, host_facts, incarnations, series
from tui.deploying import levels

HOSTILE = "\x1b]52;c;aGk=\x07\u202e"
VALUES: list[Any] = [
    *(None, True, -1, 10**400, math.nan, math.inf, HOSTILE, "9999-12-31T23:59:59.999999+00:00"),
    *([], [HOSTILE], [[1]], [{}], {}, {HOSTILE: HOSTILE}, {"a": [1]}),
]


class Foreign(dict[str, Any]):
    """A document whose every member is there, and has the same value."""

    def __init__(self, value: Any, **members: Any) -> None:
        super().__init__(members or {HOSTILE: value})
        self.value = value

    def __missing__(self, _name: str) -> Any:
        return self.value

    def get(self, name: str, _default: Any = None) -> Any:
        return super().get(name, self.value)

    def __contains__(self, _name: object) -> bool:
        return True


def of_frames(document: Mapping[str, Any]) -> Any:
    buffer = frames.FrameBuffer()
    buffer.take(document)
    buffer.take(document)
    for frame in buffer.frames:
        buffer.counterpart(frame)
        json.loads(frames.exported(frame))
        yield from frames.detail(frame)
        yield from (column.cell(frame, 0.0) for column in frames.FRAME_COLUMNS)


def of_timeline(document: Mapping[str, Any]) -> Any:
    timeline = event_columns.Timeline("i")
    timeline.take_page([document])
    for entry in timeline.chosen("all", ""):
        yield entry.said
        yield from event_columns.data_lines(entry)


def of_series(document: Mapping[str, Any]) -> Any:
    of_all = series.Series(series.WINDOWS[-1])
    of_all.take_history([document, Foreign(0, timestamp="2026-01-01T00:00:00Z")])
    return of_all.points


READERS: dict[str, Callable[[Any], Any]] = {
    **{
        name: getattr(facts, name)
        for name in ("launch", "confinement", "protocol", "post_mortem", "ending", "revision", "process")
    },
    "usage": partial(facts.usage, None),
    "held": lambda document: facts.usage(None, {"memory_mb": 1}, document),
    "levels": lambda document: [*levels.labels(document).values(), *levels.missing(document).values()],
    "state": lambda document: facts.state(None, 0.0, document, document),
    "host": lambda document: host_facts.sections(document, document, document, document, document).values(),
    "incarnations": lambda document: incarnations.read([document]),
    "alerts": lambda document: fleet_history.earlier_alerts([document]),
    "happenings": lambda document: [one.said for one in fleet_history.earlier_happenings([document], [])],
    "frames": of_frames,
    "timeline": of_timeline,
    "series": of_series,
}


def texts(value: Any) -> Iterator[str]:
    """All texts in a value, however deep in records and lists."""
    if isinstance(value, str):
        yield value
    elif attrs.has(type(value)):
        for name in (attribute.name for attribute in attrs.fields(type(value))):
            yield from texts(getattr(value, name))
    elif not isinstance(value, Mapping) and hasattr(value, "__iter__"):
        for inner in value:
            yield from texts(inner)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_whatever_a_document_says_it_is_read_and_nothing_of_it_is_shown_raw(
    reader: Callable[[Any], Any], value: Any
) -> None:
    documents = [
        Foreign(value),
        Foreign(Foreign(value)),
        Foreign([Foreign(value)]),
        Foreign(value, timestamp="2026-01-01T00:00:00Z", number=1),
        Foreign(value, timestamp="2026-01-01T00:00:00Z", type="status", data=Foreign(value)),
        Foreign(value, timestamp="2026-01-01T00:00:00Z", direction="to_server", kind="request", id=1),
    ]
    for document in documents:
        for text in texts(reader(document)):
            assert text.isprintable(), text


@pytest.mark.parametrize("id_", [7, "plain", "\x9b", "\x7f", "\u202e", "ü", "\ud800"])
def test_an_id_is_exported_as_it_was(id_: Any) -> None:
    buffer = frames.FrameBuffer()
    buffer.take({"kind": "request", "id": id_, "timestamp": "2026-01-01T00:00:00Z"})
    assert json.loads(frames.exported(buffer.frames[0]))["id"] == id_
    assert buffer.frames[0].id.isprintable()
