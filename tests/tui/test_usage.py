"""The usage page: quotas with bars, and what each owner has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tui.driving import contexts_of, drive
from tui.board.usage_columns import QUOTA_COLUMNS, number, share

if TYPE_CHECKING:
    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver


def test_quotas_show_what_is_used_of_them_and_owners_their_sums(fleet: Plane) -> None:
    user = fleet.request("POST", "/users", json={"name": "alice", "role": "deployer"})
    assert user.status_code == 201
    with fleet.client(user.json()["token"]) as client:
        answer = client.post(
            "/deploy?wait=0",
            json={
                "name": "hers",
                "source_type": "mcp_config",
                "mcp_config": {"command": "sleep", "args": ["300"]},
                "isolation": "process",
            },
        )
        assert answer.json()["instance_id"]

    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.command("usage")
        await person.sees("admin (admin): 3 instances", "QUOTA", "instances", "Owners: enter shows", "alice")
        quotas = fleet.get("/usage")["quotas"]
        for quota in quotas[:4]:
            assert quota["name"].replace("_", " ") in person.text()
        await person.press("tab")
        await person.press("j")
        await person.press("enter")
        await person.sees("alice (deployer): 1 instances", "esc: your own")
        await person.press("escape")
        await person.sees("admin (admin): 3 instances")
        await person.press("escape")
        await person.sees("local › fleet")

    try:
        drive(contexts_of(fleet), script)
    finally:
        fleet.request("DELETE", "/instances/alice%2Fhers")


def test_who_is_no_administrator_sees_his_own_only(fleet: Plane) -> None:
    made = fleet.request("POST", "/tokens", json={"name": "looker", "role": "viewer"})

    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.command("usage")
        await person.sees("3 instances", "QUOTA")
        assert "Owners" not in person.text()

    drive(contexts_of(fleet, token=made.json()["token"]), script, size=(80, 24))


@pytest.mark.parametrize(
    ("row", "text", "tone"),
    [
        ({"name": "n", "used": 1, "limit": 4, "unit": "instances"}, "████░░░░░░░░░░░░ 25%", "accent"),
        ({"name": "n", "used": 85, "limit": 100, "unit": "MiB"}, "██████████████░░ 85% nearly full", "warn"),
        ({"name": "n", "used": 100, "limit": 100, "unit": "MiB"}, "████████████████ 100% full", "bad"),
        ({"name": "n", "used": 5, "limit": None, "unit": "MiB"}, "", "accent"),
        ({"name": "n", "used": None, "limit": 10, "unit": "calls/s"}, "", "accent"),
    ],
)
def test_a_bar_says_in_words_as_well_when_a_quota_runs_out(row: dict[str, object], text: str, tone: str) -> None:
    cell = next(column for column in QUOTA_COLUMNS if column.key == "bar").cell(row, 0.0)
    assert (cell.text, cell.tone) == (text, tone)


def test_figures_stand_in_their_unit() -> None:
    assert (number(2048, "MiB"), number(150, "percent"), number(12_000, "calls"), number(1.5, "calls/s")) == (
        "2048M", "150%", "12,000", "1.5",
    )  # fmt: skip
    assert number(300.0, "s") == "5m"
    assert number(None, "MiB") == "-"
    assert share({"used": 1, "limit": 0}) is None
