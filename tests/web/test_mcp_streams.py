"""Streams of legacy sessions: each message once and in order, resumed where the client left off, within bounds."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from controlplane.errors import Busy
from controlplane.web.mcp import ring as ring_module
from controlplane.web.mcp import streams as streams_module
from controlplane.web.mcp.pool import KEEP_FINISHED_S, Pool
from controlplane.web.mcp.ring import (
    OPEN_MAX,
    RING_MAX_BYTES,
    RING_MAX_EVENTS,
    UNREAD_MAX_EVENTS,
    Ring,
)
from controlplane.web.mcp.streams import (
    KEEPALIVE_S,
    QUEUE_MAX_BYTES,
    QUEUE_MAX_EVENTS,
    Ended,
    Framing,
    NothingLeft,
    Stream,
    UnknownEvent,
    relay,
)
from tests.web.mcp_outlet import Client, message

if TYPE_CHECKING:
    from collections.abc import Callable

ROOMY = 64 * 2**20
KIB = 1024


def make_ring(framing: Framing | None = None, *, limit: int = ROOMY, pool: Pool | None = None) -> Ring:
    return Ring(pool or Pool(limit, trio.current_time), framing or Framing(), lambda: None)


@pytest.fixture
def ring() -> Ring:
    return make_ring()


async def read(stream: Stream, after: int | None = 0, client: Client | None = None) -> tuple[Client, Ended]:
    """Relay until the stream ends."""
    client = client or Client()
    with trio.fail_after(10):
        return client, await relay(stream, after, client)


class Connection:
    """A relay in the background."""

    def __init__(self, stream: Stream, after: int | None = 0, *, stalled: bool = False) -> None:
        self.client = Client(tap=trio.Event() if stalled else None)
        self.stream, self.after = stream, after
        self.ended: Ended | None = None
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            self.ended = await relay(self.stream, self.after, self.client)


@pytest.fixture
async def connect(nursery: trio.Nursery) -> Callable[..., Connection]:
    def connect(stream: Stream, after: int | None = 0, *, stalled: bool = False) -> Connection:
        connection = Connection(stream, after, stalled=stalled)
        nursery.start_soon(connection.run)
        return connection

    return connect


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


def assert_consistent(ring: Ring) -> None:
    """What the ring believes it holds is what its streams hold."""
    streams = [*ring._live.values(), *ring._owed.values(), *ring._settled.values()]
    frames = [frame for stream in streams for _, frame in stream.frames]
    queued = [stream.reader for stream in streams if stream.reader is not None]
    assert ring.held_bytes == sum(len(frame) for frame in frames) == sum(stream.size_bytes for stream in streams)
    assert ring.kept_events == len(frames) - sum(reader.queued_events for reader in queued)
    assert ring.kept_bytes == ring.held_bytes - sum(reader.queued_bytes for reader in queued)
    assert ring.readers == len(queued)


# -- one connection


async def test_a_post_gets_its_messages_in_order_and_ends_with_its_response(ring: Ring) -> None:
    stream = ring.open()
    for number in range(3):
        assert stream.post(message({"n": number}))
    stream.finish()

    client, ended = await read(stream)

    assert ended is Ended.FINISHED
    assert client.ended
    assert client.messages == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert [event.id for event in client.events] == ["1-1", "1-2", "1-3"]


async def test_messages_go_out_while_they_come(ring: Ring, connect: Callable[..., Connection]) -> None:
    stream = ring.open()
    connection = connect(stream)
    for number in range(3):
        await settle()
        assert connection.client.messages == list(range(number))
        stream.post(message(number))
    stream.finish()
    await settle()

    assert connection.ended is Ended.FINISHED
    assert connection.client.messages == [0, 1, 2]
    assert ring.readers == 0


async def test_a_message_of_several_lines_is_one_event(ring: Ring) -> None:
    stream = ring.open()
    stream.post(b'{"a":\r\n[1,\n2]}')
    stream.finish()

    client, _ = await read(stream)

    assert client.messages == [{"a": [1, 2]}]
    assert client.data == b'id: 1-1\ndata: {"a":  [1, 2]}\n\n'


async def test_a_finished_stream_takes_no_more(ring: Ring) -> None:
    stream = ring.open()
    stream.post(b"1")
    stream.finish()
    stream.finish()

    assert not stream.post(b"2")
    assert (await read(stream))[0].messages == [1]


async def test_newer_clients_get_an_event_to_resume_from_before_any_message() -> None:
    ring = make_ring(Framing(primes=True))
    stream = ring.open()
    stream.finish()

    client, _ = await read(stream)

    assert client.data == stream.prime() == b"id: 1-0\ndata: \n\n"
    assert client.last_id == "1-0"


async def test_older_clients_get_no_empty_event(ring: Ring) -> None:
    stream = ring.open()
    stream.finish()

    client, ended = await read(stream)

    assert (client.data, stream.prime(), ended) == (b"", b"", Ended.FINISHED)


async def test_the_head_has_the_fields_it_is_given(ring: Ring) -> None:
    stream, client = ring.open(), Client()
    stream.finish()

    await relay(stream, 0, client, headers=((b"mcp-session-id", b"abc"),))

    assert client.headers == ((b"mcp-session-id", b"abc"),)


async def test_a_quiet_stream_gets_comments_that_are_no_events(
    ring: Ring, connect: Callable[..., Connection], autojump_clock: trio.testing.MockClock
) -> None:
    connection = connect(ring.standalone)
    await trio.sleep(KEEPALIVE_S * 3.5)

    assert connection.client.data == b":\n\n" * 3
    assert connection.client.events == []


async def test_a_client_that_left_in_silence_is_noticed_at_the_next_comment(
    ring: Ring, connect: Callable[..., Connection], autojump_clock: trio.testing.MockClock
) -> None:
    connection = connect(ring.standalone)
    await trio.sleep(1)
    assert ring.standalone.is_read
    connection.client.gone = True
    assert not ring.standalone.is_read

    await trio.sleep(KEEPALIVE_S)

    assert connection.ended is Ended.LEFT
    assert not connection.client.ended
    assert ring.readers == 0


async def test_a_client_that_leaves_in_the_middle_lets_the_stream_go_on(
    ring: Ring, connect: Callable[..., Connection]
) -> None:
    stream = ring.open()
    connection = connect(stream)
    stream.post(b"1")
    await settle()
    connection.client.gone = True
    stream.post(b"2")
    await settle()
    assert connection.ended is Ended.LEFT
    stream.post(b"3")
    stream.finish()

    client, ended = await read(*ring.resume(connection.client.last_id))

    assert (client.messages, ended) == ([2, 3], Ended.FINISHED)


async def test_a_door_that_cancels_leaves_the_stream_as_it_was(ring: Ring, connect: Callable[..., Connection]) -> None:
    stream = ring.open()
    connection = connect(stream)
    stream.post(b"1")
    await settle()
    connection.scope.cancel()
    await settle()
    assert stream.reader is None
    assert_consistent(ring)
    stream.post(b"2")
    stream.finish()

    assert (await read(*ring.resume("1-1")))[0].messages == [2]


# -- resuming


async def test_a_resume_goes_on_live_until_the_response(ring: Ring, connect: Callable[..., Connection]) -> None:
    stream = ring.open()
    stream.post(b"1")
    stream.post(b"2")
    connection = connect(*ring.resume("1-1"))
    await settle()
    assert connection.client.messages == [2]

    stream.post(b"3")
    stream.finish()
    await settle()

    assert connection.client.messages == [2, 3]
    assert connection.ended is Ended.FINISHED


async def test_a_resume_from_the_first_empty_event_replays_everything() -> None:
    ring = make_ring(Framing(primes=True))
    stream = ring.open()
    stream.post(b"1")
    stream.finish()

    client, _ = await read(*ring.resume("1-0"))

    assert client.messages == [1]
    assert [event.id for event in client.events] == ["1-0", "1-1"]


async def test_a_resumed_connection_begins_with_the_id_that_it_resumes_from() -> None:
    ring = make_ring(Framing(primes=True))
    stream = ring.open()
    for _ in range(3):
        stream.post(b"1")
    stream.finish()

    client, _ = await read(*ring.resume("1-2"))

    assert [event.id for event in client.events] == ["1-2", "1-3"], "one that breaks at once must not lose its place"


async def test_only_the_streams_own_messages_are_replayed(ring: Ring) -> None:
    streams = [ring.open() for _ in range(3)]
    for value in range(9):
        streams[value % 3].post(message(value))
    for stream in streams:
        stream.finish()

    assert (await read(*ring.resume("2-1")))[0].messages == [4, 7]
    assert (await read(*ring.resume("3-0")))[0].messages == [2, 5, 8]


@pytest.mark.parametrize(
    "event_id",
    ["", "-", "1", "1-", "-1", "1-3", "3-0", "a-1", "1-x", "1--1", "1-1-1", " 1-1", "+1-1", "１-1", "1-" + "9" * 5000],
)
async def test_an_id_that_was_never_given_out_is_unknown(ring: Ring, event_id: str) -> None:
    for _ in range(2):
        stream = ring.open()
        stream.post(b"1")
        stream.post(b"2")

    with pytest.raises(UnknownEvent):
        ring.resume(event_id)


async def test_the_end_of_a_finished_stream_has_nothing_left(ring: Ring) -> None:
    stream = ring.open()
    stream.post(b"1")
    assert ring.resume("1-1") == (stream, 1), "open: there may be more"
    stream.finish()

    with pytest.raises(NothingLeft):
        ring.resume("1-1")


async def test_a_stream_that_was_read_to_the_end_can_be_resumed_for_a_while(
    ring: Ring, autojump_clock: trio.testing.MockClock
) -> None:
    stream = ring.open()
    stream.post(b"1")
    stream.finish()
    await read(stream)
    await trio.sleep(KEEP_FINISHED_S - 1)
    ring.pool.expire(trio.current_time())

    assert (await read(*ring.resume("1-0")))[0].messages == [1], "that read counts anew"
    await trio.sleep(2)
    ring.pool.expire(trio.current_time())
    assert ring.resume("1-0") == (stream, 0)

    await trio.sleep(KEEP_FINISHED_S)
    ring.pool.expire(trio.current_time())
    with pytest.raises(UnknownEvent):
        ring.resume("1-0")
    assert ring.pool.held_bytes == 0
    assert not ring.pool.rings


async def test_a_stream_is_not_forgotten_while_it_is_resumed(
    ring: Ring, connect: Callable[..., Connection], autojump_clock: trio.testing.MockClock
) -> None:
    stream = ring.open()
    stream.post(b"1")
    stream.finish()
    await read(stream)
    connection = connect(*ring.resume("1-0"), stalled=True)
    await trio.sleep(2 * KEEP_FINISHED_S)
    ring.pool.expire(trio.current_time())
    assert_consistent(ring)
    connection.client.tap.set()
    await settle()

    assert connection.client.messages == [1]
    assert ring.resume("1-0") == (stream, 0)


async def test_a_stream_that_nobody_came_back_for_is_not_forgotten_by_time(ring: Ring) -> None:
    stream = ring.open()
    stream.post(b"1")
    stream.finish()
    ring.pool.expire(trio.current_time() + 10 * KEEP_FINISHED_S)

    assert (await read(*ring.resume("1-0")))[0].messages == [1]


async def test_a_resume_replaces_the_connection_that_it_comes_after(
    ring: Ring, connect: Callable[..., Connection]
) -> None:
    stream = ring.open()
    old = connect(stream)
    stream.post(b"1")
    await settle()
    new = connect(*ring.resume("1-1"))
    await settle()
    stream.post(b"2")
    await settle()

    assert old.ended is Ended.REPLACED
    assert old.client.ended
    assert (old.client.messages, new.client.messages) == ([1], [2])
    assert ring.readers == 1


async def test_a_replaced_connection_in_the_middle_of_a_write_takes_nothing_from_its_successor(
    ring: Ring, connect: Callable[..., Connection]
) -> None:
    stream = ring.open()
    old = connect(stream, stalled=True)
    stream.post(b"1")
    await settle()
    new = connect(*ring.resume("1-0"))
    await settle()
    stream.post(b"2")
    await settle()
    old.client.tap.set()
    await settle()

    assert (old.client.messages, new.client.messages) == ([1], [1, 2])
    assert old.ended is Ended.REPLACED
    assert_consistent(ring)
    new.scope.cancel()
    await settle()
    third = connect(stream, None)
    await settle()
    assert third.client.messages == [], "its late end does not undo what its successor wrote"


async def test_the_next_get_goes_on_where_the_last_one_left_off(ring: Ring, connect: Callable[..., Connection]) -> None:
    ring.standalone.post(b"1")
    first = connect(ring.standalone, None)
    await settle()
    ring.standalone.post(b"2")
    await settle()
    first.scope.cancel()
    ring.standalone.post(b"3")
    second = connect(ring.standalone, None)
    await settle()

    assert (first.client.messages, second.client.messages) == ([1, 2], [3])


async def test_what_could_not_be_written_is_for_the_next_get(ring: Ring, connect: Callable[..., Connection]) -> None:
    first = connect(ring.standalone, None, stalled=True)
    ring.standalone.post(b"1")
    await settle()
    first.client.gone = True
    first.client.tap.set()
    await settle()
    assert first.ended is Ended.LEFT

    second = connect(ring.standalone, None)
    await settle()

    assert second.client.messages == [1]


async def test_a_sessions_own_stream_is_not_finished_but_by_its_session(ring: Ring) -> None:
    ring.standalone.finish()
    assert ring.standalone.post(b"1")
    ring.close()

    assert not ring.standalone.post(b"2")


# -- bounds


async def test_a_session_keeps_so_many_events_and_the_newest_ones(ring: Ring) -> None:
    stream = ring.open()
    for number in range(1, RING_MAX_EVENTS + 11):
        stream.post(message(number))
    stream.finish()

    assert ring.kept_events == RING_MAX_EVENTS
    client, _ = await read(*ring.resume("1-3"))
    assert client.messages == list(range(11, RING_MAX_EVENTS + 11)), "what is left, without a word about the rest"
    assert ring.pool.lost == 10
    assert_consistent(ring)


async def test_a_session_keeps_so_many_bytes(ring: Ring) -> None:
    stream = ring.open()
    for number in range(20):
        stream.post(message([number, "x" * 100 * KIB]))

    assert RING_MAX_BYTES - 101 * KIB < ring.kept_bytes <= RING_MAX_BYTES
    stream.finish()
    assert [number for number, _ in (await read(stream))[0].messages] == list(range(10, 20))


async def test_one_event_larger_than_the_ring_is_kept_until_the_next(ring: Ring) -> None:
    stream, other = ring.open(), ring.open()
    stream.post(message("x" * 2 * RING_MAX_BYTES))
    stream.finish()
    assert ring.resume("1-0") == (stream, 0)
    other.post(b"1")

    with pytest.raises(UnknownEvent):
        ring.resume("1-0")
    assert ring.kept_events == 1
    assert_consistent(ring)


async def test_what_was_read_to_the_end_makes_room_before_what_was_not(ring: Ring) -> None:
    owed = ring.open()
    owed.post(message("owed"))
    owed.finish()
    unread = ring.open()
    unread.post(message("unread"))
    for number in range(RING_MAX_EVENTS + 50):
        stream = ring.open()
        stream.post(message(number))
        stream.finish()
        await read(stream)

    assert ring.kept_events == RING_MAX_EVENTS
    assert ring.pool.lost == 0
    assert ring.resume("1-0") == (owed, 0)
    assert ring.resume("2-0") == (unread, 0)
    with pytest.raises(UnknownEvent):
        ring.resume("3-0")
    assert ring.resume(f"{stream.number}-0") == (stream, 0)
    assert_consistent(ring)


async def test_what_a_connection_has_taken_makes_room_before_what_nobody_has(
    ring: Ring, connect: Callable[..., Connection]
) -> None:
    owed, read_so_far = ring.open(), ring.open()
    owed.post(message("owed"))
    owed.finish()
    connect(read_so_far)
    for number in range(RING_MAX_EVENTS + 50):
        read_so_far.post(message(number))
        await settle()

    assert ring.resume("1-0") == (owed, 0)
    assert read_so_far.first == 52
    assert ring.pool.lost == 0
    assert_consistent(ring)


async def test_large_answers_on_their_way_cost_nobody_elses_messages(
    ring: Ring, connect: Callable[..., Connection]
) -> None:
    streams = [ring.open() for _ in range(4)]
    connections = [connect(stream) for stream in streams]
    await settle()
    for number, stream in enumerate(streams):
        stream.post(message([number, "x" * 3 * RING_MAX_BYTES]))
        stream.finish()
    await settle()

    assert [connection.client.messages[0][0] for connection in connections] == [0, 1, 2, 3]
    assert {connection.ended for connection in connections} == {Ended.FINISHED}
    assert ring.pool.lost == 0
    assert ring.kept_events <= 1
    assert_consistent(ring)


async def test_messages_for_a_client_that_never_reads_do_not_crowd_out_what_is_resumed(ring: Ring) -> None:
    for number in range(10 * RING_MAX_EVENTS):
        ring.standalone.post(message(number))
    stream = ring.open()
    stream.post(b"1")

    assert len(ring.standalone.frames) == UNREAD_MAX_EVENTS
    assert ring.resume("1-0") == (stream, 0)
    ring.close()
    assert ring.pool.held_bytes == 0


@pytest.mark.parametrize(("count", "size"), [(QUEUE_MAX_EVENTS + 1, 1), (5, QUEUE_MAX_BYTES // 4)])
async def test_a_reader_that_does_not_keep_up_is_ended_and_resumes(
    connect: Callable[..., Connection], count: int, size: int
) -> None:
    ring = make_ring(Framing(primes=True))
    stream = ring.open()
    slow = connect(stream, stalled=True)
    await settle()
    for number in range(count):
        stream.post(message([number, "x" * size]))
    slow.client.tap.set()
    await settle()

    assert slow.ended is Ended.LAGGED
    assert slow.client.ended
    assert slow.client.messages == [], "nothing is left out in the middle"
    assert slow.client.data.endswith(b"retry: 1000\n\n")
    assert ring.pool.lagged == 1
    assert_consistent(ring)

    stream.finish()
    client, _ = await read(*ring.resume(slow.client.last_id))
    assert client.messages[-1][0] == count - 1
    kept = [number for number, _ in client.messages]
    assert kept == list(range(count - len(kept), count))
    assert ring.pool.lost == count - len(kept)


async def test_one_large_event_may_pass_alone_to_a_slow_reader(ring: Ring, connect: Callable[..., Connection]) -> None:
    stream = ring.open()
    slow = connect(stream, stalled=True)
    await settle()
    stream.post(message("x" * 2 * QUEUE_MAX_BYTES))
    slow.client.tap.set()
    stream.finish()
    await settle()

    assert slow.ended is Ended.FINISHED
    assert len(slow.client.messages) == 1


async def test_what_is_being_written_does_not_count_as_lagging(ring: Ring, connect: Callable[..., Connection]) -> None:
    stream = ring.open()
    slow = connect(stream, stalled=True)
    await settle()
    stream.post(message("x" * 2 * QUEUE_MAX_BYTES))
    await settle()
    for _ in range(QUEUE_MAX_EVENTS):
        stream.post(b"1")
    stream.finish()
    slow.client.tap.set()
    await settle()

    assert slow.ended is Ended.FINISHED
    assert len(slow.client.messages) == QUEUE_MAX_EVENTS + 1


async def test_a_replay_does_not_count_as_lagging(ring: Ring, connect: Callable[..., Connection]) -> None:
    stream = ring.open()
    for number in range(RING_MAX_EVENTS):
        stream.post(message(number))
    connection = connect(*ring.resume("1-0"), stalled=True)
    await settle()
    for number in range(RING_MAX_EVENTS, RING_MAX_EVENTS + 10):
        stream.post(message(number))
    stream.finish()
    connection.client.tap.set()
    await settle()

    assert connection.ended is Ended.FINISHED
    assert connection.client.messages == list(range(RING_MAX_EVENTS + 10))


async def test_a_resume_for_which_nothing_is_left_goes_on_with_what_comes(
    connect: Callable[..., Connection],
) -> None:
    ring = make_ring(limit=200)
    stream = ring.open()
    stream.post(message("x" * 1_000))
    connection = connect(*ring.resume("1-0"))
    await settle()
    stream.post(b"2")
    await settle()

    assert connection.client.messages == [2]
    assert_consistent(ring)


async def test_open_streams_are_bounded(ring: Ring) -> None:
    streams = [ring.open() for _ in range(OPEN_MAX)]
    with pytest.raises(Busy):
        ring.open()

    streams[7].finish()

    ring.open()


async def test_streams_without_events_leave_nothing_behind(ring: Ring) -> None:
    for _ in range(2_000):
        ring.open().finish()

    assert len(ring._live) + len(ring._owed) + len(ring._settled) == 1
    assert not ring.pool.settled


# -- all sessions together


async def test_over_all_sessions_the_one_that_holds_most_gives_way() -> None:
    pool = Pool(500 * KIB, trio.current_time)
    small, large = make_ring(pool=pool), make_ring(pool=pool)
    keeps = small.open()
    keeps.post(message("x" * 50 * KIB))
    stream = large.open()
    for number in range(30):
        stream.post(message([number, "x" * 20 * KIB]))

    assert pool.held_bytes <= 500 * KIB
    assert pool.held_bytes == small.held_bytes + large.held_bytes
    assert len(keeps.frames) == 1, "not the other one's fault"
    assert stream.last == 30
    assert stream.first > 10
    assert_consistent(large)


async def test_a_full_pool_makes_more_room_than_for_one_event() -> None:
    pool = Pool(16 * KIB, trio.current_time)
    streams = [make_ring(pool=pool).open() for _ in range(100)]
    before = after = 0
    while after >= before:
        before = pool.held_bytes
        streams[before % 100].post(b"x" * 100)
        after = pool.held_bytes

    assert after <= 15 * KIB, "looking for who holds most is not for every event"


async def test_when_queues_take_all_the_room_the_slowest_reader_is_ended(connect: Callable[..., Connection]) -> None:
    pool = Pool(500 * KIB, trio.current_time)
    fine, full = make_ring(pool=pool), make_ring(pool=pool)
    quick = connect(fine.standalone)
    slow = connect(full.standalone, stalled=True)
    await settle()
    for number in range(30):
        full.standalone.post(message([number, "x" * 20 * KIB]))
        fine.standalone.post(message(number))
        await settle()
    slow.client.tap.set()
    await settle()

    assert slow.ended is Ended.LAGGED
    assert quick.client.messages == list(range(30))
    assert pool.held_bytes <= 500 * KIB
    assert_consistent(full)


async def test_a_single_event_larger_than_all_room_is_dropped_and_the_reader_told_to_come_back(
    connect: Callable[..., Connection],
) -> None:
    ring = make_ring(limit=100)
    connection = connect(ring.standalone)
    await settle()
    ring.standalone.post(message("x" * 1000))
    await settle()

    assert connection.ended is Ended.LAGGED
    assert (ring.pool.held_bytes, ring.pool.lost) == (0, 1)


# -- the end of a session


async def test_the_end_of_a_session_ends_its_connections_after_what_is_queued(
    ring: Ring, connect: Callable[..., Connection]
) -> None:
    stream = ring.open()
    connections = [connect(ring.standalone), connect(stream)]
    await settle()
    stream.post(b"1")
    ring.close()
    ring.close()
    await settle()

    assert [connection.ended for connection in connections] == [Ended.CLOSED, Ended.CLOSED]
    assert connections[1].client.messages == [1]
    assert not stream.post(b"2")
    assert ring.pool.held_bytes == ring.pool.readers == 0
    assert not ring.pool.rings


async def test_nothing_can_be_resumed_after_it_and_new_streams_are_over_at_once(ring: Ring) -> None:
    stream = ring.open()
    stream.post(b"1")
    ring.close()

    with pytest.raises(UnknownEvent):
        ring.resume("1-0")
    assert (await read(ring.open()))[1] is Ended.CLOSED
    assert (await read(stream))[1] is Ended.CLOSED
    assert not ring._live


# -- HTTP+SSE, 2024-11-05

ENDPOINT = b"/mcp/memory/messages?session=abc"


async def test_the_old_transport_begins_with_where_to_post_and_names_its_messages(
    connect: Callable[..., Connection],
) -> None:
    ring = make_ring(Framing(endpoint=ENDPOINT))
    connection = connect(ring.standalone)
    await settle()
    ring.standalone.post(message({"a": 1}))
    await settle()

    assert connection.client.data == (
        b"event: endpoint\ndata: /mcp/memory/messages?session=abc\n\n" + b'event: message\ndata: {"a": 1}\n\n'
    )


async def test_the_old_transport_has_one_stream_and_no_resume(connect: Callable[..., Connection]) -> None:
    ring = make_ring(Framing(endpoint=ENDPOINT))
    connection = connect(ring.standalone)
    stream = ring.open()
    assert stream is ring.standalone
    stream.post(b"1")
    stream.finish()
    assert stream.post(b"2"), "one call's end is not the stream's"
    await settle()

    assert connection.client.messages == [1, 2]
    assert ring.pool.held_bytes == 0, "what was taken is not kept"
    for event_id in ("0-0", "0-1"):
        with pytest.raises(UnknownEvent):
            ring.resume(event_id)


# -- whatever happens


class Weather:
    """Two sessions to which anything may happen next."""

    def __init__(self, nursery: trio.Nursery, seed: int) -> None:
        self.nursery = nursery
        self.random = random.Random(seed)
        self.pool = Pool(4_000, trio.current_time)
        self.rings = [make_ring(Framing(primes=True), pool=self.pool) for _ in range(2)]
        self.connections: list[Connection] = []
        self.posted = 0
        self.steps = [self.open, *[self.post] * 4, self.finish, self.connect, self.loosen, self.leave, self.tick]

    def streams(self) -> list[Stream]:
        ring = self.random.choice(self.rings)
        return [*ring._live.values(), *ring._owed.values(), *ring._settled.values()]

    def stream(self) -> Stream:
        return self.random.choice(self.streams())

    def open(self) -> None:
        if len(self.streams()) < 8:
            self.random.choice(self.rings).open()

    def post(self) -> None:
        open_ones = [stream for stream in self.streams() if not stream.finished]
        stream = self.random.choice(open_ones)
        for _ in range(self.random.choice([1, 1, 5])):
            self.posted += stream.post(message([self.posted, "x" * self.random.choice([1, 10, 200])]))

    def finish(self) -> None:
        self.stream().finish()

    def connect(self) -> None:
        stream = self.stream()
        after = self.random.choice([None, self.random.randint(0, stream.last)])
        self.connections.append(Connection(stream, after, stalled=self.random.random() < 0.5))
        self.nursery.start_soon(self.connections[-1].run)

    def loosen(self) -> None:
        for connection in self.random.sample(self.connections, min(2, len(self.connections))):
            if connection.client.tap is not None:
                connection.client.tap.set()

    def leave(self) -> None:
        for connection in self.random.sample(self.connections, min(1, len(self.connections))):
            connection.client.gone = True
            if self.random.random() < 0.5:
                connection.scope.cancel()

    def tick(self) -> None:
        if self.random.random() < 0.3:
            self.pool.expire(trio.current_time() + KEEP_FINISHED_S)

    def check(self) -> None:
        for ring in self.rings:
            assert_consistent(ring)
            assert ring.kept_events <= 12
        assert self.pool.held_bytes == sum(ring.held_bytes for ring in self.rings) <= 4_000
        for connection in self.connections:
            ids = [tuple(map(int, event.id.split("-"))) for event in connection.client.events]
            assert {stream for stream, _ in ids} <= {connection.stream.number}
            assert ids == sorted(set(ids)), "in order, and none twice, nor one that the client had seen"


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_the_books_balance_and_a_connection_gets_each_message_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, seed: int
) -> None:
    monkeypatch.setattr(ring_module, "RING_MAX_EVENTS", 12)
    monkeypatch.setattr(streams_module, "QUEUE_MAX_EVENTS", 4)
    weather = Weather(nursery, seed)
    for _ in range(400):
        weather.random.choice(weather.steps)()
        if weather.random.random() < 0.5:
            await settle()
        weather.check()
    assert weather.posted > 200
    assert weather.pool.lagged > 0
    assert weather.pool.lost > 0

    for ring in weather.rings:
        ring.close()
    for connection in weather.connections:
        connection.scope.cancel()
    await settle()
    pool = weather.pool
    assert (pool.held_bytes, pool.readers, len(pool.rings), len(pool.settled)) == (0, 0, 0, 0)
