"""What the system call filter denies, and that real programs run under it."""

from __future__ import annotations

import errno
import os
import platform
import re
import resource
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.spawn import seccomp
from controlplane.spawn.syscalls import MACHINES
from tests.needs import skip_for
from tests.spawn.children import PATH, PYTHON
from tests.spawn.restricted import ALLOWED, call, outcome, run

OWN = MACHINES[platform.machine()].numbers
NOWHERE = -1
"""As every argument: with it no call of the table does anything, were it let through."""

CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
AF_ALG, AF_VSOCK = 38, 40
NETLINK_AUDIT = 9


@pytest.fixture(params=["plain", "as_is"])
def user(request: pytest.FixtureRequest, uid: int | None) -> int | None:
    """An instance's user, without capabilities; and whoever runs the tests, with all that root may do."""
    return uid if request.param == "plain" else None


def filtered() -> None:
    seccomp.install(seccomp.program())


def without_network() -> None:
    seccomp.install(seccomp.program(no_network=True))


@pytest.mark.parametrize("name", sorted(OWN.keys() - seccomp.LOOKED_INTO))
def test_a_denied_call_is_refused_to_everybody(user: int | None, name: str) -> None:
    assert outcome(lambda: call(OWN[name], *[NOWHERE] * 6), filtered, uid=user) == "EPERM"


def _open(*arguments: int) -> Callable[[], None]:
    return lambda: socket.socket(*arguments).close()


def _type_into_the_terminal() -> None:
    call(OWN["ioctl"], 0, seccomp.TERMINAL_INPUT[0] | 1 << 32, 0)  # the kernel does not look at the upper half


ATTEMPTS: dict[str, tuple[Callable[[], object], str]] = {
    "a thread": (lambda: threading.Thread(target=int).start(), ALLOWED),
    "a process": (lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0), ALLOWED),
    "clone into a user namespace": (lambda: call(OWN["clone"], CLONE_NEWUSER, 0, 0, 0, 0), "EPERM"),
    "clone into a pid namespace": (lambda: call(OWN["clone"], CLONE_NEWPID, 0, 0, 0, 0), "EPERM"),
    "clone3": (lambda: call(OWN["clone3"], 0, 0), "ENOSYS"),
    "TIOCSTI": (_type_into_the_terminal, "EPERM"),
    "TIOCLINUX": (lambda: call(OWN["ioctl"], 0, seccomp.TIOCLINUX, 0), "EPERM"),
    "another ioctl": (lambda: call(OWN["ioctl"], -1, 0x5413, 0), "EBADF"),
    "asking for the personality": (lambda: call(OWN["personality"], 0xFFFF_FFFF), ALLOWED),
    "no address randomization": (lambda: call(OWN["personality"], seccomp.ADDR_NO_RANDOMIZE), ALLOWED),
    "executable memory all over": (lambda: call(OWN["personality"], 0x0400000), "EPERM"),
    "its own limits": (lambda: resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000)), ALLOWED),
    "reading the limits of one of its own": (lambda: resource.prlimit(os.getpid(), resource.RLIMIT_CORE), ALLOWED),
    "another's limits": (lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0)), "EPERM"),
    "its own priority": (lambda: os.nice(1), ALLOWED),
    "another's priority": (lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19), "EPERM"),
    "a user's priority": (lambda: os.setpriority(os.PRIO_USER, 0, 19), "EPERM"),
    "its own scheduling": (lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)), ALLOWED),
    "another's scheduling": (lambda: os.sched_setscheduler(os.getppid(), os.SCHED_IDLE, os.sched_param(0)), "EPERM"),
    "its own processors": (lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)), ALLOWED),
    "its own turn at the disk": (lambda: call(OWN["ioprio_set"], 1, 0, 0x6000), ALLOWED),
    "another's turn at the disk": (lambda: call(OWN["ioprio_set"], 1, os.getppid(), 0x6000), "EPERM"),
    "a unix socket": (_open(socket.AF_UNIX, socket.SOCK_STREAM), ALLOWED),
    "a pair of unix sockets": (socket.socketpair, ALLOWED),
    "a pair of another family": (lambda: call(OWN["socketpair"], 30, 1, 0, 0), "EPERM"),
    "TCP": (_open(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), ALLOWED),
    "UDP": (_open(socket.AF_INET6, socket.SOCK_DGRAM), ALLOWED),
    "the list of interfaces": (socket.if_nameindex, ALLOWED),
    "routing netlink, raw": (_open(socket.AF_NETLINK, socket.SOCK_RAW, seccomp.NETLINK_ROUTE), ALLOWED),
    "audit netlink": (_open(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_AUDIT), "EPERM"),
    "raw IP": (_open(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP), "EPERM"),
    "raw IPv6": (_open(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6), "EPERM"),
    "packets": (_open(socket.AF_PACKET, socket.SOCK_RAW, 0), "EPERM"),
    "cooked packets": (_open(socket.AF_PACKET, socket.SOCK_DGRAM, 0), "EPERM"),
    "vsock": (_open(AF_VSOCK, socket.SOCK_STREAM), "EPERM"),
    "the kernel's crypto": (_open(AF_ALG, 5), "EPERM"),
}


@pytest.mark.parametrize("what", ATTEMPTS)
def test_the_filter_looks_into_what_depends_on_arguments(user: int | None, what: str) -> None:
    attempt, expected = ATTEMPTS[what]
    assert outcome(attempt, filtered, uid=user) == expected


WITHOUT_NETWORK: dict[str, tuple[Callable[[], object], str]] = {
    "a unix socket": (_open(socket.AF_UNIX, socket.SOCK_DGRAM), ALLOWED),
    "a pair of unix sockets": (socket.socketpair, ALLOWED),
    "TCP": (_open(socket.AF_INET, socket.SOCK_STREAM), "EPERM"),
    "TCP over IPv6": (_open(socket.AF_INET6, socket.SOCK_STREAM), "EPERM"),
    "multipath TCP": (_open(socket.AF_INET, socket.SOCK_STREAM, 262), "EPERM"),
    "UDP": (_open(socket.AF_INET, socket.SOCK_DGRAM), "EPERM"),
    "netlink": (_open(socket.AF_NETLINK, socket.SOCK_RAW, seccomp.NETLINK_ROUTE), "EPERM"),
}


@pytest.mark.parametrize("what", WITHOUT_NETWORK)
def test_without_network_there_are_unix_sockets_and_no_others(user: int | None, what: str) -> None:
    attempt, expected = WITHOUT_NETWORK[what]
    assert outcome(attempt, without_network, uid=user) == expected


def test_the_calls_of_x32_do_not_exist(uid: int | None) -> None:
    assert outcome(lambda: call(seccomp.X32_NUMBERS | 39), filtered, uid=uid) == "ENOSYS"


def test_the_filter_stays_for_what_is_started_and_a_second_one_cannot_loosen_it(uid: int | None) -> None:
    def started() -> None:
        pid = os.fork()
        if pid == 0:
            seccomp.install(struct.pack("=HBBI", seccomp.RETURN, 0, 0, seccomp.ALLOW))
            try:
                call(OWN["unshare"], CLONE_NEWUSER)
            except PermissionError:
                os._exit(7)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code == 7

    assert outcome(started, filtered, uid=uid) == ALLOWED


def test_a_filter_without_sense_is_refused(uid: int | None) -> None:
    assert outcome(lambda: seccomp.install(b"\0" * 8), uid=uid) == "EINVAL"
    assert outcome(lambda: seccomp.install(b""), uid=uid) == "EINVAL"


def test_there_is_a_filter_for_each_machine_and_one_for_each_network() -> None:
    assert seccomp.is_supported()
    programs = {seccomp.compiled(name, no_network=no) for name in MACHINES for no in (False, True)}
    assert len(programs) == 4
    assert seccomp.program() is seccomp.program() in programs
    bytes_per_instruction, longest = 8, 4096
    assert all(len(program) % bytes_per_instruction == 0 for program in programs)
    assert max(map(len, programs)) // bytes_per_instruction < longest


def test_another_machine_gets_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", "", "", "riscv64")))
    assert not seccomp.is_supported()
    with pytest.raises(OSError, match="no system call filter for riscv64") as refused:
        seccomp.program()
    assert refused.value.errno == errno.ENOSYS


@pytest.mark.needs("cc")
@pytest.mark.parametrize(("name", "header"), [("x86_64", "asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")])
def test_the_numbers_are_those_of_the_kernels_headers(name: str, header: str) -> None:
    numbers = MACHINES[name].numbers
    source = f"#include <{header}>\n" + "".join(f'"{call}" __NR_{call}\n' for call in (*numbers, "seccomp"))
    expanded = subprocess.run(
        ["cc", "-E", "-P", "-D__ARCH_WANT_SYS_CLONE3", "-"],
        input=source,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    if expanded.returncode and name != platform.machine():
        skip_for("other_headers")
    known = {word: int(number) for word, number in re.findall(r'"(\w+)" (\d+)', expanded.stdout)}
    assert known.pop("seccomp") == MACHINES[name].seccomp
    assert known.items() <= numbers.items()
    assert numbers.keys() - known.keys() <= {"open_tree_attr"}  # newer than some headers


PYTHON_PROGRAM = """
import asyncio, multiprocessing, socket, subprocess, sys, threading
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
print(subprocess.run(["sh", "-c", "echo process | cat"], capture_output=True, text=True).stdout.strip())
with multiprocessing.get_context("fork").Pool(1) as pool:
    print("pool", pool.apply(abs, (-1,)))
async def serve():
    async def answer(reader, writer):
        writer.write(await reader.readline()); await writer.drain(); writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"socket\\n"); await writer.drain()
    print((await reader.readline()).decode().strip()); writer.close(); server.close()
    child = await asyncio.create_subprocess_exec("echo", "asynchronous", stdout=subprocess.PIPE)
    print((await child.communicate())[0].decode().strip())
asyncio.run(serve())
"""

NODE_PROGRAM = """
const { Worker } = require("worker_threads"); const { execFileSync, fork } = require("child_process");
const fs = require("fs"), os = require("os"), http = require("http");
(async () => {
  await new Promise((done) => new Worker("console.log('thread')", { eval: true, stdout: true })
    .stdout.on("data", (said) => { process.stdout.write(said); done(); }));
  process.stdout.write(execFileSync("sh", ["-c", "echo process | cat"]));
  console.log("pool", (await fs.promises.readdir("/usr")).length > 0 ? 1 : 0);
  os.networkInterfaces(); os.cpus(); os.freemem();
  const server = http.createServer((_, answer) => answer.end("socket"));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  console.log(await (await fetch(`http://127.0.0.1:${server.address().port}/`)).text());
  server.close();
  process.stdout.write(execFileSync(process.execPath, ["-e", "console.log('asynchronous')"]));
  process.exit(0);
})();
"""

WHAT_A_RUNTIME_DOES = "thread\nprocess\npool 1\nsocket\nasynchronous\n"


def test_python_runs_under_it(uid: int | None) -> None:
    env = {"PATH": PATH, "PYTHONDONTWRITEBYTECODE": "1"}
    assert run([PYTHON, "-u", "-c", PYTHON_PROGRAM], filtered, uid=uid, env=env) == (0, WHAT_A_RUNTIME_DOES)


@pytest.mark.needs("node")
def test_node_runs_under_it(uid: int | None) -> None:
    node = shutil.which("node", path=PATH)
    if node is None or not os.access(node, os.X_OK):
        skip_for("node")
    assert run([node, "-e", NODE_PROGRAM], filtered, uid=uid, env={"PATH": PATH}) == (0, WHAT_A_RUNTIME_DOES)


@pytest.mark.needs("java")
def test_java_starts_under_it(uid: int | None) -> None:
    java = Path(shutil.which("java") or "").resolve()
    status, said = run([str(java), "-version"], filtered, uid=uid, env={"PATH": PATH})
    assert (status, "Runtime Environment" in said) == (0, True), said
