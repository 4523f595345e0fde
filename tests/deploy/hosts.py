"""Hosts to find tools on: folders of fake tools, and a way to run what the toolchain made of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from controlplane.deploy.toolchain import Toolchain, build
from controlplane.deploy.toolchain.table import BY_NAME

NOBODY = 65534
TIMEOUT_S = 30


def tool(at: Path, *names: str, mode: int = 0o755) -> Path:
    """A folder of fake tools: copies of a small real program."""
    at.mkdir(parents=True, exist_ok=True)
    at.chmod(0o755)
    for name in names:
        shutil.copyfile("/bin/echo", at / name)
        (at / name).chmod(mode)
    return at


def built(folder: Path, *search: Path | str, by_others: bool = True) -> Toolchain:
    """On a host that has nothing but what is in `search`."""
    path = os.pathsep.join(map(str, search))
    return build(folder, by_others=by_others, host_path=path, system_path=(), usual_places=(), environ={})


def assert_true_to_its_word(toolchain: Toolchain) -> None:
    """A tool is on the PATH exactly if the toolchain says that it is there (once it is provided)."""
    assert set(toolchain.tools) == set(BY_NAME)
    toolchain.provide(toolchain.tools)
    for name in BY_NAME:
        found = shutil.which(name, path=toolchain.path)
        said = toolchain.tools[name]
        assert (found is None) == (said is None), (name, said, found)
        if found is not None and said is not None:
            assert Path(found).resolve() == Path(said).resolve()


def run(toolchain: Toolchain, *argv: str, user: int | None = None, cwd: Path | str = "/", **env: str) -> str:
    """What a tool of the toolchain prints."""
    program = shutil.which(argv[0], path=toolchain.path)
    assert program is not None
    done = subprocess.run(
        [program, *argv[1:]],
        env={"PATH": toolchain.path, "HOME": "/", **env},
        cwd=cwd,
        user=user,
        group=user,
        extra_groups=[] if user is not None else None,
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    return done.stdout.strip()
