"""A real control plane with a small real fleet, shared by the tests of a module that leave it as it was."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import open_plane, plane, planes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane

__all__ = ["plane", "planes"]


@pytest.fixture(autouse=True, scope="session")
def plain_asyncio() -> None:
    """The dashboard runs on asyncio's own loops, also where tests of the control plane have brought in trio-asyncio."""
    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())


@pytest.fixture(scope="module")
def fleet() -> Iterator[Plane]:
    """Running: `alpha` (team=search) and `beta`; stopped: `gamma`."""
    with open_plane() as opened:
        opened.start()
        opened.deploy("alpha", labels={"team": "search"})
        opened.deploy("beta")
        opened.deploy("gamma")
        assert opened.request("POST", "/instances/gamma/stop").status_code == 200
        yield opened
