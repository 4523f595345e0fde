"""The dashboard in a browser: who gets in, what a real Chromium shows, and that nothing outlives the terminal."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest

from tests.e2e.plane import wait_until
from tests.tui.browser import AFTER_GUESSES, END_S, NEXT_CODE, web_dashboard
from tui.web.gate import MAX_WRONG_CODES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.e2e.plane import Plane
    from tests.tui.browser import WebDashboard

CHROMIUM = "/usr/bin/chromium"
STYLES = re.compile(rb"\x1b\[[0-9;]*m")
PAGE_MS = 20_000
"""Bound of each wait for the page."""


@pytest.fixture
def served(fleet: Plane, tmp_path: Path) -> Iterator[WebDashboard]:
    with web_dashboard(fleet, tmp_path) as dashboard:
        yield dashboard


def test_without_the_code_there_is_a_form_and_nothing_else(served: WebDashboard) -> None:
    with httpx.Client(base_url=served.url) as client:
        page = client.get("/")
        assert page.status_code == 401
        assert "code from the terminal" in page.text
        for path in ("/ws", "/page.js", "/static/js/textual.js", "/download/x"):
            refused = client.get(path, headers={"Origin": served.url})
            assert refused.status_code == 401, path


def test_the_browser_is_opened_without_the_code_which_others_could_read_in_its_arguments(
    fleet: Plane, tmp_path: Path
) -> None:
    browser, told = tmp_path / "browser", tmp_path / "told"
    browser.write_text(f'#!/bin/sh\necho "$@" > {told}.new && mv {told}.new {told}\n')
    browser.chmod(0o755)
    with web_dashboard(fleet, tmp_path, browser) as dashboard:
        wait_until(told.exists, END_S, "the browser")
        assert told.read_text().strip() == f"{dashboard.url}/"


def test_the_code_is_exchanged_once_for_a_cookie_that_scripts_and_other_sites_do_not_get(served: WebDashboard) -> None:
    with httpx.Client(base_url=served.url) as client:
        entered = client.get("/", params={"code": served.code})
        assert entered.status_code == 303
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert client.get("/").status_code == 200
    with httpx.Client(base_url=served.url) as another:
        assert another.get("/", params={"code": served.code}).status_code == 401
        found = wait_until(lambda: NEXT_CODE.search(served.output), END_S, "the next code in the terminal")
        assert another.post("/enter", data={"code": found[1]}).status_code == 303


def test_when_guessing_has_killed_the_code_the_terminal_shows_another(served: WebDashboard) -> None:
    with httpx.Client(base_url=served.url) as client:
        for _ in range(MAX_WRONG_CODES):
            assert client.get("/", params={"code": "wrong"}).status_code == 401
        assert client.get("/", params={"code": served.code}).status_code == 401
        found = wait_until(lambda: AFTER_GUESSES.search(served.output), END_S, "another code in the terminal")
        assert client.get("/", params={"code": found[1]}).status_code == 303


def test_pages_of_other_sites_cannot_use_up_the_code(served: WebDashboard) -> None:
    with httpx.Client(base_url=served.url) as client:
        for _ in range(MAX_WRONG_CODES):
            hidden_picture = {"Sec-Fetch-Site": "cross-site"}
            assert client.get("/", params={"code": "wrong"}, headers=hidden_picture).status_code == 401
        assert client.get("/", params={"code": served.code}).status_code == 303


@pytest.mark.parametrize("path", ["/", "/ws", "/page.css", "/static/js/textual.js", "/download/x", "/nowhere"])
def test_every_answer_keeps_itself_to_this_page(served: WebDashboard, path: str) -> None:
    with httpx.Client(base_url=served.url) as client:
        for _ in ("without a cookie", "with one"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert "default-src 'none'" in headers["content-security-policy"]
            client.get("/", params={"code": served.code})


def test_the_page_loads_from_here_only_and_is_framed_by_nobody(served: WebDashboard) -> None:
    with httpx.Client(base_url=served.url, follow_redirects=True) as client:
        page = client.get("/", params={"code": served.code})
    assert "//" not in page.text.replace(served.url.replace("http:", "ws:"), "")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403)],
)
def test_other_hosts_and_origins_are_refused_even_with_the_cookie(
    served: WebDashboard, headers: dict[str, str], status: int
) -> None:
    with httpx.Client(base_url=served.url) as client:
        client.get("/", params={"code": served.code})
        for path in ("/", "/ws", "/static/js/textual.js"):
            assert client.get(path, headers=headers).status_code == status


def test_another_site_cannot_open_the_websocket(served: WebDashboard) -> None:
    async def attempt(origin: str | None) -> int:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(served.url, params={"code": served.code}):
                pass
            try:
                async with session.ws_connect(f"{served.url}/ws", origin=origin):
                    return 101
            except aiohttp.WSServerHandshakeError as refusal:
                return refusal.status

    assert asyncio.run(attempt("http://evil.example")) == 403
    assert served.tabs() == []


def enter(served: WebDashboard, page: Page) -> bytearray:
    """Open the dashboard; returns what its terminal is sent from now on."""
    seen = bytearray()

    def heard(payload: str | bytes) -> None:
        seen.extend(payload.encode() if isinstance(payload, str) else payload)

    page.on("websocket", lambda socket: socket.on("framereceived", heard))
    page.goto(f"{served.url}/?code={served.code}", timeout=PAGE_MS)
    page.wait_for_selector("body.-first-byte", timeout=PAGE_MS)
    return seen


def wait_for(page: Page, seen: bytearray, text: str) -> None:
    """Wait until the terminal has been sent a text."""
    waited = 0
    while text.encode() not in STYLES.sub(b"", bytes(seen)):
        assert waited < PAGE_MS, f"no {text!r} in what the terminal got"
        page.wait_for_timeout(50)
        waited += 50


@pytest.fixture
def page() -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser.new_page(viewport={"width": 1280, "height": 800})
        finally:
            browser.close()


@pytest.mark.needs("chromium")
def test_a_browser_opens_it_and_filters(served: WebDashboard, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    seen = enter(served, page)
    wait_for(page, seen, "alpha")
    page.keyboard.type("/bet")
    wait_for(page, seen, "1 of 3")
    assert len(served.tabs()) == 1
    assert all(url.startswith((served.url, "data:")) for url in asked), asked


@pytest.mark.needs("chromium")
def test_a_browser_calls_a_tool_of_a_real_server(
    fleet: Plane, served: WebDashboard, page: Page, tmp_path: Path
) -> None:
    seen = enter(served, page)
    wait_for(page, seen, "alpha")
    page.keyboard.type(":inspect alpha\n")
    wait_for(page, seen, "a JSON object")
    page.keyboard.press("Enter")
    wait_for(page, seen, "Call what?")
    page.keyboard.type("pid\n")
    wait_for(page, seen, "tool pid")
    seen.clear()
    page.keyboard.press("F5")
    wait_for(page, seen, "✓ result")
    processes = [str(lane["pid"]).encode() for lane in fleet.instance("alpha")["lanes"]]
    assert any(pid in seen for pid in processes)
    page.screenshot(path=tmp_path / "called.png")


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_it_ends_with_its_terminal_and_leaves_no_program_behind(
    served: WebDashboard, page: Page, number: signal.Signals
) -> None:
    seen = enter(served, page)
    wait_for(page, seen, "alpha")
    assert len(served.tabs()) == 1
    status = served.end(number)
    assert status == (0 if number != signal.SIGKILL else -number), served.output
    assert "Traceback" not in served.output
    page.wait_for_selector("text=look at the terminal", timeout=PAGE_MS)
    assert not page.is_visible("#again")


@pytest.mark.needs("chromium")
def test_a_dashboard_that_was_left_can_be_opened_again(served: WebDashboard, page: Page) -> None:
    seen = enter(served, page)
    wait_for(page, seen, "alpha")
    page.keyboard.press("Control+q")
    page.wait_for_selector("text=This dashboard has ended.", timeout=PAGE_MS)
    page.click("#again")
    page.wait_for_selector("body.-first-byte", timeout=PAGE_MS)


@pytest.mark.needs("chromium")
def test_a_tab_that_is_closed_takes_its_program_along(served: WebDashboard, page: Page) -> None:
    seen = enter(served, page)
    wait_for(page, seen, "alpha")
    page.goto("about:blank")
    wait_until(lambda: not served.tabs(), END_S, "the end of the tab's program")
