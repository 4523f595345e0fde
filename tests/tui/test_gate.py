"""Who may come in to the dashboard in a browser: hosts, origins, codes and cookies. Pure."""

from __future__ import annotations

import pytest

from tui.web.gate import MAX_COOKIES, MAX_WRONG_CODES, Gate, judge, may_bring_code


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8178", "localhost:1", "[::1]:8178", "LOCALHOST:80"])
def test_loopback_names_are_served_whatever_the_port(host: str) -> None:
    assert judge(host, None, needs_origin=False) == "ok"


@pytest.mark.parametrize(
    "host",
    [
        *(None, "", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "0.0.0.0"),
        *("a@127.0.0.1", "127.0.0.1:8178; script-src *", "127.0.0.1:x", "[::1", "127.0.0.1:8178/"),
    ],
)
def test_any_other_name_is_refused_so_that_dns_rebinding_is_in_vain(host: str | None) -> None:
    assert judge(host, None, needs_origin=False) == "host"


@pytest.mark.parametrize(
    ("origin", "verdict"),
    [
        ("http://127.0.0.1:8178", "ok"),
        ("http://127.0.0.1:9999", "origin"),
        ("http://localhost:8178", "origin"),
        ("https://127.0.0.1:8178", "origin"),
        ("http://evil.example", "origin"),
        ("null", "origin"),
    ],
)
def test_an_origin_must_be_the_page_s_own(origin: str, verdict: str) -> None:
    assert judge("127.0.0.1:8178", origin, needs_origin=False) == verdict


def test_a_websocket_without_an_origin_is_refused() -> None:
    assert judge("127.0.0.1:8178", None, needs_origin=True) == "origin"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_code_that_another_site_s_page_sends_is_not_looked_at(site: str) -> None:
    assert not may_bring_code(site)


@pytest.mark.parametrize("site", [None, "none", "same-origin"])
def test_a_code_from_a_link_a_form_or_a_program_is_looked_at(site: str | None) -> None:
    assert may_bring_code(site)


def test_a_code_counts_once_and_the_next_one_is_another() -> None:
    gate = Gate()
    code = gate.code
    cookie = gate.exchange(code)
    assert cookie is not None
    assert gate.knows(cookie)
    assert gate.code != code
    assert gate.exchange(code) is None


def test_a_code_may_be_typed_in_capitals_with_blanks_around() -> None:
    gate = Gate()
    assert gate.exchange(f" {gate.code.upper()} ") is not None


def test_guessing_kills_the_code() -> None:
    gate = Gate()
    code = gate.code
    for _ in range(MAX_WRONG_CODES):
        assert gate.exchange("wrong") is None
    assert gate.exchange(code) is None


def test_the_browser_that_came_first_gives_way() -> None:
    gate = Gate()
    cookies = [gate.exchange(gate.code) for _ in range(MAX_COOKIES + 1)]
    assert not gate.knows(cookies[0])
    assert all(gate.knows(cookie) for cookie in cookies[1:])


@pytest.mark.parametrize("cookie", [None, "", "x", "ä"])
def test_a_foreign_cookie_is_not_known(cookie: str | None) -> None:
    gate = Gate()
    gate.exchange(gate.code)
    assert not gate.knows(cookie)
