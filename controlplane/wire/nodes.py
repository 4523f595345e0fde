"""What the API answers about the control planes on one database."""

from __future__ import annotations

from attrs import frozen

from controlplane.wire.fields import bounded


@frozen(kw_only=True)
class NodeOut:
    """One control plane."""

    id: str = bounded(format="uuid", description="Of its CORRAL_HOME; stays the same over restarts.")
    url: str = bounded(description="Where the others reach it.")
    version: str
    live: bool = bounded(description="Whether its lease stands: if not, others take over what it held.")
    lease_age_s: float = bounded(
        description="Seconds since it was renewed last; 0 on the embedded database, where none is."
    )
    instances: int = bounded(description="How many it holds.")
    asked: bool = bounded(description="Whether it is the one that answers.")


@frozen(kw_only=True)
class NodesOut:
    """All that the database remembers, by when they came up."""

    nodes: list[NodeOut]
    unheld: int = bounded(description="Instances that no control plane holds at this moment.")
