"""A request that reaches the wrong node, handed on to the holder: two real servers in one process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import h11
import pytest
import trio
from attrs import define, evolve, field, frozen

from controlplane.cluster.roster import Elsewhere, Node, Roster, held_elsewhere
from controlplane.errors import NotFound
from controlplane.model import Role
from controlplane.store.values import Whereabouts
from controlplane.web.forward import handed_back, handed_on
from controlplane.web.placing import ref_of
from controlplane.web.request import Head
from controlplane.web.routes import ROUTES
from tests.web.fakes import MEMORY_ID, TOKENS, FakeSupervisor, Server, make_services, memory, request, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.model import Principal
    from controlplane.web.services import Services
    from tests.web.fakes import FakeRunner

HERE, THERE, GONE = UUID(int=1), UUID(int=2), UUID(int=3)
CALL = b'{"method":"echo","params":{"text":"hello"}}'
BOB = "corral_bobs-token-0123456789"


@define(eq=False)
class OfOneNode(FakeSupervisor):
    """Finds what is its node's, and says of the rest who holds it; as the real one does."""

    roster: Roster = field(factory=Roster)

    def find(self, principal: Principal, ref: str) -> FakeRunner:
        try:
            return super().find(principal, ref)
        except NotFound:
            found = self.roster.find(principal, ref)
            if found is None:
                raise
            raise held_elsewhere(found) from None


@define(eq=False)
class Places:
    """A store that knows who holds what, and nothing else."""

    known: dict[tuple[str, str], Whereabouts] = field(factory=dict)

    async def whereabouts(self, instance_id: UUID | None, owner: str, name: str) -> Whereabouts | None:
        if instance_id is not None:
            return next((place for place in self.known.values() if place.id == instance_id), None)
        return self.known.get((owner, name))


@frozen
class Nodes:
    """`here` is asked, `there` holds what is asked for: alice's `memory`."""

    here: Server
    there: Server

    @property
    def runner(self) -> FakeRunner:
        return memory(self.there.services)

    @property
    def roster(self) -> Roster:
        return self.here.services.roster


def node(node_id: UUID, port: int, *, is_live: bool = True) -> Node:
    return Node(id=node_id, url=f"http://127.0.0.1:{port}", version="1", is_live=is_live)


def of_node(node_id: UUID, **settings: Any) -> Services:
    roster = Roster(node_id, is_alone=False)
    services = make_services(**settings)
    services.roster = services.peers.roster = roster
    supervisor = OfOneNode(roster=roster)
    services.supervisor = cast("Any", supervisor)
    services.store = cast("Any", Places())
    return services


@asynccontextmanager
async def two_nodes(*, hot: bool, **settings: Any) -> AsyncIterator[Nodes]:
    """Two nodes, of which the first has nothing."""
    one, other = of_node(HERE, **settings), of_node(THERE, **settings)
    cast("FakeSupervisor", other.supervisor).add("memory", "alice", MEMORY_ID)
    async with running(other, hot=hot) as there, running(one, hot=hot) as here, trio.open_nursery() as nursery:
        nodes = [node(HERE, here.port), node(THERE, there.port)]
        one.roster.take_nodes(nodes)
        other.roster.take_nodes(nodes)
        one.roster.add(Elsewhere(MEMORY_ID, "alice", "memory", THERE))
        nursery.start_soon(one.peers.run)
        yield Nodes(here, there)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def nodes(hot: bool) -> AsyncIterator[Nodes]:
    async with two_nodes(hot=hot) as both:
        yield both


# -- which requests


@pytest.mark.parametrize(
    ("path", "ref"),
    [
        ("/mcp/memory", "memory"),
        ("/mcp/memory/execute", "memory"),
        ("/mcp/alice/memory", "alice/memory"),
        ("/mcp/alice/memory/sse", "alice/memory"),
        ("/mcp/a/sse", "a"),
        ("/instances/memory", "memory"),
        ("/instances/memory/logs", "memory"),
        ("/instances/alice/memory/wire", "alice/memory"),
        ("/instances/alice/wired", "alice/wired"),
        ("/instances", None),
        ("/instances/", None),
        ("/events", None),
        ("/tokens/0", None),
        ("/api/v2/deploy", None),
    ],
)
def test_a_path_names_an_instance_or_none(path: str, ref: str | None) -> None:
    assert ref_of(path) == ref


@pytest.mark.parametrize("route", [r for r in ROUTES if "{id}" in r.path], ids=lambda route: route.operation)
@pytest.mark.parametrize("ref", ["memory", "alice/memory", str(MEMORY_ID)])
def test_every_route_of_an_instance_is_known_by_its_path(route: Any, ref: str) -> None:
    found = ref_of(route.path.replace("{id}", ref).replace("{number}", "1"))

    if route.path.startswith(("/instances/", "/mcp/")):
        assert found == ref
    else:
        assert found is None


# -- what is handed on


def head_of(pairs: list[tuple[bytes, bytes]]) -> tuple[Head, dict[str, Any]]:
    scope = {"headers": pairs, "corral.request_id": "abc", "http_version": "1.1"}
    return Head.of("POST", "/mcp/memory", b"", pairs, "10.0.0.9"), scope


def test_what_belongs_to_the_connection_stays_on_it_and_all_else_goes_on() -> None:
    kept = [
        (b"authorization", b"Bearer x"),
        (b"accept", b"application/json, text/event-stream"),
        (b"mcp-session-id", b"s"),
        (b"mcp-protocol-version", b"2025-11-25"),
        (b"mcp-param-city", b"Wien"),
        (b"last-event-id", b"1-2"),
        (b"idempotency-key", b"k"),
        (b"traceparent", b"00-1-2-01"),
        (b"content-length", b"2"),
    ]
    dropped = [
        (b"host", b"corral.example"),
        (b"connection", b"keep-alive, X-Hop, Content-Length"),
        (b"x-hop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"upgrade", b"h2c"),
        (b"origin", b"http://localhost"),
        (b"expect", b"100-continue"),
        (b"x-request-id", b"not this one"),
    ]
    head, scope = head_of([*kept, *dropped])

    fields = handed_on(head, scope, node(THERE, 8000), HERE)

    assert set(fields) == {
        *kept,
        (b"host", b"127.0.0.1:8000"),
        (b"x-request-id", b"abc"),
        (b"x-forwarded-for", b"10.0.0.9"),
        (b"x-corral-node", str(HERE).encode()),
    }


def test_who_was_there_before_stays_in_front_of_the_addresses() -> None:
    head, scope = head_of([(b"x-forwarded-for", b"192.0.2.1")])

    assert (b"x-forwarded-for", b"192.0.2.1, 10.0.0.9") in handed_on(head, scope, node(THERE, 1), HERE)


def test_a_body_of_unknown_length_stays_one() -> None:
    chunked = head_of([(b"transfer-encoding", b"chunked")])
    over_http2 = head_of([])
    over_http2[1]["http_version"] = "2"

    for head, scope in (chunked, over_http2):
        assert (b"transfer-encoding", b"chunked") in handed_on(head, scope, node(THERE, 1), HERE)
    assert b"transfer-encoding" not in dict(handed_on(*head_of([]), node(THERE, 1), HERE))


def test_what_the_other_server_says_of_itself_is_not_handed_back() -> None:
    came = [(b"Content-Type", b"text/plain"), (b"Date", b"now"), (b"Connection", b"close"), (b"Retry-After", b"1")]

    assert handed_back(came) == ((b"content-type", b"text/plain"), (b"retry-after", b"1"))


# -- on the wire


async def test_a_call_reaches_the_holder_by_whichever_door_and_again_on_the_same_connection(nodes: Nodes) -> None:
    client = await nodes.here.connect()

    for _ in range(3):
        with trio.fail_after(10):
            reply = await client.ask(request(body=CALL, X_Request_Id="mine"))
        assert (reply.status, reply.json()["result"]) == (200, {"text": "hello"})
        assert reply.headers["x-request-id"] == "mine"
    assert len(nodes.runner.calls) == 3


async def test_a_connection_stays_in_the_hot_lane_whoever_answers(nodes: Nodes, hot: bool) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        await client.ask(request(body=CALL))
        await client.ask(request(body=CALL))

    assert nodes.here.services.meters.hot == (2 if hot else 0)


@pytest.mark.parametrize("close", [True, False])
async def test_a_client_that_wants_no_more_gets_its_answer_and_the_end(nodes: Nodes, close: bool) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        reply = await client.ask(request(body=CALL, Connection="close" if close else "keep-alive"))
        assert reply.status == 200
        if close:
            assert await client.is_closed()


async def test_what_is_sent_behind_a_call_that_is_handed_on_is_answered_as_well(nodes: Nodes) -> None:
    cast("FakeSupervisor", nodes.here.services.supervisor).add("own", "alice")
    client = await nodes.here.connect()
    own = request(path="/mcp/own/execute", body=CALL)

    with trio.fail_after(10):
        await client.send(own + request(body=CALL) + own)
        replies = [await client.reply() for _ in range(3)]

    assert [reply.status for reply in replies] == [200, 200, 200]


async def test_a_large_body_that_comes_in_pieces_is_handed_on_whole(nodes: Nodes) -> None:
    body = b'{"method":"echo","params":{"text":"' + b"x" * 3_000_000 + b'"}}'
    client = await nodes.here.connect()

    with trio.fail_after(20):
        whole = request(body=body)
        for start in range(0, len(whole), 700_000):
            await client.send(whole[start : start + 700_000])
        reply = await client.reply()

    assert (reply.status, len(reply.json()["result"]["text"])) == (200, 3_000_000)


async def test_a_chunked_body_is_handed_on(nodes: Nodes) -> None:
    client = await nodes.here.connect()
    head = request(Transfer_Encoding="chunked", Content_Type="application/json")

    with trio.fail_after(10):
        reply = await client.ask(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(CALL), CALL))

    assert reply.status == 200


async def test_notifications_come_as_they_are_told(nodes: Nodes) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        await client.send(request(body=b'{"method":"notify"}', Accept="text/event-stream"))
        head = await client.head()
        frames = [await client.frame() for _ in range(4)]

    assert head.headers["content-type"].startswith("text/event-stream")
    assert all(b"progress" in (frame or b"") for frame in frames[:3])
    assert b'"result"' in (frames[3] or b"")


async def test_an_instances_events_come_through(nodes: Nodes) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        await client.send(request("GET", "/mcp/memory/stream", Accept="text/event-stream"))
        assert (await client.head()).status == 200
        assert b"connected" in (await client.frame() or b"")
        nodes.there.services.hub.publish_nowait("status", instance_id=MEMORY_ID, owner="alice", data={"status": "x"})
        assert b'"status"' in (await client.frame() or b"")


async def test_a_client_that_leaves_ends_the_call_at_the_holder(nodes: Nodes) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        await client.send(request(body=b'{"method":"wait"}'))
        await nodes.runner.waiting.wait()
        await client.stream.aclose()
        await nodes.runner.ended.wait()

    assert nodes.runner.how == "gone"


@pytest.mark.parametrize("token", [BOB, "corral_of-nobody", None])
async def test_who_may_not_see_the_instance_is_answered_as_if_there_were_none(nodes: Nodes, token: str | None) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        reply = await client.ask(request(body=CALL, token=token))

    assert reply.status == (404 if token == BOB else 401)
    assert nodes.runner.calls == []


async def test_the_holders_refusals_come_back_as_they_are(nodes: Nodes) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        reply = await client.ask(request(body=CALL, token=TOKENS[Role.VIEWER]))
        assert (reply.status, reply.json()["code"]) == (403, "forbidden")
        reply = await client.ask(request(body=b'{"method":"backoff"}'))
        assert (reply.status, reply.headers["retry-after"]) == (503, "3")


async def test_a_name_that_is_new_is_looked_up_before_it_is_a_404(nodes: Nodes) -> None:
    added = cast("FakeSupervisor", nodes.there.services.supervisor).add("young", "alice").instance
    places = cast("Places", nodes.here.services.store)
    places.known["alice", "young"] = Whereabouts(id=added.id, owner="alice", name="young", node_id=THERE)
    client = await nodes.here.connect()

    with trio.fail_after(10):
        for ref in ("young", str(added.id)):
            assert (await client.ask(request(path=f"/mcp/{ref}/execute", body=CALL))).status == 200
        assert (await client.ask(request(path=f"/mcp/{added.id}/execute", body=CALL, token=BOB))).status == 404
        assert (await client.ask(request(path="/mcp/nowhere/execute", body=CALL))).status == 404


async def test_a_request_is_handed_on_once_and_never_back(nodes: Nodes) -> None:
    nodes.there.services.roster.add(Elsewhere(GONE, "alice", "lost", HERE))
    nodes.roster.add(Elsewhere(GONE, "alice", "lost", THERE))
    client = await nodes.here.connect()

    with trio.fail_after(10):
        reply = await client.ask(request(path="/mcp/lost/execute", body=CALL))

    assert (reply.status, reply.json()["code"]) == (503, "instance_unavailable")
    assert "retry-after" in reply.headers


@asynccontextmanager
async def scripted(nodes: Nodes, said: bytes) -> AsyncIterator[list[bytes]]:
    """Where the holder would be: takes a request, which is kept in the list, says this, and closes."""
    taken: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            taken.append(await stream.receive_some(65536))
            await stream.send_all(said)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        nodes.roster.take_nodes([nodes.roster.nodes[HERE], node(THERE, port)])
        yield taken
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "target",
    [
        "/instances/memory/start/../../../users",
        "/instances/memory/logs/./x",
        "/instances/memory/logs/%2e%2E/x",
        "/instances/memory/logs//x",
        '/instances/memory/logs/"<>|{}[]^`\\',
        "/instances/memory?x=%zz&y='\"#z",
        "/instances/memory/logs/#x",
    ],
)
async def test_the_holder_is_asked_for_what_the_client_asked_for_byte_for_byte(nodes: Nodes, target: str) -> None:
    """Nothing is made shorter or mended on the way: what was checked here is what is answered there."""
    client = await nodes.here.connect()

    with trio.fail_after(10):
        async with scripted(nodes, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") as taken:
            reply = await client.ask(request("GET", target))

    assert (reply.status, [head.partition(b"\r\n")[0] for head in taken]) == (204, [f"GET {target} HTTP/1.1".encode()])


@pytest.mark.parametrize("status", [b"202 Accepted\r\nContent-Length: 0", b"204 No Content"])
async def test_an_answer_without_a_body_comes_back_whole(nodes: Nodes, status: bytes) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        for _ in range(2):  # on the same connection
            async with scripted(nodes, b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n"):
                reply = await client.ask(request(body=CALL))
            assert (reply.status, reply.body) == (int(status[:3]), b"")


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
async def test_an_answer_that_breaks_off_is_cut_and_nothing_is_made_up(nodes: Nodes, framing: bytes) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        async with scripted(nodes, b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n3\r\nabc\r\n"):
            with pytest.raises((h11.RemoteProtocolError, trio.BrokenResourceError)):
                await client.ask(request(body=CALL))


@pytest.mark.parametrize(("said", "code"), [(b"", "instance_crashed"), (b"nonsense\r\n\r\n", "instance_crashed")])
async def test_a_holder_that_breaks_off_before_it_answers_may_have_done_it(
    nodes: Nodes, said: bytes, code: str
) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        async with scripted(nodes, said):
            reply = await client.ask(request(body=CALL))
            assert (reply.status, reply.json()["code"]) == (502, code)
        async with scripted(nodes, said):
            reply = await client.ask(request("GET", "/instances/memory/logs"))
            assert (reply.status, reply.json()["code"]) == (503, "instance_unavailable")


@pytest.mark.parametrize("holder", [None, GONE, HERE])
async def test_what_nobody_live_holds_is_a_503_at_once(nodes: Nodes, holder: UUID | None) -> None:
    nodes.roster.take_nodes([*nodes.roster.nodes.values(), node(GONE, 1, is_live=False)])
    nodes.roster.add(Elsewhere(MEMORY_ID, "alice", "memory", holder))
    client = await nodes.here.connect()

    with trio.fail_after(10):
        reply = await client.ask(request(body=CALL))

    assert (reply.status, reply.json()["code"]) == (503, "instance_unavailable")
    assert "retry-after" in reply.headers


async def test_a_holder_that_refuses_connections_is_a_503_that_says_so(nodes: Nodes) -> None:
    nodes.roster.take_nodes([node(HERE, nodes.here.port), node(THERE, 1)])
    client = await nodes.here.connect()

    with trio.fail_after(10):
        reply = await client.ask(request(body=CALL))

    assert (reply.status, reply.json()["code"]) == (503, "instance_unavailable")
    assert "corral nodes" in reply.json()["hint"]
    assert "retry-after" in reply.headers


async def test_a_holder_whose_lease_runs_out_during_a_call_ends_the_wait(nodes: Nodes) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        await client.send(request(body=b'{"method":"wait"}'))
        await nodes.runner.waiting.wait()
        there = nodes.roster.nodes[THERE]
        nodes.roster.take_nodes([nodes.roster.nodes[HERE], evolve(there, is_live=False)])
        reply = await client.reply()

    assert (reply.status, reply.json()["code"]) == (502, "instance_crashed")


async def test_a_stream_ends_when_the_holders_lease_runs_out(nodes: Nodes) -> None:
    client = await nodes.here.connect()

    with trio.fail_after(10):
        await client.send(request("GET", "/mcp/memory/stream", Accept="text/event-stream"))
        await client.head()
        await client.frame()
        nodes.roster.take_nodes([nodes.roster.nodes[HERE]])
        with pytest.raises(h11.RemoteProtocolError, match="incomplete"):
            await client.frame()
