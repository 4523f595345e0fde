"""Which arguments are shown and which are hidden."""

from __future__ import annotations

import time

import pytest

from controlplane.wire.redact import HIDDEN, names_secret, redact_args, secret_positions

H = HIDDEN

CASES = [
    (["-y", "@modelcontextprotocol/server-memory", "/tmp/a", "3"], ["-y", "@modelcontextprotocol/server-memory", "/tmp/a", "3"]),
    (["--api-key", "abc", "x"], ["--api-key", H, "x"]),
    (["--token=xyz", "API_KEY=foo"], [f"--token={H}", f"API_KEY={H}"]),
    (["--password", "--verbose"], ["--password", "--verbose"]),
    (["--token-file", "/run/t", "--auth-type=oauth"], ["--token-file", "/run/t", "--auth-type=oauth"]),
    (["--author", "bob", "--max-tokens", "100"], ["--author", "bob", "--max-tokens", "100"]),
    (["postgresql://user:pa@ss@host/db"], [f"postgresql://user:{H}@host/db"]),
    (["https://h/p?api_key=12&z=1"], [f"https://h/p?api_key={H}&z=1"]),
    (["Authorization: Bearer abcdefghijkl"], [f"Authorization: Bearer {H}"]),
    (["ghp_" + "a" * 36], [H]),
    (["key is sk-" + "a" * 20], [f"key is {H}"]),
    (["-----BEGIN RSA PRIVATE KEY-----\nabc"], [H]),
    (["--flag", "holds-hunter22-inside"], ["--flag", "holds-[redacted:PASSWORD]-inside"]),
]  # fmt: skip


@pytest.mark.parametrize("name", ["githubToken", "clientSecret", "--userPassword", "dbPassword", "myApiKey", "API_KEY"])
def test_a_name_in_humps_names_a_secret_as_well(name: str) -> None:
    assert names_secret(name)


@pytest.mark.parametrize("name", ["tokenLimit", "passwordFile", "tokenizer", "secretary", "Monkey", "authType"])
def test_a_word_that_only_looks_like_one_does_not(name: str) -> None:
    assert not names_secret(name)


@pytest.mark.parametrize(("args", "shown"), CASES)
def test_arguments_are_hidden_by_position(args: list[str], shown: list[str]) -> None:
    assert redact_args(args, {"PASSWORD": "hunter22", "DEBUG": "1"}) == shown


def test_positions_of_secrets_are_told() -> None:
    assert secret_positions(["-y", "srv", "--token", "abc", "x=1"], {}) == (3,)


@pytest.mark.parametrize(
    "piece", ["a", "-eyJ", "token-", "a://", "?token-", "bearer ", "a+", "-----BEGIN ", "a:", "eyJaaaaaaaaa."]
)
def test_hostile_arguments_cost_linear_time(piece: str) -> None:
    started = time.perf_counter()
    redact_args([piece * (32_768 // len(piece))], {"A": "b" * 9})
    assert time.perf_counter() - started < 1.0  # a hang guard: some milliseconds are expected
