"""What of the host every job sees, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.spawn import view
from controlplane.spawn.confinement import Bind


@pytest.mark.parametrize(
    ("path", "normal"),
    [("/", "/"), ("//", "/"), ("//usr", "/usr"), ("///usr//bin/.", "/usr/bin"), ("/a/../b/", "/b"), ("/../..", "/")],
)
def test_a_path_is_what_this_host_makes_of_it(path: str, normal: str) -> None:
    assert view.normal(path) == normal


@pytest.mark.parametrize(
    ("path", "is_system"),
    [
        ("/usr", True),
        ("/usr/bin/python3", True),
        ("//usr/bin", True),
        ("/bin/sh", True),
        ("/opt/node/bin", True),
        ("/nix/store/abc/bin", True),
        ("/nix/var", False),
        ("/usrx", False),
        ("/usr/../root", False),
        ("/", False),
        ("/etc", False),
        ("/etc/ssl/certs/x.pem", True),
        ("/etc/java-17-openjdk/x", True),
        ("/etc/passwd", True),
        ("/etc/shadow", False),
        ("/etc/passwd-", False),
        ("/etc/npmrc", False),
        ("/etc/ssl/../shadow", False),
        ("/proc/self", True),
        ("/dev/null", True),
        ("/sys/fs/cgroup", True),
        ("/home/ada", False),
        ("/root", False),
        ("/var/lib", False),
        ("/run/user", False),
    ],
)
def test_programs_libraries_and_what_they_read_are_the_systems(path: str, is_system: bool) -> None:
    assert view.is_system(path) is is_system


@pytest.mark.parametrize(
    ("path", "covers"),
    [
        ("/", True),
        ("//", True),
        ("/usr", True),
        ("/usr/local/share/x", True),
        ("/nix", True),
        ("/nix/store", True),
        ("/nix/var", False),
        ("/etc", True),
        ("/etc/npmrc", True),
        ("/run", True),
        ("/sys/fs", True),
        ("/data", False),
        ("/home", False),
        ("/tmp", False),
        ("/var/lib", False),
    ],
)
def test_nothing_may_lie_over_or_within_the_system(path: str, covers: bool) -> None:
    assert view.covers_system(path) is covers


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/tmp", True),
        ("/tmp/x", True),
        ("/tmpx", False),
        ("/data", True),
        ("/data/x", True),
        ("/database", False),
        ("/data/../home", False),
        ("/srv/data", False),
        ("/usr/bin", True),
        ("/home/ada", False),
    ],
)
def test_a_job_sees_the_system_its_tmp_and_its_binds_where_they_are_shown(path: str, shown: bool) -> None:
    assert view.shows(path, (Bind("/srv/data", "/data"),)) is shown


def test_of_this_host_what_is_there_is_found_and_links_at_the_root_stay_links() -> None:
    system = view.of_host()
    assert "/usr" in system.folders
    assert all(Path(folder).exists() for folder in system.folders)
    assert not any(name in folder for folder in system.folders for name in ("passwd", "shadow", "npmrc", "hosts"))
    for target, path in system.links:
        assert str(Path(path).readlink()) == target
        assert path not in system.folders
    seen = {*system.folders, *(path for _, path in system.links)}
    assert {path for path in ("/bin", "/lib", "/lib64", "/sbin") if Path(path).exists()} <= seen


def test_all_that_is_listed_is_the_systems() -> None:
    assert all(map(view.is_system, (*view.FOLDERS, *view.DEVICES, *view.KERNEL)))
    assert all(view.is_system(f"/etc/{name}") for name in (*view.ETC, *view.ETC_OF_NAMES))
