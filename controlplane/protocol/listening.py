"""What a modern client listens to, and what Corral listens to on behalf of legacy ones.

Pure. `subscriptions/listen` stands for what legacy versions do with the GET
stream and `resources/subscribe` (MCP 2026-07-28, subscriptions). A filter only
lets through what was asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from attrs import evolve, frozen

from controlplane.core.rawjson import decode_or_none, encode, encode_text
from controlplane.protocol.capabilities import offers
from controlplane.protocol.members import SUBSCRIPTION_ID, object_members, with_meta, without_meta

MAX_URIS = 256
"""Of one listen request: each is a `resources/subscribe` to a legacy server, and is compared with every update."""
LISTEN = "subscriptions/listen"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
UPDATED = "notifications/resources/updated"
_SECTIONS = ("tools", "prompts", "resources")
_PART_MARKS = ("/", "?", "#")


@frozen(kw_only=True)
class ListenFilter:
    """The notifications that one listener asked for; `uris` are the resources that it subscribed to."""

    tools: bool = False
    prompts: bool = False
    resources: bool = False
    uris: frozenset[str] = frozenset()

    def honoured(self, capabilities: Mapping[str, Any]) -> ListenFilter:
        """What is left of it with a server of these capabilities; the rest is left out of the acknowledgement."""
        lists = {name: getattr(self, name) and offers(capabilities, name, "listChanged") for name in _SECTIONS}
        return evolve(self, **lists, uris=self.uris if offers(capabilities, "resources", "subscribe") else frozenset())

    def acknowledged(self, raw_id: bytes) -> bytes:
        """The whole message that a listen stream begins with.

        Args:
            raw_id: The listen request's id, raw JSON.
        """
        params = encode({"notifications": self._as_object()})
        return tagged(ACKNOWLEDGED, params, raw_id)

    def wants(self, method: str, params: bytes | None) -> bool:
        """Whether a server's notification goes to this listener.

        An update may name a part of the resource that was subscribed to (MCP, resources).
        """
        if method == UPDATED:
            uri = _text(object_members(params).get("uri"))
            return uri is not None and (uri in self.uris or any(is_within(uri, whole) for whole in self.uris))
        return any(getattr(self, name) and method == f"notifications/{name}/list_changed" for name in _SECTIONS)

    def params(self) -> bytes:
        """The parameters of a listen request for this filter, without the envelope."""
        return encode({"notifications": self._as_object()})

    def __bool__(self) -> bool:
        return self.tools or self.prompts or self.resources or bool(self.uris)

    def _as_object(self) -> dict[str, Any]:
        answer: dict[str, Any] = {f"{name}ListChanged": True for name in _SECTIONS if getattr(self, name)}
        return answer | ({"resourceSubscriptions": sorted(self.uris)} if self.uris else {})


def listen_filter(params: bytes | None) -> ListenFilter:
    """Read what a `subscriptions/listen` request asks for; kinds that Corral does not know are left out.

    Raises:
        ValueError: it is no valid filter (JSON-RPC -32602); the text is a sentence.
    """
    raw = object_members(params).get("notifications")
    asked = None if raw is None else decode_or_none(bytes(raw))
    if not isinstance(asked, dict):
        raise ValueError("`notifications` must be an object that names what to listen to")
    lists = {name: _flag(asked, f"{name}ListChanged") for name in _SECTIONS}
    return ListenFilter(**lists, uris=_uris(asked.get("resourceSubscriptions")))


def _flag(asked: dict[str, Any], name: str) -> bool:
    value = asked.get(name)
    if value is None or isinstance(value, bool):
        return value is True
    raise ValueError(f"`{name}` must be true or false")


def _uris(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    if not isinstance(value, list) or not all(isinstance(uri, str) for uri in value):
        raise ValueError("`resourceSubscriptions` must be a list of URIs")
    if len(value) > MAX_URIS:
        raise ValueError(f"`resourceSubscriptions` may hold {MAX_URIS} URIs at most")
    return frozenset(value)


def is_within(uri: str, whole: str) -> bool:
    """Whether a resource is another one, or a part of it."""
    return uri == whole or (
        uri.startswith(whole) and (whole.endswith(_PART_MARKS) or uri[len(whole) :].startswith(_PART_MARKS))
    )


def tagged(method: str, params: bytes | None, raw_id: bytes) -> bytes:
    """A notification as a listener gets it: the whole message, with its subscription's id.

    Args:
        method: Of the notification.
        params: As the server wrote them.
        raw_id: The listen request's id, raw JSON, so that `1` stays apart from `"1"`.
    """
    with_id = with_meta(params, {SUBSCRIPTION_ID: msgspec.Raw(raw_id)})
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (encode_text(method), with_id)


def listen_ended(raw_id: bytes) -> bytes:
    """The `"result":…` member that ends a subscription in order."""
    return b'"result":' + encode({"resultType": "complete", "_meta": {SUBSCRIPTION_ID: msgspec.Raw(raw_id)}})


def subscription_of(params: bytes | None) -> bytes | None:
    """The raw id of the listen request that a modern server's notification belongs to, None if it names none."""
    raw = object_members(object_members(params).get("_meta")).get(SUBSCRIPTION_ID)
    return None if raw is None else bytes(raw)


def untagged(params: bytes | None) -> bytes | None:
    """A modern server's notification as a legacy client knows it: without the subscription's id."""
    found = object_members(params)
    return encode(found) if without_meta(found, lambda name: name == SUBSCRIPTION_ID) else params


def subscribe_listen(uris: Iterable[str]) -> bytes:
    """The parameters of a listen request for `resources/subscribe`, without the envelope.

    Args:
        uris: One URI, or all of one client: a listen request cannot be changed once it is open.
    """
    return ListenFilter(uris=frozenset((uris,) if isinstance(uris, str) else uris)).params()


def list_listen(capabilities: Mapping[str, Any]) -> bytes | None:
    """The parameters of a listen request for every list that may change, without the envelope; None if none may."""
    everything = ListenFilter(tools=True, prompts=True, resources=True).honoured(capabilities)
    return everything.params() if everything else None


def _text(raw: Any) -> str | None:
    value = None if raw is None else decode_or_none(bytes(raw))
    return value if isinstance(value, str) else None
