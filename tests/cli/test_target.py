"""Which server is talked to, and which token goes where."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from controlplane import config
from controlplane.cli import target
from controlplane.cli.exits import CommandFailed, Exit
from controlplane.cli.target import find_target


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "credentials").write_text(json.dumps({"url": "http://127.0.0.1:8000", "token": "kept"}))
    return tmp_path


def found(**environ: str) -> tuple[str, str | None]:
    where = find_target(environ)
    return where.url, where.token


def test_both_variables_win_over_the_file(home):
    assert found(CORRAL_HOME=str(home), CORRAL_URL="https://c.example/", CORRAL_TOKEN="t") == ("https://c.example", "t")


def test_the_file_of_the_home_gives_both(home):
    assert found(CORRAL_HOME=str(home)) == ("http://127.0.0.1:8000", "kept")


def test_a_token_variable_goes_to_the_files_server(home):
    assert found(CORRAL_HOME=str(home), CORRAL_TOKEN="other") == ("http://127.0.0.1:8000", "other")


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("http://localhost:8000", "kept"),
        ("http://[::1]:8000", "kept"),
        ("http://127.0.0.1:8001", None),
        ("https://127.0.0.1:8000", None),
        ("http://corral.example:8000", None),
        ("http://localhost.evil.example:8000", None),
        ("http://127.0.0.1@evil.example:8000", None),
    ],
)
def test_the_files_token_is_sent_to_the_files_server_only(home, url, token):
    assert found(CORRAL_HOME=str(home), CORRAL_URL=url) == (url, token)


def test_without_anything_it_is_the_default_address_and_no_token(tmp_path):
    assert found(CORRAL_HOME=str(tmp_path)) == ("http://127.0.0.1:8000", None)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://[::1", "http://x:99999", "/x"])
def test_a_url_that_is_none_is_wrong_usage(tmp_path, url):
    with pytest.raises(CommandFailed) as failure:
        found(CORRAL_HOME=str(tmp_path), CORRAL_URL=url, CORRAL_TOKEN="t")
    assert failure.value.exit_code is Exit.USAGE


@pytest.mark.parametrize("content", [b"", b"[]", b'{"token": "x"}', b"\xff", b'{"url": 1}'])
def test_a_broken_file_says_what_to_do(home, content):
    (home / "credentials").write_bytes(content)
    with pytest.raises(CommandFailed) as failure:
        found(CORRAL_HOME=str(home))
    assert str(home / "credentials") in str(failure.value)
    assert "up` writes a new one" in failure.value.problem.hint


@pytest.mark.needs("root")
def test_a_file_of_another_user_says_so():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        Path(folder, "credentials").touch(0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(CommandFailed, match="not readable by you"):
                found(CORRAL_HOME=folder)
        finally:
            os.seteuid(0)


def test_the_default_home_is_the_servers():
    assert target.default_home() == config.default_home()


def test_the_checkouts_own_settings_file_may_name_the_home(home, tmp_path, monkeypatch):
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / ".env").write_text(f"CORRAL_HOME={home}\nCORRAL_URL=http://evil.example\n")
    monkeypatch.setattr(target, "CHECKOUT", tmp_path / "checkout")
    assert found() == ("http://127.0.0.1:8000", "kept")
    monkeypatch.chdir(tmp_path / "checkout")
    assert found(CORRAL_HOME=str(tmp_path / "elsewhere")) == ("http://127.0.0.1:8000", None)


def test_a_token_is_never_in_a_representation(home):
    assert "kept" not in repr(find_target({"CORRAL_HOME": str(home)}))
