"""A session's place among the clients of its lane: what it hears of the server outside of its calls.

On a lane of its own era the session is one of the audience. A modern server
tells only those who listen, so there Corral listens on the session's behalf:
to all lists that may change, and to each resource that the client subscribes to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.core.jsonrpc import INTERNAL_ERROR
from controlplane.errors import CorralError
from controlplane.protocol import legacy_to_modern as bridge
from controlplane.protocol.handshake import Era
from controlplane.protocol.listening import ACKNOWLEDGED, LISTEN
from controlplane.protocol.logging_levels import level_in, passes
from controlplane.protocol.members import EMPTY_RESULT, error
from controlplane.protocol.pending import Told
from controlplane.protocol.routing import LOG
from controlplane.supervise import calls
from controlplane.web.mcp.answers import notification
from controlplane.web.mcp.conversation import retract
from controlplane.web.mcp.questions import TooManyQuestions

if TYPE_CHECKING:
    from controlplane.protocol.pending import Asked, Call
    from controlplane.supervise.lane import Lane
    from controlplane.web.mcp.client_session import ClientSession

ACKNOWLEDGE_S = 10.0
"""For a modern server to acknowledge a subscription."""
LISTENS_MAX = 64
"""Resources that one session may be subscribed to on a modern server: each is a request held open."""


@define(eq=False)
class _Listen:
    """One subscription with a modern server: a request held open, in a task of its own."""

    call: Call | None = None
    """None until it is sent."""
    is_over: bool = False
    acknowledged: trio.Event = field(factory=trio.Event)
    """Also set when it has failed."""


@define(eq=False)
class Membership:
    """Made with the session, and left with it. `on_over` is told when the lane has ended."""

    session: ClientSession
    lane: Lane
    background: Callable[..., None]
    """Runs a task that outlives the request."""
    on_over: Callable[[ClientSession], None]
    _asked: dict[bytes, str] = field(factory=dict, init=False)
    _listens: dict[str, _Listen] = field(factory=dict, init=False)
    """By resource; the one for lists has the key `""`."""

    def begin(self) -> None:
        """Join the audience."""
        self.lane.join(self)
        if self.lane.era is Era.MODERN and (params := bridge.list_listen(self.lane.facts.capabilities)) is not None:
            self._begin_listen("", params)

    def end(self) -> None:
        """Leave it, and all that was subscribed to."""
        for key in list(self._listens):
            self._end_listen(key, "the client's session is over")
        self.lane.leave(self)

    # -- subscriptions to resources

    async def subscribe(self, uri: str) -> bytes:
        """Listen to a resource of a modern server; returns the answer to `resources/subscribe`."""
        listen = self._listens.get(uri)
        if listen is None:
            if len(self._listens) >= LISTENS_MAX:
                detail = f"a session may subscribe to {LISTENS_MAX} resources of this server at most"
                return error(INTERNAL_ERROR, detail)
            listen = self._begin_listen(uri, bridge.subscribe_listen((uri,)))
        with trio.move_on_after(ACKNOWLEDGE_S):
            await listen.acknowledged.wait()
        is_there = self._listens.get(uri) is listen
        return EMPTY_RESULT if is_there else error(INTERNAL_ERROR, "the server refused the subscription")

    def unsubscribe(self, uri: str) -> bytes:
        """Listen no more; returns the answer to `resources/unsubscribe`."""
        self._end_listen(uri, "the client unsubscribed")
        return EMPTY_RESULT

    def _begin_listen(self, key: str, params: bytes) -> _Listen:
        listen = self._listens[key] = _Listen()
        self.background(self._listen, key, params, listen)
        return listen

    def _end_listen(self, key: str, why: str) -> None:
        """It counts no more from now on, be it that its task has not begun."""
        listen = self._listens.pop(key, None)
        if listen is not None:
            listen.is_over = True
            if listen.call is not None:
                self.lane.session.pending.give_up(listen.call, why)

    async def _listen(self, key: str, params: bytes, listen: _Listen) -> None:
        """Service loop of one subscription."""
        session, pending = self.session, self.lane.session.pending
        enveloped = bridge.modern_params(
            params, client_info=session.client_info_raw, capabilities=session.capabilities_raw, log_level=None
        )
        try:
            if listen.is_over:
                return
            call = listen.call = await calls.subscribe(self.lane, LISTEN, enveloped, asker=session, is_gone=None)
            while not isinstance(said := await pending.next(call), bytes):
                if isinstance(said, Told) and said.method == ACKNOWLEDGED:
                    listen.acknowledged.set()
                elif isinstance(said, Told):
                    self.on_told(said.method, bridge.untagged(said.params))
        except CorralError:
            pass  # the lane is ending, and says so itself
        finally:
            if self._listens.get(key) is listen:
                del self._listens[key]
            listen.acknowledged.set()

    # -- protocol.audience.Member

    @property
    def asker(self) -> object:
        """Its calls are made for the session."""
        return self.session

    def on_told(self, method: str, params: bytes | None) -> None:
        """The server tells something outside of a call."""
        wanted = self.session.log_level
        if method != LOG or wanted is None or passes(level_in(params), wanted):
            self.session.deliver(notification(method, params))

    def on_asked(self, asked: Asked) -> bool:
        """The server asks something outside of a call."""

        def give(member: bytes) -> None:
            self._asked.pop(asked.id, None)
            self.lane.session.answer(asked.id, member)

        try:
            own_id, message = self.session.ask(give, asked.method, asked.params)
        except TooManyQuestions:
            return False
        self._asked[asked.id] = own_id
        self.session.deliver(message)
        return True

    def on_withdrawn(self, asked_id: bytes, params: bytes | None) -> None:
        """The server wants no answer any more."""
        own_id = self._asked.pop(asked_id, None)
        if own_id is not None:
            retract(self.session, own_id, params)

    def on_end(self, reason: str) -> None:  # noqa: ARG002  (its calls tell why; the session answers 404)
        """The lane is over, and the session with it."""
        self.on_over(self.session)
