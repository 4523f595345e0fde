"""Makes this node's membership out of the settings and the home."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from controlplane.cluster.address import node_id, node_url
from controlplane.cluster.asking import open_asker
from controlplane.cluster.membership import Membership
from controlplane.cluster.roster import Roster

if TYPE_CHECKING:
    from controlplane.cluster.membership import Fence
    from controlplane.config import Config
    from controlplane.store.base import Store


@asynccontextmanager
async def open_membership(
    config: Config,
    owner_id: str,
    store: Store,
    fence: Fence,
    version: str,
    *,
    key: Callable[[], str],
    archives: Callable[[], Awaitable[Collection[str]]],
) -> AsyncIterator[Membership]:
    """Take the lease, and keep it until the context ends.

    Args:
        owner_id: The home's.
        fence: The spawner.
        key: Gives what the nodes of this database know each other by.
        archives: As for `Membership`.

    Raises:
        StorageUnavailable
    """
    roster = Roster(node_id(owner_id), is_alone=config.database_url is None)
    async with open_asker(key) as asker:
        membership = Membership(store, roster, fence, asker, version, node_url(config, config.port), archives)
        fence.on_fenced = membership.fence_fell
        async with trio.open_nursery() as nursery:
            await nursery.start(membership.run)
            yield membership
            nursery.cancel_scope.cancel()
