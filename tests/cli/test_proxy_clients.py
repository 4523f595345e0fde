"""`corral proxy` between the official client, over stdio, and real servers, over HTTP, in both eras."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mcp_types as types
import pytest
import trio
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from tests import servers
from tests.cli.fake_api import TOKEN
from tests.cli.stdio_proxy import HANDSHAKE, Proxy
from tests.cli.terminal import COMMAND, ROOT
from tests.e2e.plane import plane, planes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane

__all__ = ["plane", "planes"]

PEER = Path(__file__).with_name("sdk_peer.py")
START_LIMIT_S = 30
LIMIT_S = 40
ERAS = {"legacy": "2025-11-25", "auto": "2026-07-28"}
"""How a client connects, and what comes of it with a server of both eras."""


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    """The conformance server over the official SDK's HTTP transport; the address that `CORRAL_URL` would name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([sys.executable, str(PEER), str(port)]) as process:
        trio.run(_reachable, port)
        yield f"http://127.0.0.1:{port}"
        process.kill()


async def _reachable(port: int) -> None:
    with trio.fail_after(START_LIMIT_S):
        while True:
            with contextlib.suppress(OSError):
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                return
            await trio.sleep(0.05)


@contextlib.asynccontextmanager
async def connected(url: str, mode: str, token: str = TOKEN, instance: str = "memory", **callbacks: Any) -> Any:
    """The official client, with the proxy as its server."""
    variables = {"CORRAL_URL": url, "CORRAL_TOKEN": token, "PYTHONPATH": str(ROOT)}
    command, *arguments = [*COMMAND, "proxy", instance]
    server = StdioServerParameters(command=command, args=arguments, env=variables)
    with trio.fail_after(LIMIT_S):
        async with Client(server, mode=mode, **callbacks) as client:
            yield client


def text(answer: Any) -> str:
    return answer.content[0].text


async def elicited(_context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.org", "name": "ada"})


async def sampled(_context: Any, params: Any) -> types.CreateMessageResult:
    content = types.TextContent(type="text", text="a thought")
    return types.CreateMessageResult(role="assistant", content=content, model="m")


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_of_either_era_uses_tools_resources_and_prompts(peer, mode):
    async with connected(peer, mode) as client:
        assert client.protocol_version == ERAS[mode]
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "test_simple_text" in names
        assert text(await client.call_tool("test_simple_text", {})).startswith("This is a simple text")
        assert (await client.call_tool("test_error_handling", {})).is_error
        contents = (await client.read_resource("test://static-text")).contents
        assert contents[0].uri == "test://static-text"
        prompt = await client.get_prompt("test_prompt_with_arguments", {"arg1": "one", "arg2": "two"})
        assert "one" in prompt.messages[0].content.text
        with pytest.raises(MCPError):
            await client.read_resource("test://none")


@pytest.mark.parametrize("mode", ERAS)
async def test_progress_and_logs_come_while_a_call_runs(peer, mode):
    progress, logs = [], []

    async def on_progress(value: float, total: float | None, _message: str | None) -> None:
        progress.append((value, total))

    async def on_log(params: Any) -> None:
        logs.append(params.data)

    async with connected(peer, mode, logging_callback=on_log, log_level="debug") as client:
        await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)
        assert progress == [(0, 100), (50, 100), (100, 100)]
        await client.call_tool("test_tool_with_logging", {})
        assert len(logs) == 3


@pytest.mark.parametrize("mode", ERAS)
async def test_the_server_may_ask_the_client(peer, mode):
    async with connected(peer, mode, elicitation_callback=elicited, sampling_callback=sampled) as client:
        assert "ada" in text(await client.call_tool("test_elicitation", {"message": "who?"}))
        assert "a thought" in text(await client.call_tool("test_sampling", {"prompt": "think"}))


@pytest.mark.parametrize("mode", ERAS)
async def test_calls_run_side_by_side_and_answers_find_their_way(peer, mode):
    async with connected(peer, mode) as client:
        answers: dict[int, str] = {}

        async def call(number: int) -> None:
            prompt = await client.get_prompt("test_prompt_with_arguments", {"arg1": f"n{number}", "arg2": "x"})
            answers[number] = prompt.messages[0].content.text

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(call, number)
        assert all(f"n{number}" in answers[number].replace("'", " ") for number in range(20))


async def test_a_marked_argument_is_repeated_in_a_field_for_a_client_that_knows_none(peer):
    async with connected(peer, "auto") as client:
        tools = (await client.list_tools()).tools
        marked = next(tool for tool in tools if "x-mcp-header" in str(tool.input_schema))
        properties = marked.input_schema["properties"]
        arguments = {
            name: {"string": "eu", "integer": 1, "boolean": True}.get(of["type"], 1) for name, of in properties.items()
        }
        assert not (await client.call_tool(marked.name, arguments)).is_error


async def test_a_legacy_client_hears_of_changes_by_the_stream_it_need_not_know_of(peer):
    heard = trio.Event()

    async def on_message(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            heard.set()

    async with connected(peer, "legacy", message_handler=on_message) as client:
        await client.call_tool("test_trigger_tool_change", {})
        await heard.wait()


async def heard_of_change(client: Client) -> bool:
    """Whether a listener is told of a change that a tool makes."""
    async with client.listen(tools_list_changed=True) as subscription:
        await client.call_tool("test_trigger_tool_change", {})
        async for event in subscription:
            return type(event).__name__ == "ToolsListChanged"
    return False


async def test_a_modern_client_hears_of_changes_that_it_listens_for(peer):
    async with connected(peer, "auto") as client:
        assert await heard_of_change(client)
        assert text(await client.call_tool("test_simple_text", {}))


# --- through Corral


@pytest.fixture(scope="module")
def through(plane: Plane) -> Iterator[Callable[[str], str]]:
    """Deploys the conformance server of an era as `memory`; gives the control plane's address."""
    deployed: list[str] = []

    def deploy(era: str) -> str:
        if deployed != [era]:
            if deployed:
                plane.corral("rm", "memory")
            plane.deploy("memory", mcp_config=servers.conformance(era))
            deployed[:] = [era]
        return plane.url

    yield deploy
    plane.corral("rm", "memory")


@pytest.mark.network
@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("era", ["dual", "legacy", "modern"])
async def test_a_client_of_either_era_uses_a_server_of_any_through_corral(plane, through, era, mode):
    progress, url = [], through(era)

    async def on_progress(value: float, _total: float | None, _message: str | None) -> None:
        progress.append(value)

    callbacks = {"elicitation_callback": elicited, "sampling_callback": sampled}
    async with connected(url, mode, plane.token, **callbacks) as client:
        assert client.protocol_version == ERAS[mode]
        assert "test_simple_text" in {tool.name for tool in (await client.list_tools()).tools}
        assert text(await client.call_tool("test_simple_text", {})).startswith("This is a simple text")
        await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)
        assert progress == [0, 50, 100]
        assert "ada" in text(await client.call_tool("test_elicitation", {"message": "who?"}))
        assert "a thought" in text(await client.call_tool("test_sampling", {"prompt": "think"}))
        assert (await client.read_resource("test://static-text")).contents[0].uri == "test://static-text"
        assert mode == "legacy" or await heard_of_change(client)


@pytest.mark.network
async def test_a_session_outlives_a_restart_of_the_instance(plane, through):
    async with connected(through("dual"), "legacy", plane.token) as client:
        assert text(await client.call_tool("test_simple_text", {}))
        assert plane.corral("restart", "memory").returncode == 0
        assert text(await client.call_tool("test_simple_text", {}))


async def test_a_client_outlives_the_control_plane_and_is_told_while_it_is_away(planes):
    plane = planes()
    plane.deploy("memory")
    async with connected(plane.url, "legacy", plane.token) as client:
        assert text(await client.call_tool("echo", {"text": "before"})) == "before"
        await trio.to_thread.run_sync(plane.stop)
        with pytest.raises(MCPError, match=r"Cannot connect to .* Start it with `corral up`"):
            await client.call_tool("echo", {"text": "while"})
        await trio.to_thread.run_sync(plane.start)
        await trio.to_thread.run_sync(plane.wait_status, "memory", "running")
        assert text(await client.call_tool("echo", {"text": "after"})) == "after"


COUNTS_CANCELLATIONS = b"""
import json, sys
cancelled = 0
for line in sys.stdin:
    message = json.loads(line)
    method, result = message.get("method"), None
    if method == "notifications/cancelled":
        cancelled += 1
    elif method == "initialize":
        info = {"name": "counts", "version": "1"}
        version = message["params"]["protocolVersion"]
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "tools/list":
        result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("wait", "count")]}
    elif method == "tools/call" and message["params"]["name"] == "count":
        result = {"content": [{"type": "text", "text": str(cancelled)}]}
    elif method == "tools/call":
        params = {"progressToken": message["params"]["_meta"]["progressToken"], "progress": 1}
        print(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}), flush=True)
    elif "id" in message:
        error = {"code": -32601, "message": "unknown"}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}), flush=True)
    if result is not None:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@pytest.mark.parametrize("mode", ERAS)
async def test_a_cancellation_reaches_the_server_whichever_way_the_era_has_for_it(plane, mode):
    name = f"counts-{mode}"
    plane.deploy(name, COUNTS_CANCELLATIONS)
    async with connected(plane.url, mode, plane.token, name) as client:
        with trio.CancelScope() as patience:

            async def on_progress(*_: Any) -> None:
                patience.cancel()

            await client.call_tool("wait", {}, progress_callback=on_progress)
        assert patience.cancelled_caught
        while text(await client.call_tool("count", {})) != "1":
            await trio.sleep(0.01)
    plane.corral("rm", name)


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "1999-01-01"])
def test_a_client_of_any_legacy_version_gets_that_version(plane, version):
    plane.deploy("echo")
    try:
        with Proxy(plane.url, plane.token, "echo") as proxy:
            answer = proxy.ask("initialize", HANDSHAKE | {"protocolVersion": version}, 0)
            negotiated = answer["result"]["protocolVersion"]
            assert negotiated == (version if version != "1999-01-01" else "2025-11-25")
            proxy.send("notifications/initialized")
            assert "echo" in {tool["name"] for tool in proxy.ask("tools/list")["result"]["tools"]}
            if version == "2025-03-26":
                proxy.write(b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]')
                found = [proxy.message()]
                found = found[0] if isinstance(found[0], list) else [*found, proxy.message()]
                assert sorted(answer["id"] for answer in found) == [1, 2]
            proxy.close_input()
            assert proxy.end() == (0, "")
    finally:
        plane.corral("rm", "echo")
