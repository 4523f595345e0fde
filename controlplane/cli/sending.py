"""Send a deploy or a redeploy, show its phases and what its build prints, and report what came out."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from controlplane.cli.client import Body
from controlplane.cli.exits import CommandFailed, Exit, Problem, program
from controlplane.cli.outcome import interrupted, settle
from controlplane.cli.progress import told

if TYPE_CHECKING:
    from typing import IO

    from controlplane.cli.client import Answer
    from controlplane.cli.session import Session

DEPLOY_PATH = "/api/v2/deploy"
LEFT_FAILED = ("deploy_failed", "build_failed", "secret_missing", "source_rejected", "archive_rejected")
"""Problems with an `instance_id` that tell of an instance that is there nevertheless."""


@frozen(kw_only=True)
class Order:
    """One request to run something: `what` it is called in a sentence, of which instance."""

    name: str
    document: bytes = field(repr=False)
    file: IO[bytes] | None = None
    path: str = DEPLOY_PATH
    what: str = "deploy"
    idempotency_key: str | None = None


def send(session: Session, order: Order, *, wait_s: float) -> None:
    """POST it, show its phases, report what came out.

    Raises:
        CommandFailed: refused, failed, or not running within the wait.
    """
    began = time.monotonic()
    try:
        answer = post(session, order, wait_s)
    except KeyboardInterrupt:
        raise interrupted(session, order.name, order.what) from None
    except CommandFailed as failure:
        raise _with_next_step(failure, order) from failure
    _refuse_unfinished(answer, order, wait_s)
    settle(session, answer, wanted="running", wait_s=wait_s, took_s=time.monotonic() - began)
    if not session.json and answer.document.get("status") == "running":
        session.screen.note(("Next: ", "dim"), f"{program()} tools {answer.document.get('name')}")


def post(session: Session, order: Order, wait_s: float) -> Answer:
    """Send it and wait as long as it says; its phases are shown but under `--json`."""
    headers = {"Idempotency-Key": order.idempotency_key} if order.idempotency_key else {}
    body = Body(order.document, order.file)

    def converse(told: Any) -> Answer:
        return session.api.converse(
            order.path, body=body, told=told, query={"wait": wait_s}, headers=headers, wait_s=wait_s
        )

    if session.json:
        return converse(lambda _event: None)
    with told(session, order.name) as show:
        return converse(show)


def _refuse_unfinished(answer: Answer, order: Order, wait_s: float) -> None:
    """Say that the new revision is still on its way: what runs is the one before.

    Raises:
        CommandFailed: it is.
    """
    candidate = answer.document.get("candidate")
    if not isinstance(candidate, dict) or not wait_s:
        return
    number, running = candidate.get("revision"), answer.document.get("revision")
    problem = Problem(
        title=f"Revision {number} of {order.name} is not in force yet",
        detail=f"It is at: {candidate.get('phase')}. Revision {running} goes on serving.",
        hint=f"Follow it with `{program()} logs -f {order.name}`, see it with `{program()} revisions {order.name}`; "
        "wait longer with --wait.",
    )
    raise CommandFailed(problem, Exit.TIMEOUT, answer.body)


def _with_next_step(failure: CommandFailed, order: Order) -> CommandFailed:
    """Say what is there after a failure: the failed instance, or the revision that goes on."""
    if failure.problem.code not in LEFT_FAILED or not _names_an_instance(failure):
        return failure
    name = order.name
    if order.what == "deploy":
        advice = f"It stays, failed: `{program()} logs {name}` shows all its lines, `{program()} rm {name}` removes it."
    else:
        advice = f"What ran before is untouched. `{program()} logs {name}` shows all lines of the attempt."
    hint = "\n".join(filter(None, (failure.problem.hint, advice)))
    return evolve(failure, problem=evolve(failure.problem, hint=hint))


def _names_an_instance(failure: CommandFailed) -> bool:
    return failure.document is not None and bool(json.loads(failure.document).get("instance_id"))
