"""What every feature of the bridge matrix comes to, whichever client meets whichever server; and what cannot be."""

from __future__ import annotations

from typing import Any

VERSIONS = {"legacy": "2025-11-25", "modern": "2026-07-28", "sse": "2025-11-25"}
"""Of the protocol, by the era of the client; the server's is no matter to it. The old transport carries newer ones."""

CANNOT: dict[str, dict[str, str]] = {
    "sse": {"resume": "the one stream of HTTP+SSE (2024-11-05) is the session: it has no event ids, and ends with it"},
}
"""Era of the client -> feature -> why there is none."""

LOGGED = [
    ["info", "Tool execution started"],
    ["info", "Tool processing data"],
    ["info", "Tool execution completed"],
]


def expected(era: str, key: str) -> dict[str, Any]:
    """The outcomes by feature, of a client of this era whose calls carry the key."""
    outcomes: dict[str, Any] = {
        "introduction": {"version": VERSIONS[era], "server": "corral-conformance"},
        "plain": {
            "first_tool": "test_simple_text",
            "text": "This is a simple text response for testing.",
            "failure": "This tool intentionally returns an error for testing",
            "resources": ["test://static-text", "test://static-binary", "test://watched-resource"],
            "resource": "This is the content of the static text resource.",
            "templates": ["test://template/{id}/data"],
            "first_prompt": "test_simple_prompt",
            "prompt": "Prompt with arguments: arg1='one', arg2='two'",
            "completion": ["paris", "park", "party"],
        },
        "progress": {"text": "Counted to 3.", "progress": [[1, 3, "step 1"], [2, 3, "step 2"], [3, 3, "step 3"]]},
        "log": {"loud": LOGGED, "quiet": []},
        "cancel": {"ended": "it was given up", "seen": "It was cancelled."},
        "elicitation": {
            "accepted": 'User response: action=accept, content={"username": "ada", "email": "ada@localhost"}',
            "declined": "User response: action=decline, content={}",
            "asked": [f"Who is {key}?", f"Decline {key}"],
        },
        "sampling": {"text": f"LLM response: an answer to {key}", "asked": [key]},
        "roots": {"text": f"The roots are: file:///{key}"},
        "rounds": {
            "two": "Ada likes green.",
            "asked": ["Step 1: What is your name?", "Step 2: What is your favorite color?"],
            "at_once": "an answer to Generate a greeting Ada, with 1 roots",
        },
        "subscription": {
            "added": True,
            "removed": True,
            "updated": ["test://watched-resource"],
            "updated_after": [],
            "list_changes": 2,
        },
        "resume": (
            # A modern client that loses its connection has cancelled.
            {"seen": "It was cancelled.", "progress": [1]}
            if era == "modern"
            else {
                "text": "Counted to 3.",
                "progress": [*range(1, 21), 1, 2, 3, 1],
                "asked": [f"Are you {key}?"],
                "answer": "The user says Ada.",
                "updated": ["test://watched-resource"],
            }
        ),
    }
    return {feature: outcome for feature, outcome in outcomes.items() if feature not in CANNOT.get(era, {})}
