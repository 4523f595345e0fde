"""A legacy MCP server whose tools take as much of everything as they get.

Each has a ceiling of its own, whatever it is asked for, and whatever is forked ends by itself after `LIFE_S`.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys
import threading
import time

LIFE_S = 60
"""Of everything that is started here."""
MEMORY_MIB = 3072
PROCESSES = 1500
DISK_MIB = 3072
FILES = 10_000
THREADS = 16
FLOOD_MIB_PER_S = 100
MIB = 1 << 20
BLOCK = b"x" * MIB
FILE_MIB = 16
"""Size of the files that the disk is filled with: below what one file may have."""
FILL = "hog-fill-"
LINE = b"a line of the flood, of which there are far too many for anybody to read them all\n"

held = []


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def text(value, *, is_error=False):
    return {"content": [{"type": "text", "text": str(value)}], "isError": is_error}


def fork(work):
    """Do something in a child that ends with it, or after `LIFE_S`; returns the pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.alarm(LIFE_S)
        work()
    finally:
        os._exit(0)


def memory(mib, children=0):
    """Hold so much, here or in each of some children; a child that was ended by somebody is an error."""
    if max(1, children) * mib > MEMORY_MIB or available_mib() < 2 * max(1, children) * mib:
        return text("not tried: there is not twice as much free, or it is above the ceiling", is_error=True)
    if not children:
        mine = [bytearray(BLOCK) for _ in range(mib)]
        return text(f"held {len(mine)} MiB")
    reader, writer = os.pipe()

    def hold():
        mine = [bytearray(BLOCK) for _ in range(mib)]
        os.write(writer, b"." if mine else b"")
        time.sleep(LIFE_S)

    pids = [fork(hold) for _ in range(children)]
    os.close(writer)
    full = 0
    while full < children and os.read(reader, 1):  # the end: none is left that could write
        full += 1
    os.close(reader)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return text(f"{full} of {children} children held {mib} MiB", is_error=full < children)


def available_mib():
    """0 where one is not let to see it: then nothing is tried."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:"))


def bomb(count):
    """Fork so many that wait; where that is refused, say how many there are, and go on trying."""
    reader, writer = os.pipe()

    def explode():
        born, told, end = 0, False, time.monotonic() + LIFE_S
        while born < min(count, PROCESSES) and time.monotonic() < end:
            try:
                fork(lambda: time.sleep(LIFE_S))
                born += 1
            except OSError as error:
                if not told:
                    os.write(writer, f"{born} {error.strerror}".encode())
                    told = True
                time.sleep(0.01)
        os.write(writer, b"" if told else f"{born} born".encode())
        time.sleep(LIFE_S)

    fork(explode)
    os.close(writer)
    answer = os.read(reader, 200).decode()
    os.close(reader)
    return text(answer, is_error=not answer.endswith("born"))


def fill_folders():
    return [pathlib.Path(os.environ.get("HOME") or "."), pathlib.Path("/tmp")]


def disk(mib):
    """Fill files, in turns at home and in /tmp."""
    written = 0
    try:
        for number in range(min(mib, DISK_MIB) // FILE_MIB):
            folder = fill_folders()[number % 2]
            with open(folder / f"{FILL}{number}", "wb") as file:
                for _ in range(FILE_MIB):
                    file.write(BLOCK)
                    written += 1
                os.fsync(file.fileno())
    except OSError as error:
        return text(f"{written} MiB written, then: {error}", is_error=True)
    return text(f"{written} MiB written")


def tidy():
    """As a program with temporary files should: begin without those of the life before."""
    for folder in fill_folders():
        for old in folder.glob(f"{FILL}*"):
            old.unlink(missing_ok=True)


def descriptors(count):
    """Open files, and leave them open."""
    try:
        for _ in range(min(count, FILES)):
            held.extend([os.open(os.devnull, os.O_RDONLY)])
    except OSError as error:
        return text(f"{len(held)} open, then: {error}", is_error=True)
    return text(f"{len(held)} open")


def spin(threads, seconds=LIFE_S):
    """Threads that compute without a pause, outside of the interpreter's lock."""
    end = time.monotonic() + min(seconds, LIFE_S)

    def compute():
        while time.monotonic() < end:
            hashlib.pbkdf2_hmac("sha256", b"hog", b"hog", 50_000)

    started = 0
    try:
        for _ in range(min(threads, THREADS)):
            threading.Thread(target=compute, daemon=True).start()
            started += 1
    except RuntimeError as error:
        return text(f"{started} threads, then: {error}", is_error=True)
    return text(f"{started} threads spin")


def flood(mib_per_s, seconds=10):
    """Print on standard error, so many MiB a second as far as they are taken."""
    block = LINE * (MIB // len(LINE) + 1)

    def pour():
        began = time.monotonic()
        end, poured = began + min(seconds, LIFE_S), 0
        while (now := time.monotonic()) < end:
            if poured < (now - began) * min(mib_per_s, FLOOD_MIB_PER_S):
                os.write(2, block)
                poured += 1
            else:
                time.sleep(0.002)

    fork(pour)
    return text("it pours")


def leak(mib_per_s):
    """Hold ever more."""
    end = time.monotonic() + LIFE_S

    def drip():
        dripped, began = 0, time.monotonic()
        while dripped < MEMORY_MIB and time.monotonic() < end and available_mib() > 2 * mib_per_s:
            if dripped < (time.monotonic() - began) * mib_per_s:
                held.append(bytearray(BLOCK))
                dripped += 1
            else:
                time.sleep(0.01)

    threading.Thread(target=drip, daemon=True).start()
    return text("it leaks")


def hang():
    """Read and answer nothing any more."""
    time.sleep(LIFE_S)
    os._exit(0)


TOOLS = {
    "echo": lambda value="": text(value),
    "pid": lambda: text(os.getpid()),
    "memory": memory,
    "fork": bomb,
    "disk": disk,
    "descriptors": descriptors,
    "spin": spin,
    "flood": flood,
    "leak": leak,
    "hang": hang,
}


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    tidy()
    for line in sys.stdin:
        message = json.loads(line)
        method, params = message.get("method"), message.get("params") or {}
        if "id" not in message:
            continue
        if method == "initialize":
            result = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "hog", "version": "1"},
            }
        elif method == "tools/list":
            result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
        elif method == "tools/call":
            try:
                result = TOOLS[params["name"]](**params.get("arguments") or {})
            except MemoryError as error:
                result = text(f"no memory: {error}", is_error=True)
        elif method == "ping":
            result = {}
        else:
            send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
            continue
        send({"jsonrpc": "2.0", "id": message["id"], "result": result})


main()
