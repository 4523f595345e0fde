"""What it takes to start an instance's process, and who works that out.

`Launch` is the finished answer; `Prepare` is the step that makes it (write the
source, install, build, choose uid and paths). `deploy/` implements it and
`app.py` passes it in, so the supervisor knows nothing of languages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

from controlplane.spawn.confinement import Confinement

if TYPE_CHECKING:
    from controlplane.model import Instance, Spec


class Progress(Protocol):
    """Who is told how preparing goes on."""

    def phase(self, phase: str, detail: str) -> None:
        """A step begins."""

    def output(self, line: bytes) -> None:
        """A line that a tool printed while fetching, installing or building, without its line break."""

    async def begin_work(self, turn: Callable[[], Awaitable[None]] | None = None) -> None:
        """Something has to be fetched, installed or built: wait until there is room for that. A second time does nothing.

        Args:
            turn: Something else to wait for first, which holds up nobody else meanwhile.
        """


@frozen(kw_only=True)
class Launch:
    """A command ready to run. `notes` tell the owner what is not as asked for, or unwise."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str] = field(factory=dict, repr=False)
    """What went into `env` by its name (`${secret:NAME}`): for redaction."""
    cwd: str
    uid: int | None
    rlimits: Mapping[str, int]
    private_tmp: str | None
    isolation: str
    confinement: Confinement = Confinement()
    gate: object = field(default=None, repr=False)
    """Where it may go, as who keeps the gate knows it; None where its network is not gated."""
    enforcement: Mapping[str, str] = field(factory=dict)
    """For each limit, `hard` (the kernel holds it) or `soft` (Corral looks, and acts)."""
    notes: tuple[str, ...] = ()
    spec: Spec | None = None
    """The instance's Spec with `resolved` filled in, if this is when it was found out."""
    revision: int | None = None
    """Of the Spec that it was prepared for: after a patch, the next process may still be of the one before."""
    lease: object = field(default=None, eq=False, repr=False)
    """What was made for this launch, as who prepared it knows it: for `retire`."""


class Prepare(Protocol):
    """Make an instance ready to launch, again and again: after a restart everything is found in place.

    One at a time for each instance; a launch that is prepared while no other has processes replaces them all.
    """

    async def prepare(self, instance: Instance, progress: Progress) -> Launch:
        """Raises a `CorralError` (`SourceRejected`, `BuildFailed` …) that says what to mend.

        Its `evidence` may hold `exit_code`, `signal` and `stderr_tail` of the tool that failed.
        Nothing is left then that was made for this launch alone.
        """
        ...

    async def retire(self, instance: Instance, launch: Launch) -> None:
        """No process of this launch is left, and none will be: remove what no other launch of the instance uses.

        The instance has the spec in force. Another launch may be prepared meanwhile.
        """
        ...

    async def discard(self, instance: Instance) -> None:
        """Remove everything that `prepare` made. The instance has no process left."""
        ...
