"""A deploy or redeploy answered as it happens: the instance's events, and the answer as the last of them."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.core.lifecycle import State
from controlplane.errors import Conflict, InvalidRequest
from controlplane.hub import QUEUE_MAX_EVENTS
from controlplane.model import Role
from tests.web.fakes import TOKENS, Client, request
from tests.web.fakes_api import FAILURE, Api, ApiRunner, problem_of, serving
from tests.wire.cases import MEMORY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

EVENTS = {"accept": "text/event-stream, application/json;q=0.5"}


@asynccontextmanager
async def following(api: Api, path: str, body: dict[str, Any]) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Ask for a stream; gives what waits for its next event, None at the end."""
    client = Client(await trio.open_tcp_stream("127.0.0.1", api.port))
    head = request("POST", path, token=TOKENS[Role.DEPLOYER], body=json.dumps(body).encode(), Accept=EVENTS["accept"])

    async def event() -> Any:
        while (frame := await client.frame()) is not None:
            data = frame.partition(b"data: ")[2]
            if data:
                return json.loads(data)
        return None

    async with client.stream:
        await client.send(head)
        reply = await client.head()
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        yield event


def say(api: Api, instance_id: UUID, message: str) -> None:
    data = {"stream": "build", "message": message}
    api.services.hub.publish_nowait("log", instance_id=instance_id, owner="alice", data=data)


async def test_what_a_build_prints_comes_as_it_is_printed_and_the_answer_last() -> None:
    async with serving() as api:
        api.deployer.outcome = State.PREPARING
        async with following(api, "/deploy?wait=300", MEMORY) as event:
            assert (await event())["type"] == "connected"
            runner = api.named("alice", "memory-server")
            say(api, runner.instance.id, "Compiling")
            assert (await event())["message"] == "Compiling"
            say(api, runner.instance.id, "Finished")
            runner.become(State.RUNNING)
            assert (await event())["message"] == "Finished"
            last = await event()
            assert (last["type"], last["status"]) == ("result", 201)
            assert last["instance"]["name"] == "memory-server"
            assert await event() is None


async def test_what_happened_before_the_answer_began_is_told_too() -> None:
    async with serving() as api:

        def print_at_once(runner: ApiRunner) -> None:
            for number in range(3):
                say(api, runner.instance.id, f"line {number}")

        api.deployer.on_deploy = print_at_once
        response = await api.ask("POST", "/deploy", json=MEMORY, headers=EVENTS)
        told = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
        assert [event.get("message", event["type"]) for event in told] == [
            "connected", "line 0", "line 1", "line 2", "result",
        ]  # fmt: skip


async def test_a_failure_is_a_last_event_with_the_problem() -> None:
    async with serving() as api:
        api.deployer.outcome = State.FAILED
        response = await api.ask("POST", "/deploy", json=MEMORY, headers=EVENTS)
        assert response.status_code == 200
        last = json.loads(response.text.splitlines()[-2].removeprefix("data: "))
        assert (last["type"], last["status"], last["problem"]["code"]) == ("problem", 422, "deploy_failed")
        assert last["problem"]["exit_code"] == 3
        assert last["problem"]["request_id"] == response.headers["x-request-id"]


async def test_the_wait_holds_for_a_stream_as_well() -> None:
    async with serving() as api:
        api.deployer.outcome = State.PREPARING
        response = await api.ask("POST", "/deploy?wait=0.05", json=MEMORY, headers=EVENTS)
        last = json.loads(response.text.splitlines()[-2].removeprefix("data: "))
        assert (last["type"], last["status"], last["instance"]["status"]) == ("result", 202, "building")


@pytest.mark.parametrize("error", [Conflict("the name is taken"), InvalidRequest("no")])
async def test_what_is_refused_at_once_is_a_plain_problem(error: Conflict | InvalidRequest) -> None:
    async with serving() as api:
        api.deployer.error = error
        for path in ("/deploy", "/instances/memory/redeploy"):
            body = MEMORY if path == "/deploy" else {}
            problem_of(await api.ask("POST", path, json=body, headers=EVENTS), error.status, error.code)
        assert api.services.hub.statistics().subscribers == 0


async def test_neither_json_nor_events_is_a_406_and_nothing_is_deployed() -> None:
    async with serving() as api:
        problem_of(
            await api.ask("POST", "/deploy", json=MEMORY, headers={"accept": "text/html"}), 406, "not_acceptable"
        )
        assert not api.deployer.seen


async def test_a_build_that_prints_faster_than_anybody_reads_loses_nothing_that_is_kept() -> None:
    async with serving() as api:
        api.deployer.outcome = State.PREPARING
        async with following(api, "/deploy?wait=300", MEMORY) as event:
            await event()
            runner = api.named("alice", "memory-server")
            for number in range(3 * QUEUE_MAX_EVENTS):
                say(api, runner.instance.id, str(number))
            runner.become(State.RUNNING)
            told = []
            while (said := await event()) is not None:
                told.append(said)
            assert [said["message"] for said in told if said["type"] == "log"] == [
                str(number) for number in range(3 * QUEUE_MAX_EVENTS)
            ]
            assert "lagged" not in {said["type"] for said in told}
            assert told[-1]["type"] == "result"


async def test_a_client_that_leaves_ends_its_stream_and_nothing_else() -> None:
    async with serving() as api:
        api.deployer.outcome = State.PREPARING
        async with following(api, "/deploy?wait=300", MEMORY) as event:
            await event()
            assert api.services.hub.statistics().subscribers == 1
        with trio.fail_after(10):
            while api.services.hub.statistics().subscribers:
                await trio.sleep(0.01)
        assert api.named("alice", "memory-server").state is State.PREPARING


async def test_a_redeploy_is_told_as_it_happens() -> None:
    async with serving() as api:
        runner = api.named("alice", "memory")
        async with following(api, "/instances/memory/redeploy?wait=300", {}) as event:
            await event()
            say(api, runner.instance.id, "Compiling")
            assert (await event())["message"] == "Compiling"
            assert runner.succession is not None
            runner.succession.failure = FAILURE
            runner.succession.done.set()
            last = await event()
            assert (last["type"], last["problem"]["code"]) == ("problem", "deploy_failed")
            assert last["problem"]["revision"] == 2
            assert await event() is None
