"""`.env.example`, `controlplane/config.py`, the settings page and `docker-compose.yml` say the same."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
from dotenv import dotenv_values

from controlplane.config import FILE_SUFFIX, Config, load

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / ".env.example"
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
LEFT_TO_THE_HOST = {"CORRAL_HOME", "START_CONCURRENCY", "MIN_ISOLATION"}
"""Their defaults depend on the machine, or are others in a container."""
OF_THE_IMAGE = {"HOST", "PORT", "CORRAL_HOME"}
"""Set in the Dockerfile for good: what else stands in the containers' network and volumes follows from them."""
OF_COMPOSE = {"HTTP_BIND", "HTTP_PORT", "BACKEND_MEMORY", "TOOLCHAINS"}
"""Compose's own, which the control plane does not know."""
PASSED = re.compile(r"^      ([A-Z_]+): \$\{(\w+):-(.*)\}$", re.MULTILINE)


def variables() -> dict[str, attrs.Attribute]:
    return {attribute.metadata["name"]: attribute for attribute in attrs.fields(Config)}


def files() -> set[str]:
    """The variables that name a secret's file."""
    return {name + FILE_SUFFIX for name, variable in variables().items() if variable.metadata["secret"]}


def passed() -> dict[str, tuple[str, str]]:
    """What compose gives the control plane: variable -> (variable of .env, default)."""
    return {name: (source, default) for name, source, default in PASSED.findall(COMPOSE.read_text())}


def test_the_example_names_every_variable_once_and_no_other():
    named = re.findall(r"^(?:# )?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) == set(variables()) | files() | OF_COMPOSE


def test_compose_passes_every_setting_on_under_its_own_name_and_no_other():
    assert {name: source for name, (source, _default) in passed().items()} == {
        name: name for name in set(variables()) - OF_THE_IMAGE | files()
    }


def test_compose_asks_for_no_variable_that_the_example_does_not_have():
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    assert asked == set(variables()) - OF_THE_IMAGE | files() | OF_COMPOSE


def test_the_defaults_of_compose_for_its_own_variables_are_those_of_the_example():
    own = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE.read_text()))
    assert {name: own[name] for name in OF_COMPOSE} == {name: dotenv_values(EXAMPLE)[name] or "" for name in OF_COMPOSE}


def test_the_image_sets_what_compose_leaves_to_it():
    assert {
        name for name in variables() if re.search(rf"^ENV .*\b{name}=|^ +{name}=", DOCKERFILE.read_text(), re.MULTILINE)
    } == (OF_THE_IMAGE)


def test_the_settings_page_names_every_variable_for_a_file():
    assert files() <= set(re.findall(r"`(\w+)`", (ROOT / "docs/reference/settings.md").read_text()))


@pytest.mark.parametrize("name", variables())
def test_a_variable_stands_below_its_own_description(name: str):
    lines = EXAMPLE.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if re.match(rf"(# )?{name}=", line))
    assert lines[at - 1].startswith(f"# {variables()[name].metadata['doc']}")


def test_the_example_as_it_stands_sets_the_defaults():
    assert load({name: value or "" for name, value in dotenv_values(EXAMPLE).items()}) == Config()


def test_without_an_env_file_compose_sets_defaults_that_can_be_used():
    defaults = {name: default for name, (_source, default) in passed().items() if name in variables()}
    differing = {name for name, default in defaults.items() if default}
    assert differing == {"TRUSTED_PROXIES", "LOG_DIR", "MIN_ISOLATION"}
    assert load(defaults).min_isolation == "confined"


def test_only_variables_without_a_fixed_default_are_commented_out():
    commented = set(re.findall(r"^# ([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE))
    unset = {name for name, variable in variables().items() if variable.default is None}
    assert commented == LEFT_TO_THE_HOST | unset | files()
