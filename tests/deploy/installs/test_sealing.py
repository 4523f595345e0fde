"""What hostile tools leave behind gives them no way into the store, and nobody anything that was not theirs."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from controlplane.deploy.installs import sealing
from controlplane.deploy.installs.keys import scope_of
from controlplane.deploy.installs.store import InstallStore
from controlplane.errors import BuildFailed
from tests.deploy.installs.conftest import BUILDER, IS_ROOT, KEY, LIMIT_BYTES, Building, cow, listed, own, staged
from tests.forked import in_a_child


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def refused(store: InstallStore, fill: Callable[[Path], object], match: str) -> None:
    with pytest.raises(BuildFailed, match=match):
        await store.make(KEY, Building(fill))  # type: ignore[arg-type]
    assert staged(store) == []
    assert store.disk.all_keys() == []


# -- links


async def test_links_are_kept_as_they_are_and_lead_nowhere_while_they_are(store: InstallStore, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "file").write_text("moo")
    (precious / "file").chmod(0o600)
    before = (precious / "file").stat()

    def fill(tree: Path) -> None:
        for name, target in {
            "shadow": "/etc/shadow",
            "folder": precious,
            "file": precious / "file",
            "up": "../../../..",
            "nowhere": "gone",
            "itself": "itself",
        }.items():
            (tree / name).symlink_to(target)

    install = await store.make(KEY, Building(fill))

    assert (install.tree / "shadow").readlink() == Path("/etc/shadow")
    assert (install.tree / "folder").readlink() == precious
    after = (precious / "file").stat()
    assert (after.st_mode, after.st_uid, after.st_ctime_ns) == (before.st_mode, before.st_uid, before.st_ctime_ns)
    assert mode(precious) == 0o700
    assert install.files == 0
    assert await store.get(KEY) is not None


# -- files with several names


@pytest.mark.needs("root")
@pytest.mark.parametrize("given_back", [False, True], ids=["as its tools left it", "given back to root"])
async def test_a_hard_link_to_a_file_of_roots_is_refused(
    store: InstallStore, common_folder: Path, given_back: bool
) -> None:
    """The kernel may be told to let anybody make one; reading it, as root, would give it away."""
    secret = common_folder / "secret"
    secret.write_text("moo")
    secret.chmod(0o600)

    def fill(tree: Path) -> None:
        (tree / "mine").write_text("moo")
        (tree / "stolen").hardlink_to(secret)

    building = Building(fill, owner=None if given_back else BUILDER)
    with pytest.raises(BuildFailed, match="link to a file of another user: 'stolen'"):
        await store.make(KEY, building)

    assert (secret.stat().st_uid, mode(secret), secret.stat().st_nlink) == (0, 0o600, 1)
    assert secret.read_text() == "moo"
    assert staged(store) == []


@pytest.mark.needs("root")
async def test_what_belongs_to_a_third_user_is_refused(store: InstallStore) -> None:
    def fill(tree: Path) -> None:
        (tree / "theirs").write_text("moo")
        os.chown(tree / "theirs", 1234, 1234)

    await refused(store, fill, "another user: 'theirs'")


async def test_a_file_that_has_another_name_elsewhere_is_kept_as_a_copy(store: InstallStore) -> None:
    """As when a tool links from its cache: the next build could write there."""
    async with store.cache(scope_of("ada")) as cache:
        (cache / "blob").write_text("moo")
        (cache / "blob").chmod(0o700)
        os.utime(cache / "blob", ns=(1, 123_456_789_000))

        def fill(tree: Path) -> None:
            (tree / "one").hardlink_to(cache / "blob")
            (tree / "two").hardlink_to(cache / "blob")

        if IS_ROOT:
            own(cache, BUILDER)
        install = await store.make(KEY, Building(fill))
        (cache / "blob").write_text("poison")

    one, two = install.tree / "one", install.tree / "two"
    assert one.read_text() == two.read_text() == "moo"
    assert mode(one) == mode(two) == 0o555
    assert (one.stat().st_nlink, two.stat().st_nlink) == (1, 1)
    assert one.stat().st_mtime_ns == 123_456_789_000
    assert mode(cache / "blob") == 0o700
    assert await store.get(KEY) == install


# -- what is no file


async def test_sockets_and_pipes_are_not_kept(store: InstallStore) -> None:
    def fill(tree: Path) -> None:
        cow(tree)
        os.mkfifo(tree / "pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(tree / "socket"))

    install = await store.make(KEY, Building(fill))

    assert not {"pipe", "socket"} & set(listed(install.tree))
    assert install.files == 3


@pytest.mark.needs("root")
async def test_devices_are_not_kept(store: InstallStore) -> None:
    def fill(tree: Path) -> None:
        cow(tree)
        with suppress(PermissionError):  # in a container not even root makes one
            os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))

    assert "null" not in listed((await store.make(KEY, Building(fill))).tree)


# -- rights


async def test_no_right_beyond_reading_and_running_survives(store: InstallStore) -> None:
    def fill(tree: Path) -> None:
        for number, bits in enumerate((0o4755, 0o2755, 0o6777, 0o666, 0o000, 0o111, 0o200, 0o077)):
            (tree / str(number)).write_text("moo")
            (tree / str(number)).chmod(bits)
        for name, bits in {"sticky": 0o1777, "setgid": 0o2777, "closed": 0o000}.items():
            (tree / name).mkdir()
            (tree / name / "file").write_text("moo")
            (tree / name).chmod(bits)

    install = await store.make(KEY, Building(fill, owner=None))

    modes = [mode(install.tree / str(number)) for number in range(8)]
    assert modes == [0o555, 0o555, 0o555, 0o444, 0o444, 0o555, 0o444, 0o444]
    assert {mode(install.tree / name) for name in ("sticky", "setgid", "closed")} == {0o755}
    assert await store.get(KEY) == install


async def test_attributes_are_taken_away(store: InstallStore) -> None:
    def fill(tree: Path) -> None:
        (tree / "file").write_text("moo")
        (tree / "folder").mkdir()
        with suppress(OSError):  # a file system that keeps none has none to take away
            for name in ("file", "folder"):
                os.setxattr(tree / name, "user.corral", b"moo")
            if IS_ROOT:
                os.setxattr(tree / "file", "security.capability", CAP_SETUID)
            os.setxattr(tree / "file", "system.posix_acl_access", ACL_OF_USER_1234)
            os.setxattr(tree / "folder", "system.posix_acl_default", ACL_OF_USER_1234)
            print(os.listxattr(tree / "file"), os.listxattr(tree / "folder"))

    install = await store.make(KEY, Building(fill))

    assert os.listxattr(install.tree / "file") == os.listxattr(install.tree / "folder") == []
    assert mode(install.tree / "file") == 0o444


CAP_SETUID = bytes.fromhex("0100000280000000000000000000000000000000")
"""`cap_setuid+ep`, as the kernel keeps it (version 2)."""
ACL_OF_USER_1234 = bytes.fromhex(
    "02000000"  # version 2; then tag, rights, id of each entry
    "01000600ffffffff"
    "02000700d2040000"
    "04000400ffffffff"
    "10000700ffffffff"
    "20000400ffffffff"
)


# -- shapes


async def test_folders_far_too_deep_are_refused_and_removed(store: InstallStore) -> None:
    def fill(tree: Path) -> None:
        here = os.open(tree, os.O_RDONLY)
        for _ in range(1_500):
            os.mkdir("d" * 50, dir_fd=here)
            inner = os.open("d" * 50, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)

    with pytest.raises(BuildFailed, match=r"more than 3072 bytes"):
        await store.make(KEY, Building(fill, owner=None))

    assert staged(store) == []


async def test_folders_as_deep_as_is_allowed_are_kept_and_one_more_is_not(store: InstallStore) -> None:
    def deep(count: int) -> Callable[[Path], None]:
        return lambda tree: tree.joinpath(*["d"] * count).mkdir(parents=True)

    await refused(store, deep(sealing.MAX_DEPTH + 1), "128 folders in each other")

    install = await store.make(KEY, Building(deep(sealing.MAX_DEPTH)))
    assert len(listed(install.tree)) == sealing.MAX_DEPTH
    assert await store.get(KEY) == install


async def test_too_many_files_are_refused(store: InstallStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_ENTRIES", 7)

    await refused(store, cow, "too many files")


async def test_a_message_shows_a_hostile_name_in_one_short_line(store: InstallStore) -> None:
    def fill(tree: Path) -> None:
        here = tree
        for _ in range(15):
            here = here / ("\x1b[2J\n" + "n" * 240)
            here.mkdir()

    with pytest.raises(BuildFailed) as caught:
        await store.make(KEY, Building(fill))

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


# -- a plain user's


@pytest.mark.needs("root")
def test_a_plain_user_seals_what_its_tools_have_closed_to_themselves(common_folder: Path) -> None:
    def work() -> None:
        def fill(tree: Path) -> None:
            cow(tree)
            (tree / "closed").mkdir()
            (tree / "closed" / "file").write_text("moo")
            (tree / "closed" / "file").chmod(0)
            (tree / "closed").chmod(0)
            (tree / "node_modules" / "twin").hardlink_to(tree / "server.js")

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                store = await InstallStore.open(common_folder / "store", LIMIT_BYTES, nursery)
                install = await store.make(KEY, Building(fill, owner=None))
                assert (install.tree / "closed" / "file").read_text() == "moo"
                assert (install.tree / "server.js").stat().st_nlink == 1
                assert mode(store.disk.root) == 0o700
                assert await store.get(KEY) == install
                await store.remove(KEY)
                assert staged(store) == []
                assert store.disk.all_keys() == []

        trio.run(main)

    shutil.chown(common_folder, 61_007, 61_007)
    in_a_child(work, uid=61_007)
