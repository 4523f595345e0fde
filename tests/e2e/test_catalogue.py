"""What an instance offers is known while it cannot be asked, and to the next life of the control plane."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from tests import servers
from tests.e2e.plane import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.plane import Plane

LISTER = servers.source("lister.py")
KNOWN_S = 20.0


def tools(plane: Plane, name: str) -> list[str]:
    return [tool["name"] for tool in plane.get(f"/instances/{name}/tools")["tools"]]


def kept(plane: Plane, name: str) -> list[str]:
    """The tools that the catalogue has, without asking the server."""
    return [tool["name"] for tool in plane.instance(name)["tools"]]


def test_lists_are_known_without_a_call_and_follow_what_the_server_announces(plane: Plane) -> None:
    plane.deploy("lister", LISTER)
    wait_until(lambda: kept(plane, "lister") == ["grow", "asked", "hold"], KNOWN_S, "the tools")
    plane.tool("lister", "grow")
    wait_until(lambda: kept(plane, "lister")[-1] == "new0", KNOWN_S, "the new tool")

    prompts = plane.get("/instances/lister/prompts")
    assert prompts == {"prompts": [{"name": "greet"}], "stale": False}
    resources = plane.get("/instances/lister/resources")
    assert [resource["name"] for resource in resources["resources"]] == ["a", "b", "c"]
    assert [template["name"] for template in resources["resource_templates"]] == ["any"]
    assert resources["stale"] is False


def test_lists_are_answered_while_a_killed_server_starts_again(plane: Plane) -> None:
    plane.deploy("victim", LISTER)
    before = tools(plane, "victim")
    plane.get("/instances/victim/prompts")
    plane.tool("victim", "hold")  # the next process will never be done with its handshake
    plane.execute("victim", "tools/call", {"name": "kill"})
    plane.wait_status("victim", "starting")

    assert tools(plane, "victim") == before == ["grow", "asked", "hold"]
    for section in ("tools", "prompts", "resources"):
        assert plane.get(f"/instances/victim/{section}")["stale"] is True
    assert plane.get("/instances/victim/prompts")["prompts"] == [{"name": "greet"}]


def test_lists_survive_the_control_plane(planes: Callable[..., Plane]) -> None:
    plane = planes()
    plane.deploy("lister", LISTER)
    plane.tool("lister", "grow")
    expected = ["grow", "asked", "hold", "new0"]
    wait_until(lambda: kept(plane, "lister") == expected, KNOWN_S, "the new tool")
    plane.tool("lister", "hold")  # the next process will never be done with its handshake
    assert plane.stop(signal.SIGTERM) == 0  # all is written
    for _ in range(2):
        plane.start()
        found: dict[str, Any] = plane.get("/instances/lister/tools")
        assert [tool["name"] for tool in found["tools"]] == expected
        assert found["stale"] is True
        assert plane.get("/instances/lister/prompts") == {"prompts": [{"name": "greet"}], "stale": True}
        assert plane.instance("lister")["status"] != "running"
        plane.kill()
    plane.start()
