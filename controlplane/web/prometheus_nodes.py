"""The fleet's part of `/metrics`: the control planes on this database, this one's lease, and what passes between them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.web.exposition import Exposition
    from controlplane.web.services import Services


def node_facts(page: Exposition, services: Services) -> None:
    """Add them, as this node sees the others; for administrators. One that is alone has no lease and no bus."""
    membership, roster = services.membership, services.roster
    live = {roster.node_id} | {node.id for node in roster.others()}
    nodes = [({"state": "live"}, len(live)), ({"state": "lost"}, len(roster.nodes.keys() - live))]
    page.family("corral_nodes", "gauge", "Control planes that the database knows: with a lease, or without.", nodes)
    may_run = membership is None or membership.runs
    page.one("corral_node_may_run", "gauge", "1 while this one may run instances.", may_run)
    left_s = None if membership is None else membership.lease_left_s
    if left_s is not None:
        page.one("corral_node_lease_seconds", "gauge", "What is left of its lease; 0: it has ended.", left_s)
    held = Counter("other" if known.node_id in live else "nobody" for known in roster.elsewhere())
    held["this"] = len(services.supervisor.runners())
    holders = [({"holder": word}, held[word]) for word in ("this", "other", "nobody")]
    page.family("corral_instances_held", "gauge", "Instances of all owners, by who runs them.", holders)
    outcomes = [({"outcome": word}, count) for word, count in services.meters.handed_on.items()]
    page.family("corral_handed_on_total", "counter", "Requests that another node had to answer.", outcomes)
    _bus(page, services)


def _bus(page: Exposition, services: Services) -> None:
    if services.bus is None:
        return
    bus = services.bus.statistics()
    page.one("corral_bus_up", "gauge", "1 while events go to the other control planes, by Redis.", bus.available)
    page.one("corral_bus_waiting", "gauge", "Events that wait for Redis.", bus.waiting)
    events = [
        ({"outcome": "published"}, bus.sent),
        ({"outcome": "relayed"}, bus.heard),
        ({"outcome": "lost"}, bus.missed),
    ]
    page.family("corral_bus_events_total", "counter", "Events told to others, had from them, and missed.", events)
    page.one("corral_bus_refused_total", "counter", "Messages that came with a wrong seal.", bus.refused)
