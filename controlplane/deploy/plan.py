"""What a deploy request means: a Spec, or every reason why not. Pure.

All wrong places are reported at once, each with a JSON Pointer. Ceilings come
from the operator's settings; what this build or host cannot give is refused
here, never silently weakened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from attrs import evolve

from controlplane.core.hosts import parse_pattern
from controlplane.core.restart import RestartMode, RestartPolicy
from controlplane.deploy.isolation import HostLevels, asked_again, network_notes, plan_level, plan_mounts
from controlplane.deploy.references import check_written, refuse_elsewhere
from controlplane.deploy.refusals import Refusals
from controlplane.deploy.wanted import plan_source, wanted_again, wanted_first
from controlplane.model import Command, Limits, Spec

if TYPE_CHECKING:
    from controlplane.config import Config
    from controlplane.wire.deploy import DeployIn, LimitsIn, McpConfigIn, NetworkIn, PatchIn, RedeployIn, RestartIn

MAX_COMMAND_BYTES = 96 * 1024
"""Arguments and environment together; the kernel's own limit is a few times that."""
RESERVED_PREFIX = "CORRAL_"
NO_LEVELS = HostLevels()
"""A host that gives `process` alone."""
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def fold_name(name: str) -> str:
    """The name as it is kept: lower case, `_` and `.` as `-`."""
    return re.sub(r"[_.]", "-", name.lower())


def plan(body: DeployIn, config: Config, *, uploaded: bool = False, host: HostLevels = NO_LEVELS) -> tuple[str, Spec]:
    """Work out the folded name and the Spec of a deploy request.

    Args:
        host: Which isolation levels there are.
        uploaded: Whether an archive comes as a file beside the request.

    Raises:
        InvalidRequest, SourceRejected: with every wrong place.
    """
    refusals = Refusals()
    name = _name(body.name, refusals)
    env = _environment(body.mcp_config, body.environment_vars, refusals)
    level = plan_level(body.isolation, config, host, refusals)
    members = plan_source(wanted_first(body, uploaded=uploaded), config, refusals)
    refuse_elsewhere(members.get("command"), refusals)
    _bounded(members.get("command"), env, refusals)
    limits = plan_limits(body.limits, config, refusals)
    network = _network(body.network, refusals)
    mounts = plan_mounts(body.mounts, level, config, refusals)
    refusals.raise_if_any()
    return name, Spec(
        **members,
        env=env,
        limits=limits,
        restart=plan_restart(body.restart),
        isolation=body.isolation,
        network=network,
        mounts=mounts,
        sessions=body.sessions,
    )


def replan(
    body: RedeployIn, before: Spec, config: Config, *, uploaded: bool = False, host: HostLevels = NO_LEVELS
) -> Spec:
    """Work out the Spec of a new revision: what the request names is new, all else as before.

    What earlier builds found is forgotten, so the same source is looked at anew. The number is not given here.

    Raises:
        InvalidRequest, SourceRejected: with every wrong place.
    """
    refusals = Refusals()
    env = _environment_again(body, before, refusals)
    isolation = body.isolation or before.isolation
    level = plan_level(isolation, config, host, refusals)
    members = plan_source(wanted_again(body, before, uploaded=uploaded), config, refusals)
    refuse_elsewhere(members.get("command"), refusals)
    _bounded(members.get("command"), env, refusals)
    limits = before.limits if body.limits is None else plan_limits(body.limits, config, refusals, before.limits)
    network = before.network if body.network is None else _network(body.network, refusals)
    mounts = plan_mounts(asked_again(before.mounts) if body.mounts is None else body.mounts, level, config, refusals)
    refusals.raise_if_any()
    return Spec(
        **members,
        cause="redeploy",
        env=env,
        limits=limits,
        restart=before.restart if body.restart is None else plan_restart(body.restart),
        isolation=isolation,
        network=network,
        mounts=mounts,
        sessions=body.sessions or before.sessions,
    )


def plan_limits(wanted: LimitsIn, config: Config, refusals: Refusals, base: Limits | None = None) -> Limits:
    """Fill what is absent with `base` (or the ceiling) and refuse what is above the ceiling."""
    ceilings: dict[str, float] = {
        "memory_mb": config.max_memory_mb,
        "cpu_percent": config.max_cpu_percent,
        "disk_mb": config.max_disk_usage_mb,
        "processes": config.max_processes,
        "open_files": config.max_open_files,
        "call_timeout_s": config.max_call_timeout_s,
        "log_kb_s": config.max_log_kb_per_s,
    }
    defaults = base or Limits(
        memory_mb=config.max_memory_mb,
        cpu_percent=config.max_cpu_percent,
        disk_mb=config.max_disk_usage_mb,
        processes=config.max_processes,
        open_files=config.max_open_files,
        call_timeout_s=min(Limits().call_timeout_s, config.max_call_timeout_s),
        log_kb_s=config.max_log_kb_per_s,
    )
    values = {}
    for key, ceiling in ceilings.items():
        value = getattr(wanted, key)
        if value is not None and value > ceiling:
            refusals.add(f"/limits/{key}", f"{value:g} is above this control plane's ceiling of {ceiling:g}")
        values[key] = getattr(defaults, key) if value is None else value
    return Limits(**values)


def plan_restart(wanted: RestartIn) -> RestartPolicy:
    """The restart policy asked for."""
    return RestartPolicy(
        mode=RestartMode(wanted.mode),
        burst=wanted.burst,
        window_s=wanted.window_s,
        max_delay_s=wanted.max_delay_s,
    )


LIMITS_NOTE = (
    "limits: in force at once; at the next start open_files, the size of one file, and more memory or processes"
    " where no control group holds them"
)
"""What a process was started with (rlimits) stays its own."""


def plan_patch(body: PatchIn, spec: Spec, config: Config) -> tuple[Spec, tuple[str, ...]]:
    """Apply a patch to a Spec; returns the new one and what takes effect only later.

    Raises:
        InvalidRequest: with every wrong place.
    """
    refusals, notes = Refusals(), []
    if body.limits is not None:
        spec = evolve(spec, limits=plan_limits(body.limits, config, refusals, spec.limits))
        notes.append(LIMITS_NOTE)
    if body.restart is not None:
        spec = evolve(spec, restart=plan_restart(body.restart))
        notes.append("restart: in force at the next start")
    if body.network is not None:
        spec = evolve(spec, network=_network(body.network, refusals))
        notes.append("network: in force at the next start")
    refusals.raise_if_any()
    return spec, tuple(notes)


def notes_on(spec: Spec, level: str) -> tuple[str, ...]:
    """What the owner should know about this Spec, which runs at this level."""
    notes = network_notes(spec, level)
    args = spec.command.args if spec.command else ()
    if any(_PASSWORD_IN_URL.search(arg) for arg in args):
        notes.append("mcp_config.args holds a password: arguments can be read by every local user; use the environment")
    return tuple(notes)


def _name(raw: str, refusals: Refusals) -> str:
    name = fold_name(raw)
    try:
        UUID(name)
    except ValueError:
        return name
    refusals.add("/name", "a name must not look like a UUID")
    return name


def _environment(config: McpConfigIn | None, variables: Mapping[str, str], refusals: Refusals) -> dict[str, str]:
    """A command's own variables, and over them those of the request."""
    env: dict[str, str] = {}
    for pointer, given in (("/mcp_config/env", config.env if config else {}), ("/environment_vars", variables)):
        for name in given:
            if name.startswith(RESERVED_PREFIX):
                refusals.add(f"{pointer}/{name}", f"names that start with {RESERVED_PREFIX} are Corral's own")
        env.update(given)
    check_written(config, variables, refusals)
    return env


def _environment_again(body: RedeployIn, before: Spec, refusals: Refusals) -> dict[str, str]:
    """Values are never given back, so a client that does not name them keeps them."""
    given = _environment(body.mcp_config, body.environment_vars or {}, refusals)
    return given if body.environment_vars is not None else {**before.env, **given}


def _network(wanted: NetworkIn, refusals: Refusals) -> dict[str, Any]:
    if wanted.hosts and wanted.mode != "allow":
        refusals.add("/network/hosts", "hosts go with mode allow")
    for index, host in enumerate(wanted.hosts):
        try:
            parse_pattern(host)
        except ValueError as error:
            refusals.add(f"/network/hosts/{index}", str(error))
    return {"mode": wanted.mode, "hosts": list(wanted.hosts)}


def _bounded(command: Command | None, env: Mapping[str, str], refusals: Refusals) -> None:
    words = [command.command, *command.args] if command else []
    size = sum(len(word.encode()) + 1 for word in (*words, *env.keys(), *env.values()))
    if size > MAX_COMMAND_BYTES:
        refusals.add("", f"arguments and environment are {size} bytes together; at most {MAX_COMMAND_BYTES}")
