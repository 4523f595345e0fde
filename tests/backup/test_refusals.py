"""What a backup and a restore say where something is missing, or in the way."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane.backup.archive import reading
from controlplane.backup.making import make
from controlplane.backup.restoring import restore
from controlplane.config import Config
from controlplane.home import HomeUnusable, hold
from controlplane.secretbox import SecretBox
from controlplane.store.postgres import open_store
from tests.services import *  # noqa: F403 -- fixtures

if TYPE_CHECKING:
    from pathlib import Path

KEY = "a secret key of thirty-two bytes or more"


@pytest.fixture
async def url(database_url: str) -> str:
    async with open_store(database_url, SecretBox(KEY), wait_s=5):
        return database_url


@pytest.mark.parametrize("has_key", [True, False])
async def test_the_key_counts_as_in_it_only_if_it_is(tmp_path: Path, url: str, *, has_key: bool) -> None:
    (tmp_path / "owner-id").write_text("0" * 32)
    if has_key:
        (tmp_path / "secret-key").write_text(KEY)
    target = io.BytesIO()

    config = Config(home=tmp_path, database_url=url)
    made = await trio.to_thread.run_sync(partial(make, config, target, with_data=False))

    with reading(io.BytesIO(target.getvalue())) as reader:
        assert (made.has_key, reader.about["key"]) == (has_key, "file" if has_key else "environment")


def test_a_home_whose_database_is_elsewhere_is_not_said_to_be_at_rest(tmp_path: Path) -> None:
    (tmp_path / "owner-id").write_text("0" * 32)
    with pytest.raises(HomeUnusable, match="name the database"):
        make(Config(home=tmp_path), io.BytesIO(), with_data=False)


def test_a_restore_into_a_home_in_use_does_not_advise_to_take_it_over(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(HomeUnusable, match="restore into another CORRAL_HOME") as refused:
        restore(Config(home=tmp_path), io.BytesIO())
    assert "--replace" not in str(refused.value)
