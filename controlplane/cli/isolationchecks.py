"""What `corral doctor` says of isolation: each level's state, what would unlock the next, and which limits are hard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane.cli.hostchecks import GOOD, POOR, Finding
from controlplane.cli.surveys import survey
from controlplane.wire.units import plain_name

if TYPE_CHECKING:
    from collections.abc import Mapping

SURVEY = "controlplane.deploy.hostlevels"
"""The program that tries on this host what a control plane would."""
SURVEY_TIMEOUT_S = 20.0
"""Each of the two levels has five seconds."""
LANDLOCK_SCOPES = 6
"""The ABI from which Landlock keeps a process from signalling others of the same user."""
GIVES = {
    "process": "limits, a clean environment, as root a user of its own",
    "confined": "also Landlock and seccomp: sees its own files only",
    "namespaced": "also bubblewrap: processes, mounts and network of its own",
}


def survey_here() -> dict[str, Any] | None:
    """What `GET /isolation` would say if a control plane ran here; None if that cannot be found out."""
    return survey(SURVEY, SURVEY_TIMEOUT_S)


def isolation(document: Mapping[str, Any] | None) -> list[Finding]:
    """One line for each level, what `auto` comes to, and one for limits, from what `GET /isolation` says."""
    if document is None:
        return [Finding("levels", POOR, "unknown", "Trying the levels on this host failed or took too long.")]
    levels = [_level(level, int(document.get("landlock") or 0)) for level in document.get("levels") or ()]
    return [*levels, _auto(document), *_limits(document.get("limits") or {})]


def _level(level: Mapping[str, Any], landlock: int) -> Finding:
    name = str(level["name"])
    if not level["available"]:
        return Finding(name, POOR, f"not here: {level['why']}", str(level["unlock"] or ""))
    if name == "confined" and landlock < LANDLOCK_SCOPES:
        found = f"available; Landlock {landlock} does not keep processes of one user from each other's signals"
        return Finding(name, POOR, found, "Linux 6.12 or later, or Corral as root: then each instance is a user.")
    return Finding(name, GOOD, f"available: {GIVES.get(name, '')}".removesuffix(": "))


def _auto(document: Mapping[str, Any]) -> Finding:
    auto, minimum = document.get("auto"), document.get("minimum")
    if auto is None:
        found = f"refused: MIN_ISOLATION is {minimum}, which is not here"
        return Finding("auto", POOR, found, "Unlock that level, or set MIN_ISOLATION to one that is here.")
    return Finding("auto", GOOD, f"gives {auto}; the operator allows {minimum} and stronger")


def _limits(limits: Mapping[str, Any]) -> list[Finding]:
    held = {"hard": "the kernel holds them", "soft": "Corral looks each second, and acts"}
    by_kind: dict[str, list[str]] = {}
    for name, how in (limits.get("enforcement") or {}).items():
        by_kind.setdefault(str(how), []).append(plain_name(name))
    driver = limits.get("driver")
    unlock = str(limits.get("unlock") or "")
    found = []
    for how in ("hard", "soft"):
        if names := by_kind.get(how):
            by = f" ({driver})" if how == "hard" and driver else ""
            about = f"{', '.join(names)}: {held[how]}{by}"
            is_poor = how == "soft" and bool(unlock)
            found.append(Finding(f"{how} limits", POOR if is_poor else GOOD, about, unlock if is_poor else ""))
    return found
