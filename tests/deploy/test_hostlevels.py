"""What is told of a host's levels and limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from controlplane.config import load
from controlplane.deploy.hostlevels import UNLOCK_AS_ROOT, UNLOCK_AS_USER, told
from controlplane.spawn.cgroups import Hierarchy
from controlplane.spawn.job import Features, Level

PROCESS, CONFINED = Level("process", available=True), Level("confined", available=True)
NO_CONFINED = Level("confined", available=False, why="this kernel has no Landlock", unlock="Linux 5.13")
NO_NAMESPACED = Level("namespaced", available=False, why="bubblewrap is not installed", unlock="install it")


@pytest.mark.parametrize(
    ("levels", "environ", "auto"),
    [
        ((PROCESS, CONFINED, NO_NAMESPACED), {}, "confined"),
        ((PROCESS, CONFINED, NO_NAMESPACED), {"AUTO_ISOLATION": "process"}, "process"),
        ((PROCESS, NO_CONFINED, NO_NAMESPACED), {}, "process"),
        ((PROCESS, NO_CONFINED, NO_NAMESPACED), {"MIN_ISOLATION": "confined"}, None),
    ],
)
def test_auto_is_the_strongest_that_there_is_or_nothing_where_that_is_less_than_demanded(levels, environ, auto) -> None:
    assert told(Features(levels=levels), load(environ), as_root=True).auto == auto


def test_limits_without_groups_are_soft_and_say_how_to_make_them_hard() -> None:
    none = told(Features(), load({}), as_root=False).limits
    assert (none.driver, none.enforcement["memory_mb"], none.unlock) == (None, "soft", UNLOCK_AS_USER)
    assert told(Features(), load({}), as_root=True).limits.unlock == UNLOCK_AS_ROOT
    part = Hierarchy("cgroup1", memory="/m", accounting="/m")
    assert told(Features(hierarchy=part), load({}), as_root=True).limits.unlock == UNLOCK_AS_ROOT
    whole = Hierarchy("cgroup1", memory="/m", cpu="/c", processes="/p", accounting="/c")
    held = told(Features(hierarchy=whole), load({}), as_root=True).limits
    assert (held.driver, held.unlock) == ("cgroup1", None)
    assert held.enforcement["disk_mb"] == "soft"


def test_the_program_tells_the_same_of_this_host_and_leaves_no_group_behind() -> None:
    run = subprocess.run(
        [sys.executable, "-P", "-m", "controlplane.deploy.hostlevels"],
        capture_output=True,
        timeout=60,
        check=True,
        env={"PATH": os.defpath, "MIN_ISOLATION": "no such level"},
    )
    found = json.loads(run.stdout)
    assert [level["name"] for level in found["levels"]] == ["process", "confined", "namespaced"]
    assert found["levels"][0]["available"]
    assert found["minimum"] == "process", "settings that cannot be used are another check's to say"
