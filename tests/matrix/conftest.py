"""Fixtures of the bridge matrix: a control plane with our fixture server deployed in each era."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.e2e.plane import plane

if TYPE_CHECKING:
    from tests.e2e.plane import Plane

__all__ = ["plane"]

SERVERS = ("legacy", "dual", "modern")
PRIVATE = "per-session"
"""A legacy server that gives each session of the legacy era a process of its own."""


@pytest.fixture(scope="module")
def deployed(plane: Plane) -> Plane:
    """A control plane that runs the fixture server once per era, by the name of the era."""
    for server in SERVERS:
        plane.deploy(server, mcp_config=servers.conformance(server))
    plane.deploy(PRIVATE, mcp_config=servers.conformance("legacy"), sessions="per-session")
    return plane
