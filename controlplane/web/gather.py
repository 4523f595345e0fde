"""Lists and sums of the whole fleet: every node is asked for its part, as the caller asked this one.

Each live node answers the same request with the caller's own credentials, for
itself alone (`peers.NODE_HEADER`), within `PART_S`. What a node that does not
answer holds, and what nobody holds, is shown as the database last saw it: a list
loses no row in silence.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import trio
from attrs import frozen

from controlplane.errors import CorralError, StorageUnavailable
from controlplane.web.peers import NODE_HEADER, host_of
from controlplane.web.vouching import Client

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.cluster.roster import HeldElsewhere, Node
    from controlplane.model import Instance
    from controlplane.web.call import Call
    from controlplane.web.problems import Headers

log = logging.getLogger("corral.web")

PART_S = 2.0
"""For a node's part: it has it in memory."""
PART_MAX_BYTES = 32 * 2**20
"""A page of 500 instances has 1 or 2 MiB."""
HANDED_ON = (
    b"authorization",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"traceparent",
    b"tracestate",
)
OK = 200
STALE = "No control plane answers for it at this moment: this is what the database last saw of it."


@frozen
class Parts:
    """What the other nodes said. `silent`: live ones that did not answer."""

    documents: tuple[Mapping[str, Any], ...] = ()
    silent: frozenset[UUID] = frozenset()
    rest: tuple[Instance, ...] = ()
    """Instances that no node has answered for, as the database has them."""
    notes: tuple[str, ...] = ()
    """What is missing, for people."""


def is_asked_alone(call: Call) -> bool:
    """Whether only this node's part is wanted: another node asks, or there is none."""
    return call.services.roster.is_alone or NODE_HEADER in call.head.fields


async def parts(call: Call) -> Parts:
    """The other nodes' answers to the same request."""
    roster = call.services.roster
    if is_asked_alone(call):
        return Parts()
    found: dict[UUID, Mapping[str, Any] | None] = {}
    async with trio.open_nursery() as nursery:
        for peer in roster.others():
            nursery.start_soon(_ask, call, peer, found)
    silent = frozenset(node_id for node_id, document in found.items() if document is None)
    answered = found.keys() - silent
    notes = [f"Node {_name(call, node_id)} does not answer." for node_id in sorted(silent)]
    unseen = {known.id for known in roster.elsewhere() if known.node_id not in answered}
    rest: tuple[Instance, ...] = ()
    if unseen or roster.nodes.keys() - answered - {roster.node_id}:
        try:
            kept = await call.services.store.instances()
        except StorageUnavailable:
            if unseen:
                notes.append(
                    f"{len(unseen)} instances are not shown: their control planes are away, and so is the database."
                )
        else:  # by its word, as the roster's is up to a second old: what was deployed meanwhile is no less there
            mine = {runner.instance.id for runner in call.services.supervisor.runners()}
            rest = tuple(one for one in kept if one.node_id not in answered and one.id not in mine)
    documents = tuple(document for document in found.values() if document is not None)
    return Parts(documents, silent, rest, tuple(notes))


def _name(call: Call, node_id: UUID) -> str:
    """As people call it: by its address, which is for those who may see `/nodes`."""
    node = call.services.roster.nodes.get(node_id)
    return node.url if node is not None and call.principal.is_admin else str(node_id)


async def _ask(call: Call, peer: Node, found: dict[UUID, Mapping[str, Any] | None]) -> None:
    found[peer.id] = None
    silent, problem = call.services.peers.silent, f"no answer within {PART_S:g} s"
    with trio.move_on_after(PART_S):
        try:
            found[peer.id] = await _part(call, peer)
            silent.discard(peer.id)
            return
        except (CorralError, httpx.TransportError, ValueError) as error:
            problem = str(error)
    level = logging.DEBUG if peer.id in silent else logging.WARNING  # once for as long as it lasts, not for each list
    silent.add(peer.id)
    log.log(level, "node %s at %s did not give its part of %s: %s", peer.id, peer.url, call.head.path, problem)


async def document_of_holder(call: Call, held: HeldElsewhere, path: str) -> Mapping[str, Any]:
    """What the holder of an instance says of it; raises `held` when it does not."""
    node_id = held.elsewhere.node_id
    peer = call.services.roster.nodes.get(node_id) if node_id is not None else None
    if peer is not None and peer.is_live and not is_asked_alone(call):
        with trio.move_on_after(PART_S), suppress(CorralError, httpx.TransportError, ValueError):
            return await _document(call, peer, path.encode())
    raise held


async def _part(call: Call, peer: Node) -> Mapping[str, Any]:
    head = call.head
    return await _document(call, peer, head.path.encode() + (b"?" + head.query if head.query else b""))


async def _document(call: Call, peer: Node, target: bytes) -> Mapping[str, Any]:
    """One node's document; raises ValueError for anything that is none."""
    services = call.services
    async with services.peers.asking(peer, "GET", target, _fields(call, peer), read_s=PART_S) as answer:
        body = bytearray()
        async for piece in answer.aiter_raw():
            body += piece
            if len(body) > PART_MAX_BYTES:
                raise ValueError("the part is too large")
    if answer.status_code != OK:
        raise ValueError(f"status {answer.status_code}")
    return msgspec.json.decode(bytes(body), type=dict[str, Any])


def _fields(call: Call, peer: Node) -> Headers:
    services, request_id = call.services, call.request_id.encode("ascii")
    by = str(services.roster.node_id).encode()
    own = (
        (b"host", host_of(peer)),
        (b"accept", b"application/json"),
        (b"x-request-id", request_id),
        (NODE_HEADER, by),
        *services.vouching.fields(Client(services.guards.client(call.head), is_counted=False), by, request_id),
    )
    return (*own, *((name, value) for name in HANDED_ON if (value := call.head.fields.get(name)) is not None))
