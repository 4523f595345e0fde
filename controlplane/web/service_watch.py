"""Tells administrators when something that Corral needs goes away or comes back, as `/health` would say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from controlplane.web.health import health

if TYPE_CHECKING:
    from controlplane.web.services import Services

LOOK_S = 0.5
"""Between two looks at what is known: at most so often an event, however a service flaps."""


async def watch(services: Services) -> None:
    """Service loop: a `services` event for each change, and for a start with something away. Asks nobody itself."""
    told = _known(services)
    if told["status"] != "healthy":
        _tell(services, told)
    while True:
        await trio.sleep(LOOK_S)
        known = _known(services)
        if known != told and not services.stopping:  # whose end the streams tell by themselves
            told = known
            _tell(services, known)


def _known(services: Services) -> dict[str, Any]:
    found = health(services)
    return {
        "status": found.status,
        "services": found.services,
        "spawner_restarts": services.spawner.statistics().restarts,
        "egress_restarts": services.egress.restarts,
    }


def _tell(services: Services, known: dict[str, Any]) -> None:
    """About no instance and of no owner: on the administrators' stream alone."""
    reason = services.store.statistics().problem
    data = known if reason is None else {**known, "reason": reason}
    services.hub.publish_nowait("services", instance_id=None, owner=None, data=data)
