"""Fixtures of the conformance tests: a control plane with our fixture server deployed in each era."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.conformance.official import installed
from tests.e2e.plane import plane

if TYPE_CHECKING:
    from tests.e2e.plane import Plane

__all__ = ["plane"]

ERAS = ("dual", "legacy", "modern")


@pytest.fixture(scope="session")
def suite() -> None:
    """Installs the suite before anything that is timed."""
    installed()


@pytest.fixture(scope="module")
def deployed(plane: Plane, suite: None) -> Plane:
    """A control plane that runs the fixture server once per era, by the name of the era."""
    for era in ERAS:
        plane.deploy(era, mcp_config=servers.conformance(era))
    return plane
