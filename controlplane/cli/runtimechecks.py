"""What `corral doctor` says of languages: which can be run, with which tools, and how to get the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane.cli.hostchecks import ABSENT, GOOD, POOR, Finding
from controlplane.cli.surveys import survey

if TYPE_CHECKING:
    from collections.abc import Mapping

SURVEY = "controlplane.deploy.toolchain"
"""The program that looks at this host as a control plane would."""
SURVEY_TIMEOUT_S = 60.0
"""Each tool has ten seconds to say its version, and four are asked at a time."""
WANTED_BY_MOST = frozenset({"python", "node"})
"""Nearly every MCP server is in one of these; any other language is missed only by those who want it."""


def survey_here() -> dict[str, Any] | None:
    """What `GET /runtimes` would say if a control plane ran here; None if that cannot be found out."""
    return survey(SURVEY, SURVEY_TIMEOUT_S)


def runtimes(document: Mapping[str, Any] | None) -> list[Finding]:
    """One line for each language, from what `GET /runtimes` says."""
    if document is None:
        return [Finding("languages", POOR, "unknown", "Looking at this host's tools failed or took too long.")]
    return [_runtime(entry) for entry in document.get("runtimes") or () if entry["tools"] or entry["missing"]]


def _runtime(entry: Mapping[str, Any]) -> Finding:
    language = str(entry["language"])
    there = ", ".join(f"{tool['name']} {tool['version'] or '(version unknown)'}" for tool in entry["tools"])
    if entry["usable"]:
        return Finding(language, GOOD, there)
    missing = f"no {', '.join(entry['missing'])}"
    verdict = POOR if language in WANTED_BY_MOST else ABSENT
    return Finding(language, verdict, f"{missing} (there is {there})" if there else missing, entry["hint"] or "")
