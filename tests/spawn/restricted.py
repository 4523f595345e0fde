"""Try one thing in a forked process that has been restricted first, and say what came of it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import warnings
from collections.abc import Callable, Iterable
from typing import NoReturn

from controlplane.spawn import linux

ALLOWED = "allowed"
LIFE_S = 30
"""After this the kernel ends the process."""

_libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int) -> int:
    """A system call by number; raises OSError."""
    result: int = _libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def outcome(attempt: Callable[[], object], *restrictions: Callable[[], None], uid: int | None) -> str:
    """`allowed`, the name of the errno, or that of the signal which ended it.

    Args:
        attempt: Raises OSError when it is refused.
        restrictions: Done before, in this order.
        uid: The user to become, without any capability; None to stay as we are.
    """

    def work(report_fd: int) -> None:
        _restrict(restrictions, uid)
        try:
            attempt()
        except OSError as error:
            os.write(report_fd, errno.errorcode[error.errno or 0].encode())
        else:
            os.write(report_fd, ALLOWED.encode())

    said, status = _in_a_child(work)
    return said or signal.Signals(-status).name


def run(argv: list[str], *restrictions: Callable[[], None], uid: int | None, env: dict[str, str]) -> tuple[int, str]:
    """Run a program likewise: its status, and what it wrote on both its outputs."""

    def work(report_fd: int) -> None:
        os.dup2(report_fd, 1)
        os.dup2(report_fd, 2)
        os.chdir("/")
        _restrict(restrictions, uid)
        os.execve(argv[0], argv, env)

    said, status = _in_a_child(work)
    return status, said


def _restrict(restrictions: Iterable[Callable[[], None]], uid: int | None) -> None:
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        linux.drop_capabilities()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    for restriction in restrictions:
        restriction()


def _in_a_child(work: Callable[[int], None]) -> tuple[str, int]:
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: worker threads; the child uses none of their locks
        pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.alarm(LIFE_S)
        _end(work, writer)
    os.close(writer)
    with open(reader, errors="replace") as said:
        text = said.read()
    return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _end(work: Callable[[int], None], writer: int) -> NoReturn:
    status = 1
    try:
        work(writer)
        status = 0
    except BaseException as error:
        os.write(writer, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(status)
