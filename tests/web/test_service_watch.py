"""Administrators are told when what Corral needs goes away and comes back, and nobody else is."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from controlplane.web.service_watch import watch
from tests.web.fakes_api import Api, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.hub import Subscription

WITHIN_S = 10


@asynccontextmanager
async def watched(api: Api) -> AsyncIterator[Subscription]:
    """The administrators' stream, while somebody watches the services."""
    with api.services.hub.subscribe() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, api.services)
            yield stream
            nursery.cancel_scope.cancel()


async def told(stream: Subscription) -> dict[str, Any]:
    """The next `services` event."""
    with trio.fail_after(WITHIN_S):
        while True:
            for frame in (await stream.take()).split(b"\n\n"):
                event: dict[str, Any] = json.loads(frame.partition(b"data: ")[2] or b"{}")
                if event.get("type") == "services":
                    return event


async def test_each_change_is_told_with_the_words_of_health() -> None:
    async with serving() as api, watched(api) as stream:
        await trio.testing.wait_all_tasks_blocked()
        api.store.away = True
        away = await told(stream)
        assert (away["status"], away["reason"]) == ("degraded", "gone")
        assert away["services"] == {"redis": "connected", "postgres": "disconnected", "mcp_manager": "healthy"}
        api.store.away, api.cache.available = False, False
        assert (await told(stream))["services"]["redis"] == "disconnected"
        api.cache.available = True
        back = await told(stream)
        assert (back["status"], "reason" in back, "instance_id" in back, "owner" in back) == ("healthy", *[False] * 3)


async def test_a_new_egress_process_is_told() -> None:
    async with serving() as api, watched(api) as stream:
        await trio.testing.wait_all_tasks_blocked()
        api.services.egress.restarts += 1
        again = await told(stream)
        assert (again["status"], again["egress_restarts"], again["spawner_restarts"]) == ("healthy", 1, 0)


async def test_a_start_with_something_away_is_told_and_a_healthy_one_is_not() -> None:
    async with serving() as api:
        api.cache.available = False
        async with watched(api) as stream:
            assert (await told(stream))["status"] == "degraded"
        api.cache.available = True
        before = api.services.hub.statistics().published
        async with watched(api):
            await trio.testing.wait_all_tasks_blocked()
        assert api.services.hub.statistics().published == before


async def test_no_other_user_hears_of_it() -> None:
    async with serving() as api:
        with api.services.hub.subscribe(owner="alice") as hers:
            async with watched(api) as stream:
                api.store.away = True
                await told(stream)
            assert b'"services"' not in await hers.take()
