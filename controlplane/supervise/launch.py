"""What it takes to start an instance's process, and who works that out.

`Launch` is the finished answer; `Prepare` is the step that makes it (write the
source, install, build, choose uid and paths). `deploy/` implements it and
`app.py` passes it in, so the supervisor knows nothing of languages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

if TYPE_CHECKING:
    from controlplane.model import Instance

Report = Callable[[str, str], None]
"""`report(phase, detail)`: progress for the event stream and the log."""


@frozen(kw_only=True)
class Launch:
    """A command ready to run. `notes` tell the owner what is not as asked for, or unwise."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    uid: int | None
    rlimits: Mapping[str, int]
    private_tmp: str | None
    isolation: str
    notes: tuple[str, ...] = ()


class Prepare(Protocol):
    """Make an instance ready to launch, again and again: after a restart everything is found in place."""

    async def prepare(self, instance: Instance, report: Report) -> Launch:
        """Raises a `CorralError` (`SourceRejected`, `BuildFailed` …) that says what to mend."""
        ...

    async def discard(self, instance: Instance) -> None:
        """Remove everything that `prepare` made. The instance has no process left."""
        ...
