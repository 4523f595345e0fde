"""What the suite must say through Corral, and what it cannot say, by the nature of a server, with the reason."""

from __future__ import annotations

REQUIRED = {"2025-11-25": 30, "2026-07-28": 37}
"""How many scenarios a revision requires of a server."""

TASKS = (
    "capability-negotiation",
    "dispatch-and-envelope",
    "lifecycle",
    "mrtr-composition",
    "mrtr-input",
    "request-headers",
    "request-state-removal",
    "required-task-error",
    "status-notifications",
    "wire-fields",
)
OUT_OF_SCOPE = frozenset(f"tasks-{name}" for name in TASKS)
"""The tasks extension, which no SDK's server implements and no revision requires."""

CANNOT: dict[tuple[str, str], dict[str, str]] = {
    ("legacy", "2026-07-28"): {
        "input-required-result-basic-elicitation": (
            "wants the question to be named user_name; a legacy server's questions have no names, so Corral names them"
        ),
        "input-required-result-ignore-extra-params": (
            "sends an answer to a question that was never asked in this call; a legacy server could not take it"
        ),
    },
}
"""(era of the server, revision) -> scenario -> why it cannot pass. One that passes nevertheless fails the test."""
