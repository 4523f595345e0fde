"""Instances with a past, for the tests of what is shown of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.e2e.plane import deployment, wait_until

if TYPE_CHECKING:
    from tests.e2e.plane import Plane

DOOMED = b"import sys\nsys.stderr.write('no such table: \\x1b[31musers\\n')\nsys.exit(3)\n"
"""A server that never comes up, and says why."""
PATIENCE_S = 60
ENDED_S = 30


def crash(plane: Plane, name: str, last_words: str = "out of luck", status: int = 7) -> dict[str, Any]:
    """Have a running echo server end with a status; returns the instance once it serves again."""
    before = plane.instance(name)["incarnation"]
    plane.execute(name, "tools/call", {"name": "exit", "arguments": {"last_words": last_words, "status": status}})

    def serves_again() -> dict[str, Any] | None:
        found = plane.instance(name)
        return found if found["incarnation"] > before and found["status"] == "running" else None

    found: dict[str, Any] = wait_until(serves_again, PATIENCE_S, f"another process of {name}")
    return found


def ended(plane: Plane, name: str) -> dict[str, Any]:
    """Its newest process that failed, once its end is kept."""

    def found() -> dict[str, Any] | None:
        rows = plane.get(f"/instances/{name}/incarnations")["incarnations"]
        return next((row for row in rows if row["post_mortem"]), None)

    process: dict[str, Any] = wait_until(found, ENDED_S, f"a process of {name} that failed")
    return process


def deploy_doomed(plane: Plane, name: str) -> None:
    """Deploy an instance that fails."""
    answer = plane.request("POST", "/api/v2/deploy?wait=60", json=deployment(name, DOOMED, restart={"mode": "never"}))
    assert answer.status_code == 422, answer.text


def redeploy(plane: Plane, name: str, **body: Any) -> None:
    """Bring up another revision, which must take over."""
    answer = plane.request("POST", f"/instances/{name}/redeploy?wait=60", json=body)
    assert answer.status_code == 200, answer.text
