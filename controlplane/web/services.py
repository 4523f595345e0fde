"""What the web layer works with: the open parts of the control plane, handed over once by `app.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import Factory, define

from controlplane.cluster.roster import Roster
from controlplane.supervise.accounts import Accounts, of_operator
from controlplane.web.auditing import AuditLog
from controlplane.web.guards import Guards
from controlplane.web.health import Pulse
from controlplane.web.mcp.endpoint import McpEndpoint
from controlplane.web.meters import Meters
from controlplane.web.peers import Peers
from controlplane.web.runtimes import Runtimes
from controlplane.web.vouching import Vouching

if TYPE_CHECKING:
    from controlplane.bus import Bus
    from controlplane.cache import Cache
    from controlplane.cluster.membership import Membership
    from controlplane.config import Config
    from controlplane.deploy.deployer import Deployer
    from controlplane.deploy.installs.store import InstallStore
    from controlplane.deploy.toolchain import Toolchain
    from controlplane.egress.client import Egress
    from controlplane.home import Home
    from controlplane.hub import Hub
    from controlplane.rotation import KeyRotation
    from controlplane.spawn.client import Spawner
    from controlplane.store.base import Store
    from controlplane.store.journal import Journal
    from controlplane.supervise.supervisor import Supervisor
    from controlplane.web.auth import TokenTable


@define(kw_only=True)
class Services:
    """`started_at` is monotonic seconds; `stopping` turns readiness off."""

    config: Config
    home: Home
    store: Store
    journal: Journal
    cache: Cache
    hub: Hub
    supervisor: Supervisor
    deployer: Deployer
    installs: InstallStore
    toolchain: Toolchain
    tokens: TokenTable
    spawner: Spawner
    egress: Egress
    rotation: KeyRotation
    version: str
    started_at: float
    accounts: Accounts = Factory(
        lambda self: Accounts(of_operator(self.config), self.tokens.quotas_of), takes_self=True
    )
    audit: AuditLog = Factory(lambda self: AuditLog(self.journal), takes_self=True)
    vouching: Vouching = Factory(lambda self: Vouching(self.peer_key), takes_self=True)
    """What nodes tell each other of clients."""
    guards: Guards = Factory(
        lambda self: Guards(
            self.config, self.tokens, on_wrong_token=self.audit.wrong_token, vouched=self.vouching.read
        ),
        takes_self=True,
    )
    meters: Meters = Factory(Meters)
    pulse: Pulse = Factory(lambda self: Pulse(self.store, self.cache), takes_self=True)
    roster: Roster = Factory(Roster)
    """The other control planes on this database, and what they hold."""
    peers: Peers = Factory(lambda self: Peers(self.roster), takes_self=True)
    runtimes: Runtimes = Factory(lambda self: Runtimes(self.toolchain), takes_self=True)
    mcp: McpEndpoint = Factory(McpEndpoint, takes_self=True)
    membership: Membership | None = None
    """This control plane's own part among them; None where there is no database."""
    bus: Bus | None = None
    """Events to and from the others; None where there can be none."""
    embedded: tuple[str, ...] = ()
    stopping: bool = False

    def peer_key(self) -> str | None:
        """What the nodes of this database know each other by; None where there is no database."""
        return None if self.membership is None else self.membership.asker.key()
