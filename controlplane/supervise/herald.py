"""What is told about an instance, and to whom: its log, the event streams, the journal.

Also the listener of what its server says besides answers. Nothing here waits,
decides or fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import asdict, define

from controlplane.core.jsonrpc import decode_or_none
from controlplane.core.lifecycle import PUBLIC_STATUS

if TYPE_CHECKING:
    from controlplane.core.watchdog import Finding
    from controlplane.hub import Hub
    from controlplane.model import Evidence, Instance, Sample
    from controlplane.store.journal import Journal
    from controlplane.supervise.logbook import Logbook
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.succession import Succession

_LEVELS = {"debug": "debug", "info": "info", "notice": "info", "warning": "warning"}
"""MCP's log levels (RFC 5424) to ours; the graver ones are all `error`."""
_WATCHDOG = {
    "warn": ("warning", ""),
    "restart": ("error", "; it is restarted when its calls are answered"),
    "kill": ("error", "; it is ended"),
    "calm": ("info", ""),
}
"""By the step of a finding: the level of its log line, and what follows."""

CUT_SHORT = "Corral ended without stopping this instance: what happened in the second before may be missing here"


@define(eq=False)
class Herald:
    """One instance's voice. `on_list_changed` is called with the method when the server says that a list has changed."""

    instance: Instance
    journal: Journal
    hub: Hub
    logbook: Logbook
    on_list_changed: Callable[[str], None]
    is_silent: bool = False
    """Another node speaks for the instance, or soon will: how it ends here says nothing of how it is."""

    def deployed(self, instance: Instance) -> None:
        """The instance is there from now on; what becomes of it is told by `status`."""
        self._publish("deployed", outline(instance) | {"created_at": _rfc3339(instance.created_at)})

    def changed(self, instance: Instance) -> None:
        """Its labels, its limits or what it runs are others than before."""
        self._publish("changed", outline(instance))

    def status(self, runner: Runner, candidate: Succession | None) -> None:
        """The instance is in another state or phase. `candidate` is the succession that is under way."""
        if self.is_silent:
            return
        self.journal.observe(runner.instance, phase=runner.phase)
        self.logbook.system("info", f"{PUBLIC_STATUS[runner.state]}: {runner.phase}")
        self.candidate(runner, candidate)

    def revision_failed(self, revision: int, evidence: Evidence) -> None:
        """A revision did not take over: the one before serves on."""
        self.logbook.system("error", f"revision {revision} did not take over: {evidence.reason}")
        data = {"revision": revision, "code": evidence.code, "reason": evidence.reason, "phase": evidence.phase}
        self._publish("revision_failed", data)

    def candidate(self, runner: Runner, candidate: Succession | None) -> None:
        """The revision that is to take over is in another phase, or there is none any more; the instance is what it was."""
        instance, started_at = runner.instance, runner.started_at
        data: dict[str, Any] = {
            "name": instance.name,
            "status": PUBLIC_STATUS[instance.state],
            "phase": runner.phase,
            "desired": instance.desired.value,
            "pid": runner.pid,
            "started_at": None if started_at is None else _rfc3339(started_at),
            "revision": instance.spec.revision,
            "restarts": instance.restarts,
            "incarnation": instance.incarnation,
            "isolation": runner.isolation,
        }
        if instance.last_error is not None:
            data["reason"] = instance.last_error.reason
        if candidate is not None:
            data["candidate"] = {"revision": candidate.revision, "phase": candidate.phase}
        self._publish("status", data)

    def failure(self, evidence: Evidence) -> None:
        """A process, or the start of one, came to a bad end."""
        if self.is_silent:
            return
        self.logbook.system("error", evidence.reason)
        self._publish("post_mortem", {"code": evidence.code, "reason": evidence.reason, "phase": evidence.phase})

    def watchdog(self, finding: Finding) -> None:
        """What the instance uses, or does not do, is worth telling; see `core.watchdog`."""
        level, then = _WATCHDOG[finding.step]
        self.logbook.system(level, f"watchdog: it {finding.reason}{then}")
        data = asdict(finding)
        del data["code"]
        self._publish("watchdog", data)

    def gap(self) -> None:
        """An earlier life of Corral's ended without stopping the instance: its last rows were not written."""
        self.logbook.system("warning", CUT_SHORT)
        self._publish("gap", {"missed": None, "reason": CUT_SHORT})

    def sampled(self, sample: Sample, calls_total: int, errors_total: int) -> None:
        """Somebody looked at the instance's processes. The totals are since the control plane started."""
        self.journal.sample(self.instance.id, sample)
        data = {
            "cpu_percent": sample.cpu_percent,
            "memory_mb": sample.memory_mb,
            "processes": sample.processes,
            "open_files": sample.open_files,
            "disk_mb": sample.disk_mb,
            "calls": sample.calls,
            "errors": sample.errors,
            "p50_ms": sample.p50_ms,
            "p95_ms": sample.p95_ms,
            "interval_s": sample.interval_s,
            "calls_total": calls_total,
            "errors_total": errors_total,
        }
        self._publish("sample", data, ring=False)

    # -- protocol.session.Listener

    def on_notification(self, method: str, params: bytes | None) -> None:
        """The server tells something: to the stream, and a log message to the log too."""
        value = decode_or_none(params)
        if method == "notifications/message" and isinstance(value, Mapping):
            data = value.get("data")
            text = data if isinstance(data, str) else repr(data)
            self.logbook.said(_LEVELS.get(str(value.get("level")), "error"), text)
        if method.endswith("/list_changed"):
            self.on_list_changed(method)
        if method == "notifications/tools/list_changed":
            self._publish("tools_changed", {})
        self._publish("notification", {"method": method, "params": self._shown(params, value)})

    def _shown(self, params: bytes | None, value: Any) -> Any:
        """What a notification says, for who watches: the instance's own callers have got it as it was."""
        text = b"" if params is None else params
        told = self.logbook.redact(written := text.decode("utf-8", "backslashreplace"))
        return value if told == written else decode_or_none(told.encode("utf-8", "backslashreplace"))

    def on_child_request(self, method: str) -> None:
        """The server asked for something that was refused."""
        self.logbook.system("info", f"the server asked for {method}; refused: Corral declares no client capability")

    def on_noise(self, line: bytes) -> None:
        """A line on stdout that is no message."""
        self.logbook.printed("stdout", line)

    def on_oversized(self, size_bytes: int) -> None:
        """A line on stdout that was too long to keep."""
        self.logbook.system("error", f"the server wrote a message of {size_bytes} bytes on stdout; it was skipped")

    def _publish(self, type_: str, data: dict[str, Any], *, ring: bool = True) -> None:
        if self.is_silent:
            return
        instance = self.instance
        self.hub.publish_nowait(type_, instance_id=instance.id, owner=instance.owner, data=data, ring=ring)


def outline(instance: Instance) -> dict[str, Any]:
    """What a table of instances shows of one, but for what its process does; no secrets."""
    spec = instance.spec
    return {
        "name": instance.name,
        "language": spec.language or (spec.resolved.language if spec.resolved else ""),
        "source_type": spec.source_type.value,
        "revision": spec.revision,
        "labels": dict(instance.labels),
        "limits": asdict(spec.limits),
    }


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
