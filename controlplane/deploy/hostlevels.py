"""What this host can give of isolation and limits, told to people, with what would unlock the rest.

python -P -m controlplane.deploy.hostlevels      what `GET /isolation` would say if a control plane started here now
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import attrs

from controlplane import config as settings
from controlplane.deploy.isolation import HostLevels, LevelMissing, level_of
from controlplane.deploy.sheltering import enforcement
from controlplane.spawn import cgroups, landlock, linux, probe
from controlplane.spawn.job import Features, Level
from controlplane.wire.isolation import HostLimitsOut, IsolationOut, LevelOut

if TYPE_CHECKING:
    from controlplane.config import Config
    from controlplane.spawn.cgroups import Hierarchy
    from controlplane.wire.isolation import Enforcement, LevelName

HELD_BY_GROUPS = ("memory_mb", "cpu_percent", "processes")
UNLOCK_AS_ROOT = (
    "a cgroup file system that can be written to: in a container, /sys/fs/cgroup mounted read-write and a cgroup"
    " namespace of its own (cgroup: private in a compose file)"
)
UNLOCK_AS_USER = (
    "start Corral where its control group is its own: systemd-run --user --scope -p Delegate=yes corral up, a service with"
    " Delegate=yes, or as root"
)


def told(features: Features, config: Config, *, as_root: bool) -> IsolationOut:
    """What the API and the doctor say. Pure.

    Args:
        features: As the spawner found out.
        as_root: Whether Corral runs as root, which has other ways to control groups.
    """
    auto: str | None = None
    with suppress(LevelMissing):
        auto = level_of("auto", config, HostLevels.of(features))
    return IsolationOut(
        levels=[_level(level) for level in features.levels],
        auto=cast("LevelName | None", auto),
        minimum=cast("LevelName", config.min_isolation),
        limits=_limits(features.hierarchy, as_root=as_root),
        landlock=features.landlock,
    )


def _level(level: Level) -> LevelOut:
    name = cast("LevelName", level.name)
    return LevelOut(name=name, available=level.available, why=level.why or None, unlock=level.unlock or None)


def _limits(hierarchy: Hierarchy | None, *, as_root: bool) -> HostLimitsOut:
    held = cast("dict[str, Enforcement]", enforcement(hierarchy))
    is_whole = all(held[name] == "hard" for name in HELD_BY_GROUPS)
    unlock = UNLOCK_AS_ROOT if as_root else UNLOCK_AS_USER
    driver = hierarchy.driver if hierarchy is not None else None
    return HostLimitsOut(driver=driver, enforcement=held, unlock=None if is_whole else unlock)


def main() -> None:
    """Try everything here and now, and leave it as it was. Blocks, for 10 s at the most, and forks."""
    hierarchy = cgroups.survey(f"doctor-{os.getpid()}")
    levels = tuple(Level(**verdict._asdict()) for verdict in probe.levels(probe.look(hierarchy)))
    features = Features(levels=levels, landlock=landlock.abi(), hierarchy=hierarchy)
    try:
        config = settings.load(os.environ)
    except settings.ConfigError:
        config = settings.load({"CORRAL_HOME": "/"})  # what is wrong with the settings is another check's to say
    json.dump(attrs.asdict(told(features, config, as_root=os.geteuid() == 0)), sys.stdout)


if __name__ == "__main__":
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    main()
