"""`/health`, `/livez`, `/readyz`: whether calls can be served, answered at once whatever is down.

A frozen database keeps a question waiting for seconds, so nobody who asks for
health ever asks a service himself: one `Pulse` does, all the time, and the
routes say what it last found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from uuid import UUID

import trio
from attrs import define, field

from controlplane.core.lifecycle import State
from controlplane.errors import CorralError, ShuttingDown
from controlplane.model import Section
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.route import Route
from controlplane.wire.answers import AliveOut, HealthOut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controlplane.cache import Cache
    from controlplane.store.base import Store
    from controlplane.web.services import Services

BEAT_S = 1.0
"""Between two questions to the same service."""
SLOW_S = 1.5
"""A service that has not answered for this long counts as away, though the question may still be waiting."""
RETRY_AFTER_S = 5.0

_NOBODY = UUID(int=0)

Word = Literal["connected", "disconnected"]


@define(eq=False)
class Beat:
    """What is known of one service. Times are Trio's monotonic seconds."""

    ask: Callable[[], Awaitable[bool]]
    asked_at: float | None = field(default=None, init=False)
    """When the question was put that still waits for its answer."""
    healthy: bool = field(default=True, init=False)

    def answers(self, now: float) -> bool:
        return self.healthy and (self.asked_at is None or now - self.asked_at < SLOW_S)

    async def run(self) -> None:
        """Service loop."""
        while True:
            self.asked_at = trio.current_time()
            self.healthy = await self.ask()
            self.asked_at = None
            await trio.sleep(BEAT_S)


@define(eq=False)
class Pulse:
    """Asks Postgres and Redis for a sign of life, each in a task of its own."""

    store: Store
    cache: Cache
    _postgres: Beat = field(init=False)
    _redis: Beat = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._postgres = Beat(self._ask_store)
        self._redis = Beat(self._ask_cache)

    async def run(self) -> None:
        """Service loop; without it, only what other work meets is known."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._postgres.run)
            nursery.start_soon(self._redis.run)

    def words(self) -> dict[str, Word]:
        """One word for each service."""
        now = trio.current_time()
        postgres = self._postgres.answers(now) and self.store.statistics().available
        redis = self._redis.answers(now) and self.cache.statistics().available
        return {"redis": _word(redis), "postgres": _word(postgres)}

    async def _ask_store(self) -> bool:
        try:
            await self.store.ping()
        except CorralError:
            return False
        return True

    async def _ask_cache(self) -> bool:
        await self.cache.get_listing(
            _NOBODY, Section.TOOLS
        )  # any question will do: the cache tells whether it was answered
        return self.cache.statistics().available


def _word(answers: bool) -> Word:
    return "connected" if answers else "disconnected"


def health(services: Services) -> HealthOut:
    """`degraded`: calls are served, but something is away; `unhealthy`: they are not."""
    backing = services.pulse.words()
    status: Literal["healthy", "degraded", "unhealthy"] = "healthy"
    if services.stopping:
        status = "unhealthy"
    elif "disconnected" in backing.values() or not services.store.statistics().writable:
        status = "degraded"
    return HealthOut(
        status=status,
        services={**backing, "mcp_manager": "stopping" if services.stopping else "healthy"},
        active_instances=sum(runner.state is State.RUNNING for runner in services.supervisor.runners()),
        version=services.version,
        uptime_s=round(trio.current_time() - services.started_at, 3),
    )


async def get_health(call: Call) -> Reply:
    """The founding README's health check."""
    found = health(call.services)
    return json_reply(found, 503 if found.status == "unhealthy" else 200)


async def get_livez(call: Call) -> Reply:
    """The process answers; an orchestrator restarts it when this does not."""
    return json_reply(AliveOut(status="ok", version=call.services.version))


async def get_readyz(call: Call) -> Reply:
    """Requests may be sent here."""
    if call.services.stopping:
        raise ShuttingDown("The control plane is stopping.", retry_after_s=RETRY_AFTER_S)
    return json_reply(AliveOut(status="ok", version=call.services.version))


ROUTES = (
    Route(
        "GET",
        "/health",
        get_health,
        operation="getHealth",
        summary="Health of the control plane and what it needs",
        description="200 while calls can be served, 503 when not. Answers within two seconds whatever is down.",
        tag="System",
        role=None,
        answers={200: HealthOut, 503: HealthOut},
    ),
    Route(
        "GET",
        "/livez",
        get_livez,
        operation="getLivez",
        summary="Liveness, for orchestrators",
        tag="System",
        role=None,
        answers={200: AliveOut},
    ),
    Route(
        "GET",
        "/readyz",
        get_readyz,
        operation="getReadyz",
        summary="Readiness, for orchestrators and load balancers",
        description="503 `shutting_down` from the moment the control plane begins to stop.",
        tag="System",
        role=None,
        answers={200: AliveOut},
        problems=("shutting_down",),
    ),
)
