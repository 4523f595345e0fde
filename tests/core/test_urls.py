"""Addresses of services that are trusted, and the one spelling of our own."""

from __future__ import annotations

import pytest

from controlplane.core.urls import check_safe_url, is_loopback_url, is_safe_url, origin_of


@pytest.mark.parametrize(
    ("url", "safe", "loopback"),
    [
        ("https://login.example.com/realms/a", True, False),
        ("https://10.0.0.1:8443", True, False),
        ("http://127.0.0.1:8080/realms/a", True, True),
        ("http://localhost/", True, True),
        ("http://[::1]:8080", True, True),
        ("http://localhost.example.com", False, False),
        ("http://127.0.0.1.example.com", False, False),
        ("http://10.0.0.1", False, False),
        ("file:///etc/passwd", False, False),
        ("ftp://127.0.0.1/", False, True),
        ("https://user@example.com", False, False),
        ("https://example.com/#x", False, False),
        ("https://example.com/ x", False, False),
        ("https://example.com:99999", False, False),
        ("https://", False, False),
        ("login.example.com", False, False),
        ("https://example.com/" + "x" * 3000, False, False),
        ("https://[::1", False, False),
    ],
)
def test_a_service_is_trusted_over_https_or_on_this_host(url: str, safe: bool, loopback: bool) -> None:
    assert is_safe_url(url) is safe
    assert is_loopback_url(url) is loopback


def test_a_trusted_address_stays_as_it_was_written() -> None:
    assert check_safe_url("https://Login.example.com/realms/a/") == "https://Login.example.com/realms/a/"
    for wrong in ("https://a.example?x=1", "http://a.example", "a"):
        with pytest.raises(ValueError, match=r"\w"):
            check_safe_url(wrong)


@pytest.mark.parametrize(
    ("raw", "origin"),
    [
        ("https://MCP.Example.com/", "https://mcp.example.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443"),
        ("https://mcp.example.com/corral", None),
        ("https://mcp.example.com?x", None),
        ("ws://mcp.example.com", None),
        ("mcp.example.com", None),
    ],
)
def test_our_own_address_has_one_spelling(raw: str, origin: str | None) -> None:
    if origin is None:
        with pytest.raises(ValueError, match=r"\w"):
            origin_of(raw)
    else:
        assert origin_of(raw) == origin
