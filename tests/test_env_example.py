"""`.env.example` and `controlplane/config.py` say the same."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
from dotenv import dotenv_values

from controlplane.config import Config, load

EXAMPLE = Path(__file__).parents[1] / ".env.example"
LEFT_TO_THE_HOST = {"CORRAL_HOME", "START_CONCURRENCY"}
"""Their defaults depend on the machine."""


def variables() -> dict[str, attrs.Attribute]:
    return {attribute.metadata["name"]: attribute for attribute in attrs.fields(Config)}


def test_the_example_names_every_variable_once_and_no_other():
    named = re.findall(r"^(?:# )?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) == set(variables())


@pytest.mark.parametrize("name", variables())
def test_a_variable_stands_below_its_own_description(name: str):
    lines = EXAMPLE.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if re.match(rf"(# )?{name}=", line))
    assert lines[at - 1].startswith(f"# {variables()[name].metadata['doc']}")


def test_the_example_as_it_stands_sets_the_defaults():
    assert load({name: value or "" for name, value in dotenv_values(EXAMPLE).items()}) == Config()


def test_only_variables_without_a_fixed_default_are_commented_out():
    commented = set(re.findall(r"^# ([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE))
    assert commented == LEFT_TO_THE_HOST | {name for name, variable in variables().items() if variable.default is None}
