"""What an instance finds when it starts, and that nothing an earlier run left there is ever followed."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from attrs import define, evolve

from controlplane.core.lifecycle import State
from controlplane.deploy import trees
from controlplane.deploy.prepare import HostPrepare
from controlplane.deploy.toolchain import Toolchain
from controlplane.errors import BuildFailed, SourceRejected
from controlplane.model import Instance, Limits
from controlplane.spawn.uids import UidPool
from tests.deploy.conftest import Quiet, command, direct, host, instance_of
from tests.forked import in_a_child

if TYPE_CHECKING:
    from controlplane.supervise.launch import Launch

FILESYSTEM = "@modelcontextprotocol/server-filesystem"
NOBODY = 65534
DEEP = 1_500
"""Deeper than Python recurses, and as a path far longer than the kernel takes."""
WAIT_S = 60.0


async def prepared(prepare: HostPrepare, instance: Instance) -> Launch:
    with trio.fail_after(WAIT_S):
        return await prepare.prepare(instance, Quiet())


def folder_of(prepare: HostPrepare, instance: Instance) -> Path:
    return prepare.instances / str(instance.id)


def tree_of(prepare: HostPrepare, instance: Instance) -> Path:
    """Where its source stands."""
    (tree,) = folder_of(prepare, instance).glob("app-*")
    return tree


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# -- what an instance finds


async def test_the_folder_is_corrals_and_its_parts_are_the_instances_alone(prepare: HostPrepare) -> None:
    instance = direct()

    launch = await prepared(prepare, instance)

    folder = folder_of(prepare, instance)
    owner = os.geteuid() if launch.uid is None else launch.uid
    assert (folder.stat().st_uid, mode(folder)) == (os.geteuid(), 0o700 if launch.uid is None else 0o711)
    tree = tree_of(prepare, instance)
    assert sorted(path.name for path in folder.iterdir()) == [tree.name, "home", "tmp", "work"]
    for part in folder.iterdir():
        assert (part.stat().st_uid, mode(part)) == (owner, 0o700)
    source = tree / "server.py"
    assert source.read_bytes() == b"print('moo')\n"
    assert (source.stat().st_uid, mode(source)) == (owner, 0o600)
    assert [path.name for path in source.parent.iterdir()] == ["server.py"], "nothing half-written is left"


async def test_a_source_is_launched_by_its_languages_recipe_in_its_folder(prepare: HostPrepare) -> None:
    instance = direct(
        env={"GREETING": "moo", "LANG": "de"}, limits=Limits(memory_mb=100, disk_mb=3, processes=7, open_files=99)
    )

    launch = await prepared(prepare, instance)

    assert launch.argv == ("python", "server.py")
    assert launch.cwd == str(tree_of(prepare, instance))
    assert launch.env["GREETING"] == "moo"
    assert launch.env["LANG"] == "de", "the owner's own word wins"
    assert launch.env["PYTHONDONTWRITEBYTECODE"] == "1"
    assert launch.rlimits["NOFILE"] == 99
    assert launch.rlimits["FSIZE"] == 3 * 2**20
    assert launch.rlimits["DATA"] == 512 * 2**20, "less and Node does not even start"
    assert launch.rlimits.get("NPROC") == (None if launch.uid is None else 7)
    assert launch.isolation == "process"


async def test_the_environment_is_a_list_of_what_is_allowed(prepare: HostPrepare) -> None:
    instance = command("cow")

    launch = await prepared(prepare, instance)

    home = str(folder_of(prepare, instance) / "home")
    assert launch.env["HOME"] == home
    assert launch.env["PATH"] == "/opt/corral/bin:/usr/bin:/bin"
    assert launch.env["HTTPS_PROXY"] == "http://proxy:3128"
    assert "SECRET" not in launch.env
    assert not any(name.startswith("CORRAL_") for name in launch.env)
    assert all(
        value.startswith(home) for name, value in launch.env.items() if name in ("npm_config_cache", "UV_CACHE_DIR")
    )


@pytest.mark.parametrize(("cwd", "expected"), [(None, "work"), ("sub", "work/sub"), ("/srv/data", "/srv/data")])
async def test_a_command_runs_where_it_asks_to(prepare: HostPrepare, cwd: str | None, expected: str) -> None:
    instance = command("cow", "--moo", cwd=cwd)

    launch = await prepared(prepare, instance)

    assert launch.argv == ("cow", "--moo")
    assert launch.cwd == str(folder_of(prepare, instance) / expected)


async def test_a_tmp_of_its_own_is_given_where_the_host_can(common_folder: Path, uids: UidPool) -> None:
    instance = command("cow")
    folder = common_folder / "instances" / str(instance.id)

    private = await prepared(host(common_folder, uids), instance)
    assert (private.private_tmp, private.env["TMPDIR"]) == (str(folder / "tmp"), "/tmp")

    shared = await prepared(host(common_folder, uids, private_tmp=False), instance_of(instance.spec))
    assert shared.private_tmp is None
    assert shared.env["TMPDIR"].startswith(str(common_folder))


@pytest.mark.parametrize(
    "instance", [command("npx", "-y", "x"), evolve(direct(), spec=evolve(direct().spec, language="node"))]
)
async def test_a_tool_that_the_host_has_not_is_said_before_anything_is_made(
    prepare: HostPrepare, instance: Instance
) -> None:
    with pytest.raises(SourceRejected, match=r"this host has no (npx|node)"):
        await prepared(prepare, instance)

    assert not folder_of(prepare, instance).exists()


async def test_a_disk_that_takes_nothing_is_a_failure_with_a_reason(prepare: HostPrepare) -> None:
    prepare.instances.rmdir()
    prepare.instances.write_text("in the way")

    with pytest.raises(BuildFailed, match="could not be made: Not a directory"):
        await prepared(prepare, direct())


async def test_a_command_that_is_no_tool_of_ours_is_looked_up_later(prepare: HostPrepare) -> None:
    assert (await prepared(prepare, command("./cow"))).argv == ("./cow",)


# -- again and again


async def test_preparing_again_finds_everything_in_place_and_the_source_as_deployed(prepare: HostPrepare) -> None:
    instance = direct()
    first = await prepared(prepare, instance)
    folder = folder_of(prepare, instance)
    source = tree_of(prepare, instance) / "server.py"
    source.write_text("import os; os.abort()")
    (folder / "home" / "cache").write_text("warm")

    second = await prepared(prepare, evolve(instance, uid=first.uid))

    assert second == first
    assert source.read_bytes() == b"print('moo')\n"
    assert (folder / "home" / "cache").read_text() == "warm"


async def test_a_removed_instance_leaves_no_file_and_gives_its_user_back(prepare: HostPrepare) -> None:
    instance = direct()
    launch = await prepared(prepare, instance)
    (folder_of(prepare, instance) / "home" / "a").mkdir()

    await prepare.discard(evolve(instance, uid=launch.uid))
    await prepare.discard(evolve(instance, uid=launch.uid))

    assert list(prepare.instances.iterdir()) == []
    if launch.uid is not None:
        assert prepare.uids.claim(launch.uid) == launch.uid


@pytest.mark.needs("root")
async def test_two_instances_never_have_one_user(prepare: HostPrepare) -> None:
    instances = [direct(), direct(), command("cow")]

    launches = [await prepared(prepare, instance) for instance in instances]
    await prepared(prepare, instances[0])

    assert len({launch.uid for launch in launches}) == 3


@pytest.mark.needs("root")
async def test_a_user_that_is_taken_is_replaced_and_the_files_change_hands(prepare: HostPrepare) -> None:
    instance = direct()
    first = await prepared(prepare, instance)
    home = folder_of(prepare, instance) / "home"
    plant(home, first.uid, lambda: (Path("d").mkdir(), Path("d/file").write_text("x"), Path("link").symlink_to("d")))
    (home / "d" / "roots").write_text("not the instance's")
    again = HostPrepare(prepare.config, prepare.instances, prepare.toolchain, prepare.uids, True, {})

    second = await prepared(again, evolve(instance, uid=first.uid))

    assert second.uid not in (None, first.uid)
    for path in (home, home / "d", home / "d" / "file", home / "link"):
        assert path.lstat().st_uid == second.uid
    assert (home / "d" / "roots").stat().st_uid == 0


async def test_a_candidate_has_a_tree_of_its_own_beside_the_running_one(prepare: HostPrepare) -> None:
    instance = direct()
    await prepared(prepare, instance)
    running = evolve(instance, state=State.RUNNING)
    first = tree_of(prepare, instance)
    (first / "server.py").write_text("in use")

    launch = await prepared(prepare, evolve(running, spec=evolve(instance.spec, source=b"print('baa')\n")))

    assert Path(launch.cwd) != first
    assert (Path(launch.cwd) / "server.py").read_bytes() == b"print('baa')\n"
    assert (first / "server.py").read_text() == "in use", "what runs is left alone"

    same = await prepared(prepare, running)
    assert Path(same.cwd) == first
    assert (first / "server.py").read_text() == "in use"


async def test_trees_of_earlier_revisions_go_at_the_next_start(prepare: HostPrepare) -> None:
    instance = direct()
    await prepared(prepare, instance)
    first = tree_of(prepare, instance)

    await prepared(prepare, evolve(instance, spec=evolve(instance.spec, source=b"print('baa')\n")))

    assert tree_of(prepare, instance) != first


# -- what an earlier run may have planted


def plant(at: Path, uid: int | None, work: Callable[[], object]) -> None:
    """Do what a server could have done in its folder, as its user."""

    def there() -> None:
        os.chdir(at)
        work()

    if uid is None:
        before = Path.cwd()
        try:
            there()
        finally:
            os.chdir(before)
    else:
        in_a_child(there, uid=uid)


@define
class Outside:
    """A folder of somebody else's, and what it must still be in the end."""

    folder: Path

    def assert_untouched(self) -> None:
        assert sorted(path.name for path in self.folder.iterdir()) == ["file"]
        assert (self.folder / "file").read_text() == "precious"
        assert (self.folder / "file").stat().st_uid == os.geteuid()
        assert self.folder.stat().st_uid == os.geteuid()
        assert mode(self.folder) == 0o755


@pytest.fixture
def outside(common_folder: Path) -> Iterator[Outside]:
    folder = common_folder / "outside"
    folder.mkdir(mode=0o755)
    (folder / "file").write_text("precious")
    opened = Outside(folder)
    yield opened
    opened.assert_untouched()


def make_deep(depth: int) -> None:
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    Path("file").write_text("x")


PLANTS: list[tuple[str, Callable[[Path], object]]] = [
    ("a link for the source", lambda to: (Path("server.py").unlink(), os.symlink(to / "file", "server.py"))),
    ("a link for the staged source", lambda to: os.symlink(to / "file", ".server.py.new")),
    ("a dangling link for the staged source", lambda to: os.symlink(to / "new", ".server.py.new")),
    ("a folder for the source", lambda to: (Path("server.py").unlink(), Path("server.py/a").mkdir(parents=True))),
    ("a link to a folder for the source", lambda to: (Path("server.py").unlink(), os.symlink(to, "server.py"))),
    ("a folder for the staged source", lambda to: Path(".server.py.new/a/b").mkdir(parents=True)),
    ("a pipe for the staged source", lambda to: os.mkfifo(".server.py.new")),
    ("a second name for the source", lambda to: os.link("server.py", "again.py")),
    ("a link to a folder", lambda to: os.symlink(to, "link")),
    ("a link to the root", lambda to: os.symlink("/", "root")),
    ("a link to itself", lambda to: os.symlink("loop", "loop")),
    ("names that are no text", lambda to: os.mkdir(b"\xff\xfe")),
    (
        "a closed folder",
        lambda to: (Path("closed/a").mkdir(parents=True), os.chmod("closed/a", 0o500), os.chmod("closed", 0)),
    ),
]


@pytest.mark.parametrize("work", [row[1] for row in PLANTS], ids=[row[0] for row in PLANTS])
async def test_what_an_earlier_run_planted_is_never_followed(
    prepare: HostPrepare, outside: Outside, work: Callable[[Path], object]
) -> None:
    instance = direct()
    first = await prepared(prepare, instance)
    at = tree_of(prepare, instance)
    plant(at, first.uid, lambda: work(outside.folder))

    await prepared(prepare, instance)
    assert (at / "server.py").is_file()
    assert not (at / "server.py").is_symlink()
    assert (at / "server.py").read_bytes() == b"print('moo')\n"
    outside.assert_untouched()

    await moved_to_another_user(prepare, evolve(instance, uid=first.uid))
    outside.assert_untouched()

    await prepare.discard(instance)
    assert not folder_of(prepare, instance).exists()


async def moved_to_another_user(prepare: HostPrepare, instance: Instance) -> None:
    """Its user is taken (by itself, in the control plane's earlier life): the files change hands."""
    again = HostPrepare(prepare.config, prepare.instances, prepare.toolchain, prepare.uids, True, {})
    launch = await prepared(again, instance)
    if launch.uid is not None:
        assert launch.uid != instance.uid
        parts = (folder_of(prepare, instance) / "work", tree_of(prepare, instance))
        assert {path.lstat().st_uid for part in parts for path in (part, *part.iterdir())} == {launch.uid}


def test_a_closed_folder_is_never_opened_through_a_link_that_took_its_place(outside: Outside) -> None:
    link = outside.folder.with_name("link")
    link.symlink_to(outside.folder)

    trees.make_enterable(link, None)


async def test_however_deep_a_tree_is_it_changes_hands_and_goes(prepare: HostPrepare) -> None:
    instance = direct()
    first = await prepared(prepare, instance)
    plant(folder_of(prepare, instance) / "work", first.uid, lambda: make_deep(DEEP))

    await moved_to_another_user(prepare, evolve(instance, uid=first.uid))
    await prepare.discard(instance)

    assert not folder_of(prepare, instance).exists()


@pytest.mark.parametrize("part", ["home", "work", "tmp", "."])
async def test_a_link_in_place_of_a_folder_of_ours_is_replaced(
    prepare: HostPrepare, outside: Outside, part: str
) -> None:
    """A server that runs as Corral's own user can do this; Corral may be root the next time."""
    instance = direct()
    await prepared(prepare, instance)
    planted = folder_of(prepare, instance) / part
    shutil.rmtree(planted)
    planted.symlink_to(outside.folder)

    await prepared(prepare, instance)

    assert planted.is_dir()
    assert not planted.is_symlink()
    outside.assert_untouched()


@pytest.mark.needs("root")
async def test_what_a_plain_user_left_is_taken_over_by_root(prepare: HostPrepare) -> None:
    instance = direct()
    folder = folder_of(prepare, instance)
    prepare.instances.chmod(0o777)
    plant(
        prepare.instances,
        NOBODY,
        lambda: (Path(f"{instance.id}/work/a").mkdir(parents=True), Path(f"{instance.id}/home").mkdir(parents=True)),
    )

    launch = await prepared(prepare, instance)

    assert folder.stat().st_uid == 0
    assert (folder / "work" / "a").stat().st_uid == launch.uid


# -- folders below /tmp


@pytest.fixture
def tmp_name() -> Iterator[str]:
    name = f"corral-test-{secrets.token_hex(6)}"
    yield name
    shutil.rmtree(f"/tmp/{name}", ignore_errors=True)


async def test_a_folder_below_tmp_that_the_command_names_is_made(
    common_folder: Path, uids: UidPool, tmp_name: str
) -> None:
    instance = command("mcp-server-filesystem", f"/tmp/{tmp_name}/a", "--x=/tmp/no", cwd=f"/tmp/{tmp_name}")

    private = await prepared(host(common_folder, uids), instance)
    assert (common_folder / "instances" / str(instance.id) / "tmp" / tmp_name / "a").is_dir()
    assert not Path("/tmp", tmp_name).exists()
    assert private.cwd == f"/tmp/{tmp_name}"

    shared = await prepared(host(common_folder, uids, private_tmp=False), instance_of(instance.spec))
    made = Path("/tmp", tmp_name, "a")
    owner = os.geteuid() if shared.uid is None else shared.uid
    assert (made.stat().st_uid, mode(made)) == (owner, 0o700)
    assert sorted(path.name for path in made.parent.iterdir()) == ["a"]


@pytest.mark.parametrize(
    ("argv", "made"),
    [
        (["npx", "-y", FILESYSTEM, "/tmp/a", "/tmp/b.d/c"], {"a", "b.d", "b.d/c"}),
        (["npx", "-y", f"{FILESYSTEM}@2026.1.14", "/tmp/a"], {"a"}),
        (["/opt/bin/mcp-server-filesystem", "/tmp/a"], {"a"}),
        (["npx", "-y", "@modelcontextprotocol/server-memory", "/tmp/a"], set()),
        (["uvx", "mcp-server-sqlite", "--db-path", "/tmp/a"], set()),
        (["listener", "--socket", "/tmp/server-filesystem"], set()),
    ],
)
async def test_only_a_server_whose_arguments_are_folders_finds_them_made(
    common_folder: Path, uids: UidPool, argv: list[str], made: set[str]
) -> None:
    """Another one's may be meant for a file or a socket."""
    instance = command(*argv)
    tools = Toolchain(path="/usr/bin", tools={"npx": "/usr/bin/npx", "uvx": "/usr/bin/uvx"})

    prepare = evolve(host(common_folder, uids), toolchain=tools)
    await prepared(prepare, instance)

    tmp = folder_of(prepare, instance) / "tmp"
    assert {str(path.relative_to(tmp)) for path in tmp.rglob("*")} == made


@pytest.mark.parametrize(
    "word",
    ["/tmp/../etc/x", "/tmp/" + "n" * 300, "/tmp/" + "d/" * 3000, "/tmp/", "/tmp//", "/tmp", "/tmpx/y"],
)
async def test_words_that_name_no_folder_that_could_be_made_are_the_servers_business(
    prepare: HostPrepare, word: str
) -> None:
    instance = command("mcp-server-filesystem", word)

    await prepared(prepare, instance)

    await prepare.discard(instance)
    assert not folder_of(prepare, instance).exists()


@pytest.mark.parametrize("private", [True, False])
async def test_a_link_below_tmp_is_never_followed(
    common_folder: Path, uids: UidPool, outside: Outside, tmp_name: str, private: bool
) -> None:
    prepare = host(common_folder, uids, private_tmp=private)
    instance = command("mcp-server-filesystem", f"/tmp/{tmp_name}/sub/deeper")
    first = await prepared(prepare, instance)
    root = folder_of(prepare, instance) / "tmp" if private else Path("/tmp")
    shutil.rmtree(root / tmp_name / "sub")
    plant(root / tmp_name, first.uid, lambda: os.symlink(outside.folder, "sub"))

    await prepared(prepare, instance)

    outside.assert_untouched()


@pytest.mark.needs("root")
async def test_nothing_is_made_in_a_folder_of_somebody_elses_below_tmp(
    common_folder: Path, uids: UidPool, tmp_name: str
) -> None:
    theirs = Path("/tmp", tmp_name)
    theirs.mkdir(mode=0o700)
    os.chown(theirs, NOBODY, NOBODY)

    instance = command("mcp-server-filesystem", f"/tmp/{tmp_name}/mine")
    await prepared(host(common_folder, uids, private_tmp=False), instance)

    assert list(theirs.iterdir()) == []


# -- as a plain user


@pytest.mark.needs("root")
def test_all_of_it_works_for_a_plain_user(common_folder: Path) -> None:
    mine = common_folder / "plain"
    mine.mkdir(mode=0o700)
    os.chown(mine, NOBODY, NOBODY)
    theirs = Path("/tmp") / f"corral-test-{secrets.token_hex(6)}"
    theirs.mkdir(mode=0o700)

    async def whole_life() -> None:
        prepare = host(mine, UidPool(-1))
        instance = direct()
        launch = await prepared(prepare, instance)
        work = Path(launch.cwd)
        assert (launch.uid, work.stat().st_uid, "NPROC" in launch.rlimits) == (None, NOBODY, False)
        os.chdir(work)
        Path("closed/a").mkdir(parents=True)
        os.chmod("closed/a", 0)
        os.chmod("closed", 0o500)
        make_deep(DEEP)
        os.chdir("/")
        await prepared(prepare, instance)
        await prepare.discard(instance)
        assert not work.parent.exists()
        await prepared(host(mine, UidPool(-1), private_tmp=False), command("mcp-server-filesystem", f"{theirs}/x"))

    try:
        in_a_child(lambda: trio.run(whole_life), uid=NOBODY)
        assert list(theirs.iterdir()) == []
    finally:
        theirs.rmdir()
    assert sys.getrecursionlimit() < DEEP, "or the depth proves nothing"
