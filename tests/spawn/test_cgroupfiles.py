"""What the kernel's files about control groups say, as found on hosts of many kinds: tables, no groups."""

from __future__ import annotations

import pytest

from controlplane.spawn.cgroupfiles import Place, cpu_quota_us, figure, memberships, number, places

V1_MOUNTS = """\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
V1_GROUPS = "9:name=systemd:/user.slice\n8:pids:/\n4:memory:/jobs/7\n2:cpu,cpuacct:/\n"
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

CPU = Place("cgroup1", frozenset({"cpu", "cpuacct"}), "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", True)
MEMORY = Place("cgroup1", frozenset({"memory"}), "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/jobs/7", True)
PIDS = Place("cgroup1", frozenset({"pids"}), "/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids", True)
SYSTEMD = Place(
    "cgroup1", frozenset({"name=systemd"}), "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd/user.slice", True
)


def at_2(own: str, *, point: str = "/sys/fs/cgroup", writable: bool = True) -> Place:
    return Place("cgroup2", frozenset(), point, own, writable)


@pytest.mark.parametrize(
    ("what", "groups", "mounts", "expected"),
    [
        ("version 1", V1_GROUPS, V1_MOUNTS, [CPU, MEMORY, PIDS, SYSTEMD]),
        (
            "a user's systemd scope",
            "0::/user.slice/user-1500.slice/user@1500.service/app.slice/run-r1.scope\n",
            V2_MOUNT,
            [at_2("/sys/fs/cgroup/user.slice/user-1500.slice/user@1500.service/app.slice/run-r1.scope")],
        ),
        ("version 2 without systemd", "0::/\n", V2_MOUNT, [at_2("/sys/fs/cgroup")]),
        (
            "hybrid",
            V1_GROUPS + "0::/user.slice\n",
            V1_MOUNTS + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            [
                CPU,
                MEMORY,
                PIDS,
                SYSTEMD,
                at_2("/sys/fs/cgroup/unified/user.slice", point="/sys/fs/cgroup/unified"),
            ],
        ),
        (
            "a container of version 2 with a namespace of its own, read-only",
            "0::/\n",
            "1 2 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n",
            [at_2("/sys/fs/cgroup", writable=False)],
        ),
        (
            "a container of version 1 that sees the host's paths",
            "4:memory:/docker/ab12/inner\n",
            "1 2 0:26 /docker/ab12 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
            [
                MEMORY._replace(own="/sys/fs/cgroup/memory/inner", is_writable=False),
            ],
        ),
        (
            "a path that is outside of what is mounted",
            "0::/../other.scope\n",
            "1 2 0:26 /docker/ab12 /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
            [at_2("/sys/fs/cgroup")],
        ),
        (
            "a name that only begins alike",
            "0::/docker/ab12345\n",
            "1 2 0:26 /docker/ab12 /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
            [at_2("/sys/fs/cgroup")],
        ),
        (
            "a mount point with a space",
            "0::/a\n",
            "1 2 0:26 / /mnt/my\\040groups rw - cgroup2 cgroup rw\n",
            [at_2("/mnt/my groups/a", point="/mnt/my groups")],
        ),
        (
            "mounted twice",
            "0::/a\n",
            V2_MOUNT + V2_MOUNT.replace("/sys/fs/cgroup", "/mnt"),
            [at_2("/mnt/a", point="/mnt")],
        ),
        ("version 2 that the kernel does not tell of", "4:memory:/\n", V2_MOUNT, []),
        ("no control groups", "", "22 1 0:20 / /proc rw - proc proc rw\n", []),
        ("lines that are none", "nonsense\n\n:\n", "- - -\n\n1 2 3 - cgroup\n", []),
    ],
)
def test_where_a_process_is_follows_from_two_files(what: str, groups: str, mounts: str, expected: list[Place]) -> None:
    assert places(groups, mounts) == expected, what


def test_a_controller_is_found_by_its_name_whatever_it_is_mounted_with() -> None:
    assert memberships("2:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/c\n") == {
        "cpu": "/a:b",
        "cpuacct": "/a:b",
        "name=systemd": "/",
        "": "/c",
    }


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("max 0\n", "max", 0),
        ("low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n", "oom_kill", 4),
        ("low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n", "kill", None),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", "oom_kill", 7),
        ("oom_kill_disable 0\nunder_oom 0\n", "oom_kill", None),
        ("total_inactive_file 3\n", "inactive_file", None),
        ("a 1\nb 2", "b", 2),
        ("a x\n", "a", None),
        ("", "a", None),
    ],
)
def test_a_figure_is_read_by_its_whole_name(text: str, key: str, expected: int | None) -> None:
    assert figure(text, key) == expected


@pytest.mark.parametrize(("text", "expected"), [("12\n", 12), ("max\n", None), ("", None), ("-1\n", None)])
def test_a_file_of_one_number_may_say_that_there_is_none(text: str, expected: int | None) -> None:
    assert number(text) == expected


@pytest.mark.parametrize(("percent", "quota"), [(100, 100_000), (250, 250_000), (30, 30_000), (1, 1_000), (0, 1_000)])
def test_percent_of_a_core_become_microseconds_in_each_tenth_of_a_second(percent: int, quota: int) -> None:
    assert cpu_quota_us(percent) == quota
