"""The body of `POST /api/v2/deploy`, as clients write it.

Shapes and plain bounds only: what a deploy means, and what the host allows,
is decided in `deploy/`. Unknown fields are refused by the converter.
`metadata["schema"]` goes into the OpenAPI document as it stands, and the
converter enforces the same keywords, so the two cannot differ.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import field, frozen

NAME_PATTERN = "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
"""Before folding: upper case becomes lower case, `_` and `.` become `-`."""
ENV_NAME_PATTERN = "^[A-Za-z_][A-Za-z0-9_]{0,127}$"
MAX_ARGS = 256
MAX_ARG_CHARS = 32_768
MAX_ENV = 256


def bounded(default: Any = ..., /, **schema: Any) -> Any:
    """A field whose JSON Schema keywords (`minimum`, `pattern` …) are part of the API."""
    metadata = {"schema": schema}
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, (list, dict)):
        return field(factory=type(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@frozen(kw_only=True)
class McpConfigIn:
    """How every MCP client writes a stdio server."""

    command: str = bounded(minLength=1, maxLength=4096)
    args: list[str] = bounded([], maxItems=MAX_ARGS)
    env: dict[str, str] = bounded({}, maxProperties=MAX_ENV)
    cwd: str | None = bounded(None, minLength=1, maxLength=4096)


@frozen(kw_only=True)
class LimitsIn:
    """Each within the owner's and the operator's ceiling; absent: the ceiling itself."""

    memory_mb: int | None = bounded(None, minimum=16, maximum=1_048_576)
    cpu_percent: int | None = bounded(None, minimum=1, maximum=102_400)
    disk_mb: int | None = bounded(None, minimum=1, maximum=16_777_216)
    processes: int | None = bounded(None, minimum=1, maximum=65_536)
    open_files: int | None = bounded(None, minimum=64, maximum=1_048_576)
    call_timeout_s: float | None = bounded(None, exclusiveMinimum=0, maximum=86_400)


@frozen(kw_only=True)
class RestartIn:
    mode: Literal["always", "on-failure", "never"] = "on-failure"
    burst: int = bounded(5, minimum=1, maximum=100)
    window_s: float = bounded(60.0, exclusiveMinimum=0, maximum=86_400)
    max_delay_s: float = bounded(30.0, minimum=0.5, maximum=3_600)


@frozen(kw_only=True)
class NetworkIn:
    mode: Literal["open", "allow", "none"] = "open"
    hosts: list[str] = bounded([], maxItems=256)


@frozen(kw_only=True)
class MountIn:
    source: str = bounded(minLength=1, maxLength=4096)
    target: str = bounded(minLength=1, maxLength=4096)
    mode: Literal["ro", "rw"] = "ro"


@frozen(kw_only=True)
class DeployIn:
    """What to run and how."""

    name: str = bounded(pattern=NAME_PATTERN)
    source_type: Literal["mcp_config", "git", "zip", "tar", "direct"]
    mcp_config: McpConfigIn | None = None
    source_url: str | None = bounded(None, minLength=1, maxLength=4096)
    source_ref: str | None = bounded(None, minLength=1, maxLength=256)
    source_subdir: str | None = bounded(None, minLength=1, maxLength=1024)
    source_data: str | None = bounded(None, minLength=1)
    language: str | None = bounded(None, minLength=1, maxLength=32)
    entry_point: str | None = bounded(None, minLength=1, maxLength=255)
    dependencies: list[str] = bounded([], maxItems=500)
    build_command: str | None = bounded(None, minLength=1, maxLength=4096)
    environment_vars: dict[str, str] = bounded({}, maxProperties=MAX_ENV)
    limits: LimitsIn = LimitsIn()
    restart: RestartIn = RestartIn()
    isolation: Literal["auto", "process", "confined", "namespaced"] = "auto"
    network: NetworkIn = NetworkIn()
    mounts: list[MountIn] = bounded([], maxItems=64)
    sessions: Literal["shared", "per-session"] = "shared"
    labels: dict[str, str] = bounded({}, maxProperties=32)


@frozen(kw_only=True)
class PatchIn:
    """What may change on a deployed instance; absent fields stay."""

    limits: LimitsIn | None = None
    restart: RestartIn | None = None
    network: NetworkIn | None = None
    labels: dict[str, str] | None = bounded(None, maxProperties=32)


@frozen(kw_only=True)
class ExecuteIn:
    """One JSON-RPC request to the instance; the envelope is Corral's."""

    method: str = bounded(minLength=1, maxLength=256)
    params: dict[str, Any] | list[Any] | None = None
    timeout_s: float | None = bounded(None, exclusiveMinimum=0, maximum=86_400)
