"""What stands in for the rest of the control plane in tests of the web layer, and a real server around it.

The runner is scripted by the method that is called; the hub, the tokens and the
server are the real ones, on a real socket.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import h11
import trio
from attrs import define, field, frozen

from controlplane.config import Config
from controlplane.errors import BadChildMessage, InstanceUnavailable, NotFound, NotRunning
from controlplane.hub import Hub
from controlplane.model import Command, Instance, Principal, Role, SourceType, Spec, Token, User
from controlplane.web.auth import TokenTable, digest_of
from controlplane.web.door import Door, serve
from controlplane.web.listeners import open_listeners
from controlplane.web.mount import mount
from controlplane.web.oidc.issuer import Issuer
from controlplane.web.oidc.keys import read_keys
from controlplane.web.services import Services
from tests.web.oidc_issuer import AUDIENCE, TestIssuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from controlplane.store.values import AuditRow
    from controlplane.web.asgi import App, Receive, Scope, Send

JWT_KEY = b"k" * 64
OIDC = {"oidc_issuer": TestIssuer().url, "oidc_audience": AUDIENCE}
"""Settings with an issuer."""
TOKENS = {role: f"corral_test-token-of-a-{role.value}-0123456789" for role in Role}
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MEMORY_ID = UUID("11111111-2222-3333-4444-555555555555")
"""Alice's instance `memory`."""


def make_instance(name: str, owner: str, instance_id: UUID | None = None) -> Instance:
    spec = Spec(source_type=SourceType.MCP_CONFIG, language="node", command=Command(command="npx"))
    return Instance(
        id=instance_id or uuid4(), owner=owner, name=name, spec=spec, created_at=NOW, updated_at=NOW, incarnation=1
    )


@define(eq=False)
class FakeRunner:
    """Answers by the method: see `call`."""

    instance: Instance
    calls: list[tuple[str, bytes | None, float | None]] = field(factory=list)
    waiting: trio.Event = field(factory=trio.Event)
    """A call of `wait` has begun."""
    release: trio.Event = field(factory=trio.Event)
    """Lets `wait` answer."""
    ended: trio.Event = field(factory=trio.Event)
    """A call of `wait` is over."""
    how: str = ""
    """How it ended: `answered`, `gone` or `cancelled`."""

    async def call(  # noqa: C901 - a script, one case after the other
        self,
        method: str,
        params: bytes | None,
        *,
        timeout_s: float | None = None,
        is_gone: Callable[[], bool] | None = None,
        on_notification: Callable[[str, bytes | None], None] | None = None,
    ) -> bytes:
        self.calls.append((method, params, timeout_s))
        match method:
            case "wait":
                return await self._wait(is_gone)
            case "bug":
                raise RuntimeError("secret /internal/path of ours")
            case "os_error":
                raise BrokenPipeError("a pipe of ours")
            case "crash":
                raise BadChildMessage("it said nonsense", evidence={"stderr_tail": ["line \udc80"]})
            case "stopped":
                raise NotRunning("the instance was stopped")
            case "backoff":
                raise InstanceUnavailable("it restarts", retry_after_s=2.5, evidence={"phase": "serve", "exit_code": 3})
            case "refuse":
                return b'"error":{"code":-32601,"message":"Method not found"}'
            case "notify" if on_notification is not None:
                for number in range(3):
                    on_notification("notifications/progress", b'{"progress":%d,\n"total":3}' % number)
            case "notify_crash" if on_notification is not None:
                on_notification("notifications/progress", b'{"progress":0}')
                raise BadChildMessage("it said nonsense")
            case "big":
                return b'"result":"' + b"x" * int(cast("bytes", params).strip(b'{"size:}')) + b'"'
        return b'"result":' + (params if params is not None else b"null")

    async def _wait(self, is_gone: Callable[[], bool] | None) -> bytes:
        self.waiting.set()
        try:
            while not self.release.is_set():
                with trio.move_on_after(0.05):
                    await self.release.wait()
                if is_gone is not None and is_gone():
                    self.how = "gone"
                    raise NotRunning("the caller went away")
            self.how = "answered"
        except trio.Cancelled:
            self.how = "cancelled"
            raise
        finally:
            self.ended.set()
        return b'"result":"waited"'


@define(eq=False)
class FakeSupervisor:
    """Finds by id, name or `owner/name`, with the real rules of who sees what."""

    by_id: dict[UUID, FakeRunner] = field(factory=dict)

    def add(self, name: str, owner: str, instance_id: UUID | None = None) -> FakeRunner:
        runner = FakeRunner(make_instance(name, owner, instance_id))
        self.by_id[runner.instance.id] = runner
        return runner

    def runners(self) -> list[FakeRunner]:
        return list(self.by_id.values())

    def get(self, instance_id: UUID) -> FakeRunner:
        try:
            return self.by_id[instance_id]
        except KeyError:
            raise NotFound("There is no such instance.") from None

    def find(self, principal: Principal, ref: str) -> FakeRunner:
        for runner in self.by_id.values():
            instance = runner.instance
            names = {str(instance.id), f"{instance.owner}/{instance.name}"}
            if instance.owner == principal.owner:
                names.add(instance.name)
            if ref in names and principal.sees(instance.owner, instance.name, instance.id):
                return runner
        raise NotFound("There is no such instance.")


def make_tokens() -> TokenTable:
    """Users alice (deployer), bob (deployer) and root (admin); a token of every role for alice's, `bob` for bob's."""
    table = TokenTable(jwt_key=JWT_KEY)
    users = [
        User(name="alice", role=Role.DEPLOYER),
        User(name="bob", role=Role.DEPLOYER),
        User(name="root", role=Role.ADMIN),
    ]
    tokens = [make_token(TOKENS[role], "root" if role is Role.ADMIN else "alice", role) for role in Role]
    table.load(users, [*tokens, make_token("corral_bobs-token-0123456789", "bob", Role.DEPLOYER)])
    return table


def make_issuer(config: Config) -> Issuer | None:
    """The one that the settings name, with the keys of `oidc_issuer`."""
    issuer = Issuer.of_config(config)
    if issuer is not None:
        issuer.take(read_keys(TestIssuer().document(), config.oidc_algorithms))
    return issuer


def make_token(text: str, owner: str, role: Role, **more: Any) -> Token:
    return Token(
        id=uuid4(), owner=owner, name=role.value, role=role, digest=digest_of(text.encode()), created_at=NOW, **more
    )


class FakeJournal:
    """Keeps what the audit log is told, and nothing else."""

    def __init__(self) -> None:
        self.audited: list[AuditRow] = []

    def audit(self, row: AuditRow) -> None:
        self.audited.append(row)


def make_services(**settings: Any) -> Services:
    """Services with fakes where the web layer's own routes need them, and None where they do not."""
    config = Config(**{"rate_limit_rps": 0, **settings})
    supervisor = FakeSupervisor()
    supervisor.add("memory", "alice", MEMORY_ID)
    supervisor.add("files", "bob")
    tokens = make_tokens()
    tokens.issuer = make_issuer(config)
    return Services(
        config=config,
        home=cast("Any", None),
        store=cast("Any", None),
        journal=cast("Any", FakeJournal()),
        cache=cast("Any", None),
        hub=Hub(max_bytes=64 * 2**20),
        supervisor=cast("Any", supervisor),
        deployer=cast("Any", None),
        installs=cast("Any", None),
        toolchain=cast("Any", None),
        tokens=tokens,
        spawner=cast("Any", None),
        egress=cast("Any", None),
        rotation=cast("Any", None),
        version="0.0.0",
        started_at=0.0,
    )


def memory(services: Services) -> FakeRunner:
    return cast("FakeSupervisor", services.supervisor).by_id[MEMORY_ID]


async def plain_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands behind our own routes: `/health` answers, `/echo` and `/deploy` read the body, `/ignore` does not, `/bug` raises."""
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/bug":
        raise RuntimeError("secret /internal/path of ours")
    body = b"fine"
    if scope["path"] in {"/echo", "/deploy"}:
        size = 0
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                break
        body = str(size).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@frozen
class Server:
    """A running server."""

    port: int
    door: Door
    services: Services
    clients: list[Client] = field(factory=list)

    async def connect(self) -> Client:
        """A new connection; closed with the server."""
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    def hang_up(self) -> None:
        for client in self.clients:
            client.stream.socket.close()


@asynccontextmanager
async def running(services: Services, *, hot: bool = True, app: App = plain_app) -> AsyncIterator[Server]:
    """Serve on a free port of the loopback interface; everything is closed at the end."""
    listeners = open_listeners("127.0.0.1", 0)
    port = listeners[0].getsockname()[1]
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[Door]) -> None:
            await serve(listeners, mount(app, services), services, hot=hot, task_status=task_status)

        door = await nursery.start(start)
        server = Server(port, door, services)
        try:
            yield server
        finally:
            server.hang_up()
            nursery.cancel_scope.cancel()


@frozen
class Reply:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        import json

        return json.loads(self.body)


class Client:
    """A raw HTTP/1.1 client: what is sent is up to the test, answers are read by h11."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._reset()

    def _reset(self, trailing: bytes = b"") -> None:
        self._events = b""
        self._h11 = h11.Connection(h11.CLIENT)
        # The reader must believe that it asked something.
        self._h11.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        self._h11.send(h11.EndOfMessage())
        if trailing:
            self._h11.receive_data(trailing)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def reply(self) -> Reply:
        """Read one whole answer."""
        start: h11.Response | None = None
        body = bytearray()
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self.stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                start = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert start is not None
                self._reset(self._h11.trailing_data[0])
                headers = {name.decode(): value.decode() for name, value in start.headers}
                return Reply(start.status_code, headers, bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                raise trio.BrokenResourceError("closed without an answer")

    async def head(self) -> Reply:
        """The head alone of the next answer, which is a stream."""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self.stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                return Reply(event.status_code, {name.decode(): value.decode() for name, value in event.headers}, b"")
            else:
                raise trio.BrokenResourceError("closed without an answer")

    async def frame(self) -> bytes | None:
        """The next event of an event stream; None when the stream has ended."""
        while b"\n\n" not in self._events:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self.stream.receive_some(65536))
            elif isinstance(event, h11.Data):
                self._events += bytes(event.data)
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                assert not self._events, "the stream was cut in the middle of an event"
                self._reset()
                return None
        frame, _, self._events = self._events.partition(b"\n\n")
        return frame

    async def ask(self, data: bytes) -> Reply:
        await self.send(data)
        return await self.reply()

    async def is_closed(self) -> bool:
        """Wait for the server to close; True when it did without saying more."""
        try:
            return not await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            return True


def request(
    method: str = "POST",
    path: str = "/mcp/memory/execute",
    *,
    token: str | None = TOKENS[Role.CALLER],
    body: bytes | None = None,
    host: str | None = "localhost",
    content_type: str | None = "application/json",
    **headers: str,
) -> bytes:
    """A request as bytes; header names have `_` for `-`."""
    lines = [f"{method} {path} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
        if content_type is not None:
            lines.append(f"Content-Type: {content_type}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")
