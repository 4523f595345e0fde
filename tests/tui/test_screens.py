"""Every screen as a picture, in three sizes and both themes, from a real control plane with real servers.

The proxy of `steady` puts the figures at rest; all else is what the dashboard shows of the real thing.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from tests import servers
from tests.e2e.plane import deployment, open_plane, wait_until
from tests.tui.driving import Driver, contexts_of
from tests.tui.snapshots import check, hold_still
from tests.tui.steady import NOW, steady
from tui.app import Dashboard
from tui.themes import DARK, LIGHT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.e2e.plane import Plane
    from tui.contexts import Context, Contexts
    from tui.plane import Plane as Watched

SIZES = ((80, 24), (120, 40), (200, 60))
THEMES = (DARK.name, LIGHT.name)
SAMPLED_S = 20.0
SETTLE_S = 0.3
"""After a change of size or theme; painting is put together, not waited for by anything."""


class StillDashboard(Dashboard):
    """The dashboard with a clock that stands."""

    def _plane_of(self, context: Context) -> Watched:
        plane = super()._plane_of(context)
        plane.clock = lambda: NOW
        return plane


@pytest.fixture(scope="module")
def shown() -> Iterator[Plane]:
    """`alpha` (with something of everything) and `beta` run, `gamma` is stopped, `delta` was refused by its own entry point."""
    with open_plane() as opened:
        opened.start()
        opened.deploy("alpha", servers.source("inspected.py"), labels={"team": "search"})
        opened.deploy("beta")
        opened.deploy("gamma")
        assert opened.request("POST", "/instances/gamma/stop").status_code == 200
        body = deployment(
            "delta", b"import sys\nsys.exit('no configuration: set WEATHER_URL')\n", restart={"mode": "never"}
        )
        assert opened.request("POST", "/api/v2/deploy?wait=30", json=body).status_code == 422
        greeting = opened.execute("alpha", "tools/call", {"name": "greet", "arguments": {"name": "ada"}})
        assert greeting.status_code == 200
        for name in ("alpha", "beta"):
            wait_until(lambda name=name: opened.instance(name)["cpu_percent"] is not None, SAMPLED_S, "a sample")
        yield opened


@pytest.fixture(scope="module")
def url(shown: Plane) -> Iterator[str]:
    with steady(shown.url, shown.token) as proxy:
        yield proxy


async def choose(person: Driver, tool: str) -> None:
    """Put one of its tools into the inspector."""
    await person.command("inspect alpha")
    await person.sees("Inspector", "greet")
    await person.press("ctrl+o")
    await person.sees("Call what?")
    await person.type(tool)
    await person.until(lambda: tool in person.line_with("▸"), f"{tool} under the cursor")
    await person.press("enter")
    await person.sees(f"tool {tool}")


async def fleet(_person: Driver, _plane: Plane) -> None:
    """The first one."""


async def filtered(person: Driver, _plane: Plane) -> None:
    await person.press("slash")
    await person.type("!gamma")
    await person.sees("3 of 4")


async def marked(person: Driver, _plane: Plane) -> None:
    await person.press("space", "space", "ctrl+d")
    await person.sees("Delete 2 instances")


async def overview(person: Driver, _plane: Plane) -> None:
    await person.command("open alpha")
    await person.sees("Overview", "Lanes")


async def failed(person: Driver, _plane: Plane) -> None:
    await person.command("open delta")
    await person.sees("WEATHER_URL")


async def logs(person: Driver, _plane: Plane) -> None:
    await person.command("logs delta")
    await person.sees("WEATHER_URL")


async def events(person: Driver, _plane: Plane) -> None:
    await person.command("events delta")
    await person.sees("failed")


async def metrics(person: Driver, _plane: Plane) -> None:
    await person.command("metrics gamma")
    await person.sees("CPU")


async def tools(person: Driver, _plane: Plane) -> None:
    await person.command("tools alpha")
    await person.sees("picture", "roots")


async def inspector(person: Driver, _plane: Plane) -> None:
    await choose(person, "greet")
    await person.type("ada")


async def question(person: Driver, _plane: Plane) -> None:
    """A server that asks the person in the middle of a call."""
    await choose(person, "ask")
    await person.press("f5")
    await person.sees("What is the word?")


async def wire(person: Driver, plane: Plane) -> None:
    await person.command("wire alpha")
    await person.sees("following")
    call = asyncio.to_thread(plane.execute, "alpha", "tools/call", {"name": "greet", "arguments": {"name": "ada"}})
    assert (await call).status_code == 200
    await person.sees("tools/call")


async def deploy(person: Driver, _plane: Plane) -> None:
    await person.command("deploy")
    await person.sees("deploy")


async def host(person: Driver, _plane: Plane) -> None:
    await person.command("host")
    await person.sees("orphans", "Runtimes")


async def usage(person: Driver, _plane: Plane) -> None:
    await person.command("usage")
    await person.sees("instances")


async def tokens(person: Driver, _plane: Plane) -> None:
    await person.command("tokens")
    await person.sees("admin")


async def alerts(person: Driver, _plane: Plane) -> None:
    await person.command("alerts")
    await person.sees("delta")


async def timeline(person: Driver, _plane: Plane) -> None:
    await person.command("timeline")
    await person.sees("timeline")


async def contexts(person: Driver, _plane: Plane) -> None:
    await person.command("contexts")
    await person.sees("staging")


async def keys(person: Driver, _plane: Plane) -> None:
    await person.press("question_mark")
    await person.sees("Keys")


SCRIPTS = (
    fleet, filtered, marked, overview, failed, logs, events, metrics, tools, inspector, question, wire, deploy, host, usage, tokens,
    alerts, timeline, contexts, keys,
)  # fmt: skip


def known(plane: Plane, url: str) -> Contexts:
    """This control plane, and another context that is only a name."""
    here = contexts_of(plane, url=url)
    other = evolve(here.current, name="staging", url="http://127.0.0.1:9", token=None, colour="yellow", read_only=True)
    return evolve(here, known=(here.current, other))


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_screen_looks_as_it_did(
    shown: Plane, url: str, script: Callable[[Driver, Plane], Awaitable[None]], request: pytest.FixtureRequest
) -> None:
    update = bool(request.config.getoption("--update-snapshots"))

    async def main() -> None:
        app = StillDashboard(known(shown, url))
        app.animation_level = "none"
        async with app.run_test(size=SIZES[1]) as pilot:
            person = Driver(app, pilot)
            await person.sees("live", "delta")
            await script(person, shown)
            app.clear_notifications()
            for theme in THEMES:
                app.theme = theme
                for size in SIZES:
                    await pilot.resize_terminal(*size)
                    await pilot.pause(SETTLE_S)
                    hold_still(app)
                    check(app, f"{script.__name__}-{size[0]}x{size[1]}-{theme.removeprefix('corral-')}", update=update)

    os.environ.pop("NO_COLOR", None)
    asyncio.run(main())
