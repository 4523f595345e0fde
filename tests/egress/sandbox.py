"""Programs in a real network namespace, and the servers that they try to reach."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.needs import skip_for
from tests.spawn.children import PATH, PYTHON

if TYPE_CHECKING:
    from controlplane.egress.policy import Policy

ENTER = Path(__file__).with_name("enter.py")
TIMEOUT_S = 40
PLAIN_UID = 61234
"""Of no account; only these tests' processes have it, for their length."""
GREETING = b"hello from outside"


def users() -> list[Any]:
    """Who makes sandboxes here: root, and a plain user with a user namespace of its own."""
    needs = pytest.mark.needs
    if os.getuid() != 0:
        return [pytest.param(os.getuid(), id="plain", marks=needs("user_namespaces"))]
    return [
        pytest.param(0, id="root", marks=needs("root")),
        pytest.param(PLAIN_UID, id="plain", marks=needs("root", "user_namespaces")),
    ]


def _command(report_fd: int, policy: Policy, uid: int | None, gated: bool, argv: Sequence[str]) -> list[str]:
    loopback = json.dumps(policy.loopback) if gated else "none"
    user = os.getuid() if uid is None else uid
    return [sys.executable, "-I", "-S", str(ENTER), str(report_fd), str(user), loopback, *argv]


async def run(
    report_fd: int,
    policy: Policy,
    argv: Sequence[str],
    *,
    uid: int | None = None,
    gated: bool = True,
    env: Mapping[str, str] | None = None,
) -> str:
    """What a program in a sandbox of its own prints. Closes the descriptor."""
    try:
        with trio.fail_after(TIMEOUT_S):
            done = await trio.run_process(
                _command(report_fd, policy, uid, gated, argv),
                pass_fds=[report_fd],
                env={"PATH": PATH, **(env or {})},
                capture_stdout=True,
                stdin=subprocess.DEVNULL,
            )
    finally:
        os.close(report_fd)
    return done.stdout.decode().strip()


@asynccontextmanager
async def started(report_fd: int, policy: Policy, program: str) -> AsyncIterator[Any]:
    """A Python program in a sandbox of its own, with pipes to it, for the length of the block. Closes the descriptor."""
    command = _command(report_fd, policy, None, True, (PYTHON, "-c", PRELUDE + textwrap.dedent(program)))
    try:
        process = await trio.lowlevel.open_process(
            command,
            pass_fds=[report_fd],
            env={"PATH": PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    finally:
        os.close(report_fd)
    with trio.fail_after(TIMEOUT_S):
        try:
            yield process
        finally:
            process.kill()
            with trio.CancelScope(shield=True):  # it has been killed
                await process.wait()
                await process.stdin.aclose()
                await process.stdout.aclose()


async def run_python(report_fd: int, policy: Policy, program: str, **options: Any) -> Any:
    """What a Python program in a sandbox prints, read as JSON; it has `try_tcp`, `try_udp` and `say`."""
    return json.loads(await run(report_fd, policy, (PYTHON, "-c", PRELUDE + textwrap.dedent(program)), **options))


PRELUDE = f"""
import errno, json, os, socket, sys
def why(error):
    if isinstance(error, socket.gaierror):
        return "no such name"
    if error.errno in (errno.EPIPE, errno.ENOTCONN):  # a reset that came before the next call
        return "ECONNRESET"
    return errno.errorcode.get(error.errno, str(error.errno))
def try_tcp(host, port, send=b"hi"):
    try:
        with socket.create_connection((host, port), timeout={TIMEOUT_S / 2}) as s:
            s.sendall(send); s.shutdown(socket.SHUT_WR)
            data = b""
            while chunk := s.recv(65536): data += chunk
            return data.decode()
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return why(error)
def try_udp(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout({TIMEOUT_S / 2})
        try:
            s.connect((host, port)); s.send(b"hi"); return s.recv(99).decode()
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return why(error)
def say(*results):
    print(json.dumps(results))
"""


@asynccontextmanager
async def greeter(host: str = "127.0.0.2") -> AsyncIterator[int]:
    """A server that reads to the end and greets; yields its port."""

    async def greet(stream: trio.SocketStream) -> None:
        async with stream:
            async for _ in stream:
                pass
            await stream.send_all(GREETING)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=host)
        nursery.start_soon(trio.serve_listeners, greet, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class Resolver:
    """Stands in for the system's: a few names, each with its address or several with spaces between."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self.hosts = dict(hosts)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int | None, **options: Any) -> list[Any]:
        self.asked.append(host)
        if host not in self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        answers = [await trio.socket.getaddrinfo(one, port, **options) for one in self.hosts[host].split()]
        return [answer for one in answers for answer in one]


def node() -> str:
    """A Node that any user may run."""
    found = shutil.which("node", path=PATH)
    if found is None:
        skip_for("node")
    return found
