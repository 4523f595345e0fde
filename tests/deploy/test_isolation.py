"""Which level a spec gets, what it may mount, and what of a request a level would hide: tables."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Literal

import pytest

from controlplane.config import Config
from controlplane.deploy.isolation import (
    DOCTOR,
    MOUNTS,
    HostLevels,
    LevelMissing,
    level_of,
    network_notes,
    plan_level,
    plan_mounts,
    refuse_hidden,
)
from controlplane.deploy.refusals import Refusals
from controlplane.errors import InvalidRequest
from controlplane.model import Command, Mount, SourceType, Spec
from controlplane.spawn.confinement import LEVELS
from controlplane.spawn.job import Features, Level
from controlplane.wire.deploy import MountIn

EVERYTHING = HostLevels(why={})
NO_LANDLOCK, NO_BWRAP = "this kernel has no Landlock", "bubblewrap is not installed"
NO_NAMESPACED = HostLevels(why={"namespaced": NO_BWRAP})
NO_CONFINED = HostLevels(why={"confined": NO_LANDLOCK})
ONLY_PROCESS = HostLevels(why={"confined": NO_LANDLOCK, "namespaced": NO_BWRAP})
HOSTS = (EVERYTHING, NO_NAMESPACED, NO_CONFINED, ONLY_PROCESS)
ROOTS = ("bin", "dev", "etc", "home", "proc", "root", "srv", "sys", "tmp", "usr", "var")


def mount(source: str, target: str, *, writable: bool = False) -> Mount:
    return Mount(source=source, target=target, writable=writable)


def strength(level: str) -> int:
    return LEVELS.index(level)


# -- levels


@pytest.mark.parametrize(
    ("asked", "at_most", "at_least", "host", "level"),
    [
        ("auto", "namespaced", "process", EVERYTHING, "namespaced"),
        ("auto", "namespaced", "process", NO_NAMESPACED, "confined"),
        ("auto", "namespaced", "process", NO_CONFINED, "namespaced"),
        ("auto", "namespaced", "process", ONLY_PROCESS, "process"),
        ("auto", "confined", "process", EVERYTHING, "confined"),
        ("auto", "confined", "process", NO_CONFINED, "process"),
        ("auto", "process", "process", EVERYTHING, "process"),
        ("auto", "namespaced", "confined", NO_CONFINED, "namespaced"),
        ("namespaced", "process", "process", EVERYTHING, "namespaced"),
        ("confined", "namespaced", "confined", EVERYTHING, "confined"),
        ("process", "namespaced", "process", EVERYTHING, "process"),
    ],
)
def test_a_spec_gets_the_level_it_asks_for_and_auto_the_strongest(
    asked: str, at_most: str, at_least: str, host: HostLevels, level: str
) -> None:
    assert level_of(asked, Config(auto_isolation=at_most, min_isolation=at_least), host) == level


@pytest.mark.parametrize(
    ("asked", "at_most", "at_least", "host", "why"),
    [
        ("namespaced", "namespaced", "process", NO_NAMESPACED, f"this host cannot give namespaced: {NO_BWRAP}"),
        ("confined", "namespaced", "process", NO_CONFINED, f"this host cannot give confined: {NO_LANDLOCK}"),
        ("namespaced", "namespaced", "process", HostLevels(), "this host cannot give namespaced: it was not tried"),
        (
            "process",
            "namespaced",
            "confined",
            EVERYTHING,
            "the operator demands at least confined, and it is weaker: process",
        ),
        (
            "confined",
            "namespaced",
            "namespaced",
            EVERYTHING,
            "the operator demands at least namespaced, and it is weaker: confined",
        ),
        (
            "auto",
            "namespaced",
            "namespaced",
            NO_NAMESPACED,
            "the operator demands at least namespaced, and confined is all that there is for it here",
        ),
        (
            "auto",
            "process",
            "confined",
            EVERYTHING,
            "the operator demands at least confined, and process is all that there is for it here",
        ),
    ],
)
def test_a_level_that_cannot_be_had_is_refused_with_the_reason(
    asked: str, at_most: str, at_least: str, host: HostLevels, why: str
) -> None:
    with pytest.raises(LevelMissing) as missing:
        level_of(asked, Config(auto_isolation=at_most, min_isolation=at_least), host)
    assert str(missing.value) == why


@pytest.mark.parametrize("asked", ["auto", *LEVELS])
@pytest.mark.parametrize("host", HOSTS, ids=["everything", "no bubblewrap", "no Landlock", "nothing"])
def test_no_level_is_ever_weaker_than_asked_than_demanded_or_than_what_there_is(asked: str, host: HostLevels) -> None:
    available = [level for level in LEVELS if level not in host.why]
    for at_most, at_least in itertools.product(LEVELS, LEVELS):
        allowed = [level for level in available if strength(level) <= strength(at_most)]
        wanted = max(allowed, key=strength) if asked == "auto" else asked
        can_be_had = wanted in available and strength(wanted) >= strength(at_least)
        config = Config(auto_isolation=at_most, min_isolation=at_least)
        if can_be_had:
            assert level_of(asked, config, host) == wanted
        else:
            with pytest.raises(LevelMissing):
                level_of(asked, config, host)


def test_a_request_for_a_level_that_is_not_there_is_refused_and_the_rest_judged_at_process() -> None:
    refusals = Refusals()
    assert plan_level("namespaced", Config(), NO_NAMESPACED, refusals) == "process"
    with pytest.raises(InvalidRequest) as refused:
        refusals.raise_if_any()
    assert [(wrong.pointer, wrong.message) for wrong in refused.value.errors] == [
        ("/isolation", f"this host cannot give namespaced: {NO_BWRAP}")
    ]
    assert refused.value.hint == DOCTOR


def test_what_the_host_gives_is_what_the_spawner_found() -> None:
    found = Features(
        levels=(Level("process", True), Level("confined", True), Level("namespaced", False, NO_BWRAP, "install it")),
    )
    assert HostLevels.of(found) == HostLevels(why={"namespaced": NO_BWRAP})


# -- mounts

ALLOWED = Config(home=Path("/var/lib/corral"), allowed_mounts=(Path("/srv/data"), Path("/opt/models")))


Mode = Literal["ro", "rw"]
Planned = tuple[tuple[Mount, ...], dict[str, str]]


def planned(
    *mounts: tuple[str, str], level: str = "namespaced", config: Config = ALLOWED, mode: Mode = "ro"
) -> Planned:
    """What comes of mounts: (mounts, {pointer: message})."""
    refusals = Refusals()
    wanted = [MountIn(source=source, target=target, mode=mode) for source, target in mounts]
    result = plan_mounts(wanted, level, config, refusals)
    return result, {wrong.pointer: wrong.message for wrong in refusals.found}


@pytest.mark.parametrize(
    ("source", "target", "level"),
    [
        ("/srv/data", "/data", "namespaced"),
        ("/srv/data/", "/data//x/.", "namespaced"),
        ("/srv/data/a/b", "/home/ada/b", "namespaced"),
        ("/srv/data/a", "/tmp/a", "namespaced"),
        ("/opt/models/x", "/mnt/x", "namespaced"),
        ("/opt/models/x", "/opt/models/x", "namespaced"),
        ("/opt/models/x", "/opt/models/x", "confined"),
        ("/srv/data/a", "/srv/data/a", "confined"),
        ("/srv/data/a/", "/srv//data/a", "confined"),
    ],
)
def test_a_folder_that_the_operator_allows_may_be_mounted(source: str, target: str, level: str) -> None:
    mounts, refused = planned((source, target), level=level)
    assert not refused
    assert "//" not in mounts[0].source + mounts[0].target
    assert not mounts[0].target.endswith(("/", "."))
    assert not mounts[0].writable


def test_a_mount_is_writable_where_it_asks_for_that() -> None:
    assert planned(("/srv/data", "/data"), mode="rw")[0] == (mount("/srv/data", "/data", writable=True),)


@pytest.mark.parametrize(
    ("source", "target", "level", "pointer", "words"),
    [
        ("srv/data", "/data", "namespaced", "/mounts/0/source", "an absolute path"),
        ("/srv/data", "data", "namespaced", "/mounts/0/target", "an absolute path"),
        ("/srv/data/../../etc", "/data", "namespaced", "/mounts/0/source", "without .."),
        ("/srv/data", "/data/../etc", "namespaced", "/mounts/0/target", "without .."),
        ("/srv/data/\0", "/data", "namespaced", "/mounts/0/source", "an absolute path"),
        ("/srv", "/data", "namespaced", "/mounts/0/source", "/srv/data, /opt/models"),
        ("/srv/database", "/data", "namespaced", "/mounts/0/source", "not below the operator's ALLOWED_MOUNTS"),
        ("/etc", "/data", "namespaced", "/mounts/0/source", "not below the operator's ALLOWED_MOUNTS"),
        ("//etc", "/data", "namespaced", "/mounts/0/source", "not below the operator's ALLOWED_MOUNTS"),
        ("/srv/data", "/", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "//", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "//usr/bin", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "/etc", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "/etc/passwd", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "/etc/ssl/certs", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "/usr/lib", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "/proc/1", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "/dev/shm", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "/sys/fs/cgroup", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "/nix", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "/run", "namespaced", "/mounts/0/target", "belongs to the system"),
        ("/srv/data", "/var/lib", "namespaced", "/mounts/0/target", "hide the instance's own folders"),
        ("/srv/data", "/var/lib/corral", "namespaced", "/mounts/0/target", "hide the instance's own folders"),
        ("/srv/data", "/data", "confined", "/mounts/0/target", "expected /srv/data"),
        ("/srv/data", "/srv/data", "process", "/mounts/0", "level process hides nothing"),
    ],
)
def test_a_mount_that_cannot_be_meant_is_refused_where_it_is_wrong(
    source: str, target: str, level: str, pointer: str, words: str
) -> None:
    _, refused = planned((source, target), level=level)
    assert list(refused) == [pointer]
    assert words in refused[pointer]


def test_no_two_mounts_are_at_the_same_place() -> None:
    _, refused = planned(("/srv/data/a", "/data"), ("/srv/data/b", "/other"), ("/srv/data/c", "//data/."))
    assert refused == {"/mounts/2/target": "/data is there twice"}


def test_where_the_operator_allows_nothing_there_are_no_mounts_and_the_setting_is_named() -> None:
    _, refused = planned(("/srv/data", "/data"), config=Config())
    assert refused == {"/mounts/0/source": "/srv/data is not below the operator's ALLOWED_MOUNTS, which is empty"}


# -- what is hidden


def command(*words: str, cwd: str | None = None, mounts: tuple[Mount, ...] = ()) -> Spec:
    launch = Command(command=words[0], args=words[1:], cwd=cwd)
    return Spec(source_type=SourceType.MCP_CONFIG, language="binary", command=launch, mounts=mounts)


def hidden(spec: Spec, level: str = "namespaced") -> list[str]:
    refusals = Refusals()
    refuse_hidden(spec, level, ROOTS, refusals)
    if refusals.found:
        assert refusals.hint == MOUNTS
    return [wrong.pointer for wrong in refusals.found]


@pytest.mark.parametrize(
    ("spec", "pointers"),
    [
        (command("/home/ada/server"), ["/mcp_config/command"]),
        (command("python3", "/srv/server.py"), ["/mcp_config/args/0"]),
        (command("x", "-v", "--root=/var/lib/x", "ok"), ["/mcp_config/args/1"]),
        (command("x", "--root", "/root/.ssh"), ["/mcp_config/args/1"]),
        (command("x", "/usr/../home/ada"), ["/mcp_config/args/0"]),
        (command("x", cwd="/srv/work"), ["/mcp_config/cwd"]),
        (command("x", "/etc/shadow"), ["/mcp_config/args/0"]),
        (command("x", "//srv/x", "--root=//srv/x"), ["/mcp_config/args/0", "/mcp_config/args/1"]),
        (command("x", "/etc"), ["/mcp_config/args/0"]),
        (command("/srv/x", "/srv/y", cwd="/srv"), ["/mcp_config/command", "/mcp_config/cwd", "/mcp_config/args/0"]),
        (command("x", "/srv/b", mounts=(mount("/srv/b", "/data"),)), ["/mcp_config/args/0"]),
        (command("x", "/srv/database", mounts=(mount("/srv/data", "/srv/data"),)), ["/mcp_config/args/0"]),
    ],
)  # fmt: skip
def test_a_place_of_the_host_that_would_be_hidden_is_refused_with_a_word_on_mounts(
    spec: Spec, pointers: list[str]
) -> None:
    assert hidden(spec) == pointers
    assert hidden(spec, "confined") == pointers
    assert hidden(spec, "process") == []


@pytest.mark.parametrize(
    "spec",
    [
        command("npx", "-y", "@modelcontextprotocol/server-memory"),
        command("npx", "-y", "@modelcontextprotocol/server-filesystem", "/tmp/allowed", "/tmp"),
        command("/usr/bin/python3", "/usr/share/x", "--ca=/etc/ssl/certs/ca.pem", "/dev/null", "/proc/self"),
        command("x", "/help", "/", "//", "/v1/api", "--prefix=/mcp", "https://example.com/srv", "srv/x", "-/srv"),
        command("x", "/data/x", "--to=/data", mounts=(mount("/srv/data", "/data"),)),
        command("x", "/srv/data/x", cwd="/srv/data", mounts=(mount("/srv/data", "/srv/data"),)),
        command("x", cwd="sub/folder"),
        command("x", cwd="/tmp/folder"),
    ],
)
def test_what_a_job_sees_and_what_is_no_place_of_the_host_is_let_through(spec: Spec) -> None:
    assert hidden(spec) == []


def test_a_source_without_a_command_hides_nothing_from_itself() -> None:
    assert hidden(Spec(source_type=SourceType.DIRECT, language="python", entry_point="x.py", source=b"")) == []


# -- the network


@pytest.mark.parametrize(
    ("mode", "level", "note"),
    [
        ("open", "process", ""),
        ("open", "confined", ""),
        ("open", "namespaced", ""),
        ("none", "namespaced", ""),
        ("allow", "namespaced", ""),
        ("none", "confined", ""),
        ("none", "process", "not in force at isolation level process"),
        ("allow", "process", "not in force at isolation level process"),
        ("allow", "confined", "not in force at isolation level confined"),
    ],
)
def test_what_a_level_cannot_enforce_of_the_network_is_told(mode: str, level: str, note: str) -> None:
    spec = Spec(source_type=SourceType.DIRECT, language="python", network={"mode": mode, "hosts": []})
    notes = network_notes(spec, level)
    assert len(notes) == bool(note)
    assert all(note in told for told in notes)
