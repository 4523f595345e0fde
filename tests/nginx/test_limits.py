"""What one address may do; and that who is beyond it is told so as by Corral itself."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import wait_until
from tests.nginx.front import ANSWER_LIMIT_S, Front, assert_problem
from tests.nginx.upstream import PATIENCE_S, Taken, Upstream, answer

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

pytestmark = pytest.mark.needs("nginx")

MIB = 2**20
BELIEVE_LOOPBACK = "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;"
"""As behind another load balancer: so that a test can come from any address."""


def refused(answers: list[httpx.Response]) -> list[httpx.Response]:
    return [each for each in answers if each.status_code != 200]


def test_fifty_requests_at_once_pass_and_then_ten_a_second(front: Front) -> None:
    client = front.client()
    answers = [client.get("/instances") for _ in range(50)]
    assert refused(answers) == []

    over = refused([client.get("/instances") for _ in range(200)])

    assert over  # a busy machine sends no 250 within 20 s only when it is hung
    document = assert_problem(over[0], 429, "rate_limited")
    assert document["type"] == "/problems/rate_limited"
    assert over[0].headers["retry-after"] == "1"


def test_ten_deploys_pass_in_a_row_and_the_next_is_told_to_come_in_a_minute(front: Front, upstream: Upstream) -> None:
    paths = [
        "/api/v2/deploy",
        "/deploy",
        "/instances/mine/redeploy",
        "/instances/me/mine/redeploy?wait=1",
        "/%64eploy",
    ] * 2
    client = front.client()
    assert refused([client.post(path, json={}) for path in paths]) == []

    for path in paths[:5]:
        over = client.post(path, json={})
        document = assert_problem(over, 429, "rate_limited")
        assert over.headers["retry-after"] == "60"
        assert "ten times at once" in document["detail"]
    assert len(upstream.taken) == 10
    assert client.get("/instances").status_code == 200, "the other limits are others"
    assert client.post("/mcp/mine/execute", json={}).status_code == 200


def test_calls_are_left_to_the_limits_of_corral(front: Front) -> None:
    client = front.client()

    assert refused([client.post("/mcp/mine/execute", json={}) for _ in range(200)]) == []


def test_a_flood_of_calls_from_one_address_is_stopped(front: Front) -> None:
    request = b"POST /mcp/mine/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    seen = threading.Event()

    def flood() -> None:
        with socket.create_connection(("127.0.0.1", front.port), PATIENCE_S) as sock:
            sock.settimeout(PATIENCE_S)
            for _ in range(1000):
                if seen.is_set():
                    return
                sock.sendall(request * 20)
                if b" 429 " in sock.recv(2**20):
                    seen.set()

    floods = [threading.Thread(target=flood, daemon=True) for _ in range(8)]
    for each in floods:
        each.start()
    for each in floods:
        each.join(PATIENCE_S)

    assert seen.is_set() or max(_rates(front)) < 1000, "more than 1,000 a second passed"


def _rates(front: Front) -> list[int]:
    """Calls in each second of the log."""
    seconds = [line.split('"', 4)[3] for line in front.log_text.splitlines()]
    return [seconds.count(each) for each in set(seconds)]


def test_one_address_may_have_500_requests_open(fronts: Callable[..., Front]) -> None:
    release = threading.Event()

    def hold(taken: Taken, sock: socket.socket) -> bool:
        release.wait(PATIENCE_S)
        return answer(taken, sock)

    upstream = Upstream(hold)
    try:
        front = fronts([upstream.port])
        socks = []
        for number in range(500):
            sock = socket.create_connection(("127.0.0.1", front.port), PATIENCE_S)
            socks.append(sock)
            sock.sendall(b"GET /mcp/%d/stream HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
        wait_taken(upstream, 500)

        over = front.get("/mcp/one/stream")

        document = assert_problem(over, 429, "rate_limited")
        assert "500 requests open" in document["detail"]
        assert over.headers["retry-after"] == "10"
        for sock in socks:
            sock.close()
    finally:
        release.set()
        upstream.close()


def test_an_ipv6_network_counts_as_one_address(fronts: Callable[..., Front], upstream: Upstream) -> None:
    front = fronts([upstream.port], BELIEVE_LOOPBACK)

    def deploys(address: str) -> int:
        answers = [front.post("/deploy", json={}, headers={"X-Forwarded-For": address}) for _ in range(6)]
        return sum(each.status_code == 200 for each in answers)

    assert (deploys("2001:db8:1:2::1"), deploys("2001:db8:1:2:ffff::2")) == (6, 4)
    assert deploys("2001:db8:1:3::1") == 6
    assert (deploys("198.51.100.1"), deploys("198.51.100.2")) == (6, 6)


def test_100_mib_pass_as_they_come_and_more_is_refused_before_it_is_sent(front: Front, upstream: Upstream) -> None:
    exact = front.post("/deploy", content=bytes(100 * MIB))
    assert exact.status_code == 200
    assert exact.json()["body_bytes"] == 100 * MIB

    # Only the head: the refusal must not wait for the body.
    head = b"POST /deploy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (101 * MIB)
    with socket.create_connection(("127.0.0.1", front.port), ANSWER_LIMIT_S) as sock:
        sock.sendall(head)
        assert sock.recv(12) == b"HTTP/1.1 413"

    over = front.post("/deploy", content=bytes(101 * MIB))
    document = assert_problem(over, 413, "payload_too_large")
    assert document["type"] == "/problems/payload_too_large"
    assert len(upstream.taken) == 1


def test_an_upload_without_a_length_is_cut_where_it_passes_the_limit(front: Front, upstream: Upstream) -> None:
    def chunks(mib: int) -> list[bytes]:
        return [bytes(MIB)] * mib

    assert front.post("/deploy", content=iter(chunks(100))).json()["body_bytes"] == 100 * MIB
    with socket.create_connection(("127.0.0.1", front.port), ANSWER_LIMIT_S) as sock:
        sock.sendall(b"POST /deploy HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for chunk in chunks(120):
                sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        except OSError:
            pass
        status = sock.recv(12)

    assert status == b"HTTP/1.1 413"
    assert len(upstream.taken) == 1


def test_a_call_may_have_6_mib(front: Front) -> None:
    assert front.post("/mcp/mine", content=bytes(6 * MIB)).json()["body_bytes"] == 6 * MIB
    assert_problem(front.post("/mcp/mine", content=bytes(6 * MIB + 1)), 413, "payload_too_large")


def test_an_upload_reaches_corral_while_it_is_still_being_sent(fronts: Callable[..., Front]) -> None:
    begun = threading.Event()

    def begin(_head: bytes, _sock: socket.socket) -> bool:
        begun.set()
        return True

    upstream = Upstream(begin=begin)
    try:
        front = fronts([upstream.port])
        with socket.create_connection(("127.0.0.1", front.port), ANSWER_LIMIT_S) as sock:
            sock.sendall(b"POST /deploy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nthe beginning")
            assert begun.wait(PATIENCE_S)
    finally:
        upstream.close()


@pytest.mark.parametrize(
    ("limit", "begun"),
    [
        ("client_header_timeout 10s", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow"),
        ("client_body_timeout 30s", b"POST /mcp/mine HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nslow"),
    ],
)
def test_a_client_that_does_not_go_on_is_cut(upstream: Upstream, limit: str, begun: bytes) -> None:
    front = Front([upstream.port])
    name, _, _given = limit.partition(" ")
    limits = front.files / "limits.conf"
    text = limits.read_text()
    assert f"{limit};" in text
    limits.write_text(text.replace(f"{limit};", f"{name} 100ms;"))
    try:
        assert b" 200 " not in front.start().raw(begun), "returns once the connection is closed"
        assert upstream.taken == []
    finally:
        front.close()


def wait_taken(upstream: Upstream, number: int) -> None:
    wait_until(lambda: len(upstream.taken) == number, PATIENCE_S, f"{number} requests arrived")
