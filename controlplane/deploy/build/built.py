"""What preparing works with once something is built: the install, how it is launched, and what was found out."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio
from attrs import frozen

from controlplane.deploy.installs.keys import InstallKey
from controlplane.errors import SourceRejected

if TYPE_CHECKING:
    from controlplane.deploy.build.launching import BuiltLaunch
    from controlplane.deploy.installs.disk import Install
    from controlplane.deploy.installs.store import InstallStore
    from controlplane.deploy.toolchain import Toolchain
    from controlplane.model import Instance, Resolved

LABEL, KIND, TOOLS = "label", "kind", "tools"
"""Facts of an install: what it is called in lists, what it is of, and the versions of the tools that made it."""
PLATFORM = f"{sys.platform}-{platform.machine()}-{platform.libc_ver()[0]}"
"""What compiled things run on."""


@frozen(kw_only=True)
class Built:
    """A built thing that is there, whole."""

    install: Install
    launch: BuiltLaunch
    resolved: Resolved


async def provide(toolchain: Toolchain, needs: tuple[str, ...]) -> dict[str, str]:
    """Make sure that tools are there; returns their versions.

    Raises:
        SourceRejected: this host has not all of them.
        BuildFailed: one of them cannot be made ready.
    """
    missing = toolchain.missing(needs)
    if missing:
        raise SourceRejected(f"this host has no {' and no '.join(missing)}", hint=toolchain.advice(missing))
    check = trio.from_thread.check_cancelled
    await trio.to_thread.run_sync(lambda: toolchain.provide(needs, check), abandon_on_cancel=False)
    return await trio.to_thread.run_sync(toolchain.versions, needs)


async def kept_install(store: InstallStore, toolchain: Toolchain, instance: Instance) -> Install | None:
    """What an earlier start of the same revision was built as, if it is there, whole, and by the same tools."""
    resolved = instance.spec.resolved
    if resolved is None or "install" not in resolved.facts:
        return None
    key = InstallKey.parse(resolved.facts["install"])
    store.hold(key, instance.id)
    install = await store.get(key)
    return install if install is not None and await _still_fits(install, toolchain) else None


async def _still_fits(install: Install, toolchain: Toolchain) -> bool:
    """Whether the tools that made it are still the same: what they compiled need not run on others."""
    before: Mapping[str, str] = json.loads(install.facts.get(TOOLS, "{}"))
    return before == await trio.to_thread.run_sync(toolchain.versions, tuple(before))
