"""What calls itself a control plane and is none: its answers neither reach the terminal raw nor end the dashboard."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tui.client import PAGES_MAX, Api, Failure
from tui.contexts import Context
from tui.deploying.sending import Deployment, Parcel
from tui.once import print_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOSTILE = "\x1b]52;c;aGk=\x07\u202e"
"""Would put a text into the clipboard, and turn the rest of the line around."""


@contextmanager
def impostor(answer: Callable[[str], Any], kind: str = "application/json") -> Iterator[Context]:
    """Serve what `answer` makes of a path, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = answer(self.path)
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  (the names that the library calls)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Context(name="impostor", url=f"http://127.0.0.1:{server.server_port}", token="t")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_a_picture_that_is_printed_shows_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"instance_id": "i", "name": HOSTILE, "status": HOSTILE}
    document = {"status": HOSTILE, "services": {HOSTILE: HOSTILE}, "instances": [row]}
    with impostor(lambda _path: document) as context:
        assert asyncio.run(print_once(context, as_json=False)) == 0
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert "\\x1b]52" in printed


@pytest.mark.parametrize("health", [{}, {"status": 7}, {"status": None, "services": []}])
def test_a_picture_is_printed_whatever_health_is(health: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with impostor(lambda path: health if path == "/health" else {"instances": []}) as context:
        assert asyncio.run(print_once(context, as_json=False)) == 0
    assert capsys.readouterr().out.startswith("impostor: ")


def test_a_list_without_an_end_is_given_up() -> None:
    asked: list[str] = []

    def answer(path: str) -> Any:
        asked.append(path)
        return {"instances": [], "next_cursor": f"c{len(asked)}"}

    async def read(context: Context) -> None:
        async with Api(context) as api:
            await api.pages("/instances", "instances")

    with impostor(answer) as context, pytest.raises(Failure, match="no end"):
        asyncio.run(read(context))
    assert len(asked) == PAGES_MAX


@pytest.mark.parametrize(
    "said",
    [
        b"data: {]\n\n",
        b"data: [1]\n\n",
        b"data: " + b"[" * 20_000 + b"\n\n",
        b'data: {"type": "result"}\n\n',
        b'data: {"type": "result", "status": 201, "instance": [1]}\n\n',
        b'data: {"type": "problem"}\n\n',
        b'data: {"type": "problem", "status": "x", "problem": 7}\n\n',
        b'data: {"type": "status", "phase": [1], "status": [1], "timestamp": {}}\n\n',
        b'data: {"type": ["log"], "candidate": {"phase": {}}, "instance_id": {}}\n\n',
    ],
)
def test_a_deploy_ends_as_failed_whatever_its_stream_says(said: bytes) -> None:
    async def deploy(context: Context) -> Deployment:
        async with Api(context) as api:
            deployment = Deployment(api, Parcel(name="x"), lambda: 0.0)
            await deployment.run()
            return deployment

    with impostor(lambda _path: said, "text/event-stream") as context:
        deployment = asyncio.run(deploy(context))
    assert deployment.failure is not None
    assert deployment.course.state in ("failed", "lost")
