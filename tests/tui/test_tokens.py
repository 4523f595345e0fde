"""Tokens and users: made, shown once, revoked, disabled; what a role may not is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tui.driving import contexts_of, drive
from tui.board.token_columns import TOKEN_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver


@pytest.fixture(autouse=True)
def tidy(fleet: Plane) -> Iterator[None]:
    yield
    for token in fleet.get("/tokens")["tokens"]:
        if token["name"] != "admin":
            fleet.request("DELETE", f"/tokens/{token['token_id']}")


async def opened(person: Driver) -> None:
    await person.sees("live")
    await person.command("tokens")
    await person.sees("NAME", "LAST USED")


def names(plane: Plane) -> set[str]:
    return {token["name"] for token in plane.get("/tokens")["tokens"]}


def test_a_new_token_is_shown_once_can_be_copied_and_works(fleet: Plane) -> None:
    copied: list[str] = []

    async def script(person: Driver) -> None:
        await opened(person)
        await person.press("n")
        await person.sees("A new token")
        await person.type("cq")  # letters here, and no keys
        await person.press("tab", "tab")
        await person.type("30d")
        await person.press("ctrl+j")
        await person.sees("Token cq, viewer", "It is shown this once")
        await person.press("y")
        copied.append(person.app.clipboard)
        assert copied[0] in person.text()
        await person.press("escape")
        await person.until(lambda: "in 30d" in person.text() or "in 29d23h" in person.text(), "when it expires")
        assert copied[0] not in person.text()

    drive(contexts_of(fleet), script, size=(80, 24))
    with fleet.client(copied[0]) as client:
        assert client.get("/instances").status_code == 200


def test_what_is_wrong_with_a_new_token_stands_beside_its_field(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person)
        await person.press("n")
        await person.sees("A new token")
        await person.press("ctrl+j")
        await person.sees("✗ must not be empty")
        await person.type("ci")
        await person.press("tab", "tab")
        await person.type("soon")
        await person.press("ctrl+j")
        await person.sees("is not a duration such as")
        await person.press("escape")
        await person.sees_not("A new token")

    drive(contexts_of(fleet), script)
    assert names(fleet) == {"admin"}


def test_revoking_asks_first_and_the_token_stops_working(fleet: Plane) -> None:
    secret = fleet.request("POST", "/tokens", json={"name": "old", "role": "viewer"}).json()["token"]

    async def script(person: Driver) -> None:
        await opened(person)
        await person.sees("old")
        await person.press("down")
        await person.press("ctrl+d")
        await person.sees("Revoke the token old of admin?")
        await person.press("n")
        await person.sees_not("Revoke the token")
        await person.press("ctrl+d")
        await person.sees("Revoke the token old of admin?")
        await person.press("y")
        await person.until(lambda: "old" not in names(fleet), "it is gone")
        await person.sees("revoked old of admin")

    drive(contexts_of(fleet), script)
    with fleet.client(secret) as client:
        assert client.get("/instances").status_code == 401


def test_a_role_that_may_make_no_tokens_is_told_so(fleet: Plane) -> None:
    secret = fleet.request("POST", "/tokens", json={"name": "looker", "role": "viewer"}).json()["token"]

    async def script(person: Driver) -> None:
        await opened(person)
        await person.sees("users, are for administrators")
        await person.press("n")
        await person.sees("A new token")
        await person.type("x")
        await person.press("ctrl+j")
        await person.sees("✗ The token's role does not allow this")

    drive(contexts_of(fleet, token=secret), script)


def test_an_administrator_makes_users_and_disables_them(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person)
        await person.sees("Users: ")
        await person.press("U")
        await person.sees("A new user")
        await person.type("bob")
        await person.press("ctrl+j")
        await person.sees("First token of bob, deployer")
        await person.press("escape")
        await person.sees("● enabled", "bob")
        await person.press("tab")
        await person.press("down")
        await person.press("ctrl+d")
        await person.sees("Disable bob?")
        await person.press("y")
        await person.sees("✗ disabled")
        await person.press("ctrl+d")
        await person.sees_not("✗ disabled")

    drive(contexts_of(fleet), script)
    assert {user["name"]: user["disabled"] for user in fleet.get("/users")["users"]}["bob"] is False


def test_a_read_only_dashboard_makes_and_revokes_nothing(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person)
        for key in ("n", "U", "ctrl+d"):
            await person.press(key)
            await person.sees("Read-only: nothing is changed from here")

    drive(contexts_of(fleet, read_only=True), script)


def test_an_expiry_says_in_words_how_near_it_is() -> None:
    column = next(column for column in TOKEN_COLUMNS if column.key == "expires")
    row = {"expires_at": "1970-01-02T00:00:00Z"}
    assert [column.cell(row, now).text for now in (0.0, 90_000.0)] == ["! in 1d", "✗ expired"]
    assert column.cell({"expires_at": None}, 0.0).text == "never"
