"""Who holds a home, by the kernel's word; and listening sockets that go from one process to another."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane import predecessor, takeover
from controlplane.home import HomeUnusable
from controlplane.takeover import Inheritance, NoOffer
from controlplane.web.listeners import open_listeners

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCKS = """\
1: POSIX  ADVISORY  WRITE 20472 fe:00:10267495 0 EOF
2: FLOCK  ADVISORY  WRITE 18900 fe:00:3588123 0 EOF
2: -> FLOCK  ADVISORY  WRITE 4 fe:00:3588123 0 EOF
3: FLOCK  ADVISORY  READ  11 fe:00:77 0 EOF
4: FLOCK  ADVISORY  WRITE 12 fe:00:88 0 EOF
5: FLOCK  ADVISORY  WRITE 13 fe:01:88 0 EOF
6: FLOCK  ADVISORY  WRITE 0 fe:00:99 0 EOF
"""
TOKEN = "corral_secret"
ABOUT = {"host": "127.0.0.1", "version": "1"}
HOLDER = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("inode", "pid"),
    [(3588123, 18900), (10267495, None), (77, None), (88, None), (99, None), (1, None)],
    ids=["held", "another kind of lock", "shared", "two files of one number", "another namespace's", "nobody"],
)
def test_the_kernel_names_who_holds_a_lock_or_nobody_is_named(inode: int, pid: int | None) -> None:
    assert predecessor.holder_in(LOCKS, inode) == pid


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a home, whatever the file says."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_holder_is_found_and_asked_to_stop(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    (tmp_path / "lock").write_text(f"{os.getpid()}\n")  # a file may say anything
    with predecessor.find(tmp_path) as found:
        assert found is not None
        assert found.pid == holder.pid
        found.ask_to_stop()
        assert holder.wait(10) == -signal.SIGTERM
        found.ask_to_stop()  # no error, and nobody else's signal
    with predecessor.find(tmp_path) as found:
        assert found is None


def test_a_home_that_nobody_holds_has_no_holder(tmp_path: Path) -> None:
    with predecessor.find(tmp_path) as found:
        assert found is None
    (tmp_path / "lock").write_text("1\n")
    with predecessor.find(tmp_path) as found:
        assert found is None


@pytest.mark.usefixtures("holder")
def test_a_holder_that_the_kernel_does_not_name_is_nobodys_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predecessor, "LOCKS", tmp_path / "nothing")
    with pytest.raises(HomeUnusable, match="another container"), predecessor.find(tmp_path):
        pytest.fail("found")


# -- the sockets


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder whose path is too long for a socket."""
    folder = tmp_path / ("deep" * 30) / "run"
    folder.mkdir(parents=True)
    return folder


async def test_whoever_connects_during_a_hand_over_is_answered_by_the_new_one(run: Path) -> None:
    old = open_listeners("127.0.0.1", 0)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(takeover.offer, run, TOKEN, ABOUT, old)
            given = await trio.to_thread.run_sync(takeover.ask, run, TOKEN, os.getpid())
            nursery.cancel_scope.cancel()
    assert list(run.iterdir()) == []
    address = old[0].getsockname()
    for listener in old:
        listener.close()
    with socket.create_connection(address, timeout=5) as caller:  # now that the old one has closed
        caller.sendall(b"hello")
        taken, _ = given.listeners[0].accept()
        with taken:
            taken.settimeout(5)
            assert taken.recv(5) == b"hello"
    assert not any(os.get_inheritable(listener.fileno()) for listener in given.listeners)
    given.close()


@pytest.mark.parametrize(("token", "pid"), [("wrong", None), ("", None), (TOKEN, 1)])
async def test_nobody_gets_them_without_the_token_and_nobody_else_is_asked(
    run: Path, token: str, pid: int | None
) -> None:
    listeners = open_listeners("127.0.0.1", 0)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(takeover.offer, run, TOKEN, ABOUT, listeners)
            assert (run / takeover.SOCKET_NAME).stat().st_mode & 0o777 == 0o600
            with pytest.raises(NoOffer):
                await trio.to_thread.run_sync(takeover.ask, run, token, pid or os.getpid())
            (await trio.to_thread.run_sync(takeover.ask, run, TOKEN, os.getpid())).close()  # it still serves
            nursery.cancel_scope.cancel()
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    "line", [b"[" * 4000 + b"\n", b"\xff\n", b'"\\ud83d"\n', b'{"token":"\\ud83d"}\n', b"1" * 5000, b""]
)
async def test_nothing_that_a_stranger_says_to_the_socket_ends_the_offer(run: Path, line: bytes) -> None:
    """Instances of the same user reach it at some levels of isolation."""
    listeners = open_listeners("127.0.0.1", 0)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(takeover.offer, run, TOKEN, ABOUT, listeners)
            with socket.socket(socket.AF_UNIX) as stranger, takeover._path(run) as path:
                stranger.connect(path)
                stranger.sendall(line)
                stranger.shutdown(socket.SHUT_WR)
                (await trio.to_thread.run_sync(takeover.ask, run, TOKEN, os.getpid())).close()
            nursery.cancel_scope.cancel()
    for listener in listeners:
        listener.close()


async def test_those_who_connect_and_say_nothing_keep_nobody_waiting(run: Path) -> None:
    """An instance of the same user may open as many connections as it likes."""
    with trio.fail_after(10), open_listeners("127.0.0.1", 0)[0] as listener, ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            await nursery.start(takeover.offer, run, TOKEN, ABOUT, [listener])
            path = stack.enter_context(takeover._path(run))
            silent = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(takeover.MAX_ASKING)]
            for stranger in silent:
                stranger.connect(path)
            (await trio.to_thread.run_sync(takeover.ask, run, TOKEN, os.getpid())).close()
            silent[0].settimeout(takeover.EXCHANGE_S / 2)
            assert await trio.to_thread.run_sync(silent[0].recv, 1) == b""  # the oldest made room
            nursery.cancel_scope.cancel()


async def test_who_asks_in_vain_again_and_again_is_one_line_of_the_log(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(10), open_listeners("127.0.0.1", 0)[0] as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(takeover.offer, run, TOKEN, ABOUT, [listener])
            for token in ("wrong", "", "wrong"):
                with pytest.raises(NoOffer):
                    await trio.to_thread.run_sync(takeover.ask, run, token, os.getpid())
            (await trio.to_thread.run_sync(takeover.ask, run, TOKEN, os.getpid())).close()
            nursery.cancel_scope.cancel()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "somebody asked for the listening sockets, and got none"
    ]


async def test_one_that_is_stopping_hands_nothing_over(run: Path) -> None:
    listeners = open_listeners("127.0.0.1", 0)
    for listener in listeners:
        listener.close()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(takeover.offer, run, TOKEN, ABOUT, listeners)
            with pytest.raises(NoOffer):
                await trio.to_thread.run_sync(takeover.ask, run, TOKEN, os.getpid())
            nursery.cancel_scope.cancel()


def test_an_older_one_without_the_socket_and_a_killed_one_hand_nothing_over(run: Path) -> None:
    with pytest.raises(NoOffer):
        takeover.ask(run, TOKEN, os.getpid())
    with socket.socket(socket.AF_UNIX) as door, takeover._path(run) as path:
        door.bind(path)
    with pytest.raises(NoOffer):  # the name of a socket that nobody listens on
        takeover.ask(run, TOKEN, os.getpid())


@pytest.mark.parametrize(
    ("host", "port", "fits"), [("127.0.0.1", 0, True), ("127.0.0.1", -1, True), ("0.0.0.0", -1, False), ("127.0.0.1", 1, False)]
)  # fmt: skip
def test_sockets_are_taken_where_they_are_what_is_configured(host: str, port: int, fits: bool) -> None:
    """Port -1 stands for the very one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        given = Inheritance("127.0.0.1", "1", (listener,))
        assert given.fits(host, listener.getsockname()[1] if port == -1 else port) is fits
