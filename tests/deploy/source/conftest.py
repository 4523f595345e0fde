"""A server with an authority of its own, for what is fetched by https."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.build.conftest import build_host, heard
from tests.deploy.source.https_server import Authority, Server, make_authority, serving

__all__ = ["authority", "build_host", "heard", "server"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    repositories = tmp_path / "repositories"
    repositories.mkdir()
    with serving(authority, repositories) as running:
        yield running
