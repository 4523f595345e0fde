"""A legacy client's session with the endpoint, and what it takes to begin it anew.

Pure. The endpoint forgets a session when the control plane or the instance starts anew, or after a long silence. A
client on stdio cannot know: its pipe never broke. So what it said to set the session up is kept, and said again; the
new session counts only if the server is what it was before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from controlplane.cli.relay.fields import safely_encoded
from controlplane.cli.relay.frame import decoded, members

if TYPE_CHECKING:
    from controlplane.cli.relay.frame import Frame

MAX_SUBSCRIPTIONS = 1_000
"""Resources whose subscription is said again; a client with more loses the oldest."""
LIST_CHANGES = {"tools": "tools", "prompts": "prompts", "resources": "resources"}
"""What may have changed meanwhile, by the capability that says the client will be told."""


@define(eq=False)
class Handshake:
    """One session, from the client's initialize on."""

    initialize: Frame
    session_id: str | None
    version: str
    capabilities: Any
    initialized: Frame | None = None
    _level: Frame | None = None
    _subscriptions: dict[str, Frame] = field(factory=dict)

    @classmethod
    def of(cls, initialize: Frame, answer: bytes, session_id: str | None) -> Handshake | None:
        """Read the answer to an initialize; None for an error."""
        result = decoded(members(answer).get("result"))
        if not isinstance(result, Mapping) or not isinstance(result.get("protocolVersion"), str):
            return None
        known = session_id if session_id and session_id.isascii() and session_id.isprintable() else None
        return cls(initialize, known, result["protocolVersion"], result.get("capabilities"))

    @property
    def fields(self) -> dict[str, str]:
        """The HTTP fields of everything in this session."""
        session = {} if self.session_id is None else {"Mcp-Session-Id": self.session_id}
        return {"MCP-Protocol-Version": safely_encoded(self.version), **session}

    def note(self, frame: Frame) -> None:
        """Remember a request that changes the session."""
        if frame.method == "logging/setLevel":
            self._level = frame
        uri = frame.param("uri") if frame.method in ("resources/subscribe", "resources/unsubscribe") else None
        if not isinstance(uri, str):
            return
        self._subscriptions.pop(uri, None)
        if frame.method == "resources/subscribe":
            self._subscriptions[uri] = frame
            if len(self._subscriptions) > MAX_SUBSCRIPTIONS:
                del self._subscriptions[next(iter(self._subscriptions))]

    def renewed(self, answer: bytes, session_id: str | None) -> Handshake | None:
        """Return the session that a second initialize began; None if the server is another than before."""
        now = Handshake.of(self.initialize, answer, session_id)
        if now is None or (now.version, now.capabilities) != (self.version, self.capabilities):
            return None
        return evolve(self, session_id=now.session_id)

    def said(self) -> Iterator[Frame]:
        """Yield what is to be said again after an initialize, in order."""
        if self.initialized is not None:
            yield self.initialized
        if self._level is not None:
            yield self._level
        yield from self._subscriptions.values()

    def changes(self) -> Iterator[bytes]:
        """Yield the notifications by which the client looks again at what it may have missed."""
        capabilities = self.capabilities if isinstance(self.capabilities, Mapping) else {}
        for name, word in LIST_CHANGES.items():
            declared = capabilities.get(name)
            if isinstance(declared, Mapping) and declared.get("listChanged") is True:
                yield b'{"jsonrpc":"2.0","method":"notifications/%s/list_changed"}' % word.encode()
