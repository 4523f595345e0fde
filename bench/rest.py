"""As much HTTP as the benchmark itself speaks: one request at a time to a port of this machine, and requests as bytes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

TIMEOUT_S = 60.0
MARK = "@" * 16
"""Where the load programs put the fresh text of each call; see native/common.h."""


@frozen
class Answer:
    """What came back."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(port: int, method: str, path: str, body: Any = None, fields: Mapping[str, str] | None = None) -> Answer:
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        payload = None if body is None else encode(body)
        connection.request(method, path, payload, {"Content-Type": "application/json", **(fields or {})})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def request(port: int, method: str, path: str, body: Any = None, fields: Mapping[str, str] | None = None) -> bytes:
    """Write a whole request as a client would send it, for the load programs."""
    payload = b"" if body is None else encode(body)
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "User-Agent: corral-bench"]
    lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(payload)}"]
    return "\r\n".join([*lines, "", ""]).encode() + payload


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def echo_params(text: str) -> dict[str, Any]:
    return {"name": "echo", "arguments": {"text": text}}
