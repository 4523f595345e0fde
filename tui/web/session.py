"""One browser tab's dashboard: a process of its own, which ends with the tab and with the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from textual_serve.app_service import AppService

from tui.web.tether import PARENT

if TYPE_CHECKING:
    from aiohttp import web
    from textual_serve.download_manager import DownloadManager

STOP_S = 3.0
"""For the program to leave by itself; it takes far less."""


class TabSession(AppService):
    """Textual's own service, but that its environment is given, its end is bounded, and it opens no address in the
    browser: what a hosted server says must not choose where a person goes."""

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        websocket: web.WebSocketResponse,
        download_manager: DownloadManager,
    ) -> None:
        command = "exec " + shlex.join([sys.executable, "-P", "-m", "tui", *arguments])
        super().__init__(
            command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=websocket.close,  # type: ignore[arg-type]  # what it returns is not looked at
            download_manager=download_manager,
        )
        self._more = dict(environment)

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        server = {PARENT: str(os.getpid())}
        return super()._build_environment(width, height) | self._more | server

    async def run(self) -> None:
        """Pass on what the program paints until it ends; then the page is told, whyever it ended."""
        await super().run()
        await self.remote_close()

    async def on_meta(self, data: bytes) -> None:
        meta: Any = json.loads(data)
        if meta.get("type") != "open_url":
            await super().on_meta(data)

    async def stop(self) -> None:
        """End the program: asked to at first, killed when it does not."""
        try:
            async with asyncio.timeout(STOP_S):
                await super().stop()
        except TimeoutError:
            pass
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
