"""A stand-in for a control plane with 500 busy instances: what the dashboard is fed with, at a real fleet's pace or faster.

`python -m bench.dashboard_feed PORT`: serves `/instances`, `/health` and `/events` as the API describes them. Each
second every instance gets a sample, in ten portions, and now and then a change of status. `POST /flood/N` sends N
seconds' worth as fast as the reader takes it, and answers when it is out.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from datetime import UTC, datetime, timedelta

from aiohttp import web

INSTANCES = 500
PORTIONS = 10
STATUS_PER_S = 2
STARTED = "2026-01-01T00:00:00.000Z"


def id_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def name_of(number: int) -> str:
    return f"instance-{number:04d}"


def document(number: int) -> dict[str, object]:
    """A row of `GET /instances`."""
    return {
        "instance_id": id_of(number),
        "name": name_of(number),
        "owner": "bench",
        "language": "node",
        "source_type": "mcp_config",
        "status": "running",
        "phase": "running",
        "desired": "running",
        "isolation": "process",
        "restarts": 0,
        "revision": 1,
        "pid": 1000 + number,
        "uptime_s": 60.0,
        "cpu_percent": 1.0,
        "memory_mb": 60.0,
        "processes": 1,
        "calls": 10,
        "errors": 0,
        "p50_ms": 1.0,
        "p95_ms": 2.0,
        "labels": {"team": f"t{number % 7}"},
        "created_at": STARTED,
        "updated_at": STARTED,
    }


class Feed:
    """The events of one reader, numbered."""

    def __init__(self) -> None:
        self.random = random.Random(1)
        self.at = datetime.now(UTC)
        self.number = 0
        self.reader: web.StreamResponse | None = None
        self.lock = asyncio.Lock()

    def frame(self, **event: object) -> bytes:
        self.number += 1
        stamp = self.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"id: bench-{self.number}\ndata: {json.dumps({**event, 'timestamp': stamp})}\n\n".encode()

    def portion(self, which: int) -> bytes:
        """A tenth of a second's events."""
        self.at += timedelta(seconds=1 / PORTIONS)
        roll = self.random
        frames = [
            self.frame(
                type="sample",
                instance_id=id_of(number),
                cpu_percent=round(roll.uniform(0, 120), 1),
                memory_mb=round(roll.uniform(50, 400), 1),
                processes=1,
                calls=roll.randrange(50),
                errors=roll.randrange(2),
                interval_s=1.0,
                p50_ms=1.0,
                p95_ms=round(roll.uniform(1, 50), 1),
            )
            for number in range(which, INSTANCES, PORTIONS)
        ]
        if which % (PORTIONS // STATUS_PER_S) == 0:
            number, status = roll.randrange(INSTANCES), roll.choice(("running", "restarting"))
            frames.append(
                self.frame(type="status", instance_id=id_of(number), name=name_of(number), owner="bench", status=status,
                           phase=status, pid=1000 + number, revision=1, restarts=1, incarnation=2)
            )  # fmt: skip
        return b"".join(frames)

    async def events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(self.frame(type="connected"))
        self.reader = response
        try:
            while True:
                for which in range(PORTIONS):
                    async with self.lock:
                        await response.write(self.portion(which))
                    await asyncio.sleep(1 / PORTIONS)
        finally:
            self.reader = None

    async def flood(self, request: web.Request) -> web.Response:
        assert self.reader is not None, "nobody listens"
        async with self.lock:
            for _ in range(int(request.match_info["seconds"])):
                for which in range(PORTIONS):
                    await self.reader.write(self.portion(which))
        return web.json_response({"events": self.number})


async def instances(_request: web.Request) -> web.Response:
    return web.json_response({"instances": [document(n) for n in range(INSTANCES)], "next_cursor": None})


async def health(_request: web.Request) -> web.Response:
    services = {"redis": "connected", "postgres": "connected", "mcp_manager": "healthy"}
    return web.json_response({"status": "healthy", "services": services, "active_instances": INSTANCES})


async def history(_request: web.Request) -> web.Response:
    return web.json_response({"events": [], "next_cursor": None})


def main() -> None:
    feed, app = Feed(), web.Application()
    app.add_routes(
        [
            web.get("/events", feed.events),
            web.get("/events/history", history),
            web.get("/instances", instances),
            web.get("/health", health),
            web.post("/flood/{seconds}", feed.flood),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
