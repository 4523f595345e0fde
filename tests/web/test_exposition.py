"""The text format, at its edges."""

from __future__ import annotations

import math

from controlplane.web.exposition import Exposition


def test_labels_are_escaped_as_the_format_wants_it() -> None:
    page = Exposition()
    page.family("a", "gauge", "Says\nmore \\ than", [({"name": 'x"y\\z\nw'}, 1.5)])
    assert page.text() == '# HELP a Says\\nmore \\\\ than\n# TYPE a gauge\na{name="x\\"y\\\\z\\nw"} 1.5\n'


def test_a_family_without_samples_is_left_out_and_whole_numbers_have_no_point() -> None:
    page = Exposition()
    page.family("none", "gauge", "Nothing.", [])
    page.one("ready", "gauge", "Yes.", True)
    page.one("big", "counter", "Much.", 1e15)
    page.one("endless", "gauge", "Ever.", math.inf)
    assert [line for line in page.text().splitlines() if not line.startswith("#")] == [
        "ready 1",
        "big 1000000000000000",
        "endless +Inf",
    ]


def test_a_histogram_ends_with_all_its_observations() -> None:
    page = Exposition()
    page.histogram("h", "Times.", [(0.1, 1), (1.0, 3)], 4, 7.25)
    assert page.text().splitlines()[2:] == [
        'h_bucket{le="0.1"} 1',
        'h_bucket{le="1"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 7.25",
        "h_count 4",
    ]
