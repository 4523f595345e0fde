"""What the API answers about the past of instances, beside the logs, samples and events in `answers`."""

from __future__ import annotations

from attrs import frozen

from controlplane.wire.answers import NEXT_CURSOR, TIME, EventOut, EvidenceOut
from controlplane.wire.fields import bounded


@frozen(kw_only=True)
class IncarnationOut:
    """One process that an instance has had, or has."""

    number: int = bounded(description="1 for the first; a start that came to no process leaves a gap.")
    revision: int | None = bounded(None, description="Number of the spec that it ran; null: not known.")
    pid: int = bounded(description="On the host it ran on.")
    is_running: bool = bounded(description="It is there now.")
    started_at: str = bounded(**TIME)
    ended_at: str | None = bounded(
        None, **TIME, description="Null: it runs, or Corral ended before it could see the end."
    )
    exit_code: int | None = bounded(
        None, description="Its exit status; null: it runs, a signal ended it, or not known."
    )
    signal: str | None = bounded(None, description="The signal that ended it, for example `SIGKILL`.")
    ran_s: float | None = bounded(
        None, description="Seconds from its start to its end, or until now; null: not known when it ended."
    )
    reason: str | None = bounded(None, description="Why it failed, in one sentence; null: it did not.")
    post_mortem: EvidenceOut | None = bounded(
        None, description="The same with all that was seen; null: it did not fail."
    )


@frozen(kw_only=True)
class IncarnationsOut:
    """A page of processes, newest first."""

    incarnations: list[IncarnationOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)


@frozen(kw_only=True)
class FleetEventOut(EventOut):
    """One thing that happened, and to whom."""

    name: str | None = bounded(None, description="The instance's; null: about none, or its history is forgotten.")
    owner: str | None = bounded(None, description="Whose instance it is; null: about no single instance.")


@frozen(kw_only=True)
class FleetEventsOut:
    """A page of events of all instances, newest first."""

    events: list[FleetEventOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)
