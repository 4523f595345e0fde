"""`POST /api/v2/deploy`: accept, then wait for the outcome as long as the client asks."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.cluster.roster import HeldElsewhere
from controlplane.core.lifecycle import State
from controlplane.errors import FieldError
from controlplane.model import Role
from controlplane.web import gather
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.failures import raise_if_failed
from controlplane.web.request import prefers_events
from controlplane.web.route import Route
from controlplane.web.settling import Outcome, answer
from controlplane.web.views import instance_out, secret_notes
from controlplane.wire.answers import InstanceOut
from controlplane.wire.deploy import DeployIn
from controlplane.wire.fields import bounded
from controlplane.wire.wrong import invalid_request

if TYPE_CHECKING:
    from controlplane.supervise.runner import Runner

WAIT_DEFAULT_S = 30.0
WAIT_MAX_S = 300.0

KEY_PATTERN = "^[!-~]{1,255}$"
_KEY = re.compile(KEY_PATTERN.encode())


@frozen(kw_only=True)
class WaitQuery:
    """How long to wait for the outcome."""

    wait: float = bounded(
        WAIT_DEFAULT_S, minimum=0, maximum=WAIT_MAX_S, description="Seconds to wait for the outcome before a 202."
    )


async def deploy(call: Call) -> Reply:
    """201 when it runs, 202 when it is still on its way, 422 with the evidence when it failed."""
    streams = prefers_events(call.head.get(b"accept"))
    call.about(call.body.name or "", call.principal.owner)
    try:
        runner = await call.services.deployer.deploy(
            call.principal,
            call.body,
            body_digest=call.digest,
            idempotency_key=_idempotency_key(call),
            upload=call.upload,
        )
    except HeldElsewhere as held:
        return await _deployed_elsewhere(call, held)
    hub, instance_id = call.services.hub, runner.instance.id
    call.about(str(instance_id), runner.instance.owner)
    # It began before its id was known: everything since then is replayed.
    events = hub.subscribe(instance_id=instance_id, last_event_id=f"{hub.epoch}-0") if streams else None
    return await answer(call, Outcome(wait=runner.wait_settled, reply=partial(_deployed, runner)), events)


def _deployed(runner: Runner) -> Reply:
    raise_if_failed(runner)
    location = (b"location", f"/instances/{runner.instance.id}".encode())
    status = 201 if runner.state is State.RUNNING else 202
    return json_reply(instance_out(runner, notes=secret_notes(runner.instance.spec)), status, headers=(location,))


async def _deployed_elsewhere(call: Call, held: HeldElsewhere) -> Reply:
    """The same request, by its key, came by another control plane before: how that instance is now, never as a stream."""
    instance_id = str(held.elsewhere.id)
    call.about(instance_id, held.elsewhere.owner)
    document = await gather.document_of_holder(call, held, f"/instances/{instance_id}")
    location = (b"location", f"/instances/{instance_id}".encode())
    return json_reply(document, 201 if document["status"] == "running" else 202, headers=(location,))


def _idempotency_key(call: Call) -> str | None:
    raw = call.head.get(b"idempotency-key")
    if raw is None:
        return None
    if not _KEY.fullmatch(raw):
        raise invalid_request([FieldError("Idempotency-Key", "expected 1 to 255 printable ASCII characters")])
    return raw.decode("ascii")


DEPLOY_PROBLEMS = (
    "not_acceptable",
    "conflict",
    "quota_exceeded",
    "rate_limited",
    "overloaded",
    "deploy_failed",
    "build_failed",
    "secret_missing",
    "source_rejected",
    "archive_rejected",
)
EXAMPLE = {
    "name": "memory-server",
    "source_type": "mcp_config",
    "mcp_config": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-memory"]},
    "labels": {"team": "docs"},
}


def _route(path: str, operation: str, summary: str) -> Route:
    return Route(
        "POST",
        path,
        deploy,
        operation=operation,
        summary=summary,
        description=(
            "Takes a command as MCP clients write it, a file, an archive or a repository. Answers when the server runs, or"
            " after `wait` seconds. An archive may come as the part `source` of a `multipart/form-data` body, beside the part"
            " `spec`. With `Accept: text/event-stream` the answer is a stream: the instance's events, its build's output"
            " included, then a last `result` or `problem`."
            " With an `Idempotency-Key` header, the same request within 24 hours gives the same instance again."
        ),
        tag="Deploy",
        role=Role.DEPLOYER,
        query=WaitQuery,
        body=DeployIn,
        takes_upload=True,
        example=EXAMPLE,
        answers={200: "text/event-stream", 201: InstanceOut, 202: InstanceOut},
        problems=DEPLOY_PROBLEMS,
        headers={
            "Idempotency-Key": {
                "description": "The same key and body within 24 hours answer the first result again.",
                "pattern": KEY_PATTERN,
            }
        },
    )


ROUTES = (
    _route("/api/v2/deploy", "deploy", "Deploy an MCP server"),
    _route("/deploy", "deployShort", "The same, at its short path"),
)
