"""What an instance and its history look like from outside. Pure: values in, answers out.

The one place that decides what is shown of a spec: names of environment
variables, never their values; arguments that are or hold a secret are hidden
in their place.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

import attrs

from controlplane.core.lifecycle import PUBLIC_STATUS
from controlplane.core.redact import redactor
from controlplane.wire.answers import (
    CandidateOut,
    EventOut,
    EvidenceOut,
    InstanceDetailOut,
    InstanceOut,
    LaneOut,
    LogOut,
    MetricOut,
    Status,
    StreamName,
    TokenOut,
    UserOut,
)
from controlplane.wire.redact import redact_args, secret_positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.core.latency import Histogram
    from controlplane.model import Evidence, Instance, LogLine, Sample, Spec, Token, User
    from controlplane.protocol.handshake import ProtocolFacts
    from controlplane.store.values import StoredEvent
    from controlplane.supervise.lane import Lane
    from controlplane.supervise.runner import Runner


def rfc3339(moment: datetime) -> str:
    """UTC with a `Z`, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instance_out(runner: Runner, *, notes: tuple[str, ...] = ()) -> InstanceOut:
    """The row of a list, and the answer of deploy, start, stop and delete."""
    return InstanceOut(**_row(runner, notes))


def instance_detail(runner: Runner, *, post_mortem: Evidence | None, tools: list[dict[str, Any]]) -> InstanceDetailOut:
    """All of one instance."""
    spec, hide = runner.instance.spec, runner.logbook.redact  # which knows the secrets that the environment names
    return InstanceDetailOut(
        **_row(runner, secret_notes(spec)),
        incarnation=runner.instance.incarnation,
        mcp_config=_launch(spec, hide),
        dependencies=list(spec.dependencies),
        build_command=hide(redactor(spec.env)(spec.build_command)) if spec.build_command is not None else None,
        environment_vars=sorted(spec.env),
        limits=attrs.asdict(spec.limits),
        restart=_restart(spec),
        network=dict(spec.network),
        mounts=[{"source": m.source, "target": m.target, "mode": "rw" if m.writable else "ro"} for m in spec.mounts],
        sessions=spec.sessions,
        protocol=protocol_out(runner.protocol),
        lanes=lanes_out(runner),
        tools=tools,
        post_mortem=evidence_out(post_mortem),
    )


def lanes_out(runner: Runner) -> list[LaneOut]:
    """The processes that serve clients, the primary first."""
    primary = [] if runner.lane is None else [runner.lane]
    return [_lane(lane, "primary") for lane in primary] + [
        _lane(lane, "private" if lane.is_private else "shared") for lane in runner.lanes.serving()
    ]


def _lane(lane: Lane, kind: Literal["primary", "shared", "private"]) -> LaneOut:
    return LaneOut(
        pid=lane.child.job.pid,
        kind=kind,
        era=lane.era.value,
        version=lane.facts.version,
        capabilities=sorted(lane.capabilities),
        clients=len(lane.session.audience),
        calls_in_flight=len(lane.session.pending),
    )


def stored_out(instance: Instance, note: str) -> InstanceOut:
    """The row of an instance that no control plane answers for: what the database knows, and nothing of a process."""
    return InstanceOut(
        **_kept(instance),
        status=public_status(instance),
        phase="",
        isolation=instance.spec.isolation,
        notes=[note],
    )


def _row(runner: Runner, notes: tuple[str, ...]) -> dict[str, Any]:
    sample, meter = runner.last_sample, runner.meter
    live = sample if runner.pid is not None else None
    return {
        **_kept(runner.instance),
        "candidate": _candidate(runner),
        "status": status_of(runner),
        "phase": runner.phase,
        "isolation": runner.isolation,
        "enforcement": dict(runner.launch.enforcement) if runner.launch is not None else {},
        "pid": runner.pid,
        "uptime_s": _rounded(runner.uptime_s),
        "started_at": rfc3339(runner.started_at) if runner.started_at is not None else None,
        "cpu_percent": live.cpu_percent if live else None,
        "memory_mb": live.memory_mb if live else None,
        "processes": live.processes if live else None,
        "disk_mb": live.disk_mb if live else None,
        "calls": meter.calls,
        "errors": meter.errors,
        "p50_ms": _latest(live.p50_ms if live else None, meter.latency, 0.5),
        "p95_ms": _latest(live.p95_ms if live else None, meter.latency, 0.95),
        "notes": list(dict.fromkeys((*runner.notes, *notes))),
    }


def _kept(instance: Instance) -> dict[str, Any]:
    """What the database has of an instance as well."""
    spec = instance.spec
    return {
        "instance_id": str(instance.id),
        "name": instance.name,
        "owner": instance.owner,
        "language": language_of(spec),
        "source_type": spec.source_type.value,
        "revision": spec.revision,
        "entry_point": spec.entry_point or (spec.resolved.entry_point if spec.resolved else None),
        "resolved": dict(spec.resolved.facts) if spec.resolved else {},
        "desired": instance.desired.value,
        "node": str(instance.node_id) if instance.node_id is not None else None,
        "created_at": rfc3339(instance.created_at),
        "updated_at": rfc3339(instance.updated_at),
        "sse_endpoint": f"/mcp/{instance.id}/stream",
        "api_endpoint": f"/mcp/{instance.id}/execute",
        "mcp_endpoint": f"/mcp/{instance.id}",
        "restarts": instance.restarts,
        "labels": dict(instance.labels),
        "last_error": evidence_out(instance.last_error),
    }


def language_of(spec: Spec) -> str:
    """As asked for, or as the first build found it; empty before that."""
    return spec.language or (spec.resolved.language if spec.resolved else "")


def _candidate(runner: Runner) -> CandidateOut | None:
    """The revision that is being brought up beside the one in force."""
    succession = runner.succession
    if succession is None or succession.done.is_set():
        return None
    return CandidateOut(revision=succession.revision, phase=succession.phase)


def status_of(runner: Runner) -> Status:
    """The public word for what was last seen."""
    return cast("Status", PUBLIC_STATUS[runner.state])


def public_status(instance: Instance) -> Status:
    """The public word for what the database last saw."""
    return cast("Status", PUBLIC_STATUS[instance.state])


def _latest(sampled_ms: float | None, since_start: Histogram, q: float) -> float | None:
    """The last sample's quantile, or since the start where no call fell into it."""
    if sampled_ms is not None:
        return sampled_ms
    return milliseconds(since_start.quantile(q))


def milliseconds(seconds: float | None) -> float | None:
    """A latency as people read it."""
    return None if seconds is None else round(seconds * 1000, 3)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _launch(spec: Spec, hide_secrets: Callable[[str], str]) -> dict[str, Any] | None:
    if spec.command is None:
        return None
    hide = redactor(spec.env)
    return {
        "command": hide_secrets(hide(spec.command.command)),
        "args": [hide_secrets(arg) for arg in redact_args(spec.command.args, spec.env)],
        "cwd": None if spec.command.cwd is None else hide_secrets(hide(spec.command.cwd)),
    }


def secret_notes(spec: Spec) -> tuple[str, ...]:
    """A warning for each argument that holds a secret: it is allowed, but nothing hides it on the host."""
    if spec.command is None:
        return ()
    return tuple(
        f"mcp_config.args[{position}] looks like a secret: every user of the host can read command lines, so pass it in env"
        for position in secret_positions(spec.command.args, spec.env)
    )


def _restart(spec: Spec) -> dict[str, Any]:
    policy = spec.restart
    return {
        "mode": policy.mode.value,
        "burst": policy.burst,
        "window_s": policy.window_s,
        "max_delay_s": policy.max_delay_s,
    }


def protocol_out(facts: ProtocolFacts | None) -> dict[str, Any]:
    """What the last handshake found; empty before the first."""
    if facts is None:
        return {}
    return {
        "era": facts.era.value,
        "version": facts.version,
        "server_info": dict(facts.server_info),
        "capabilities": dict(facts.capabilities),
        "instructions": facts.instructions,
    }


def evidence_out(evidence: Evidence | None) -> EvidenceOut | None:
    """A post-mortem, as it was kept (it was redacted then)."""
    if evidence is None:
        return None
    return EvidenceOut(
        code=evidence.code,
        reason=evidence.reason,
        phase=evidence.phase,
        at=rfc3339(evidence.at),
        incarnation=evidence.incarnation,
        exit_code=evidence.exit_code,
        signal=evidence.signal,
        stderr_tail=list(evidence.stderr_tail),
        last_frames=list(evidence.last_frames),
        peak_memory_mb=evidence.peak_memory_mb,
        peak_processes=evidence.peak_processes,
        ran_s=_rounded(evidence.ran_s),
        samples=[dict(sample) for sample in evidence.samples],
        hint=evidence.hint,
    )


def log_out(line: LogLine) -> LogOut:
    """A line of a log."""
    return LogOut(
        timestamp=rfc3339(line.at),
        log_level=line.level,
        stream=cast("StreamName", line.stream),
        incarnation=line.incarnation,
        message=line.message,
    )


def metric_out(sample: Sample) -> MetricOut:
    """A sample, under the names of the founding README's table."""
    return MetricOut(
        timestamp=rfc3339(sample.at),
        cpu_usage=sample.cpu_percent,
        memory_usage=sample.memory_mb,
        processes=sample.processes,
        calls=sample.calls,
        errors=sample.errors,
        p50_ms=sample.p50_ms,
        p95_ms=sample.p95_ms,
        open_files=sample.open_files,
        disk_mb=sample.disk_mb,
    )


def event_out(event: StoredEvent) -> EventOut:
    """An event as it was kept."""
    return EventOut(
        event_id=str(event.id),
        type=event.type,
        timestamp=rfc3339(event.at),
        instance_id=str(event.instance_id) if event.instance_id is not None else None,
        data=dict(event.data),
    )


def token_out(token: Token, *, secret: str | None = None) -> TokenOut:
    """`secret` is the token itself, in the one answer that made it."""
    return TokenOut(
        token_id=str(token.id),
        name=token.name,
        owner=token.owner,
        role=token.role.value,
        created_at=rfc3339(token.created_at),
        expires_at=rfc3339(token.expires_at) if token.expires_at is not None else None,
        last_used_at=rfc3339(token.last_used_at) if token.last_used_at is not None else None,
        instances=sorted(map(str, token.instances)) if token.instances is not None else None,
        token=secret,
    )


def user_out(user: User, *, secret: str | None = None) -> UserOut:
    """`secret` is the user's first token, in the answer that made the user."""
    return UserOut(
        name=user.name,
        role=user.role.value,
        disabled=user.disabled,
        created_at=rfc3339(user.created_at) if user.created_at is not None else None,
        quotas=attrs.asdict(user.quotas, filter=lambda _, value: value is not None),
        token=secret,
    )
