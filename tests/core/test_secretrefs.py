"""References to secrets are read as they are written, and nothing else is."""

from __future__ import annotations

import pytest

from controlplane.core.secretrefs import BadReference, filled_in, is_name, mentions, names_in, names_in_env

SECRETS = {"TOKEN": "t0ken", "_p": "pa$$ ${secret:TOKEN}"}


@pytest.mark.parametrize(
    ("value", "names", "filled"),
    [
        ("", set(), ""),
        ("plain $HOME ${HOME} ${env:X} $$ {secret:TOKEN}", set(), "plain $HOME ${HOME} ${env:X} $$ {secret:TOKEN}"),
        ("${secret:TOKEN}", {"TOKEN"}, "t0ken"),
        ("a${secret:TOKEN}b${secret:TOKEN}", {"TOKEN"}, "at0kenbt0ken"),
        (
            "postgres://ada:${secret:TOKEN}@db/${secret:_p}",
            {"TOKEN", "_p"},
            "postgres://ada:t0ken@db/pa$$ ${secret:TOKEN}",
        ),
        ("$${secret:TOKEN}", set(), "${secret:TOKEN}"),
        ("$${secret:", set(), "${secret:"),
        ("$${secret:no name}", set(), "${secret:no name}"),
        ("$$${secret:TOKEN}", set(), "$${secret:TOKEN}"),
        ("$${HOME}", set(), "$${HOME}"),
        ("line\n${secret:TOKEN}\n", {"TOKEN"}, "line\nt0ken\n"),
    ],
)
def test_a_reference_is_replaced_by_what_it_names_and_all_else_stays(value: str, names: set[str], filled: str) -> None:
    assert names_in(value) == names
    assert filled_in(value, SECRETS) == filled


@pytest.mark.parametrize(
    "value",
    [
        "${secret:",
        "${secret:}",
        "${secret:TOKEN",
        "x${secret:TO KEN}",
        "${secret:1TOKEN}",
        "${secret:a-b}",
        "${secret:ü}",
        "${secret:" + "A" * 129 + "}",
        "${secret:TOKEN\n}",
        "${secret:${secret:TOKEN}}",
        "${secret:TOKEN} ${secret:",
    ],
)
def test_what_cannot_be_read_is_refused_without_repeating_the_value(value: str) -> None:
    with pytest.raises(BadReference) as refused:
        names_in(value)
    assert "TO" not in str(refused.value).replace("`", "")
    with pytest.raises(BadReference):
        filled_in(value, SECRETS)


def test_a_reference_to_nothing_is_told_by_its_name() -> None:
    with pytest.raises(KeyError, match="OTHER"):
        filled_in("${secret:OTHER}", SECRETS)


def test_names_have_the_length_and_letters_of_a_variable() -> None:
    assert all(map(is_name, ("A", "_", "a1_B", "A" * 128)))
    assert not any(map(is_name, ("", "1", "a-b", "a b", "A\n", "ä", "A" * 129)))


def test_an_environment_names_the_secrets_of_all_its_values() -> None:
    assert names_in_env({"A": "${secret:X}", "B": "u:${secret:Y}", "C": "${secret:", "D": "d"}) == {"X", "Y"}


def test_arguments_that_mean_a_reference_are_known_even_if_it_is_malformed() -> None:
    assert mentions("--token=${secret:X}")
    assert mentions("${secret:")
    assert not mentions("$${secret:X}")
    assert not mentions("${X}")
