"""Which isolation level an instance gets, and what of a request goes with it. Pure.

A level that the host cannot give is refused, never silently weakened; `auto` is the strongest one there is. What a
level cannot enforce is told (`network_notes`), and what it hides is refused where a request counts on it (`refuse_hidden`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from attrs import field, frozen

from controlplane.model import Mount
from controlplane.spawn import view
from controlplane.spawn.confinement import LEVELS, Bind
from controlplane.wire.deploy import MountIn

if TYPE_CHECKING:
    from collections.abc import Collection

    from controlplane.config import Config
    from controlplane.deploy.refusals import Refusals
    from controlplane.model import Spec
    from controlplane.spawn.job import Features

DOCTOR = "corral doctor says what this host can give, and what would unlock the rest"
MOUNTS = "mounts (--mount) can show it, if the operator lists it, or a folder above it, in ALLOWED_MOUNTS"


@frozen(kw_only=True)
class HostLevels:
    """What the host can give.

    Args:
        why: By level, why the host cannot give it; a level that is not there can be had.
    """

    why: Mapping[str, str] = field(factory=lambda: dict.fromkeys(LEVELS[1:], "it was not tried"))

    @classmethod
    def of(cls, features: Features) -> HostLevels:
        """As the spawner found out."""
        return cls(why={level.name: level.why for level in features.levels if not level.available})

    def strongest(self, at_most: str) -> str:
        """The strongest level up to `at_most`; there is always `process`."""
        return next(level for level in reversed(LEVELS[: LEVELS.index(at_most) + 1]) if level not in self.why)


class LevelMissing(Exception):
    """The host cannot give a level, or the operator demands a stronger one; a sentence."""


def level_of(asked: str, config: Config, host: HostLevels) -> str:
    """The level that a spec is run at here and now.

    Args:
        asked: One of the levels, or `auto`.

    Raises:
        LevelMissing
    """
    level = host.strongest(config.auto_isolation) if asked == "auto" else asked
    if level in host.why:
        raise LevelMissing(f"this host cannot give {level}: {host.why[level]}")
    if LEVELS.index(level) < LEVELS.index(config.min_isolation):
        gives = f"{level} is all that there is for it here" if asked == "auto" else f"it is weaker: {level}"
        raise LevelMissing(f"the operator demands at least {config.min_isolation}, and {gives}")
    return level


def plan_level(asked: str, config: Config, host: HostLevels, refusals: Refusals) -> str:
    """As `level_of`; a level that cannot be had is a refusal, and what else is wrong is judged at `process`."""
    try:
        return level_of(asked, config, host)
    except LevelMissing as missing:
        refusals.add("/isolation", str(missing), DOCTOR)
        return LEVELS[0]


def plan_mounts(wanted: Sequence[MountIn], level: str, config: Config, refusals: Refusals) -> tuple[Mount, ...]:
    """The folders of the host that an instance is to see."""
    for number, mount in enumerate(wanted):
        _judge_mount(mount, f"/mounts/{number}", level, config, refusals)
    targets = [view.normal(mount.target) for mount in wanted]
    for number, target in enumerate(targets):
        if target in targets[:number]:
            refusals.add(f"/mounts/{number}/target", f"{target} is there twice")
    return tuple(
        Mount(source=view.normal(mount.source), target=target, writable=mount.mode == "rw")
        for mount, target in zip(wanted, targets, strict=True)
    )


def asked_again(mounts: Sequence[Mount]) -> list[MountIn]:
    """Mounts as they were asked for, to be judged at another level or by other settings."""
    return [MountIn(source=one.source, target=one.target, mode="rw" if one.writable else "ro") for one in mounts]


def _judge_mount(mount: MountIn, pointer: str, level: str, config: Config, refusals: Refusals) -> None:
    source, target = view.normal(mount.source), view.normal(mount.target)
    for name, path in (("source", mount.source), ("target", mount.target)):
        if not path.startswith("/") or "\0" in path or ".." in PurePosixPath(path).parts:
            refusals.add(f"{pointer}/{name}", "expected an absolute path without ..")
            return
    if not any(PurePosixPath(source).is_relative_to(allowed) for allowed in config.allowed_mounts):
        allowed = ", ".join(map(str, config.allowed_mounts)) or "empty"
        refusals.add(f"{pointer}/source", f"{source} is not below the operator's ALLOWED_MOUNTS, which is {allowed}")
    if level == "process":
        refusals.add(pointer, "level process hides nothing: name the host's own path instead of a mount")
    elif level == "confined" and source != target:
        refusals.add(f"{pointer}/target", f"at level confined everything is seen where it is: expected {source}")
    elif level == "namespaced" and source != target and view.covers_system(target):
        refusals.add(f"{pointer}/target", f"{target} belongs to the system")
    elif level == "namespaced" and config.home.is_relative_to(target):
        refusals.add(f"{pointer}/target", f"{target} would hide the instance's own folders")


def refuse_hidden(spec: Spec, level: str, roots: Collection[str], refusals: Refusals) -> None:
    """Refuse a command that names places of the host which it would not see.

    Only the first component of a path is compared with the host, so that nobody can find out which files it has.

    Args:
        roots: Names of the host's folders at its root, as `home`.
    """
    command = spec.command
    if command is None or level == "process":
        return
    binds = tuple(Bind(mount.source, mount.target) for mount in spec.mounts)
    words = [("/mcp_config/command", command.command), ("/mcp_config/cwd", command.cwd or "")]
    words += [(f"/mcp_config/args/{number}", word) for number, word in enumerate(command.args)]
    for pointer, word in words:
        path = word.partition("=")[2] if word.startswith("-") and "=" in word else word
        if not path.startswith("/") or view.normal(path).split("/")[1] not in roots:
            continue
        if not view.shows(path, binds):
            refusals.add(pointer, f"{path} is a place of the host, which is hidden at level {level}", MOUNTS)


def network_notes(spec: Spec, level: str) -> list[str]:
    """What of the network wish is not in force at this level."""
    mode = spec.network.get("mode", "open")
    if mode == "open" or level == "namespaced" or (mode == "none" and level == "confined"):
        return []
    return [f"network: not in force at isolation level {level}; the instance can reach any host"]
