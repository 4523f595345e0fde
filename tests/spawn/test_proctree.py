"""Reading /proc and telling whose a process is: tables, no processes."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.spawn.proctree import PAGE_BYTES, Proc, Root, Usage, assign, look, parse_stat, scan, trees, variable

SPAWNER = 10


def proc(ppid: int, *, sid: int = 0, pgid: int = 0, start: int = 100, uid: int = 1000, state: str = "S") -> Proc:
    return Proc(ppid, pgid or sid, sid, 5, 4096, start, uid, state, 2)


def whose(procs: dict[int, Proc], *roots: Root, markers: dict[int, str] | None = None) -> dict[str, object]:
    found = assign(procs, SPAWNER, roots, (markers or {}).get)
    return {**{key: sorted(pids) for key, pids in found.members.items()}, "strays": sorted(found.strays)}


@pytest.mark.parametrize("name", [b"cat", b"a b", b") S 1 1", b"((", b"\xff\xfe", b""])
def test_a_stat_line_is_read_whatever_the_name_in_it(name: bytes) -> None:
    numbers = b"S 7 8 9 0 -1 4194304 1 2 3 4 11 12 13 14 20 0 6 0 777 1000000 25 18446744073709551615"
    found = parse_stat(b"42 (" + name + b") " + numbers, uid=5)
    assert found == Proc(7, 8, 9, 50, 25 * PAGE_BYTES, 777, 5, "S", 6)


@pytest.mark.parametrize("line", [b"", b"42", b"42 (x", b"42 (x) S 1", b"42 (x) S a b c"])
def test_what_is_no_stat_line_is_refused(line: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_stat(line, uid=0)


@pytest.mark.parametrize(
    ("state", "threads", "live"), [("S", 1, True), ("Z", 1, False), ("X", 1, False), ("Z", 3, True)]
)
def test_a_zombie_with_running_threads_lives(state: str, threads: int, live: bool) -> None:
    assert Proc(1, 1, 1, 0, 0, 0, 0, state, threads).is_live is live


def test_a_leader_its_descendants_and_its_session_are_the_jobs() -> None:
    procs = {
        SPAWNER: proc(1),
        20: proc(SPAWNER, sid=20),
        21: proc(20, sid=20),
        22: proc(21, sid=22),  # setsid
        23: proc(22, sid=22),
        24: proc(SPAWNER, sid=20),  # its parent is gone, its session is not
        30: proc(SPAWNER, sid=30),
        31: proc(30, sid=30),
    }
    assert whose(procs, Root("a", 20, 100), Root("b", 30, 100)) == {
        "a": [20, 21, 22, 23, 24],
        "b": [30, 31],
        "strays": [],
    }


def test_an_orphan_is_the_jobs_whose_marker_it_carries_or_a_stray_with_all_below_it() -> None:
    procs = {
        SPAWNER: proc(1),
        20: proc(SPAWNER, sid=20),
        40: proc(SPAWNER, sid=40),
        41: proc(40, sid=40),
        50: proc(SPAWNER, sid=50),
        51: proc(50, sid=51),
        60: proc(SPAWNER, sid=60),
    }
    found = whose(procs, Root("a", 20, 100), markers={40: "a", 60: "long gone"})
    assert found == {"a": [20, 40, 41], "strays": [50, 51, 60]}


def test_an_orphan_and_all_below_it_are_summed_up_with_the_job_whose_marker_it_carries() -> None:
    procs = {
        SPAWNER: proc(1),
        20: proc(SPAWNER, sid=20),
        40: proc(SPAWNER, sid=39),
        41: proc(40, sid=41),
        50: proc(SPAWNER, sid=49),
        60: proc(SPAWNER, sid=59),
    }
    roots = [Root("a", 20, 100, marker="aa"), Root("b", 99, 100)]
    found = trees(procs, roots, {40: "aa", 50: "long gone"})
    assert {key: usage.processes for key, usage in found.items()} == {"a": 3, "b": 0}


def test_a_user_of_its_own_decides_wherever_the_process_is() -> None:
    procs = {
        SPAWNER: proc(1),
        20: proc(SPAWNER, sid=20, uid=60001),
        30: proc(SPAWNER, sid=30, uid=60002),
        31: proc(30, sid=30, uid=60001),
        40: proc(SPAWNER, sid=40, uid=60001),
        99: proc(1, sid=99, uid=60001),
    }
    found = whose(procs, Root("a", 20, 100, 60001), Root("b", 30, 100))
    assert found == {"a": [20, 31, 40, 99], "b": [30], "strays": []}


def test_two_jobs_of_one_user_are_both_told_of_all_of_it() -> None:
    procs = {SPAWNER: proc(1), 20: proc(SPAWNER, sid=20, uid=60001), 40: proc(SPAWNER, sid=40, uid=60001)}
    assert whose(procs, Root("a", 20, 100, 60001), Root("b", 40, 100, 60001)) == {
        "a": [20, 40],
        "b": [20, 40],
        "strays": [],
    }


def test_a_stranger_that_got_the_leaders_number_is_nobodys() -> None:
    procs = {
        SPAWNER: proc(1),
        20: proc(1, sid=20, start=500),  # the leader has ended; its pid went to a process outside
        30: proc(SPAWNER, sid=30, start=50),
    }
    assert whose(procs, Root("a", 20, 100), Root("b", 30, 90)) == {"a": [], "b": [], "strays": [30]}


def test_a_zombie_orphan_is_no_stray_and_the_world_outside_no_concern() -> None:
    procs = {
        1: proc(0),
        SPAWNER: proc(1),
        50: proc(SPAWNER, sid=50, state="Z")._replace(threads=1),
        70: proc(1, sid=70),
        71: proc(70, sid=70),
    }
    assert whose(procs) == {"strays": []}


def test_a_chain_longer_than_the_recursion_limit_and_a_ring_are_walked() -> None:
    chain = {pid: proc(pid - 1, sid=5000) for pid in range(101, 4000)}
    ring = {9001: proc(9002), 9002: proc(9001)}
    procs = {**ring, **dict(reversed(chain.items())), SPAWNER: proc(1), 100: proc(SPAWNER, sid=100)}
    assert whose(procs, Root("a", 100, 100)) == {"a": list(range(100, 4000)), "strays": []}


@given(st.dictionaries(st.integers(1, 30), st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30))
def test_nobody_belongs_to_two_jobs_and_no_outsider_to_any(shape: dict[int, tuple[int, int]]) -> None:
    procs = {pid: proc(ppid, sid=sid) for pid, (ppid, sid) in shape.items()}
    found = assign(procs, SPAWNER, [Root("a", 3, 100), Root("b", 4, 100)], lambda _pid: None)
    everyone = [*found.members["a"], *found.members["b"], *found.strays]
    assert len(everyone) == len(set(everyone))
    for pid in everyone:
        seen = set()
        above = pid
        while above != SPAWNER:
            assert above in procs
            assert above not in seen
            seen.add(above)
            above = procs[above].ppid


def test_a_tree_sums_what_its_live_processes_use() -> None:
    procs = {
        20: proc(SPAWNER, sid=20),
        21: proc(20, sid=21),
        22: proc(20, sid=20, state="Z")._replace(threads=1),
        30: proc(SPAWNER, sid=30),
        31: proc(1, sid=31, uid=60001),
    }
    found = trees(procs, [Root("a", 20, 100), Root("b", 30, 100), Root("c", 77, 100), Root("d", 31, 100, 60001)])
    assert found == {
        "a": Usage(10, 8192, 2, 4),
        "b": Usage(5, 4096, 1, 2),
        "c": Usage(),
        "d": Usage(5, 4096, 1, 2),
    }


def test_the_scan_finds_this_process_as_it_is() -> None:
    found = scan()[os.getpid()]
    assert (found.ppid, found.pgid, found.sid, found.uid) == (os.getppid(), os.getpgrp(), os.getsid(0), os.geteuid())
    assert found.is_live
    assert found.rss_bytes > 1 << 20
    assert look(2**22 + 1) is None


def test_a_variable_is_read_as_it_was_at_exec() -> None:
    environment = {"A": "x=y", "AB": "no", "EMPTY": ""}
    process = subprocess.Popen(["/bin/cat"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(b"x")  # Popen returns in the midst of exec, when there may be no environment to read yet
        process.stdin.flush()
        assert process.stdout.read(1) == b"x"
        assert variable(process.pid, "A") == "x=y"
        assert variable(process.pid, "EMPTY") == ""
        assert variable(process.pid, "B") is None
    finally:
        process.kill()
        process.communicate()
    assert variable(process.pid, "A") is None
