"""What one launch is held to, from its spec, its level and where its own folders are. Pure, but for links of mounts."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.egress.policy import Policy
from controlplane.errors import InvalidRequest
from controlplane.spawn import view
from controlplane.spawn.confinement import GATED_NETWORK, HOST_NETWORK, NO_NETWORK, Bind, Confinement, Group

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.config import Config
    from controlplane.model import Instance, Limits, Mount, Spec
    from controlplane.spawn.cgroups import Hierarchy

MIB = 2**20
BUBBLEWRAPS = 2
"""Processes of bubblewrap's own in each job of the level `namespaced`, which the limit is not to count."""
CERTIFICATES = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Variables that name files of the host's which programs must be able to read."""
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
"""The gate goes through the operator's proxy itself; from inside nothing private is reached, so not the proxy either."""
BESIDE_BIN = ("lib", "lib64", "libexec")
"""What programs of a folder `bin` read beside it."""


@frozen(kw_only=True)
class Shelter:
    """How a launch is shut in.

    Args:
        gate: Where it may go, if its network is gated.
        enforcement: For each limit, `hard` (the kernel holds it) or `soft` (Corral looks, and acts).
        drops: Variables that mean nothing inside.
    """

    confinement: Confinement
    gate: Policy | None
    enforcement: Mapping[str, str]
    drops: tuple[str, ...] = ()


def shelter(
    instance: Instance,
    level: str,
    *,
    own: Iterable[str],
    shown: Iterable[str],
    config: Config,
    hierarchy: Hierarchy | None,
) -> Shelter:
    """Work out what holds an instance's processes.

    Args:
        own: Its own folders, which it may write to.
        shown: What else of the host it reads: tools, certificates.
        hierarchy: Where control groups are made; None: nowhere.
    """
    spec = instance.spec
    network, gate = _network(spec, level, config)
    binds = [Bind(path, path, writable=True) for path in own]
    binds += [Bind(path, path) for path in dict.fromkeys(shown) if not view.is_system(path)]
    binds += [Bind(mount.source, mount.target, mount.writable) for mount in spec.mounts]
    confinement = Confinement(
        level=level,
        binds=tuple(binds) if level != "process" else (),
        network=network,
        loopback=gate.loopback if gate is not None else (),
        group=_group(instance, level, hierarchy),
    )
    drops = PROXIES if network == GATED_NETWORK else ()
    return Shelter(confinement=confinement, gate=gate, enforcement=enforcement(hierarchy), drops=drops)


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
    limits: Limits = instance.spec.limits
    extra = BUBBLEWRAPS if level == "namespaced" else 0
    return Group(
        name=f"{instance.id}.{instance.spec.revision}",
        memory_bytes=limits.memory_mb * MIB,
        cpu_percent=limits.cpu_percent,
        processes=limits.processes + extra,
    )


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


def tool_folders(search_path: str, environ: Mapping[str, str]) -> list[str]:
    """What of the host an instance's programs are in, or read: PATH's folders with what lies beside them, certificates."""
    folders: list[str] = []
    for folder in filter(None, search_path.split(":")):
        folders.append(folder)
        if posixpath.basename(folder) in ("bin", "sbin"):
            folders += [posixpath.join(posixpath.dirname(folder), name) for name in BESIDE_BIN]
    folders += [environ[name] for name in CERTIFICATES if environ.get(name, "").startswith("/")]
    return [folder for folder in folders if Path(folder).exists()]


def check_mounts(mounts: Iterable[Mount], allowed: Iterable[Path]) -> None:
    """Follow what may have become a link since the deploy: nobody gets out of the operator's folders by one. Blocking.

    Raises:
        InvalidRequest: a mount is not there, or leads elsewhere.
    """
    roots = [root.resolve() for root in allowed]
    for mount in mounts:
        try:
            real = Path(mount.source).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise InvalidRequest(f"the mount {mount.source} is not there: {error}") from None
        if not any(PurePosixPath(real).is_relative_to(root) for root in roots):
            raise InvalidRequest(f"the mount {mount.source} leads to a place outside ALLOWED_MOUNTS")
