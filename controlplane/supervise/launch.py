"""What it takes to start an instance's process, and who works that out.

`Launch` is the finished answer; `Prepare` is the step that makes it (write the
source, install, build, choose uid and paths). `deploy/` implements it and
`app.py` passes it in, so the supervisor knows nothing of languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

if TYPE_CHECKING:
    from controlplane.model import Instance, Spec


class Progress(Protocol):
    """Who is told how preparing goes on."""

    def phase(self, phase: str, detail: str) -> None:
        """A step begins."""

    def output(self, line: bytes) -> None:
        """A line that a tool printed while fetching, installing or building, without its line break."""

    async def begin_work(self) -> None:
        """Something has to be fetched, installed or built: wait until there is room for that. A second time does nothing."""


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
    spec: Spec | None = None
    """The instance's Spec with `resolved` filled in, if this is when it was found out."""


class Prepare(Protocol):
    """Make an instance ready to launch, again and again: after a restart everything is found in place."""

    async def prepare(self, instance: Instance, progress: Progress) -> Launch:
        """Raises a `CorralError` (`SourceRejected`, `BuildFailed` …) that says what to mend.

        Its `evidence` may hold `exit_code`, `signal` and `stderr_tail` of the tool that failed.
        """
        ...

    async def discard(self, instance: Instance) -> None:
        """Remove everything that `prepare` made. The instance has no process left."""
        ...
