"""Hypercorn's HTTP/1.1 protocol, without any way out of it.

WebSocket and HTTP/2 are not spoken: an Upgrade is ignored (RFC 9110 section
7.8), so their parsers cannot be reached. A request that says twice how its body
is framed is refused. With `hypercorn_server`, the only module that knows
Hypercorn's internals; the version is pinned to 0.18.
"""

from __future__ import annotations

from http import HTTPStatus

import h11
from hypercorn.events import Closed
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream

from controlplane.core.jsonrpc import encode
from controlplane.web.problems import PROBLEM_TYPE, STEADY_HEADERS
from controlplane.web.request import new_request_id


class PlainHttp1(H11Protocol):
    """HTTP/1.1 without any way out of it."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Neither h2c nor the HTTP/2 preface is taken up."""

    async def _create_stream(self, request: h11.Request) -> None:
        names = [name for name, _ in request.headers]
        status = 0
        if request.http_version not in {b"1.0", b"1.1"}:
            status = 505
        elif b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):
            status = 400  # RFC 9112 section 6.1: may be an attempt at request smuggling
        if status:
            await self._refuse(status, with_body=request.method != b"HEAD")
            await self.send(Closed())
            return
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1

    async def _send_error_response(self, status_code: int) -> None:
        """For what h11 cannot read."""
        await self._refuse(status_code, with_body=True)

    async def _refuse(self, status: int, *, with_body: bool) -> None:
        """Answer what violates HTTP itself; the status says it all, so the problem has no type of ours (RFC 9457, 4.2.1)."""
        request_id = new_request_id()
        title = HTTPStatus(status).phrase
        document = {"type": "about:blank", "title": title, "status": status, "request_id": request_id}
        body = encode(document) if with_body else b""
        headers = [
            (b"content-type", PROBLEM_TYPE),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
            *STEADY_HEADERS,
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(headers=headers, status_code=status))
        if body:
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())
