"""The same tests as an ordinary user: Corral must hold what it promises without being root."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plain_user import ROOT, launcher

TIMEOUT_S = 300
SERVICES = "tests/embedded/test_services.py"
WHAT_DEPENDS_ON_THE_USER = (
    *(
        f"tests/spawn/test_{name}.py"
        for name in ("confinement", "job", "death", "sweep", "uids", "landlock", "seccomp", "levels", "probe")
    ),
    "tests/supervise/test_orphans.py",
    f"{SERVICES}::test_both_start_serve_stop_and_keep_their_data",
    f"{SERVICES}::test_a_killed_postgres_serves_again_by_itself_at_the_same_address",
    f"{SERVICES}::test_neither_can_be_reached_without_its_password_or_by_another_user",
    "tests/egress/test_gate.py",
    "tests/egress/test_client.py",
    "tests/test_home.py",
)


@pytest.mark.needs("root", "mount_namespaces")
def test_the_whole_of_it_holds_for_an_ordinary_user(common_folder: Path, uid: int) -> None:
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
    }
    pytest_words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *WHAT_DEPENDS_ON_THE_USER]
    done = subprocess.run(
        [*launcher(uid, common_folder / "stage"), sys.executable, *pytest_words],
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
