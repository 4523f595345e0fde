"""Runs every feature of the bridge matrix with the official Python client, as `driver.cjs` does with TypeScript's.

What the outcomes must be is said in `outcomes.py`.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx2
import mcp_types as types
import trio
from attrs import define, field
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated, ServerEvent, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.matrix.plan import Plan

FEATURE_LIMIT_S = 60
WATCHED = "test://watched-resource"
FIELDS = {"name": "Ada", "color": "green", "username": "ada", "email": "ada@localhost"}
"""What this user writes into a form."""


async def run(plan: Plan) -> dict[str, Any]:
    """Return the outcome of each feature; of one that failed, how."""
    outcomes: dict[str, Any] = {}
    async with connected(plan, plan.url) as peer:
        for feature in plan.features:
            peer.asked, peer.logged = [], []
            try:
                with trio.fail_after(FEATURE_LIMIT_S):
                    outcomes[feature] = await getattr(peer, feature)()
            except Exception as error:
                outcomes[feature] = {"error": leaves(error)}
    return outcomes


def leaves(error: BaseException) -> list[str]:
    """What went wrong, without the groups around it."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [leaf for one in inner for leaf in leaves(one)] or [repr(error)]


@asynccontextmanager
async def connected(plan: Plan, url: str) -> AsyncIterator[Peer]:
    """Yield a client that has introduced itself."""
    peer = Peer(plan)
    async with AsyncExitStack() as stack:
        headers = {"Authorization": f"Bearer {plan.token}"}
        if plan.kind == "python-sse":
            transport = sse_client(f"{url}/sse", headers=headers)
        else:
            http = await stack.enter_async_context(
                httpx2.AsyncClient(headers=headers, timeout=FEATURE_LIMIT_S, trust_env=False)
            )
            transport = streamable_http_client(url, http_client=http)
        client = Client(
            transport,
            mode="auto" if plan.kind == "python-modern" else "legacy",
            elicitation_callback=peer.on_elicitation,
            sampling_callback=peer.on_sampling,
            list_roots_callback=peer.on_roots,
            logging_callback=peer.on_log,
            message_handler=peer.on_message,
        )
        peer.client = await stack.enter_async_context(client)
        yield peer


@define(eq=False)
class Peer:
    """A client, and all that it was asked and told."""

    plan: Plan
    client: Client = field(init=False)
    asked: list[str] = field(factory=list, init=False)
    logged: list[list[Any]] = field(factory=list, init=False)
    updated: list[str] = field(factory=list, init=False)
    list_changes: int = field(default=0, init=False)
    _told: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    @property
    def is_modern(self) -> bool:
        return self.client.protocol_version in MODERN_PROTOCOL_VERSIONS

    # -- what the server asks and tells

    async def on_elicitation(self, context: Any, params: Any) -> types.ElicitResult:
        self.asked.append(params.message)
        if params.message.startswith("Decline"):
            return types.ElicitResult(action="decline")
        wanted = params.requested_schema["properties"]
        return types.ElicitResult(action="accept", content={name: FIELDS[name] for name in wanted})

    async def on_sampling(self, context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        content = params.messages[0].content
        assert isinstance(content, types.TextContent)
        self.asked.append(content.text)
        answer = types.TextContent(text=f"an answer to {content.text}")
        return types.CreateMessageResult(role="assistant", model="test", content=answer)

    async def on_roots(self, context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=f"file:///{self.plan.key}")])

    async def on_log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logged.append([params.level, params.data])
        self._told.unpark_all()

    async def on_message(self, message: Any) -> None:
        if self.is_modern:  # it comes by `Client.listen` as well
            return
        if isinstance(message, types.ResourceUpdatedNotification):
            self._note(ResourceUpdated(uri=message.params.uri))
        elif isinstance(message, types.ToolListChangedNotification):
            self._note(ToolsListChanged())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was told makes it true."""
        while not condition():
            await self._told.park()

    # -- what it does

    async def call(self, name: str, /, meta: Any = None, on_progress: Any = None, **arguments: Any) -> str:
        result = await self.client.call_tool(name, arguments, progress_callback=on_progress, meta=meta)
        text: str = result.content[0].text
        return text

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def introduction(self) -> dict[str, Any]:
        return {"version": self.client.protocol_version, "server": self.client.server_info.name}

    async def plain(self) -> dict[str, Any]:
        client = self.client
        read = await client.read_resource("test://static-text")
        got = await client.get_prompt("test_prompt_with_arguments", {"arg1": "one", "arg2": "two"})
        reference = types.PromptReference(name="test_prompt_with_arguments")
        completed = await client.complete(reference, {"name": "arg1", "value": "par"})
        return {
            "first_tool": (await self.tools())[0],
            "text": await self.call("test_simple_text"),
            "failure": await self.call("test_error_handling"),
            "resources": [resource.uri for resource in (await client.list_resources()).resources],
            "resource": read.contents[0].text,
            "templates": [t.uri_template for t in (await client.list_resource_templates()).resource_templates],
            "first_prompt": (await client.list_prompts()).prompts[0].name,
            "prompt": got.messages[0].content.text,
            "completion": completed.completion.values,
        }

    async def progress(self) -> dict[str, Any]:
        progress: list[Any] = []

        async def on_progress(done: float, total: float | None, message: str | None) -> None:
            progress.append([done, total, message])

        return {"text": await self.call("count_up", steps=3, on_progress=on_progress), "progress": progress}

    async def log(self) -> dict[str, Any]:
        meta = {"io.modelcontextprotocol/logLevel": "debug"} if self.is_modern else None
        if not self.is_modern:
            await self.client.set_logging_level("debug")
        await self.call("test_tool_with_logging", meta=meta)
        await self.until(lambda: len(self.logged) >= 3)
        loud, self.logged = self.logged, []
        if not self.is_modern:
            await self.client.set_logging_level("error")
        await self.call("test_tool_with_logging")
        return {"loud": loud, "quiet": self.logged}

    async def cancel(self) -> dict[str, Any]:
        ended = "it answered"
        with trio.CancelScope() as scope:

            async def on_progress(*_: Any) -> None:
                scope.cancel()

            await self.call("wait_to_be_cancelled", key=self.plan.key, on_progress=on_progress)
        if scope.cancelled_caught:
            ended = "it was given up"
        return {"ended": ended, "seen": await self.call("was_cancelled", key=self.plan.key)}

    async def elicitation(self) -> dict[str, Any]:
        accepted = await self.call("test_elicitation", message=f"Who is {self.plan.key}?")
        declined = await self.call("test_elicitation", message=f"Decline {self.plan.key}")
        return {"accepted": accepted, "declined": declined, "asked": self.asked}

    async def sampling(self) -> dict[str, Any]:
        return {"text": await self.call("test_sampling", prompt=self.plan.key), "asked": self.asked}

    async def roots(self) -> dict[str, Any]:
        return {"text": await self.call("test_input_required_result_list_roots")}

    async def rounds(self) -> dict[str, Any]:
        two = await self.call("test_input_required_result_multi_round")
        asked, self.asked = self.asked, []
        return {"two": two, "asked": asked, "at_once": await self.call("test_input_required_result_multiple_inputs")}

    async def subscription(self) -> dict[str, Any]:
        if not self.is_modern:
            return await self._changes(
                lambda: self.client.subscribe_resource(WATCHED), lambda: self.client.unsubscribe_resource(WATCHED)
            )
        listening, over = trio.CancelScope(), trio.Event()

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            with listening:
                async with self.client.listen(tools_list_changed=True, resource_subscriptions=[WATCHED]) as heard:
                    task_status.started()
                    async for event in heard:
                        self._note(event)
            over.set()

        async def end() -> None:
            listening.cancel()
            await over.wait()

        async with trio.open_nursery() as nursery:
            return await self._changes(lambda: nursery.start(listen), end)

    def _note(self, event: ServerEvent) -> None:
        if isinstance(event, ResourceUpdated):
            self.updated.append(event.uri)
        elif isinstance(event, ToolsListChanged):
            self.list_changes += 1
        self._told.unpark_all()

    async def _changes(self, begin: Callable[[], Any], end: Callable[[], Any]) -> dict[str, Any]:
        await begin()
        await self.call("test_trigger_resource_update", uri=WATCHED)
        await self.call("test_trigger_resource_update", uri="test://static-text")
        await self.until(lambda: len(self.updated) >= 1)
        await self.call("test_trigger_tool_change")
        await self.until(lambda: self.list_changes >= 1)
        added = "not_always_there" in await self.tools()
        await self.call("test_trigger_tool_change")
        await self.until(lambda: self.list_changes >= 2)
        removed = "not_always_there" not in await self.tools()
        before, self.updated = self.updated, []
        await end()
        await self.call("test_trigger_resource_update", uri=WATCHED)
        await self.call("test_simple_text")
        return {
            "added": added,
            "removed": removed,
            "updated": before,
            "updated_after": self.updated,
            "list_changes": self.list_changes,
        }

    async def one_call(self) -> dict[str, Any]:
        """With a server of which nothing else is known."""
        return {"tools": await self.tools(), "text": await self.call(self.plan.tool, **self.plan.arguments)}

    async def resume(self) -> dict[str, Any]:
        """On connections that are cut."""
        progress: list[float] = []

        async def on_progress(done: float, *_: Any) -> None:
            progress.append(done)

        async with connected(self.plan, self.plan.cut_url) as through:
            if not self.is_modern:
                await through.call("count_up", steps=20, on_progress=on_progress)
                text = await through.call("count_up", steps=3, on_progress=on_progress)
                answer = await through.call(
                    "think_and_ask", message=f"Are you {self.plan.key}?", on_progress=on_progress
                )
                await through.client.subscribe_resource(WATCHED)
                await through.call("test_trigger_resource_update", uri=WATCHED)
                await through.until(lambda: len(through.updated) >= 1)
                return {
                    "text": text,
                    "progress": progress,
                    "answer": answer,
                    "asked": through.asked,
                    "updated": through.updated,
                }
            key = f"{self.plan.key}-cut"
            with suppress(MCPError):
                await through.call("wait_to_be_cancelled", key=key, on_progress=on_progress)
            return {"seen": await self.call("was_cancelled", key=key), "progress": progress}
