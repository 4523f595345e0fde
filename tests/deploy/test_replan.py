"""What a redeploy makes of the Spec before it: what it names is new, all else stays."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from controlplane.config import Config
from controlplane.core.restart import RestartMode, RestartPolicy
from controlplane.deploy.isolation import HostLevels
from controlplane.deploy.plan import replan
from controlplane.errors import InvalidRequest
from controlplane.model import Command, Limits, Mount, Origin, Resolved, SourceType, Spec
from controlplane.wire.convert import structure
from controlplane.wire.deploy import RedeployIn

CONFIG = Config(max_memory_mb=512, max_cpu_percent=50)
FOUND = Resolved(language="python", entry_point="main.py", facts={"commit": "c0ffee"})
COMMON: dict[str, Any] = {
    "revision": 4,
    "cause": "patch",
    "resolved": FOUND,
    "env": {"TOKEN": "secret", "MODE": "fast"},
    "limits": Limits(memory_mb=128, cpu_percent=20),
    "restart": RestartPolicy(burst=9),
    "network": {"mode": "open", "hosts": []},
    "sessions": "per-session",
}
COMMAND = Spec(
    source_type=SourceType.MCP_CONFIG, language="node", command=Command(command="npx", args=("-y", "moo")), **COMMON
)
REPOSITORY = Spec(
    source_type=SourceType.GIT,
    language="python",
    origin=Origin(url="https://example.com/cow.git", ref="main", subdir="servers/cow"),
    entry_point="main.py",
    dependencies=("mcp",),
    build_command="make",
    **COMMON,
)
UPLOAD = Spec(source_type=SourceType.TAR, language="", origin=Origin(sha256="ab" * 32, size_bytes=7), **COMMON)
FILE = Spec(
    source_type=SourceType.DIRECT, language="python", entry_point="server.py", source=b"print('moo')\n", **COMMON
)
ALL = [COMMAND, REPOSITORY, UPLOAD, FILE]
IDS = ["command", "repository", "upload", "file"]


def again(before: Spec, *, uploaded: bool = False, **members: Any) -> Spec:
    return replan(structure(members, RedeployIn), before, CONFIG, uploaded=uploaded)


def refused(before: Spec, *, uploaded: bool = False, **members: Any) -> set[str]:
    with pytest.raises(InvalidRequest) as caught:
        again(before, uploaded=uploaded, **members)
    return {wrong.pointer for wrong in caught.value.errors}


def about(spec: Spec) -> tuple[Any, ...]:
    return spec.language, spec.entry_point, spec.dependencies, spec.build_command


@pytest.mark.parametrize("before", ALL, ids=IDS)
def test_nothing_named_is_the_same_source_anew(before: Spec) -> None:
    spec = again(before)

    assert (spec.command, spec.source, spec.origin) == (before.command, before.source, before.origin)
    assert about(spec) == about(before)
    assert (spec.env, spec.limits, spec.restart) == (before.env, before.limits, before.restart)
    assert (spec.network, spec.sessions, spec.isolation) == (before.network, before.sessions, before.isolation)
    assert (spec.cause, spec.resolved) == ("redeploy", None), "what was found is looked for anew"


@pytest.mark.parametrize("before", ALL, ids=IDS)
def test_settings_change_by_themselves(before: Spec) -> None:
    spec = again(
        before,
        limits={"memory_mb": 256},
        restart={"mode": "always"},
        network={"mode": "allow", "hosts": ["x"]},
        sessions="shared",
    )

    assert spec.limits == Limits(memory_mb=256, cpu_percent=20)
    assert spec.restart == RestartPolicy(mode=RestartMode.ALWAYS)
    assert (spec.network, spec.sessions) == ({"mode": "allow", "hosts": ["x"]}, "shared")
    assert about(spec) == about(before)


def test_variables_that_are_given_replace_all_of_them() -> None:
    assert again(FILE, environment_vars={"MODE": "slow"}).env == {"MODE": "slow"}
    assert again(FILE, environment_vars={}).env == {}


def test_a_new_commands_variables_come_on_top_of_those_that_nobody_can_read_back() -> None:
    config = {"command": "uvx", "args": ["moo"], "env": {"MODE": "slow"}}

    assert again(COMMAND, mcp_config=config).env == {"TOKEN": "secret", "MODE": "slow"}
    assert again(COMMAND, mcp_config=config, environment_vars={"A": "1"}).env == {"MODE": "slow", "A": "1"}


def test_a_new_command_has_its_own_language_unless_one_was_named() -> None:
    named = again(COMMAND, language="rust")

    assert named.language == "rust"
    assert again(COMMAND, mcp_config={"command": "uvx"}).language == "python"
    assert again(named, mcp_config={"command": "uvx"}).language == "rust"
    assert again(COMMAND, mcp_config={"command": "uvx"}).command == Command(command="uvx")


def test_a_repository_may_change_its_ref_or_folder_alone() -> None:
    assert again(REPOSITORY, source_ref="v2").origin == Origin(
        url="https://example.com/cow.git", ref="v2", subdir="servers/cow"
    )
    assert again(REPOSITORY, source_subdir="servers/goat").origin == Origin(
        url="https://example.com/cow.git", ref="main", subdir="servers/goat"
    )


def test_another_address_is_another_source_as_a_whole() -> None:
    spec = again(REPOSITORY, source_url="https://example.com/goat.git")

    assert spec.origin == Origin(url="https://example.com/goat.git")
    assert about(spec) == about(REPOSITORY)


def test_a_type_that_is_named_replaces_the_source_wholly() -> None:
    assert refused(REPOSITORY, source_type="git", source_ref="v2") == {"/source_url"}
    assert refused(COMMAND, source_type="mcp_config") == {"/mcp_config"}
    assert refused(FILE, source_type="direct") == {"/source_data"}


def test_what_was_said_of_a_source_goes_with_its_type() -> None:
    spec = again(REPOSITORY, source_type="tar", uploaded=True)

    assert spec.origin == Origin()
    assert about(spec) == ("", None, (), None)
    moved = again(REPOSITORY, source_type="mcp_config", mcp_config={"command": "npx", "args": ["-y", "moo"]})
    assert (moved.command, moved.origin) == (Command(command="npx", args=("-y", "moo")), None)
    assert about(moved) == ("node", None, (), None)


def test_what_is_said_of_the_source_changes_field_by_field() -> None:
    spec = again(REPOSITORY, dependencies=[], entry_point="other.py")

    assert about(spec) == ("python", "other.py", (), "make")


def test_a_new_archive_takes_the_place_of_the_old_one() -> None:
    assert again(UPLOAD, uploaded=True).origin == Origin()
    assert again(UPLOAD, source_data="QUJD").origin == Origin()
    assert again(UPLOAD, source_type="zip", source_url="https://example.com/a.zip").origin == Origin(
        url="https://example.com/a.zip"
    )


def test_a_file_takes_the_place_of_the_old_one_under_the_same_name() -> None:
    data = base64.b64encode(b"print('baa')\n").decode()
    spec = again(FILE, source_data=data)

    assert (spec.source, spec.entry_point, spec.language) == (b"print('baa')\n", "server.py", "python")
    renamed = again(FILE, source_data=data, entry_point="server.mjs")
    assert (renamed.entry_point, renamed.language) == ("server.mjs", "node")


@pytest.mark.parametrize(
    ("before", "members", "uploaded", "expected"),
    [
        (COMMAND, {"source_url": "https://x/y.git"}, False, {"/source_url", "/mcp_config"}),
        (COMMAND, {"dependencies": ["x"]}, False, {"/dependencies"}),
        (COMMAND, {}, True, {"/source_type", "/mcp_config"}),
        (FILE, {"mcp_config": {"command": "x"}}, False, {"/mcp_config", "/source_data"}),
        (FILE, {"source_data": "!"}, False, {"/source_data"}),
        (UPLOAD, {"source_ref": "v2"}, False, {"/source_ref"}),
        (REPOSITORY, {"source_subdir": "../x"}, False, {"/source_subdir"}),
        (REPOSITORY, {"language": "cobol", "isolation": "namespaced"}, False, {"/language", "/isolation"}),
        (REPOSITORY, {"limits": {"memory_mb": 4096}}, False, {"/limits/memory_mb"}),
        (REPOSITORY, {"environment_vars": {"CORRAL_X": "1"}}, False, {"/environment_vars/CORRAL_X"}),
    ],
)
def test_a_wrong_redeploy_is_refused_where_it_is_wrong(
    before: Spec, members: dict[str, Any], uploaded: bool, expected: set[str]
) -> None:
    assert refused(before, uploaded=uploaded, **members) == expected


DATA = Mount(source="/srv/data", target="/data", writable=True)


@pytest.mark.parametrize(
    ("members", "allowed", "pointers"),
    [
        ({}, "/srv", set()),
        ({"mounts": []}, "/srv", set()),
        ({"isolation": "confined"}, "/srv", {"/mounts/0/target"}),
        ({"isolation": "process"}, "/srv", {"/mounts/0"}),
        ({"isolation": "process", "mounts": []}, "/srv", set()),
        ({}, "/opt", {"/mounts/0/source"}),
    ],
)
def test_mounts_that_stay_are_judged_by_the_level_and_the_settings_of_now(
    members: dict[str, Any], allowed: str, pointers: set[str]
) -> None:
    config, host = evolve(CONFIG, allowed_mounts=(Path(allowed),)), HostLevels(why={})
    before, body = evolve(COMMAND, mounts=(DATA,)), structure(members, RedeployIn)
    if not pointers:
        assert replan(body, before, config, host=host).mounts == (() if "mounts" in members else (DATA,))
        return
    with pytest.raises(InvalidRequest) as caught:
        replan(body, before, config, host=host)
    assert {wrong.pointer for wrong in caught.value.errors} == pointers
