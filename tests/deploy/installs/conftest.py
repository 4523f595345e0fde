"""A store on the disk, and builds that leave what a test says."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trio
from attrs import define, field

from controlplane.deploy.installs.keys import SHARED, InstallKey, key_of
from controlplane.deploy.installs.store import InstallStore

BUILDER, ADA, BOB = 61_000, 61_001, 61_002
"""A user that tools run as, and those of two instances; they mean something only to root."""
LIMIT_BYTES = 2**30
WAIT_S = 60.0
KEY = key_of(SHARED, "npm", "cow@1.0.0")
IS_ROOT = os.geteuid() == 0
ADAS = ADA if IS_ROOT else None
BOBS = BOB if IS_ROOT else None


def cow(tree: Path) -> None:
    """What the tools leave: a package with a program, a link, an empty folder; and a source."""
    package = tree / "node_modules" / "cow"
    package.mkdir(parents=True)
    (package / "index.js").write_text("moo()")
    (package / "cli.js").write_text("#!/usr/bin/env node")
    (package / "cli.js").chmod(0o755)
    (package / "empty").mkdir()
    (tree / "node_modules" / ".bin").mkdir()
    (tree / "node_modules" / ".bin" / "cow").symlink_to("../cow/cli.js")
    (tree / "server.js").write_text("require('cow')")


@define(eq=False)
class Building:
    """A build that counts, and that can be held up."""

    fill: Callable[[Path], None] = cow
    facts: Mapping[str, str] = field(factory=lambda: {"label": "cow@1.0.0", "kind": "npm"})
    owner: int | None = BUILDER if IS_ROOT else None
    count: int = 0
    begun: trio.Event = field(factory=trio.Event)
    may_end: trio.Event | None = None

    async def __call__(self, place: Path) -> Mapping[str, str]:
        self.count += 1
        tree = place / "tree"
        tree.mkdir()
        self.fill(tree)
        if self.owner is not None:
            own(tree, self.owner)
        self.begun.set()
        if self.may_end is not None:
            await self.may_end.wait()
        return self.facts


def own(tree: Path, uid: int) -> None:
    """What is root's own there is the user's, as if its tools had made it."""
    for folder, folders, files in os.walk(tree):
        for path in (folder, *(os.path.join(folder, name) for name in (*folders, *files))):
            status = os.lstat(path)
            if status.st_uid == 0 and (status.st_nlink == 1 or stat.S_ISDIR(status.st_mode)):
                os.chown(path, uid, uid, follow_symlinks=False)


def key(*parts: str, scope: str = SHARED) -> InstallKey:
    return key_of(scope, *parts)


def staged(store: InstallStore) -> list[str]:
    return os.listdir(store.disk.root / "staging")


def listed(folder: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
async def store(common_folder: Path, nursery: trio.Nursery) -> InstallStore:
    return await InstallStore.open(common_folder / "store", LIMIT_BYTES, nursery)


@pytest.fixture
def instance(common_folder: Path) -> Path:
    """Where an instance's tree goes."""
    above = common_folder / "instance"
    above.mkdir(mode=0o711)
    return above / "app"
