"""What the store gives is whole, is built once, and is never half there, whoever leaves or dies when."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from controlplane.deploy.installs.keys import scope_of
from controlplane.deploy.installs.store import InstallStore
from controlplane.errors import BuildFailed, Overloaded
from tests.deploy.installs.conftest import IS_ROOT, KEY, LIMIT_BYTES, WAIT_S, Building, cow, key, listed, staged


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# -- made and got


async def test_what_was_built_is_kept_with_what_is_known_of_it(store: InstallStore) -> None:
    building = Building(facts={"label": "cow@1.0.0", "kind": "npm", "lock": '{"é": 1}'})

    assert await store.get(KEY) is None
    made = await store.make(KEY, building)
    got = await store.get(KEY)

    assert got == made
    assert listed(made.tree) == [
        "node_modules",
        "node_modules/.bin",
        "node_modules/.bin/cow",
        "node_modules/cow",
        "node_modules/cow/cli.js",
        "node_modules/cow/empty",
        "node_modules/cow/index.js",
        "server.js",
    ]
    assert (made.key, made.facts, made.files) == (KEY, {"label": "cow@1.0.0", "kind": "npm"}, 3)
    assert made.read_lock() == '{"é": 1}'
    assert made.size_bytes >= 3 * 512
    assert staged(store) == []


async def test_an_install_without_a_lock_has_none(store: InstallStore) -> None:
    assert (await store.make(KEY, Building())).read_lock() is None


async def test_everything_in_it_is_corrals_and_nobodys_to_change(store: InstallStore) -> None:
    install = await store.make(KEY, Building())

    for path in (install.tree, *install.tree.rglob("*")):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
        if path.is_dir():
            assert mode(path) == 0o755
        elif not path.is_symlink():
            assert mode(path) == (0o555 if path.name == "cli.js" else 0o444)
    assert mode(install.folder) == mode(install.folder.parent) == 0o700
    assert mode(store.disk.root) == (0o711 if IS_ROOT else 0o700)


async def test_what_is_there_is_not_built_again_in_another_life_either(
    store: InstallStore, nursery: trio.Nursery
) -> None:
    building = Building()
    made = await store.make(KEY, building)

    assert await store.make(KEY, building) == made
    later = await InstallStore.open(store.disk.root, LIMIT_BYTES, nursery)
    assert await later.make(KEY, building) == made
    assert await later.get(KEY) == made
    assert building.count == 1


async def test_owners_have_installs_of_their_own(store: InstallStore) -> None:
    adas, bobs = key("x", scope=scope_of("ada")), key("x", scope=scope_of("bob"))

    made = await store.make(adas, Building())

    assert await store.get(bobs) is None
    assert made.folder == store.disk.root / "owners" / scope_of("ada") / "installs" / adas.digest


async def test_only_the_tree_is_kept_of_the_place_where_it_was_built(store: InstallStore) -> None:
    async def build(place: Path) -> Mapping[str, str]:
        for name in ("home", "tmp", "whole", "tree"):
            (place / name).mkdir()
        (place / "home" / "secret").write_text("moo")
        (place / "tree" / "x").write_text("moo")
        return {}

    install = await store.make(KEY, build)

    assert listed(install.folder) == ["facts.json", "manifest.json", "tree", "tree/x", "used"]
    assert staged(store) == []


async def test_using_an_install_is_noted(store: InstallStore, nursery: trio.Nursery) -> None:
    install = await store.make(KEY, Building())
    for user in (store, await InstallStore.open(store.disk.root, LIMIT_BYTES, nursery)):
        os.utime(install.folder / "used", (1, 1))

        assert await user.get(KEY) is not None

        assert time.time() - install.last_used_at.timestamp() < WAIT_S


# -- failures leave nothing


async def test_a_failed_build_leaves_nothing_and_is_tried_again(store: InstallStore) -> None:
    async def fail(place: Path) -> Mapping[str, str]:
        cow(place / "tree")
        raise BuildFailed("npm install: npm exited with status 1", evidence={"exit_code": 1})

    with pytest.raises(BuildFailed, match="status 1") as caught:
        await store.make(KEY, fail)

    assert caught.value.evidence == {"exit_code": 1}
    assert staged(store) == []
    assert await store.get(KEY) is None
    assert (await store.make(KEY, Building())).files == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_the_hosts_trouble_and_leaves_nothing(store: InstallStore, number: int) -> None:
    async def fail(place: Path) -> Mapping[str, str]:
        cow(place / "tree")
        raise OSError(number, os.strerror(number))

    with pytest.raises(Overloaded, match="disk is full"):
        await store.make(KEY, fail)

    assert staged(store) == []


@pytest.mark.needs("mount_namespaces", "root")
def test_a_disk_that_fills_while_an_install_is_kept_is_told_of_and_left_empty(common_folder: Path) -> None:
    """In a mount namespace, on a file system of 256 KiB, whose tree just fits and whose papers do not."""
    script = f"""
import sys, trio; sys.path[:0] = {sys.path!r}
from pathlib import Path
from controlplane.deploy.installs.store import InstallStore
from controlplane.errors import Overloaded
from tests.deploy.installs.conftest import KEY, staged

async def build(place):
    (place / "tree").mkdir()
    for number in range(40):
        (place / "tree" / (str(number) + "n" * 200)).write_bytes(bytes(4096))
    return {{"lock": "x" * 200_000}}

async def main():
    async with trio.open_nursery() as nursery:
        store = await InstallStore.open(Path({str(common_folder)!r}) / "small" / "store", 2**30, nursery)
        try:
            await store.make(KEY, build)
        except Overloaded as error:
            print(error, staged(store), store.disk.all_keys())

trio.run(main)
"""
    (common_folder / "small").mkdir()
    shell = f'mount -t tmpfs -o size=256k tmpfs {common_folder}/small && exec "$0" -c "$1"'

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", shell, sys.executable, script],
        check=False,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )

    assert (done.stdout, done.stderr) == ("the disk is full [] []\n", "")


async def test_a_build_that_leaves_no_tree_has_failed(store: InstallStore) -> None:
    async def nothing(place: Path) -> Mapping[str, str]:
        return {}

    async def a_link(place: Path) -> Mapping[str, str]:
        (place / "tree").symlink_to("/etc")
        return {}

    for build in (nothing, a_link):
        with pytest.raises(BuildFailed):
            await store.make(KEY, build)

    assert staged(store) == []


async def test_what_is_larger_than_the_store_may_be_is_refused(common_folder: Path, nursery: trio.Nursery) -> None:
    store = await InstallStore.open(common_folder / "store", 2**20, nursery)

    def sparse(tree: Path) -> None:
        with (tree / "bomb").open("wb") as file:
            file.truncate(2**40)

    with pytest.raises(BuildFailed, match="more than 1 MiB"):
        await store.make(KEY, Building(sparse))

    assert staged(store) == []


async def test_facts_and_locks_are_bounded(store: InstallStore) -> None:
    for facts in ({"label": "x" * 2**17}, {"lock": "x" * (2**24 + 1)}):
        with pytest.raises(BuildFailed, match="larger than what is kept"):
            await store.make(KEY, Building(facts=facts))


# -- at once


async def test_ten_who_want_it_at_once_get_one_build(store: InstallStore) -> None:
    building = Building(may_end=trio.Event())
    got = []

    async def ask() -> None:
        got.append(await store.make(KEY, building))

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as asking:
            for _ in range(10):
                asking.start_soon(ask)
            await building.begun.wait()
            assert store.is_in_use(KEY)
            building.may_end.set()

    assert building.count == 1
    assert got == [got[0]] * 10
    assert not store.is_in_use(KEY)


async def test_all_who_get_it_first_in_a_life_share_one_reading(store: InstallStore, nursery: trio.Nursery) -> None:
    made = await store.make(KEY, Building())
    later = await InstallStore.open(store.disk.root, LIMIT_BYTES, nursery)
    got = []

    async def ask(*, impatient: bool) -> None:
        with trio.move_on_after(0 if impatient else WAIT_S):
            got.append(await later.get(KEY))

    async with trio.open_nursery() as asking:
        for number in range(20):
            asking.start_soon(lambda number=number: ask(impatient=number % 2 == 0))

    assert got == [made] * len(got)
    assert len(got) >= 10


async def test_a_build_whose_first_asker_leaves_ends_for_the_others(store: InstallStore) -> None:
    building = Building(may_end=trio.Event())
    got = []

    async def ask() -> None:
        got.append(await store.make(KEY, building))

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as others:
            async with trio.open_nursery() as first:
                first.start_soon(ask)
                await building.begun.wait()
                others.start_soon(ask)
                await wait_all_tasks_blocked()
                first.cancel_scope.cancel()
            building.may_end.set()

    assert building.count == 1
    assert len(got) == 1


async def test_a_build_that_nobody_waits_for_any_more_is_cancelled_and_leaves_nothing(store: InstallStore) -> None:
    building = Building(may_end=trio.Event())

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as asking:
            for _ in range(3):
                asking.start_soon(store.make, KEY, building)
            await building.begun.wait()
            assert staged(store)
            asking.cancel_scope.cancel()
        building.may_end = None
        await store.make(KEY, building)

    assert building.count == 2
    assert staged(store) == []


# -- damage


def _flip(install: Path) -> None:
    path = install / "tree/node_modules/cow/index.js"
    content, status = bytearray(path.read_bytes()), path.stat()
    content[2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def _cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 2)
    path.chmod(0o444)


def _relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _write(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a flipped bit": ("index.js", _flip),
    "a file cut short": ("index.js", lambda at: _cut(at / "tree/node_modules/cow/index.js")),
    "a missing file": ("index.js", lambda at: (at / "tree/node_modules/cow/index.js").unlink()),
    "a missing folder": ("empty", lambda at: (at / "tree/node_modules/cow/empty").rmdir()),
    "a missing link": ("bin/cow", lambda at: (at / "tree/node_modules/.bin/cow").unlink()),
    "a new file": ("new.js", lambda at: (at / "tree/node_modules/cow/new.js").write_text("moo")),
    "a new folder": ("new", lambda at: (at / "tree/node_modules/new").mkdir()),
    "a writable file": ("index.js", lambda at: (at / "tree/node_modules/cow/index.js").chmod(0o644)),
    "a setuid program": ("cli.js", lambda at: (at / "tree/node_modules/cow/cli.js").chmod(0o4555)),
    "an open folder": ("cow", lambda at: (at / "tree/node_modules/cow").chmod(0o777)),
    "an open tree": ("tree", lambda at: (at / "tree").chmod(0o777)),
    "a file replaced by a link": ("index.js", lambda at: _relink(at / "tree/node_modules/cow/index.js", "cli.js")),
    "a link that leads elsewhere": ("bin/cow", lambda at: _relink(at / "tree/node_modules/.bin/cow", "/etc/passwd")),
    "other facts": ("facts.json", lambda at: _write(at / "facts.json", (at / "facts.json").read_text() + " ")),
    "another lock": ("lock", lambda at: _write(at / "lock", "{ }")),
    "no lock": ("lock", lambda at: (at / "lock").unlink()),
    "no manifest": ("manifest.json", lambda at: (at / "manifest.json").unlink()),
    "half a manifest": ("manifest.json", lambda at: os.truncate(at / "manifest.json", 100)),
    "something beside the tree": ("extra", lambda at: (at / "extra").write_text("moo")),
    "a file in the tree's place": ("tree", lambda at: ((at / "tree").rename(at.parent / "x"), _write(at / "tree", ""))),
}
if IS_ROOT:
    DAMAGES["somebody else's file"] = (
        "index.js",
        lambda at: os.chown(at / "tree/node_modules/cow/index.js", 1234, 1234),
    )


@pytest.mark.parametrize("again", [True, False], ids=["in the same life", "in the next life"])
@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_found_told_of_with_its_place_and_mended_by_building_anew(
    store: InstallStore, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, damage: str, again: bool
) -> None:
    where, inflict = DAMAGES[damage]
    building = Building(facts={"label": "cow", "lock": "{}"})
    install = await store.make(KEY, building)
    inflict(install.folder)
    user = store if again else await InstallStore.open(store.disk.root, LIMIT_BYTES, nursery)

    with caplog.at_level(logging.WARNING):
        assert await user.get(KEY) is None

    (told,) = caplog.messages
    assert told.startswith(str(install.folder))
    assert where in told
    assert not install.folder.exists()
    assert staged(user) == []
    rebuilt = await user.make(KEY, building)
    assert rebuilt.facts == install.facts
    assert rebuilt.build != install.build
    assert await user.get(KEY) == rebuilt
    assert building.count == 2


async def test_times_that_changed_alone_are_no_damage(store: InstallStore) -> None:
    install = await store.make(KEY, Building())
    for path in install.tree.rglob("*.js"):
        os.utime(path)

    assert await store.get(KEY) == install


async def test_names_that_are_no_text_survive(store: InstallStore, nursery: trio.Nursery) -> None:
    names = ["a\nb", "\udc80\udcff", "é", "e\u0301", " ", "-rf", '"\\', "\x01\x7f", "…" * 80]

    def fill(tree: Path) -> None:
        for name in names:
            (tree / name).write_text(f"content of {name!a}")
            (tree / f"{name}.d"[-80:]).mkdir()
            (tree / f"{name}.d"[-80:] / name).symlink_to(name)

    made = await store.make(KEY, Building(fill))
    later = await InstallStore.open(store.disk.root, LIMIT_BYTES, nursery)

    assert await later.get(KEY) == made
    assert set(names) <= set(os.listdir(made.tree))


# -- crashes

MAKING = f"""
import sys, trio; sys.path[:0] = {sys.path!r}
from pathlib import Path
from controlplane.deploy.installs.store import InstallStore
from tests.deploy.installs.conftest import KEY

async def build(place):
    for number in range(600):
        folder = place / "tree" / str(number // 20)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(bytes([number % 256]) * 20_000)
    print("built", flush=True)
    return {{"lock": "x" * 100_000}}

async def main():
    async with trio.open_nursery() as nursery:
        store = await InstallStore.open(Path(sys.argv[1]), 2**30, nursery)
        await store.make(KEY, build)
    print("kept", flush=True)

trio.run(main)
"""


async def test_a_kill_at_any_moment_leaves_a_whole_install_or_none(common_folder: Path, nursery: trio.Nursery) -> None:
    ended = set()
    for delay_s in (None, 0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1):
        root = common_folder / f"store after {delay_s}"
        child = subprocess.Popen([sys.executable, "-c", MAKING, str(root)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"built\n"
        if delay_s is not None:
            await trio.sleep(delay_s)  # where it is by then depends on the machine; what must hold does not
            child.send_signal(signal.SIGKILL)
        child.stdout.close()
        child.wait()

        store = await InstallStore.open(root, LIMIT_BYTES, nursery)

        assert staged(store) == []
        install = await store.get(KEY)
        assert bool(store.disk.all_keys()) == (install is not None), "what is there is whole"
        ended.add(install is not None)
        if install is not None:
            assert install.files == 600
    assert True in ended


async def test_what_a_crash_left_in_staging_goes_at_the_next_start(store: InstallStore, nursery: trio.Nursery) -> None:
    left = store.disk.new_place()
    cow(left / "tree")
    (left / "tree" / "node_modules").chmod(0)
    (store.disk.root / "staging" / "link").symlink_to("/etc")

    await InstallStore.open(store.disk.root, LIMIT_BYTES, nursery)

    assert staged(store) == []
    assert Path("/etc/passwd").exists()


async def test_facts_are_json_for_whoever_looks(store: InstallStore) -> None:
    install = await store.make(KEY, Building())

    document = json.loads((install.folder / "facts.json").read_text())

    assert document["key"] == str(KEY)
    assert document["facts"]["kind"] == "npm"


# -- caches


async def test_an_owners_cache_is_for_one_build_at_a_time(store: InstallStore) -> None:
    inside = 0

    async def build() -> None:
        nonlocal inside
        async with store.cache(scope_of("ada")) as cache:
            inside += 1
            assert inside == 1
            (cache / str(len(os.listdir(cache)))).write_text("moo")
            await wait_all_tasks_blocked()
            inside -= 1

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as builds:
            for _ in range(3):
                builds.start_soon(build)

    assert sorted(os.listdir(store.disk.cache_of(scope_of("ada")))) == ["0", "1", "2"]


async def test_nothing_shared_is_built_with_a_cache(store: InstallStore) -> None:
    with pytest.raises(ValueError, match="poison"):
        async with store.cache("shared"):
            pass
