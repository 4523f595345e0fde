"""A legacy MCP server in plain Python that tries to get out: its tool `attempt` does one thing and says what came of it.

Each attempt is made in a process of its own, so that it may end or hang. Nothing is destroyed where one succeeds: a
signal is signal 0, what was written is removed, a process that was attached to runs on.
"""

import contextlib
import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import sys
from pathlib import Path

LIMIT_S = 8
"""For one attempt."""
ANSWER_S = 3
"""For whoever is on the other side of a socket."""
CALLS = {
    "x86_64": {"ptrace": 101, "mount": 165, "init_module": 175, "keyctl": 250, "unshare": 272, "readv": 310, "shm": 31},
    "aarch64": {"ptrace": 117, "mount": 40, "init_module": 105, "keyctl": 219, "unshare": 97, "readv": 270, "shm": 195},
}[platform.machine()]
PTRACE_SEIZE = 0x4206
CLONE_NEWUSER = 0x1000_0000
GET_KEYRING_ID, SESSION_KEYRING = 0, -3
IPC_STAT = 2
WHAT_IT_ASKS = {
    "http": b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n",
    "postgres": struct.pack("!II", 8, 80877103),
    "redis": b"PING\r\n",
}
"""Each is answered by whoever is there, password or not. For Postgres: may we speak TLS?"""

libc = ctypes.CDLL(None, use_errno=True)


class Nothing(Exception):
    """It was not refused, and there was nothing."""


def call(name, *arguments):
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = libc.syscall(ctypes.c_long(CALLS[name]), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def read(path):
    with open(path, "rb") as file:
        return len(file.read(4096))


def look_into(path):
    """Open without reading: what comes through another's pipe is not to be lost to it."""
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def write(path):
    with open(path, "wb") as file:
        file.write(b"x")
    Path(path).unlink()


def overwrite(path):
    """An existing file with what it holds."""
    with open(path, "r+b") as file:
        data = file.read(64)
        file.seek(0)
        file.write(data)


def change_mode(path):
    Path(path).chmod(Path(path).stat().st_mode & 0o7777)


def listing(path):
    return len(os.listdir(path))


def memory(pid):
    """One byte of another process, of where its first mapping is if that may be seen."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file, open(f"/proc/{pid}/maps") as maps:
        file.seek(int(maps.readline().partition("-")[0], 16))
        return len(file.read(1))


def read_memory_by_call(pid):
    here = ctypes.create_string_buffer(1)
    vector = struct.pack("QQ", ctypes.addressof(here), 1)
    there = struct.pack("QQ", mmap.PAGESIZE, 1)
    try:
        call("readv", pid, vector, 1, there, 1, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:  # it may, there is only nothing at that address
            raise


def see(pid):
    if str(pid) not in os.listdir("/proc"):
        raise Nothing
    return read(f"/proc/{pid}/cmdline")


def signal_it(pid):
    os.kill(pid, 0)


def attach(pid):
    call("ptrace", PTRACE_SEIZE, pid, 0, 0)


def limit_cores(pid):
    """Have it leave its memory behind when it dies."""
    resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))


def slow_down(pid):
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))


def bind_to_processors(pid):
    os.sched_setaffinity(pid, os.sched_getaffinity(pid))


def offer_to_the_oom_killer(pid):
    overwrite(f"/proc/{pid}/oom_score_adj")


def ask(family, address, protocol):
    with socket.socket(family) as client:
        client.settimeout(ANSWER_S)
        client.connect(address)
        client.sendall(WHAT_IT_ASKS[protocol])
        answer = client.recv(64)
    if not answer:
        raise Nothing
    return repr(answer)


def tcp(host, port, protocol="http"):
    return ask(socket.AF_INET, (host, port), protocol)


def unix(path, protocol="http"):
    return ask(socket.AF_UNIX, path, protocol)


def abstract(called, protocol="http"):
    return ask(socket.AF_UNIX, f"\0{called}", protocol)


def udp(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(ANSWER_S)
        client.connect((host, port))
        client.send(b"x")
        return repr(client.recv(64))


def raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def mount(path):
    call("mount", b"none", os.fsencode(path), b"tmpfs", 0, None)


def keyring():
    call("keyctl", GET_KEYRING_ID, SESSION_KEYRING, 1)


def load_module():
    call("init_module", b"", 0, b"")


def user_namespace():
    call("unshare", CLONE_NEWUSER)


def become_root():
    os.setuid(0)


def enter_namespace(pid):
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    if libc.setns(fd, 0) < 0:
        raise OSError(ctypes.get_errno(), "setns")


def shared_memory(segment):
    call("shm", segment, IPC_STAT, ctypes.create_string_buffer(256))


ATTEMPTS = {
    attempt.__name__: attempt
    for attempt in (
        *(read, look_into, write, overwrite, change_mode, listing, memory, read_memory_by_call, see, signal_it, attach),
        *(limit_cores, slow_down, bind_to_processors, offer_to_the_oom_killer, tcp, unix, abstract, udp, raw, packets),
        *(mount, keyring, load_module, user_namespace, become_root, enter_namespace, shared_memory),
    )
}


def outcome(what, arguments):
    try:
        detail = ATTEMPTS[what](**arguments)
    except Nothing:
        return {"ok": False, "errno": "NOTHING", "detail": ""}
    except TimeoutError:
        return {"ok": False, "errno": "ETIMEDOUT", "detail": ""}
    except OSError as error:
        return {"ok": False, "errno": errno.errorcode.get(error.errno, str(error.errno)), "detail": str(error)}
    return {"ok": True, "errno": "", "detail": str(detail)}


def attempt(what, arguments):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT_S)
        with contextlib.suppress(BaseException):
            os.write(writer, json.dumps(outcome(what, arguments)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        said = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return json.loads(said) if said else {"ok": False, "errno": f"ended with {code}", "detail": ""}


def own(_what, _arguments):
    """Where and who it is."""
    return {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "home": str(Path.home()),
        "cwd": str(Path.cwd()),
        "secret": "SECRET" in os.environ,
    }


TOOLS = {"attempt": attempt, "own": own}


def answer(method, params):
    if method == "initialize":
        return {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "escapee", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
    if method == "tools/call":
        arguments = dict(params.get("arguments") or {})
        result = TOOLS[params["name"]](arguments.pop("what", None), arguments)
        return {"content": [{"type": "text", "text": json.dumps(result)}]}
    return None


def main():
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message.get("method"), message.get("params") or {})
        outgoing = {"jsonrpc": "2.0", "id": message["id"]}
        outgoing |= {"error": {"code": -32601, "message": "Method not found"}} if result is None else {"result": result}
        sys.stdout.write(json.dumps(outgoing) + "\n")
        sys.stdout.flush()


main()
