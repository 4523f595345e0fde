"""Put the parts together that build on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.deploy.build.builds import Builds
from controlplane.deploy.build.fetching import Fetching
from controlplane.deploy.build.packages import PackageInstalls
from controlplane.deploy.build.sources import SourceBuilds
from controlplane.deploy.source.address import Egress

if TYPE_CHECKING:
    from controlplane.deploy.build.workplace import BuildHost
    from controlplane.deploy.installs.store import InstallStore
    from controlplane.deploy.source.uploads import Uploads
    from controlplane.store.base import Store


def make_builds(host: BuildHost, installs: InstallStore, uploads: Uploads, records: Store) -> Builds:
    """What `HostPrepare` builds with.

    Args:
        host: Tools, limits and users of builds.
        installs: Where what was built is kept.
        uploads: Where archives are.
        records: Where it is written down what a revision was built as.
    """
    egress = Egress(allow_private=host.config.source_allow_private, environ=host.environ)
    fetching = Fetching(host=host, uploads=uploads, egress=egress)
    return Builds(
        store=installs,
        packages=PackageInstalls(host, installs),
        sources=SourceBuilds(host=host, store=installs, fetching=fetching),
        records=records,
    )
