"""What is told about an instance, and to whom: its log, the event streams, the journal.

Also the listener of what its server says besides answers. Nothing here waits,
decides or fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define

from controlplane.core.jsonrpc import decode_or_none
from controlplane.core.lifecycle import PUBLIC_STATUS

if TYPE_CHECKING:
    from controlplane.hub import Hub
    from controlplane.model import Evidence, Instance, Sample
    from controlplane.store.journal import Journal
    from controlplane.supervise.logbook import Logbook
    from controlplane.supervise.succession import Succession

_LEVELS = {"debug": "debug", "info": "info", "notice": "info", "warning": "warning"}
"""MCP's log levels (RFC 5424) to ours; the graver ones are all `error`."""

CUT_SHORT = "Corral ended without stopping this instance: what happened in the second before may be missing here"


@define(eq=False)
class Herald:
    """One instance's voice. `on_list_changed` is called with the method when the server says that a list has changed."""

    instance: Instance
    journal: Journal
    hub: Hub
    logbook: Logbook
    on_list_changed: Callable[[str], None]

    def status(self, instance: Instance, phase: str, pid: int | None, candidate: Succession | None) -> None:
        """The instance is in another state or phase. `candidate` is the succession that is under way."""
        self.journal.observe(instance, phase=phase)
        self.logbook.system("info", f"{PUBLIC_STATUS[instance.state]}: {phase}")
        self.candidate(instance, phase, pid, candidate)

    def revision_failed(self, revision: int, evidence: Evidence) -> None:
        """A revision did not take over: the one before serves on."""
        self.logbook.system("error", f"revision {revision} did not take over: {evidence.reason}")
        data = {"revision": revision, "code": evidence.code, "reason": evidence.reason, "phase": evidence.phase}
        self._publish("revision_failed", data)

    def candidate(self, instance: Instance, phase: str, pid: int | None, candidate: Succession | None) -> None:
        """The revision that is to take over is in another phase, or there is none any more; the instance is what it was."""
        data: dict[str, Any] = {
            "name": instance.name,
            "status": PUBLIC_STATUS[instance.state],
            "phase": phase,
            "pid": pid,
            "revision": instance.spec.revision,
            "restarts": instance.restarts,
            "incarnation": instance.incarnation,
        }
        if instance.last_error is not None:
            data["reason"] = instance.last_error.reason
        if candidate is not None:
            data["candidate"] = {"revision": candidate.revision, "phase": candidate.phase}
        self._publish("status", data)

    def failure(self, evidence: Evidence) -> None:
        """A process, or the start of one, came to a bad end."""
        self.logbook.system("error", evidence.reason)
        self._publish("post_mortem", {"code": evidence.code, "reason": evidence.reason, "phase": evidence.phase})

    def gap(self) -> None:
        """An earlier life of Corral's ended without stopping the instance: its last rows were not written."""
        self.logbook.system("warning", CUT_SHORT)
        self._publish("gap", {"missed": None, "reason": CUT_SHORT})

    def sampled(self, sample: Sample) -> None:
        """Somebody looked at the instance's processes."""
        self.journal.sample(self.instance.id, sample)
        data = {
            "cpu_percent": sample.cpu_percent,
            "memory_mb": sample.memory_mb,
            "processes": sample.processes,
            "calls": sample.calls,
            "errors": sample.errors,
            "p50_ms": sample.p50_ms,
            "p95_ms": sample.p95_ms,
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
        self._publish("notification", {"method": method, "params": value})

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
        instance = self.instance
        self.hub.publish_nowait(type_, instance_id=instance.id, owner=instance.owner, data=data, ring=ring)
