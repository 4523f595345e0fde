"""What deploy requests mean: forty of them, right and wrong, and every wrong place at once."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.config import Config
from controlplane.core.restart import RestartMode, RestartPolicy
from controlplane.deploy import wanted
from controlplane.deploy.plan import MAX_COMMAND_BYTES, fold_name, notes_on, plan, plan_patch
from controlplane.deploy.wanted import MAX_SOURCE_BYTES
from controlplane.errors import InvalidRequest, SourceRejected
from controlplane.model import Command, Limits, Origin, SourceType, Spec
from controlplane.wire.convert import structure
from controlplane.wire.deploy import DeployIn, PatchIn

CONFIG = Config(max_memory_mb=512, max_cpu_percent=50, max_processes=100, max_call_timeout_s=120.0)
SOURCE = base64.b64encode(b"print('moo')\n").decode()


def config_deploy(**members: Any) -> dict[str, Any]:
    return {
        "name": "cow",
        "source_type": "mcp_config",
        "mcp_config": {"command": "npx", "args": ["-y", "moo"]},
    } | members


def direct_deploy(**members: Any) -> dict[str, Any]:
    return {"name": "cow", "source_type": "direct", "language": "python", "source_data": SOURCE} | members


def git_deploy(**members: Any) -> dict[str, Any]:
    return {"name": "cow", "source_type": "git", "source_url": "https://example.com/cow.git"} | members


def zip_deploy(**members: Any) -> dict[str, Any]:
    return {"name": "cow", "source_type": "zip", "source_data": SOURCE} | members


def planned(body: dict[str, Any], config: Config = CONFIG, *, uploaded: bool = False) -> Spec:
    return plan(structure(body, DeployIn), config, uploaded=uploaded)[1]


def refused(body: dict[str, Any], config: Config = CONFIG, *, uploaded: bool = False) -> InvalidRequest:
    """The refusal, whichever of the two layers says it: a client cannot tell."""
    with pytest.raises(InvalidRequest) as caught:
        planned(body, config, uploaded=uploaded)
    return caught.value


def pointers(error: InvalidRequest | SourceRejected) -> set[str]:
    return {wrong.pointer for wrong in error.errors}


# -- right ones


def test_a_command_as_every_mcp_client_writes_it() -> None:
    body = config_deploy(
        mcp_config={"command": "npx", "args": ["-y", "moo"], "env": {"A": "1", "B": "2"}, "cwd": "sub"},
        environment_vars={"B": "wins", "C": "3"},
        labels={"Team/a.b-c_d": "x" * 256},
    )

    name, spec = plan(structure(body, DeployIn), CONFIG)

    assert name == "cow"
    assert spec.source_type is SourceType.MCP_CONFIG
    assert spec.command == Command(command="npx", args=("-y", "moo"), cwd="sub")
    assert spec.env == {"A": "1", "B": "wins", "C": "3"}
    assert (spec.entry_point, spec.source, spec.language, spec.revision) == (None, None, "node", 1)


def test_one_file_of_source() -> None:
    spec = planned(direct_deploy(entry_point="moo.py"))

    assert spec.source_type is SourceType.DIRECT
    assert (spec.command, spec.entry_point, spec.source, spec.language) == (None, "moo.py", b"print('moo')\n", "python")


def test_what_is_not_asked_for_is_the_operators_ceiling_or_the_default() -> None:
    spec = planned(config_deploy())

    assert spec.limits == Limits(memory_mb=512, cpu_percent=50, processes=100, call_timeout_s=60.0)
    assert spec.restart == RestartPolicy()
    assert (spec.isolation, spec.sessions, spec.network) == ("auto", "shared", {"mode": "open", "hosts": []})
    assert planned(config_deploy(), Config(max_call_timeout_s=5.0)).limits.call_timeout_s == 5.0


def test_what_is_asked_for_within_the_ceiling_is_given() -> None:
    spec = planned(
        config_deploy(
            limits={"memory_mb": 512, "cpu_percent": 1, "call_timeout_s": 120.0, "open_files": 64},
            restart={"mode": "always", "burst": 3, "window_s": 10, "max_delay_s": 5},
            network={"mode": "allow", "hosts": ["example.com:443"]},
            isolation="process",
            sessions="per-session",
        )
    )

    assert (spec.limits.memory_mb, spec.limits.cpu_percent, spec.limits.call_timeout_s) == (512, 1, 120.0)
    assert spec.restart == RestartPolicy(mode=RestartMode.ALWAYS, burst=3, window_s=10.0, max_delay_s=5.0)
    assert spec.network == {"mode": "allow", "hosts": ["example.com:443"]}


@pytest.mark.parametrize(
    ("body", "language"),
    [
        (config_deploy(), "node"),
        (config_deploy(mcp_config={"command": "/usr/bin/python3.12"}), "python"),
        (config_deploy(mcp_config={"command": "uvx"}), "python"),
        (config_deploy(mcp_config={"command": "/opt/cow"}), "binary"),
        (config_deploy(mcp_config={"command": "./server.mjs"}), "node"),
        (config_deploy(language="Rust"), "rust"),
        (config_deploy(language="javascript"), "node"),
        (config_deploy(language="NodeJS"), "node"),
        (direct_deploy(language="JavaScript"), "node"),
        ({**direct_deploy(entry_point="a.cjs"), "language": None}, "node"),
        ({**direct_deploy(entry_point="a.pyw"), "language": None}, "python"),
    ],
)
def test_the_language_is_as_named_or_as_the_source_tells(body: dict[str, Any], language: str) -> None:
    assert planned(body).language == language


@pytest.mark.parametrize(
    ("body", "entry_point"),
    [
        (direct_deploy(), "server.py"),
        (direct_deploy(language="node"), "server.js"),
        (direct_deploy(entry_point="_a-b.c.py"), "_a-b.c.py"),
    ],
)
def test_the_file_has_the_name_that_was_given_or_the_usual_one(body: dict[str, Any], entry_point: str) -> None:
    assert planned(body).entry_point == entry_point


@pytest.mark.parametrize(
    ("source", "language"),
    [
        (b"#!/usr/bin/env python3\nprint()\n", "python"),
        (b"#!/usr/bin/python3.12 -u\n", "python"),
        (b"#! /usr/bin/env -S A=1 node --no-warnings\n", "node"),
        (b"# a server\n# /// script\n# dependencies = []\n# ///\n", "python"),
        (b"# /// script\r\n# dependencies = []\r\n# ///\r\n", "python"),
    ],
)
def test_a_file_without_a_telling_name_is_known_by_its_beginning(source: bytes, language: str) -> None:
    spec = planned({**direct_deploy(source_data=base64.b64encode(source).decode()), "language": None})

    assert spec.language == language


@pytest.mark.parametrize(
    "source", [b"#!\n", b"#!/usr/bin/env\n", b"#!/usr/bin/env -S\n", b"#!/bin/sh\n", b"import os\n", b"\xff\xfe#!node"]
)
def test_a_file_that_says_nothing_of_its_language_needs_it_named(source: bytes) -> None:
    body = {**direct_deploy(source_data=base64.b64encode(source).decode()), "language": None}

    assert pointers(refused(body)) == {"/language"}


def test_one_file_may_name_what_it_needs() -> None:
    spec = planned(direct_deploy(dependencies=["mcp>=1,<2", "httpx[http2]"], build_command="python -c pass"))

    assert spec.dependencies == ("mcp>=1,<2", "httpx[http2]")
    assert spec.build_command == "python -c pass"


def test_a_repository_is_kept_as_its_address_its_ref_and_its_folder() -> None:
    spec = planned(git_deploy(source_ref="v1.2", source_subdir="servers/cow/", entry_point="src/cow.py", language="py"))

    assert spec.source_type is SourceType.GIT
    assert spec.origin == Origin(url="https://example.com/cow.git", ref="v1.2", subdir="servers/cow")
    assert (spec.command, spec.source, spec.language, spec.entry_point) == (None, None, "python", "src/cow.py")
    assert planned(git_deploy(source_url="https://example.com/cow.git#main")).origin == Origin(
        url="https://example.com/cow.git", ref="main"
    )


def test_what_only_the_source_can_tell_is_left_to_the_build() -> None:
    spec = planned(git_deploy())

    assert (spec.language, spec.entry_point, spec.dependencies, spec.resolved) == ("", None, (), None)


def test_an_archive_comes_by_its_address_in_base64_or_as_a_file() -> None:
    by_address = {"name": "cow", "source_type": "tar", "source_url": "https://example.com/cow.tar.gz"}

    assert planned(by_address).origin == Origin(url="https://example.com/cow.tar.gz")
    assert planned(zip_deploy(source_subdir="./a")).origin == Origin(subdir="a")
    assert planned({"name": "cow", "source_type": "tar"}, uploaded=True).origin == Origin()


@pytest.mark.parametrize("kind", ["mcp_config", "git", "direct"])
def test_a_file_beside_the_request_is_an_archive(kind: str) -> None:
    bodies = {"mcp_config": config_deploy(), "git": git_deploy(), "direct": direct_deploy()}

    assert pointers(refused(bodies[kind], uploaded=True)) == {"/source_type"}


@pytest.mark.parametrize(
    "name",
    [
        "--index-url=https://evil.example", "-e", "-rfoo.txt", "--", "mcp @ https://evil.example/x.whl",
        "git+ssh://evil/x", "git+https://evil.example/x", "file:../x", "link:x", "mcp; sys_platform=='linux'", "a;b",
        "@scope/../..", "..", "../x", "a/../b", "x@..", "/etc/passwd", "./x", "~/x", "a\\b", "a\nb", "a\rb", "a\x1b", "a\x7f",
        " a", "a ", "\ta", "a\u0085b",
    ],
)  # fmt: skip
@pytest.mark.parametrize("body", [direct_deploy(), git_deploy(), zip_deploy()], ids=["direct", "git", "zip"])
def test_what_is_never_a_package_is_refused_by_its_place(body: dict[str, Any], name: str) -> None:
    assert pointers(refused({**body, "dependencies": ["fine", name]})) == {"/dependencies/1"}


@pytest.mark.parametrize(
    "name",
    ["mcp", "mcp[cli]==1.2.3", "@modelcontextprotocol/sdk@^1.2", "a>=1, <2", "a@1.x || 2", "npm:zod@3", "jsr:@std/x",
     "github.com/mark3labs/mcp-go@v0.9.0", "rmcp@0.2", "vendor/package:^1.0"],
)  # fmt: skip
def test_a_package_of_any_registry_is_left_to_its_language(name: str) -> None:
    assert planned(git_deploy(dependencies=[name])).dependencies == (name,)


def test_too_many_packages_are_refused() -> None:
    assert pointers(refused(git_deploy(dependencies=["a"] * 5000))) == {"/dependencies"}


def test_what_a_language_itself_refuses_of_one_file_is_refused_at_once() -> None:
    assert pointers(refused(direct_deploy(dependencies=["not a package!"]))) == {"/dependencies"}


@pytest.mark.parametrize("url", ["http://example.com/x", "file:///etc", "ext::sh -c id", "-oProxyCommand=id", "/srv/x"])
@pytest.mark.parametrize("body", [git_deploy(), {"name": "cow", "source_type": "tar"}], ids=["git", "tar"])
def test_an_address_that_is_not_allowed_is_a_rejected_source(body: dict[str, Any], url: str) -> None:
    with pytest.raises(SourceRejected) as caught:
        planned({**body, "source_url": url, "mounts": [{"source": "/", "target": "/"}]})

    assert pointers(caught.value) == {"/source_url", "/mounts/0", "/mounts/0/source"}


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.localhost", "127.0.0.1", "127.1.2.3", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]",
     "[fe80::1]", "[fd00::1]", "0.0.0.0", "100.100.100.200"],
)  # fmt: skip
@pytest.mark.parametrize("body", [git_deploy(), {"name": "cow", "source_type": "tar"}], ids=["git", "tar"])
def test_a_host_that_is_plainly_not_public_is_refused_before_anything_is_fetched(
    body: dict[str, Any], host: str
) -> None:
    with pytest.raises(SourceRejected) as caught:
        planned({**body, "source_url": f"https://{host}/cow"})

    assert pointers(caught.value) == {"/source_url"}
    assert "SOURCE_ALLOW_PRIVATE" in (caught.value.hint or "")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8443", "10.0.0.1", "[fd00::1]"])
def test_an_operator_may_allow_private_hosts(host: str) -> None:
    config = Config(source_allow_private=True)

    origin = planned(git_deploy(source_url=f"https://{host}/cow"), config).origin

    assert origin == Origin(url=f"https://{host}/cow")
    with pytest.raises(SourceRejected):
        planned(git_deploy(source_url="https://169.254.169.254/latest"), config)


def test_a_ref_that_git_does_not_take_is_the_requests_fault() -> None:
    assert pointers(refused(git_deploy(source_ref="--upload-pack=touch"))) == {"/source_ref"}
    with pytest.raises(SourceRejected):
        planned(git_deploy(source_url="https://example.com/cow#--upload-pack=touch"))


def test_base64_may_be_broken_into_lines() -> None:
    assert planned(direct_deploy(source_data=SOURCE[:6] + "\r\n " + SOURCE[6:] + "\n")).source == b"print('moo')\n"


@given(st.binary(min_size=1, max_size=40), st.integers(1, 9), st.data())
def test_base64_is_the_same_in_pieces(content: bytes, size: int, data: st.DataObject) -> None:
    text = base64.b64encode(content).decode()
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from([" ", "\n", "\r\n"])) + text[at:]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wanted, "PIECE_CHARS", size)
        assert wanted.decoded(text) == content


@pytest.mark.parametrize("text", ["QQ==QQ==", "QUI=QUJD", "QUJDQ", "QUJD=", "=", "QU!D", "QUJDQQ==\nQUJD"])
@pytest.mark.parametrize("size", [1, 4, 8, 100])
def test_what_is_no_base64_is_none_in_pieces(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "PIECE_CHARS", size)

    with pytest.raises(ValueError, match="is not base64"):
        wanted.decoded(text)


def test_the_longest_command_and_source_that_are_allowed_are_allowed() -> None:
    env = {"A": "x" * 32_000, "B": "x" * 32_000, "C": "x" * 32_000}
    room = MAX_COMMAND_BYTES - len("npx ") - sum(len(k) + len(v) + 2 for k, v in env.items())
    planned(config_deploy(mcp_config={"command": "npx", "args": ["y" * (room - 1)]}, environment_vars=env))
    planned(direct_deploy(source_data=base64.b64encode(b"#" * MAX_SOURCE_BYTES).decode()))

    assert pointers(
        refused(config_deploy(mcp_config={"command": "npx", "args": ["y" * room]}, environment_vars=env))
    ) == {""}


# -- wrong ones

WRONG: list[tuple[str, dict[str, Any], set[str]]] = [
    ("no command", {"name": "cow", "source_type": "mcp_config"}, {"/mcp_config"}),
    ("no source", {"name": "cow", "source_type": "direct", "language": "python"}, {"/source_data"}),
    ("an empty command", config_deploy(mcp_config={"command": ""}), {"/mcp_config/command"}),
    ("a source with a command", config_deploy(source_data=SOURCE, entry_point="a.py"), {"/source_data", "/entry_point"}),
    ("a command with a source", direct_deploy(mcp_config={"command": "npx"}), {"/mcp_config"}),
    ("a url with a source", direct_deploy(source_url="https://x/y", source_ref="main", source_subdir="a"), {"/source_url", "/source_ref", "/source_subdir"}),
    ("dependencies with a command", config_deploy(dependencies=["x"], build_command="make"), {"/dependencies", "/build_command"}),
    ("a repository without an address", {"name": "cow", "source_type": "git"}, {"/source_url"}),
    ("an archive without a source", {"name": "cow", "source_type": "zip"}, {"/source_data"}),
    ("an archive that comes twice", zip_deploy(source_url="https://x/y.zip"), {"/source_url"}),
    ("a repository with a command and data", git_deploy(mcp_config={"command": "x"}, source_data=SOURCE), {"/mcp_config", "/source_data"}),
    ("an archive with a ref", zip_deploy(source_ref="main"), {"/source_ref"}),
    ("a folder above", git_deploy(source_subdir="a/../../b"), {"/source_subdir"}),
    ("an absolute folder", git_deploy(source_subdir="/etc"), {"/source_subdir"}),
    ("a folder that is an option", git_deploy(source_subdir="--upload-pack=x"), {"/source_subdir"}),
    ("a folder of another system", git_deploy(source_subdir="a\\b"), {"/source_subdir"}),
    ("a folder with a line break", git_deploy(source_subdir="a\nb"), {"/source_subdir"}),
    ("an entry point above a repository", git_deploy(entry_point="../b.py"), {"/entry_point"}),
    ("an entry point that is an option of a repository", git_deploy(entry_point="-c"), {"/entry_point"}),
    ("a language not run here, of a repository", git_deploy(language="cobol"), {"/language"}),
    ("a build that is an option", git_deploy(build_command=" --version"), {"/build_command"}),
    ("a build of nothing", git_deploy(build_command="  "), {"/build_command"}),
    ("a build with an escape", git_deploy(build_command="make\x1b[2J"), {"/build_command"}),
    ("a source that is no base64", direct_deploy(source_data="not base64!"), {"/source_data"}),
    ("a source in the url alphabet", direct_deploy(source_data="__--"), {"/source_data"}),
    ("a source cut short", direct_deploy(source_data=SOURCE[:-1]), {"/source_data"}),
    ("an empty source", direct_deploy(source_data=" \n"), {"/source_data"}),
    ("a source too large", direct_deploy(source_data=base64.b64encode(b"#" * (MAX_SOURCE_BYTES + 1)).decode()), {"/source_data"}),
    ("no language to go by", {**direct_deploy(entry_point="server"), "language": None}, {"/language"}),
    ("a language not run here", direct_deploy(language="cobol"), {"/language"}),
    ("a language that is no word", config_deploy(language="py\nthon"), {"/language"}),
    ("an entry point in a folder", direct_deploy(entry_point="a/b.py"), {"/entry_point"}),
    ("an entry point above", direct_deploy(entry_point="../b.py"), {"/entry_point"}),
    ("a hidden entry point", direct_deploy(entry_point=".b.py"), {"/entry_point"}),
    ("an entry point that is an option", direct_deploy(entry_point="-c.py"), {"/entry_point"}),
    ("an entry point with a line break", direct_deploy(entry_point="a.py\n"), {"/entry_point"}),
    ("a name like a UUID", config_deploy(name="12345678-1234-1234-1234-123456789abc"), {"/name"}),
    ("a name like a UUID in capitals and dots", config_deploy(name="12345678.1234.1234.1234.123456789ABC"), {"/name"}),
    ("variables of Corral's own", config_deploy(mcp_config={"command": "x", "env": {"CORRAL_OWNER": "me"}}, environment_vars={"CORRAL_JOB": "1"}), {"/mcp_config/env/CORRAL_OWNER", "/environment_vars/CORRAL_JOB"}),
    ("variables with odd names", config_deploy(environment_vars={"A=B": "1", "1A": "1", "a/b~c": "1", "": "1"}), {"/environment_vars/A=B", "/environment_vars/1A", "/environment_vars/a~1b~0c", "/environment_vars/"}),
    ("a working folder above", config_deploy(mcp_config={"command": "x", "cwd": "/srv/../etc"}), {"/mcp_config/cwd"}),
    ("isolation that is not here", config_deploy(isolation="namespaced"), {"/isolation"}),
    ("a mount where nothing is hidden", config_deploy(mounts=[{"source": "/etc", "target": "/x"}]), {"/mounts/0", "/mounts/0/source"}),
    ("a mount that is no absolute path", config_deploy(mounts=[{"source": "/srv", "target": "x"}]), {"/mounts/0/target"}),
    ("hosts that cannot be meant", config_deploy(network={"mode": "allow", "hosts": ["https://example.com", "example.com", "*", "a b", "a:x", "*.example.com:443"]}), {"/network/hosts/0", "/network/hosts/2", "/network/hosts/3", "/network/hosts/4"}),
    ("hosts without their mode", config_deploy(network={"mode": "none", "hosts": ["x"]}), {"/network/hosts"}),
    ("limits above the ceiling", config_deploy(limits={"memory_mb": 513, "cpu_percent": 51, "call_timeout_s": 120.5, "disk_mb": 1}), {"/limits/memory_mb", "/limits/cpu_percent", "/limits/call_timeout_s"}),
    ("a command too long", config_deploy(mcp_config={"command": "x", "args": ["y" * 32_000] * 4}), {""}),
    ("NUL in a command", config_deploy(mcp_config={"command": "a\0", "args": ["ok", "b\0"], "env": {"A": "c\0"}, "cwd": "d\0"}), {"/mcp_config/command", "/mcp_config/args/1", "/mcp_config/env/A", "/mcp_config/cwd"}),
    ("NUL elsewhere", config_deploy(environment_vars={"A": "\0"}, labels={"team": "a\0"}, network={"mode": "allow", "hosts": ["a\0"]}), {"/environment_vars/A", "/labels/team", "/network/hosts/0"}),
    ("half a surrogate pair", config_deploy(mcp_config={"command": "x", "args": ["\ud800"]}, environment_vars={"A": "\udfff"}), {"/mcp_config/args/0", "/environment_vars/A"}),
    ("a label's key that is none", config_deploy(labels={"-a": "1", "a/b c": "1"}), {"/labels/-a", "/labels/a~1b c"}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_deploy_is_refused_where_it_is_wrong(body: dict[str, Any], expected: set[str]) -> None:
    error = refused(body)

    assert pointers(error) == expected
    assert all(wrong.message for wrong in error.errors)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    error = refused(
        direct_deploy(
            name="12345678-1234-1234-1234-123456789abc",
            language="cobol",
            entry_point="../x",
            source_data="!",
            environment_vars={"CORRAL_X": "1"},
            isolation="confined",
            mounts=[{"source": "/", "target": "/"}],
            limits={"memory_mb": 4096},
        )
    )

    assert pointers(error) == {
        "/name",
        "/language",
        "/entry_point",
        "/source_data",
        "/environment_vars/CORRAL_X",
        "/isolation",
        "/mounts/0",
        "/mounts/0/source",
        "/limits/memory_mb",
    }
    assert error.detail.count(";") == 2, "the detail names the first three"
    assert error.hint


def test_an_operator_who_demands_more_than_the_host_gives_gets_no_deploys() -> None:
    assert pointers(refused(config_deploy(isolation="process"), Config(min_isolation="confined"))) == {"/isolation"}


# -- names


@pytest.mark.parametrize(
    ("name", "folded"),
    [("cow", "cow"), ("Cow", "cow"), ("my_cow.v2", "my-cow-v2"), ("A__b..C", "a--b--c"), ("x" * 63, "x" * 63)],
)
def test_names_are_folded(name: str, folded: str) -> None:
    assert fold_name(name) == folded
    assert plan(structure(config_deploy(name=name), DeployIn), CONFIG)[0] == folded


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True))
def test_a_folded_name_is_folded_for_good(name: str) -> None:
    folded = fold_name(name)

    assert fold_name(folded) == folded
    assert set(folded) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(folded) == len(name)


# -- notes


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (config_deploy(network={"mode": "none"}), "network: not in force"),
        (
            config_deploy(mcp_config={"command": "x", "args": ["postgres://ada:secret@db/x"]}),
            "mcp_config.args holds a password",
        ),
        (
            config_deploy(mcp_config={"command": "x", "args": ["--url=redis://:secret@cache:6379/0"]}),
            "mcp_config.args holds a password",
        ),
    ],
)
def test_the_owner_is_told_what_is_unwise_or_not_in_force(body: dict[str, Any], note: str) -> None:
    (told,) = notes_on(planned(body), "process")

    assert told.startswith(note)
    assert "secret" not in told


@pytest.mark.parametrize(
    "args", [["https://example.com:8080/a@b"], ["postgres://ada@db/x"], ["user:pass@host"], ["https://x/?a=:b@c"], []]
)
def test_what_is_no_password_gets_no_note(args: list[str]) -> None:
    spec = planned(config_deploy(mcp_config={"command": "x", "args": args}))
    assert notes_on(spec, "process") == ()
    assert notes_on(planned(direct_deploy()), "process") == ()


# -- patches

SPEC = Spec(
    source_type=SourceType.MCP_CONFIG,
    language="node",
    command=Command(command="npx"),
    limits=Limits(memory_mb=100, cpu_percent=20),
    restart=RestartPolicy(burst=9),
)


def patched(body: dict[str, Any], spec: Spec = SPEC) -> tuple[Spec, tuple[str, ...]]:
    return plan_patch(structure(body, PatchIn), spec, CONFIG)


def test_a_patch_changes_what_it_names_and_nothing_else() -> None:
    spec, notes = patched({"limits": {"memory_mb": 200}})

    assert spec.limits == Limits(memory_mb=200, cpu_percent=20)
    assert spec.restart == SPEC.restart
    assert [note.partition(":")[0] for note in notes] == ["limits"]


def test_an_empty_patch_changes_nothing() -> None:
    assert patched({}) == (SPEC, ())
    assert patched({"labels": {"a": "b"}}) == (SPEC, ())


def test_a_patch_says_what_takes_effect_later_or_not_at_all() -> None:
    spec, notes = patched({"restart": {"mode": "never"}, "network": {"mode": "allow", "hosts": ["x"]}})

    assert spec.restart.mode is RestartMode.NEVER
    assert spec.network == {"mode": "allow", "hosts": ["x"]}
    assert [note.partition(":")[0] for note in notes] == ["restart", "network"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"limits": {"memory_mb": 513, "processes": 101}}, {"/limits/memory_mb", "/limits/processes"}),
        ({"labels": {"team": "a\0"}}, {"/labels/team"}),
        (
            {"network": {"mode": "open", "hosts": ["x"]}, "limits": {"memory_mb": 513}},
            {"/network/hosts", "/limits/memory_mb"},
        ),
        ({"network": {"mode": "allow", "hosts": ["a\0"]}}, {"/network/hosts/0"}),
    ],
)
def test_a_wrong_patch_is_refused_where_it_is_wrong(body: dict[str, Any], expected: set[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        patched(body)

    assert pointers(caught.value) == expected


def test_a_limit_that_the_operator_has_lowered_since_stays_until_it_is_changed() -> None:
    generous = Spec(source_type=SourceType.DIRECT, language="python", limits=Limits(memory_mb=1024, cpu_percent=20))

    spec, _ = patched({"limits": {"cpu_percent": 30}}, generous)

    assert (spec.limits.memory_mb, spec.limits.cpu_percent) == (1024, 30)
