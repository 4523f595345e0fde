"""W3C Trace Context: what is taken, what counts as absent, and what is said to others."""

from __future__ import annotations

import pytest

from controlplane.core.tracecontext import TraceContext, parse

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SOUND = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("said", [SOUND, SOUND.encode(), f" {SOUND}\t"])
def test_a_sound_context_is_read_and_said_again(said: str | bytes) -> None:
    context = parse(said)

    assert context == TraceContext(TRACE, SPAN, 1, is_remote=True)
    assert context.traceparent == SOUND
    assert context.is_sampled


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "garbage",
        SOUND.upper(),
        SOUND + "-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"{SOUND}, {SOUND}",
        f"{SOUND}\n",
        b"\xff" * 55,
    ],
)
def test_what_is_malformed_counts_as_absent(said: str | bytes | None) -> None:
    assert parse(said) is None


def test_a_later_version_is_read_as_far_as_it_is_known_and_said_as_ours() -> None:
    context = parse(f"cc-{TRACE}-{SPAN}-ff-whatever")

    assert context is not None
    assert context.traceparent == f"00-{TRACE}-{SPAN}-03"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, ""),
        ("a=1", "a=1"),
        (" a=1 , ,tenant@b=x y,", "a=1,tenant@b=x y"),
        (b"a=1, b=2", "a=1,b=2"),
        ("a=1,a=2", ""),
        ("A=1", ""),
        ("a=\x00", ""),
        ("a", ""),
        ("a=" + "x" * 256 + ",b=" + "y" * 256, ""),
        (",".join(f"k{number}=1" for number in range(33)), ""),
    ],
)
def test_a_malformed_state_costs_itself_only(said: str | bytes | None, kept: str) -> None:
    context = parse(SOUND, said)

    assert context is not None
    assert context.state == kept
