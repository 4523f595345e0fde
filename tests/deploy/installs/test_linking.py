"""An instance's tree: its own to write in, the store's not; and whatever it did there, nothing of it is followed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from attrs import define

from controlplane.deploy import trees
from controlplane.deploy.installs import linking
from controlplane.deploy.installs.linking import Linked, drop_tree
from controlplane.deploy.installs.store import InstallStore
from controlplane.errors import BuildFailed
from tests.deploy.installs.conftest import (
    ADA,
    ADAS,
    BOB,
    BOBS,
    IS_ROOT,
    KEY,
    LIMIT_BYTES,
    Building,
    cow,
    key,
    listed,
    own,
    staged,
)
from tests.forked import in_a_child

INSTALLED = ("node_modules",)
UNCHANGED = Linked(is_new=False, folders=0, linked=0, copied=0, links=0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def owners(folder: Path) -> set[int]:
    return {
        path.lstat().st_uid
        for path in (folder, *folder.rglob("*"))
        if not (path.is_file() and path.stat().st_nlink > 1)
    }


def changes(folder: Path) -> dict[Path, int]:
    """When each part was changed in any way; but for what is shared, which gets and loses names."""
    statuses = {path: path.lstat() for path in (folder, *folder.rglob("*"))}
    return {
        path: status.st_ctime_ns
        for path, status in statuses.items()
        if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1
    }


async def link(store: InstallStore, app: Path, uid: int | None = ADAS) -> Linked:
    install = await store.make(KEY, Building())
    return await store.link(install, app, uid, INSTALLED)


def as_instance(work: Callable[[], object]) -> None:
    """Do what a server might, as its user."""
    in_a_child(work, uid=ADA) if IS_ROOT else work()


# -- a new tree


async def test_the_installed_is_shared_and_the_rest_is_the_instances_own(store: InstallStore, instance: Path) -> None:
    install = await store.make(KEY, Building())

    linked = await store.link(install, instance, ADAS, INSTALLED)

    assert linked == Linked(is_new=True, folders=4, linked=2, copied=1, links=1)
    assert listed(instance) == listed(install.tree)
    for name in ("cli.js", "index.js"):
        there, here = install.tree / "node_modules/cow" / name, instance / "node_modules/cow" / name
        assert here.samefile(there)
        assert (here.stat().st_uid, mode(here)) == (os.geteuid(), 0o555 if name == "cli.js" else 0o444)
    source = instance / "server.js"
    assert not source.samefile(install.tree / "server.js")
    assert source.stat().st_mtime_ns == (install.tree / "server.js").stat().st_mtime_ns
    assert mode(source) == 0o644
    assert mode(instance) == 0o700
    assert (instance / "node_modules/.bin/cow").readlink() == Path("../cow/cli.js")
    assert owners(instance) == {ADA if IS_ROOT else os.geteuid()}
    assert sorted(os.listdir(instance.parent)) == [".app.json", "app"]


async def test_a_whole_tree_or_single_files_can_be_shared(store: InstallStore, instance: Path) -> None:
    install = await store.make(KEY, Building())

    everything = await store.link(install, instance, ADAS, (".",))
    single = await store.link(install, instance.with_name("b"), ADAS, ("node_modules/cow/cli.js",))
    nothing = await store.link(install, instance.with_name("c"), ADAS, ())

    assert [(linked.linked, linked.copied) for linked in (everything, single, nothing)] == [(3, 0), (1, 2), (0, 3)]
    assert mode(instance.with_name("c") / "node_modules/cow/cli.js") == 0o755


@pytest.mark.needs("root")
async def test_a_server_writes_beside_its_code_and_not_into_it(store: InstallStore, instance: Path) -> None:
    await link(store, instance)

    def serve() -> None:
        package = instance / "node_modules" / "cow"
        (package / "memory.json").write_text("{}")
        (instance / "server.js").write_text("changed")
        for attempt in (
            lambda: (package / "index.js").write_text("poison"),
            lambda: (package / "index.js").chmod(0o666),
            lambda: os.chown(package / "index.js", ADA, ADA),
            lambda: os.utime(package / "index.js", (1, 1)),
            lambda: os.truncate(package / "index.js", 0),
            lambda: os.setxattr(package / "index.js", "user.x", b"x"),
            lambda: os.listdir(store.disk.root),
            lambda: os.listdir(store.disk.root / "shared"),
            (instance.parent / ".app.json").read_text,
            lambda: instance.rename(instance.parent / "elsewhere"),
        ):
            with pytest.raises(PermissionError):
                attempt()

    as_instance(serve)

    assert await store.get(KEY) is not None
    assert (instance / "node_modules" / "cow" / "index.js").read_text() == "moo()"


async def test_two_instances_share_and_nothing_else(store: InstallStore, instance: Path) -> None:
    other = instance.with_name("other")

    await link(store, instance)
    await link(store, other, BOBS)

    shared = "node_modules/cow/index.js"
    assert (instance / shared).samefile(other / shared)
    assert not (instance / "server.js").samefile(other / "server.js")
    assert owners(other) == {BOB if IS_ROOT else os.geteuid()}


# -- the next start


async def test_a_tree_that_is_as_it_should_be_is_left_alone(store: InstallStore, instance: Path) -> None:
    await link(store, instance)
    before = instance.stat().st_ctime_ns

    assert await link(store, instance) == UNCHANGED
    assert instance.stat().st_ctime_ns == before


async def test_what_a_server_kept_stays_and_what_it_lost_is_restored(store: InstallStore, instance: Path) -> None:
    def fill(tree: Path) -> None:
        cow(tree)
        (tree / "lib").mkdir()
        (tree / "lib" / "own.js").write_text("own")
        (tree / "lib" / "link").symlink_to("own.js")

    install = await store.make(KEY, Building(fill))
    await store.link(install, instance, ADAS, INSTALLED)
    package = instance / "node_modules/cow"

    def serve() -> None:
        (package / "memory.json").write_text("{}")
        (package / "cache").mkdir()
        (instance / "server.js").write_text("changed")
        (package / "index.js").unlink()
        (package / "cli.js").unlink()
        (package / "cli.js").write_text("replaced")
        (package / "empty").rmdir()
        (instance / "node_modules/.bin/cow").unlink()
        (instance / "node_modules/.bin/cow").symlink_to("/bin/sh")
        shutil.rmtree(instance / "lib")

    as_instance(serve)

    mended = await store.link(install, instance, ADAS, INSTALLED)

    assert mended == Linked(is_new=False, folders=2, linked=2, copied=1, links=2)
    assert (package / "memory.json").read_text() == "{}"
    assert (package / "cache").is_dir()
    assert (instance / "server.js").read_text() == "changed"
    assert (package / "cli.js").samefile(install.tree / "node_modules/cow/cli.js")
    assert (package / "index.js").samefile(install.tree / "node_modules/cow/index.js")
    assert (package / "empty").is_dir()
    assert (instance / "node_modules/.bin/cow").readlink() == Path("../cow/cli.js")
    assert (instance / "lib/own.js").read_text() == "own"
    assert (instance / "lib/link").readlink() == Path("own.js")
    assert owners(instance) == {ADA if IS_ROOT else os.geteuid()}
    assert await store.link(install, instance, ADAS, INSTALLED) == UNCHANGED


@pytest.mark.needs("root")
async def test_another_user_takes_the_tree_over_and_nothing_shared_with_it(store: InstallStore, instance: Path) -> None:
    await link(store, instance)
    as_instance(lambda: (instance / "node_modules/cow/memory.json").write_text("{}"))
    as_instance(lambda: (instance / "twin").hardlink_to(instance / "server.js"))

    assert await link(store, instance, BOB) == UNCHANGED

    own_files = [path for path in instance.rglob("*") if path.lstat().st_uid != 0]
    assert {path.lstat().st_uid for path in own_files} == {BOB}
    assert {path.name for path in own_files} >= {"memory.json", "server.js", "twin", "cow", "empty"}
    assert (instance / "node_modules/cow/index.js").stat().st_uid == 0
    assert await store.get(KEY) is not None


@pytest.mark.needs("root")
async def test_a_tree_of_roots_own_is_given_away_without_what_is_shared(store: InstallStore, instance: Path) -> None:
    """As after a start at which instances had no users of their own."""
    await link(store, instance, None)

    await link(store, instance, ADA)

    assert owners(instance) == {ADA}
    assert (instance / "node_modules/cow/index.js").stat().st_uid == 0
    assert await store.get(KEY) is not None


async def test_a_rebuilt_install_takes_the_place_of_the_damaged_one_in_a_tree(
    store: InstallStore, instance: Path
) -> None:
    building = Building()
    install = await store.make(KEY, building)
    await store.link(install, instance, ADAS, INSTALLED)
    (instance / "node_modules/cow/memory.json").write_text("{}")
    path = install.tree / "node_modules/cow/index.js"
    times = path.stat()
    path.chmod(0o644)
    path.write_text("m00()")
    path.chmod(0o444)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time: only reading tells
    store._forget(KEY)

    assert await store.get(KEY) is None
    rebuilt = await store.make(KEY, building)
    os.utime(rebuilt.tree / "node_modules/cow/index.js", ns=(times.st_atime_ns, times.st_mtime_ns))
    mended = await store.link(rebuilt, instance, ADAS, INSTALLED)

    assert (mended.is_new, mended.linked) == (False, 2)
    assert (instance / "node_modules/cow/index.js").read_text() == "moo()"
    assert (instance / "node_modules/cow/memory.json").exists()


async def test_another_install_takes_the_place_of_the_whole_tree(store: InstallStore, instance: Path) -> None:
    await link(store, instance)
    (instance / "node_modules/cow/memory.json").write_text("{}")

    def fill(tree: Path) -> None:
        (tree / "main.py").write_text("moo")

    install = await store.make(key("other"), Building(fill))
    assert (await store.link(install, instance, ADAS, ())).is_new

    assert listed(instance) == ["main.py"]
    assert sorted(os.listdir(instance.parent)) == [".app.json", "app"]


async def test_a_tree_that_is_gone_or_not_ours_is_made_anew(store: InstallStore, instance: Path) -> None:
    await link(store, instance)
    trees.remove(instance)
    assert (await link(store, instance)).is_new

    (instance.parent / ".app.json").write_text("{")
    (instance / "node_modules/cow/extra").write_text("moo")
    assert (await link(store, instance)).is_new
    assert not (instance / "node_modules/cow/extra").exists()

    (instance.parent / ".app.json").unlink()
    assert (await link(store, instance)).is_new
    assert await link(store, instance) == UNCHANGED


async def test_nothing_is_left_of_a_tree_that_is_dropped(store: InstallStore, instance: Path) -> None:
    await link(store, instance)
    for ending in ("new", "old"):
        instance.with_name(f".app.{ending}").mkdir()

    drop_tree(instance)
    drop_tree(instance)

    assert os.listdir(instance.parent) == []
    assert await store.get(KEY) is not None


# -- a crash


@define
class _Crash(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("at", range(11))
async def test_whatever_a_crash_cut_short_is_made_good_at_the_next_start(
    store: InstallStore, instance: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    old = await store.make(KEY, Building())
    new = await store.make(key("other"), Building())
    await store.link(old, instance, ADAS, INSTALLED)
    (instance / "node_modules/cow/memory.json").write_text("{}")
    steps = 0

    def crashing(real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **options: object) -> object:
            nonlocal steps
            steps += 1
            if steps > at:
                raise _Crash
            return real(*args, **options)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crashing(Path.rename))
        patch.setattr(Path, "replace", crashing(Path.replace))
        patch.setattr(trees, "remove", crashing(trees.remove))
        patch.setattr(linking, "sync_all", crashing(linking.sync_all))
        try:
            await store.link(new, instance, ADAS, INSTALLED)
        except _Crash:
            crashed = True
        else:
            crashed = False

    back = await store.link(old, instance, ADAS, INSTALLED)

    kept = (instance / "node_modules/cow/memory.json").exists()
    assert kept == (not back.is_new), "what the server kept is there unless the new tree had taken over"
    assert crashed or back.is_new
    assert listed(instance) == sorted([*listed(old.tree), *(["node_modules/cow/memory.json"] if kept else [])])
    assert sorted(os.listdir(instance.parent)) == [".app.json", "app"]
    assert await store.link(old, instance, ADAS, INSTALLED) == UNCHANGED


# -- attacks


async def test_a_folder_replaced_by_a_link_is_not_followed(store: InstallStore, instance: Path) -> None:
    """To another instance's tree, whose files would be replaced, or whose owner's rights would be lent."""
    other = instance.with_name("other")
    install = await store.make(KEY, Building())
    await store.link(install, instance, ADAS, INSTALLED)
    await store.link(install, other, BOBS, INSTALLED)
    (other / "node_modules/cow/index.js").unlink()
    (other / "node_modules/cow/index.js").write_text("bob's")
    if IS_ROOT:
        os.chown(other / "node_modules/cow/index.js", BOB, BOB)
    before = changes(other)

    def attack() -> None:
        shutil.rmtree(instance / "node_modules")
        (instance / "node_modules").symlink_to(other / "node_modules")

    as_instance(attack)

    mended = await store.link(install, instance, ADAS, INSTALLED)

    assert not (instance / "node_modules").is_symlink()
    assert mended.linked == 2
    assert changes(other) == before
    assert (other / "node_modules/cow/index.js").read_text() == "bob's"


async def test_a_deeper_folder_replaced_by_a_link_into_the_hosts_is_not_followed(
    store: InstallStore, instance: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "index.js").write_text("precious")
    await link(store, instance)

    def attack() -> None:
        shutil.rmtree(instance / "node_modules/cow")
        (instance / "node_modules/cow").symlink_to(precious)

    as_instance(attack)
    await link(store, instance)

    assert listed(precious) == ["index.js"]
    assert (precious / "index.js").read_text() == "precious"
    assert (precious.stat().st_uid, mode(precious)) == (os.geteuid(), 0o700)
    assert listed(instance / "node_modules/cow") == ["cli.js", "empty", "index.js"]


async def test_files_replaced_by_links_folders_and_pipes_are_put_back(
    store: InstallStore, instance: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    await link(store, instance)
    package = instance / "node_modules/cow"

    def attack() -> None:
        (package / "index.js").unlink()
        (package / "index.js").symlink_to(secret)
        (package / "cli.js").unlink()
        (package / "cli.js").mkdir()
        (package / "cli.js" / "deep").mkdir()
        (instance / "node_modules/.bin/cow").unlink()
        os.mkfifo(instance / "node_modules/.bin/cow")
        (instance / "server.js").unlink()
        (instance / "server.js").symlink_to(secret)

    as_instance(attack)
    await link(store, instance)

    assert (package / "index.js").read_text() == "moo()"
    assert (package / "cli.js").is_file()
    assert (instance / "node_modules/.bin/cow").is_symlink()
    assert (instance / "server.js").readlink() == secret, "its own, to do with as it likes, and never read by Corral"
    assert (secret.stat().st_uid, mode(secret), secret.read_text()) == (os.geteuid(), 0o600, "secret")


async def test_folders_that_a_server_closed_or_buried_deep_are_no_obstacle(store: InstallStore, instance: Path) -> None:
    await link(store, instance)

    def attack() -> None:
        (instance / "node_modules/cow/index.js").unlink()
        (instance / "node_modules/cow/index.js").mkdir()
        here = os.open(instance / "node_modules/cow/index.js", os.O_RDONLY)
        for _ in range(1_500):
            os.mkdir("d" * 50, dir_fd=here)
            inner = os.open("d" * 50, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)
        (instance / "node_modules/cow").chmod(0)

    as_instance(attack)
    mended = await link(store, instance)

    assert mended.linked == 1
    assert (instance / "node_modules/cow/index.js").read_text() == "moo()"


@pytest.mark.needs("root")
async def test_shared_files_moved_elsewhere_in_a_folder_are_not_given_away_with_it(
    store: InstallStore, instance: Path
) -> None:
    """`trees.give` hands a home over when an instance gets another user, even one that was root's before."""
    await link(store, instance)
    home = instance.with_name("home")
    home.mkdir()
    (home / "own").write_text("moo")
    os.chown(home, ADA, ADA)
    as_instance(lambda: (instance / "node_modules/cow/index.js").rename(home / "loot"))
    own(home, ADA)
    os.chown(home, 0, 0)

    trees.give(home, 0, BOB)

    assert (home.stat().st_uid, (home / "loot").stat().st_uid) == (BOB, 0)
    assert await store.get(KEY) is not None


# -- where no link can be made


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EXDEV, errno.EPERM])
async def test_where_a_file_cannot_have_another_name_it_is_copied_and_is_corrals_still(
    store: InstallStore, instance: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)

    assert (await link(store, instance)).copied == 3
    assert await link(store, instance) == UNCHANGED, "a copy that is as it was made is as good"

    index = instance / "node_modules/cow/index.js"
    assert (index.stat().st_uid, mode(index), index.stat().st_nlink) == (os.geteuid(), 0o444, 1)
    index.unlink()
    index.write_text("m00()")
    assert (await link(store, instance)).copied == 1
    assert index.read_text() == "moo()"


async def test_what_cannot_be_put_in_place_fails_the_start(store: InstallStore, instance: Path) -> None:
    install = await store.make(KEY, Building())
    shutil.rmtree(instance.parent)

    with pytest.raises(BuildFailed, match="cannot be put in place: No such file"):
        await store.link(install, instance, ADAS, INSTALLED)


async def test_an_install_found_damaged_while_it_is_linked_is_read_anew(store: InstallStore, instance: Path) -> None:
    install = await store.make(KEY, Building())
    (install.folder / "manifest.json").write_text("{}")

    with pytest.raises(BuildFailed, match="has been damaged"):
        await store.link(install, instance, ADAS, INSTALLED)

    assert await store.get(KEY) is None


# -- a plain user's


@pytest.mark.needs("root")
def test_a_plain_user_has_trees_of_its_own_too(common_folder: Path) -> None:
    def work() -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                store = await InstallStore.open(common_folder / "store", LIMIT_BYTES, nursery)
                install = await store.make(KEY, Building(owner=None))
                app = common_folder / "app"
                assert (await store.link(install, app, None, INSTALLED)).linked == 2
                index = app / "node_modules/cow/index.js"
                with pytest.raises(PermissionError):
                    index.write_text("by mistake")
                (app / "node_modules/cow/memory.json").write_text("{}")
                (app / "node_modules/cow").chmod(0)
                assert await store.link(install, app, None, INSTALLED) == UNCHANGED

                index.chmod(0o644)  # nothing keeps a server of one's own user from it, so it is found
                index.write_text("on purpose")
                assert await store.get(KEY) is None
                rebuilt = await store.make(KEY, Building(owner=None))
                assert (await store.link(rebuilt, app, None, INSTALLED)).linked == 2
                assert index.read_text() == "moo()"
                assert (app / "node_modules/cow/memory.json").exists()
                drop_tree(app)
                assert staged(store) == []

        trio.run(main)

    shutil.chown(common_folder, 61_007, 61_007)
    in_a_child(work, uid=61_007)
