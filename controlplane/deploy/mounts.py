"""Folders of the host that an instance sees: what they are now, and how they get to where it sees them.

Others may write to a mount, so what is judged here may be something else a moment later. So a mount is opened without
following any link when a process is started, and put on a stage of Corral's own (`spawn.confine`).
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from attrs import evolve

from controlplane.deploy import trees
from controlplane.deploy.isolation import DOCTOR
from controlplane.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model import Mount

STAGE_CHARS = 16
"""Of a digest, in a stage's name: enough to tell an instance's few mounts apart."""


def stage_of(stages: Path, mount: Mount) -> str:
    """Where a mount is put before it is where the instance sees it: a place that nobody else can write to or around."""
    return str(stages / sha256(f"{mount.source} {mount.target}".encode()).hexdigest()[:STAGE_CHARS])


def make_stages(stages: Path, mounts: Iterable[Mount]) -> None:
    """Make a folder for each folder and a file for each file. Blocking."""
    for mount in mounts:
        stages.mkdir(mode=0o711, exist_ok=True)
        stage = Path(stage_of(stages, mount))
        is_folder = Path(mount.source).is_dir()
        if stage.exists() and stage.is_dir() != is_folder:
            trees.remove(stage)
        if is_folder:
            stage.mkdir(mode=0o700, exist_ok=True)
        else:
            stage.touch(mode=0o600)


def real_mounts(mounts: Iterable[Mount], allowed: Iterable[Path], level: str) -> tuple[Mount, ...]:
    """Mounts of what their links lead to now: nobody gets out of the operator's folders by one. Blocking.

    At the level `confined`, what is to be seen where it is, is seen where it really is.

    Raises:
        InvalidRequest: a mount is not there, or leads elsewhere, or the level has fallen below what it takes.
    """
    mounts = tuple(mounts)
    if mounts and level == "process":
        raise InvalidRequest("mounts need at least the level confined, and there is only process now", hint=DOCTOR)
    if level == "confined" and any(mount.source != mount.target for mount in mounts):
        raise InvalidRequest("a mount that is seen elsewhere needs the level namespaced, not confined", hint=DOCTOR)
    roots = [root.resolve() for root in allowed]
    found = []
    for mount in mounts:
        try:
            real = Path(mount.source).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise InvalidRequest(f"the mount {mount.source} is not there: {error}") from None
        if not any(PurePosixPath(real).is_relative_to(root) for root in roots):
            raise InvalidRequest(f"the mount {mount.source} leads to a place outside ALLOWED_MOUNTS")
        found.append(evolve(mount, source=str(real), target=str(real) if level == "confined" else mount.target))
    return tuple(found)
