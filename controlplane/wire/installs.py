"""What the API answers about the store of installs: packages and builds that are made once and shared by instances."""

from __future__ import annotations

from attrs import frozen

from controlplane.wire.answers import TIME
from controlplane.wire.fields import bounded


@frozen(kw_only=True)
class InstallOut:
    """One thing that was built and is kept."""

    key: str = bounded(description="Scope and digest of everything that went into it.")
    scope: str = bounded(description="`shared` by all owners, or the digest of the one whose it is.")
    kind: str = bounded(description="`package` of a registry, or `source`, with all that was built of it.")
    label: str = bounded(description="For people: `mcp-server-time@2025.9.25`, or an instance's name.")
    size_bytes: int = bounded(description="On the disk.")
    files: int
    created_at: str = bounded(**TIME)
    last_used_at: str = bounded(**TIME)
    in_use_by: int = bounded(description="Instances that use it; it is not removed while there are any.")


@frozen(kw_only=True)
class DownloadsOut:
    """What one owner's builds have downloaded; only for later builds."""

    scope: str
    size_bytes: int


@frozen(kw_only=True)
class CacheOut:
    """All that is kept, the one used last first."""

    installs: list[InstallOut]
    downloads: list[DownloadsOut] = bounded([], description="Caches of the tools that build.")
    total_bytes: int
    limit_bytes: int = bounded(description="`STORE_MAX_MB`; above it those that nobody uses go, the oldest first.")


@frozen(kw_only=True)
class CacheVerifiedOut:
    """What reading everything again found."""

    checked: int
    damaged: list[str] = bounded(
        description="Keys of those that were damaged: they are removed, and built anew when they are next needed."
    )


@frozen(kw_only=True)
class CachePrunedOut:
    """What was removed."""

    removed: list[str] = bounded(description="Keys of installs, and `<scope>/downloads` of caches.")
    freed_bytes: int
