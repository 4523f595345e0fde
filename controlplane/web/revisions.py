"""Revisions of an instance: a new one that takes over once it answers, the way back, and the list."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import trio

from controlplane.core.lifecycle import State
from controlplane.model import Role
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.deploys import DEPLOY_PROBLEMS, WaitQuery
from controlplane.web.failures import of_revision, raise_if_failed
from controlplane.web.request import prefers_events
from controlplane.web.route import Route
from controlplane.web.settling import Outcome, answer
from controlplane.web.source_line import source_line
from controlplane.web.views import evidence_out, instance_out, language_of, rfc3339, secret_notes
from controlplane.wire.answers import InstanceOut, RevisionOut, RevisionsOut
from controlplane.wire.deploy import RedeployIn, RollbackIn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controlplane.model import Revision
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.succession import Succession

REVISION_PROBLEMS = ("not_found", *DEPLOY_PROBLEMS)


async def redeploy(call: Call) -> Reply:
    """200 when the new revision serves, 202 when it is still on its way, 422 with the evidence when the old one stays."""
    runner = call.find_runner()
    return await _bring_up(call, runner, lambda: call.services.deployer.redeploy(
        call.principal, runner, call.body, call.upload
    ))  # fmt: skip


async def rollback(call: Call) -> Reply:
    """As `redeploy`, with what an earlier revision was."""
    runner = call.find_runner()
    return await _bring_up(
        call, runner, lambda: call.services.deployer.rollback(call.principal, runner, call.body.revision)
    )


async def _bring_up(call: Call, runner: Runner, begin: Callable[[], Awaitable[Succession]]) -> Reply:
    events = None
    if prefers_events(call.head.get(b"accept")):
        events = call.services.hub.subscribe(instance_id=runner.instance.id)
    try:
        succession = await begin()
    except BaseException:
        if events is not None:
            events.close()
            events.clear()
        raise
    outcome = Outcome(wait=partial(_wait, runner, succession), reply=partial(_brought_up, runner, succession))
    return await answer(call, outcome, events)


async def _wait(runner: Runner, succession: Succession, timeout_s: float) -> None:
    """Until the revision is in force and serves, or is known to have failed."""
    with trio.move_on_after(timeout_s):
        await succession.done.wait()
        if succession.failure is None:
            await runner.wait_settled(timeout_s)


def _brought_up(runner: Runner, succession: Succession) -> Reply:
    if succession.failure is not None:
        raise of_revision(runner, succession.revision, succession.failure)
    if succession.done.is_set():
        raise_if_failed(runner)
    is_up = succession.done.is_set() and runner.state is State.RUNNING
    return json_reply(instance_out(runner, notes=secret_notes(runner.instance.spec)), 200 if is_up else 202)


async def list_revisions(call: Call) -> Reply:
    """Those that are kept, newest first."""
    runner = call.find_runner()
    kept = await call.services.store.revisions(runner.instance.id)
    return json_reply(RevisionsOut(revisions=[revision_out(runner, revision) for revision in kept]))


def revision_out(runner: Runner, revision: Revision) -> RevisionOut:
    """One of them, as seen from what is in force now."""
    spec = revision.spec
    return RevisionOut(
        revision=spec.revision,
        cause=spec.cause,
        created_at=rfc3339(revision.created_at),
        source_type=spec.source_type.value,
        language=language_of(spec),
        source=runner.logbook.redact(source_line(spec)),
        resolved=dict(spec.resolved.facts) if spec.resolved else {},
        ran_at=rfc3339(revision.ran_at) if revision.ran_at is not None else None,
        state=_state(runner, revision),
        failure=evidence_out(revision.failure),
    )


def _state(runner: Runner, revision: Revision) -> Literal["active", "superseded", "failed", "pending"]:
    number, succession = revision.spec.revision, runner.succession
    if number == runner.instance.spec.revision:
        return "active"
    if succession is not None and not succession.done.is_set() and succession.revision == number:
        return "pending"
    # One that neither ran nor is said to have failed was cut short by the control plane's own end.
    has_ended_well = revision.failure is None and (revision.ran_at is not None or revision.spec.cause == "patch")
    return "superseded" if has_ended_well else "failed"


_HOW = (
    "Until it answers its handshake the revision in force goes on serving, and if it never does, for good. Answers when it has"
    " taken over, or after `wait` seconds with 202; with `Accept: text/event-stream` as a stream that ends with the `result`."
)
ROUTES = (
    Route(
        "POST",
        "/instances/{id}/redeploy",
        redeploy,
        operation="redeployInstance",
        summary="Bring up a new revision",
        description=(
            "Without a source it is the same one anew: a branch's newest commit, a package's newest version. What is not given"
            f" stays as it is. {_HOW}"
        ),
        tag="Deploy",
        role=Role.DEPLOYER,
        query=WaitQuery,
        body=RedeployIn,
        takes_upload=True,
        may_be_empty=True,
        example={"source_ref": "v2", "limits": {"memory_mb": 512}},
        answers={200: (InstanceOut, "text/event-stream"), 202: InstanceOut},
        problems=REVISION_PROBLEMS,
    ),
    Route(
        "POST",
        "/instances/{id}/rollback",
        rollback,
        operation="rollBackInstance",
        summary="Go back to an earlier revision",
        description=(
            "It becomes a revision of its own, with the very commit or package versions that the earlier one had. Without a"
            f" number: the newest before the present one that ran. {_HOW}"
        ),
        tag="Deploy",
        role=Role.DEPLOYER,
        query=WaitQuery,
        body=RollbackIn,
        may_be_empty=True,
        example={"revision": 3},
        answers={200: (InstanceOut, "text/event-stream"), 202: InstanceOut},
        problems=REVISION_PROBLEMS,
    ),
    Route(
        "GET",
        "/instances/{id}/revisions",
        list_revisions,
        operation="listRevisions",
        summary="List an instance's revisions",
        description="Newest first; the latest ten are kept, and the way back.",
        tag="Instances",
        role=Role.VIEWER,
        answers={200: RevisionsOut},
        problems=("not_found",),
    ),
)
