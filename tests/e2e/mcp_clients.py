"""Two MCP clients on bare HTTP, one of each era: small, fast, and they keep every byte that they are told.

What a client has `seen` is searched for what should have gone to another. Neither checks anything by itself.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from controlplane.wire.sse import SseParser
from tests.e2e.http1 import Broken
from tests.e2e.load import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.e2e.http1 import Answer, Http

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
TAKES = "application/json, text/event-stream"
CAME_S = 60
"""A hang guard for what a client waits for."""

Message = dict[str, Any]


def tool_call(tool: str, **arguments: Any) -> Message:
    """The params of a `tools/call`."""
    return {"name": tool, "arguments": arguments}


@define(eq=False)
class Client:
    """What both have in common. `told` are the notifications, `asked` the questions, in the order of coming."""

    http: Http
    path: str
    capabilities: Message = field(factory=dict)
    reply: Callable[[Message], Message | None] = field(default=lambda _question: {"action": "cancel"})
    """Makes the result that answers a question, of `{method, params}`; None to leave it open."""
    told: list[Message] = field(factory=list, init=False)
    asked: list[Message] = field(factory=list, init=False)
    seen: list[str] = field(factory=list, init=False)
    event_ids: list[str] = field(factory=list, init=False)
    ids: int = field(default=0, init=False)
    broken: bool = field(default=False, init=False)
    """An answer broke off in the middle."""

    def next_id(self) -> int:
        """The same numbers in every client: they must not get in each other's way."""
        self.ids += 1
        return self.ids

    def told_of(self, method: str) -> list[Message]:
        return [message for message in self.told if message["method"] == f"notifications/{method}"]

    async def until_told(self, method: str, word: str = "") -> Message:
        """Wait for a notification that holds a word."""
        found: Message = await until(
            lambda: next((message for message in self.told_of(method) if word in json.dumps(message)), None),
            CAME_S,
            f"{method} {word}",
        )
        return found

    async def each(self, answer: Answer, take: Callable[[Message], Awaitable[bool]]) -> bool:
        """Give what an answer holds to `take`, one message or a stream of them, until it says that it has enough.

        All of it is kept. False if the answer ended before that.
        """
        if not answer.is_stream:
            body = await answer.body()
            self.seen.append(body.decode())
            return bool(body) and await take(json.loads(body))
        parser = SseParser()
        while chunk := await answer.chunk():
            for event in parser.feed(chunk):
                self.seen.append(event.data)
                self.event_ids.append(event.id)
                if event.data and await take(json.loads(event.data)):
                    return True
        return False

    async def response(self, answer: Answer) -> Message:
        """The response that an answer ends with; {} if it ends, or breaks, without one."""
        found: Message = {}

        async def take(message: Message) -> bool:
            if "method" not in message:
                found.update(message)
            else:
                await self.take(message)
            return bool(found)

        try:
            if await self.each(answer, take):
                await answer.body()  # nothing more: then the connection can be used again
        except Broken:
            self.broken = True
        return found

    async def take(self, message: Message) -> None:
        """Note what came beside responses."""
        self.told.append(message)


@define(eq=False)
class ModernClient(Client):
    """A client of 2026-07-28: nothing but requests."""

    def enveloped(self, method: str, params: Message, token: str | None, log_level: str | None) -> Message:
        """The whole message."""
        meta: Message = {
            META + "protocolVersion": MODERN,
            META + "clientCapabilities": self.capabilities,
            META + "clientInfo": {"name": "test", "version": "1"},
        }
        if token is not None:
            meta["progressToken"] = token
        if log_level is not None:
            meta[META + "logLevel"] = log_level
        return {"jsonrpc": "2.0", "id": self.next_id(), "method": method, "params": {**params, "_meta": meta}}

    def fields(self, method: str, params: Message) -> dict[str, str]:
        name = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}.get(method)
        named = {} if name is None else {"Mcp-Name": params[name]}
        return {"Accept": TAKES, "MCP-Protocol-Version": MODERN, "Mcp-Method": method, **named}

    @asynccontextmanager
    async def sent(
        self, method: str, params: Message, token: str | None = None, log_level: str | None = None
    ) -> AsyncIterator[Answer]:
        """The answer to a request as it begins; leaving the block early closes its connection, which cancels it."""
        body = self.enveloped(method, params, token, log_level)
        async with self.http.sent("POST", self.path, self.fields(method, params), body) as answer:
            yield answer

    async def once(
        self, method: str, params: Message, token: str | None = None, log_level: str | None = None
    ) -> Message:
        """One request's response, whatever it is; {} if there was none."""
        async with self.sent(method, params, token, log_level) as answer:
            return await self.response(answer)

    async def request(
        self, method: str, params: Message | None = None, *, token: str | None = None, log_level: str | None = None
    ) -> Message:
        """A request's response, after as many rounds of input as it takes."""
        params = params or {}
        while True:
            response = await self.once(method, params, token, log_level)
            result = response.get("result") or {}
            if result.get("resultType") != "input_required":
                return response
            params = self.answered(params, result)

    def answered(self, params: Message, result: Message) -> Message:
        """The params of the next round."""
        requests = result.get("inputRequests", {})
        self.asked += requests.values()
        responses = {key: self.reply(question) for key, question in requests.items()}
        state = {"requestState": result["requestState"]} if "requestState" in result else {}
        return {**params, "inputResponses": responses, **state}

    async def listen(
        self, notifications: Message, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> Message:
        """Listen until the server ends it; started once it is acknowledged. The final response, {} if there is none."""
        async with trio.open_nursery() as nursery:
            response: Message = {}

            async def listen() -> None:
                async with self.sent("subscriptions/listen", {"notifications": notifications}) as answer:
                    response.update(await self.response(answer))
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            await until(lambda: self.told_of("subscriptions/acknowledged"), CAME_S, "the acknowledgement")
            task_status.started()
        return response


@define(eq=False)
class LegacyClient(Client):
    """A client of 2025-11-25, with a session. `run_stream` reads its own stream."""

    session_id: str = field(default="", init=False)
    initialized: Message = field(factory=dict, init=False)
    status: int = field(default=0, init=False)
    """Of the last request."""
    stream_ended: trio.Event = field(factory=trio.Event, init=False)

    @property
    def fields(self) -> dict[str, str]:
        return {"Accept": TAKES, "MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": self.session_id}

    async def post(self, message: Message, **fields: str) -> tuple[int, bytes]:
        """Post something; returns the status and the whole body."""
        document = {"jsonrpc": "2.0", **message}
        async with self.http.sent("POST", self.path, self.fields | fields, document) as answer:
            body = await answer.body()
            self.seen.append(body.decode())
            return answer.status, body

    async def initialize(self) -> Message:
        """Begin a session; returns the response, which may be an error."""
        params = {
            "protocolVersion": LEGACY,
            "capabilities": self.capabilities,
            "clientInfo": {"name": "test", "version": "1"},
        }
        body = {"jsonrpc": "2.0", "id": self.next_id(), "method": "initialize", "params": params}
        async with self.http.sent("POST", self.path, {"Accept": TAKES}, body) as answer:
            self.initialized = await self.response(answer)
            self.session_id = answer.fields.get("mcp-session-id", "")
        if "result" in self.initialized:
            status, _ = await self.post({"method": "notifications/initialized"})
            assert status in (202, 404)  # its server may have gone already
        return self.initialized

    async def run_stream(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read the session's own stream until the server ends it."""
        async with self.http.sent("GET", self.path, self.fields | {"Accept": "text/event-stream"}) as answer:
            assert answer.status == 200
            task_status.started()
            await self.response(answer)
        self.stream_ended.set()

    async def take(self, message: Message) -> None:
        """Note a notification; answer a question."""
        if "id" not in message:
            self.told.append(message)
        elif message["method"] == "ping":
            await self.post({"id": message["id"], "result": {}})
        else:
            self.asked.append(message)
            if (result := self.reply(message)) is not None:
                await self.post({"id": message["id"], "result": result})

    async def request(
        self,
        method: str,
        params: Message | None = None,
        *,
        token: str | None = None,
        request_id: int | None = None,
    ) -> Message:
        """A request's response, {} if its stream ends without one."""
        params = dict(params or {})
        if token is not None:
            params["_meta"] = {"progressToken": token}
        raw_id = self.next_id() if request_id is None else request_id
        body = {"jsonrpc": "2.0", "id": raw_id, "method": method, "params": params}
        async with self.http.sent("POST", self.path, self.fields, body) as answer:
            self.status = answer.status
            return await self.response(answer)

    async def cancel(self, request_id: int) -> None:
        """Say that a request is not wanted any more."""
        await self.post({"method": "notifications/cancelled", "params": {"requestId": request_id}})

    async def delete(self) -> int:
        """End the session; returns the status."""
        async with self.http.sent("DELETE", self.path, self.fields) as answer:
            await answer.body()
            return answer.status


def said(response: Message) -> str:
    """The text that a tool answered with."""
    assert "result" in response, response
    text: str = response["result"]["content"][0]["text"]
    return text
