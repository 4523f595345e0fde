"""Sessions of legacy clients: whose they are, when they end, how many there may be, and where their messages go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import trio
import trio.testing
from attrs import define, field

from controlplane.errors import Overloaded, QuotaExceeded
from controlplane.model import Principal, Role
from controlplane.web.mcp import sessions as module
from controlplane.web.mcp.pool import KEEP_FINISHED_S
from controlplane.web.mcp.questions import OPEN_MAX, TooManyQuestions
from controlplane.web.mcp.sessions import IDLE_S, SPARED_S, ClientSession, NoSession, SessionTable
from controlplane.web.mcp.streams import KEEPALIVE_S, Ended, UnknownEvent, relay
from tests.web.mcp_outlet import Client, message

if TYPE_CHECKING:
    from collections.abc import Callable

COW = UUID(int=1)
GOAT = UUID(int=2)


def who(owner: str, token_id: str = "t1", role: Role = Role.CALLER) -> Principal:
    return Principal(owner=owner, role=role, token_id=token_id)


ADA = who("ada")
BOB = who("bob")


@define
class Field:
    """A table on a clock that the test holds, and what it was told of endings."""

    now: float = 5_000.0
    ends: list[tuple[str, list[Any]]] = field(factory=list)
    table: SessionTable = field(init=False)

    def __attrs_post_init__(self) -> None:
        def on_end(session: ClientSession, unanswered: list[Any]) -> None:
            assert session.closed.is_set()
            self.ends.append((session.id, unanswered))

        self.table = SessionTable(on_end, lambda: self.now)

    @property
    def ended(self) -> list[str]:
        return [session_id for session_id, _ in self.ends]

    def create(self, principal: Principal = ADA, instance_id: UUID = COW, **more: Any) -> ClientSession:
        return self.table.create(principal, instance_id, **{"version": "2025-06-18", **more})

    def is_known(self, session: ClientSession) -> bool:
        try:
            return self.table.find(session.id, who(session.user), session.instance_id) is session
        except NoSession:
            return False


@pytest.fixture
def sessions() -> Field:
    return Field()


class Connection:
    """Somebody who reads a stream."""

    def __init__(self) -> None:
        self.client = Client()
        self.scope = trio.CancelScope()


@pytest.fixture
async def connect(nursery: trio.Nursery) -> Callable[..., Any]:
    async def connect(stream: Any, after: int | None = 0) -> Connection:
        connection = Connection()

        async def run() -> None:
            with connection.scope:
                await relay(stream, after, connection.client)

        nursery.start_soon(run)
        await settle()
        return connection

    return connect


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- whose it is


async def test_a_session_is_found_by_its_user_for_its_instance(sessions: Field) -> None:
    session = sessions.create(capabilities_raw=b'{"roots":{}}', client_info_raw=b'{"name":"x"}')

    assert sessions.table.find(session.id, ADA, COW) is session
    assert sessions.table.find(session.id, who("ada", "another token"), COW) is session
    assert (session.user, session.instance_id, session.version) == ("ada", COW, "2025-06-18")
    assert (session.capabilities_raw, session.client_info_raw) == (b'{"roots":{}}', b'{"name":"x"}')
    assert (session.log_level, session.lane, session.calls) == (None, None, {})


async def test_for_everybody_else_it_does_not_exist_and_all_are_told_the_same(sessions: Field) -> None:
    session = sessions.create()
    over, idle = sessions.create(), sessions.create()
    sessions.table.end(over)
    idle.touched -= IDLE_S

    words = set()
    for session_id, principal, instance_id in [
        ("no-such-session", ADA, COW),
        ("", ADA, COW),
        (session.id, BOB, COW),
        (session.id, who("root", role=Role.ADMIN), COW),
        (session.id, ADA, GOAT),
        (session.id[:-1], ADA, COW),
        (over.id, ADA, COW),
        (idle.id, ADA, COW),
    ]:
        with pytest.raises(NoSession) as refused:
            sessions.table.find(session_id, principal, instance_id)
        words.add((str(refused.value), refused.value.args))

    assert len(words) == 1
    assert sessions.is_known(session), "a stranger's attempt does nothing to it"


async def test_a_strangers_attempt_does_not_keep_a_session_from_idling(sessions: Field) -> None:
    session = sessions.create()
    sessions.now += IDLE_S - 1
    with pytest.raises(NoSession):
        sessions.table.find(session.id, BOB, COW)
    sessions.now += 1

    assert not sessions.is_known(session)


async def test_ids_are_long_random_visible_ascii(sessions: Field) -> None:
    ids = {sessions.create().id for _ in range(100)}

    assert len(ids) == 100
    assert all(len(each) >= 32 and all(0x21 <= ord(character) <= 0x7E for character in each) for each in ids)
    assert all(each not in repr(sessions.table) for each in ids), "nor do they get into logs by a repr"


# -- how long


async def test_an_idle_session_ends_and_one_that_is_used_does_not(sessions: Field) -> None:
    idle, used, touched = sessions.create(), sessions.create(), sessions.create()
    for _ in range(3):
        sessions.now += IDLE_S / 2
        assert sessions.is_known(used)
        touched.touch()
        sessions.table.expire(sessions.now)

    assert sessions.ended == [idle.id]
    assert len(sessions.table) == 2


async def test_idle_is_half_an_hour_to_the_second(sessions: Field) -> None:
    session = sessions.create()
    sessions.now += IDLE_S - 0.001
    sessions.table.expire(sessions.now)
    assert sessions.ended == []

    sessions.now += 0.001
    sessions.table.expire(sessions.now)

    assert sessions.ended == [session.id]


async def test_a_call_in_flight_holds_the_idle_timeout(sessions: Field) -> None:
    session = sessions.create()
    session.calls[b"1"] = object()
    assert session.busy
    sessions.now += 3 * IDLE_S
    assert sessions.is_known(session)
    sessions.now += 3 * IDLE_S
    sessions.table.expire(sessions.now)
    assert sessions.is_known(session)

    session.calls.clear()
    sessions.now += IDLE_S
    sessions.table.expire(sessions.now)

    assert sessions.ended == [session.id]


async def test_a_reader_holds_the_idle_timeout_and_it_runs_from_when_it_leaves(
    sessions: Field, connect: Callable[..., Any]
) -> None:
    session, other = sessions.create(), sessions.create()
    connection = await connect(session.standalone)
    assert session.busy
    sessions.now += 3 * IDLE_S
    sessions.table.expire(sessions.now)
    assert sessions.ended == [other.id]

    sessions.now += IDLE_S - 1
    connection.scope.cancel()
    await settle()
    assert not session.busy
    sessions.now += IDLE_S - 1
    sessions.table.expire(sessions.now)
    assert len(sessions.table) == 1
    sessions.now += 1
    sessions.table.expire(sessions.now)

    assert sessions.ended == [other.id, session.id]


async def test_the_end_of_a_calls_stream_counts_as_use(sessions: Field) -> None:
    session = sessions.create()
    stream = session.open_stream()
    sessions.now += IDLE_S - 1
    stream.finish()
    sessions.now += IDLE_S - 1

    assert sessions.is_known(session)


async def test_a_look_far_ahead_ends_what_is_due_by_then_and_comes_back(sessions: Field) -> None:
    busy, idle = sessions.create(), sessions.create()
    busy.calls[b"1"] = object()

    sessions.table.expire(sessions.now + 10 * IDLE_S)

    assert sessions.ended == [idle.id]
    assert sessions.is_known(busy)


async def test_an_ended_session_is_over_for_its_readers_and_ends_once(
    sessions: Field, connect: Callable[..., Any]
) -> None:
    session = sessions.create()
    connection = await connect(session.standalone)
    session.deliver(message(1))
    sessions.table.end(session)
    sessions.table.end(session)
    await settle()
    session.touch()

    assert connection.client.messages == [1]
    assert connection.client.ended
    assert sessions.ended == [session.id]
    assert not sessions.is_known(session)
    assert not session.deliver(message(2)).frames
    assert sessions.table.statistics().buffered_bytes == 0


async def test_closing_ends_everything(sessions: Field) -> None:
    created = [sessions.create(), sessions.create(BOB, GOAT)]

    sessions.table.close()
    sessions.table.close()

    assert sessions.ended == [session.id for session in created]
    assert len(sessions.table) == 0


async def test_nothing_is_left_of_sessions_that_are_over(sessions: Field) -> None:
    for number in range(50):
        session = sessions.create(who(f"user-{number}"), UUID(int=number))
        stream = session.open_stream()
        stream.post(message(number))
        stream.finish()
        session.ask("lane", "roots/list", None)
    sessions.table.close()

    assert not sessions.table._by_user
    assert not sessions.table.pool.rings
    assert not sessions.table.pool.settled
    assert sessions.table.statistics().buffered_bytes == 0


# -- how many


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_MAX", 6)
    monkeypatch.setattr(module, "USER_SESSIONS_MAX", 4)


def test_the_caps_are_those_that_are_documented() -> None:
    assert (module.SESSIONS_MAX, module.USER_SESSIONS_MAX) == (10_000, 1_000)


@pytest.mark.usefixtures("small")
async def test_a_users_next_session_takes_the_place_of_its_longest_idle_one(sessions: Field) -> None:
    bobs = sessions.create(BOB)
    first, second, *_ = [sessions.create() for _ in range(4)]
    sessions.now += 1
    first.touch()
    sessions.now += SPARED_S

    sessions.create()

    assert sessions.ended == [second.id]
    assert sessions.table.count_of("ada") == 4
    assert sessions.is_known(first)
    assert sessions.is_known(bobs)
    assert sessions.table.statistics().evicted == 1


@pytest.mark.usefixtures("small")
async def test_sessions_in_use_are_spared_and_the_quota_is_named(sessions: Field, connect: Callable[..., Any]) -> None:
    streamed, called, *recent = [sessions.create() for _ in range(4)]
    await connect(streamed.standalone)
    called.calls[b"1"] = object()
    sessions.now += SPARED_S
    for session in recent:
        session.touch()
    sessions.now += SPARED_S - 1

    with pytest.raises(QuotaExceeded) as refused:
        sessions.create()

    assert refused.value.evidence == {"quota": "mcp_sessions", "limit": 4, "used": 4}
    assert "4 MCP sessions" in str(refused.value)
    assert refused.value.hint
    assert sessions.ended == []
    sessions.create(BOB)

    sessions.now += 1
    sessions.create()
    assert sessions.ended == [recent[0].id]


@pytest.mark.usefixtures("small")
async def test_a_full_table_is_overloaded_for_who_has_nothing_to_give(sessions: Field) -> None:
    for principal in (ADA, ADA, ADA, BOB, BOB, BOB):
        sessions.create(principal)
    sessions.now += SPARED_S

    with pytest.raises(Overloaded) as refused:
        sessions.create(who("eve"))
    assert refused.value.retry_after_s
    assert sessions.ended == [], "nobody pays with another user's session"

    sessions.create(BOB)
    assert len(sessions.table) == 6
    assert sessions.table.count_of("ada") == 3


@pytest.mark.usefixtures("small")
async def test_what_has_expired_makes_room_first(sessions: Field) -> None:
    old = [sessions.create(ADA) for _ in range(4)] + [sessions.create(BOB) for _ in range(2)]
    sessions.now += IDLE_S

    sessions.create(who("eve"))

    assert sessions.ended == [session.id for session in old]
    assert sessions.table.statistics().expired == 6


# -- which stream


async def test_a_message_that_belongs_to_a_call_goes_on_its_stream_even_while_that_is_broken(
    sessions: Field, connect: Callable[..., Any]
) -> None:
    session = sessions.create()
    get = await connect(session.standalone)
    post = await connect(related := session.open_stream())
    session.deliver(message(1), related)
    await settle()
    post.scope.cancel()
    await settle()
    session.deliver(message(2), related)
    await settle()

    assert post.client.messages == [1]
    assert get.client.messages == []
    assert (await connect(*session.resume(post.client.last_id))).client.messages == [2]


async def test_what_belongs_to_no_open_call_goes_to_the_sessions_own_stream_if_that_is_read(
    sessions: Field, connect: Callable[..., Any]
) -> None:
    session = sessions.create()
    finished = session.open_stream()
    finished.finish()
    post, get = await connect(session.open_stream()), await connect(session.standalone)

    assert session.deliver(message(1)) is session.standalone
    assert session.deliver(message(2), finished) is session.standalone
    await settle()

    assert (get.client.messages, post.client.messages) == ([1, 2], [])


async def test_else_to_the_newest_stream_that_is_read_and_open(sessions: Field, connect: Callable[..., Any]) -> None:
    session = sessions.create()
    older, newer, unread, finished = (session.open_stream() for _ in range(4))
    connections = [await connect(older), await connect(newer)]
    finished.finish()

    session.deliver(message(1))
    connections[1].client.gone = True
    session.deliver(message(2))
    await settle()

    assert [connection.client.messages for connection in connections] == [[2], []]
    assert (newer.last, older.last, unread.last, finished.last) == (1, 1, 0, 0)


async def test_a_stream_that_is_finished_but_still_being_written_takes_no_more(
    sessions: Field, connect: Callable[..., Any]
) -> None:
    session = sessions.create()
    stream = session.open_stream()
    connection = await connect(stream)
    connection.client.tap = trio.Event()
    stream.post(message("response"))
    await settle()
    stream.finish()
    assert stream.is_read

    assert session.deliver(message(1)) is session.standalone


async def test_else_it_waits_for_whoever_reads_the_sessions_own_stream_next(
    sessions: Field, connect: Callable[..., Any]
) -> None:
    session = sessions.create()
    session.open_stream()
    assert session.deliver(message(1)) is session.standalone
    session.deliver(message(2))

    assert (await connect(session.standalone, None)).client.messages == [1, 2]


async def test_a_stream_of_another_session_never_gets_a_message(sessions: Field, connect: Callable[..., Any]) -> None:
    ours, theirs = sessions.create(), sessions.create(BOB)
    stream = theirs.open_stream()
    ours.open_stream()
    listening = await connect(stream)

    assert ours.deliver(message(1), stream) is ours.standalone
    await settle()

    assert listening.client.messages == []
    with pytest.raises(UnknownEvent):
        ours.resume(f"{stream.number + 1}-0")


async def test_each_message_is_on_one_stream(sessions: Field, connect: Callable[..., Any]) -> None:
    session = sessions.create()
    streams = [session.open_stream() for _ in range(3)]
    connections = [await connect(stream) for stream in [session.standalone, *streams]]
    for number in range(40):
        session.deliver(message(number), None if number % 4 == 3 else streams[number % 4])
        if number == 20:
            streams[0].finish()
    await settle()

    seen = [value for connection in connections for value in connection.client.messages]
    assert sorted(seen) == list(range(40))


@pytest.mark.parametrize(("version", "primes"), [("2025-11-25", True), ("2025-06-18", False), ("2025-03-26", False)])
async def test_streams_begin_as_the_sessions_version_has_it(sessions: Field, version: str, primes: bool) -> None:
    session = sessions.create(version=version)

    assert session.open_stream().prime() == (b"id: 1-0\ndata: \n\n" if primes else b"")
    assert session.standalone.prime() == (b"id: 0-0\ndata: \n\n" if primes else b"")


async def test_streams_that_were_read_are_forgotten_in_time(
    connect: Callable[..., Any], autojump_clock: trio.testing.MockClock
) -> None:
    table = SessionTable(lambda session, unanswered: None, trio.current_time)
    session = table.create(ADA, COW, version="2025-11-25")
    stream = session.open_stream()
    stream.post(message(1))
    stream.finish()
    await connect(stream)
    await trio.sleep(KEEP_FINISHED_S - 1)
    table.expire(trio.current_time())
    assert session.resume("1-0") == (stream, 0)

    await trio.sleep(1)
    table.expire(trio.current_time())

    with pytest.raises(UnknownEvent):
        session.resume("1-0")


async def test_the_statistics_count_what_there_is(sessions: Field, connect: Callable[..., Any]) -> None:
    session = sessions.create()
    await connect(session.standalone)
    stream = session.open_stream()
    stream.post(b"1")

    statistics = sessions.table.statistics()

    assert (statistics.sessions, statistics.readers, statistics.expired, statistics.lagged) == (1, 1, 0, 0)
    assert statistics.buffered_bytes == len(b"id: 1-1\ndata: 1\n\n")


# -- questions


async def test_a_question_is_answered_in_its_session_and_no_other(sessions: Field) -> None:
    ours, theirs = sessions.create(), sessions.create()
    own_id, asked = ours.ask("lane 1", "roots/list", b"{}")
    raw_id = json.dumps(own_id).encode()

    assert json.loads(asked) == {"jsonrpc": "2.0", "id": own_id, "method": "roots/list", "params": {}}
    assert theirs.answered(raw_id) is None
    assert ours.answered(raw_id) == "lane 1"
    assert ours.answered(raw_id) is None


async def test_whoever_still_waits_for_an_answer_is_named_when_the_session_ends(sessions: Field) -> None:
    session = sessions.create()
    for asked_by in ("a", "b", "c"):
        own_id, _ = session.ask(asked_by, "roots/list", None)
    assert session.withdraw(own_id) == "c"

    sessions.now += IDLE_S
    sessions.table.expire(sessions.now)

    assert sessions.ends == [(session.id, ["a", "b"])]


async def test_questions_of_a_session_are_bounded(sessions: Field) -> None:
    session = sessions.create()
    for _ in range(OPEN_MAX):
        session.ask("lane", "roots/list", None)

    with pytest.raises(TooManyQuestions):
        session.ask("lane", "roots/list", None)


# -- HTTP+SSE, 2024-11-05


async def test_an_old_client_is_told_where_to_post_and_gets_everything_on_its_one_stream(
    sessions: Field, nursery: trio.Nursery
) -> None:
    session = sessions.create(version="2024-11-05", messages_path="/mcp/memory/messages")
    client = Client()
    nursery.start_soon(sessions.table.relay_until_left, session, client)
    await settle()
    call = session.open_stream()
    session.deliver(message("told"), call)
    call.post(message("response"))
    call.finish()
    session.deliver(message("later"))
    await settle()

    first = client.events[0]
    assert (first.event, first.data) == ("endpoint", f"/mcp/memory/messages?session={session.id}")
    assert client.messages == ["told", "response", "later"]
    assert {event.id for event in client.events} == {""}


async def test_its_session_ends_when_it_leaves(sessions: Field, autojump_clock: trio.testing.MockClock) -> None:
    session = sessions.create(version="2024-11-05", messages_path="/mcp/memory/messages")
    session.ask("lane", "roots/list", None)
    client = Client()
    ended: list[Ended] = []

    async def run() -> None:
        ended.append(await sessions.table.relay_until_left(session, client))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await settle()
        client.gone = True
        await trio.sleep(KEEPALIVE_S + 1)

        assert ended == [Ended.LEFT]
    assert sessions.ends == [(session.id, ["lane"])]
    assert not sessions.is_known(session)


async def test_its_session_ends_when_the_door_cancels_it(sessions: Field, nursery: trio.Nursery) -> None:
    session = sessions.create(version="2024-11-05", messages_path="/mcp/memory/messages")
    with trio.move_on_after(0):
        await sessions.table.relay_until_left(session, Client())

    assert sessions.ended == [session.id]
