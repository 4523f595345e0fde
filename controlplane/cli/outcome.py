"""What became of a deploy, start, stop or restart: one sentence when it went well, the evidence when it did not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane.cli.exits import CommandFailed, Exit, Problem, failed_instance, program
from controlplane.wire.text import clean_lines
from controlplane.wire.units import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.cli.client import Answer
    from controlplane.cli.session import Session


def settle(session: Session, answer: Answer, *, wanted: str, wait_s: float, took_s: float) -> None:
    """Report an instance's record after a request that waited for it.

    Args:
        session: The running command's.
        answer: The instance as the server gave it back.
        wanted: The status that was asked for.
        wait_s: How long the server was asked to wait; 0 asks for nothing but the start of it.
        took_s: How long the request took, for the sentence.

    Raises:
        CommandFailed: it failed, or is not there yet.
    """
    instance: Mapping[str, Any] = answer.document
    name, status = str(instance.get("name")), str(instance.get("status"))
    if status == "failed" and wanted != "stopped":
        raise CommandFailed(failed_instance(instance), Exit.INSTANCE, answer.body)
    if status == "stopped" and wanted != "stopped":
        raise CommandFailed(_stopped(instance), Exit.FAILED, answer.body)
    if status != wanted and wait_s > 0:
        raise CommandFailed(_not_yet(instance, wanted, took_s), Exit.TIMEOUT, answer.body)
    if session.shown_as_json(answer):
        return
    screen = session.screen
    if status == wanted:
        screen.line((f"{name}", "bold"), f" is {status}", (_facts(instance, took_s), "dim"))
    else:
        screen.line((name, "bold"), f" is {status}: ", f"follow it with `{program()} logs -f {name}`")
    for note in instance.get("notes") or ():
        for line in clean_lines(note):
            screen.note(("Note: ", "bold yellow"), line, indent=2)


def _facts(instance: Mapping[str, Any], took_s: float) -> str:
    revision = instance.get("revision")
    facts = [f"revision {revision}"] if isinstance(revision, int) and revision > 1 else []
    facts += [f"pid {instance['pid']}"] if instance.get("pid") else []
    if instance.get("status") == "running" and instance.get("isolation"):
        facts.append(str(instance["isolation"]))
    return f"  ({', '.join([*facts, duration(took_s)])})"


def _stopped(instance: Mapping[str, Any]) -> Problem:
    return Problem(
        title=f"{instance.get('name')} was stopped before it ran",
        detail="Somebody stopped it, or it ended by itself and is not to be started again.",
        hint=f"`{program()} logs {instance.get('name')}` shows what happened.",
    )


def _not_yet(instance: Mapping[str, Any], wanted: str, took_s: float) -> Problem:
    name = str(instance.get("name"))
    return Problem(
        title=f"{name} is not {wanted} after {duration(took_s)}",
        detail=f"It is {instance.get('status')} ({instance.get('phase')}), and goes on.",
        hint=f"Follow it with `{program()} logs -f {name}`; wait longer with --wait.",
    )


def interrupted(session: Session, name: str, what: str) -> CommandFailed:
    """Return the end of a wait that Ctrl-C cut short: the server's work goes on."""
    problem = Problem(
        title=f"Interrupted: the {what} of {name} goes on",
        hint=f"Follow it with `{program()} logs -f {name}`; undo it with `{program()} {'start' if what == 'stop' else 'rm'} {name}`.",
    )
    session.json = False
    return CommandFailed(problem, Exit.INTERRUPTED)
