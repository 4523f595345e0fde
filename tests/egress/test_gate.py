"""A gate that serves a real network namespace, made as root and as a plain user."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define

from controlplane.egress.gate import Gate
from controlplane.egress.lookups import Lookups
from controlplane.egress.outside import Outside
from controlplane.egress.policy import Policy
from tests.deploy.source.https_server import HOST, make_authority, proxying
from tests.egress.sandbox import (
    GREETING,
    TIMEOUT_S,
    Resolver,
    greeter,
    node,
    run,
    run_python,
    started,
    users,
)
from tests.needs import own_address

pytestmark = pytest.mark.needs("user_namespaces")
each_user = pytest.mark.parametrize("uid", users())

HELLO = GREETING.decode()


class Opened:
    """A gate that waits for its sandbox, and what it refused."""

    def __init__(self, policy: Policy, outside: Outside, fd: int) -> None:
        self.policy = policy
        self.fd = fd
        self.refused: list[tuple[str, int, str]] = []
        self.gate = Gate(f"sandbox {fd}", policy, outside, lambda *refusal: self.refused.append(refusal))

    async def python(self, program: str, **options: Any) -> Any:
        return await run_python(self.fd, self.policy, program, **options)


@contextlib.asynccontextmanager
async def opened(
    policy: Policy, hosts: dict[str, str] | None = None, *, resolver: Any = None, environ: dict[str, str] | None = None
) -> AsyncIterator[Opened]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    found = Opened(policy, Outside(environ or {}, Lookups(resolver or Resolver(hosts or {}))), theirs.detach())

    async def serve() -> None:
        await trio.lowlevel.wait_readable(ours)
        fds = socket.recv_fds(ours, 99, 2)[1]
        if fds:
            await found.gate.run(*(socket.socket(fileno=fd) for fd in fds))

    with ours:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield found
            nursery.cancel_scope.cancel()


@each_user
async def test_a_program_reaches_what_the_operator_lists_and_nothing_else(uid: int) -> None:
    async with greeter() as listed, greeter() as other, greeter("127.0.0.1") as own:
        async with opened(Policy(allow_private=(f"127.0.0.2:{listed}",))) as sandbox:
            got = await sandbox.python(
                f"""
                say(try_tcp("127.0.0.2", {listed}), try_tcp("127.0.0.2", {other}), try_tcp("127.0.0.1", {own}),
                    try_tcp("10.1.2.3", 80), try_tcp("169.254.169.254", 80), try_tcp("198.19.1.1", 443))
                """,
                uid=uid,
            )
    assert got == [HELLO, "ECONNREFUSED", "ECONNREFUSED", "ECONNRESET", "ECONNRESET", "ECONNRESET"]
    assert sandbox.refused == [
        ("10.1.2.3", 80, "10.1.2.3:80 is at a private address; the operator can allow it with EGRESS_ALLOW_PRIVATE"),
        (
            "169.254.169.254",
            80,
            (
                "169.254.169.254:80 is at an address of a special purpose, such as link-local; "
                "the operator can allow it with EGRESS_ALLOW_PRIVATE"
            ),
        ),
        ("198.19.1.1", 443, "the name was looked up too long ago; look it up again"),
    ]


@each_user
async def test_no_datagram_leaves_and_there_is_no_ipv6(uid: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.2", 0))
        port = heard.getsockname()[1]
        async with opened(Policy(allow_private=(f"127.0.0.2:{port}",))) as sandbox:
            got = await sandbox.python(
                f"""
                say(try_udp("127.0.0.2", {port}), try_udp("10.1.2.3", 123), try_tcp("2606:4700::1", 443))
                """,
                uid=uid,
            )
        assert got == ["ECONNREFUSED", "ECONNREFUSED", "ENETUNREACH"]
        heard.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard.recv(1)


@each_user
async def test_a_program_keeps_its_own_loopback_and_cannot_take_the_gate_over(uid: int) -> None:
    async with opened(Policy()) as sandbox:
        got = await sandbox.python(
            """
            import threading
            own = socket.create_server(("0.0.0.0", 0))
            def serve():
                with own.accept()[0] as got:
                    got.recv(99); got.sendall(b"myself")
            threading.Thread(target=serve, daemon=True).start()
            def take(port):
                try:
                    socket.create_server(("127.0.0.3", port))
                except OSError as error:
                    return why(error)
            def leave():
                try:
                    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
                except OSError as error:
                    return why(error)
            say(try_tcp("127.0.0.1", own.getsockname()[1]), take(1), take(53), try_tcp("127.0.0.1", 1), leave())
            """,
            uid=uid,
        )
    assert got == ["myself", "EACCES", "EACCES", "ECONNRESET", "EPERM"]
    assert sandbox.refused == []


async def test_a_name_that_is_allowed_is_connected_to_and_others_do_not_exist() -> None:
    async with greeter() as port:
        policy = Policy("allow", (f"api.test:{port}", "*.example.test"), (f"api.test:{port}", f"127.0.0.1:{port}"))
        hosts = {"api.test": "127.0.0.2", "other.test": "127.0.0.2", "a.example.test": "127.0.0.2"}
        async with opened(policy, hosts) as sandbox:
            got = await sandbox.python(
                f"""
                def addresses(name):
                    return sorted({{found[4][0] for found in socket.getaddrinfo(name, 1)}})
                say(try_tcp("api.test", {port}), try_tcp("API.test", {port}), try_tcp("api.test", {port + 1}),
                    try_tcp("other.test", {port}), try_tcp("a.example.test", {port}), try_tcp("gone.example.test", {port}),
                    try_tcp("93.184.216.34", 443), try_tcp("127.0.0.1", {port}), addresses("api.test"))
                """,
            )
    refused = [
        HELLO,
        HELLO,
        "ECONNRESET",
        "no such name",
        "no such name",
        "no such name",
        "ECONNRESET",
        "ECONNREFUSED",
        ["198.18.0.1"],
    ]
    assert got == refused
    reasons = {(host, asked): reason for host, asked, reason in sandbox.refused}
    assert reasons["api.test", port + 1] == f"api.test:{port + 1} is not in network.hosts"
    assert reasons["other.test", 0] == "other.test is not in network.hosts"
    assert "EGRESS_ALLOW_PRIVATE" in reasons["a.example.test", 0]
    assert reasons["93.184.216.34", 443] == "93.184.216.34:443 is not in network.hosts"


async def test_a_name_that_leads_to_private_addresses_alone_does_not_exist() -> None:
    hosts = {"inner.test": "127.0.0.2 10.1.2.3", "mixed.test": "10.1.2.3 93.184.216.34 192.168.1.1"}
    async with opened(Policy(), hosts) as sandbox:
        got = await sandbox.python('say(try_tcp("inner.test", 80), socket.gethostbyname_ex("mixed.test")[2])')
    assert got == ["no such name", ["93.184.216.34"]]
    assert [refusal[:2] for refusal in sandbox.refused] == [("inner.test", 0)]
    assert "inner.test is at" in sandbox.refused[0][2]


async def test_a_program_that_judges_addresses_itself_sees_those_of_the_host() -> None:
    async with opened(Policy("allow", ("api.test",)), {"api.test": "93.184.216.34 93.184.216.35"}) as sandbox:
        got = await sandbox.python(
            """
            import ipaddress
            found = sorted({answer[4][0] for answer in socket.getaddrinfo("api.test", 443)})
            say(found, all(ipaddress.ip_address(address).is_global for address in found))
            """
        )
    assert got == [["93.184.216.34", "93.184.216.35"], True]


@pytest.mark.needs("address")
async def test_an_address_is_reached_as_the_name_it_was_given_for_and_only_in_that_sandbox() -> None:
    own = own_address()
    async with greeter(own) as port:
        policy = Policy("allow", (f"api.test:{port}",), (f"{own}:{port}",))
        hosts = {"api.test": own}
        program = f"""
            before = try_tcp("{own}", {port})
            address = socket.gethostbyname("api.test")
            say(before, address, try_tcp(address, {port}), try_tcp(address, {port + 1}))
            """
        async with opened(policy, hosts) as one, opened(policy, hosts) as two:
            got = await one.python(program)
            assert await two.python(f'say(try_tcp("{own}", {port}))') == ["ECONNRESET"]
    assert got == ["ECONNRESET", own, HELLO, "ECONNRESET"]
    assert [refusal[2] for refusal in one.refused] == [
        f"{own}:{port} is not in network.hosts",
        f"api.test:{port + 1} is not in network.hosts",
    ]


@pytest.mark.needs("address")
async def test_a_connection_goes_to_the_address_that_was_given_wherever_the_name_leads_later() -> None:
    own = own_address()
    async with greeter(own) as port:
        resolver = Resolver({"rebinding.test": own})
        async with opened(Policy(allow_private=(f"{own}:{port}",)), resolver=resolver) as sandbox:
            program = """
                address = socket.gethostbyname("rebinding.test")
                print(address, flush=True)
                print(try_tcp(address, int(sys.stdin.readline())), flush=True)
                """
            async with started(sandbox.fd, sandbox.policy, program) as process:
                assert await process.stdout.receive_some(99) == f"{own}\n".encode()
                resolver.hosts["rebinding.test"] = "10.1.2.3"
                await process.stdin.send_all(b"%d\n" % port)
                assert await process.stdout.receive_some(99) == GREETING + b"\n"
    assert sandbox.refused == []


@pytest.mark.needs("address")
async def test_an_address_that_does_not_answer_is_made_up_for_by_another_of_its_name() -> None:
    own = own_address()
    async with greeter() as port:
        policy = Policy(allow_private=(f"two.test:{port}", f"{own}:{port}"))
        async with opened(policy, {"two.test": f"{own} 127.0.0.2"}) as sandbox:
            got = await sandbox.python(
                f'say(try_tcp("{own}", {port}), socket.gethostbyname("two.test"), try_tcp("two.test", {port}))'
            )
    assert got == ["ECONNRESET", own, HELLO]


async def test_without_a_gate_nothing_can_be_reached_but_oneself() -> None:
    async with greeter() as port:
        ours, theirs = socket.socketpair()
        with ours:
            got = await run_python(
                theirs.detach(),
                Policy("none"),
                f'say(try_tcp("127.0.0.2", {port}), try_tcp("93.184.216.34", 443), try_udp("127.0.0.1", 53))',
                gated=False,
            )
    assert got == ["ECONNREFUSED", "ENETUNREACH", "ECONNREFUSED"]


async def test_sandboxes_do_not_see_each_other() -> None:
    serving = """
        own = socket.create_server(("127.0.0.1", 47111))
        shared = socket.socket(socket.AF_UNIX); shared.bind("\\0corral-test-egress"); shared.listen()
        print("listening", flush=True)
        sys.stdin.read()
        """
    looking = """
        def try_abstract():
            try:
                socket.socket(socket.AF_UNIX).connect("\\0corral-test-egress")
            except OSError as error:
                return why(error)
        say(try_tcp("127.0.0.1", 47111), try_tcp("10.0.0.1", 47111), try_abstract())
        """
    async with opened(Policy()) as one, opened(Policy()) as two:
        async with started(one.fd, Policy(), serving) as process:
            assert await process.stdout.receive_some(99) == b"listening\n"
            got = await two.python(looking)
    assert got == ["ECONNREFUSED", "ECONNRESET", "ECONNREFUSED"]


async def test_half_a_connection_may_end_and_the_other_half_goes_on() -> None:
    async def count(stream: trio.SocketStream) -> None:
        async with stream:
            size_bytes = sum([len(data) async for data in stream])
            await stream.send_all(b"%d" % size_bytes)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.2")
        nursery.start_soon(trio.serve_listeners, count, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with opened(Policy(allow_private=(f"127.0.0.2:{port}",))) as sandbox:
            got = await sandbox.python(f'say(try_tcp("127.0.0.2", {port}, b"x" * 5_000_000))')
        nursery.cancel_scope.cancel()
    assert got == ["5000000"]


async def test_a_connection_that_the_server_resets_is_reset_inside() -> None:
    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.2")
        nursery.start_soon(trio.serve_listeners, reset, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with opened(Policy(allow_private=(f"127.0.0.2:{port}",))) as sandbox:
            assert await sandbox.python(f'say(try_tcp("127.0.0.2", {port}))') == ["ECONNRESET"]
        nursery.cancel_scope.cancel()


async def test_connections_beyond_the_limit_are_refused_and_those_within_it_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controlplane.egress.gate.MAX_CONNECTIONS", 3)
    async with greeter() as port, opened(Policy(allow_private=(f"127.0.0.2:{port}",))) as sandbox:
        got = await sandbox.python(
            f"""
            held = [socket.create_connection(("127.0.0.2", {port})) for _ in range(3)]
            refused = try_tcp("127.0.0.2", {port})
            held[0].shutdown(socket.SHUT_WR)
            say(refused, held[0].recv(99).decode())
            """
        )
    assert got == ["ECONNRESET", HELLO]


async def test_a_flood_of_look_ups_and_connections_is_held_to_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.egress.gate.REQUESTS_PER_S", 0.001)
    monkeypatch.setattr("controlplane.egress.gate.BURST", 3.0)
    async with opened(Policy()) as sandbox:
        got = await sandbox.python(
            """
            first = [try_tcp("10.1.2.3", 80) for _ in range(3)]
            held = socket.create_connection(("10.1.2.3", 80))
            held.settimeout(1)
            try:
                held.recv(1)
            except TimeoutError:
                say(*first, "waits")
            """
        )
    assert got == [*["ECONNRESET"] * 3, "waits"]


@define
class Web:
    """An https server on another loopback address, for `HOST` alone."""

    port: int
    ca: Path

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}/page"


@pytest.fixture
def web() -> Iterator[Web]:
    with tempfile.TemporaryDirectory(prefix="corral-test-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        authority = make_authority(Path(folder))
        authority.ca.chmod(0o644)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(GREETING)))
                self.end_headers()
                self.wfile.write(GREETING)

            def log_message(self, *_args: Any) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.chain, authority.key)
        with http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            yield Web(server.server_address[1], authority.ca)
            server.shutdown()
            thread.join(TIMEOUT_S)


async def test_urllib_fetches_by_name_over_tls(web: Web) -> None:
    policy = Policy("allow", (HOST,), (f"{HOST}:{web.port}",))
    async with opened(policy, {HOST: "127.0.0.2"}) as sandbox:
        got = await sandbox.python(
            f"""
            import ssl, urllib.request
            context = ssl.create_default_context(cadata={web.ca.read_text()!r})
            say(urllib.request.urlopen({web.url!r}, timeout=20, context=context).read().decode())
            """
        )
    assert got == [HELLO]


@pytest.mark.needs("node")
async def test_node_fetches_by_name_over_tls_and_hears_that_others_do_not_exist(web: Web) -> None:
    policy = Policy("allow", (HOST,), (f"{HOST}:{web.port}",))
    script = f"""
        fetch({web.url!r}).then(r => r.text()).then(console.log)
            .then(() => fetch("https://example.com/")).catch(e => console.log(e.cause.code))
        """
    async with opened(policy, {HOST: "127.0.0.2"}) as sandbox:
        got = await run(sandbox.fd, policy, (node(), "-e", script), env={"NODE_EXTRA_CA_CERTS": str(web.ca)})
    assert got.splitlines() == [HELLO, "ENOTFOUND"]


async def test_behind_a_proxy_names_are_the_proxys_and_what_the_operator_lists_is_not() -> None:
    async with greeter("127.0.0.1") as port, greeter() as listed:
        with proxying(to=port) as (proxy, asked):
            environ = {"HTTPS_PROXY": f"http://user:p%40ss@127.0.0.1:{proxy}"}
            policy = Policy(allow_private=(f"127.0.0.2:{listed}",))
            hosts = {"known.test": "93.184.216.35", "inner.test": "10.1.2.3"}
            async with opened(policy, hosts, environ=environ) as sandbox:
                got = await sandbox.python(
                    f"""
                    say(try_tcp("only.the.proxy.knows.test", 443), try_tcp("93.184.216.34", 80),
                        try_tcp("127.0.0.2", {listed}), try_tcp("10.1.2.3", 80),
                        try_tcp(socket.gethostbyname("known.test"), 443), try_tcp("inner.test", 443))
                    """
                )
    assert got == [HELLO, HELLO, HELLO, "ECONNRESET", HELLO, HELLO]
    assert asked == ["only.the.proxy.knows.test:443", "93.184.216.34:80", "known.test:443", "inner.test:443"]


async def test_where_the_resolver_is_silent_behind_a_proxy_it_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controlplane.egress.outside.PROXIED_RESOLVE_LIMIT_S", 0.05)
    asked_for: list[str] = []

    async def silent(host: str, *_rest: Any, **_options: Any) -> list[Any]:
        asked_for.append(host)
        await trio.sleep_forever()
        return []

    async with greeter("127.0.0.1") as port:
        with proxying(to=port) as (proxy, asked):
            async with opened(Policy(), resolver=silent, environ={"HTTPS_PROXY": f"127.0.0.1:{proxy}"}) as sandbox:
                got = await sandbox.python('say(*(try_tcp(socket.gethostbyname("far.test"), 443) for _ in range(3)))')
    assert (got, asked, asked_for) == ([HELLO] * 3, ["far.test:443"] * 3, ["far.test"])


async def test_a_proxy_that_refuses_or_cannot_be_used_is_a_reset() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(9999)
        await stream.send_all(b"HTTP/1.1 407 Who are you?\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, refuse, listeners)
        port = listeners[0].socket.getsockname()[1]
        for proxy in (f"http://127.0.0.1:{port}", f"socks5://127.0.0.1:{port}"):
            async with opened(Policy(), environ={"HTTPS_PROXY": proxy}) as sandbox:
                assert await sandbox.python('say(try_tcp("93.184.216.34", 443))') == ["ECONNRESET"]
        nursery.cancel_scope.cancel()
