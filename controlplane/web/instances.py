"""Instances: list, look at, change, start, stop, restart, remove."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from attrs import frozen

from controlplane.core.lifecycle import State
from controlplane.errors import Forbidden, StorageUnavailable
from controlplane.model import Role
from controlplane.web import gather
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.catalogue import catalogue
from controlplane.web.deploys import WaitQuery
from controlplane.web.failures import OF_THE_SOURCE, raise_if_failed
from controlplane.web.gather import is_asked_alone
from controlplane.web.paging import PageQuery, page
from controlplane.web.route import Route
from controlplane.web.views import (
    instance_detail,
    instance_out,
    language_of,
    public_status,
    rfc3339,
    status_of,
    stored_out,
)
from controlplane.wire.answers import InstanceDetailOut, InstanceOut, InstancesOut, Status
from controlplane.wire.convert import unstructure
from controlplane.wire.deploy import PatchIn
from controlplane.wire.fields import bounded
from controlplane.wire.mcp import McpMessageOut

if TYPE_CHECKING:
    from controlplane.model import Evidence, Instance
    from controlplane.supervise.runner import Runner

REMOVE_WAIT_S = 30.0
"""A stop ladder takes 8 s at most, a fork bomb some more; after this the answer is 202."""


@frozen(kw_only=True)
class ListQuery(PageQuery):
    """Filters; those given must all hold."""

    status: list[Status] | None = bounded(None, description="Any of these; repeat it or use commas.")
    name: str | None = bounded(None, minLength=1, maxLength=63, description="Exact, or a pattern with `*`.")
    language: str | None = bounded(None, minLength=1, maxLength=32)
    label: list[str] | None = bounded(
        None, maxItems=32, description="`key=value`, or `key` for any value; all that are given must hold."
    )
    owner: str | None = bounded(None, minLength=1, maxLength=63, description="For administrators: one user's only.")


async def list_instances(call: Call) -> Reply:
    """The caller's instances; an administrator sees everybody's."""
    query: ListQuery = call.query
    wanted = (runner for runner in visible(call) if _matches(runner.instance, status_of(runner), query))
    runners, own_cursor = page(wanted, _place, query)
    rows = [instance_out(runner) for runner in runners]
    if is_asked_alone(call):
        return json_reply(InstancesOut(instances=rows, next_cursor=own_cursor))
    parts = await gather.parts(call)
    has_more = own_cursor is not None or any(part.get("next_cursor") is not None for part in parts.documents)
    others = [row for part in parts.documents for row in part["instances"]]
    merged, next_cursor = page(
        unique([*map(unstructure, rows), *others, *_stored(call, parts.rest)]), _row_place, query, has_more=has_more
    )
    notes = {"notes": list(parts.notes)} if parts.notes else {}
    return json_reply({"instances": merged, "next_cursor": next_cursor, **notes})


def _stored(call: Call, instances: Iterable[Instance]) -> Iterator[dict[str, Any]]:
    """The rows of instances that no control plane answers for, as far as they are asked for."""
    for it in seen(call, instances):
        if _matches(it, public_status(it), call.query):
            yield unstructure(stored_out(it, gather.STALE))


def unique(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each instance once, the first that is there of it: it may have changed hands while its nodes were asked."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["instance_id"], row)
    return list(found.values())


def _row_place(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["created_at"], row["instance_id"]


def visible(call: Call) -> Iterable[Runner]:
    """The runners that the caller may see; `owner` narrows it for an administrator.

    Raises:
        Forbidden: a user asked for somebody else's.
    """
    owner = whose(call)
    known = ((runner, runner.instance) for runner in call.services.supervisor.runners())
    return [
        runner for runner, it in known if owner in (None, it.owner) and call.principal.sees(it.owner, it.name, it.id)
    ]


def seen(call: Call, instances: Iterable[Instance]) -> list[Instance]:
    """Those of some instances that the caller may see and has asked for, as `visible`."""
    owner = whose(call)
    return [it for it in instances if owner in (None, it.owner) and call.principal.sees(it.owner, it.name, it.id)]


def whose(call: Call) -> str | None:
    """Whose instances are asked for, by the query's `owner`; None: everybody's, for an administrator.

    Raises:
        Forbidden: a user asked for somebody else's.
    """
    owner: str | None = getattr(call.query, "owner", None)
    if call.principal.crosses_owners:
        return owner
    if owner not in (None, call.principal.owner):
        raise Forbidden("Only administrators see other users' instances.", hint="Leave `owner` out.")
    return call.principal.owner


def _place(runner: Runner) -> tuple[str, str]:
    return rfc3339(runner.instance.created_at), str(runner.instance.id)


def _matches(instance: Instance, status: Status, query: ListQuery) -> bool:
    return (
        (query.status is None or status in query.status)
        and (query.name is None or _named(instance.name, query.name.lower()))
        and (query.language is None or language_of(instance.spec) == query.language.lower())
        and all(_labelled(instance, label) for label in query.label or ())
    )


def _named(name: str, wanted: str) -> bool:
    # Only `*` is special: a name has no other character that fnmatch would read.
    return fnmatchcase(name, wanted.replace("[", "[[]").replace("?", "[?]"))


def _labelled(instance: Instance, wanted: str) -> bool:
    key, given, value = wanted.partition("=")
    return key in instance.labels and (not given or instance.labels[key] == value)


async def get_instance(call: Call) -> Reply:
    """All of one, with its tools and its last post-mortem."""
    runner = call.find_runner()
    post_mortem = await _post_mortem(call, runner)
    return json_reply(instance_detail(runner, post_mortem=post_mortem, tools=await catalogue(call.services, runner)))


async def _post_mortem(call: Call, runner: Runner) -> Evidence | None:
    """The last one; from memory while the database is away."""
    if runner.instance.last_error is not None:
        return runner.instance.last_error
    try:
        kept = await call.services.store.post_mortems(runner.instance.id, 1)
    except StorageUnavailable:
        return None
    return kept[0] if kept else None


async def patch_instance(call: Call) -> Reply:
    """Change it; `notes` say what waits for the next start."""
    runner = call.find_runner()
    notes = await call.services.deployer.patch(runner, call.body)
    return json_reply(instance_out(runner, notes=tuple(notes)))


async def start_instance(call: Call) -> Reply:
    """Desired state running; 409 when it is."""
    runner = call.find_runner()
    await call.services.supervisor.start(runner)
    return await _came_up(call, runner)


async def restart_instance(call: Call) -> Reply:
    """A new process; 409 when it was stopped on purpose."""
    runner = call.find_runner()
    await call.services.supervisor.restart(runner)
    return await _came_up(call, runner)


async def stop_instance(call: Call) -> Reply:
    """Desired state stopped; 409 when it is."""
    runner = call.find_runner()
    await call.services.supervisor.stop(runner)
    await runner.wait_settled(call.query.wait)
    return json_reply(instance_out(runner), 200 if runner.state is State.STOPPED else 202)


async def _came_up(call: Call, runner: Runner) -> Reply:
    await runner.wait_settled(call.query.wait)
    raise_if_failed(runner)
    return json_reply(instance_out(runner), 200 if runner.state is State.RUNNING else 202)


async def remove_instance(call: Call) -> Reply:
    """Stop and remove: the final record once no process is left; its logs stay."""
    runner = call.find_runner()
    await call.services.supervisor.remove(runner)
    gone = await runner.wait_gone(REMOVE_WAIT_S)
    return json_reply(instance_out(runner), 200 if gone else 202)


_WAIT = "Answers when it has settled, or after `wait` seconds with 202 and the phase reached."
ROUTES = (
    Route(
        "GET",
        "/instances",
        list_instances,
        operation="listInstances",
        summary="List instances",
        description=(
            "Oldest first, with live figures from the last sample, those of every control plane on the database among them."
            " One that none of them answers for is shown as the database last saw it, with a note. Administrators see everybody's."
        ),
        tag="Instances",
        role=Role.VIEWER,
        query=ListQuery,
        open_to_limited=True,
        answers={200: InstancesOut},
    ),
    Route(
        "GET",
        "/instances/{id}",
        get_instance,
        operation="getInstance",
        summary="Look at one instance",
        description="Its spec (no secret values), state, protocol, tools and last post-mortem.",
        tag="Instances",
        role=Role.VIEWER,
        answers={200: InstanceDetailOut},
        problems=("not_found",),
    ),
    Route(
        "PATCH",
        "/instances/{id}",
        patch_instance,
        operation="patchInstance",
        summary="Change limits, restart policy, network or labels",
        description=(
            "Absent fields stay. Limits take effect at once; `notes` in the answer say what does at the next start only."
            " Less memory than an instance uses now may be refused with a 409."
        ),
        tag="Instances",
        role=Role.DEPLOYER,
        body=PatchIn,
        example={"limits": {"memory_mb": 512}, "labels": {"team": "docs"}},
        answers={200: InstanceOut},
        problems=("not_found", "conflict", "quota_exceeded"),
    ),
    *(
        Route(
            "POST",
            f"/instances/{{id}}/{verb}",
            handler,
            operation=f"{verb}Instance",
            summary=f"{verb.capitalize()} an instance",
            description=f"{effect} {_WAIT}",
            tag="Instances",
            role=Role.DEPLOYER,
            query=WaitQuery,
            answers={200: InstanceOut, 202: InstanceOut},
            problems=(
                "not_found",
                "conflict",
                *(("quota_exceeded", "deploy_failed", *OF_THE_SOURCE) if verb != "stop" else ()),
            ),
        )
        for verb, handler, effect in (
            ("start", start_instance, "Starts a stopped or failed instance."),
            ("stop", stop_instance, "Stops it until it is started again."),
            ("restart", restart_instance, "Ends its process and starts a new one."),
        )
    ),
    Route(
        "DELETE",
        "/instances/{id}",
        remove_instance,
        operation="removeInstance",
        summary="Stop and remove an instance",
        description="Answers with the final record once no process is left. Its logs stay for the retention time.",
        tag="Instances",
        role=Role.DEPLOYER,
        answers={200: InstanceOut, 202: InstanceOut},
        problems=("not_found",),
    ),
    Route(
        "DELETE",
        "/mcp/{id}",
        remove_instance,  # with neither field; the protocol's own DELETE is served in front (`asgi_routes.match`)
        operation="removeInstanceByEndpoint",
        summary="Remove at the MCP endpoint, or end a session",
        description=(
            "With neither MCP header it stops and removes the instance. With `Mcp-Session-Id` it ends that session and never"
            " more; with `MCP-Protocol-Version` alone it is the protocol's own DELETE; both take the role `caller`."
        ),
        tag="Instances",
        role=Role.DEPLOYER,
        answers={200: InstanceOut, 202: InstanceOut, 400: McpMessageOut, 404: McpMessageOut, 405: McpMessageOut},
        problems=("not_found", "method_not_allowed"),
        headers={
            "Mcp-Session-Id": {"description": "The session to end."},
            "MCP-Protocol-Version": {"description": "What an MCP client speaks."},
        },
    ),
)
