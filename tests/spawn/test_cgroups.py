"""Real control groups: they are found where they can be made, they hold, and nothing is left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field

from controlplane.spawn import cgroupio, cgroups, proctree
from controlplane.spawn.cgroupfiles import figure
from controlplane.spawn.cgroups import GroupEvents, GroupLimits, Hierarchy
from controlplane.spawn.cgroupsplit import are_kin
from controlplane.spawn.groups import Groups
from tests.spawn.children import LIFE_S, until

pytestmark = pytest.mark.needs("cgroups")

MIB = 1 << 20
ROOT = Path(__file__).parents[2]

INSIDE = """
import json, sys
sys.path.append(sys.argv[1])
from controlplane.spawn.cgroups import Hierarchy
Hierarchy(**json.loads(sys.argv[2])).enter(sys.argv[3])
exec(sys.argv[4])
"""
"""Run a program in a group, as a child of the spawner would."""

ALLOCATE = """
held = []
for _ in range(200):
    held.append(bytearray(b"x" * (1 << 20)))
print("not held", flush=True)
"""

FORK = f"""
import os, time
count = 0
for _ in range(60):
    try:
        if os.fork() == 0:
            time.sleep({LIFE_S})
            os._exit(0)
        count += 1
    except OSError as error:
        print(count, error.errno, flush=True)
        break
time.sleep({LIFE_S})
"""

SPIN = f"""
import time
end = time.monotonic() + {LIFE_S}
while time.monotonic() < end: pass
"""

SPREAD = f"""
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: os.setsid()
        break
print(os.getpid(), flush=True)
time.sleep({LIFE_S})
"""

WAIT = f"print('in', flush=True); import time; time.sleep({LIFE_S})"


@define
class Bench:
    """A hierarchy of the test's own, and the processes it has put into it."""

    marker: str
    hierarchy: Hierarchy
    children: list[subprocess.Popen[str]] = field(factory=list)

    def run(self, name: str, program: str) -> subprocess.Popen[str]:
        place = json.dumps(self.hierarchy._asdict())
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", INSIDE, str(ROOT), place, name, program],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        return child

    def events(self, name: str) -> GroupEvents:
        found = self.hierarchy.events(name)
        assert found is not None
        return found

    def memory_bytes(self, name: str) -> tuple[int, int | None]:
        """What is charged now, less the cache of files, and the most that ever was, where the kernel tells."""
        group, is_2 = Path(f"{self.hierarchy.memory}/{name}"), self.hierarchy.driver == "cgroup2"
        charged = int((group / ("memory.current" if is_2 else "memory.usage_in_bytes")).read_text())
        stat, total = (group / "memory.stat").read_text(), "" if is_2 else "total_"
        names = [f"{total}inactive_file", f"{total}active_file", *(["slab_reclaimable"] if is_2 else [])]
        peak = group / ("memory.peak" if is_2 else "memory.max_usage_in_bytes")
        return charged - sum(figure(stat, name) or 0 for name in names), int(
            peak.read_text()
        ) if peak.exists() else None

    def refused(self, name: str) -> int | None:
        """Times that a fork failed at the limit."""
        return figure(Path(f"{self.hierarchy.processes}/{name}/pids.events").read_text(), "max")

    def throttled_us(self, name: str) -> int:
        """For how long it stood still because its quota was used up."""
        stat = Path(f"{self.hierarchy.cpu}/{name}/cpu.stat").read_text()
        return figure(stat, "throttled_usec") or (figure(stat, "throttled_time") or 0) // 1000

    def is_left(self) -> list[str]:
        name = cgroups.folder_name(self.marker)
        return [folder for folder in self.hierarchy.folders if Path(folder).exists() or not folder.endswith(name)]


@pytest.fixture
def bench(marker: str) -> Iterator[Bench]:
    hierarchy = cgroups.find(marker)
    assert hierarchy is not None
    bench = Bench(marker, hierarchy)
    yield bench
    cgroups.sweep(marker)
    for child in bench.children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    assert bench.is_left() == []


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_looking_for_a_place_leaves_nothing_and_the_answer_is_plain_json(bench: Bench) -> None:
    assert bench.is_left() == []
    hierarchy = bench.hierarchy
    assert (hierarchy.has_memory, hierarchy.has_cpu, hierarchy.has_processes) == (True, True, True)
    assert Hierarchy(**json.loads(json.dumps(hierarchy._asdict()))) == hierarchy
    assert hierarchy.names() == []
    assert hierarchy.events("none") is None


async def test_more_memory_than_allowed_is_an_end_that_is_counted_at_exactly_the_limit(bench: Bench) -> None:
    bench.hierarchy.make("hog", GroupLimits(memory_bytes=48 * MIB))
    hog = bench.run("hog", ALLOCATE)
    assert hog.communicate()[0] == ""
    assert hog.returncode == -signal.SIGKILL
    await until(lambda: bench.events("hog").oom_kills)  # counted a moment after the kill
    in_use_bytes, peak_bytes = bench.memory_bytes("hog")
    assert peak_bytes is None or 40 * MIB < peak_bytes <= 48 * MIB
    assert in_use_bytes < 8 * MIB


def test_the_limits_of_a_group_in_use_can_be_raised_and_lowered_again(bench: Bench) -> None:
    for mib in (40, 120, 30):
        bench.hierarchy.make("hog", GroupLimits(memory_bytes=mib * MIB, cpu_percent=mib, processes=mib))
        hog = bench.run("hog", ALLOCATE)
        assert hog.communicate()[0] == ""
    bench.hierarchy.make("hog", GroupLimits())
    assert bench.run("hog", ALLOCATE).communicate()[0] == "not held\n"
    assert (bench.events("hog").oom_kills or 0) >= 3  # some kernels count a victim twice where its whole group goes
    assert bench.hierarchy.names() == ["hog"]


def test_a_fork_beyond_the_limit_is_refused_and_counted(bench: Bench) -> None:
    bench.hierarchy.make("forks", GroupLimits(processes=20))
    forks = bench.run("forks", FORK)
    assert line_of(forks) == "19 11"  # EAGAIN
    assert bench.events("forks").processes == 20
    assert bench.refused("forks") == 1


async def test_a_quota_of_the_cpu_makes_a_group_stand_still(bench: Bench) -> None:
    bench.hierarchy.make("spin", GroupLimits(cpu_percent=20))
    bench.run("spin", SPIN)
    await until(lambda: bench.throttled_us("spin") > 100_000, LIFE_S)
    count = bench.hierarchy.cpu_count("spin")
    assert count is not None
    assert count.used_us > 0


async def test_a_kill_reaches_every_session_and_then_the_group_can_go(bench: Bench) -> None:
    bench.hierarchy.make("tree", GroupLimits(processes=50))
    child = bench.run("tree", SPREAD)
    other = bench.run("tree", WAIT)
    await until(lambda: bench.events("tree").processes == 8)
    assert line_of(child).isdigit()
    assert not bench.hierarchy.remove("tree")
    await until(lambda: bench.hierarchy.kill("tree"))
    assert child.wait() == other.wait() == -signal.SIGKILL
    assert bench.hierarchy.remove("tree")
    assert bench.hierarchy.names() == []
    assert bench.is_left() == []


def test_to_kill_and_remove_what_is_not_there_is_no_error(bench: Bench) -> None:
    assert bench.hierarchy.kill("none")
    assert bench.hierarchy.remove("none")
    with pytest.raises(FileNotFoundError):
        bench.hierarchy.enter("none")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\n", "-x", "x" * 101])
def test_a_name_never_leads_out_of_the_folder(bench: Bench, name: str) -> None:
    with pytest.raises(ValueError, match="no name for a control group"):
        bench.hierarchy.make(name, GroupLimits())
    with pytest.raises(ValueError, match="no name for a control group"):
        bench.hierarchy.kill(name)


async def test_a_sweep_ends_what_an_earlier_life_left_wherever_it_was_and_nothing_else(bench: Bench) -> None:
    bench.hierarchy.make("left", GroupLimits(processes=50))
    bench.hierarchy.make("empty", GroupLimits())
    deeper = [
        Path(folder).parent / "corral-elsewhere" / cgroups.folder_name(bench.marker) for folder in bench.hierarchy[1:]
    ]
    strange = Hierarchy(bench.hierarchy.driver, *map(str, deeper))
    for folder in strange.folders:
        Path(folder).parent.mkdir()
        cgroupio.share_out(Path(folder).parent)
    strange.make("far", GroupLimits(processes=50))
    left = bench.run("left", SPREAD)
    other_life = cgroups.find(f"{bench.marker}x")
    assert other_life is not None
    other_life.make("left", GroupLimits())
    try:
        await until(lambda: bench.events("left").processes == 7)
        assert cgroups.sweep(bench.marker) == 3
        assert left.wait() == -signal.SIGKILL
        assert bench.is_left() == []
        assert other_life.names() == ["left"]
        assert cgroups.sweep(bench.marker) == 0
    finally:
        other_life.remove("left")
        for folder in strange.folders:
            Path(folder).parent.rmdir()


async def test_a_group_goes_with_its_last_job(bench: Bench) -> None:
    groups = Groups(bench.hierarchy)
    groups.admit("job-1", "app", GroupLimits(processes=9))
    groups.admit("job-2", "app", GroupLimits(processes=20))
    groups.dismiss("job-1")
    assert bench.hierarchy.names() == ["app"]
    child = bench.run("app", FORK)
    assert line_of(child) == "19 11"  # the later limit holds for all
    groups.dismiss("job-2")  # something is left in it
    groups.dismiss("job-2")
    await until(lambda: (groups.advance(), groups.is_settled)[1])
    assert child.wait() == -signal.SIGKILL
    assert bench.is_left() == []


def test_a_group_that_is_wanted_again_while_it_goes_is_kept(bench: Bench) -> None:
    groups = Groups(bench.hierarchy)
    groups.admit("job-1", "app", GroupLimits())
    child = bench.run("app", WAIT)
    assert line_of(child) == "in"
    with pytest.raises(ValueError, match="no name"):
        groups.admit("job-3", "../app", GroupLimits())
    groups.dismiss("job-1")
    groups.admit("job-2", "app", GroupLimits())
    groups.advance()
    assert groups.is_settled
    assert bench.hierarchy.names() == ["app"]
    assert child.wait() == -signal.SIGKILL
    groups.dismiss_all()
    assert groups.is_settled
    assert bench.is_left() == []


FIND = """
import json, sys
sys.path.append(sys.argv[1])
from controlplane.spawn import cgroups
open(sys.argv[3] + "/cgroup.procs", "w").write("0")
found = [cgroups.find(sys.argv[2]) for _ in range(2)]
print(json.dumps([found[0]._asdict(), found[1] == found[0], open("/proc/self/cgroup").read()]))
"""


@pytest.mark.needs("root", "cgroup2")
@pytest.mark.parametrize("is_marked", [True, False])
def test_of_version_2_a_group_is_split_only_if_it_was_handed_over(marker: str, is_marked: bool) -> None:
    above = Path(cgroups.own_places()[0].point, f"corral-given-{marker}")
    given = above / "scope"
    given.mkdir(parents=True)
    assert cgroupio.share_out(above) == {"memory", "cpu", "pids"}
    if is_marked:
        os.setxattr(given, "trusted.delegate", b"1")
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", FIND, str(ROOT), marker, str(given)],
            capture_output=True,
            text=True,
            timeout=LIFE_S,
            check=True,
        )
        place, is_same_again, own = json.loads(done.stdout)
        inside = f"{given if is_marked else above}/{cgroups.folder_name(marker)}"
        assert set(place.values()) == {"cgroup2", inside}
        assert is_same_again
        assert own.endswith(f"scope/{cgroups.folder_name(marker)}-self\n" if is_marked else "scope\n")
    finally:
        cgroupio.remove(above)


SURVEY = """
import json, sys
sys.path.append(sys.argv[1])
from controlplane.spawn import cgroups
open(sys.argv[3] + "/cgroup.procs", "w").write("0")
print(json.dumps([cgroups.survey(sys.argv[2])._asdict(), open("/proc/self/cgroup").read()]))
"""


@pytest.mark.needs("root", "cgroup2")
def test_a_survey_finds_the_same_and_leaves_the_group_whole(marker: str) -> None:
    above = Path(cgroups.own_places()[0].point, f"corral-given-{marker}")
    given = above / "scope"
    given.mkdir(parents=True)
    assert cgroupio.share_out(above) == {"memory", "cpu", "pids"}
    os.setxattr(given, "trusted.delegate", b"1")
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", SURVEY, str(ROOT), marker, str(given)],
            capture_output=True,
            text=True,
            timeout=LIFE_S,
            check=True,
        )
        place, own = json.loads(done.stdout)
        assert set(place.values()) == {"cgroup2", f"{given}/{cgroups.folder_name(marker)}"}
        assert own.endswith("scope\n")
        assert (cgroupio.children(given), cgroupio.shared_out(given)) == ([], frozenset())
    finally:
        cgroupio.remove(above)


def proc(ppid: int) -> proctree.Proc:
    return proctree.Proc(ppid, 1, 1, 0, 0, 0, 0, "S", 1)


PROCS = {1: proc(0), 5: proc(1), 6: proc(5), 7: proc(6), 8: proc(6), 9: proc(8), 20: proc(1), 60: proc(5)}
"""A spawner (7) of a control plane (6) that a shell (5) started; the shell has another child (60)."""


@pytest.mark.parametrize(
    ("pids", "kin"),
    [([6, 7], True), ([6, 7, 8, 9], True), ([1, 5, 6], True), ([7, 20], False), ([7, 60], False), ([0, 7], False)],
)
def test_only_a_group_of_one_family_is_split(pids: list[int], kin: bool) -> None:
    assert are_kin(pids, PROCS, 7) is kin
