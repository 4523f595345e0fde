"""Both doors: what is asked of `server` must hold with the hot lane and without it."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import pytest

from tests.web.fakes import make_services, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from controlplane.web.services import Services
    from tests.web.fakes import Server


@pytest.fixture(params=["hot lane", "hypercorn"])
def hot(request: pytest.FixtureRequest) -> bool:
    """Whether the hot lane is on."""
    return bool(request.param == "hot lane")


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for some thousand sockets in this process, where the machine allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def settings() -> dict[str, Any]:
    """Settings of the control plane that a test module or class may override."""
    return {}


@pytest.fixture
def services(settings: dict[str, Any]) -> Services:
    return make_services(**settings)


@pytest.fixture
async def server(services: Services, hot: bool) -> AsyncIterator[Server]:
    async with running(services, hot=hot) as server:
        yield server
