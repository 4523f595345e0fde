"""A control plane in a container with nothing but an engine's defaults: its capabilities, its seccomp profile, no more.

No image is fetched: the container is empty but for what it is shown of this host, read-only: the system's folders, this
checkout and its Python. It shares the host's network, so that tests reach it and it reaches what they offer.
"""

from __future__ import annotations

import functools
import io
import os
import secrets
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.spawn.uids import DIRECTORIES
from tests.e2e.plane import QUIET, ROOT, open_plane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane

IMAGE = "corral-test-empty"
ENGINE_LIMIT_S = 60
USER_IDS = DIRECTORIES[0]
"""Claimed together with the control planes outside, whose instances are users of the same kernel."""
SYSTEM = ("/usr", "/etc")
LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Into /usr, on the hosts that have them so."""
OPEN_TO_ALL = 0o1777
VARIABLES = ("PATH", "HOME", "LANG", "HOST", "PORT", "CORRAL_HOME", "ADMIN_TOKEN", "PYTHONPATH")


@contextmanager
def open_contained_plane(uid: int | None = None) -> Iterator[Plane]:
    """As `open_plane`; `pid` is that of `docker run`, `process_in` that of the control plane.

    Args:
        uid: Run it as this user, without any capability, as a careful operator does; else as root.
    """
    name = f"corral-test-{secrets.token_hex(4)}"
    image = _image()
    try:
        with open_plane(uid=uid, launched_by=functools.partial(_launcher, name, image, uid)) as plane:
            yield plane
    finally:
        subprocess.run(_docker("rm", "--force", name), check=False, capture_output=True, timeout=ENGINE_LIMIT_S)


def process_in(plane: Plane) -> int:
    """The host's pid of the first process in the container."""
    name = plane.launcher[plane.launcher.index("--name") + 1]
    return int(_said("inspect", "--format", "{{.State.Pid}}", name))


def _launcher(name: str, image: str, uid: int | None, folder: Path) -> tuple[str, ...]:
    for shared in ("tmp", "shm"):
        (folder / shared).mkdir()
        (folder / shared).chmod(OPEN_TO_ALL)
    shown = {*SYSTEM, *(str(Path(place).resolve()) for place in (sys.prefix, sys.base_prefix, ROOT))}
    mounts = [f"{path}:{path}:ro" for path in sorted(shown)]
    mounts += [f"{folder}:{folder}", f"{folder}/tmp:/tmp", f"{folder}/shm:/dev/shm", f"{USER_IDS}:{USER_IDS}"]
    USER_IDS.mkdir(mode=0o755, parents=True, exist_ok=True)
    words = [word for mount in mounts for word in ("--volume", mount)]
    words += [word for variable in (*VARIABLES, *QUIET) for word in ("--env", variable)]
    if uid is not None:
        # Postgres asks for the user's name.
        (folder / "passwd").write_text(f"{Path('/etc/passwd').read_text()}corral:x:{uid}:{uid}::{folder}:/bin/sh\n")
        words += ["--volume", f"{folder}/passwd:/etc/passwd:ro"]
        words += ["--user", f"{uid}:{uid}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    return tuple(_docker("run", "--rm", "--name", name, "--network", "host", "--workdir", str(folder), *words, image))


@functools.cache
def _image() -> str:
    """An image of empty folders and a few links."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path in ("usr", "etc", "root", "run", "tmp", "var", "var/tmp", "work"):
            folder = tarfile.TarInfo(path)
            folder.type, folder.mode = tarfile.DIRTYPE, OPEN_TO_ALL if path.endswith("tmp") else 0o755
            tar.addfile(folder)
        for name in LINKS:
            if Path("/", name).is_symlink():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, str(Path("/", name).readlink())
                tar.addfile(link)
    command = _docker("import", "-", IMAGE)
    subprocess.run(command, input=content.getvalue(), check=True, capture_output=True, timeout=ENGINE_LIMIT_S)
    return IMAGE


def _docker(*words: str) -> list[str]:
    host = os.environ.get("DOCKER_HOST")
    return ["docker", *(("--host", host) if host else ()), *words]


def _said(*words: str) -> str:
    done = subprocess.run(_docker(*words), check=True, capture_output=True, text=True, timeout=ENGINE_LIMIT_S)
    return done.stdout.strip()
