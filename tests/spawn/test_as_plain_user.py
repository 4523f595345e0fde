"""The same tests as an ordinary user: Corral must hold what it promises without being root."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
SERVICES = "tests/embedded/test_services.py"
WHAT_DEPENDS_ON_THE_USER = (
    *(f"tests/spawn/test_{name}.py" for name in ("confinement", "job", "death", "sweep", "uids")),
    f"{SERVICES}::test_both_start_serve_stop_and_keep_their_data",
    f"{SERVICES}::test_a_killed_postgres_serves_again_by_itself_at_the_same_address",
    f"{SERVICES}::test_neither_can_be_reached_without_its_password_or_by_another_user",
    "tests/test_home.py",
)

RUN = r"""
set -e
stage=$1 closed=$2 user=$3; shift 3
if [ -n "$closed" ]; then
    mount -t tmpfs -o mode=755 tmpfs "$stage"
    n=0; for path in $NEEDED; do n=$((n+1)); mkdir "$stage/$n"; mount --rbind "$path" "$stage/$n"; done
    for path in $closed; do mount -t tmpfs -o mode=755 tmpfs "$path"; done
    n=0; for path in $NEEDED; do n=$((n+1)); mkdir -p "$path"; mount --rbind "$stage/$n" "$path"; done
fi
exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
"""
"""In a mount namespace of its own: lets the user see what he needs below folders that are closed to him."""


def closed_above(path: Path) -> list[Path]:
    """The outermost folder on the way to `path` that others may not enter."""
    parents = [path, *path.parents][::-1]
    return [folder for folder in parents if not folder.stat().st_mode & stat.S_IXOTH][:1]


@pytest.mark.needs("root", "mount_namespaces")
def test_the_whole_of_it_holds_for_an_ordinary_user(common_folder: Path, uid: int) -> None:
    needed = {Path(place).resolve() for place in (sys.prefix, sys.base_prefix, ROOT)}
    needed = {path for path in needed if not needed & set(path.parents)}
    closed = {str(folder) for path in needed for folder in closed_above(path)}
    for name in ("stage", "home", "tmp"):
        (common_folder / name).mkdir()
        shutil.chown(common_folder / name, uid, uid)
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(common_folder / "home"),
        "TMPDIR": str(common_folder / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(common_folder / "home"),
        "NEEDED": " ".join(map(str, needed)),
    }
    pytest_words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *WHAT_DEPENDS_ON_THE_USER]
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            RUN,
            "sh",
            str(common_folder / "stage"),
            " ".join(closed),
            str(uid),
            sys.executable,
            *pytest_words,
        ],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
