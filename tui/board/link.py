"""The connection to the control plane, and how it is told: in a word, in a line, and where there is no picture yet. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from attrs import evolve, frozen

from controlplane.wire.units import count, duration

if TYPE_CHECKING:
    from tui.board.cells import Tone

LinkState = Literal["connecting", "live", "away", "refused"]
SIGNS: Mapping[LinkState, tuple[str, Tone]] = {
    "connecting": ("◌ connecting", "warn"),
    "live": ("● live", "good"),
    "away": ("◌ away", "bad"),
    "refused": ("✗ refused", "bad"),
}


@frozen
class Link:
    """The connection to the control plane. `since` is when it came to be so, in seconds since the epoch.

    `attempt` counts the tries since it was lost; `reason` and `hint` are of the last one.
    """

    state: LinkState = "connecting"
    since: float = 0.0
    reason: str = ""
    attempt: int = 0
    hint: str = ""

    def to(self, state: LinkState, now: float, reason: str, attempt: int, hint: str) -> Link:
        """The link in a state; it keeps its time while the state stays."""
        if state == self.state:
            return evolve(self, reason=reason, attempt=attempt, hint=hint)
        return Link(state, now, reason, attempt, hint)

    @property
    def is_live(self) -> bool:
        return self.state == "live"


def word(link: Link, now: float) -> tuple[str, Tone]:
    """The state in a few words: `● live`, `◌ away for 12s, attempt 3`."""
    said, tone = SIGNS[link.state]
    if link.state == "away":
        seconds = max(0, int(now - link.since))
        said += f" for {duration(seconds) if seconds >= 10 else f'{seconds}s'}"
        said += f", attempt {link.attempt}" if link.attempt else ""
    return said, tone


def line(link: Link, now: float) -> str:
    """What stands above a picture that is not live: since when, and why."""
    told = (f"{word(link, now)[0]}: {link.reason or 'no answer yet'}", link.hint, "This is the last picture")
    return " ".join(part if part[-1] in ".?!" else f"{part}." for part in told if part)


def absence(link: Link, now: float, url: str) -> list[tuple[str, Tone]]:
    """What stands in place of a picture that was never there: what is wrong, and what to do about it."""
    said, tone = word(link, now)
    if link.state == "connecting":
        return [(f"{said} to {url} …", tone)]
    lines: list[tuple[str, Tone]] = [(said, tone), ("", ""), (link.reason or "no answer yet", "strong")]
    lines += [(link.hint, "")] if link.hint else []
    lines.append(("", ""))
    if link.state == "refused":
        lines.append(("It is asked again every few seconds: what lets it in is noticed by itself.", "dim"))
    else:
        lines.append(("`corral up` starts one on this machine. One that comes up is noticed by itself.", "dim"))
    return [*lines, ("c another context   q leave", "dim")]


def back(away_s: float, gaps: int, missed: int) -> str:
    """What is said when the control plane is there again.

    Args:
        away_s: How long it was not.
        gaps: How often the server said since that it cannot tell all that happened.
        missed: How many events that were, as far as it knows.
    """
    said = f"Back after {duration(float(round(away_s)) if away_s >= 1 else away_s)}"
    if not gaps:
        return f"{said}: nothing was missed"
    what = f"{count(missed)} events were missed" if missed else "some events were missed"
    return f"{said}: {what}, the fleet was read anew"
