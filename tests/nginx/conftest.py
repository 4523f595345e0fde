"""Fixtures: a real nginx before servers of the test's own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import planes
from tests.nginx.front import Front
from tests.nginx.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


__all__ = ["planes"]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A server where a control plane would be."""
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def fronts() -> Iterator[Callable[..., Front]]:
    """Starts an nginx before servers on these ports, as often as wanted."""
    with ExitStack() as stack:

        def start(ports: Sequence[int], local: str = "") -> Front:
            front = Front(ports, local)
            stack.callback(front.close)
            return front.start()

        yield start


@pytest.fixture
def front(fronts: Callable[..., Front], upstream: Upstream) -> Front:
    """nginx before `upstream`."""
    return fronts([upstream.port])
