"""What Landlock lets a process reach: one attempt in one process, and what comes of it."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from controlplane.spawn import landlock
from tests.needs import skip_for
from tests.spawn.children import PATH, PYTHON
from tests.spawn.restricted import ALLOWED, outcome, run

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ssl", "/proc")
DEVICES = ("/dev/null",)

pytestmark = pytest.mark.needs("landlock")


@pytest.fixture(params=["plain", "as_is"])
def user(request: pytest.FixtureRequest, uid: int | None) -> int | None:
    """An instance's user, without capabilities; and whoever runs the tests, with all that root may do."""
    return uid if request.param == "plain" else None


@frozen
class Place:
    """`own` may be written, `shared` be read; `other` is another instance's, of the same user."""

    own: Path
    shared: Path
    other: Path
    neighbour: int
    """The pid of a process of the same user, outside."""
    listener: socket.socket
    """TCP on loopback."""
    abstract: str
    path_socket: str

    def rules(self, **changes: object) -> landlock.Ruleset:
        rules = landlock.Ruleset((*SYSTEM, str(self.shared)), (*DEVICES, str(self.own)))
        return rules._replace(**changes)

    def restrict(self, **changes: object) -> Callable[[], None]:
        return functools.partial(landlock.restrict, self.rules(**changes))


def _give(folder: Path, user: int | None) -> None:
    for path in (folder, *folder.iterdir()):
        if user is not None:
            os.chown(path, user, user)


@pytest.fixture
def place(common_folder: Path, user: int | None) -> Iterator[Place]:
    folders = [common_folder / name for name in ("own", "shared", "other")]
    for folder in folders:
        folder.mkdir()
        (folder / "file").write_text("#!/bin/sh\n")
        (folder / "file").chmod(0o755)
        _give(folder, user)
    sleeper = subprocess.Popen(
        ["sleep", "40"], env={"SECRET": "x"}, user=user, group=user, extra_groups=None if user is None else []
    )
    abstract = f"\0corral-{common_folder.name}"
    path_socket = str(folders[2] / "socket")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as one:
        with socket.socket(socket.AF_UNIX) as two:
            one.bind(abstract)
            two.bind(path_socket)
            Path(path_socket).chmod(0o777)
            one.listen()
            two.listen()
            yield Place(*folders, sleeper.pid, tcp, abstract, path_socket)
    sleeper.kill()
    sleeper.wait()


def _connect(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address)


def _own_abstract_socket(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{place.abstract}-own")
        server.listen()
        _connect(f"{place.abstract}-own")


def _end_own_child() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


FILES: dict[str, tuple[Callable[[Place], object], str]] = {
    "read in its own folder": (lambda at: (at.own / "file").read_text(), ALLOWED),
    "write in its own folder": (lambda at: (at.own / "file").write_text("x"), ALLOWED),
    "make folders in its own": (lambda at: (at.own / "a" / "b").mkdir(parents=True), ALLOWED),
    "make a link in its own": (lambda at: (at.own / "link").symlink_to("file"), ALLOWED),
    "make a socket in its own": (lambda at: socket.socket(socket.AF_UNIX).bind(str(at.own / "socket")), ALLOWED),
    "rename within its own": (lambda at: ((at.own / "d").mkdir(), (at.own / "file").rename(at.own / "d/f")), ALLOWED),
    "remove in its own": (lambda at: (at.own / "file").unlink(), ALLOWED),
    "run in its own": (lambda at: os.posix_spawn(at.own / "file", ["file"], {}), ALLOWED),
    "read what is shared": (lambda at: (at.shared / "file").read_text(), ALLOWED),
    "list what is shared": (lambda at: os.listdir(at.shared), ALLOWED),
    "run what is shared": (lambda at: os.posix_spawn(at.shared / "file", ["file"], {}), ALLOWED),
    "write what is shared": (lambda at: (at.shared / "file").write_text("x"), "EACCES"),
    "make a file in what is shared": (lambda at: (at.shared / "new").touch(), "EACCES"),
    "remove what is shared": (lambda at: (at.shared / "file").unlink(), "EACCES"),
    "write a device that is given": (lambda at: Path("/dev/null").write_text("x"), ALLOWED),
    "read another's file": (lambda at: (at.other / "file").read_text(), "EACCES"),
    "list another's folder": (lambda at: os.listdir(at.other), "EACCES"),
    "write another's file": (lambda at: (at.other / "file").write_text("x"), "EACCES"),
    "run another's file": (lambda at: os.posix_spawn(at.other / "file", ["file"], {}), "EACCES"),
    "remove another's file": (lambda at: (at.other / "file").unlink(), "EACCES"),
    "take another's file away": (lambda at: (at.other / "file").rename(at.own / "taken"), "EACCES"),
    "link to another's file": (lambda at: (at.own / "taken").hardlink_to(at.other / "file"), "EXDEV"),
    "follow a link to another's file": (
        lambda at: ((at.own / "way").symlink_to(at.other / "file"), (at.own / "way").read_text()),
        "EACCES",
    ),
    "list the root": (lambda at: os.listdir("/"), "EACCES"),
    "read a device that is not given": (lambda at: Path("/dev/zero").open("rb").close(), "EACCES"),
    "write below /var/tmp": (lambda at: (at.own.parent / "new").touch(), "EACCES"),
}


@pytest.mark.parametrize("what", FILES)
def test_files_are_reached_where_a_rule_allows_it_and_nowhere_else(place: Place, user: int | None, what: str) -> None:
    attempt, expected = FILES[what]
    assert outcome(lambda: attempt(place), place.restrict(), uid=user) == expected


@pytest.mark.parametrize(
    ("since", "attempt"),
    [
        (3, lambda at: os.truncate(at.other / "file", 0)),
        (6, lambda at: _connect(at.abstract)),
        (6, lambda at: os.kill(at.neighbour, signal.SIGTERM)),
    ],
    ids=["truncate another's file", "reach another's abstract socket", "signal another"],
)
def test_a_later_abi_covers_more(
    place: Place, user: int | None, since: int, attempt: Callable[[Place], object]
) -> None:
    refused = outcome(lambda: attempt(place), place.restrict(), uid=user) in ("EACCES", "EPERM")
    assert refused is (landlock.abi() >= since)


def test_what_a_process_starts_itself_it_may_signal_and_talk_to(place: Place, user: int | None) -> None:
    assert outcome(_end_own_child, place.restrict(), uid=user) == ALLOWED
    assert outcome(lambda: _own_abstract_socket(place), place.restrict(), uid=user) == ALLOWED


@pytest.mark.parametrize("name", ["environ", "maps", "mem", "fd/0", "cwd"])
def test_a_neighbour_of_the_same_user_keeps_its_memory_and_environment_to_itself(
    place: Place, uid: int | None, user: int | None, name: str
) -> None:
    if uid is not None and user is None:
        return  # root's capabilities reach further than Landlock: nothing ever runs so
    path = Path("/proc", str(place.neighbour), name)
    look = path.readlink if name in ("fd/0", "cwd") else lambda: path.open("rb").close()
    assert outcome(look, uid=user) == ALLOWED
    assert outcome(look, place.restrict(), uid=user) == "EACCES"


def _connect_tcp(place: Place) -> None:
    socket.create_connection(place.listener.getsockname(), timeout=10).close()


def _bind_tcp(_place: Place) -> None:
    socket.create_server(("127.0.0.1", 0)).close()


@pytest.mark.parametrize("attempt", [_connect_tcp, _bind_tcp])
def test_tcp_is_free_unless_there_is_to_be_no_network(
    place: Place, user: int | None, attempt: Callable[[Place], None]
) -> None:
    assert outcome(lambda: attempt(place), place.restrict(), uid=user) == ALLOWED
    expected = "EACCES" if landlock.abi() >= landlock.TCP_ABI else ALLOWED
    assert outcome(lambda: attempt(place), place.restrict(no_network=True), uid=user) == expected


@pytest.mark.parametrize(
    "attempt",
    [
        lambda at: (at.other / "file").stat(),
        lambda at: (at.other / "file").chmod(0o777),
        lambda at: os.utime(at.other / "file"),
        lambda at: _connect(at.path_socket),
    ],
    ids=["stat", "chmod", "utime", "connect to a socket with a path"],
)
def test_what_landlock_does_not_cover_is_the_file_modes_to_forbid(
    place: Place, user: int | None, attempt: Callable[[Place], object]
) -> None:
    assert outcome(lambda: attempt(place), place.restrict(), uid=user) == ALLOWED


def test_a_readable_path_that_is_not_there_or_out_of_reach_is_left_out(place: Place, uid: int | None) -> None:
    closed = place.own.parent / "closed"
    closed.mkdir(mode=0o700)
    missing = ("/no/such/folder", str(place.shared / "file" / "below"), str(closed / "file"))
    rules = place.restrict(readable=(*SYSTEM, *missing))
    assert outcome((place.own / "file").read_text, rules, uid=uid) == ALLOWED


@pytest.mark.parametrize(
    ("path", "number", "words"),
    [("none", errno.ENOENT, "No such file"), ("file/none", errno.ENOTDIR, "Not a dir"), ("way", errno.ELOOP, "link")],
)
def test_a_writable_path_must_be_there_and_be_no_link(common_folder: Path, path: str, number: int, words: str) -> None:
    (common_folder / "file").touch()
    (common_folder / "way").symlink_to("file")
    with pytest.raises(OSError, match=rf"{path} cannot be made writable: .*{words}") as refused:
        landlock.restrict(landlock.Ruleset((), (str(common_folder / path),)))  # it fails before it restricts us
    assert refused.value.errno == number


def test_a_single_file_can_be_given_to_write(place: Place, user: int | None) -> None:
    rules = place.restrict(writable=(str(place.other / "file"),))
    assert outcome(lambda: (place.other / "file").write_text("x"), rules, uid=user) == ALLOWED
    assert outcome((place.other / "new").touch, rules, uid=user) == "EACCES"


def test_rules_only_ever_get_narrower(place: Place, user: int | None) -> None:
    everything = functools.partial(landlock.restrict, landlock.Ruleset(("/",), ("/",)))
    assert outcome((place.other / "file").read_text, place.restrict(), everything, uid=user) == "EACCES"


def test_python_runs_in_its_own_folder(place: Place, user: int | None) -> None:
    if not PYTHON.startswith("/usr/"):
        skip_for("system_python")
    program = "import os, ssl, sqlite3, tempfile; print(tempfile.mkdtemp().startswith(os.environ['TMPDIR']))"
    env = {"PATH": PATH, "TMPDIR": str(place.own), "PYTHONDONTWRITEBYTECODE": "1"}
    assert run([PYTHON, "-c", program], place.restrict(), uid=user, env=env) == (0, "True\n")


@pytest.mark.needs("node")
def test_node_runs_in_its_own_folder(place: Place, user: int | None) -> None:
    node = shutil.which("node", path=PATH)
    if node is None or not node.startswith("/usr/"):
        skip_for("node")
    program = "const fs = require('fs'); fs.writeFileSync('x', '1'); try { fs.readdirSync('/') } catch (e) { console.log(e.code) }"
    command = f'cd {place.own} && exec {node} -e "{program}"'
    assert run(["/bin/sh", "-c", command], place.restrict(), uid=user, env={"PATH": PATH}) == (0, "EACCES\n")


@pytest.mark.parametrize(
    ("version", "rights"), [(1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (4, 0x7FFF), (5, 0xFFFF), (9, 0xFFFF)]
)
def test_the_rights_are_those_that_an_abi_knows(version: int, rights: int) -> None:
    assert landlock.fs_rights(version) == rights
