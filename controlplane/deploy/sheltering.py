"""What one launch is held to, from its spec, its level and where its own folders are. Pure, but for `tool_places`."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.deploy.mounts import stage_of
from controlplane.egress.policy import Policy
from controlplane.spawn import view
from controlplane.spawn.confinement import GATED_NETWORK, HOST_NETWORK, NO_NETWORK, Bind, Confinement
from controlplane.supervise import holding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.config import Config
    from controlplane.deploy.toolchain import Toolchain
    from controlplane.model import Instance, Mount, Spec
    from controlplane.spawn.cgroups import Hierarchy
    from controlplane.spawn.confinement import Group

CERTIFICATES = ("NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Variables that name files of the host's which programs must be able to read."""
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
"""The gate goes through the operator's proxy itself; from inside nothing private is reached, so not the proxy either."""
MAX_LINKS = 40
"""As many as the kernel follows (path_resolution(7))."""
BESIDE_BIN = ("lib", "lib64", "libexec")
"""What programs of a folder `bin` read beside it."""


@frozen(kw_only=True)
class Shelter:
    """How a launch is shut in.

    Args:
        gate: Where it may go, if its network is gated.
        enforcement: For each limit, `hard` (the kernel holds it) or `soft` (Corral looks, and acts).
    """

    confinement: Confinement
    gate: Policy | None
    enforcement: Mapping[str, str]


def shelter(
    instance: Instance,
    level: str,
    *,
    own: Iterable[str],
    shown: Iterable[str],
    mounts: Iterable[Mount] = (),
    stages: Path,
    config: Config,
    hierarchy: Hierarchy | None,
) -> Shelter:
    """Work out what holds an instance's processes.

    Args:
        own: Its own folders, which it may write to.
        shown: What else of the host it reads: tools, certificates.
        mounts: Its own, as they are now (`mounts.real_mounts`).
        stages: The folder where they are put on their way (`mounts.make_stages`).
        hierarchy: Where control groups are made; None: nowhere.
    """
    spec = instance.spec
    network, gate = _network(spec, level, config)
    binds = [Bind(path, path, writable=True) for path in own]
    binds += [Bind(path, path) for path in shown]
    for mount in sorted(mounts, key=lambda mount: mount.target):  # one within another comes after it
        binds.append(Bind(mount.source, mount.target, mount.writable, stage_of(stages, mount)))
    confinement = Confinement(
        level=level,
        binds=tuple(binds) if level != "process" else (),
        network=network,
        loopback=gate.loopback if gate is not None else (),
        group=_group(instance, level, hierarchy),
    )
    return Shelter(confinement=confinement, gate=gate, enforcement=enforcement(hierarchy))


def without_proxies(env: Mapping[str, str], confinement: Confinement) -> dict[str, str]:
    """The variables that come from Corral, without those that would lead into the gate."""
    is_gated = confinement.network == GATED_NETWORK
    return {name: value for name, value in env.items() if not (is_gated and name in PROXIES)}


def _network(spec: Spec, level: str, config: Config) -> tuple[str, Policy | None]:
    mode = spec.network.get("mode", "open")
    if level == "process":
        return HOST_NETWORK, None
    if mode == "none":
        return NO_NETWORK, None
    if level == "confined":
        return HOST_NETWORK, None
    policy = Policy(mode=mode, hosts=tuple(spec.network.get("hosts", ())), allow_private=config.egress_allow_private)
    return GATED_NETWORK, policy


def _group(instance: Instance, level: str, hierarchy: Hierarchy | None) -> Group | None:
    """One for each revision, so that a new one is tried within limits of its own."""
    if hierarchy is None:
        return None
    return holding.group_for(f"{instance.id}.{instance.spec.revision}", instance.spec.limits, level)


def enforcement(hierarchy: Hierarchy | None) -> dict[str, str]:
    """Which limits the kernel holds for a whole tree of processes."""
    has = {
        "memory_mb": hierarchy is not None and hierarchy.has_memory,
        "cpu_percent": hierarchy is not None and hierarchy.has_cpu,
        "processes": hierarchy is not None and hierarchy.has_processes,
        "open_files": True,
        "disk_mb": False,
    }
    return {name: "hard" if is_hard else "soft" for name, is_hard in has.items()}


def tool_places(toolchain: Toolchain, environ: Mapping[str, str]) -> list[str]:
    """What of the host the tools are in, or read: PATH's folders, what their links lead to, and certificates. Blocking."""
    carried = [] if toolchain.carrier is None else [str(toolchain.carrier.folder)]
    folders = [folder for folder in toolchain.path.split(":") if folder]
    files = [place for file in toolchain.tools.values() if file is not None for place in _links(file)]
    beside = [
        posixpath.join(posixpath.dirname(folder), name)
        for folder in (*folders, *map(posixpath.dirname, files))
        if posixpath.basename(folder) in ("bin", "sbin")
        for name in BESIDE_BIN
    ]
    certificates = [environ[name] for name in CERTIFICATES if environ.get(name, "").startswith("/")]
    places = (*carried, *folders, *beside, *files, *certificates)
    return outermost(place for place in places if not view.is_system(place) and Path(place).exists())


def outermost(places: Iterable[str]) -> list[str]:
    """Those that are not below another: in a folder that is shown, nothing needs to be shown, or could be. Pure."""
    kept: list[str] = []
    for place in sorted(set(places)):
        if not any(PurePosixPath(place).is_relative_to(other) for other in kept):
            kept.append(place)
    return kept


def _links(file: str) -> list[str]:
    """A file, and what it leads to from link to link: each must be seen."""
    found = [file]
    while Path(found[-1]).is_symlink() and len(found) < MAX_LINKS:
        found.append(posixpath.normpath(posixpath.join(posixpath.dirname(found[-1]), Path(found[-1]).readlink())))
    return found
