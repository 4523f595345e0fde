"""Write a post-mortem: why a process is gone, in one sentence, with what was seen. Pure."""

from __future__ import annotations

import signal as signals
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from controlplane.errors import BuildFailed
from controlplane.model import Evidence
from controlplane.supervise.logbook import TAIL_LINE_CHARS, TAIL_LINES

if TYPE_CHECKING:
    from controlplane.errors import CorralError
    from controlplane.spawn.client import SpawnFailed

_HINTS = (
    (
        "please provide a database url",
        "this server takes the database URL as its last argument, not from the environment",
    ),
    ("gdrive", "this server wants GDRIVE_CREDENTIALS_PATH and GDRIVE_OAUTH_PATH in its environment"),
    (
        "none of the specified directories are accessible",
        "name a directory that exists, or one below /tmp, which Corral makes",
    ),
    (" enotfound", "the host name could not be resolved: check the network and the proxy settings (CHILD_ENV_PASS)"),
    ("no space left on device", "the disk is full: remove instances, or let corral cache prune --all make room"),
    ("econnrefused", "a host refused the connection: check the network and the proxy settings (HTTPS_PROXY)"),
    ("e404", "the package registry does not know this package: check its name"),
    ("npm error code", "npm could not install the package; its own words are above"),
    ("cannot find module", "a module is missing: is every dependency installed with the server?"),
    ("no module named", "a module is missing: name its package in dependencies (corral redeploy … -d PACKAGE)"),
    ("syntaxerror", "the source does not parse; the place is in stderr_tail"),
    ("heap out of memory", "the server needs more memory: raise limits.memory_mb"),
    ("memoryerror", "the server needs more memory: raise limits.memory_mb"),
)


CONDEMNED = "condemned"
"""The code of a process that Corral gave up for no reason that has a code of its own."""


@frozen(kw_only=True)
class Seen:
    """What there is to tell about one process."""

    phase: str
    at: datetime
    incarnation: int
    stderr_tail: tuple[str, ...] = ()
    last_frames: tuple[str, ...] = ()
    peak_memory_mb: float | None = None
    peak_processes: int | None = None
    ran_s: float | None = None
    samples: tuple[Mapping[str, float], ...] = ()


def signal_name(code: int) -> str:
    """`SIGKILL` for 9; the bare number where it has no name."""
    try:
        return signals.Signals(code).name
    except ValueError:
        return str(code)


def of_exit(
    seen: Seen, exit_code: int | None, condemned: str | None, *, as_code: str = CONDEMNED, lost: bool = False
) -> Evidence:
    """A process ended, by itself or because Corral condemned it.

    Args:
        exit_code: Its status; negative is minus the signal; None if it still ran when it was given up.
        condemned: Why Corral ended it, if it did.
        as_code: The same as a stable word.
        lost: The spawner died and took it along.
    """
    before = "before its handshake was done" if seen.ran_s is None else f"after {seen.ran_s:.1f} s"
    signal = signal_name(-exit_code) if exit_code is not None and exit_code < 0 else None
    if lost:
        code, reason = "spawner_lost", "the process ended with Corral's spawner"
    elif condemned is not None:
        code, reason = as_code, condemned
    elif signal is not None:
        code, reason = "signalled", f"the process was killed by {signal} {before}"
    else:
        code, reason = "exited", f"the process exited with status {exit_code} {before}"
    status = exit_code if exit_code is not None and exit_code >= 0 else None
    return _evidence(seen, code, reason, exit_code=status, signal=signal)


def of_memory_limit(seen: Seen, exit_code: int | None, limit_mb: float) -> Evidence:
    """The kernel ended a process of it that would have gone over the memory limit, and with it the rest.

    The limit itself is the last reading: it was reached, however short after the last look, or before the first.
    """
    seen = evolve(seen, samples=(*seen.samples, {"ago_s": 0.0, "memory_mb": float(limit_mb)}))
    peak = "" if seen.peak_memory_mb is None else f"; it used {seen.peak_memory_mb:.0f} MiB when it was last looked at"
    before = "before its handshake was done" if seen.ran_s is None else f"after {seen.ran_s:.1f} s"
    reason = f"the kernel ended it {before}, at its limit of {limit_mb:g} MiB of memory{peak}"
    signal = signal_name(-exit_code) if exit_code is not None and exit_code < 0 else None
    status = exit_code if exit_code is not None and exit_code >= 0 else None
    hint = "the server needs more memory: raise limits.memory_mb"
    return _evidence(seen, "memory_limit", reason, exit_code=status, signal=signal, hint=hint)


def of_start_timeout(seen: Seen, limit_s: float) -> Evidence:
    """The process lives but did not complete the handshake in time."""
    return _evidence(seen, "start_timeout", f"no handshake within {limit_s:g} s")


def of_refusal(seen: Seen, reason: str) -> Evidence:
    """The server answered the handshake with something that cannot be used."""
    return _evidence(seen, "handshake_refused", reason)


def of_spawn_failure(seen: Seen, failure: SpawnFailed, command: str) -> Evidence:
    """The process could not be started at all."""
    reason = f"{command!r} could not be started: {failure.message} ({failure.stage})"
    hint = "commands are looked up on the instance's PATH; `corral doctor` shows which runtimes this host has"
    return _evidence(seen, "spawn_failed", reason, hint=hint if failure.stage == "exec" else None)


def of_crash_loop(last: Evidence, why: str) -> Evidence:
    """The restart budget is used up: the last post-mortem, under the reason that no restart follows."""
    return evolve(last, code="crash_loop", reason=f"gave up after {why}; last: {last.reason}")


def plain(seen: Seen, code: str, reason: str, *, hint: str | None = None) -> Evidence:
    """A failure without a process: preparing went wrong, or a bug."""
    return _evidence(seen, code, reason, hint=hint)


def of_error(seen: Seen, error: CorralError, redact: Callable[[str], str]) -> Evidence:
    """Preparing went wrong. `error.evidence` may tell how the tool that failed ended, and its last lines."""
    told = error.evidence
    lines = told.get("stderr_tail") or ()
    tail = tuple(redact(str(line))[:TAIL_LINE_CHARS] for line in lines)[-TAIL_LINES:]
    code, signal = told.get("exit_code"), told.get("signal")
    return _evidence(
        evolve(seen, phase="build" if isinstance(error, BuildFailed) else seen.phase, stderr_tail=tail),
        error.code,
        redact(error.detail or error.title),
        exit_code=code if isinstance(code, int) else None,
        signal=str(signal) if signal else None,
        hint=error.hint,
    )


def of_interruption(seen: Seen, revision: int, command: str) -> Evidence:
    """A new revision was on its way when the instance got a command."""
    return _evidence(seen, "interrupted", f"the instance was {command} before revision {revision} could take over")


def guess_hint(lines: Iterable[str]) -> str | None:
    """What a person can do about well-known last words."""
    text = "\n".join(lines).lower()
    return next((hint for words, hint in _HINTS if words in text), None)


def _evidence(
    seen: Seen,
    code: str,
    reason: str,
    *,
    exit_code: int | None = None,
    signal: str | None = None,
    hint: str | None = None,
) -> Evidence:
    return Evidence(
        code=code,
        reason=reason,
        phase=seen.phase,
        at=seen.at,
        incarnation=seen.incarnation,
        exit_code=exit_code,
        signal=signal,
        stderr_tail=seen.stderr_tail,
        last_frames=seen.last_frames,
        peak_memory_mb=seen.peak_memory_mb,
        peak_processes=seen.peak_processes,
        ran_s=seen.ran_s,
        samples=seen.samples,
        hint=hint or guess_hint(seen.stderr_tail),
    )
