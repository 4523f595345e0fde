"""Requests of modern clients (MCP 2026-07-28): one POST, one request, and nothing kept between two.

A server of the same era gets the request as it is, and the client its answer.
One of a legacy version is bridged: it never sees the envelope, and what it asks
in the middle of a call parks that call until the client's retry brings the
answers. A client that closes its connection has cancelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.core.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND
from controlplane.errors import CorralError, ShuttingDown
from controlplane.protocol import modern_to_legacy as bridge
from controlplane.protocol.asking import FloorTaken
from controlplane.protocol.capabilities import needed_by
from controlplane.protocol.handshake import Era
from controlplane.protocol.headers import modern_request
from controlplane.protocol.listening import LISTEN
from controlplane.protocol.logging_levels import level_in, passes
from controlplane.protocol.members import error
from controlplane.protocol.param_headers import check_params
from controlplane.protocol.pending import CALLER_GONE, Asked, Told
from controlplane.protocol.questions import ASKING
from controlplane.protocol.routing import CANCELLED, LOG, PROGRESS
from controlplane.protocol.topology import Place, place_modern
from controlplane.supervise import calls
from controlplane.web.mcp import known_lists
from controlplane.web.mcp.answers import fault, frame, notification, refused
from controlplane.web.mcp.exchange import LOG_LEVEL, Exchange
from controlplane.web.mcp.listening import Listening
from controlplane.web.mcp.outlet import ClientLeft, Outlet, Reply
from controlplane.web.mcp.parked import TTL_S, Parked, StateRefused
from controlplane.web.mcp.streams import KEEPALIVE, KEEPALIVE_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from controlplane.model import Principal
    from controlplane.protocol.headers import ModernRequest
    from controlplane.protocol.pending import Call
    from controlplane.supervise.lane import Lane
    from controlplane.supervise.runner import Runner
    from controlplane.web.request import Head
    from controlplane.web.services import Services

GATHER_S = 0.02
"""After a question of the server's: others that it asks together with it are put into the same round."""
MOVES_MAX = 3
"""From one process to another, when each gets a call that waits for its client just then."""
CALL_TOOL = "tools/call"
DISCOVER = "server/discover"


@define(eq=False)
class ParkedCall:
    """A call that waits for its client's answers: to these questions, by the keys that the client knows them by."""

    call: Call
    lane: Lane
    asked: dict[str, Asked]
    rounds: int = 1
    ask_at: float = 0.0
    """Trio time at which the client is asked, when there is something to ask."""

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask the client."""
        return bool(self.asked) and trio.current_time() >= self.ask_at

    def forget_withdrawn(self) -> None:
        """The server does not want all of its questions answered any more."""
        is_open = self.lane.session.waits_for
        self.asked = {key: asked for key, asked in self.asked.items() if is_open(asked.id)}


@define(eq=False)
class ModernSide:
    """Answers every request of this era."""

    services: Services
    parked: Parked[ParkedCall] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.parked = Parked(_drop)

    async def post(self, principal: Principal, runner: Runner, head: Head, body: bytes, outlet: Outlet) -> Reply | None:
        """Answer one POST.

        Raises:
            Refusal: it is not in order.
        """
        request = modern_request(head.fields, body)
        if request is None:
            return Reply(202)
        if bridge.is_removed(request.method):
            detail = f"{request.method} is no method of this protocol version"
            return Reply(404, refused(request.id, METHOD_NOT_FOUND, detail))
        exchange = Exchange(principal, runner, request, outlet)
        try:
            if self.services.stopping:
                raise ShuttingDown("The control plane is stopping; it takes no new calls.", retry_after_s=5)
            if "requestState" in request.members and (retried := self._claimed(exchange)) is not None:
                return await self._resume(exchange, *retried)  # wherever that call runs, and whatever the primary does
            return await self._answer(exchange, head)
        except CorralError as problem:
            return await exchange.finish(fault(problem))
        except ClientLeft:
            return None

    async def _answer(self, exchange: Exchange, head: Head) -> Reply | None:
        runner, request = exchange.runner, exchange.request
        if (listed := known_lists.known(runner, request)) is not None:
            return exchange.reply(listed)
        lane = runner.lane
        if lane is None or not runner.serving:
            lane = await calls.serving_lane(runner)
        if request.method == CALL_TOOL:
            _check_mirrored(runner, request, head)
        if lane.era is Era.MODERN:
            if request.method == LISTEN:
                return await Listening(exchange, lane).relay()
            return await self._native(exchange, lane)
        if request.method == DISCOVER:
            return exchange.reply(b'"result":' + bridge.discover_result(lane.facts))
        if lane.era is Era.BARE:
            return await self._bare(exchange, lane)
        if place_modern(lane.era, asks=bool(exchange.capabilities)) is Place.SHARED:
            lane = await runner.lanes.legacy(exchange.capabilities)
        if request.method == LISTEN:
            return await Listening(exchange, lane).bridge()
        return await self._bridged(exchange, lane)

    # -- a server of the same era

    async def _native(self, exchange: Exchange, lane: Lane) -> Reply | None:
        request = exchange.request
        call = await calls.begin(
            exchange.runner,
            lane,
            request.method,
            request.params,
            asker=exchange.asker,
            is_gone=exchange.outlet.is_gone,
            logs=LOG_LEVEL in request.meta,
        )
        quiet_until = call.started + KEEPALIVE_S
        try:
            while not isinstance(said := await lane.session.pending.next(call, quiet_until), bytes):
                if isinstance(said, Told):
                    calls.extend(exchange.runner, call)
                    await exchange.tell(frame(notification(said.method, said.params)))
                elif said is None:
                    await exchange.tell(KEEPALIVE)
                quiet_until = trio.current_time() + KEEPALIVE_S
            known_lists.note(exchange.runner, lane, request.method, request.params, said)
            return await exchange.finish(bridge.discovered(said) if request.method == DISCOVER else said)
        finally:
            lane.session.pending.give_up(call, CALLER_GONE)

    # -- a server of the bare dialect

    async def _bare(self, exchange: Exchange, lane: Lane) -> Reply | None:
        request = exchange.request
        if request.method == LISTEN:
            return await Listening(exchange, lane).bridge()
        member = await exchange.runner.call(
            request.method, bridge.legacy_params(request.params), is_gone=exchange.outlet.is_gone
        )
        return exchange.reply(bridge.modern_member(request.method, member, lane.facts))

    # -- a server of a legacy version

    async def _bridged(self, exchange: Exchange, lane: Lane) -> Reply | None:
        if not bridge.RETRY_KEYS.isdisjoint(exchange.request.members):
            try:
                if bridge.retry_of(exchange.request.params).state is not None:
                    raise StateRefused
            except (ValueError, StateRefused) as wrong:
                return exchange.reply(error(INVALID_PARAMS, str(wrong)))
        return await self._converse(exchange, await self._send(exchange, lane))

    async def _send(self, exchange: Exchange, lane: Lane) -> ParkedCall:
        """Make the call, on another process if here it would wait for somebody else's client."""
        request = exchange.request
        for can_leave in (*[True] * MOVES_MAX, False):
            if request.method in ASKING:
                lane = await exchange.runner.lanes.roomy(lane)
            if (level := exchange.log_level) is not None:
                lane.want_log_level(level)
            try:
                call = await calls.begin(
                    exchange.runner,
                    lane,
                    request.method,
                    bridge.legacy_params(request.params),
                    asker=exchange.asker,
                    is_gone=exchange.outlet.is_gone,
                    can_leave=can_leave,
                )
            except FloorTaken:
                continue
            return ParkedCall(call, lane, {})
        raise AssertionError("who cannot leave stays")

    def _claimed(self, exchange: Exchange) -> tuple[ParkedCall, Mapping[str, bytes]] | None:
        """The parked call that this is the retry of, and the answers; None if there is none: a server may have states too."""
        request = exchange.request
        try:
            retry = bridge.retry_of(request.params)
            digest = bridge.digest(request.method, request.params)
            owner, instance_id = exchange.principal.owner, exchange.runner.instance.id
            return self.parked.claim(retry.state or "", owner, instance_id, digest), retry.responses
        except (ValueError, StateRefused):
            return None

    async def _resume(self, exchange: Exchange, parked: ParkedCall, responses: Mapping[str, bytes]) -> Reply | None:
        """Give the server its answers, and go on; what is still unanswered is asked for again."""
        parked.forget_withdrawn()
        for key in [key for key in parked.asked if key in responses]:
            parked.lane.session.answer(parked.asked.pop(key).id, b'"result":' + responses[key])
        if parked.asked and parked.call.outcome is None:
            return await self._ask(exchange, parked)
        call = parked.call
        calls.take_up(exchange.runner, call)
        limit_s = exchange.runner.instance.spec.limits.call_timeout_s
        call.deadline, call.is_gone = trio.current_time() + limit_s, exchange.outlet.is_gone
        call.token = bridge.request_meta(exchange.request.params).progress_token
        call.forget(PROGRESS)  # it has the token of a request that is over
        parked.asked.clear()
        return await self._converse(exchange, parked)

    async def _converse(self, exchange: Exchange, parked: ParkedCall) -> Reply | None:
        """Relay what the server says of a call, until it answers or asks."""
        call, lane = parked.call, parked.lane
        has_parked = False
        try:
            while not isinstance(said := await self._next(parked), bytes):
                if isinstance(said, Asked):
                    self._note(exchange, parked, said)
                elif isinstance(said, Told):
                    await self._pass_on(exchange, parked, said)
                elif not parked.asked:
                    await exchange.tell(KEEPALIVE)
                if parked.is_due:
                    has_parked = True
                    return await self._ask(exchange, parked)
            known_lists.note(exchange.runner, lane, exchange.request.method, exchange.request.params, said)
            return await exchange.finish(bridge.modern_member(exchange.request.method, said, lane.facts))
        finally:
            if not has_parked:
                lane.session.pending.give_up(call, CALLER_GONE)

    async def _pass_on(self, exchange: Exchange, parked: ParkedCall, told: Told) -> None:
        if told.method == CANCELLED:
            parked.forget_withdrawn()
            return
        calls.extend(exchange.runner, parked.call)
        if told.method == PROGRESS and parked.call.token is None:
            return  # this retry of the request did not ask for it
        if told.method != LOG or passes(level_in(told.params), exchange.log_level):
            await exchange.tell(frame(notification(told.method, told.params)))

    def _next(self, parked: ParkedCall) -> Awaitable[bytes | Told | Asked | None]:
        """What comes next; once there is a question only what comes with it, for one round shall hold them all."""
        until = parked.ask_at if parked.asked else trio.current_time() + KEEPALIVE_S
        return parked.lane.session.pending.next(parked.call, until)

    def _note(self, exchange: Exchange, parked: ParkedCall, asked: Asked) -> None:
        """A question for the client, if it is one that it declared to answer."""
        if needed_by(asked.method, asked.params) in exchange.capabilities:
            parked.asked[f"{asked.method.partition('/')[0]}-{parked.rounds}"] = asked
            parked.rounds += 1
            parked.ask_at = trio.current_time() + GATHER_S
        else:
            detail = f"the client cannot be asked for {asked.method} like this"
            parked.lane.session.answer(asked.id, error(METHOD_NOT_FOUND, detail))

    async def _ask(self, exchange: Exchange, parked: ParkedCall) -> Reply | None:
        """Answer with what the server asks, and keep the call for its client's retry."""
        request, call = exchange.request, parked.call
        state = self.parked.park(
            parked,
            user=exchange.principal.owner,
            instance_id=exchange.runner.instance.id,
            digest=bridge.digest(request.method, request.params),
        )
        # The table drops it in time; a little later the call ends by itself.
        call.deadline, call.is_gone = trio.current_time() + TTL_S * 2, None
        calls.set_aside(exchange.runner, call)
        try:
            return await exchange.finish(bridge.input_required(parked.asked, state))
        except BaseException:
            self.parked.drop(state)  # nobody has it, so nobody will come back
            raise


def _check_mirrored(runner: Runner, request: ModernRequest, head: Head) -> None:
    """A tool's schema names the arguments that fields repeat. While the catalogue is not up to date none is checked:
    a call must not fail because Corral does not know. Raises Refusal.
    """
    declared = runner.catalogue.mirrored().get(request.name or "")
    if declared is not None:
        check_params(head.fields, declared, request)


def _drop(parked: ParkedCall) -> None:
    """Nobody came back for it."""
    parked.lane.session.pending.give_up(parked.call, "the client did not come back with its answers")
