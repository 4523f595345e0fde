"""`POST /api/v2/deploy`: accept, then wait for the outcome as long as the client asks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.core.lifecycle import PUBLIC_STATUS, State
from controlplane.errors import DeployFailed, FieldError
from controlplane.model import Role
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.route import Route
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
    runner = await call.services.deployer.deploy(
        call.principal, call.body, body_digest=call.digest, idempotency_key=_idempotency_key(call)
    )
    await runner.wait_settled(call.query.wait)
    raise_if_failed(runner)
    location = (b"location", f"/instances/{runner.instance.id}".encode())
    status = 201 if runner.state is State.RUNNING else 202
    return json_reply(instance_out(runner, notes=secret_notes(runner.instance.spec)), status, headers=(location,))


def raise_if_failed(runner: Runner) -> None:
    """Turn a failed instance into the answer that carries its post-mortem.

    Raises:
        DeployFailed: the instance is `failed`; it stays, with its logs.
    """
    if runner.state is not State.FAILED:
        return
    instance, last = runner.instance, runner.instance.last_error
    evidence = {"instance_id": str(instance.id), "name": instance.name, "instance_status": PUBLIC_STATUS[runner.state]}
    if last is None:
        raise DeployFailed(f"The instance {instance.name} failed.", evidence=evidence)
    seen = {
        "reason_code": last.code,
        "phase": last.phase,
        "exit_code": last.exit_code,
        "signal": last.signal,
        "stderr_tail": list(last.stderr_tail),
    }
    raise DeployFailed(
        f"The instance {instance.name} failed: {last.reason}",
        hint=last.hint or f"See its log: corral logs {instance.name}",
        evidence=evidence | {name: value for name, value in seen.items() if value is not None},
    )


def _idempotency_key(call: Call) -> str | None:
    raw = call.head.get(b"idempotency-key")
    if raw is None:
        return None
    if not _KEY.fullmatch(raw):
        raise invalid_request([FieldError("Idempotency-Key", "expected 1 to 255 printable ASCII characters")])
    return raw.decode("ascii")


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
            "Takes a command as MCP clients write it, or a source file. Answers when the server runs, or after `wait` seconds."
            " With an `Idempotency-Key` header, the same request within 24 hours gives the same instance again."
        ),
        tag="Deploy",
        role=Role.DEPLOYER,
        query=WaitQuery,
        body=DeployIn,
        example=EXAMPLE,
        answers={201: InstanceOut, 202: InstanceOut},
        problems=("conflict", "quota_exceeded", "rate_limited", "deploy_failed", "source_rejected", "build_failed"),
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
