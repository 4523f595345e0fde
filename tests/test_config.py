"""Settings: each variable as documented, and every wrong one named at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.config import PLACEHOLDER_SECRETS, Config, ConfigError, load
from tests.forked import in_a_child

LONG = "0123456789abcdef0123456789abcdef"
NAMES = [attribute.metadata["name"] for attribute in attrs.fields(Config)]


def value_of(name: str, raw: str) -> Any:
    """What one variable comes to."""
    attribute = next(field for field in attrs.fields(Config) if field.metadata["name"] == name)
    return getattr(load({name: raw}), attribute.name)


def problems_of(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    return caught.value.problems


def test_without_any_variable_everything_has_its_default() -> None:
    config = load({})

    assert config == Config()
    assert (config.host, config.port) == ("127.0.0.1", 8000)
    assert config.database_url is config.redis_url is config.secret_key is config.admin_token is None
    assert (config.max_instances_per_user, config.max_memory_mb, config.max_cpu_percent) == (10, 1024, 80)
    assert (config.rate_limit_rps, config.deploys_per_minute, config.auth_failures_per_minute) == (100, 10, 30)
    assert (config.start_timeout_s, config.build_timeout_s, config.sample_interval_s) == (60.0, 600.0, 1.0)
    assert config.buffer_max_mb == 256


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("raw", ["", "  ", "\t"])
def test_an_empty_variable_counts_as_unset(name: str, raw: str) -> None:
    assert load({name: raw}) == Config()


def test_what_is_no_variable_of_corrals_says_nothing() -> None:
    assert load({"PATH": "/bin", "port": "1", "NO_SUCH": "x"}) == Config()


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("PORT", "0", 0),
        ("PORT", " 8080 ", 8080),
        ("SAMPLE_INTERVAL", "2.5s", 2.5),
        ("SAMPLE_INTERVAL", "2.5", 2.5),
        ("MAX_CALL_TIMEOUT", "1e3", 1000.0),
        ("ALLOWED_HOSTS", "a.example, b.example  c.example,", ("a.example", "b.example", "c.example")),
        ("TRUSTED_PROXIES", "10.0.0.0/8", ("10.0.0.0/8",)),
        ("JWT_ALGORITHM", "hs512", "HS512"),
        ("MIN_ISOLATION", "Confined", "confined"),
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("RATE_LIMIT_RPS", "0", 0),
        ("SECRET_KEY", LONG, LONG),
        ("ADMIN_TOKEN", "ü" * 16, "ü" * 16),
        ("DATABASE_URL", "postgresql://ada:pw@db/x", "postgresql://ada:pw@db/x"),
        ("CORRAL_HOME", "/srv/corral", Path("/srv/corral")),
        ("LOG_DIR", "logs", Path.cwd() / "logs"),
    ],
)
def test_a_variable_is_read_as_what_it_is(name: str, raw: str, value: Any) -> None:
    assert value_of(name, raw) == value


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "http"),
        ("SAMPLE_INTERVAL", "0"),
        ("SAMPLE_INTERVAL", "-1s"),
        ("SAMPLE_INTERVAL", "nan"),
        ("SAMPLE_INTERVAL", "inf"),
        ("SAMPLE_INTERVAL", "1m"),
        ("MAX_MEMORY_MB", "15"),
        ("MAX_MEMORY_MB", "1.5"),
        ("MAX_INSTANCES_PER_USER", "0"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_ALGORITHM", "RS256"),
        ("MIN_ISOLATION", "strong"),
        ("LOG_LEVEL", "LOUD"),
        ("SECRET_KEY", "short"),
        ("SECRET_KEY", LONG[:31]),
        ("ADMIN_TOKEN", "changeme"),
        ("EGRESS_ALLOW_PRIVATE", "db.internal"),
        ("EGRESS_ALLOW_PRIVATE", "10.0.0.0/8:80"),
        ("EGRESS_ALLOW_PRIVATE", " ".join(f"127.0.0.1:{port}" for port in range(1, 66))),
        ("CORRAL_HOME", "~no-such-user-of-this-host/corral"),
    ],
)
def test_a_wrong_value_is_refused_with_the_variables_name(name: str, raw: str) -> None:
    (problem,) = problems_of(**{name: raw})

    assert problem.startswith(f"{name}: ")
    assert len(problem) > len(name) + 5


@pytest.mark.parametrize("placeholder", sorted(PLACEHOLDER_SECRETS))
def test_a_placeholder_is_no_secret(placeholder: str) -> None:
    (problem,) = problems_of(SECRET_KEY=placeholder.upper())

    assert "placeholder" in problem


def test_everything_that_is_wrong_is_told_at_once() -> None:
    problems = problems_of(PORT="x", LOG_LEVEL="LOUD", MAX_MEMORY_MB="1", HOST="ok")

    assert [problem.partition(":")[0] for problem in problems] == ["PORT", "LOG_LEVEL", "MAX_MEMORY_MB"]


@pytest.mark.parametrize("name", ["SECRET_KEY", "ADMIN_TOKEN", "DATABASE_URL", "REDIS_URL"])
def test_a_secret_stands_in_no_representation_and_no_complaint(name: str) -> None:
    planted = "planted-" + LONG
    assert planted not in repr(load({name: planted}))

    if name in ("SECRET_KEY", "ADMIN_TOKEN"):
        assert "hunter2" not in problems_of(**{name: "hunter2"})[0]


def test_every_variable_says_what_it_is() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for attribute in attrs.fields(Config):
        assert attribute.metadata["doc"].endswith(".")
        assert attribute.metadata["name"].isupper()


@given(st.sampled_from(NAMES), st.text(st.characters(exclude_characters="\0"), max_size=20))
def test_no_value_makes_the_reader_fail_in_another_way(name: str, raw: str) -> None:
    named = {name}
    try:
        load({name: raw})
    except ConfigError as error:
        named = {problem.partition(":")[0] for problem in error.problems}

    assert named == {name}


@pytest.mark.needs("root")
def test_a_user_without_a_home_is_told_to_name_one() -> None:
    """In a container that runs as an id that no account has."""

    def homeless() -> None:
        os.environ.pop("HOME", None)
        assert problems_of() == ["CORRAL_HOME: must be set: this user has no home folder"]
        assert load({"CORRAL_HOME": "/srv/corral"}).home == Path("/srv/corral")

    in_a_child(homeless, uid=54321)
