"""The prompts that the suite gets by name, and the completion of their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mcp_types as types
from asking import Call, elicitation, filled_in
from attrs import frozen
from media import IMAGE
from tools import TEXT, embedded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WORDS = ("paris", "park", "party", "berlin", "oslo")
"""What any argument is completed with."""


@frozen
class Offer:
    """A prompt as it is listed and filled in."""

    description: str
    fill: Callable[[Call], Awaitable[list[Any]]]
    arguments: tuple[str, ...]

    def listed(self, name: str) -> types.Prompt:
        arguments = [types.PromptArgument(name=a, description=f"The {a}", required=True) for a in self.arguments]
        return types.Prompt(name=name, description=self.description, arguments=arguments)


PROMPTS: dict[str, Offer] = {}


def prompt(description: str, *arguments: str) -> Callable[[Any], Any]:
    """Offer a function as the prompt of its name."""

    def offer(fill: Any) -> Any:
        PROMPTS[fill.__name__] = Offer(description, fill, arguments)
        return fill

    return offer


@prompt("Is a text")
async def test_simple_prompt(call: Call) -> list[Any]:
    return ["This is a simple prompt for testing."]


@prompt("Takes two arguments", "arg1", "arg2")
async def test_prompt_with_arguments(call: Call) -> list[Any]:
    return [f"Prompt with arguments: arg1='{call.arguments['arg1']}', arg2='{call.arguments['arg2']}'"]


@prompt("Embeds a resource", "resourceUri")
async def test_prompt_with_embedded_resource(call: Call) -> list[Any]:
    resource = embedded(call.arguments["resourceUri"], "text/plain", "Embedded resource content for testing.")
    return [resource, "Please process the embedded resource above."]


@prompt("Shows an image")
async def test_prompt_with_image(call: Call) -> list[Any]:
    return [types.ImageContent(data=IMAGE, mime_type="image/png"), "Please analyze the image above."]


@prompt("Asks the user first")
async def test_input_required_result_prompt(call: Call) -> list[Any]:
    form = elicitation("What context should the prompt use?", ["context"], context=TEXT)
    answers = await call.ask(user_context=form)
    return [f"Use this context: {filled_in(answers['user_context'], 'context')}"]


async def not_always_there(call: Call) -> list[Any]:
    return ["This prompt is here for now."]


ADDED = Offer("Is listed or not, by test_trigger_prompt_change", not_always_there, ())


def message(content: Any) -> types.PromptMessage:
    block = types.TextContent(text=content) if isinstance(content, str) else content
    return types.PromptMessage(role="user", content=block)


async def complete(ctx: Any, params: types.CompleteRequestParams) -> types.CompleteResult:
    values = [word for word in WORDS if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))
