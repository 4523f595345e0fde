"""Servers that misbehave from birth, one per mode: `python hostile.py MODE`, or `MODE = "…"` put in front of it."""

import json
import os
import signal
import sys
import time

LIFE_S = 300
"""No process of these outlives its test by more than this."""


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def text(value):
    return {"content": [{"type": "text", "text": str(value)}]}


def shake_hands():
    """Serve until the server is told that it is initialized."""
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "initialize":
            result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "h", "version": "1"}}
            send({"jsonrpc": "2.0", "id": message["id"], "result": result})
        elif "id" in message:
            send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}})
        else:
            return


def calls():
    """The ids of the calls that come in."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            yield message["id"]


def answer(call, value="ok"):
    send({"jsonrpc": "2.0", "id": call, "result": text(value)})


def deaf():
    """Never reads again."""
    time.sleep(LIFE_S)


def mute():
    """Closes its stdout at the first call, and lives on."""
    next(calls())
    os.close(1)
    time.sleep(LIFE_S)


def shut():
    """Closes its stdin at the first call, which it answers, and lives on."""
    call = next(calls())
    os.close(0)
    answer(call)
    time.sleep(LIFE_S)


def stubborn():
    """Ignores every signal it can, and the end of its stdin."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for call in calls():
        answer(call)
    time.sleep(LIFE_S)


def heir():
    """At the first call, leaves a child that holds all three streams open, and dies."""
    next(calls())
    if os.fork() == 0:
        time.sleep(LIFE_S)
    os._exit(5)


def storm():
    """Forks as fast as it can, 1,500 times at most; answers how many it got, and goes on trying."""
    call = next(calls())
    born, told = 0, False
    end = time.monotonic() + LIFE_S
    while born < 1500 and time.monotonic() < end:
        try:
            if os.fork() == 0:
                os.setsid() if born % 2 else None
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(LIFE_S)
                os._exit(0)
            born += 1
        except OSError:
            if not told:
                answer(call, born)
                told = True
            time.sleep(0.01)


def grabby():
    """Opens files until it gets no more; answers how many it had."""
    call = next(calls())
    held = []
    try:
        while len(held) < 10_000:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        answer(call, len(held))
    for call in calls():
        answer(call)


def flood():
    """Writes lines on stderr as fast as they are taken, and answers in between."""
    block = b"".join(b"drop %d in the ocean of words that nobody reads\n" % number for number in range(500))
    if os.fork() == 0:
        end = time.monotonic() + LIFE_S
        while time.monotonic() < end:
            os.write(2, block)
        os._exit(0)
    for call in calls():
        answer(call)


def endless():
    """Answers the first call with a line that has no end (64 MiB), and the others as it should."""
    first = next(calls())
    assert first
    for _ in range(64):
        os.write(1, b"x" * 2**20)
    os.write(1, b"\n")
    for call in calls():
        answer(call)


shake_hands()
globals()[globals().get("MODE") or sys.argv[1]]()
