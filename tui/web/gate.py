"""Who may come in: a one-time code from the terminal is exchanged for a cookie. Pure but for the randomness.

What reaches a loopback port is not only the person at this machine: any web page in their browser can send requests
to it, and by DNS rebinding under a name of its own (CWE-346, CWE-350). So a request must name a loopback host, must
come from our own page where it names an origin, and must carry a cookie that no other site's request carries.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from typing import Literal
from urllib.parse import urlsplit

from attrs import define, field

CODE_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without what is mistaken for something else when it is typed."""
CODE_CHARS = 12
"""Of 31 characters each: 59 bits, for a code that dies after `MAX_WRONG_CODES` guesses."""
MAX_WRONG_CODES = 10
MAX_COOKIES = 8
"""Browsers let in at once; the one that came first gives way."""
COOKIE = "corral_tui"
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
"""What browsers send. Part of it stands in our policy and in the page, so nothing else may be in it."""

Verdict = Literal["ok", "host", "origin"]


def new_code() -> str:
    """Make a code that can be read out and typed."""
    return "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_CHARS))


def judge(host: str | None, origin: str | None, *, needs_origin: bool) -> Verdict:
    """Whether a request may be looked at at all.

    Args:
        host: Its `Host` field. The port does not count: an SSH tunnel may have another.
        origin: Its `Origin` field, if any.
        needs_origin: For WebSockets, which browsers let every page open to everywhere.
    """
    if not host or not _HOST.fullmatch(host) or not _is_loopback(urlsplit(f"//{host}").hostname):
        return "host"
    if origin is None:
        return "origin" if needs_origin else "ok"
    return "ok" if origin.lower() == f"http://{host.lower()}" else "origin"


def may_bring_code(site: str | None) -> bool:
    """Whether a code is looked at, by the request's `Sec-Fetch-Site`, which browsers send and no page can choose.

    A picture in any page can ask for our address, without an origin: enough of them would use up the code.
    """
    return site in (None, "none", "same-origin")


def _is_loopback(name: str | None) -> bool:
    if not name:
        return False
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


@define(eq=False)
class Gate:
    """The code that counts now, and the cookies that it was exchanged for."""

    code: str = field(factory=new_code)
    _wrong: int = field(default=0, init=False)
    _cookies: list[str] = field(factory=list, init=False)

    def exchange(self, code: str) -> str | None:
        """Take a code; a right one is spent, and its cookie returned. After too many wrong ones there is another code."""
        if hmac.compare_digest(code.strip().lower().encode(), self.code.encode()):
            self._renew()
            cookie = secrets.token_urlsafe(32)
            self._cookies = [*self._cookies[-(MAX_COOKIES - 1) :], cookie]
            return cookie
        self._wrong += 1
        if self._wrong >= MAX_WRONG_CODES:
            self._renew()
        return None

    def knows(self, cookie: str | None) -> bool:
        """Whether a cookie is one of ours."""
        given = (cookie or "").encode()
        return any(hmac.compare_digest(given, known.encode()) for known in self._cookies)

    def _renew(self) -> None:
        self.code, self._wrong = new_code(), 0
