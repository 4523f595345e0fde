"""One call of a tool or prompt, and how it asks the client for something before it can answer.

`Call.ask` is written once for both eras. In the legacy one it sends requests to the client, all at once, and waits. In
the modern one it ends the call with what it needs, and the client calls again with the answers; what is to be
remembered in between travels through the client, signed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as types
from attrs import frozen
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

if TYPE_CHECKING:
    from mcp.server import ServerRequestContext

STATE_KEY = os.environ.get("CONFORMANCE_STATE_KEY", "the same in every process of this test server").encode()
"""Signs `requestState`: whichever process is called next must be able to read it."""

Question = types.ElicitRequest | types.CreateMessageRequest | types.ListRootsRequest
Answers = dict[str, dict[str, Any]]

ANSWERED_WITH: dict[type, type] = {
    types.ElicitRequest: types.ElicitResult,
    types.CreateMessageRequest: types.CreateMessageResult,
    types.ListRootsRequest: types.ListRootsResult,
}
NEEDED_FOR: dict[type, str] = {
    types.ElicitRequest: "elicitation",
    types.CreateMessageRequest: "sampling",
    types.ListRootsRequest: "roots",
}


class InputRequired(Exception):
    """The call ends here, for now: the client is to come back with answers."""

    def __init__(self, result: types.InputRequiredResult) -> None:
        self.result = result


@frozen
class Call:
    """A `tools/call` or `prompts/get` while it is served."""

    ctx: ServerRequestContext
    params: types.CallToolRequestParams | types.GetPromptRequestParams

    @property
    def arguments(self) -> dict[str, Any]:
        return self.params.arguments or {}

    @property
    def is_modern(self) -> bool:
        return self.ctx.protocol_version in MODERN_PROTOCOL_VERSIONS

    def declares(self, capability: str) -> bool:
        """Whether the client said that it can do this."""
        return getattr(self.ctx.session.client_capabilities, capability, None) is not None

    def require(self, capability: str) -> None:
        """Refuse the call of a client that never said it can do this."""
        if not self.declares(capability):
            raise MCPError(
                types.MISSING_REQUIRED_CLIENT_CAPABILITY,
                f"This needs a client with the {capability} capability",
                {"requiredCapabilities": {capability: {}}},
            )

    async def ask(self, *, remember: bool = False, **questions: Question) -> Answers:
        """Return the client's answers, by the names of the questions.

        Args:
            remember: Send what was answered so far along with the question, for a call that asks more than once.
        """
        for question in questions.values():
            self.require(NEEDED_FOR[type(question)])
        if not self.is_modern:
            return await self._send(questions)
        answers = self._answers()
        missing = {name: question for name, question in questions.items() if name not in answers}
        if missing:
            state = seal(self.params.name, answers) if remember else None
            raise InputRequired(types.InputRequiredResult(input_requests=missing, request_state=state))
        return answers

    def _answers(self) -> Answers:
        before = {} if self.params.request_state is None else unseal(self.params.name, self.params.request_state)
        now = self.params.input_responses or {}
        return before | {name: _plain(answer) for name, answer in now.items()}

    async def _send(self, questions: dict[str, Question]) -> Answers:
        answers: Answers = {}
        refusals: list[MCPError] = []
        related = ServerMessageMetadata(related_request_id=self.ctx.request_id)

        async def send(name: str, question: Question) -> None:
            expected = ANSWERED_WITH[type(question)]
            try:
                answers[name] = _plain(await self.ctx.session.send_request(question, expected, metadata=related))
            except MCPError as refusal:
                refusals.append(refusal)

        async with anyio.create_task_group() as tasks:
            for name, question in questions.items():
                tasks.start_soon(send, name, question)
        if refusals:
            raise refusals[0]
        return answers


def _plain(answer: Any) -> dict[str, Any]:
    plain: dict[str, Any] = answer.model_dump(by_alias=True, mode="json", exclude_none=True)
    return plain


def seal(name: str, answers: Answers) -> str:
    """Return what the client is to bring back, bound to the tool or prompt that was called."""
    payload = json.dumps(answers, sort_keys=True).encode()
    return f"{base64.urlsafe_b64encode(payload).decode()}.{_signature(name, payload)}"


def unseal(name: str, state: str) -> Answers:
    """Return what `seal` was given; anything else that a client brings is refused."""
    encoded, _, signature = state.partition(".")
    try:
        payload = base64.urlsafe_b64decode(encoded.encode())
    except ValueError:
        payload = b""
    if not hmac.compare_digest(_signature(name, payload).encode(), signature.encode()):
        raise MCPError(types.INVALID_PARAMS, "requestState is not what this server gave out")
    answers: Answers = json.loads(payload)
    return answers


def _signature(name: str, payload: bytes) -> str:
    return hmac.new(STATE_KEY, name.encode() + b"\0" + payload, hashlib.sha256).hexdigest()


def elicitation(message: str, required: list[str] | None = None, **properties: Any) -> types.ElicitRequest:
    """Ask the user to fill in a form."""
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required is not None:
        schema["required"] = required
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(prompt: str, max_tokens: int = 100) -> types.CreateMessageRequest:
    """Ask the client's model something."""
    message = types.SamplingMessage(role="user", content=types.TextContent(text=prompt))
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    )


def filled_in(answer: dict[str, Any], field: str) -> Any:
    """What the user wrote into a field; None where the form was declined or cancelled."""
    return answer.get("content", {}).get(field) if answer["action"] == "accept" else None


def said(answer: dict[str, Any]) -> str:
    """The text of a model's answer."""
    content = answer["content"]
    first = content[0] if isinstance(content, list) else content
    return str(first.get("text", ""))
