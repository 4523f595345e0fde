"""An instance's timeline: kept and live events in one order, each once."""

from __future__ import annotations

from typing import Any

import pytest

from tui.board.event_columns import KEPT_ENTRIES, SHOWN_LINES, Timeline, data_lines


def kept(second: int, type_: str = "status", **data: Any) -> dict[str, Any]:
    return {"event_id": str(second), "type": type_, "timestamp": moment(second), "instance_id": "i", "data": data}


def live(second: int, type_: str = "status", **data: Any) -> dict[str, Any]:
    return {"type": type_, "timestamp": moment(second), "instance_id": "i", "owner": "me", **data}


def moment(second: int) -> str:
    return f"2026-01-01T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.000Z"


def test_an_event_heard_live_and_read_from_history_is_one_entry() -> None:
    timeline = Timeline("i")
    assert timeline.take_live("status", 0.0, live(3, status="running", name="x"))
    assert timeline.take_page([kept(2, status="starting", name="x"), kept(3, status="running", name="x")]) == 1
    assert not timeline.take_live("status", 0.0, live(3, status="running", name="x"))
    assert [entry.said.text for entry in timeline.entries] == ["starting", "starting → running"]


def test_an_older_page_comes_before_and_changes_what_the_next_one_says() -> None:
    timeline = Timeline("i")
    timeline.take_page([kept(9, status="running")])
    assert timeline.entries[0].said.text == "running"
    timeline.take_page([kept(1, status="starting")])
    assert [entry.said.text for entry in timeline.entries] == ["starting", "starting → running"]


def test_only_the_newest_entries_are_kept() -> None:
    timeline = Timeline("i")
    timeline.take_page([kept(second, status=str(second)) for second in range(KEPT_ENTRIES + 50)])
    assert len(timeline.entries) == KEPT_ENTRIES
    assert timeline.entries[-1].data["status"] == str(KEPT_ENTRIES + 49)


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("all", "", [1, 2, 3, 4]),
        ("trouble", "", [3, 4]),
        ("states", "", [1, 2, 4]),
        ("messages", "", []),
        ("all", "failed", [3, 4]),
        ("all", "!failed", [1, 2]),
        ("all", "type:post", [3]),
        ("states", "failed !deployed", [4]),
        ("all", "!", [1, 2, 3, 4]),
    ],
)
def test_a_kind_and_a_filter_choose_entries(kind: Any, text: str, found: list[int]) -> None:
    timeline = Timeline("i")
    timeline.take_page(
        [
            kept(1, "deployed", revision=1),
            kept(2, status="starting"),
            kept(3, "post_mortem", reason="why"),
            kept(4, status="failed", reason="why"),
        ]
    )
    assert [int(e.at) % 60 for e in timeline.chosen(kind, text)] == found


def test_data_is_shown_indented_clean_and_bounded() -> None:
    timeline = Timeline("i")
    timeline.take_page(
        [kept(1, "notification", params={"data": "a\x1b[31m\u202eb"}, many=list(range(SHOWN_LINES * 2)))]
    )
    lines = data_lines(timeline.entries[0])
    assert lines[0] == "{"
    assert all(line.isprintable() for line in lines)
    assert len(lines) == SHOWN_LINES + 1
    assert lines[-1].endswith("lines more")
