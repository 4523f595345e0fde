"""`initialize` of a legacy client: which lane serves it, and what it is told of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.core.jsonrpc import INVALID_PARAMS
from controlplane.core.rawjson import encode, members
from controlplane.protocol.capabilities import capability_set
from controlplane.protocol.handshake import Era
from controlplane.protocol.inbound import Refusal, text_of
from controlplane.protocol.legacy_to_modern import initialize_result
from controlplane.protocol.members import is_object, object_members
from controlplane.protocol.topology import Place, place_legacy
from controlplane.protocol.versions import is_legacy, negotiate
from controlplane.supervise import calls
from controlplane.supervise.lane_start import LegacyRefused

if TYPE_CHECKING:
    from controlplane.protocol.capabilities import CapabilitySet
    from controlplane.supervise.lane import Lane
    from controlplane.supervise.runner import Runner

INTRODUCTION_MAX_BYTES = 64 * 1024
"""Of the parameters of `initialize`, icons included: they are kept as long as the session, of which a user has 1,000."""


@frozen
class Introduced:
    """A client that has a lane. `result` is the raw result of `initialize`."""

    lane: Lane
    version: str
    result: bytes
    capabilities_raw: bytes
    client_info_raw: bytes


async def introduce(runner: Runner, params: bytes | None, raw_id: bytes) -> Introduced:
    """Find a lane for a client, and start it if need be.

    Args:
        params: Of its `initialize`, raw.
        raw_id: Of it too.

    Raises:
        Refusal: the parameters cannot be used.
        CorralError: no process can be had now.
    """
    if params is not None and len(params) > INTRODUCTION_MAX_BYTES:
        detail = f"the params of initialize have {len(params)} bytes; at most {INTRODUCTION_MAX_BYTES} are taken"
        raise Refusal(INVALID_PARAMS, detail, raw_id, status=200)
    found = object_members(params)
    requested = text_of(found.get("protocolVersion"))
    if requested is None:
        raise Refusal(INVALID_PARAMS, "initialize needs a protocolVersion, a string", raw_id, status=200)
    capabilities_raw = _object(found.get("capabilities"))
    lane = await _lane_for(runner, capability_set(capabilities_raw), params or b"{}")
    version = _version(lane, requested)
    return Introduced(lane, version, _result(lane, version), capabilities_raw, _object(found.get("clientInfo")))


async def _lane_for(runner: Runner, capabilities: CapabilitySet, params: bytes) -> Lane:
    primary = await calls.serving_lane(runner)
    while True:
        place = place_legacy(
            primary.era,
            asks=bool(capabilities),
            private=runner.instance.spec.sessions == "per-session",
            refuses_legacy=runner.lanes.refuses_legacy,
        )
        try:
            if place is Place.SHARED:
                return await runner.lanes.legacy(capabilities)
            if place is Place.PRIVATE:
                return await runner.lanes.private(params, capabilities)
        except LegacyRefused:
            continue  # it is known now, and another place is chosen
        return primary


def _version(lane: Lane, requested: str) -> str:
    """A client with a process of its own has negotiated with the server itself."""
    own = lane.facts.version
    return own if own is not None and lane.is_private and is_legacy(own) else negotiate(requested)


def _result(lane: Lane, version: str) -> bytes:
    """The server's own words where they are of this era, but for the version: that is between Corral and the client."""
    if lane.era is Era.LEGACY and lane.facts.version is not None:
        own = members(lane.facts.raw)
        if own is not None:
            return encode(own | {"protocolVersion": version})
    return initialize_result(lane.facts, version)


def _object(raw: object) -> bytes:
    value = b"{}" if raw is None else bytes(raw)  # type: ignore[call-overload]
    return value if is_object(value) else b"{}"
