"""Which commands stand for a package of a registry, and which run as they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.commands import PackageCommand, env_changes_install, package_of


def parsed(line: str) -> PackageCommand | None:
    command, *args = line.split()
    return package_of(command, tuple(args))


def npm(*requirements: str, package: str | None = None, program: str | None = None, args: str = "") -> PackageCommand:
    name = package or requirements[0]
    return PackageCommand(
        ecosystem="npm", package=name, requirements=requirements, program=program, args=tuple(args.split())
    )


def pypi(*requirements: str, program: str, package: str | None = None, args: str = "", python: str | None = None):
    return PackageCommand(
        ecosystem="pypi",
        package=package or requirements[0],
        requirements=requirements,
        program=program,
        args=tuple(args.split()),
        python=python,
    )


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("npx cow", npm("cow")),
        ("npx -y cow", npm("cow")),
        ("npx --yes -q cow a -y --port=1", npm("cow", args="a -y --port=1")),
        ("npx -y -- cow -- a", npm("cow", args="-- a")),
        ("npx -y cow@1.2.3", npm("cow@1.2.3", package="cow")),
        ("npx -y cow@latest", npm("cow@latest", package="cow")),
        ("npx -y cow@", None),
        ("npx -y @s/cow@^1 x", npm("@s/cow@^1", package="@s/cow", args="x")),
        ("npx -p cow moo x", npm("cow", program="moo", args="x")),
        ("npx -y --package=cow@1 --package @s/calf -- moo", npm("cow@1", "@s/calf", package="cow", program="moo")),
        ("npm exec -- cow --flag", npm("cow", args="--flag")),
        ("npm x -y cow a", npm("cow", args="a")),
        ("npm exec --yes --package=cow -- moo -x", npm("cow", program="moo", args="-x")),
        # npm would take the option for its own.
        ("npm exec cow --flag", None),
        ("npm exec -p cow -- moo", None),
        ("npm install cow", None),
        ("npm", None),
        ("npx", None),
        ("npx -y", None),
        ("npx -p cow", None),
        ("npx -p", None),
        ("npx -p -y moo", None),
        ("npx -c moo", None),
        ("npx --call=moo -p cow", None),
        ("npx --no cow", None),
        ("npx --registry=https://x cow", None),
        ("npx --registry https://x cow", None),
        ("npx -y github:u/cow", None),
        ("npx -y u/cow", None),
        ("npx -y https://x/cow.tgz", None),
        ("npx -y git+ssh://x/cow", None),
        ("npx -y cow.tgz", None),
        ("npx -y cow@file:../x", None),
        ("npx -y cow@npm:calf", None),
        ("npx -y cow@..", None),
        ("npx -y .", None),
        ("npx -y ../cow", None),
        ("npx -y /cow", None),
        ("npx -y ~/cow", None),
        ("npx -y @scope/../..", None),
        ("npx -y @../cow", None),
        ("npx -p cow@1 -p cow@2 moo", None),
        ("npx -p cow ../moo", None),
        ("npx -p cow -- -moo", None),
        ("/usr/bin/npx cow", None),
        ("./npx cow", None),
        ("bunx cow", None),
    ],
)
def test_npx_commands(line: str, command: PackageCommand | None) -> None:
    assert parsed(line) == command


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("uvx cow", pypi("cow", program="cow")),
        ("uvx cow a --from x", pypi("cow", program="cow", args="a --from x")),
        ("uvx cow@1.2", pypi("cow==1.2", package="cow", program="cow")),
        ("uvx cow@latest", pypi("cow", program="cow")),
        ("uvx cow[b,c]@1.2", pypi("cow[b,c]==1.2", package="cow", program="cow")),
        ("uvx cow>=1,<2", pypi("cow>=1,<2", package="cow", program="cow")),
        ("uvx --from cow[x]==1 moo a", pypi("cow[x]==1", package="cow", program="moo", args="a")),
        ("uvx --from=cow@2 moo", pypi("cow==2", package="cow", program="moo")),
        ("uvx --with a --with=b,c>=1,<2 -w d[e,f] cow", pypi("cow", "a", "b", "c>=1,<2", "d[e,f]", program="cow")),
        ("uvx --python 3.12 cow", pypi("cow", program="cow", python="3.12")),
        ("uvx -p 3 -- cow --x", pypi("cow", program="cow", python="3", args="--x")),
        ("uvx -q --isolated cow", pypi("cow", program="cow")),
        ("uv tool run --from cow moo", pypi("cow", program="moo")),
        ("pipx run cow a", pypi("cow", program="cow", args="a")),
        ("pipx run --spec cow==1 moo", pypi("cow==1", package="cow", program="moo")),
        ("pipx run --spec=cow --python 3.11 moo -x", pypi("cow", program="moo", python="3.11", args="-x")),
        ("pipx run cow@1", None),
        ("pipx run https://x/y.py", None),
        ("pipx run ./y.py", None),
        ("pipx run --path cow", None),
        ("pipx run --index-url https://x cow", None),
        ("pipx run --pip-args=-x cow", None),
        ("pipx install cow", None),
        ("uv run server.py", None),
        ("uv tool install cow", None),
        ("uvx", None),
        ("uvx --from cow", None),
        ("uvx --from", None),
        ("uvx --from git+https://x/y moo", None),
        ("uvx --from ./cow moo", None),
        ("uvx --from . moo", None),
        ("uvx git+https://x/y", None),
        ("uvx cow@https://x/y.whl", None),
        ("uvx cow@../y", None),
        ("uvx --with ./x cow", None),
        ("uvx --with-editable x cow", None),
        ("uvx --with-requirements x cow", None),
        ("uvx --index https://x cow", None),
        ("uvx --default-index=https://x cow", None),
        ("uvx --refresh cow", None),
        ("uvx --python /usr/bin/python3 cow", None),
        ("uvx --python pypy cow", None),
        ("uvx python", None),
        ("uvx python@3.12", None),
        ("uvx --from cow python3.12", None),
        ("uvx --from cow ../moo", None),
        ("uvx -- -cow", None),
        ("uvx cow;x", None),
    ],
)
def test_uvx_and_pipx_commands(line: str, command: PackageCommand | None) -> None:
    assert parsed(line) == command


def test_a_command_with_any_number_of_packages_runs_as_it_is_written() -> None:
    assert package_of("npx", (*(f"--package=p{i}" for i in range(50)), "--", "moo")) is not None
    assert package_of("npx", (*(f"--package=p{i}" for i in range(51)), "--", "moo")) is None
    assert package_of("uvx", (*(f"--with=p{i}" for i in range(50)), "moo")) is None


@given(
    st.sampled_from(["npx", "npm", "uvx", "uv", "pipx"]),
    st.lists(
        st.one_of(st.text(max_size=12), st.sampled_from(["exec", "tool", "run", "-p", "--", "--from", "-y", "a@b"]))
    ),
)
def test_any_command_has_an_answer_that_names_nothing_but_a_registrys(command: str, args: list[str]) -> None:
    found = package_of(command, tuple(args))

    if found is not None:
        for word in (found.package, *found.requirements, found.program or "x"):
            assert word
            assert not word.startswith(("-", ".", "/", "~"))
            assert ".." not in word.split("/")
            assert not set(word) & {":", "\0", "\n", "\\", ";"}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("npm_config_registry", True),
        ("NPM_CONFIG_REGISTRY", True),
        ("UV_INDEX_URL", True),
        ("UV_PYTHON", True),
        ("PIP_INDEX_URL", True),
        ("PIPX_HOME", True),
        ("NODE_OPTIONS", True),
        ("PATH", True),
        ("API_KEY", False),
        ("NODE_ENV", False),
        ("MY_UV_LEVEL", False),
        ("UVX", False),
        ("HTTPS_PROXY", False),
    ],
)
def test_some_variables_are_meant_for_the_tool(name: str, changes: bool) -> None:
    assert env_changes_install(["MOO", name]) is changes
    assert not env_changes_install([])
