"""The pages and the WebSocket of the dashboard in a browser.

textual-serve brings the terminal in the page and the protocol between it and the program; here is who may use it
(`gate`), for how long (as long as the terminal that started it), and pages that load nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import signal
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp_jinja2
import click
from aiohttp import web
from textual_serve.server import Server, to_int

from tui.web.gate import COOKIE, Gate, judge, may_bring_code
from tui.web.session import TabSession

HOST = "127.0.0.1"
PAGES = Path(__file__).parent / "pages"
MAX_TABS = 8
"""Each is a process of about 70 MiB."""
SHUTDOWN_S = 4.0
MAX_BODY_BYTES = 4096
"""A code, and nothing else, is ever posted here."""
OPEN = frozenset({"/enter", "/page.css"})
"""What is served without a cookie; and `/`, which asks for the code then."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class DashboardServer(Server):
    """Serves the dashboard on a loopback port until it is told to stop."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], port: int) -> None:
        super().__init__("corral", host=HOST, port=port, title="Corral", templates_path=PAGES)
        self.gate = Gate()
        self._arguments, self._environment = arguments, environment
        self._tabs: set[TabSession] = set()

    async def run(self, *, open_browser: bool) -> None:
        """Serve until SIGINT, SIGTERM or SIGHUP; every tab's program has ended when this returns.

        Raises:
            OSError: the port is taken.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        runner = web.AppRunner(await self._make_app(), access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.host, self.port)
            await site.start()
            self.port = runner.addresses[0][1]
            self._invite(open_browser=open_browser)
            await stop.wait()
        finally:
            await asyncio.gather(*(tab.stop() for tab in list(self._tabs)))
            await runner.cleanup()

    async def _make_app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(_harden)
        import jinja2  # noqa: PLC0415  (it comes with textual-serve)

        aiohttp_jinja2.setup(app, loader=jinja2.FileSystemLoader(PAGES), autoescape=True)
        app.add_routes(
            [
                web.get("/", self.handle_index, name="index"),
                web.post("/enter", self.handle_enter),
                web.get("/page.css", self.handle_own_file),
                web.get("/page.js", self.handle_own_file),
                web.get("/ws", self.handle_websocket, name="websocket"),
                web.get("/download/{key}", self.handle_download, name="download"),
                web.static("/static", self.statics_path, name="static"),
            ]
        )
        return app

    # -- who may come in

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        verdict = judge(request.headers.get("Host"), request.headers.get("Origin"), needs_origin=request.path == "/ws")
        if verdict == "host":
            raise web.HTTPMisdirectedRequest(text="This is served on loopback names only.")
        if verdict == "origin":
            raise web.HTTPForbidden(text="Requests from other sites are refused.")
        if request.path == "/" and "code" in request.query and may_bring_code(request.headers.get("Sec-Fetch-Site")):
            return self._let_in(request.query["code"])
        if request.path not in OPEN and not self.gate.knows(request.cookies.get(COOKIE)):
            if request.path != "/":
                raise web.HTTPUnauthorized(text="Open the address that the terminal shows.")
            return self._ask()
        return await handler(request)

    async def handle_enter(self, request: web.Request) -> web.Response:
        """Take the code that was typed into the form."""
        form = await request.post()
        return self._let_in(str(form.get("code", "")))

    def _let_in(self, code: str) -> web.Response:
        before = self.gate.code
        cookie = self.gate.exchange(code)
        if cookie is None:
            if self.gate.code != before:
                click.echo(f"Somebody tries codes. The code is now {self.gate.code}")
            return self._ask("This code is not, or no longer, the one in the terminal.")
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="Strict", path="/")
        click.echo(f"A browser has come in. The code for another one: {self.gate.code}")
        return response

    def _ask(self, complaint: str = "") -> web.Response:
        text = (PAGES / "enter.html").read_text().replace("<!-- complaint -->", complaint)
        return web.Response(text=text, content_type="text/html", status=401)

    def _invite(self, *, open_browser: bool) -> None:
        address = f"http://{HOST}:{self.port}/"
        click.echo(f"The dashboard is at {address} for whoever has the code {self.gate.code}, once:")
        click.echo(f"  {address}?code={self.gate.code}")
        click.echo("It ends with this terminal: Ctrl-C stops it.")
        if open_browser:
            webbrowser.open(address)  # which asks for the code: everybody here can read a program's arguments

    # -- what is served

    @aiohttp_jinja2.template("dashboard.html")
    async def handle_index(self, request: web.Request) -> dict[str, object]:
        """The page with the terminal in it; addresses are those by which it was asked for."""
        size = max(8, min(40, to_int(request.query.get("fontsize", "15"), 15)))
        return {"font_size": size, "websocket": f"ws://{request.host}/ws"}

    async def handle_own_file(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGES / Path(request.path).name)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Run a dashboard for as long as the tab is there."""
        if len(self._tabs) >= MAX_TABS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_TABS} tabs are open already.")
        websocket = web.WebSocketResponse(heartbeat=15)
        tab = TabSession(self._arguments, self._environment, websocket, self.download_manager)
        self._tabs.add(tab)
        try:
            await websocket.prepare(request)
            width, height = (
                to_int(request.query.get(name, ""), usual) for name, usual in (("width", 80), ("height", 24))
            )
            await tab.start(width, height)
            await self._process_messages(websocket, tab)
        finally:
            await tab.stop()
            self._tabs.discard(tab)
        return websocket


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    """Add what keeps an answer to itself: it loads from here only, is framed by nobody, and leaves no code behind."""
    host = f" ws://{request.host}" if judge(request.headers.get("Host"), None, needs_origin=False) == "ok" else ""
    response.headers.update(
        {
            "Content-Security-Policy": (
                "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
                f"img-src 'self' data:; connect-src 'self'{host}; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
            ),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
    )
