"""Query strings: closed, typed, and all wrong places at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import InvalidRequest
from controlplane.web.query import MAX_PAIRS, parse_query
from controlplane.wire.fields import bounded


@frozen(kw_only=True)
class Sample:
    """Every type that a parameter may have."""

    count: int = bounded(7, minimum=0, maximum=10)
    ratio: float | None = bounded(None, maximum=100)
    flag: bool = False
    word: Literal["a", "b"] | None = None
    words: list[Literal["a", "b"]] | None = None
    since: datetime | None = None
    text: str | None = bounded(None, maxLength=5)


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"", {"count": 7, "flag": False, "words": None}),
        (b"count=3&flag=TRUE", {"count": 3, "flag": True}),
        (b"flag=0", {"flag": False}),
        (b"ratio=1.5e1", {"ratio": 15.0}),
        (b"words=a,b&words=a", {"words": ["a", "b", "a"]}),
        (b"text=%C3%A4+b", {"text": "ä b"}),
        (b"since=2026-01-01T01:00:00%2B01:00", {"since": datetime(2026, 1, 1, tzinfo=UTC)}),
        (b"since=2026-01-01T01:00:00+01:00", {"since": datetime(2026, 1, 1, tzinfo=UTC)}),
        (b"since=2026-01-01T00:00:00.5Z", {"since": datetime(2026, 1, 1, microsecond=500_000, tzinfo=UTC)}),
    ],
)
def test_values_are_read_as_their_types(raw: bytes, wanted: dict[str, Any]) -> None:
    found = parse_query(raw, Sample)
    assert {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("raw", "pointers"),
    [
        (b"count=x&flag=maybe&word=c&cuont=1", {"?count", "?flag", "?word", "?cuont"}),
        (b"count=11", {"?count"}),
        (b"count=1.0", {"?count"}),
        (b"count=" + b"9" * 30, {"?count"}),
        (b"count=\xd9\xa1", {"?"}),
        (b"count=%D9%A1", {"?count"}),
        (b"ratio=nan", {"?ratio"}),
        (b"ratio=inf", {"?ratio"}),
        (b"ratio=1e999", {"?ratio"}),
        (b"word=a&word=b", {"?word"}),
        (b"words=a,,b", {"?words"}),
        (b"text=" + b"x" * 6, {"?text"}),
        (b"text=%00", {"?text"}),
        (b"text=%ff", {"?"}),
        (b"since=2026-01-01", {"?since"}),
        (b"since=9999-12-31T23:59:59-23:59", {"?since"}),
        (b"&".join(b"a=1" for _ in range(MAX_PAIRS + 1)), {"?"}),
        (b"count", {"?count"}),
    ],
)
def test_wrong_parameters_are_named_together(raw: bytes, pointers: set[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_query(raw, Sample)
    assert {wrong.pointer for wrong in caught.value.errors} == pointers


def test_a_near_miss_gets_a_suggestion() -> None:
    with pytest.raises(InvalidRequest, match="did you mean `count`"):
        parse_query(b"cuont=1", Sample)


@given(st.binary(max_size=60))
def test_any_bytes_are_either_read_or_refused(raw: bytes) -> None:
    try:
        parse_query(raw, Sample)
    except InvalidRequest as error:
        assert error.errors  # noqa: PT017 -- either way out is right, but never another exception
