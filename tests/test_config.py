"""Settings: each variable as documented, and every wrong one named at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.config import Config, ConfigError, load, with_files
from controlplane.core.variables import PLACEHOLDER_SECRETS
from tests.forked import in_a_child

ROOT = Path(__file__).parents[1]
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


# -- secrets from files

SECRETS = [attribute.metadata["name"] for attribute in attrs.fields(Config) if attribute.metadata["secret"]]
FILES = {Path("/run/good"): f"  {LONG}\n", Path("/run/empty"): "\n"}


def content_of(path: Path) -> str:
    if path not in FILES:
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return FILES[path]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_stand_in_a_file(name: str) -> None:
    assert with_files({f"{name}_FILE": "/run/good"}, content_of)[name] == LONG


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_set_wins_over_its_file(name: str) -> None:
    environ = {name: "set", f"{name}_FILE": "/run/nowhere"}

    assert with_files(environ, content_of) == environ


def test_an_empty_secret_counts_as_unset_beside_its_file() -> None:
    assert load(with_files({"SECRET_KEY": " ", "SECRET_KEY_FILE": "/run/good"}, content_of)).secret_key == LONG


def test_an_empty_name_of_a_file_counts_as_none() -> None:
    assert load(with_files({"SECRET_KEY_FILE": " "}, content_of)) == Config()


def test_only_secrets_may_stand_in_files() -> None:
    assert "PORT" not in with_files({"PORT_FILE": "/run/good"}, content_of)


def test_every_file_that_cannot_be_used_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        with_files({"SECRET_KEY_FILE": "/run/nowhere", "ADMIN_TOKEN_FILE": "/run/empty"}, content_of)

    assert sorted(caught.value.problems) == [
        "ADMIN_TOKEN_FILE: /run/empty is empty",
        "SECRET_KEY_FILE: /run/nowhere cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff\xfe\xfd", "it is not text"), (b"x" * 20_000, "it holds more than 16384 characters"), (b" \n", "is empty")],
)
def test_a_file_that_cannot_be_a_secrets_ends_the_start_with_status_78(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "key").write_bytes(content)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SECRET_KEY_FILE": str(tmp_path / "key")}

    command = [sys.executable, "-m", "controlplane"]
    ended = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 78
    assert "SECRET_KEY_FILE: " in ended.stderr
    assert reason in ended.stderr
