"""What an administrator sees of the store of installs, and may do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controlplane.deploy.installs.keys import SHARED, key_of, scope_of
from controlplane.model import Role
from tests.web.fakes import MEMORY_ID, TOKENS
from tests.web.fakes_api import Api, problem_of, serving

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from controlplane.deploy.installs.keys import InstallKey

MOO = key_of(SHARED, "moo")
OWN = key_of(scope_of("alice"), "own")


async def fill(api: Api) -> None:
    """Two installs, of which one is in use."""
    for key, label in ((MOO, "moo@1.2.3"), (OWN, "own")):
        await make(api, key, label)
    api.services.installs.hold(MOO, MEMORY_ID)


async def make(api: Api, key: InstallKey, label: str) -> None:
    async def build(place: Path) -> Mapping[str, str]:
        tree = place / "tree"
        tree.mkdir(exist_ok=True)
        (tree / "index.js").write_text("moo()")
        return {"label": label, "kind": "package"}

    await api.services.installs.make(key, build)


async def test_installs_are_listed_with_their_use() -> None:
    async with serving() as api:
        await fill(api)
        document = (await api.admin("GET", "/cache")).json()
        rows = {row["key"]: row for row in document["installs"]}
        assert set(rows) == {str(MOO), str(OWN)}
        moo = rows[str(MOO)]
        assert (moo["scope"], moo["kind"], moo["label"]) == ("shared", "package", "moo@1.2.3")
        assert (moo["files"], moo["in_use_by"], rows[str(OWN)]["in_use_by"]) == (1, 1, 0)
        assert document["total_bytes"] == sum(row["size_bytes"] for row in document["installs"]) > 0
        assert document["limit_bytes"] == 2**30


async def test_what_is_damaged_is_found_and_goes() -> None:
    async with serving() as api:
        await fill(api)
        assert (await api.admin("POST", "/cache/verify")).json() == {"checked": 2, "damaged": []}
        install = await api.services.installs.get(OWN)
        assert install is not None
        (install.tree / "index.js").unlink()
        assert (await api.admin("POST", "/cache/verify")).json() == {"checked": 2, "damaged": [str(OWN)]}
        assert (await api.admin("POST", "/cache/verify")).json() == {"checked": 1, "damaged": []}


async def test_only_what_nobody_uses_is_pruned() -> None:
    async with serving() as api:
        await fill(api)
        assert (await api.admin("POST", "/cache/prune")).json() == {"removed": [], "freed_bytes": 0}
        pruned = (await api.admin("POST", "/cache/prune?all=true")).json()
        assert pruned["removed"] == [str(OWN)]
        assert pruned["freed_bytes"] > 0
        assert [row["key"] for row in (await api.admin("GET", "/cache")).json()["installs"]] == [str(MOO)]


@pytest.mark.parametrize(("method", "path"), [("GET", "/cache"), ("POST", "/cache/verify"), ("POST", "/cache/prune")])
async def test_it_is_the_administrators_alone(method: str, path: str) -> None:
    async with serving() as api:
        problem_of(await api.ask(method, path, token=TOKENS[Role.DEPLOYER]), 403, "forbidden")
        problem_of(await api.ask(method, path, token=None), 401, "unauthorized")
