"""What one launch is held to: its folders, its network and its group, by level."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve

from controlplane.config import Config
from controlplane.deploy.limits import MIB
from controlplane.deploy.mounts import make_stages, real_mounts, stage_of
from controlplane.deploy.sheltering import (
    PROXIES,
    Shelter,
    enforcement,
    shelter,
    without_proxies,
)
from controlplane.egress.policy import Policy
from controlplane.errors import InvalidRequest
from controlplane.model import Instance, Limits, Mount
from controlplane.spawn.cgroups import Hierarchy
from controlplane.spawn.confinement import LEVELS, Bind, Group
from controlplane.supervise.holding import BUBBLEWRAPS
from tests.deploy.conftest import command

NUMBER = UUID("12345678-1234-1234-1234-123456789abc")
OWN = ("/srv/corral/home", "/srv/corral/work")
SHOWN = ("/srv/tools",)
WHOLE = Hierarchy("cgroup1", memory="/m", cpu="/c", processes="/p", accounting="/c", freezer="/f")
STAGES = Path("/srv/corral/mounts")
LIMITS = Limits(memory_mb=256, cpu_percent=50, processes=40)
MOUNTS = (Mount(source="/srv/data", target="/data"), Mount(source="/srv/out", target="/out", writable=True))


def instance(**members: Any) -> Instance:
    one = command("x", limits=LIMITS, **members)
    return evolve(one, id=NUMBER, spec=evolve(one.spec, revision=3))


def sheltered(
    level: str,
    *,
    mounts: tuple[Mount, ...] = (),
    hierarchy: Hierarchy | None = None,
    config: Config | None = None,
    **members: Any,
) -> Shelter:
    return shelter(
        instance(**members),
        level,
        own=OWN,
        shown=SHOWN,
        mounts=mounts,
        stages=STAGES,
        config=config or Config(),
        hierarchy=hierarchy,
    )


@pytest.mark.parametrize("level", ["confined", "namespaced"])
def test_its_own_folders_may_be_written_tools_only_read_and_mounts_come_last(level: str) -> None:
    assert sheltered(level, mounts=MOUNTS).confinement.binds == (
        Bind("/srv/corral/home", "/srv/corral/home", writable=True),
        Bind("/srv/corral/work", "/srv/corral/work", writable=True),
        Bind("/srv/tools", "/srv/tools"),
        Bind("/srv/data", "/data", stage=stage_of(STAGES, MOUNTS[0])),
        Bind("/srv/out", "/out", writable=True, stage=stage_of(STAGES, MOUNTS[1])),
    )


def test_where_nothing_is_hidden_nothing_is_shown() -> None:
    held = sheltered("process")
    assert (held.confinement.binds, held.confinement.level, held.confinement.network) == ((), "process", "host")


def test_a_mount_within_another_comes_after_it() -> None:
    nested = (Mount(source="/srv/b", target="/data/b"), Mount(source="/srv/a", target="/data"))
    targets = [bind.target for bind in sheltered("namespaced", mounts=nested).confinement.binds]
    assert targets[-2:] == ["/data", "/data/b"]


@pytest.mark.parametrize(
    ("level", "mode", "network", "gate"),
    [
        ("process", "open", "host", None),
        ("process", "none", "host", None),
        ("process", "allow", "host", None),
        ("confined", "open", "host", None),
        ("confined", "allow", "host", None),
        ("confined", "none", "none", None),
        ("namespaced", "none", "none", None),
        ("namespaced", "open", "gated", "open"),
        ("namespaced", "allow", "gated", "allow"),
    ],
)
def test_a_level_has_the_network_that_it_can_hold_an_instance_to(
    level: str, mode: str, network: str, gate: str | None
) -> None:
    held = sheltered(level, network={"mode": mode, "hosts": ["example.com"] if mode == "allow" else []})
    assert held.confinement.network == network
    assert (held.gate and held.gate.mode) == gate
    assert (held.gate is not None and held.gate.hosts == ("example.com",)) is (gate == "allow")


def test_what_the_operator_lets_instances_reach_leads_through_the_gate() -> None:
    held = sheltered("namespaced", config=Config(egress_allow_private=("127.0.0.1:5432", "10.0.0.5:80")))
    assert held.gate == Policy(mode="open", allow_private=("127.0.0.1:5432", "10.0.0.5:80"))
    assert held.confinement.loopback == (("127.0.0.1", 5432),)


@pytest.mark.parametrize(
    ("level", "mode", "dropped"),
    [
        ("process", "open", False),
        ("confined", "open", False),
        ("confined", "none", False),
        ("namespaced", "open", True),
        ("namespaced", "allow", True),
    ],
)
def test_behind_a_gate_the_operators_proxy_means_nothing(level: str, mode: str, dropped: bool) -> None:
    confinement = sheltered(level, network={"mode": mode, "hosts": []}).confinement
    env = {"PATH": "/bin", **dict.fromkeys(PROXIES, "http://proxy:3128")}
    assert without_proxies(env, confinement) == ({"PATH": "/bin"} if dropped else env)


@pytest.mark.parametrize("level", LEVELS)
def test_each_revision_has_a_group_of_its_own_with_the_specs_limits(level: str) -> None:
    extra = BUBBLEWRAPS if level == "namespaced" else 0
    held = sheltered(level, hierarchy=WHOLE)
    assert held.confinement.group == Group(f"{NUMBER}.3", memory_bytes=256 * MIB, cpu_percent=50, processes=40 + extra)
    assert sheltered(level).confinement.group is None


@pytest.mark.parametrize(
    ("hierarchy", "hard"),
    [
        (None, {"open_files"}),
        (WHOLE, {"open_files", "memory_mb", "cpu_percent", "processes"}),
        (Hierarchy("cgroup1", memory="/m", accounting="/c"), {"open_files", "memory_mb"}),
        (Hierarchy("cgroup2", cpu="/u", processes="/u"), {"open_files", "cpu_percent", "processes"}),
    ],
)
def test_a_limit_is_hard_where_the_kernel_holds_it(hierarchy: Hierarchy | None, hard: set[str]) -> None:
    found = enforcement(hierarchy)
    assert set(found) == {"memory_mb", "cpu_percent", "processes", "open_files", "disk_mb"}
    assert {name for name, how in found.items() if how == "hard"} == hard
    assert {found[name] for name in set(found) - hard} == {"soft"}


# -- mounts at the start


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """`allowed/{folder,file}`, and beside it `secret`."""
    (tmp_path / "allowed/folder").mkdir(parents=True)
    (tmp_path / "allowed/file").touch()
    (tmp_path / "secret").mkdir()
    return tmp_path


def checked(ground: Path, *names: str) -> list[str]:
    """What there is mounted in the end, relative to `ground`."""
    mounts = [Mount(source=str(ground / name), target="/x") for name in names]
    found = real_mounts(mounts, [ground / "allowed"], "namespaced")
    assert all(mount.target == "/x" for mount in found)
    return [str(Path(mount.source).relative_to(ground.resolve())) for mount in found]


def test_folders_and_files_below_the_operators_are_let_through(ground: Path) -> None:
    (ground / "allowed/inward").symlink_to("folder")
    names = ("allowed", "allowed/folder", "allowed/file", "allowed/inward")
    assert checked(ground, *names) == ["allowed", "allowed/folder", "allowed/file", "allowed/folder"]


@pytest.mark.parametrize("target", ["../secret", "../secret/../secret", "/etc", "..", "."])
def test_a_link_that_leads_out_is_refused(ground: Path, target: str) -> None:
    (ground / "allowed/link").symlink_to(target)
    if target == ".":  # leads to the folder itself
        checked(ground, "allowed/link")
        return
    with pytest.raises(InvalidRequest, match="allowed/link leads to a place outside ALLOWED_MOUNTS"):
        checked(ground, "allowed/folder", "allowed/link")


def test_a_link_on_the_way_that_leads_out_is_refused(ground: Path) -> None:
    (ground / "secret/below").mkdir()
    (ground / "allowed/link").symlink_to(ground / "secret")
    with pytest.raises(InvalidRequest, match="outside ALLOWED_MOUNTS"):
        checked(ground, "allowed/link/below")


@pytest.mark.parametrize("name", ["allowed/gone", "allowed/file/below", "allowed/circle"])
def test_a_mount_that_is_not_there_is_refused_by_its_name(ground: Path, name: str) -> None:
    (ground / "allowed/circle").symlink_to("circle")
    with pytest.raises(InvalidRequest, match=f"the mount {ground / name} is not there"):
        checked(ground, name)


def test_the_operators_folder_may_itself_be_a_link(ground: Path) -> None:
    os.symlink(ground / "allowed", ground / "known-as")
    real_mounts([Mount(source=str(ground / "known-as/folder"), target="/x")], [ground / "known-as"], "namespaced")


def test_where_everything_is_seen_where_it_is_a_link_is_seen_where_it_leads(ground: Path) -> None:
    (ground / "allowed/inward").symlink_to("folder")
    link, real = str(ground / "allowed/inward"), str((ground / "allowed/folder").resolve())
    mounts = [Mount(source=link, target=link, writable=True)]
    allowed = [ground / "allowed"]
    assert real_mounts(mounts, allowed, "confined") == (Mount(source=real, target=real, writable=True),)
    assert real_mounts(mounts, allowed, "namespaced") == (Mount(source=real, target=link, writable=True),)


@pytest.mark.parametrize(
    ("level", "words"), [("process", "only process now"), ("confined", "needs the level namespaced")]
)
def test_a_mount_that_the_level_cannot_show_any_more_is_refused_at_the_start(
    ground: Path, level: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        real_mounts([Mount(source=str(ground / "allowed"), target="/x")], [ground / "allowed"], level)
    assert real_mounts([], [], level) == ()


def test_each_mount_has_a_stage_of_its_kind_and_another_once_that_changes(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("x")
    mounts = [Mount(source=str(folder), target="/a"), Mount(source=str(file), target="/b")]
    stages = tmp_path / "stages"
    for _ in range(2):
        make_stages(stages, mounts)
    assert [Path(stage_of(stages, mount)).is_dir() for mount in mounts] == [True, False]
    folder.rmdir()
    folder.write_text("y")
    make_stages(stages, mounts)
    assert Path(stage_of(stages, mounts[0])).is_file()
