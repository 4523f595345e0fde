"""`/isolation`: how far instances can be shut in on this host, what holds their limits, and how to get more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from controlplane.deploy.hostlevels import told
from controlplane.model import Role
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.route import Route
from controlplane.wire.isolation import IsolationOut

if TYPE_CHECKING:
    from controlplane.web.services import Services


def host_isolation(services: Services) -> IsolationOut:
    """What the spawner found out when it started."""
    return told(services.spawner.features, services.config, as_root=os.geteuid() == 0)


async def get_isolation(call: Call) -> Reply:
    """Levels, what `auto` comes to, and what holds the limits."""
    return json_reply(host_isolation(call.services))


ROUTES = (
    Route(
        "GET",
        "/isolation",
        get_isolation,
        operation="getIsolation",
        summary="Isolation levels and limits that this host can give",
        description=(
            "Each level was tried when the control plane started. A level that is not there says why, and what would"
            " unlock it; so do limits that the kernel does not hold."
        ),
        tag="System",
        role=Role.VIEWER,
        answers={200: IsolationOut},
        open_to_limited=True,
    ),
)
