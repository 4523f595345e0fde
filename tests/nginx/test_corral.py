"""A real control plane behind a real nginx: everything works through it as it does without."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trio
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from tests import servers
from tests.e2e.plane import Plane, deployment, open_plane, text_of, wait_until
from tests.nginx.front import ANSWER_LIMIT_S, Front, assert_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

pytestmark = pytest.mark.needs("nginx")

MIB = 2**20


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    """A control plane that believes nginx, with an instance `echo`."""
    with open_plane(TRUSTED_PROXIES="127.0.0.1") as opened:
        opened.start().deploy("echo")
        yield opened


@pytest.fixture
def front(fronts: Callable[..., Front], plane: Plane) -> Front:
    return fronts([int(plane.url.rpartition(":")[2])])


@pytest.fixture
def asking(front: Front, plane: Plane) -> httpx.Client:
    """A client with a token."""
    return front.client(headers={"Authorization": f"Bearer {plane.token}"})


def echo(asking: httpx.Client, text: str, name: str = "echo") -> httpx.Response:
    call = {"method": "tools/call", "params": {"name": "echo", "arguments": {"text": text}}}
    return asking.post(f"/mcp/{name}/execute", json=call)


def test_a_deploy_its_calls_and_its_end(asking: httpx.Client) -> None:
    assert asking.post("/api/v2/deploy?wait=60", json=deployment("through")).status_code == 201
    assert text_of(echo(asking, "hello", "through")) == "hello"
    assert asking.get("/docs").headers["content-security-policy"].count("script-src 'sha256-") == 1
    assert asking.delete("/instances/through").status_code == 200


def test_events_come_at_once(front: Front, plane: Plane, asking: httpx.Client) -> None:
    for path in ("/events", "/mcp/echo/stream"):
        with asking.stream("GET", path) as stream:
            lines = stream.iter_lines()
            assert any("connected" in line for line in lines)
            plane.tool("echo", "spam", lines=1)
            plane.request("POST", "/instances/echo/restart")
            assert any('"restart' in line or '"status"' in line for line in lines)
    plane.wait_status("echo", "running")


def test_the_phases_of_a_deploy_are_told_as_they_come(asking: httpx.Client) -> None:
    with asking.stream("POST", "/deploy", json=deployment("told"), headers={"Accept": "text/event-stream"}) as stream:
        pieces = list(stream.iter_raw())
    asking.delete("/instances/told")

    assert len(pieces) > 1, "held back, they would have come as one"


def test_a_stream_goes_on_where_it_broke_off(asking: httpx.Client, plane: Plane) -> None:
    with asking.stream("GET", "/events") as stream:
        ids = (line.removeprefix("id:").strip() for line in stream.iter_lines() if line.startswith("id:"))
        plane.deploy("passing")
        seen = next(ids)
    plane.request("DELETE", "/instances/passing")

    with asking.stream("GET", "/events", headers={"Last-Event-ID": seen}) as stream:
        assert any('"deleted"' in line for line in stream.iter_lines())


@pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")  # its HTTP library leaves them
@pytest.mark.parametrize("kind", ["modern", "legacy", "sse"])
async def test_an_mcp_client_calls_and_is_told_of_progress(front: Front, plane: Plane, kind: str) -> None:
    steps: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    with trio.fail_after(ANSWER_LIMIT_S):
        async with AsyncExitStack() as stack:
            headers = {"Authorization": f"Bearer {plane.token}"}
            url = f"{front.url}/mcp/echo"
            if kind == "sse":
                transport: Any = sse_client(f"{url}/sse", headers=headers)
            else:
                http = httpx2.AsyncClient(headers=headers, timeout=ANSWER_LIMIT_S, trust_env=False)
                await stack.enter_async_context(http)
                transport = streamable_http_client(url, http_client=http)
            mode = "auto" if kind == "modern" else "legacy"
            client = await stack.enter_async_context(Client(transport, mode=mode))
            assert "echo" in [tool.name for tool in (await client.list_tools()).tools]
            result = await client.call_tool("progress", {"steps": 3}, progress_callback=on_progress)

    assert result.content[0].text == "finished"  # type: ignore[union-attr]
    assert steps == [1, 2, 3]


def archive(size: int) -> bytes:
    """A tar of the echo server and a file that fills it up to about this size."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in (("server.py", servers.source("echo.py")), ("filling", bytes(size))):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def upload(asking: httpx.Client, name: str, content: bytes) -> httpx.Response:
    spec = {"name": name, "source_type": "tar", "language": "python", "entry_point": "server.py"}
    parts = {"spec": (None, json.dumps(spec).encode(), "application/json")}
    parts |= {"source": ("a.tar", content, "application/x-tar")}  # type: ignore[dict-item]
    return asking.post("/api/v2/deploy?wait=60", files=parts)


def test_an_archive_of_almost_100_mib_is_deployed_and_a_larger_one_refused(asking: httpx.Client) -> None:
    taken = upload(asking, "large", archive(99 * MIB))
    assert taken.status_code == 201, taken.text
    assert text_of(echo(asking, "of 99 MiB", "large")) == "of 99 MiB"
    asking.delete("/instances/large")

    assert_problem(upload(asking, "larger", archive(101 * MIB)), 413, "payload_too_large")


def test_calls_never_leave_the_hot_lane_whatever_else_goes_on(asking: httpx.Client, plane: Plane) -> None:
    before = plane.metric("corral_http_hot_requests_total")
    for number in range(40):
        assert text_of(echo(asking, f"{number}")) == f"{number}"
        others = (
            asking.get("/instances/echo"),
            asking.get("/mcp/echo/stream", headers={"Accept": "application/json"}),
            asking.post("/mcp/echo/execute", json={"method": "tools/list"}, headers={"Origin": "http://localhost"}),
            asking.post("/mcp/echo/execute", json={"method": "tools/list"}, headers={"Accept": "text/event-stream"}),
        )
        assert all(other.status_code in {200, 406, 429} for other in others), [o.status_code for o in others]

    assert plane.metric("corral_http_hot_requests_total") - before == 40


def test_problems_of_corral_are_its_own_and_carry_the_id_that_nginx_logged(front: Front, asking: httpx.Client) -> None:
    answer = asking.get("/instances/nobody")

    assert answer.json()["code"] == "not_found"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    line = front.log(answer.headers["x-request-id"])
    assert (line["status"], line["upstream_status"]) == (404, "404")


def test_a_host_that_is_not_served_is_refused_by_corral(asking: httpx.Client) -> None:
    answer = asking.get("/instances", headers={"Host": "evil.example"})

    assert (answer.status_code, answer.json()["code"]) == (421, "host_rejected")


def test_wrong_tokens_count_for_the_address_that_nginx_saw(front: Front) -> None:
    def guess(number: int) -> int:
        headers = {"Authorization": f"Bearer wrong-{number}", "X-Forwarded-For": f"203.0.113.{number}"}
        return front.post("/mcp/echo/execute", json={"method": "ping"}, headers=headers).status_code

    statuses = [guess(number) for number in range(40)]

    assert statuses[:30] == [401] * 30
    assert 429 in statuses[30:]


def test_a_control_plane_that_was_killed_is_missed_only_while_it_is_away(
    fronts: Callable[..., Front], planes: Callable[..., Plane]
) -> None:
    plane = planes(TRUSTED_PROXIES="127.0.0.1")
    plane.deploy("echo")
    front = fronts([int(plane.url.rpartition(":")[2])])
    asking = front.client(headers={"Authorization": f"Bearer {plane.token}"})
    assert text_of(echo(asking, "before")) == "before"

    plane.kill()
    assert_problem(echo(asking, "meanwhile"), 502, "bad_gateway")
    plane.start()

    wait_until(lambda: echo(asking, "after").status_code == 200, ANSWER_LIMIT_S, "calls go through again")
