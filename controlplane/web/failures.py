"""What is answered when an instance, or a revision of it, did not come up: its post-mortem as a problem. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane.core.lifecycle import PUBLIC_STATUS, State
from controlplane.errors import PROBLEMS, CorralError, DeployFailed

if TYPE_CHECKING:
    from controlplane.model import Evidence
    from controlplane.supervise.runner import Runner

OF_THE_SOURCE = ("archive_rejected", "build_failed", "secret_missing", "source_rejected")
"""Failures that have a problem code of their own: the server was never started."""


def raise_if_failed(runner: Runner) -> None:
    """Turn a failed instance into the answer that carries its post-mortem.

    Raises:
        DeployFailed, BuildFailed, SecretMissing, SourceRejected, ArchiveRejected: the instance is `failed`; it stays, with its logs.
    """
    if runner.state is State.FAILED:
        name, last = runner.instance.name, runner.instance.last_error
        what = f"The instance {name} failed"
        raise _failure(runner, what, last, {})


def of_revision(runner: Runner, revision: int, failure: Evidence) -> CorralError:
    """The answer for a revision that was not switched over to: what ran before is untouched."""
    what = f"Revision {revision} of {runner.instance.name} failed, and revision {runner.instance.spec.revision} stays"
    return _failure(runner, what, failure, {"revision": revision})


def _failure(runner: Runner, what: str, last: Evidence | None, more: dict[str, Any]) -> CorralError:
    instance = runner.instance
    evidence = {
        "instance_id": str(instance.id),
        "name": instance.name,
        "instance_status": PUBLIC_STATUS[runner.state],
        **more,
    }
    if last is None:
        return DeployFailed(f"{what}.", evidence=evidence)
    seen = {
        "reason_code": last.code,
        "phase": last.phase,
        "exit_code": last.exit_code,
        "signal": last.signal,
        "stderr_tail": list(last.stderr_tail),
    }
    error = PROBLEMS[last.code] if last.code in OF_THE_SOURCE else DeployFailed
    return error(
        f"{what}: {last.reason}",
        hint=last.hint or f"See its log: corral logs {instance.name}",
        evidence=evidence | {name: value for name, value in seen.items() if value is not None},
    )
