"""The bodies of `POST /api/v2/deploy` and of what may follow it, as clients write them.

Shapes and plain bounds only: what a deploy means, and what the host allows,
is decided in `deploy/`. Unknown fields are refused by the converter.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from controlplane.wire.fields import bounded

NAME_PATTERN = "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
"""Before folding: upper case becomes lower case, `_` and `.` become `-`."""
NAME_EXPECTS = "1 to 63 letters, digits, `-`, `_` or `.`, with a letter or digit at both ends"
ENV_NAME_PATTERN = "^[A-Za-z_][A-Za-z0-9_]{0,127}$"
LABEL_PATTERN = "^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$"
MAX_ARGS = 256
MAX_ARG_CHARS = 32_768
MAX_ENV = 256
MAX_LABELS = 32
MAX_DEPENDENCIES = 500
"""Far more than a person writes into a request; a real project has a manifest."""

_ENV: dict[str, Any] = {
    "maxProperties": MAX_ENV,
    "propertyNames": {"pattern": ENV_NAME_PATTERN, "x_expects": "a letter or `_`, then letters, digits or `_`"},
    "additionalProperties": {"maxLength": MAX_ARG_CHARS},
}
_LABELS: dict[str, Any] = {
    "maxProperties": MAX_LABELS,
    "propertyNames": {
        "pattern": LABEL_PATTERN,
        "x_expects": "1 to 63 letters, digits, `.`, `_`, `-` or `/`, with a letter or digit at both ends",
    },
    "additionalProperties": {"maxLength": 256},
}
_SOURCE_URL: dict[str, Any] = {
    "minLength": 1,
    "maxLength": 4096,
    "description": "https address of a git repository (`#ref` allowed) or of an archive.",
}
_SOURCE_REF: dict[str, Any] = {"minLength": 1, "maxLength": 256, "description": "Branch, tag or commit."}
_SOURCE_SUBDIR: dict[str, Any] = {"minLength": 1, "maxLength": 1024, "description": "Folder inside the source."}
_SOURCE_DATA: dict[str, Any] = {
    "minLength": 1,
    "description": "Base64: an archive, or for `direct` the file itself, written as `entry_point`.",
}
_DEPENDENCIES: dict[str, Any] = {"maxItems": MAX_DEPENDENCIES, "items": {"minLength": 1, "maxLength": 512}}


@frozen(kw_only=True)
class McpConfigIn:
    """How every MCP client writes a stdio server."""

    command: str = bounded(minLength=1, maxLength=4096, description="The program: a name on PATH or a path.")
    args: list[str] = bounded([], maxItems=MAX_ARGS, items={"maxLength": MAX_ARG_CHARS}, description="Its arguments.")
    env: dict[str, str] = bounded(
        {}, **_ENV, description="Environment variables. Values are encrypted at rest and never given back."
    )
    cwd: str | None = bounded(None, minLength=1, maxLength=4096, description="Working directory; absent: its own home.")


@frozen(kw_only=True)
class LimitsIn:
    """Each within the owner's and the operator's ceiling; absent: the ceiling itself."""

    memory_mb: int | None = bounded(None, minimum=16, maximum=1_048_576, description="Memory of the tree, MiB.")
    cpu_percent: int | None = bounded(None, minimum=1, maximum=102_400, description="CPU; 100 is one core.")
    disk_mb: int | None = bounded(None, minimum=1, maximum=16_777_216, description="Disk, MiB.")
    processes: int | None = bounded(None, minimum=1, maximum=65_536, description="Processes and threads.")
    open_files: int | None = bounded(None, minimum=64, maximum=1_048_576, description="Open files per process.")
    call_timeout_s: float | None = bounded(
        None, exclusiveMinimum=0, maximum=86_400, description="Seconds a call may take, unless the call says less."
    )
    log_kb_s: int | None = bounded(
        None, minimum=1, maximum=1_048_576, description="What is kept of what it prints, KiB a second."
    )


@frozen(kw_only=True)
class RestartIn:
    """What happens when the server ends."""

    mode: Literal["always", "on-failure", "never"] = bounded(
        "on-failure", description="`on-failure`: a server that ends by itself with status 0 stays ended."
    )
    burst: int = bounded(5, minimum=1, maximum=100, description="Exits within the window before it counts as failed.")
    window_s: float = bounded(60.0, exclusiveMinimum=0, maximum=86_400, description="The window, seconds.")
    max_delay_s: float = bounded(
        30.0, minimum=0.5, maximum=3_600, description="Ceiling of the doubling delay between starts, seconds."
    )


@frozen(kw_only=True)
class NetworkIn:
    """Where the server may connect to; in force from isolation level `namespaced` on."""

    mode: Literal["open", "allow", "none"] = bounded(
        "open", description="`open`: any public host; `allow`: only `hosts`; `none`: nothing."
    )
    hosts: list[str] = bounded(
        [], maxItems=256, items={"minLength": 1, "maxLength": 261}, description="`host` or `host:port`."
    )


@frozen(kw_only=True)
class MountIn:
    """A host directory shown to the server, only under the operator's `ALLOWED_MOUNTS`."""

    source: str = bounded(minLength=1, maxLength=4096, description="Path on the host.")
    target: str = bounded(minLength=1, maxLength=4096, description="Path that the server sees.")
    mode: Literal["ro", "rw"] = bounded("ro", description="Read only, or read and write.")


@frozen(kw_only=True)
class DeployIn:
    """What to run and how."""

    name: str = bounded(
        pattern=NAME_PATTERN,
        x_expects=NAME_EXPECTS,
        description="Unique per owner. Upper case is folded to lower case, `_` and `.` to `-`.",
    )
    source_type: Literal["mcp_config", "git", "zip", "tar", "direct"] = bounded(
        description=(
            "Where the server comes from: `mcp_config` is a command, `direct` one file in `source_data`, `git` a repository,"
            " `zip` and `tar` (plain, gz, bz2, xz, zst) an archive by address, in `source_data`, or as a file part."
        )
    )
    mcp_config: McpConfigIn | None = bounded(None, description="The launch, for `mcp_config`.")
    source_url: str | None = bounded(None, **_SOURCE_URL)
    source_ref: str | None = bounded(None, **_SOURCE_REF)
    source_subdir: str | None = bounded(None, **_SOURCE_SUBDIR)
    source_data: str | None = bounded(None, **_SOURCE_DATA)
    language: str | None = bounded(
        None, minLength=1, maxLength=32, description="`python`, `node`, `typescript`, `go`, `rust` …; absent: guessed."
    )
    entry_point: str | None = bounded(
        None, minLength=1, maxLength=255, description="The file to run, inside the source; absent: guessed."
    )
    dependencies: list[str] = bounded(
        [], **_DEPENDENCIES, description="Packages to install, by name, beside those that the source names itself."
    )
    build_command: str | None = bounded(
        None, minLength=1, maxLength=4096, description="An own build step, run by `sh` after the language's own."
    )
    environment_vars: dict[str, str] = bounded({}, **_ENV, description="Added to `mcp_config.env`, and wins over it.")
    limits: LimitsIn = bounded(LimitsIn(), description="Resource ceilings.")
    restart: RestartIn = bounded(RestartIn(), description="Restart policy.")
    isolation: Literal["auto", "process", "confined", "namespaced"] = bounded(
        "auto", description="The level to run at; what the host cannot give is refused, never weakened."
    )
    network: NetworkIn = bounded(NetworkIn(), description="Egress policy.")
    mounts: list[MountIn] = bounded([], maxItems=64, description="Host directories to show.")
    sessions: Literal["shared", "per-session"] = bounded(
        "shared", description="Whether MCP clients with sessions share one process."
    )
    labels: dict[str, str] = bounded({}, **_LABELS, description="Small string map; lists can be filtered by it.")


@frozen(kw_only=True)
class RedeployIn:
    """What a new revision changes; absent fields stay. Empty: the same source anew, as it is now."""

    source_type: Literal["mcp_config", "git", "zip", "tar", "direct"] | None = bounded(
        None,
        description=(
            "With it the source is replaced whole, and if it is of another type, what was said of the old one"
            " (`language`, `entry_point`, `dependencies`, `build_command`) goes with it. Absent: as before."
        ),
    )
    mcp_config: McpConfigIn | None = bounded(None, description="The launch, for `mcp_config`.")
    source_url: str | None = bounded(None, **_SOURCE_URL)
    source_ref: str | None = bounded(None, **_SOURCE_REF)
    source_subdir: str | None = bounded(None, **_SOURCE_SUBDIR)
    source_data: str | None = bounded(None, **_SOURCE_DATA)
    language: str | None = bounded(None, minLength=1, maxLength=32, description="As in a deploy.")
    entry_point: str | None = bounded(None, minLength=1, maxLength=255, description="The file to run.")
    dependencies: list[str] | None = bounded(None, **_DEPENDENCIES, description="Replaces all of them.")
    build_command: str | None = bounded(None, minLength=1, maxLength=4096, description="An own build step.")
    environment_vars: dict[str, str] | None = bounded(None, **_ENV, description="Replaces all variables.")
    limits: LimitsIn | None = bounded(None, description="Resource ceilings; those that are absent stay.")
    restart: RestartIn | None = bounded(None, description="Restart policy.")
    isolation: Literal["auto", "process", "confined", "namespaced"] | None = bounded(
        None, description="As in a deploy."
    )
    network: NetworkIn | None = bounded(None, description="Egress policy.")
    mounts: list[MountIn] | None = bounded(None, maxItems=64, description="Host directories to show.")
    sessions: Literal["shared", "per-session"] | None = bounded(None, description="As in a deploy.")
    labels: dict[str, str] | None = bounded(None, **_LABELS, description="Replaces all labels.")


@frozen(kw_only=True)
class RollbackIn:
    """Which revision to go back to."""

    revision: int | None = bounded(
        None,
        minimum=1,
        maximum=2**31 - 1,
        description="Its number; absent or null: the newest one before the present that ran.",
    )


@frozen(kw_only=True)
class PatchIn:
    """What may change on a deployed instance; absent fields stay."""

    limits: LimitsIn | None = bounded(None, description="Resource ceilings.")
    restart: RestartIn | None = bounded(None, description="Restart policy.")
    network: NetworkIn | None = bounded(None, description="Egress policy.")
    labels: dict[str, str] | None = bounded(None, **_LABELS, description="Replaces all labels.")


@frozen(kw_only=True)
class ExecuteIn:
    """One JSON-RPC request to the instance; the envelope is Corral's."""

    method: str = bounded(
        pattern="^[^\\x00-\\x1f\\x7f]+$",
        x_expects="a method name without control characters",
        minLength=1,
        maxLength=256,
        description="For example `tools/list`.",
    )
    params: dict[str, Any] | None = bounded(None, description="Passed on unchanged.")
    timeout_s: float | None = bounded(
        None,
        exclusiveMinimum=0,
        maximum=86_400,
        description="Seconds to wait for the answer; absent: the instance's own.",
    )
