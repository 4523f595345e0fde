"""Commands of packages, installed once from the real registry: by whom, how often, and what happens to what is kept."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import trio
from attrs import evolve

from controlplane.deploy.installs.keys import SHARED, InstallKey, scope_of
from controlplane.errors import BuildFailed
from controlplane.model import Command, Instance, SourceType, Spec
from tests.deploy.build.conftest import BUILD_S, Shop
from tests.deploy.conftest import instance_of

pytestmark = [pytest.mark.network, pytest.mark.needs("registry", "node")]
WAIT_S = BUILD_S
SMALL = "semver"
"""An npm package with one program, no dependencies and no server: quick to install."""


def npx(package: str, *args: str, owner: str = "ada", **members: Any) -> Instance:
    command = Command(command="npx", args=("-y", package, *args))
    spec = Spec(source_type=SourceType.MCP_CONFIG, language="node", command=command, **members)
    return evolve(instance_of(spec), owner=owner)


def kept(shop: Shop, built: Any) -> Instance:
    """The same instance at its next start."""
    instance = npx(SMALL, "1.2.3")
    return evolve(instance, spec=evolve(instance.spec, resolved=built.resolved))


async def test_a_package_is_looked_up_installed_and_launched_by_its_own_program(shop, common_folder):
    instance = npx(SMALL, "1.2.3")
    built = await shop.build(instance)
    name, _, version = built.resolved.facts["package"].rpartition("@")
    assert name == SMALL
    assert built.resolved.language == "node"
    assert built.install.key.scope == SHARED
    assert shop.records.resolved[instance.id, 1] == built.resolved
    assert shop.heard.phases[0] == "build: resolve the package"
    assert f"build: install {SMALL}@{version}" in shop.heard.phases

    tree = common_folder / "app"
    await shop.builds.link(built, tree, None)
    argv, env, _ = built.launch.in_tree(tree, shop.host.toolchain.path)
    assert argv[0] == "node"
    env |= {"PATH": shop.host.toolchain.path}
    done = subprocess.run(argv, check=True, env=env, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "1.2.3"
    assert shop.staging == []


async def test_the_next_start_and_the_next_instance_start_no_tool_at_all(shop):
    built = await shop.build(npx(SMALL, "1.2.3"))
    before = shop.jobs
    again = await shop.build(kept(shop, built))
    other = await shop.build(npx(SMALL, "3.2.1", owner="ben"))
    assert shop.jobs == before
    assert again.install.key == other.install.key == built.install.key, "shared between owners"


async def test_a_redeploy_asks_the_registry_anew(shop):
    await shop.build(npx(SMALL))
    before = shop.jobs
    await shop.build(npx(SMALL, cause="redeploy"))
    assert shop.jobs == before + 1, "one look-up, and the same install"


async def test_ten_at_once_look_up_and_install_once(shop):
    found: list[Any] = []

    async def one() -> None:
        found.append(await shop.build(npx(SMALL)))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(one)
    assert len({built.install.key for built in found}) == 1
    assert shop.jobs == 2


async def test_a_damaged_install_is_made_anew_in_the_very_version_it_had(shop):
    built = await shop.build(npx(f"{SMALL}@7.5.0", "1.2.3"))
    assert built.resolved.facts["package"] == f"{SMALL}@7.5.0"
    program = built.install.tree / "node_modules" / SMALL / "bin" / "semver.js"
    content = program.read_bytes()
    program.chmod(0o644)
    program.write_bytes(content.replace(b"node", b"evil"))
    program.chmod(0o444)

    again = await shop.build(kept(shop, built))

    assert again.resolved.facts["package"] == f"{SMALL}@7.5.0", "not the newest one"
    assert (again.install.tree / "node_modules" / SMALL / "bin" / "semver.js").read_bytes() == content


async def test_an_install_by_another_node_is_not_used(shop):
    built = await shop.build(npx(SMALL))
    other = evolve(shop.host.toolchain, found={}, tools={**shop.host.toolchain.tools, "node": "/bin/true"})
    builds = evolve(shop.builds, packages=evolve(shop.builds.packages, host=evolve(shop.host, toolchain=other)))
    with trio.fail_after(WAIT_S):
        again = await builds.build(kept(shop, built), shop.heard)
    assert again.install.key != built.install.key
    assert again.resolved.facts["package"] == built.resolved.facts["package"]


@pytest.mark.parametrize(
    "instance",
    [
        npx(SMALL, env={"npm_config_registry": "http://127.0.0.1:9"}),
        npx("git+https://example.com/x.git"),
        npx("./folder"),
        instance_of(
            Spec(source_type=SourceType.MCP_CONFIG, language="binary", command=Command(command="cow", args=("moo",)))
        ),
    ],
)
async def test_what_is_not_surely_understood_runs_as_it_is_written(shop, instance):
    assert await shop.build(instance) is None
    assert shop.jobs == 0


async def test_a_package_without_an_obvious_program_runs_as_it_is_written(shop):
    assert await shop.build(npx("is-number")) is None


async def test_a_package_that_there_is_not_fails_with_npms_own_words(shop):
    with pytest.raises(BuildFailed, match="npm exited with status 1") as failed:
        await shop.build(npx("@corral-tests/there-is-no-such-package"))
    assert any("404" in line for line in failed.value.evidence["stderr_tail"])
    assert shop.staging == []


async def test_a_cancelled_install_leaves_nothing(shop):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shop.build, npx("@modelcontextprotocol/server-everything"))
        with trio.fail_after(WAIT_S):
            while "build: install the package" not in shop.heard.phases:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    await shop.wait_empty()
    assert not list((shop.builds.store.disk.root / SHARED).glob("installs/*"))


async def test_uvx_and_pipx_run_the_environments_own_program(shop, common_folder):
    for command, args in (("uvx", ("pycowsay", "moo")), ("pipx", ("run", "pycowsay", "moo"))):
        spec = Spec(source_type=SourceType.MCP_CONFIG, language="python", command=Command(command=command, args=args))
        built = await shop.build(instance_of(spec))
        tree = common_folder / command
        await shop.builds.link(built, tree, None)
        argv, env, _ = built.launch.in_tree(tree, shop.host.toolchain.path)
        assert argv[0] == str(tree / ".venv/bin/python")
        done = subprocess.run(argv, check=True, env=env, capture_output=True, text=True, timeout=30)
        assert "moo" in done.stdout, done.stderr


def test_scopes_of_owners_are_not_the_shared_one():
    assert scope_of("shared") != SHARED
    assert InstallKey.is_one(scope_of("ada"), "0" * 64)
