"""Who else there is: the control planes (nodes) on this database, and the instances that they hold.

Kept in memory for the sake of `Supervisor.find`, which looks here when an instance is
not this node's own. `membership` says which nodes there are, `upkeep` who holds what.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from attrs import define, field, frozen

from controlplane.errors import CorralError
from controlplane.model import Node

if TYPE_CHECKING:
    from controlplane.model import Instance, Principal

__all__ = ["ALONE", "Elsewhere", "HeldElsewhere", "Node", "Roster", "held_elsewhere"]

ALONE = UUID(int=0)
"""The id of a node that shares its database with nobody and was given none."""
LEASE_OVER = "the control plane that ran this instance does not answer"


@frozen
class Elsewhere:
    """An instance that this node does not run; `node_id` is who does, None: nobody at this moment."""

    id: UUID
    owner: str
    name: str
    node_id: UUID | None


@define(kw_only=True)
class HeldElsewhere(CorralError):
    """The instance exists and the caller may see it, but another node holds it: ask that one.

    What is answered if nobody can: the node is gone and its lease is running out, or nobody holds the instance.
    """

    code: ClassVar[str] = "instance_unavailable"
    status: ClassVar[int] = 503
    title: ClassVar[str] = "The instance is not serving"

    elsewhere: Elsewhere


@define(eq=False)
class Roster:
    """The nodes, and the instances that are not this node's. One loop writes; everybody reads.

    Args:
        node_id: This node's own id.
        is_alone: Nobody else can be on this database (the embedded one): every instance is this node's.
    """

    node_id: UUID = ALONE
    is_alone: bool = True
    may_run: bool = field(default=True, init=False)
    """Whether this node has its lease, as far as it knows."""
    nodes: Mapping[UUID, Node] = field(factory=dict, init=False)
    """All that the database knows, this one and dead ones included."""
    _held: dict[UUID, Elsewhere] = field(factory=dict, init=False)
    _names: dict[tuple[str, str], UUID] = field(factory=dict, init=False)

    def others(self) -> list[Node]:
        """The other nodes that are live, by id."""
        live = [node for node in self.nodes.values() if node.is_live and node.id != self.node_id]
        return sorted(live, key=lambda node: node.id)

    def elsewhere(self) -> Collection[Elsewhere]:
        """All instances that this node does not hold."""
        return self._held.values()

    def ids(self) -> set[UUID]:
        return set(self._held)

    def find(self, principal: Principal, ref: str) -> Elsewhere | None:
        """What `ref` (UUID, name, or an admin's `owner/name`) means to this caller, if this node does not hold it.

        None: there is none, or it belongs to somebody else, which looks the same.
        """
        if not self._held:
            return None
        instance_id = _as_uuid(ref)
        if instance_id is None:
            owner, slash, name = ref.rpartition("/")
            key = (owner, name) if slash and principal.crosses_owners else (principal.owner, ref.lower())
            instance_id = self._names.get(key)
        found = self._held.get(instance_id) if instance_id is not None else None
        return found if found is not None and principal.sees(found.owner, found.name, found.id) else None

    def is_ours(self, instance: Instance) -> bool:
        """Whether this node holds it, by its row."""
        return self.is_alone or instance.node_id == self.node_id

    # -- for those who keep it

    def take_nodes(self, nodes: Iterable[Node]) -> None:
        """These are all."""
        self.nodes = {node.id: node for node in nodes}

    def take_held(self, instances: Iterable[Elsewhere]) -> None:
        """These, and no others, are not this node's."""
        self._held = {found.id: found for found in instances}
        self._names = {(found.owner, found.name): found.id for found in self._held.values()}

    def add(self, found: Elsewhere) -> None:
        """This one is not this node's any more."""
        self._held[found.id] = found
        self._names[found.owner, found.name] = found.id

    def drop(self, instance_id: UUID) -> None:
        """It is this node's now; one that is not here is fine."""
        found = self._held.pop(instance_id, None)
        if found is not None and self._names.get((found.owner, found.name)) == instance_id:
            del self._names[found.owner, found.name]


def held_elsewhere(found: Elsewhere) -> HeldElsewhere:
    """What is raised where an instance of another node is asked for."""
    return HeldElsewhere(
        LEASE_OVER, retry_after_s=1.0, hint="another takes it over within seconds; try again", elsewhere=found
    )


def _as_uuid(ref: str) -> UUID | None:
    if len(ref) != 36:
        return None
    try:
        return UUID(ref)
    except ValueError:
        return None
