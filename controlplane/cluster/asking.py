"""One node asks another how its lease does: a small request over HTTP, with a key that only nodes of this database have."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import trio
from attrs import define, field, frozen

from controlplane.cluster.lease import ASK_LIMIT_S

if TYPE_CHECKING:
    from controlplane.model import Node

PATH = "/cluster/lease"
ANSWER_MAX_BYTES = 4096
log = logging.getLogger("corral.cluster")


@frozen(kw_only=True)
class Word:
    """What a node says of itself."""

    can_renew: bool
    """Whether it could renew its lease when it was asked."""
    runs: bool
    """Whether its processes may live: its fence has not fallen."""


@define(eq=False)
class Asker:
    """Asks; `key` gives what nodes know each other by, which changes with the encryption key."""

    key: Callable[[], str] = field(repr=False)
    _client: httpx.AsyncClient = field(repr=False)

    async def ask(self, nodes: Sequence[Node]) -> list[Word | None]:
        """What each of them says; None: nothing, or nothing that can be understood, within `ASK_LIMIT_S`."""
        words: list[Word | None] = [None] * len(nodes)

        async def one(index: int) -> None:
            words[index] = await self._ask(nodes[index])

        with trio.move_on_after(ASK_LIMIT_S):
            async with trio.open_nursery() as nursery:
                for index in range(len(nodes)):
                    nursery.start_soon(one, index)
        return words

    async def _ask(self, node: Node) -> Word | None:
        try:
            answer = await self._client.get(node.url + PATH, headers={"authorization": f"Bearer {self.key()}"})
            if answer.status_code != httpx.codes.OK or len(answer.content) > ANSWER_MAX_BYTES:
                log.warning("node %s at %s answers %d to a question of ours", node.id, node.url, answer.status_code)
                return None
            said = answer.json()
            return Word(can_renew=said["can_renew"] is True, runs=said["runs"] is True)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            log.debug("node %s at %s does not answer: %r", node.id, node.url, error)
            return None


@asynccontextmanager
async def open_asker(key: Callable[[], str]) -> AsyncIterator[Asker]:
    """No proxy stands between nodes, and no connection is kept: one that is frozen would not be noticed."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=ASK_LIMIT_S, trust_env=False, limits=limits) as client:
        yield Asker(key, client)


def is_peer(key: str, authorization: bytes | None) -> bool:
    """Whether who asks shows the key; in constant time."""
    return hmac.compare_digest(authorization or b"", f"Bearer {key}".encode())
