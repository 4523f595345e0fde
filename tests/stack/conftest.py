"""The stack, built and brought up once for all tests here; they run in the order in which they stand."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import define, field

from tests.e2e.conftest import figure
from tests.needs import skip_for
from tests.stack.engine import EngineFailed, open_engine
from tests.stack.images import make_images
from tests.stack.proxy import open_proxy
from tests.stack.stack import BUILD_LIMIT_S, PROXY, Stack, checked_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack.engine import Engine

__all__ = ["figure"]

BUILD_CACHE = "4GB"
"""What is kept of builds from one run to the next: the packages' layer is 500 MB."""


@define
class Took:
    """Seconds, by what took them."""

    seconds: dict[str, float] = field(factory=dict)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_engine())
        except EngineFailed as failure:
            print(failure)
            skip_for("docker_engine")
        yield opened


@pytest.fixture(scope="session")
def took() -> Took:
    return Took()


@pytest.fixture(scope="session")
def bases(engine: Engine, took: Took) -> None:
    """What our own image, and compose, stand on."""
    began = time.monotonic()
    make_images(engine)
    took.seconds["base images"] = time.monotonic() - began


@pytest.fixture(scope="session")
def built(engine: Engine, bases: None, took: Took) -> Iterator[Stack]:
    """The stack with its image, not yet up."""
    folder = Path(tempfile.mkdtemp(prefix="corral-stack-", dir="/var/tmp"))
    try:
        stack = Stack(engine, checked_out(folder))
        began = time.monotonic()
        stack.compose("build", within_s=BUILD_LIMIT_S)
        took.seconds["build"] = time.monotonic() - began
        yield stack
        engine.docker("image", "prune", "--force")
        engine.docker("builder", "prune", "--force", "--keep-storage", BUILD_CACHE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stack(built: Stack, took: Took) -> Iterator[Stack]:
    took.seconds["first up"] = built.up()
    with open_proxy(*PROXY):
        yield built
    built.compose("down")
