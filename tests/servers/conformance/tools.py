"""The tools that the suite calls by name, each a function: what they return is prescribed by its scenarios."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import changes
import mcp_types as types
from asking import Call, elicitation, said, sampling
from attrs import field, frozen
from mcp.server.subscriptions import PromptsListChanged, ResourceUpdated, ToolsListChanged
from media import IMAGE, SOUND

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STEP_S = 0.05
"""Between two messages of a tool that reports: the client must see that they come one by one."""


class ToolFailed(Exception):
    """The tool's own failure, which the model is to read; not one of the protocol."""


@frozen
class Offer:
    """A tool as it is listed and run."""

    description: str
    run: Callable[[Call], Awaitable[Any]]
    properties: dict[str, Any] = field(factory=dict)
    schema: dict[str, Any] | None = None
    """The whole input schema, where `properties` do not say enough."""

    def listed(self, name: str) -> types.Tool:
        schema = self.schema or {"type": "object", "properties": self.properties, "required": list(self.properties)}
        return types.Tool(name=name, description=self.description, input_schema=schema)


TOOLS: dict[str, Offer] = {}
"""By name, in the order in which they are listed; the first one takes no arguments."""

TEXT = {"type": "string"}


def tool(description: str, schema: dict[str, Any] | None = None, **properties: Any) -> Callable[[Any], Any]:
    """Offer a function as the tool of its name."""

    def offer(run: Any) -> Any:
        TOOLS[run.__name__] = Offer(description, run, properties, schema)
        return run

    return offer


@tool("Returns a text")
async def test_simple_text(call: Call) -> str:
    return "This is a simple text response for testing."


@tool("Returns an image")
async def test_image_content(call: Call) -> list[Any]:
    return [types.ImageContent(data=IMAGE, mime_type="image/png")]


@tool("Returns a sound")
async def test_audio_content(call: Call) -> list[Any]:
    return [types.AudioContent(data=SOUND, mime_type="audio/wav")]


def embedded(uri: str, mime_type: str, text: str) -> types.EmbeddedResource:
    return types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=text))


@tool("Returns a resource")
async def test_embedded_resource(call: Call) -> list[Any]:
    return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


@tool("Returns a text, an image and a resource")
async def test_multiple_content_types(call: Call) -> list[Any]:
    return [
        types.TextContent(text="Multiple content types test:"),
        types.ImageContent(data=IMAGE, mime_type="image/png"),
        embedded("test://mixed-content-resource", "application/json", json.dumps({"test": "data", "value": 123})),
    ]


@tool("Fails")
async def test_error_handling(call: Call) -> str:
    raise ToolFailed("This tool intentionally returns an error for testing")


@tool("Writes three log messages")
async def test_tool_with_logging(call: Call) -> str:
    await changes.log(call.ctx, "info", "Tool execution started")
    await anyio.sleep(STEP_S)
    await changes.log(call.ctx, "info", "Tool processing data")
    await anyio.sleep(STEP_S)
    await changes.log(call.ctx, "info", "Tool execution completed")
    return "Three log messages were written."


@tool("Writes a log message, where the client wants any")
async def test_logging_tool(call: Call) -> str:
    await changes.log(call.ctx, "info", "The logging tool runs")
    return "A log message was written for those who want it."


@tool("Reports progress three times")
async def test_tool_with_progress(call: Call) -> str:
    for progress in (0, 50):
        await call.ctx.session.report_progress(progress, 100)
        await anyio.sleep(STEP_S)
    await call.ctx.session.report_progress(100, 100)
    return "Progress was reported three times."


@tool("Asks the client's model", prompt=TEXT)
async def test_sampling(call: Call) -> str:
    answers = await call.ask(sampled=sampling(call.arguments["prompt"]))
    return f"LLM response: {said(answers['sampled'])}"


@tool("Asks the user for a name and an address", message=TEXT)
async def test_elicitation(call: Call) -> str:
    form = elicitation(
        call.arguments["message"],
        ["username", "email"],
        username={"type": "string", "description": "User's response"},
        email={"type": "string", "description": "User's email address"},
    )
    answer = (await call.ask(form=form))["form"]
    return f"User response: action={answer['action']}, content={json.dumps(answer.get('content', {}))}"


@tool("Asks the user, with a default in every field (SEP-1034)")
async def test_elicitation_sep1034_defaults(call: Call) -> str:
    form = elicitation(
        "Please check these values",
        name={"type": "string", "description": "Name", "default": "John Doe"},
        age={"type": "integer", "description": "Age", "default": 30},
        score={"type": "number", "description": "Score", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "description": "Verified", "default": True},
    )
    return completed((await call.ask(form=form))["form"])


def titled(prefix: str, noun: str) -> list[dict[str, str]]:
    words = ("First", "Second", "Third")
    return [{"const": f"{prefix}{n}", "title": f"{word} {noun}"} for n, word in enumerate(words, 1)]


@tool("Asks the user to choose, in all five ways (SEP-1330)")
async def test_elicitation_sep1330_enums(call: Call) -> str:
    options = ["option1", "option2", "option3"]
    form = elicitation(
        "Please choose",
        untitledSingle={"type": "string", "enum": options},
        titledSingle={"type": "string", "oneOf": titled("value", "Option")},
        legacyEnum={
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        untitledMulti={"type": "array", "items": {"type": "string", "enum": options}},
        titledMulti={"type": "array", "items": {"anyOf": titled("value", "Choice")}},
    )
    return completed((await call.ask(form=form))["form"])


def completed(answer: dict[str, Any]) -> str:
    return f"Elicitation completed: action={answer['action']}, content={json.dumps(answer.get('content', {}))}"


@tool("Cuts its own stream, where the transport has one, and answers later (SEP-1699)")
async def test_reconnection(call: Call) -> str:
    if call.ctx.close_sse_stream is not None:
        await call.ctx.close_sse_stream()
    await anyio.sleep(2 * STEP_S)
    return "The answer came after the cut."


SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": TEXT, "city": TEXT},
        },
    },
    "properties": {
        "name": TEXT,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": TEXT,
        "email": TEXT,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@tool("Has a schema with everything that JSON Schema 2020-12 brought (SEP-1613, SEP-2106)", SCHEMA_2020_12)
async def json_schema_2020_12_tool(call: Call) -> str:
    return json.dumps(call.arguments, sort_keys=True)


MIRRORED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "priority": {"type": "integer", "x-mcp-header": "Priority"},
        "dry_run": {"type": "boolean", "x-mcp-header": "Dry-Run"},
        "note": TEXT,
    },
    "required": ["region"],
}


@tool("Has arguments that a modern client repeats in HTTP headers (SEP-2243)", MIRRORED)
async def test_x_mcp_header(call: Call) -> str:
    return json.dumps(call.arguments, sort_keys=True)


@tool("Refuses clients without the sampling capability")
async def test_missing_capability(call: Call) -> str:
    call.require("sampling")
    return "The client has declared sampling."


@tool("Asks the user on a stream of its own")
async def test_streaming_elicitation(call: Call) -> str:
    await call.ctx.session.report_progress(1, 2)
    answer = (await call.ask(name=elicitation("What is your name?", ["name"], name=TEXT)))["name"]
    return completed(answer)


@tool("Adds a tool to the list, or takes it away again")
async def test_trigger_tool_change(call: Call) -> str:
    changes.toggle("tools")
    await changes.tell(call, ToolsListChanged())
    return "The list of tools has changed."


@tool("Adds a prompt to the list, or takes it away again")
async def test_trigger_prompt_change(call: Call) -> str:
    changes.toggle("prompts")
    await changes.tell(call, PromptsListChanged())
    return "The list of prompts has changed."


@tool("Changes a resource", uri=TEXT)
async def test_trigger_resource_update(call: Call) -> str:
    await changes.tell(call, ResourceUpdated(uri=call.arguments["uri"]))
    return "The resource has changed."


async def not_always_there(call: Call) -> str:
    return "This tool is here for now."


ADDED = Offer("Is listed or not, by test_trigger_tool_change", not_always_there)
"""The tool that `changes.toggle("tools")` adds."""
