"""Fixtures of the store's tests: real servers, an open store, and rows to put in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from controlplane.secretbox import SecretBox
from controlplane.store.postgres import PostgresStore, open_store
from tests.services import *  # noqa: F403 -- fixtures
from tests.store.rows import ADMIN


@pytest.fixture
def box() -> SecretBox:
    return SecretBox("a secret key of thirty-two bytes or more")


@pytest.fixture
async def store(database_url: str, box: SecretBox) -> AsyncIterator[PostgresStore]:
    """An open store on a fresh database, with one user, `ada`."""
    async with open_store(database_url, box, wait_s=5) as opened:
        await opened.add_user(ADMIN)
        yield opened
