"""`/nodes`: the control planes that share this database, and how many instances each of them holds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from controlplane.model import Node, Role
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.route import Route
from controlplane.wire.nodes import NodeOut, NodesOut

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.web.services import Services


async def list_nodes(call: Call) -> Reply:
    """As this one last saw them, a second ago at most while the database is there."""
    services, roster = call.services, call.services.roster
    nodes = dict(roster.nodes)
    nodes.setdefault(roster.node_id, Node(id=roster.node_id, url=_own_url(services), version=services.version))
    held: Counter[UUID | None] = Counter(known.node_id for known in roster.elsewhere())
    held[roster.node_id] = len(services.supervisor.runners())
    rows = [_node_out(node, held[node.id], is_self=node.id == roster.node_id) for node in nodes.values()]
    unheld = sum(count for node_id, count in held.items() if node_id not in nodes)
    return json_reply(NodesOut(nodes=rows, unheld=unheld))


def _own_url(services: Services) -> str:
    return services.membership.url if services.membership is not None else ""


def _node_out(node: Node, instances: int, *, is_self: bool) -> NodeOut:
    return NodeOut(
        id=str(node.id),
        url=node.url,
        version=node.version,
        live=node.is_live or is_self,
        lease_age_s=round(node.lease_age_s, 3),
        instances=instances,
        asked=is_self,
    )


ROUTES = (
    Route(
        "GET",
        "/nodes",
        list_nodes,
        operation="listNodes",
        summary="List the control planes on this database",
        description=(
            "Each runs the instances that it holds; whichever of them is asked about an instance hands the request on to its"
            " holder. Events, lists, `/stats` and `/usage` are of all of them; `/metrics`, `/health` and what is said of host"
            " and control plane are each one's own."
        ),
        tag="System",
        role=Role.ADMIN,
        answers={200: NodesOut},
    ),
)
