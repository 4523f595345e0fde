"""What is remembered of the names that an instance looked up."""

from __future__ import annotations

import ipaddress

import pytest

from controlplane.egress.names import (
    GIVEN_FOR_S,
    MAX_NAMES_OF_ADDRESS,
    STAND_INS,
    Given,
    StandIns,
    is_localhost,
    is_stand_in,
    means_the_same_inside,
)


def test_an_address_is_known_by_the_names_it_was_given_for_the_last_one_first() -> None:
    given = Given()
    given.give("a.test", ("1.1.1.1", "1.1.1.2"), 0.0)
    given.give("b.test", ("1.1.1.1",), 1.0)
    assert given.names_of("1.1.1.1", 2.0) == ("b.test", "a.test")
    assert given.names_of("1.1.1.2", 2.0) == ("a.test",)
    assert given.names_of("1.1.1.3", 2.0) == ()

    given.give("a.test", ("1.1.1.1",), 3.0)
    assert given.names_of("1.1.1.1", 4.0) == ("a.test", "b.test")


def test_an_address_is_its_names_for_a_while_from_the_last_look_up() -> None:
    given = Given()
    given.give("a.test", ("1.1.1.1",), 0.0)
    given.give("b.test", ("1.1.1.1",), 10.0)
    assert given.names_of("1.1.1.1", GIVEN_FOR_S + 5.0) == ("b.test",)
    given.give("a.test", ("1.1.1.1",), GIVEN_FOR_S)
    assert given.names_of("1.1.1.1", GIVEN_FOR_S + 20.0) == ("a.test",)


def test_what_else_the_last_look_up_found_is_remembered_with_the_address() -> None:
    given = Given()
    given.give("a.test", ("1.1.1.1",), 0.0, ("1.1.1.1", "2606:4700::1"))
    assert given.found_with("1.1.1.1", "a.test") == ("1.1.1.1", "2606:4700::1")
    assert given.found_with("1.1.1.1", "b.test") == given.found_with("1.1.1.2", "a.test") == ()

    given.give("a.test", ("1.1.1.1",), 1.0, ("1.1.1.1",))
    assert given.found_with("1.1.1.1", "a.test") == ("1.1.1.1",)


def test_a_flood_of_names_drops_those_looked_up_longest_ago_and_leaves_nothing_behind() -> None:
    given = Given(max_pairs=3)
    for number in range(100):
        given.give(f"{number}.test", (f"1.1.1.{number}",), float(number))
    assert [given.names_of(f"1.1.1.{number}", 100.0) for number in (96, 97, 99)] == [(), ("97.test",), ("99.test",)]
    assert len(given._names) == len(given._when) == 3

    given = Given()
    for number in range(100):
        given.give(f"{number}.test", ("1.1.1.1",), float(number))
    assert given.names_of("1.1.1.1", 100.0) == tuple(f"{99 - back}.test" for back in range(MAX_NAMES_OF_ADDRESS))
    assert len(given._when) == MAX_NAMES_OF_ADDRESS


@pytest.mark.parametrize(
    ("address", "is_so"),
    [
        ("93.184.216.34", True),
        ("10.0.0.5", True),
        ("127.0.0.2", False),
        ("0.0.0.0", False),
        ("198.18.0.1", False),
        ("2606:4700::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.5", False),
    ],
)
def test_a_sandbox_is_told_what_means_the_same_to_it(address: str, is_so: bool) -> None:
    assert means_the_same_inside(address) == is_so


def test_localhost_is_the_askers_own() -> None:
    assert is_localhost("localhost")
    assert is_localhost("x.localhost")
    assert not is_localhost("localhost.test")


def test_a_name_keeps_its_address_and_an_address_its_name() -> None:
    stand_ins = StandIns()
    first, second = stand_ins.address_of("a.test"), stand_ins.address_of("b.test")

    assert first != second
    assert stand_ins.address_of("a.test") == first
    assert (stand_ins.name_of(first), stand_ins.name_of(second), stand_ins.name_of("198.18.9.9")) == (
        "a.test",
        "b.test",
        None,
    )
    assert is_stand_in(first)


def test_the_names_used_last_are_remembered_and_no_address_is_soon_another_stand_ins() -> None:
    stand_ins = StandIns(max_names=3)
    first = stand_ins.address_of("a.test")
    dropped = stand_ins.address_of("b.test")
    stand_ins.address_of("c.test")
    stand_ins.name_of(first)
    later = stand_ins.address_of("d.test")

    assert stand_ins.name_of(dropped) is None
    assert stand_ins.name_of(first) == "a.test"
    assert stand_ins.address_of("b.test") not in (dropped, first, later)


def test_addresses_come_round_without_leaving_their_network() -> None:
    stand_ins = StandIns(max_names=2)
    given_out = {stand_ins.address_of(f"{number}.test") for number in range(STAND_INS.num_addresses + 10)}

    assert len(given_out) == STAND_INS.num_addresses - 2
    assert all(ipaddress.IPv4Address(address) in STAND_INS for address in given_out)
