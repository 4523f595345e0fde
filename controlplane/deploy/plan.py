"""What a deploy request means: a Spec, or every reason why not. Pure.

All wrong places are reported at once, each with a JSON Pointer. Ceilings come
from the operator's settings; what this build or host cannot give is refused
here, never silently weakened.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import UUID

from attrs import define, evolve, field

from controlplane.config import ISOLATION_LEVELS, Config
from controlplane.core.restart import RestartMode, RestartPolicy
from controlplane.errors import FieldError, InvalidRequest
from controlplane.model import Command, Limits, SourceType, Spec
from runtimes import catalog
from runtimes.recipe import UnknownLanguage

if TYPE_CHECKING:
    from controlplane.wire.deploy import DeployIn, LimitsIn, McpConfigIn, NetworkIn, PatchIn, RestartIn

MAX_COMMAND_BYTES = 96 * 1024
"""Arguments and environment together; the kernel's own limit is a few times that."""
MAX_SOURCE_BYTES = 8 * 2**20
"""One file of inline code, decoded."""
RESERVED_PREFIX = "CORRAL_"
LEVELS_HERE = ("auto", "process")
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_LANGUAGE = re.compile(r"[a-z][a-z0-9+#.-]{0,31}")
_ENTRY_POINT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def fold_name(name: str) -> str:
    """The name as it is kept: lower case, `_` and `.` as `-`."""
    return re.sub(r"[_.]", "-", name.lower())


@define
class Refusals:
    """Collects what is wrong with one request."""

    found: list[FieldError] = field(factory=list)
    hint: str | None = None

    def add(self, pointer: str, message: str, hint: str | None = None) -> None:
        self.found.append(FieldError(pointer, message))
        self.hint = self.hint or hint

    def raise_if_any(self) -> None:
        """Raises `InvalidRequest` with everything collected."""
        if self.found:
            detail = "; ".join(f"{error.pointer or '/'}: {error.message}" for error in self.found[:3])
            raise InvalidRequest(detail, hint=self.hint, errors=tuple(self.found))


def plan(body: DeployIn, config: Config) -> tuple[str, Spec]:
    """Work out the folded name and the Spec of a deploy request.

    Raises:
        InvalidRequest: with every wrong place.
    """
    refusals = Refusals()
    name = _name(body.name, refusals)
    env = _environment(body, refusals)
    _unsupported(body, config, refusals)
    command, entry_point, source, language = None, None, None, ""
    match body.source_type:
        case "mcp_config":
            command, language = _from_config(body, refusals)
        case "direct":
            entry_point, source, language = _from_direct(body, refusals)
        case other:
            refusals.add("/source_type", f"{other} is not supported by this version", "use mcp_config or direct")
    _bounded(command, env, refusals)
    limits = plan_limits(body.limits, config, refusals)
    network = _network(body.network, refusals)
    refusals.raise_if_any()
    return name, Spec(
        source_type=SourceType(body.source_type),
        language=language,
        command=command,
        entry_point=entry_point,
        source=source,
        env=env,
        limits=limits,
        restart=plan_restart(body.restart),
        isolation=body.isolation,
        network=network,
        sessions=body.sessions,
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
    }
    defaults = base or Limits(
        memory_mb=config.max_memory_mb,
        cpu_percent=config.max_cpu_percent,
        disk_mb=config.max_disk_usage_mb,
        processes=config.max_processes,
        open_files=config.max_open_files,
        call_timeout_s=min(Limits().call_timeout_s, config.max_call_timeout_s),
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


def plan_patch(body: PatchIn, spec: Spec, config: Config) -> tuple[Spec, tuple[str, ...]]:
    """Apply a patch to a Spec; returns the new one and what takes effect only later.

    Raises:
        InvalidRequest: with every wrong place.
    """
    refusals, notes = Refusals(), []
    if body.limits is not None:
        spec = evolve(spec, limits=plan_limits(body.limits, config, refusals, spec.limits))
        notes.append("limits: in force at the next start; call_timeout_s at once")
    if body.restart is not None:
        spec = evolve(spec, restart=plan_restart(body.restart))
        notes.append("restart: in force at the next start")
    if body.network is not None:
        spec = evolve(spec, network=_network(body.network, refusals))
        notes += network_notes(spec)
    refusals.raise_if_any()
    return spec, tuple(notes)


def network_notes(spec: Spec) -> list[str]:
    """What of the network wish is not in force at the level `process`."""
    if spec.network.get("mode", "open") == "open":
        return []
    return ["network: not in force at isolation level process; the instance can reach any host"]


def notes_on(spec: Spec) -> tuple[str, ...]:
    """What the owner should know about this Spec."""
    notes = network_notes(spec)
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


def _environment(body: DeployIn, refusals: Refusals) -> dict[str, str]:
    places: list[tuple[str, Mapping[str, str]]] = [("/environment_vars", body.environment_vars)]
    if body.mcp_config is not None:
        places.insert(0, ("/mcp_config/env", body.mcp_config.env))
    env: dict[str, str] = {}
    for pointer, variables in places:
        for name in variables:
            if name.startswith(RESERVED_PREFIX):
                refusals.add(f"{pointer}/{name}", f"names that start with {RESERVED_PREFIX} are Corral's own")
        env.update(variables)
    return env


def _unsupported(body: DeployIn, config: Config, refusals: Refusals) -> None:
    if body.isolation not in LEVELS_HERE:
        refusals.add("/isolation", f"this host cannot give {body.isolation}", "corral doctor shows what it can give")
    elif ISOLATION_LEVELS.index(config.min_isolation) > 0:
        refusals.add("/isolation", f"the operator demands at least {config.min_isolation}, which this host cannot give")
    if body.mounts:
        refusals.add("/mounts", "no host folder may be mounted here: ALLOWED_MOUNTS is empty")


def _network(wanted: NetworkIn, refusals: Refusals) -> dict[str, Any]:
    if wanted.hosts and wanted.mode != "allow":
        refusals.add("/network/hosts", "hosts go with mode allow")
    return {"mode": wanted.mode, "hosts": list(wanted.hosts)}


def _from_config(body: DeployIn, refusals: Refusals) -> tuple[Command | None, str]:
    for name in ("source_url", "source_ref", "source_subdir", "source_data", "entry_point", "build_command"):
        if getattr(body, name) is not None:
            refusals.add(f"/{name}", "does not go with source_type mcp_config")
    if body.dependencies:
        refusals.add("/dependencies", "does not go with source_type mcp_config")
    config = body.mcp_config
    if config is None:
        refusals.add("/mcp_config", "is needed for source_type mcp_config")
        return None, ""
    language = _label(body.language, refusals) if body.language else catalog.of_command(config.command)
    return Command(command=config.command, args=tuple(config.args), cwd=_cwd(config, refusals)), language


def _label(language: str, refusals: Refusals) -> str:
    """What a command is listed under: any language, by the name that it goes by here."""
    try:
        return catalog.normalize(language)
    except UnknownLanguage:
        name = language.lower()
    if not _LANGUAGE.fullmatch(name):
        refusals.add("/language", "is not the name of a language")
    return name


def _cwd(config: McpConfigIn, refusals: Refusals) -> str | None:
    if config.cwd is not None and ".." in PurePosixPath(config.cwd).parts:
        refusals.add("/mcp_config/cwd", "must not contain ..")
    return config.cwd


def _from_direct(body: DeployIn, refusals: Refusals) -> tuple[str | None, bytes | None, str]:
    for name in ("mcp_config", "source_url", "source_ref", "source_subdir"):
        if getattr(body, name) is not None:
            refusals.add(f"/{name}", "does not go with source_type direct")
    if body.dependencies:
        refusals.add("/dependencies", "are not installed by this version", "use mcp_config with npx or uvx")
    if body.build_command is not None:
        refusals.add("/build_command", "is not run by this version")
    language = _language(body, refusals)
    entry_point = body.entry_point or ("server.js" if language == "node" else "server.py")
    if not _ENTRY_POINT.fullmatch(entry_point):
        refusals.add("/entry_point", "must be a plain file name")
    return entry_point, _source(body.source_data, refusals), language


def _language(body: DeployIn, refusals: Refusals) -> str:
    named = body.language or catalog.of_file(body.entry_point or "")
    if named is None:
        refusals.add(
            "/language", "is needed: the entry point's suffix does not tell", f"one of {', '.join(catalog.LANGUAGES)}"
        )
        return ""
    try:
        return catalog.normalize(named)
    except UnknownLanguage as error:
        refusals.add("/language", str(error))
        return ""


def _source(data: str | None, refusals: Refusals) -> bytes | None:
    if data is None:
        refusals.add("/source_data", "is needed for source_type direct: the file, in base64")
        return None
    try:
        source = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        refusals.add("/source_data", "is not base64", "base64 -w0 server.py")
        return None
    if not source:
        refusals.add("/source_data", "is empty")
    if len(source) > MAX_SOURCE_BYTES:
        refusals.add("/source_data", f"is {len(source)} bytes; at most {MAX_SOURCE_BYTES}")
    return source


def _bounded(command: Command | None, env: Mapping[str, str], refusals: Refusals) -> None:
    words = [command.command, *command.args] if command else []
    size = sum(len(word.encode()) + 1 for word in (*words, *env.keys(), *env.values()))
    if size > MAX_COMMAND_BYTES:
        refusals.add("", f"arguments and environment are {size} bytes together; at most {MAX_COMMAND_BYTES}")
