"""Keys of installs: what determines one determines its key, and no key is a path out of the store."""

from __future__ import annotations

import pytest

from controlplane.deploy.installs.keys import SHARED, InstallKey, key_of, scope_of


def test_the_same_parts_have_the_same_key_and_no_others_have_it() -> None:
    lists = [("a", "b"), ("ab",), ("a", "b", ""), ("", "ab"), ("b", "a"), (b"a\0b",), ()]

    keys = [key_of(SHARED, *parts) for parts in lists]

    assert keys == [key_of(SHARED, *parts) for parts in lists]
    assert len(set(keys)) == len(lists)
    assert key_of(SHARED, "a") == key_of(SHARED, b"a")


def test_an_owners_scope_is_a_name_of_a_folder_and_the_same_for_nobody_else() -> None:
    scopes = {scope_of(owner) for owner in ("ada", "Ada", "../other", "shared", "", "é")}

    assert len(scopes) == 6
    assert all(len(scope) == 32 and scope.isalnum() for scope in scopes)


def test_a_key_survives_being_written() -> None:
    key = key_of(scope_of("ada"), "x")

    assert InstallKey.parse(str(key)) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shared",
        "shared/",
        "shared/..",
        f"../{'a' * 64}",
        f"shared/{'A' * 64}",
        f"shared/{'a' * 64}\n",
        f"shared/{'a' * 64}/",
        f"{'a' * 31}/{'a' * 64}",
    ],
)
def test_what_is_no_key_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError, match="must match"):
        InstallKey.parse(text)
