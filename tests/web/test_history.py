"""Logs, samples and events: pages of them, and the log as it is written."""

from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import trio

from controlplane.model import Incarnation, LogLine, Role
from controlplane.store.values import NamedEvent, StoredEvent
from tests.web.fakes import NOW, TOKENS, Client, request
from tests.web.fakes_api import BOB, FAILURE, Api, pointers, problem_of, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


def line(api: Api, message: str, **changes: Any) -> LogLine:
    runner = api.named("alice", "memory")
    made = {"instance_id": runner.instance.id, "at": NOW, "level": "info", "stream": "stderr", "incarnation": 1}
    return LogLine(**{**made, **changes}, message=message)


async def test_lines_come_as_they_were_kept() -> None:
    async with serving() as api:
        api.store.lines = [line(api, "one"), line(api, "two \udc80", level="error", at=NOW + timedelta(seconds=1))]
        found = (await api.ask("GET", "/instances/memory/logs")).json()
        assert [entry["message"] for entry in found["logs"]] == ["one", "two \\udc80"]
        assert found["logs"][0] == {
            "timestamp": "2026-11-22T12:00:00.000Z",
            "log_level": "info",
            "stream": "stderr",
            "incarnation": 1,
            "message": "one",
        }


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", {"tail": 100, "limit": 100}),
        ("limit=7", {"tail": 7, "limit": 7}),
        ("tail=5", {"tail": 5}),
        ("since=2026-11-22T12:00:00Z", {"tail": None, "since": NOW}),
        ("since=2026-11-22T13:00:00%2B01:00", {"since": NOW}),
        ("since=2026-11-22T13:00:00+01:00", {"since": NOW}),
        ("until=2026-11-22T12:00:00.000Z", {"until": NOW}),
        ("level=error,warning", {"levels": ("error", "warning")}),
        ("level=error&level=debug", {"levels": ("error", "debug")}),
        ("stream=build&incarnation=3&q=Boom", {"stream": "build", "incarnation": 3, "q": "Boom"}),
        ("cursor=abc", {"cursor": "abc", "tail": None}),
    ],
)
async def test_filters_reach_the_store_as_meant(query: str, wanted: dict[str, Any]) -> None:
    async with serving() as api:
        assert (await api.ask("GET", f"/instances/memory/logs?{query}")).status_code == 200
        asked = api.store.asked[-1]
        assert {name: getattr(asked, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("tail=-1", "?tail"),
        ("tail=10001", "?tail"),
        ("tail=x", "?tail"),
        ("since=yesterday", "?since"),
        ("since=2026-11-22T12:00:00", "?since"),
        ("since=0001-01-01T00:00:00%2B23:59", "?since"),
        ("until=1e9", "?until"),
        ("level=loud", "?level"),
        ("stream=stdin", "?stream"),
        ("follow=maybe", "?follow"),
        ("q=", "?q"),
        ("q=%00", "?q"),
        ("q=a&q=b", "?q"),
        ("tial=5", "?tial"),
        ("q=%ff", "?"),
        ("&".join(f"a{n}=1" for n in range(200)), "?"),
    ],
)
async def test_a_wrong_filter_is_named(query: str, pointer: str) -> None:
    async with serving() as api:
        document = problem_of(await api.ask("GET", f"/instances/memory/logs?{query}"), 422, "invalid_request")
        assert pointer in pointers(document)
        assert not api.store.asked


async def test_a_deleted_instances_history_is_its_owners_by_id_alone() -> None:
    async with serving() as api:
        gone = uuid4()
        api.store.deleted[gone] = ("alice", "memory")
        for kind in ("logs", "metrics", "events", "incarnations"):
            assert (await api.ask("GET", f"/instances/{gone}/{kind}")).status_code == 200
            assert (await api.admin("GET", f"/instances/{gone}/{kind}")).status_code == 200
            problem_of(await api.ask("GET", f"/instances/{gone}/{kind}", token=BOB), 404, "not_found")


async def test_history_is_503_while_the_database_is_away() -> None:
    async with serving() as api:
        api.store.away = True
        for kind in ("logs", "metrics", "events", "incarnations"):
            response = await api.ask("GET", f"/instances/memory/{kind}")
            problem_of(response, 503, "storage_unavailable")
            assert response.headers["retry-after"] == "2"


async def test_samples_and_events_come_as_they_were_kept() -> None:
    async with serving() as api:
        metrics = (await api.ask("GET", "/instances/memory/metrics?since=2026-11-22T12:00:00Z&step=60")).json()
        assert metrics["metrics"][0]["cpu_usage"] == 1.5
        assert metrics["metrics"][0]["memory_usage"] == 2.5
        assert (api.store.asked[-1].step_s, api.store.asked[-1].since) == (60, NOW)
        events = (await api.ask("GET", "/instances/memory/events?type=status,call&tail=3")).json()
        assert events["events"][0]["event_id"] == "7"
        assert events["events"][0]["data"] == {"status": "x"}
        assert (api.store.asked[-1].types, api.store.asked[-1].tail) == (("status", "call"), 3)


# -- processes


def process(api: Api, number: int, **changes: Any) -> Incarnation:
    made = {"instance_id": api.named("alice", "memory").instance.id, "number": number, "pid": 7, "started_at": NOW}
    return Incarnation(**{**made, **changes})


async def test_processes_say_how_long_they_ran_and_how_they_ended() -> None:
    async with serving() as api:
        ended = NOW + timedelta(seconds=90)
        api.store.incarnations_ = [
            process(api, 3, started_at=datetime.now(UTC), revision=2),
            process(api, 2, ended_at=ended, exit_code=3, evidence=FAILURE, revision=1),
            process(api, 1),
        ]
        found = (await api.ask("GET", "/instances/memory/incarnations?limit=3")).json()

        assert api.store.asked[-1].limit == 3
        now, failed, unseen = found["incarnations"]
        assert (now["is_running"], now["ended_at"], now["revision"], now["post_mortem"]) == (True, None, 2, None)
        assert 0 <= now["ran_s"] < 60
        assert (failed["is_running"], failed["ran_s"], failed["exit_code"]) == (False, 90, 3)
        assert failed["reason"] == failed["post_mortem"]["reason"] == FAILURE.reason
        assert failed["post_mortem"]["stderr_tail"] == ["boom \\udc80"]
        assert (unseen["is_running"], unseen["ran_s"], unseen["revision"]) == (False, None, None), "of an earlier life"


# -- the fleet


async def test_the_fleets_past_says_what_happened_to_whom() -> None:
    async with serving() as api:
        ours = StoredEvent(id=9, at=NOW, type="gap", instance_id=uuid4(), owner="alice", data={"missed": None})
        none = StoredEvent(id=8, at=NOW, type="services", instance_id=None, owner=None, data={})
        api.store.fleet_events_ = [NamedEvent(ours, "memory"), NamedEvent(none, None)]
        found = (await api.admin("GET", "/events/history")).json()

        assert found["next_cursor"] == "more"
        assert [(row["event_id"], row["name"], row["owner"]) for row in found["events"]] == [
            ("9", "memory", "alice"),
            ("8", None, None),
        ]
        assert found["events"][0]["data"] == {"missed": None}


async def test_the_fleets_past_is_the_callers_own_but_for_administrators() -> None:
    async with serving() as api:
        query = "?type=post_mortem,status&status=failed&since=2026-11-22T12:00:00Z&limit=5&cursor=abc"
        assert (await api.ask("GET", f"/events/history{query}")).status_code == 200
        asked = api.store.asked[-1]
        assert (asked.owner, asked.types, asked.statuses) == ("alice", ("post_mortem", "status"), ("failed",))
        assert (asked.since, asked.until, asked.limit, asked.cursor) == (NOW, None, 5, "abc")
        problem_of(await api.ask("GET", "/events/history?owner=bob"), 403, "forbidden")
        for query, owner in (("", None), ("?owner=bob", "bob")):
            assert (await api.admin("GET", f"/events/history{query}")).status_code == 200
            assert api.store.asked[-1].owner == owner


# -- following


def say(api: Api, message: str, level: str = "info", stream: str = "stderr") -> None:
    instance = api.named("alice", "memory").instance
    data = {"level": level, "stream": stream, "incarnation": 1, "message": message}
    api.services.hub.publish_nowait("log", instance_id=instance.id, owner="alice", data=data)


@asynccontextmanager
async def followed(api: Api, query: str = "", **headers: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The events of a followed log, on a connection of its own."""
    path = f"/instances/memory/logs?follow=true{query}"
    client = Client(await trio.open_tcp_stream("127.0.0.1", api.port))
    async with client.stream:
        await client.send(request("GET", path, token=TOKENS[Role.VIEWER], **headers))
        async with aclosing(_events(client)) as events:
            yield events


async def _events(client: Client) -> AsyncGenerator[dict[str, Any], None]:
    while (frame := await client.frame()) is not None:
        yield json.loads(frame.partition(b"data: ")[2])


async def following(api: Api) -> None:
    """Wait until somebody follows alice's log."""
    instance_id = api.named("alice", "memory").instance.id
    while not api.services.hub.has_subscribers(instance_id):
        await trio.sleep(0.01)


async def test_following_gives_what_was_kept_and_then_what_comes() -> None:
    async with serving() as api, trio.open_nursery() as nursery:
        api.store.lines = [
            line(api, "before"),
            line(api, "later than the subscription", at=datetime(2200, 1, 1, tzinfo=UTC)),
        ]

        async def speak() -> None:
            await following(api)
            say(api, "after")

        nursery.start_soon(speak)
        async with followed(api) as stream:
            seen = [(event["type"], event.get("message")) async for event in _until(stream, "after")]
        assert seen == [("connected", None), ("log", "before"), ("log", "after")]


async def test_following_lets_through_only_what_fits_the_filter() -> None:
    async with serving() as api, trio.open_nursery() as nursery:

        async def speak() -> None:
            await following(api)
            instance = api.named("alice", "memory").instance
            api.services.hub.publish_nowait("status", instance_id=instance.id, owner="alice", data={"status": "x"})
            say(api, "an error of another kind", level="error")
            say(api, "Boom, but only a warning", level="warning")
            say(api, "Boom on stdout", level="error", stream="stdout")
            say(api, "the BOOM that is meant", level="error")

        nursery.start_soon(speak)
        async with followed(api, "&level=error&stream=stderr&q=boom&tail=0") as stream:
            seen = [event.get("message") async for event in _until(stream, "the BOOM that is meant")]
        assert seen == [None, "the BOOM that is meant"]
        assert not api.store.asked


async def test_following_goes_on_after_the_last_event_that_was_seen() -> None:
    async with serving() as api:
        hub = api.services.hub
        say(api, "one")
        say(api, "two")
        async with followed(api, "&tail=0", last_event_id=f"{hub.epoch}-1") as stream:
            messages = [event.get("message") async for event in _until(stream, "two")]
        assert "one" not in messages
        async with followed(api, last_event_id="elsewhere-9") as stream:
            kinds = [event["type"] async for event in _until(stream, "two")]
        assert "gap" in kinds


async def _until(stream: AsyncIterator[dict[str, Any]], message: str) -> AsyncIterator[dict[str, Any]]:
    while True:
        event = await anext(stream)
        yield event
        if event.get("message") == message:
            return


async def test_following_ends_with_the_token_that_opened_it() -> None:
    async with serving() as api, trio.open_nursery() as nursery:
        viewer = next(token for token in api.store.tokens_.values() if token.role is Role.VIEWER)

        async def revoke() -> None:
            await following(api)
            assert (await api.admin("DELETE", f"/tokens/{viewer.id}")).status_code == 200

        nursery.start_soon(revoke)
        with trio.fail_after(8):
            async with followed(api) as stream:
                assert [event["type"] async for event in stream] == ["connected"]
        problem_of(await api.ask("GET", "/instances", token=TOKENS[Role.VIEWER]), 401, "unauthorized")


async def test_following_ends_when_the_hub_closes_and_for_a_deleted_instance_after_what_was_kept() -> None:
    async with serving() as api, trio.open_nursery() as nursery:

        async def close() -> None:
            await following(api)
            api.services.hub.close()

        nursery.start_soon(close)
        async with followed(api) as stream:
            assert [event["type"] async for event in stream][-1] == "shutdown"

    async with serving() as api:
        gone = uuid4()
        api.store.deleted[gone] = ("alice", "memory")
        api.store.lines = [line(api, "last words", instance_id=gone)]
        with trio.fail_after(8):
            response = await api.ask("GET", f"/instances/{gone}/logs?follow=true")
        assert "last words" in response.text


async def test_a_client_that_leaves_is_unsubscribed() -> None:
    async with serving() as api:
        async with followed(api) as stream:
            await anext(stream)
        instance_id = api.named("alice", "memory").instance.id
        with trio.fail_after(8):
            while api.services.hub.has_subscribers(instance_id):
                await trio.sleep(0.02)


async def test_following_needs_a_client_that_takes_event_streams() -> None:
    async with serving() as api:
        accept = {"accept": "application/json"}
        problem_of(await api.ask("GET", "/instances/memory/logs?follow=true", headers=accept), 406, "not_acceptable")
        head = await api.ask("HEAD", "/instances/memory/logs?follow=true")
        assert head.status_code == 200
        assert not api.services.hub.has_subscribers(api.named("alice", "memory").instance.id)
