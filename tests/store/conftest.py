"""Fixtures of the store's tests: real servers and an open store with one user, `ada`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controlplane.secretbox import SecretBox
from controlplane.store.postgres import PostgresStore, open_store
from tests.services import *  # noqa: F403 -- fixtures
from tests.store.rows import ADA, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.services import Postgres


@pytest.fixture
def box() -> SecretBox:
    return SecretBox(SECRET_KEY)


@pytest.fixture
async def store(database_url: str, box: SecretBox) -> AsyncIterator[PostgresStore]:
    async with open_store(database_url, box, wait_s=5) as opened:
        await opened.add_user(ADA)
        yield opened


@pytest.fixture
async def own_store(own_postgres: Postgres, box: SecretBox) -> AsyncIterator[PostgresStore]:
    """A store on a Postgres that the test may kill and freeze."""
    async with open_store(own_postgres.url("postgres"), box, wait_s=5) as opened:
        await opened.add_user(ADA)
        yield opened
