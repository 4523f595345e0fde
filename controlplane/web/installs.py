"""The store of installs, for its operator: what is kept, whether it is whole, and what may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.deploy.installs import collecting
from controlplane.model import Role
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.route import Route
from controlplane.web.views import rfc3339
from controlplane.wire.fields import bounded
from controlplane.wire.installs import CacheOut, CachePrunedOut, CacheVerifiedOut, DownloadsOut, InstallOut

if TYPE_CHECKING:
    from controlplane.deploy.installs.disk import Install
    from controlplane.deploy.installs.store import InstallStore


@frozen(kw_only=True)
class PruneQuery:
    """How much may go."""

    all: bool = bounded(
        False, description="Everything that nobody uses; else the longest unused, until the rest fits the limit."
    )


async def list_installs(call: Call) -> Reply:
    """All that is kept, the one used last first."""
    store = call.services.installs
    use = await collecting.listing(store)
    newest = sorted(use.installs, key=lambda install: install.last_used_at, reverse=True)
    return json_reply(
        CacheOut(
            installs=[_install(store, install) for install in newest],
            downloads=[DownloadsOut(scope=cache.scope, size_bytes=cache.size_bytes) for cache in use.caches],
            total_bytes=use.total_bytes,
            limit_bytes=use.limit_bytes,
        )
    )


def _install(store: InstallStore, install: Install) -> InstallOut:
    return InstallOut(
        key=str(install.key),
        scope=install.key.scope,
        kind=install.facts.get("kind", ""),
        label=install.facts.get("label", ""),
        size_bytes=install.size_bytes,
        files=install.files,
        created_at=rfc3339(install.created_at),
        last_used_at=rfc3339(install.last_used_at),
        in_use_by=store.holders_of(install.key),
    )


async def verify_installs(call: Call) -> Reply:
    """Read all of it again."""
    found = await collecting.verify(call.services.installs)
    return json_reply(CacheVerifiedOut(checked=found.checked, damaged=[str(key) for key in found.damaged]))


async def prune_installs(call: Call) -> Reply:
    """Remove what nobody uses."""
    gone = await collecting.prune(call.services.installs, everything=call.query.all)
    removed = [*map(str, gone.installs), *(f"{scope}/downloads" for scope in gone.caches)]
    return json_reply(CachePrunedOut(removed=removed, freed_bytes=gone.freed_bytes))


ROUTES = (
    Route(
        "GET",
        "/cache",
        list_installs,
        operation="listInstalls",
        summary="List what is installed",
        description="Packages and builds that are made once and used by instances, with how many use each.",
        tag="System",
        role=Role.ADMIN,
        answers={200: CacheOut},
        problems=("overloaded",),
    ),
    Route(
        "POST",
        "/cache/verify",
        verify_installs,
        operation="verifyInstalls",
        summary="Compare every installed file with its digest",
        description="What is damaged is removed, and built anew when it is next needed. Takes as long as reading all of it.",
        tag="System",
        role=Role.ADMIN,
        answers={200: CacheVerifiedOut},
        problems=("overloaded",),
    ),
    Route(
        "POST",
        "/cache/prune",
        prune_installs,
        operation="pruneInstalls",
        summary="Remove what no instance uses",
        description="What goes is installed anew when it is needed again.",
        tag="System",
        role=Role.ADMIN,
        query=PruneQuery,
        answers={200: CachePrunedOut},
        problems=("overloaded",),
    ),
)
