"""Many MCP clients of both eras on one server: each gets all of its own, and never a word of another's.

Every client has a nonce, and the server puts it into whatever it says because of that client. The ids and progress
tokens of all clients are alike on purpose.
"""

from __future__ import annotations

import json
import re
import secrets
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pytest
import trio
from attrs import define, field

from tests import servers
from tests.e2e.http1 import connected
from tests.e2e.load import until
from tests.e2e.mcp_clients import CAME_S, TAKES, Client, LegacyClient, ModernClient, said, tool_call
from tests.e2e.plane import deployment, open_plane

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.e2e.http1 import Http
    from tests.e2e.mcp_clients import Message
    from tests.e2e.plane import Plane

ERAS = ("legacy", "dual", "modern")
CLIENTS = 50
STEPS = 5
LIMIT_S = 240
"""A hang guard for one whole test."""
NONCE = re.compile(r"n[0-9a-f]{16}")
CAPABILITIES: tuple[Message, ...] = (
    {},
    {"elicitation": {}},
    {"elicitation": {}, "sampling": {}},
    {"roots": {}},
)
C = TypeVar("C", bound=Client)
QUESTIONS = {"elicitation": "elicitation/create", "sampling": "sampling/createMessage", "roots": "roots/list"}


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    """One control plane with a server of each kind."""
    with open_plane(CALLS_IN_FLIGHT="1000") as plane:
        plane.start()
        for era in ERAS:
            plane.deploy(era, servers.source("eras.py"), environment_vars={"ERA": era})
        yield plane


def new_nonce() -> str:
    return f"n{secrets.token_hex(8)}"


def replying(nonce: str) -> Callable[[Message], Message]:
    """Answers whatever is asked, with the nonce in it."""

    def reply(question: Message) -> Message:
        match question["method"]:
            case "elicitation/create":
                return {"action": "accept", "content": {"word": nonce}}
            case "roots/list":
                return {"roots": [{"uri": f"file:///{nonce}"}]}
        return {"role": "assistant", "model": "m", "content": {"type": "text", "text": nonce}}

    return reply


@define(eq=False)
class Life(Generic[C]):
    """What one client does, all at once. `nonce` is its own."""

    client: C
    nonce: str = field(factory=new_nonce)

    def __attrs_post_init__(self) -> None:
        self.client.reply = replying(self.nonce)

    @property
    def uri(self) -> str:
        return f"nonce://{self.nonce}"

    async def live(self) -> None:
        """Do everything, and check what came of each."""
        async with trio.open_nursery() as nursery:
            await self.begin(nursery)
            async with trio.open_nursery() as parts:
                for part in (self.works, self.cancels, self.asks, self.reads, self.watches):
                    parts.start_soon(part)
            nursery.cancel_scope.cancel()

    async def begin(self, nursery: trio.Nursery) -> None:
        raise NotImplementedError

    async def cancels(self) -> None:
        raise NotImplementedError

    async def request(self, method: str, params: Message | None = None, **options: Any) -> Message:
        raise NotImplementedError

    async def call(self, tool: str, part: str, *, token: str | None = None, **arguments: Any) -> str:
        """Call a tool with the nonce of one part of this life; returns its text."""
        params = tool_call(tool, nonce=f"{self.nonce}-{part}", **arguments)
        return said(await self.request("tools/call", params, token=token))

    def foreign(self) -> list[str]:
        """What the client was told that has another's nonce."""
        return [text for text in self.client.seen if set(NONCE.findall(text)) - {self.nonce}]

    async def works(self) -> None:
        """Two calls at once, each with progress of its own."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.work, "left")
            nursery.start_soon(self.work, "right")

    async def work(self, part: str) -> None:
        assert await self.call("work", part, token=part, steps=STEPS) == f"done {self.nonce}-{part}"
        progress = [message["params"] for message in self.client.told_of("progress")]
        mine = [told for told in progress if told["progressToken"] == part]
        assert [told["progress"] for told in mine] == [*range(1, STEPS + 1)]
        assert {told["message"] for told in mine} == {f"{self.nonce}-{part}"}

    async def asks(self) -> None:
        """Be asked whatever the client says that it can answer."""
        for capability in self.client.capabilities:
            part = f"ask-{capability}"
            text = await self.call("ask", part, method=QUESTIONS[capability])
            nonce, _, answer = text.partition(" got ")
            assert nonce == f"{self.nonce}-{part}"
            assert self.nonce in answer
        questions = [question["params"]["message"] for question in self.client.asked]
        assert questions == [f"who are you, {self.nonce}-ask-{capability}?" for capability in self.client.capabilities]

    async def reads(self) -> None:
        for _ in range(3):
            response = await self.request("resources/read", {"uri": self.uri})
            assert response["result"]["contents"][0]["text"] == f"content of {self.uri}"
            assert "tools" in (await self.request("tools/list"))["result"]

    async def watches(self) -> None:
        """Hear of an own resource, and of what changes for everybody."""
        await self.until_told("resources/updated", partial(self.call, "update", "update", uri=self.uri))
        await self.until_told("tools/list_changed", partial(self.call, "change", "change"))

    async def until_told(self, method: str, act: Callable[[], Awaitable[str]]) -> None:
        """Act until it is heard of: a call may be served by another process than the one that is listened to."""
        with trio.fail_after(CAME_S):
            while not self.client.told_of(method):
                assert self.nonce in await act()
                with trio.move_on_after(1):
                    await until(lambda: self.client.told_of(method), CAME_S, method)


class ModernLife(Life[ModernClient]):
    """Of a modern client."""

    async def begin(self, nursery: trio.Nursery) -> None:
        wanted = {"toolsListChanged": True, "resourceSubscriptions": [self.uri]}
        await nursery.start(self.client.listen, wanted)

    async def request(self, method: str, params: Message | None = None, **options: Any) -> Message:
        return await self.client.request(method, params, log_level="debug", **options)

    async def cancels(self) -> None:
        nonce = f"{self.nonce}-wait"

        async def began(message: Message) -> bool:
            return bool(message["params"]["message"] == nonce)

        async with self.client.sent("tools/call", tool_call("wait", nonce=nonce), token="wait") as answer:
            assert await self.client.each(answer, began)
        assert await self.call("was_cancelled", "wait") == f"True {nonce}"


class LegacyLife(Life[LegacyClient]):
    """Of a legacy client."""

    async def begin(self, nursery: trio.Nursery) -> None:
        assert "result" in await self.client.initialize(), self.client.initialized
        await nursery.start(self.client.run_stream)
        assert await self.client.request("logging/setLevel", {"level": "debug"}) | {"id": 0} == {
            "jsonrpc": "2.0",
            "id": 0,
            "result": {},
        }
        assert "result" in await self.client.request("resources/subscribe", {"uri": self.uri})

    async def request(self, method: str, params: Message | None = None, **options: Any) -> Message:
        return await self.client.request(method, params, **options)

    async def cancels(self) -> None:
        request_id, nonce = self.client.next_id(), f"{self.nonce}-wait"
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                params = tool_call("wait", nonce=nonce)
                response = await self.client.request("tools/call", params, token="wait", request_id=request_id)
                assert response["error"]["code"] == -32800

            nursery.start_soon(wait)
            await self.client.until_told("progress", nonce)
            await self.client.cancel(request_id)
        assert await self.call("was_cancelled", "wait") == f"True {nonce}"


@pytest.mark.parametrize("era", ERAS)
async def test_fifty_clients_of_both_eras_hear_all_of_their_own_and_nothing_of_each_other(
    plane: Plane, era: str, figure: Callable[..., None]
) -> None:
    lives: list[LegacyLife | ModernLife] = []
    async with AsyncExitStack() as stack:
        for number in range(CLIENTS):
            http = await stack.enter_async_context(connected(plane))
            path, capabilities = f"/mcp/{era}", CAPABILITIES[number // 2 % len(CAPABILITIES)]
            if number % 2:
                lives.append(LegacyLife(LegacyClient(http, path, capabilities)))
            else:
                lives.append(ModernLife(ModernClient(http, path, capabilities)))
        began = trio.current_time()
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                for life in lives:
                    nursery.start_soon(life.live)
        figure("all clients done after", trio.current_time() - began, "s")
        with trio.fail_after(CAME_S):
            for life in lives:
                if isinstance(life, LegacyLife):
                    assert await life.client.delete() == 200
    assert [found for life in lives for found in life.foreign()] == []
    assert all(life.nonce in json.dumps(life.client.seen) for life in lives)
    requests = sum(life.client.ids for life in lives)
    figure("requests", requests)
    assert plane.instance(era)["status"] == "running"
    assert plane.instance(era)["restarts"] == 0


# -- two users


@define(eq=False)
class Tenant:
    """A user with a server, a session with open business, and a modern call that waits for its answers."""

    name: str
    http: Http
    first_id: int
    """Its requests have ids of their own, so that another's cancellation can name them."""
    nonce: str = field(factory=new_nonce)
    legacy: LegacyClient = field(init=False)
    modern: ModernClient = field(init=False)
    state: str = field(default="", init=False)
    ended: dict[str, Message] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.legacy = LegacyClient(self.http, "/mcp/same", {"elicitation": {}}, lambda _question: None)
        self.modern = ModernClient(self.http, "/mcp/same", {"elicitation": {}})

    async def begin(self, nursery: trio.Nursery) -> None:
        """Be in the middle of everything."""
        await self.legacy.initialize()
        await nursery.start(self.legacy.run_stream)
        nursery.start_soon(self.call, "wait", self.first_id)
        await self.legacy.until_told("progress", self.nonce)
        nursery.start_soon(self.call, "ask", self.first_id + 1)
        await until(lambda: self.legacy.asked, CAME_S, "the question")
        response = await self.modern.once("tools/call", self.asking)
        self.state = response["result"]["requestState"]

    @property
    def asking(self) -> Message:
        return tool_call("ask", nonce=f"{self.nonce}-modern")

    async def call(self, tool: str, request_id: int) -> None:
        params = tool_call(tool, nonce=f"{self.nonce}-{tool}")
        self.ended[tool] = await self.legacy.request("tools/call", params, token="t", request_id=request_id)

    async def finish(self) -> None:
        """Everything goes on as if nobody had tried anything."""
        assert self.ended == {}
        question = self.legacy.asked[0]
        await self.legacy.post({"id": question["id"], "result": replying(self.nonce)(question)})
        await until(lambda: "ask" in self.ended, CAME_S, "the answered call")
        assert said(self.ended["ask"]).startswith(f"{self.nonce}-ask got")
        await self.legacy.cancel(self.first_id)
        await until(lambda: "wait" in self.ended, CAME_S, "the cancelled call")
        assert self.ended["wait"]["error"]["code"] == -32800
        response = await self.modern.once("tools/call", self.answered(self.asking, self.state))
        assert said(response).startswith(f"{self.nonce}-modern got")
        assert await self.legacy.delete() == 200
        heard = {*NONCE.findall(json.dumps([self.legacy.seen, self.modern.seen]))}
        assert heard == {self.nonce}

    def answered(self, params: Message, state: str) -> Message:
        requests = {"elicitation-1": {"action": "accept", "content": {"word": self.nonce}}}
        return {**params, "inputResponses": requests, "requestState": state}

    async def status(self, method: str, document: Any = None, **fields: str) -> int:
        """Of a request with the fields of a session, or with others."""
        own = {"Accept": "text/event-stream" if method == "GET" else TAKES}
        async with self.http.sent(
            method, "/mcp/same", own | {key.replace("_", "-"): fields[key] for key in fields}, document
        ) as answer:
            await answer.body()
            return answer.status

    async def molest(self, other: Tenant) -> None:
        """Try everything with what is another's; nothing may come of it."""
        theirs, mine = other.legacy.session_id, self.legacy.session_id
        question = {
            "jsonrpc": "2.0",
            "id": other.legacy.asked[0]["id"],
            "result": replying(self.nonce)({"method": "elicitation/create"}),
        }
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": other.first_id}}
        lists = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for document in (question, cancel, lists):
            assert await self.status("POST", document, Mcp_Session_Id=theirs) == 404
        assert await self.status("GET", Mcp_Session_Id=theirs) == 404
        assert await self.status("DELETE", Mcp_Session_Id=theirs) == 404
        for event_id in other.legacy.event_ids:
            assert await self.status("GET", Mcp_Session_Id=theirs, Last_Event_ID=event_id) == 404
        assert await self.status("POST", question, Mcp_Session_Id=mine) == 202
        assert await self.status("POST", cancel, Mcp_Session_Id=mine) == 202
        for asking in (self.asking, other.asking):
            response = await self.modern.once("tools/call", self.answered(asking, other.state))
            assert response["error"]["code"] == -32602
        ref = f"/mcp/{other.name}/same"
        async with self.http.sent("POST", ref, {"Accept": TAKES, "Mcp-Session-Id": theirs}, lists) as answer:
            await answer.body()
            assert answer.status == 404


async def test_nobody_gets_at_another_users_sessions_streams_questions_or_calls(plane: Plane) -> None:
    source = servers.source("eras.py")
    tokens = {}
    for name in ("alice", "bob"):
        made = plane.request("POST", "/users", json={"name": name, "role": "deployer"})
        assert made.status_code == 201, made.text
        tokens[name] = made.json()["token"]
        body = deployment("same", source, environment_vars={"ERA": "legacy"})
        deployed = plane.client(tokens[name]).post("/api/v2/deploy?wait=60", json=body)
        assert deployed.status_code == 201, deployed.text
    with trio.fail_after(LIMIT_S):
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            alice, bob = [
                Tenant(name, await stack.enter_async_context(connected(plane, tokens[name])), first_id)
                for name, first_id in (("alice", 1000), ("bob", 2000))
            ]
            for tenant in (alice, bob):
                await tenant.begin(nursery)
            await alice.molest(bob)
            await bob.molest(alice)
            for tenant in (alice, bob):
                await tenant.finish()
            nursery.cancel_scope.cancel()
