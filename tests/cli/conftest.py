"""Fixtures of the command line's tests: an API to talk to, and ways to run the command."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from attrs import frozen

from controlplane.cli.app import run
from tests.cli.fake_api import TOKEN, FakeApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@frozen
class Result:
    """What one run of the command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[FakeApi]:
    fake = FakeApi()
    for name in [name for name in os.environ if name.startswith(("CORRAL_", "_CORRAL"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("CORRAL_URL", fake.url)
    monkeypatch.setenv("CORRAL_TOKEN", TOKEN)
    yield fake
    fake.close()


@pytest.fixture
def corral(api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line in this process, against the fake API."""

    def run_command(*arguments: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = run(list(arguments))
        captured = capsys.readouterr()
        return Result(int(code), captured.out, captured.err)

    return run_command
