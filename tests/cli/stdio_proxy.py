"""`corral proxy` as a process, as an MCP client starts it: lines in, lines out, every wait bounded."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from typing import Any, Self

from attrs import define, field

from tests.cli.fake_api import TOKEN
from tests.cli.terminal import COMMAND, TIMEOUT_S, environment

ENVELOPE = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
HANDSHAKE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


@define(eq=False)
class Proxy:
    """A running proxy for an instance."""

    url: str
    token: str = TOKEN
    instance: str = "memory"
    _process: subprocess.Popen[bytes] = field(init=False)
    _lines: queue.Queue[bytes] = field(factory=queue.Queue, init=False)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [*COMMAND, "proxy", self.instance],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self.url, CORRAL_TOKEN=self.token),
        )
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(TIMEOUT_S)
        for pipe in (self._process.stdin, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.put(line)

    def write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def send(self, method: str, params: dict[str, Any] | None = None, id_: Any = None) -> None:
        """A request, or a notification where it has no id."""
        message = {"jsonrpc": "2.0", "method": method}
        message |= ({} if id_ is None else {"id": id_}) | ({} if params is None else {"params": params})
        self.write(json.dumps(message).encode())

    def modern(self, method: str, id_: Any, **params: Any) -> None:
        self.send(method, {**params, "_meta": ENVELOPE}, id_)

    def line(self) -> bytes:
        """The next line it writes."""
        return self._lines.get(timeout=TIMEOUT_S)

    def message(self) -> Any:
        return json.loads(self.line())

    def ask(self, method: str, params: dict[str, Any] | None = None, id_: Any = 1) -> Any:
        self.send(method, params, id_)
        return self.message()

    def shake_hands(self) -> Any:
        """Initialize, as a legacy client does."""
        answer = self.ask("initialize", HANDSHAKE, 0)
        self.send("notifications/initialized")
        return answer

    def close_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for its end; its status, and what it told the operator."""
        status = self._process.wait(TIMEOUT_S)
        assert self._process.stderr is not None
        return status, self._process.stderr.read().decode()
