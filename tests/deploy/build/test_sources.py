"""Sources built by what they say: once for the same content, apart for each owner, whatever their scripts try."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from controlplane.deploy.installs.keys import scope_of
from controlplane.errors import BuildFailed, SourceRejected
from controlplane.model import Instance, Origin, SourceType, Spec
from tests.deploy.build.conftest import Shop, open_shop, with_settings
from tests.deploy.conftest import instance_of

pytestmark = pytest.mark.needs("node")
AS_ROOT = os.geteuid() == 0
SERVER = "require('readline')\n"
HOSTILE = """
const {execSync, spawn} = require("child_process"), fs = require("fs")
fs.writeFileSync("env.json", JSON.stringify(process.env))
spawn("setsid", ["sleep", "1000"], {detached: true, stdio: "ignore"}).unref()
const tried = {}
for (const [name, attempt] of Object.entries({
  home: () => fs.readdirSync(process.argv[2]),
  key: () => fs.readFileSync(process.argv[2] + "/secret-key", "utf8"),
  outside: () => fs.writeFileSync(process.argv[2] + "/planted", "x"),
  system: () => fs.writeFileSync("/etc/corral-planted", "x"),
  shadow: () => fs.readFileSync("/etc/shadow", "utf8"),
})) { try { attempt(); tried[name] = "done" } catch (error) { tried[name] = error.code } }
fs.writeFileSync("tried.json", JSON.stringify(tried))
"""


def archive(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


async def uploaded(shop: Shop, files: Mapping[str, str], *, owner: str = "ada", **members: Any) -> Instance:
    upload = await shop.uploads.put(scope_of(owner), archive(files))
    origin = Origin(sha256=upload.sha256, size_bytes=upload.size_bytes, subdir=members.pop("subdir", None))
    spec = Spec(source_type=SourceType.TAR, language=members.pop("language", ""), origin=origin, **members)
    return evolve(instance_of(spec), owner=owner)


def package(*, postinstall: str = "", **more: Any) -> str:
    scripts = {"postinstall": postinstall} if postinstall else {}
    return json.dumps({"name": "cow", "version": "1.0.0", "main": "server.js", "scripts": scripts, **more})


def with_script(command: str, **files: str) -> dict[str, str]:
    """A Node source whose own install script runs a command; nothing of it needs a registry."""
    lock = {"name": "cow", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": {}}
    lock["packages"] = {"": {"name": "cow", "version": "1.0.0", "hasInstallScript": True}}
    return {
        "package.json": package(postinstall=command),
        "package-lock.json": json.dumps(lock),
        "server.js": SERVER,
        **{name.replace("_js", ".js"): text for name, text in files.items()},
    }


async def test_a_source_is_guessed_built_and_given_to_the_instance(shop, common_folder):
    instance = await uploaded(shop, with_script("node -e \"require('fs').writeFileSync('made', 'x')\""))
    built = await shop.build(instance)
    assert (built.resolved.language, built.resolved.entry_point) == ("node", "server.js")
    assert shop.heard.phases[:2] == ["fetch: unpack the archive", "plan: node, server.js"]
    tree = common_folder / "app"
    await shop.builds.link(built, tree, None)
    argv, _, cwd = built.launch.in_tree(tree, "/bin")
    assert (argv[0], cwd) == ("node", str(tree))
    assert (tree / "made").read_text() == "x"
    assert (tree / "server.js").read_text() == SERVER
    assert shop.staging == []


async def test_the_same_source_is_built_once_for_each_owner(shop):
    files = with_script("true")
    first = await shop.build(await uploaded(shop, files))
    before = shop.jobs
    second = await shop.build(await uploaded(shop, files))
    assert (second.install.key, shop.jobs) == (first.install.key, before)
    other = await shop.build(await uploaded(shop, files, owner="ben"))
    assert other.install.key != first.install.key
    assert other.install.key.scope != first.install.key.scope
    assert shop.jobs > before


async def test_the_next_start_neither_unpacks_nor_builds(shop):
    instance = await uploaded(shop, with_script("true"))
    built = await shop.build(instance)
    before, phases = shop.jobs, len(shop.heard.phases)
    again = await shop.build(evolve(instance, spec=evolve(instance.spec, resolved=built.resolved)))
    assert again.install.key == built.install.key
    assert again.launch == built.launch
    assert (shop.jobs, len(shop.heard.phases)) == (before, phases)


async def test_a_lost_build_is_made_anew(shop):
    instance = await uploaded(shop, with_script("true"))
    built = await shop.build(instance)
    await shop.builds.store.remove(built.install.key)
    again = await shop.build(evolve(instance, spec=evolve(instance.spec, resolved=built.resolved)))
    assert again.install.key == built.install.key


async def test_what_scripts_of_a_source_try_comes_to_nothing(shop, common_folder):
    (common_folder / "secret-key").write_text("0123456789abcdef")
    (common_folder / "secret-key").chmod(0o600)
    files = with_script(f"node evil.js {common_folder}", evil_js=HOSTILE)
    built = await shop.build(await uploaded(shop, files, env={"API_KEY": "not for builds"}))

    env = json.loads((built.install.tree / "env.json").read_text())
    assert "not for builds" not in env.values()
    assert "SECRET_KEY" not in env
    assert not any(name.startswith("CORRAL_") and name not in ("CORRAL_OWNER", "CORRAL_JOB") for name in env)
    if AS_ROOT:
        tried = json.loads((built.install.tree / "tried.json").read_text())
        assert set(tried.values()) == {"EACCES"}, tried
    assert not Path("/etc/corral-planted").exists()
    assert shop.host.spawner.statistics().jobs == 0, "what it started in the background is gone"


async def test_a_script_that_hangs_ends_with_whoever_waits(shop):
    instance = await uploaded(shop, with_script("echo started; exec sleep 1000"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shop.build, instance)
        with trio.fail_after(60):
            while "started" not in shop.heard.lines:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    await shop.wait_empty()


@pytest.mark.needs("root")  # processes are counted per user
async def test_a_script_that_forks_without_end_is_stopped_by_the_limit(shop, common_folder):
    host = with_settings(shop.host, max_processes=64)
    script = "for i in $(seq 300); do sleep 60 & done; wait"
    folder = common_folder / "other"
    folder.mkdir(mode=0o711)
    async with open_shop(host, folder) as other:
        with pytest.raises(BuildFailed):
            await other.build(await uploaded(other, with_script(script)))
        await other.wait_empty()


async def test_a_failing_build_says_so_in_its_tools_words_and_leaves_nothing(shop):
    with pytest.raises(BuildFailed, match="npm exited with status 3") as failed:
        await shop.build(await uploaded(shop, with_script("echo no such cow >&2; exit 3")))
    assert failed.value.evidence["exit_code"] == 3
    assert any("no such cow" in line for line in failed.value.evidence["stderr_tail"])
    assert shop.staging == []
    assert shop.records.resolved == {}


async def test_one_owners_builds_wait_for_each_other(shop):
    """They share a cache. The second would find the first's mark if they ran at once."""
    script = "mkdir $npm_config_cache/mark && sleep 0.2 && rmdir $npm_config_cache/mark"
    first = await uploaded(shop, with_script(script, a_js="1"))
    second = await uploaded(shop, with_script(script, a_js="2"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shop.build, first)
        nursery.start_soon(shop.build, second)


async def test_a_folder_of_the_source_can_be_the_source(shop):
    files = {f"servers/cow/{name}": text for name, text in with_script("true").items()} | {"README.md": "x"}
    built = await shop.build(await uploaded(shop, files, subdir="servers/cow"))
    assert not (built.install.tree / "README.md").exists()
    with pytest.raises(SourceRejected, match="no folder 'servers/hen'"):
        await shop.build(await uploaded(shop, files, subdir="servers/hen"))
    assert shop.staging == []


@pytest.mark.parametrize(
    ("files", "members", "reason", "pointer"),
    [
        ({"README.md": "x"}, {}, "nothing", "/language"),
        (with_script("true"), {"language": "cobol"}, "cobol", "/language"),
        (with_script("true"), {"entry_point": "hen.js"}, "hen.js", "/entry_point"),
        (with_script("true"), {"dependencies": ("--index-url=http://x",)}, "index-url", "/dependencies"),
    ],
)
async def test_a_source_that_cannot_be_run_says_what_to_mend(shop, files, members, reason, pointer):
    with pytest.raises(SourceRejected, match=reason) as rejected:
        await shop.build(await uploaded(shop, files, **members))
    assert [error.pointer for error in rejected.value.errors] == [pointer]
    assert shop.staging == []


async def test_an_upload_that_is_gone_is_asked_for_again(shop):
    instance = await uploaded(shop, with_script("true"))
    path = shop.uploads.path(scope_of("ada"), instance.spec.origin.sha256)
    path.unlink()
    with pytest.raises(SourceRejected, match="is not there any more"):
        await shop.build(instance)


async def test_an_inline_file_with_an_own_build_step(shop):
    spec = Spec(
        source_type=SourceType.DIRECT,
        language="node",
        entry_point="server.js",
        source=SERVER.encode(),
        build_command="echo built > mark",
    )
    built = await shop.build(instance_of(spec))
    assert (built.install.tree / "mark").read_text() == "built\n"
