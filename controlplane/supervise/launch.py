"""What it takes to start an instance's process, and who works that out.

`Launch` is the finished answer; `Prepare` is the step that makes it (write the
source, install, build, choose uid and paths). `deploy/` implements it and
`app.py` passes it in, so the supervisor knows nothing of languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import trio
from attrs import field, frozen

from controlplane.errors import BuildFailed

if TYPE_CHECKING:
    from controlplane.model import Instance, Spec
    from controlplane.supervise.runner import Surroundings


class Progress(Protocol):
    """Who is told how preparing goes on."""

    def phase(self, phase: str, detail: str) -> None:
        """A step begins."""

    def output(self, line: bytes) -> None:
        """A line that a tool printed while fetching, installing or building, without its line break."""


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


async def prepare(around: Surroundings, instance: Instance, progress: Progress) -> Launch:
    """Have an instance prepared, within the time for that.

    Raises:
        CorralError: see `Prepare`; BuildFailed also when it took too long.
    """
    limit = around.config.build_timeout_s
    with trio.move_on_after(limit):
        return await around.prepare.prepare(instance, progress)
    raise BuildFailed(f"preparing took longer than {limit:g} s")
