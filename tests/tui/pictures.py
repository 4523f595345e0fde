"""`make pictures`: the README's pictures of the dashboard, taken from a real run with real servers from the registries.

Nothing in them is made up: a control plane of its own is started, four servers are deployed, called and, one of them,
killed, and the dashboard's own screens are saved as they are.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from controlplane.wire.units import duration
from tests.e2e.plane import ROOT, open_plane
from tests.tui.driving import Driver, contexts_of
from tests.tui.snapshots import hold_still, picture
from tui.app import Dashboard
from tui.themes import DARK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.e2e.plane import Plane

FOLDER = ROOT / "docs" / "pictures"
SIZE = (124, 34)
CALLS_EVERY_S = 0.05
BUSY_S = 25.0
"""Long enough for the trends to show something."""
NPM = "@modelcontextprotocol/server-"


def deploy(plane: Plane) -> None:
    """A small fleet, as a team might have."""
    for name, package in (("memory", "memory"), ("everything", "everything"), ("thinking", "sequential-thinking")):
        plane.deploy(
            name,
            mcp_config={"command": "npx", "args": ["-y", f"{NPM}{package}"]},
            labels={"team": "research"},
            wait=120,
        )
    plane.deploy(
        "time", mcp_config={"command": "uvx", "args": ["mcp-server-time"]}, labels={"team": "office"}, wait=120
    )
    plane.deploy("calculator", (ROOT / "examples" / "calculator.py").read_bytes(), entry_point="calculator.py")
    broken = {
        "name": "weather",
        "source_type": "mcp_config",
        "mcp_config": {"command": "npx", "args": ["-y", f"{NPM}wether"]},
    }
    plane.request("POST", "/api/v2/deploy?wait=60", json=broken)


@contextmanager
def busy(plane: Plane) -> Iterator[None]:
    """Somebody calls the servers meanwhile."""
    done = threading.Event()

    def call() -> None:
        number = 0
        while not done.wait(CALLS_EVERY_S):
            number += 1
            plane.execute("everything", "tools/call", {"name": "echo", "arguments": {"message": f"hello {number}"}})
            if number % 3 == 0:
                plane.execute("memory", "tools/call", {"name": "read_graph", "arguments": {}})
            if number % 7 == 0:
                plane.execute("time", "tools/call", {"name": "get_current_time", "arguments": {"timezone": "UTC"}})

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def take(plane: Plane, name: str, script: Callable[[Driver], Awaitable[None]]) -> None:
    """Run a script of keys, and save what is on the screen then."""

    async def main() -> None:
        app = Dashboard(contexts_of(plane), theme=DARK.name)
        async with app.run_test(size=SIZE) as pilot:
            person = Driver(app, pilot)
            await person.sees("live", "calculator")
            await script(person)
            app.clear_notifications()
            await pilot.pause(0.5)
            hold_still(app)
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / f"{name}.svg").write_text(picture(app, f"corral tui: {name}"))

    asyncio.run(main())


async def fleet(person: Driver) -> None:
    """The first screen, once the trends have filled."""
    await person.pilot.pause(BUSY_S)


async def inspector(person: Driver) -> None:
    """A tool called by hand."""
    await person.command("inspect everything")
    await person.sees("echo")
    await person.press("down")
    await person.pilot.pause(1.0)
    await person.type("nothing gets out")
    await person.press("f5")
    await person.sees("Echo: nothing gets out")
    await person.press("f5")  # the first call also started a process for callers that can be asked something
    await person.pilot.pause(2.0)


async def wire(person: Driver) -> None:
    """Its JSON-RPC traffic."""
    await person.command("wire everything")
    await person.sees("tools/call")
    await person.pilot.pause(2.0)


async def logs(person: Driver) -> None:
    """The log of a server that was killed."""
    await person.command("logs memory")
    await person.sees("SIGKILL")


async def metrics(person: Driver) -> None:
    """Figures against their limits."""
    await person.command("metrics everything")
    await person.press("comma")  # five minutes: it has not run for longer
    await person.pilot.pause(3.0)


def main() -> None:
    """Take them all."""
    with open_plane() as plane:
        plane.start()
        deploy(plane)
        with busy(plane):
            os.kill(plane.instance("memory")["pid"], signal.SIGKILL)
            plane.wait_status("memory", "running")
            for script in (fleet, inspector, wire, logs, metrics):
                take(plane, script.__name__, script)
                print(f"{FOLDER / script.__name__}.svg")
        print(f"up for {duration(plane.get('/health')['uptime_s'])}")


if __name__ == "__main__":
    main()
