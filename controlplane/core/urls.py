"""Addresses of services that Corral trusts or is reached at: what they may look like, and one spelling of each."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

URL_MAX_CHARS = 2_048


def is_safe_url(url: str) -> bool:
    """Whether what is read there is what its owner wrote: https, or a server on this host."""
    try:
        parts = _split(url)
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts))


def is_loopback_url(url: str) -> bool:
    """Whether it is a server on this host."""
    try:
        return _is_loopback(_split(url))
    except ValueError:
        return False


def check_safe_url(raw: str) -> str:
    """Return the URL of a service whose word counts, as written; raises ValueError."""
    if _split(raw).query:
        raise ValueError("must not have a query")
    if not is_safe_url(raw):
        raise ValueError("expected an https URL (http only for a server on this host)")
    return raw


def origin_of(raw: str) -> str:
    """Return an external base URL in its one spelling: scheme, host and port in lower case, no slash at its end.

    Raises:
        ValueError: it is none, or has a path: endpoints stand at the root.
    """
    parts = _split(raw)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("expected an http or https URL, as in https://mcp.example.com")
    if parts.path not in {"", "/"} or parts.query:
        raise ValueError("must not have a path or a query")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _split(url: str) -> SplitResult:
    if len(url) > URL_MAX_CHARS or not url.isprintable() or " " in url:
        raise ValueError("is no URL")
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname:
        raise ValueError("is no URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold credentials")
    if parts.fragment or "#" in url:
        raise ValueError("must not have a fragment")
    _ = parts.port  # raises ValueError when it is none
    return parts


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
