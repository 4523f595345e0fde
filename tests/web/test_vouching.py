"""What the node that hands a request on says of its client: believed of nodes alone, and of nobody who makes it up."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pytest
import trio
from attrs import define, evolve, field

from controlplane.config import Config
from controlplane.model import Role
from controlplane.store.values import Whereabouts
from controlplane.web.forward import handed_on
from controlplane.web.guards import Guards
from controlplane.web.request import Head
from controlplane.web.vouching import VOUCHED, Client, Vouching
from tests.web.fakes import TOKENS, make_tokens, request
from tests.web.fakes_api import serving
from tests.web.test_forward import CALL, HERE, THERE, head_of, node, two_nodes
from tests.web.test_gather import Kept, join

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.store.values import AuditRow
    from tests.web.fakes import FakeJournal
    from tests.web.fakes_api import Api
    from tests.web.test_forward import Nodes

KEY = "0123456789abcdef" * 4
BY, REQUEST_ID = b"00000000-0000-0000-0000-000000000001", b"life-1"
CLIENT = Client("203.0.113.9", is_counted=True)
NODE_ADDRESS = "10.0.0.1"


def word(client: Client = CLIENT, key: str | None = KEY, by: bytes = BY, request_id: bytes = REQUEST_ID) -> bytes:
    ((name, value),) = Vouching(lambda: key).fields(client, by, request_id)
    assert name == VOUCHED
    return value


def as_it_comes(value: bytes, *, by: bytes = BY, request_id: bytes = REQUEST_ID) -> Head:
    pairs = [(b"x-corral-node", by), (b"x-request-id", request_id), (VOUCHED, value)]
    return Head.of("POST", "/mcp/memory/execute", b"", pairs, NODE_ADDRESS)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::1", "fe80::1%eth0"])
def test_what_a_node_says_is_read_by_who_has_the_key(address: str, counted: bool) -> None:
    said = Client(address, counted)

    assert Vouching(lambda: KEY).read(as_it_comes(word(said))) == said


@pytest.mark.parametrize(
    "head",
    [
        as_it_comes(b""),
        as_it_comes(b"203.0.113.9"),
        as_it_comes(b" counted 203.0.113.9"),
        as_it_comes(b"0" * 64 + b" counted 203.0.113.9"),
        as_it_comes("ä".encode() + b" counted 203.0.113.9"),
        as_it_comes(word(key="")),
        as_it_comes(word(key="another")),
        as_it_comes(word().replace(b".9", b".8")),
        as_it_comes(word(Client("203.0.113.9", is_counted=False)).replace(b"uncounted", b"counted")),
        as_it_comes(word(), request_id=b"life-2"),
        as_it_comes(word(), by=b"00000000-0000-0000-0000-000000000002"),
        as_it_comes(word() + b", " + word()),
        Head.of("GET", "/", b"", [(VOUCHED, word())], NODE_ADDRESS),
        Head.of("GET", "/", b"", [], NODE_ADDRESS),
    ],
)
def test_what_is_made_up_changed_doubled_or_moved_to_another_request_says_nothing(head: Head) -> None:
    assert Vouching(lambda: KEY).read(head) is None
    assert Guards(Config(), make_tokens(), vouched=Vouching(lambda: KEY).read).client(head) == NODE_ADDRESS


def test_without_a_key_nothing_is_said_and_nothing_believed() -> None:
    assert Vouching(lambda: None).fields(CLIENT, BY, REQUEST_ID) == ()
    assert Vouching(lambda: None).read(as_it_comes(word())) is None
    assert KEY not in repr(Vouching(lambda: KEY))


def test_the_clients_address_is_the_one_that_a_node_vouches_for_whatever_is_forwarded_besides() -> None:
    guards = Guards(Config(trusted_proxies=("10.0.0.0/8",)), make_tokens(), vouched=Vouching(lambda: KEY).read)
    said = as_it_comes(word())
    head = Head(said.method, said.path, b"", {**said.fields, b"x-forwarded-for": b"6.6.6.6, 10.0.0.7"}, said.peer)

    assert guards.client(head) == CLIENT.address
    assert guards.client(evolve(head, fields={b"x-forwarded-for": b"6.6.6.6"})) == "6.6.6.6"


def test_what_a_client_says_of_itself_is_never_handed_on() -> None:
    head, scope = head_of([(VOUCHED, b"made up")])
    own = (VOUCHED, word())

    assert VOUCHED not in dict(handed_on(head, scope, node(THERE, 1), HERE))
    fields = handed_on(head, scope, node(THERE, 1), HERE, (own,))
    assert [pair for pair in fields if pair[0] == VOUCHED] == [own]


# -- the rate limit


@asynccontextmanager
async def three_calls_each(*, hot: bool) -> AsyncIterator[Nodes]:
    """Two nodes with one key that let three calls through, ever."""
    async with two_nodes(hot=hot, rate_limit_rps=3) as nodes:
        for server in (nodes.here, nodes.there):
            server.services.vouching.key = lambda: KEY
            server.services.guards.calls.clock = lambda: 0.0
        yield nodes


async def statuses(nodes: Nodes, server: str, times: int, **fields: str) -> list[int]:
    client = await (nodes.here if server == "here" else nodes.there).connect()
    with trio.fail_after(10):
        return [(await client.ask(request(body=CALL, **fields))).status for _ in range(times)]


@pytest.mark.parametrize("fields", [{}, {"X_Request_Id": "always-the-same"}])
async def test_a_call_that_is_handed_on_takes_one_turn_and_not_two(hot: bool, fields: dict[str, str]) -> None:
    async with three_calls_each(hot=hot) as nodes:
        assert await statuses(nodes, "here", 4, **fields) == [200, 200, 200, 429]
        # Which of them has counted depends on the door: the hot lane's call was counted before it was handed on.
        assert await statuses(nodes, "there", 4) == ([200, 200, 200, 429] if hot else [429] * 4)


async def test_who_says_that_it_was_counted_is_counted_all_the_same(hot: bool) -> None:
    forged = {"X_Corral_Client": word(key="guessed").decode(), "X_Corral_Node": BY.decode(), "X_Request_Id": "life-1"}
    async with three_calls_each(hot=hot) as nodes:
        assert await statuses(nodes, "there", 4, **forged) == [200, 200, 200, 429]
    async with three_calls_each(hot=hot) as nodes:
        assert await statuses(nodes, "here", 4, **forged) == [503, 503, 503, 429]


# -- the audit log


@define(eq=False)
class Knowing(Kept):
    """A store that knows who holds everything: the other one."""

    place: Whereabouts | None = field(default=None)

    async def whereabouts(self, instance_id: UUID | None, owner: str, name: str) -> Whereabouts | None:
        return self.place if self.place is not None and name == self.place.name else None


@define
class Pair:
    """`here` stands behind a proxy at the tests' address; `there` holds alice's `moved`, and trusts no proxy."""

    here: Api
    there: Api

    async def restart(self, api: Api, **more: Any) -> AuditRow:
        """The row at the holder, after the instance was restarted by way of either."""
        rows = cast("FakeJournal", self.there.services.journal).audited
        rows.clear()
        answer = await api.ask("POST", "/instances/moved/restart", **more)
        assert answer.status_code in {200, 202, 401}, answer.text
        (row,) = rows
        return row


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with serving(trusted_proxies=("127.0.0.1",)) as here, serving() as there:
        for api, node_id in ((here, HERE), (there, THERE)):
            join(api, node_id)
            api.services.vouching.key = lambda: KEY
        runner = there.named("alice", "memory")
        runner.instance = evolve(runner.instance, name="moved")
        store = Knowing(here.store.users_, here.store.tokens_)
        store.place = Whereabouts(id=runner.instance.id, owner="alice", name="moved", node_id=THERE)
        here.services.store = cast("Any", store)
        for api in (here, there):
            api.services.roster.take_nodes([node(HERE, here.port), node(THERE, there.port)])
        yield Pair(here, there)
        await here.services.peers.close()


async def test_the_holders_audit_log_has_the_clients_address(pair: Pair) -> None:
    row = await pair.restart(pair.here, headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.9"})

    assert (row.action, row.address) == ("restartInstance", "203.0.113.9")


async def test_a_stranger_that_plays_a_node_is_in_the_audit_log_as_what_it_is(pair: Pair) -> None:
    forged = {"X-Corral-Client": word(key="guessed").decode(), "X-Corral-Node": BY.decode(), "X-Request-Id": "life-1"}

    row = await pair.restart(pair.there, headers={**forged, "X-Forwarded-For": "6.6.6.6"})
    assert row.address == "127.0.0.1"
    row = await pair.restart(pair.there, headers={**forged, "X-Forwarded-For": "6.6.6.6"}, token="corral_guess")
    assert (row.action, row.address) == ("signIn", "127.0.0.1")


async def test_a_wrong_token_that_is_handed_on_counts_against_its_client(pair: Pair) -> None:
    """One that was revoked, which the node that was asked has not heard of yet."""
    tokens = pair.there.services.tokens
    tokens.discard_token(UUID(tokens.verify(f"Bearer {TOKENS[Role.DEPLOYER]}").token_id))

    row = await pair.restart(pair.here, headers={"X-Forwarded-For": "203.0.113.9"})

    assert (row.action, row.address, row.status) == ("signIn", "203.0.113.9", 401)
