"""A control plane whose figures stand still: a proxy in front of a real one, for pictures that can be compared.

Everything is the real server's answer but what differs from run to run: times, pids, process ids, shares of a core.
These become one value each, by the name of the member.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
from aiohttp import web

NOW = 1_767_268_800.0
"""2026-01-01 12:00 UTC: the dashboard's clock stands here."""
STAMP = "2026-01-01T11:58:20.000Z"
STEADY: Mapping[str, Any] = {
    "pid": 4242,
    "uptime_s": 100.0,
    "ran_s": 42.0,
    "cpu_percent": 12.5,
    "cpu_usage": 12.5,
    "memory_mb": 48.0,
    "memory_usage": 48.0,
    "peak_memory_mb": 48.0,
    "disk_mb": 1.0,
    "peak_processes": 1,
    "processes": 1,
    "p50_ms": 1.5,
    "p95_ms": 4.2,
    "p99_ms": 9.9,
    "ms": 1.5,
    "subscribers": 3,
    "interval_s": 1.0,
    "size_bytes": 120,
    "version": "0.1.0",
    "seq": 1,
    "used": 2,
    "calls": 120,
    "errors": 3,
    "calls_total": 120,
    "errors_total": 3,
    "isolation": "namespaced",
    "auto": "namespaced",
    "landlock": 7,
}
"""Members by name, and the value that each is given where it has one."""
START_S = 20.0
HELD: Mapping[str, Any] = {
    "driver": "cgroup2",
    "enforcement": {"memory_mb": "hard", "cpu_percent": "hard", "processes": "hard", "disk_mb": "soft"},
    "unlock": None,
}
"""What holds limits in pictures: what this machine has is its own affair."""
GROUPS = {"control_plane", "host", "dropped", "calls"}
"""Members that are all figures of the machine."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HOME = re.compile(r"/var/tmp/corral-e2e-\w+")
_ID = re.compile(r'"id": ?\d+')
_PORT = re.compile(r"127\.0\.0\.1:\d+")


def steadied(value: Any, name: str = "") -> Any:
    """The same document with every restless figure at rest."""
    if isinstance(value, dict):
        return _steady_object(value, name)
    if isinstance(value, list):
        return _steady_list(value, name)
    if name in STEADY and isinstance(value, str | int | float):
        return STEADY[name]
    if isinstance(value, str):
        return _PORT.sub("127.0.0.1:8000", _HOME.sub("/var/lib/corral", _TIME.sub(STAMP, value)))
    return value


def _steady_object(value: dict[str, Any], name: str) -> dict[str, Any]:
    match name:
        case "limits":
            return value | HELD if "driver" in value else value
        case "enforcement":
            return {limit: HELD["enforcement"].get(limit, "hard") for limit in value}
        case "in_force":
            return {STEADY["isolation"]: sum(value.values())}
        case _ if name in GROUPS:
            return {key: _at_rest(key, member) for key, member in value.items()}
    return {key: steadied(member, key) for key, member in value.items()}


def _steady_list(value: list[Any], name: str) -> list[Any]:
    match name:
        case "runtimes":  # what a machine has is its own affair
            return [steadied(member) for member in value if member["language"] in {"python", "node"}]
        case "levels":
            return [{**level, "available": True, "why": None, "unlock": None} for level in value]
        case "samples":  # how many a machine takes of a process that fails at once
            return []
    return [steadied(member, name) for member in value]


def _at_rest(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_at_rest(name, member) for member in value]
    if isinstance(value, dict):
        return {key: _at_rest(key, member) for key, member in value.items()}
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return STEADY.get(name, 7)
    return "steady" if isinstance(value, str) else value


class _Proxy:
    """`ids` gives each instance, the oldest first, an id that is the same in every run."""

    def __init__(self, target: str, token: str) -> None:
        self.target, self.headers = target, {"Authorization": f"Bearer {token}"}
        self.session: aiohttp.ClientSession | None = None
        self.ids: dict[str, str] = {}

    async def learn(self) -> None:
        """Number the instances that are there."""
        assert self.session is not None
        async with self.session.get(f"{self.target}/instances", headers=self.headers) as answer:
            found = (await answer.json())["instances"]
        self.ids = {row["instance_id"]: f"00000000-0000-4000-8000-{n:012d}" for n, row in enumerate(found, 1)}

    def told(self, text: str) -> str:
        """With the steady ids."""
        return _UUID.sub(lambda found: self.ids.get(found[0], found[0]), text)

    def asked(self, text: str) -> str:
        """With the real ones."""
        real = {steady: real for real, steady in self.ids.items()}
        return _UUID.sub(lambda found: real.get(found[0], found[0]), text)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert self.session is not None
        kept = {
            k: v for k, v in request.headers.items() if k.lower() not in {"host", "accept-encoding", "content-length"}
        }
        async with self.session.request(
            request.method, self.target + self.asked(request.path_qs), headers=kept, data=await request.read()
        ) as answer:
            kind = answer.headers.get("Content-Type", "")
            if "event-stream" in kind:
                return await self._stream(request, answer)
            body = await answer.read()
            if "json" in kind:
                body = self.told(json.dumps(steadied(json.loads(body)))).encode()
            return web.Response(status=answer.status, body=body, headers={"Content-Type": kind})

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for line in answer.content:
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                if event.get("type") == "sample":
                    continue  # how many have come is restless too
                if event.get("type") == "wire":
                    event |= {"id": 7, "frame": _ID.sub('"id":7', event["frame"])}
                line = b"data: " + self.told(json.dumps(steadied(event))).encode() + b"\n"  # noqa: PLW2901
            await response.write(line)
        return response


@contextmanager
def steady(target: str, token: str) -> Iterator[str]:
    """Run the proxy in a thread of its own; returns its URL."""
    proxy, ready, served = _Proxy(target, token), threading.Event(), _Served()

    async def serve() -> None:
        served.loop, served.done = asyncio.get_running_loop(), asyncio.Event()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as proxy.session:
            await proxy.learn()
            app = web.Application(client_max_size=2**27)
            app.router.add_route("*", "/{path:.*}", proxy.handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            await served.done.wait()
            await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="steady proxy")
    thread.start()
    try:
        assert ready.wait(START_S)
        yield served.url
    finally:
        served.loop.call_soon_threadsafe(served.done.set)
        thread.join(START_S)


class _Served:
    """What the thread of the proxy tells the test's."""

    loop: asyncio.AbstractEventLoop
    done: asyncio.Event
    url: str = ""
