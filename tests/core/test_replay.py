"""The ring of latest events: exact about what a returning reader gets and what is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.replay import Replay, Ring


def ring_of(count: int, **bounds: int) -> Ring:
    ring = Ring(**bounds)
    for number in range(1, count + 1):
        ring.append(b"%d" % number)
    return ring


@pytest.mark.parametrize(
    ("seen", "frames", "missed"),
    [
        (10, (), 0),
        (9, (b"10",), 0),
        (7, (b"8", b"9", b"10"), 0),
        (6, (b"7", b"8", b"9", b"10"), 0),
        (5, (b"7", b"8", b"9", b"10"), 1),
        (0, (b"7", b"8", b"9", b"10"), 6),
    ],
)
def test_a_reader_gets_what_the_ring_still_holds_and_the_number_of_what_is_gone(
    seen: int, frames: tuple[bytes, ...], missed: int
) -> None:
    assert ring_of(10, max_events=4).after(seen) == Replay(frames, missed)


def test_an_empty_ring_has_nothing_to_tell() -> None:
    assert Ring().after(0) == Replay((), 0)


def test_a_ring_that_was_cleared_goes_on_numbering() -> None:
    ring = ring_of(3)
    ring.clear()

    assert (len(ring), ring.size_bytes, ring.last) == (0, 0, 3)
    assert ring.after(1) == Replay((), 2)
    ring.append(b"4")
    assert ring.after(1) == Replay((b"4",), 2)


def test_the_newest_event_stays_however_large_it_is() -> None:
    ring = ring_of(3, max_bytes=4)
    ring.append(b"x" * 100)

    assert ring.after(0) == Replay((b"x" * 100,), 3)
    ring.append(b"5")
    assert ring.after(0) == Replay((b"5",), 4)
    assert ring.size_bytes == 1


@given(
    st.lists(st.binary(max_size=6), max_size=40),
    st.integers(1, 8),
    st.integers(0, 20),
    st.data(),
)
def test_replay_and_what_was_missed_always_add_up(
    frames: list[bytes], max_events: int, max_bytes: int, data: st.DataObject
) -> None:
    ring = Ring(max_events=max_events, max_bytes=max_bytes)
    for frame in frames:
        ring.append(frame)
    seen = data.draw(st.integers(0, ring.last))

    replay = ring.after(seen)

    assert ring.last == len(frames)
    assert seen + replay.missed + len(replay.frames) == ring.last
    assert list(replay.frames) == frames[seen + replay.missed :]
    assert len(ring) <= max_events
    assert ring.size_bytes == sum(map(len, frames[len(frames) - len(ring) :]))
    assert ring.size_bytes <= max_bytes or len(ring) == 1
