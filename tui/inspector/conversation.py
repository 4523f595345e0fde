"""One call over an instance's MCP endpoint, as a client of 2026-07-28 makes it: sent, told about, asked back, answered.

The server may end a round by asking for input; whoever called answers, and the same request is sent again with the
answers. Closing the connection, which cancelling does, cancels the call at the server.
"""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Literal

from attrs import define, field, frozen

from controlplane.wire.text import clean
from tui.client import Api, Failure, path_of
from tui.inspector.jsontext import NotJson, kind_of, parse

VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
CAPABILITIES: Mapping[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
"""What a person at the dashboard can be asked for."""
MAX_ROUNDS = 20
"""A server that keeps asking is not listened to for ever."""
MAX_PAGES = 20
"""Of a list; a server that never ends one is not followed."""
SILENCE_S = 60.0
"""A stream has a heartbeat every 15 seconds, but before it begins the instance may have to start."""
MAX_MIRRORED = 64
"""Arguments that are repeated in HTTP fields; the control plane knows no more of one tool."""
TEXT_CHARS = 2_000
"""Of one notification, as it is shown."""

_ids = itertools.count(1)


@frozen(kw_only=True)
class Request:
    """What to ask. `schema` is the tool's input schema: it names arguments that HTTP fields repeat."""

    method: str
    params: Mapping[str, Any] = {}
    schema: Any = None


@frozen(kw_only=True)
class Heard:
    """Something said in the course of a call. Texts are clean; `done` and `total` are a progress's."""

    kind: Literal["progress", "log", "other"]
    text: str
    done: float | None = None
    total: float | None = None
    level: str = ""


@frozen
class Question:
    """What the server wants to know before it goes on."""

    method: str
    params: Mapping[str, Any]


Answer = Mapping[str, Any]
Asks = Callable[[Question], Awaitable[Answer | None]]
"""Puts a question to the person; None gives the call up."""


@frozen(kw_only=True)
class Outcome:
    """What came of a call.

    Args:
        kind: `result` (also of a tool that failed), `error` (the server's JSON-RPC error), `problem` (Corral's own
            failure), `declined` (a question was not answered).
        document: The result, the error or the problem document.
        text: The answer as it came.
        elapsed_s: Time that the server took, people's answers not counted.
        rounds: How often it was sent.
        failure: Of a problem that is not JSON-RPC.
    """

    kind: Literal["result", "error", "problem", "declined"]
    document: Any = None
    text: str = field(default="", repr=False)
    elapsed_s: float = 0.0
    rounds: int = 1
    failure: Failure | None = None

    @property
    def word(self) -> str:
        """In one word, for the history."""
        failed = self.kind == "result" and isinstance(self.document, dict) and self.document.get("isError") is True
        return "failed" if failed else self.kind


@define(eq=False)
class Conversation:
    """One call to one instance; `hears` is told what arrives, `asks` puts questions to the person."""

    api: Api
    instance_id: str
    request: Request
    hears: Callable[[Heard], None]
    asks: Asks
    clock: Callable[[], float] = time.monotonic
    _spent_s: float = field(default=0.0, init=False)
    _rounds: int = field(default=0, init=False)

    async def run(self) -> Outcome:
        """Make the call. Failures of every kind are outcomes."""
        more: dict[str, Any] = {}
        while self._rounds < MAX_ROUNDS:
            outcome = await self._round(more)
            if outcome.kind != "result" or not _wants_input(outcome.document):
                return outcome
            answers = await self._answers(outcome.document)
            if answers is None:
                return self._outcome("declined", None, outcome.text)
            more = {"inputResponses": answers} if answers else {}
            if "requestState" in outcome.document:
                more["requestState"] = outcome.document["requestState"]
        return self._outcome("problem", {"title": "It keeps asking", "detail": f"{MAX_ROUNDS} rounds are enough"}, "")

    async def _round(self, more: Mapping[str, Any]) -> Outcome:
        self._rounds += 1
        number = next(_ids)
        message = self._message(number, more)
        headers = headers_of(self.request)
        began = self.clock()
        lost: Failure | None = None
        text = ""
        answer: dict[str, Any] = {}
        try:
            text, answer = await self._answer(message, headers)
        except Failure as failure:
            lost = failure
        self._spent_s += self.clock() - began
        if lost is not None:
            return self._failed(lost)
        if isinstance(answer.get("error"), dict):
            return self._refused(answer["error"], text)
        return self._outcome("result", answer.get("result"), text)

    async def _answer(self, message: Mapping[str, Any], headers: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        """Raises Failure."""
        path = path_of("mcp", self.instance_id)
        try:
            events = self.api.events(path, method="POST", document=message, headers=headers, silence_s=SILENCE_S)
            async for event in events:
                document = parse(event.data)
                if not isinstance(document, dict):
                    continue
                if "method" not in document:
                    return event.data, document
                self.hears(heard_of(document))
        except NotJson as error:
            raise Failure("The answer cannot be read", clean(error)) from error
        except (ValueError, RecursionError) as error:  # of what is sent: half a surrogate pair, NaN, too deep
            raise Failure("This cannot be sent, or its answer cannot be read", clean(error)) from error
        raise Failure("The answer broke off", "The connection ended without one", code="away")

    def _message(self, number: int, more: Mapping[str, Any]) -> dict[str, Any]:
        meta = {
            META + "protocolVersion": VERSION,
            META + "clientInfo": {"name": "corral-tui", "version": "1"},
            META + "clientCapabilities": CAPABILITIES,
            META + "logLevel": "debug",
            "progressToken": number,
        }
        given = self.request.params.get("_meta")
        own = {**meta, **given} if isinstance(given, dict) else meta
        params = {**self.request.params, **more, "_meta": own}
        return {"jsonrpc": "2.0", "id": number, "method": self.request.method, "params": params}

    async def _answers(self, result: Mapping[str, Any]) -> dict[str, Answer] | None:
        asked = result.get("inputRequests")
        answers: dict[str, Answer] = {}
        for key, one in asked.items() if isinstance(asked, dict) else ():
            inner = one if isinstance(one, dict) else {}
            params = inner.get("params")
            question = Question(str(inner.get("method", "")), params if isinstance(params, dict) else {})
            answer = await self.asks(question)
            if answer is None:
                return None
            answers[key] = answer
        return answers

    def _failed(self, failure: Failure) -> Outcome:
        document = failure.document
        error = document.get("error") if isinstance(document, dict) else None
        text = _dumped(document)
        if isinstance(error, dict) and "jsonrpc" in document:
            return self._refused(error, text)
        return self._outcome("problem", document, text, failure)

    def _refused(self, error: Mapping[str, Any], text: str) -> Outcome:
        return self._outcome("problem" if is_corrals(error) else "error", error, text)

    def _outcome(self, kind: Any, document: Any, text: str, failure: Failure | None = None) -> Outcome:
        return Outcome(
            kind=kind, document=document, text=text, elapsed_s=self._spent_s, rounds=self._rounds, failure=failure
        )


async def tools_for_clients(api: Api, instance_id: str) -> list[Any]:
    """The tools that are listed to a client that can be asked for something: some servers have more for those.

    What cannot be listed is left out; at a server of a legacy version this starts a process of its own.
    """
    found: list[Any] = []
    params: dict[str, Any] = {}
    for _ in range(MAX_PAGES):
        request = Request(method="tools/list", params=params)
        outcome = await Conversation(api, instance_id, request, lambda _heard: None, _ask_nobody).run()
        page = outcome.document if outcome.kind == "result" and isinstance(outcome.document, dict) else {}
        tools, cursor = page.get("tools"), page.get("nextCursor")
        found += tools if isinstance(tools, list) else []
        if not isinstance(cursor, str):
            break
        params = {"cursor": cursor}
    return found


async def _ask_nobody(_question: Question) -> None:
    return None


def is_corrals(error: Mapping[str, Any]) -> bool:
    """Whether a JSON-RPC error is Corral's own: its code is an HTTP status, its data a problem's members."""
    data, code = error.get("data"), error.get("code")
    return isinstance(data, dict) and "title" in data and isinstance(code, int) and 400 <= code < 600


def headers_of(request: Request) -> dict[str, str]:
    """What is said in HTTP fields as well, for those who route by them."""
    found = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": VERSION,
        "Mcp-Method": field_value(request.method),
    }
    name = request.params.get(NAMED_BY.get(request.method, ""))
    if isinstance(name, str):
        found["Mcp-Name"] = field_value(name)
    arguments = request.params.get("arguments")
    for header, value in _mirrored(request.schema, arguments) if request.method == "tools/call" else ():
        if len(found) < MAX_MIRRORED:
            found[f"Mcp-Param-{header}"] = field_value(value)
    return found


def field_value(text: str) -> str:
    """A text as an HTTP field may hold it: as Base64 when it has what a field cannot, or looks like that."""
    plain = text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?")
    return text if plain else f"=?base64?{base64.b64encode(text.encode('utf-8', 'replace')).decode()}?="


def heard_of(message: Mapping[str, Any]) -> Heard:
    """A notification in words."""
    given = message.get("params")
    params: Mapping[str, Any] = given if isinstance(given, dict) else {}
    if message.get("method") == "notifications/progress":
        text = params.get("message")
        done, total = _number(params.get("progress")), _number(params.get("total"))
        return Heard(kind="progress", text=_clean(text) if text is not None else "", done=done, total=total)
    if message.get("method") == "notifications/message":
        return Heard(kind="log", text=_clean(params.get("data")), level=_clean(params.get("level") or "info")[:20])
    return Heard(kind="other", text=_clean(message.get("method")))


def _mirrored(schema: Any, arguments: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not isinstance(arguments, dict) or depth > MAX_ROUNDS:
        return
    for name, rule in properties.items():
        value = arguments.get(name)
        header = rule.get("x-mcp-header") if isinstance(rule, dict) else None
        if isinstance(header, str) and header.isascii() and header.replace("-", "").isalnum():
            if isinstance(value, str):
                yield header, value
            elif kind_of(value) in ("boolean", "integer", "number"):
                yield header, json.dumps(value)
        yield from _mirrored(rule, value, depth + 1)


def _wants_input(result: Any) -> bool:
    return isinstance(result, dict) and result.get("resultType") == "input_required"


def _number(value: Any) -> float | None:
    return float(value) if kind_of(value) in ("integer", "number") and abs(value) < 1e15 else None


def _clean(value: Any) -> str:
    return clean((value if isinstance(value, str) else _dumped(value))[:TEXT_CHARS])


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""
