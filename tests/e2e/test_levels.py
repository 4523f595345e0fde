"""Real servers at every isolation level: they come, answer, are killed, replaced and stopped, and nothing is left.

The control plane runs as root, with a user for each instance, and as an ordinary user, who is also that of all instances.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import frozen

from controlplane.spawn import bubblewrap
from controlplane.spawn.confinement import LEVELS
from controlplane.spawn.uids import open_uid_pool
from tests import servers
from tests.e2e.plane import STRONGEST, below, deployment, open_plane, text_of, wait_until
from tests.needs import met, skip_unless

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane, Process

START_S = 180
"""Most of it download, on a slow line."""
HELD_BY_GROUPS = ("memory_mb", "cpu_percent", "processes")


@frozen(kw_only=True)
class Ground:
    """A control plane, whose it is, and a folder below which it allows mounts."""

    plane: Plane
    user: str
    shared: Path

    def deploy(self, name: str, level: str, **body: Any) -> dict[str, Any]:
        """Deploy the inmate at a level; it must come to run there."""
        self.need(level)
        self.plane.deploy(name, servers.source("inmate.py"), isolation=level, **body)
        found = self.plane.instance(name)
        assert found["isolation"] == level
        return found

    def need(self, level: str) -> None:
        """Skip where this machine cannot give a level, which is no fault of Corral's."""
        if level == "confined":
            skip_unless("landlock")
        if level == "namespaced":
            skip_unless("bubblewrap", "user_namespaces")

    def remove(self, name: str) -> None:
        assert self.plane.request("DELETE", f"/instances/{name}").status_code == 200

    def refused(self, **body: Any) -> dict[str, Any]:
        """The problem that a deploy is answered with."""
        answer = self.plane.request("POST", "/api/v2/deploy?wait=60", json={"source_type": "mcp_config", **body})
        assert answer.status_code == 422, answer.text
        problem: dict[str, Any] = answer.json()
        return problem

    def log(self, name: str) -> str:
        return self.plane.corral("logs", name).stdout


@pytest.fixture(scope="module", params=["root", "plain_user"])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    user: str = request.param
    if user == "root":
        skip_unless("root")
    elif met("root"):
        skip_unless("mount_namespaces")
    with ExitStack() as stack:
        shared = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corral-shared-", dir="/var/tmp")))
        shared.chmod(0o755)
        uid = None
        if user == "plain_user" and met("root"):
            uid = stack.enter_context(open_uid_pool()).claim()
        opened = stack.enter_context(open_plane(uid=uid, ALLOWED_MOUNTS=str(shared), **STRONGEST))
        yield Ground(plane=opened.start(), user=user, shared=shared)


def processes_of(plane: Plane, pid: int) -> list[Process]:
    """An instance's process and all below it."""
    return [process for process in below(plane.pid) if process.pid == pid] + below(pid)


def groups_of(instance_id: str) -> list[str]:
    """Its control groups, wherever they are."""
    return [
        os.path.join(folder, name)
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith(f"{instance_id}.")
    ]


def assert_gone(plane: Plane, instance_id: str, processes: list[Process]) -> None:
    """Neither a process nor a control group is left of it."""
    wait_until(lambda: not any(process.is_live for process in processes), 10, f"the end of {processes}")
    wait_until(lambda: not groups_of(instance_id), 10, f"the end of the groups of {instance_id}")
    plane.assert_no_orphans()


def post(plane: Plane, name: str, what: str) -> dict[str, Any]:
    """Restart, redeploy or stop, and wait for it."""
    answer = plane.request("POST", f"/instances/{name}/{what}?wait=50", json={})
    assert answer.status_code in (200, 201), answer.text
    document: dict[str, Any] = answer.json()
    return document


# -- a life at each level

REGISTRY: list[tuple[str, list[str], tuple[str, dict[str, Any], str]]] = [
    ("memory", ["npx", "-y", "@modelcontextprotocol/server-memory"], ("read_graph", {}, "entities")),
    (
        "filesystem",
        ["npx", "-y", "@modelcontextprotocol/server-filesystem", "/tmp/allowed"],
        ("list_allowed_directories", {}, "/tmp/allowed"),
    ),
    ("time", ["uvx", "mcp-server-time"], ("get_current_time", {"timezone": "Europe/Berlin"}, "Europe/Berlin")),
]
"""(name, command, (tool, arguments, a word of its answer))"""


@pytest.mark.network
@pytest.mark.needs("node")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("server", "command", "asked"), REGISTRY, ids=[r[0] for r in REGISTRY])
def test_a_server_from_a_registry_lives_its_whole_life_at_each_level(
    ground: Ground, level: str, server: str, command: list[str], asked: tuple[str, dict[str, Any], str]
) -> None:
    ground.need(level)
    plane, name = ground.plane, f"{server}-{level}"

    def answers() -> None:
        tool, given, words = asked
        assert words in plane.tool(name, tool, **given)

    config = {"command": command[0], "args": command[1:]}
    body = deployment(name, mcp_config=config, isolation=level)
    assert plane.request("POST", "/api/v2/deploy?wait=0", json=body).is_success
    plane.wait_status(name, "running", START_S)
    first = plane.instance(name)
    assert (first["isolation"], first["status"]) == (level, "running")
    answers()

    seen = processes_of(plane, first["pid"])
    post(plane, name, "restart")
    answers()
    restarted = plane.instance(name)
    assert restarted["pid"] != first["pid"]

    seen += processes_of(plane, restarted["pid"])
    os.kill(restarted["pid"], signal.SIGKILL)
    wait_until(lambda: plane.instance(name)["restarts"] > restarted["restarts"], 60, "the restart")
    again = plane.wait_status(name, "running")
    answers()
    assert again["pid"] not in (first["pid"], restarted["pid"])
    wait_until(lambda: not any(process.is_live for process in seen), 10, "the end of what was killed")

    seen += processes_of(plane, again["pid"])
    post(plane, name, "redeploy")
    answers()
    redeployed = plane.instance(name)
    assert (redeployed["revision"], redeployed["isolation"]) == (2, level)

    seen += processes_of(plane, redeployed["pid"])
    post(plane, name, "stop")
    assert_gone(plane, first["instance_id"], seen)
    ground.remove(name)


@pytest.mark.parametrize("level", LEVELS)
def test_all_of_a_family_ends_when_the_shown_process_is_killed(ground: Ground, level: str) -> None:
    plane, name = ground.plane, f"family-{level}"
    first = ground.deploy(name, level)
    assert plane.tool(name, "fork", n=4) == "4"
    family = wait_until(lambda: _of_at_least(processes_of(plane, first["pid"]), 5), 10, "the family")

    os.kill(first["pid"], signal.SIGKILL)

    wait_until(lambda: plane.instance(name)["restarts"] == 1, 60, "the restart")
    now = plane.wait_status(name, "running")
    wait_until(lambda: not any(process.is_live for process in family), 10, "the end of the family")
    assert now["last_error"]["signal"] == "SIGKILL"
    ground.remove(name)
    assert_gone(plane, first["instance_id"], family)


def _of_at_least(processes: list[Process], number: int) -> list[Process] | None:
    return processes if len(processes) >= number else None


@pytest.mark.parametrize("level", LEVELS)
def test_a_server_that_is_stopped_is_asked_first_and_may_say_farewell(ground: Ground, level: str) -> None:
    name = f"polite-{level}"
    ground.deploy(name, level)
    post(ground.plane, name, "stop")
    wait_until(lambda: "farewell" in ground.log(name), 20, "its farewell")
    ground.remove(name)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("tool", "given", "evidence"),
    [
        ("exit", {"status": 3}, {"exit_code": 3, "signal": None}),
        ("kill", {"signal": signal.SIGSEGV}, {"exit_code": None, "signal": "SIGSEGV"}),
        ("kill", {"signal": signal.SIGKILL}, {"exit_code": None, "signal": "SIGKILL"}),
    ],
    ids=["exit 3", "SIGSEGV", "SIGKILL"],
)
def test_a_post_mortem_tells_the_programs_own_end(
    ground: Ground, level: str, tool: str, given: dict[str, Any], evidence: dict[str, Any]
) -> None:
    name = f"mortal-{level}-{tool}-{given.get('status', given.get('signal'))}"
    ground.deploy(name, level)
    answer = ground.plane.execute(name, "tools/call", {"name": tool, "arguments": given})
    assert answer.status_code == 502, answer.text
    assert {key: answer.json().get(key) for key in evidence} == evidence
    told = wait_until(lambda: ground.plane.instance(name)["last_error"], 20, "its post-mortem")
    assert {key: told.get(key) for key in evidence} == evidence
    ground.remove(name)


@pytest.mark.parametrize("level", LEVELS)
def test_a_command_that_is_not_there_is_a_failed_spawn_that_names_it(ground: Ground, level: str) -> None:
    ground.need(level)
    name = f"missing-{level}"
    body = {"name": name, "source_type": "mcp_config", "mcp_config": {"command": "no-such-command"}, "isolation": level}
    ground.plane.request("POST", "/api/v2/deploy?wait=30", json=body)
    told = wait_until(lambda: ground.plane.instance(name)["last_error"], 20, "the failure")
    assert told["code"] == "spawn_failed"
    assert "no-such-command" in told["reason"]
    ground.remove(name)


@pytest.mark.parametrize("level", LEVELS)
def test_a_program_that_stands_still_while_a_call_waits_is_noticed_and_replaced(ground: Ground, level: str) -> None:
    name = f"still-{level}"
    first = ground.deploy(name, level)
    answer = ground.plane.execute(name, "tools/call", {"name": "kill", "arguments": {"signal": signal.SIGSTOP}})
    assert answer.status_code == 502, answer.text
    wait_until(lambda: ground.plane.instance(name)["restarts"] == 1, 60, "the restart")
    now = ground.plane.wait_status(name, "running")
    assert "stopped by a signal" in now["last_error"]["reason"]
    assert now["pid"] != first["pid"]
    assert ground.plane.tool(name, "pid")
    ground.remove(name)


@pytest.mark.parametrize("level", LEVELS)
def test_what_an_instance_keeps_in_its_home_and_tmp_is_there_after_a_restart(ground: Ground, level: str) -> None:
    plane, name = ground.plane, f"keeper-{level}"
    ground.deploy(name, level)
    places = {"home": f"{plane.home}/instances/{plane.instance(name)['instance_id']}/home/kept", "tmp": "/tmp/kept"}
    for what, path in places.items():
        assert plane.tool(name, "write", path=path, text=what) == str(len(what))
    post(plane, name, "restart")
    for what, path in places.items():
        assert plane.tool(name, "read", path=path) == what
    assert not Path("/tmp/kept").exists()
    ground.remove(name)


# -- levels that cannot be had


def test_auto_is_the_strongest_that_the_host_gives(ground: Ground) -> None:
    ground.need("namespaced")
    ground.plane.deploy("automatic", servers.source("inmate.py"))
    assert ground.plane.instance("automatic")["isolation"] == "namespaced"
    ground.remove("automatic")


# -- mounts


@pytest.fixture
def shelf(ground: Ground, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that everybody may write to, where mounts are allowed, with a note."""
    folder = Path(tempfile.mkdtemp(dir=ground.shared))
    folder.chmod(0o777)
    (folder / "note").write_text("read me")
    (folder / "note").chmod(0o666)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("level", ["confined", "namespaced"])
@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_a_mount_is_seen_and_written_to_only_where_that_was_asked_for(
    ground: Ground, shelf: Path, level: str, mode: str
) -> None:
    name = f"mounted-{level}-{mode}"
    target = str(shelf) if level == "confined" else "/data/shelf"
    mounts = [{"source": str(shelf), "target": target, "mode": mode}]
    found = ground.deploy(name, level, mounts=mounts)
    assert found["mounts"] == mounts
    assert ground.plane.tool(name, "read", path=f"{target}/note") == "read me"
    written = ground.plane.tool(name, "write", path=f"{target}/new", text="moo")
    changed = ground.plane.tool(name, "write", path=f"{target}/note", text="changed")
    if mode == "rw":
        assert (written, changed) == ("3", "7")
        assert (shelf / "new").read_text() == "moo"
    else:
        assert written.startswith("refused: ")
        assert changed.startswith("refused: ")
        assert (shelf / "note").read_text() == "read me"
    ground.remove(name)


@pytest.mark.parametrize("level", ["confined", "namespaced"])
def test_a_link_within_the_operators_folder_is_mounted_as_what_it_leads_to(
    ground: Ground, shelf: Path, level: str
) -> None:
    name, link = f"led-on-{level}", shelf.parent / f"{shelf.name}-link"
    link.symlink_to(shelf.name)
    target = str(link) if level == "confined" else "/data"
    ground.deploy(name, level, mounts=[{"source": str(link), "target": target, "mode": "rw"}])
    seen = str(shelf) if level == "confined" else target
    assert ground.plane.tool(name, "read", path=f"{seen}/note") == "read me"
    assert ground.plane.tool(name, "write", path=f"{seen}/new", text="moo") == "3"
    ground.remove(name)
    link.unlink()


@pytest.mark.parametrize("level", ["confined", "namespaced"])
def test_what_is_not_mounted_is_not_seen(ground: Ground, shelf: Path, level: str) -> None:
    name = f"unmounted-{level}"
    ground.deploy(name, level)
    assert ground.plane.tool(name, "read", path=str(shelf / "note")).startswith("refused: ")
    ground.remove(name)


@pytest.mark.parametrize("level", ["confined", "namespaced"])
def test_a_link_that_leads_out_of_the_operators_folder_is_refused_at_the_start(
    ground: Ground, shelf: Path, level: str
) -> None:
    ground.need(level)
    name, link = f"led-out-{level}", shelf / "link"
    link.symlink_to("/etc")
    mounts = [{"source": str(link), "target": str(link)}]
    body = deployment(name, servers.source("inmate.py"), mounts=mounts, isolation=level)
    ground.plane.request("POST", "/api/v2/deploy?wait=30", json=body)
    told = wait_until(lambda: ground.plane.instance(name)["last_error"], 20, "the failure")
    assert "outside ALLOWED_MOUNTS" in told["reason"]
    assert ground.plane.instance(name)["pid"] is None
    ground.remove(name)


@pytest.mark.parametrize("level", ["confined", "namespaced"])
def test_a_mount_that_becomes_a_link_while_its_instance_runs_is_not_followed_when_that_starts_again(
    ground: Ground, shelf: Path, level: str
) -> None:
    ground.need(level)
    name, mounted, elsewhere = f"swapped-{level}", shelf / "mounted", Path(tempfile.mkdtemp(dir=ground.plane.folder))
    mounted.mkdir(mode=0o755)
    (mounted / "note").write_text("mine")
    elsewhere.chmod(0o755)
    (elsewhere / "note").write_text("somebody's")
    target = str(mounted) if level == "confined" else "/data"
    ground.deploy(name, level, mounts=[{"source": str(mounted), "target": target}])
    assert ground.plane.tool(name, "read", path=f"{target}/note") == "mine"
    mounted.rename(shelf / "before")
    mounted.symlink_to(elsewhere)
    ground.plane.execute(name, "tools/call", {"name": "kill", "arguments": {"signal": signal.SIGKILL}})
    told = wait_until(lambda: failure(ground.plane.instance(name), "cannot be shown"), 30, "the refusal")
    assert str(mounted) in told
    ground.remove(name)


def failure(instance: dict[str, Any], words: str) -> str | None:
    reason = (instance["last_error"] or {}).get("reason", "")
    return reason if words in reason else None


@pytest.mark.parametrize("level", ["confined", "namespaced"])
def test_a_place_of_the_host_that_is_hidden_is_refused_with_a_word_on_mounts(
    ground: Ground, shelf: Path, level: str
) -> None:
    ground.need(level)
    problem = ground.refused(
        name="blind",
        mcp_config={"command": "npx", "args": ["-y", "server", str(shelf)], "cwd": "/root/work"},
        isolation=level,
    )
    assert [error["pointer"] for error in problem["errors"]] == ["/mcp_config/cwd", "/mcp_config/args/2"]
    assert "mounts" in problem["hint"]


# -- the network

OUTSIDE = {"host": "registry.npmjs.org", "port": 443}


@pytest.mark.parametrize("level", ["confined", "namespaced"])
def test_without_a_network_nothing_is_reached(ground: Ground, level: str) -> None:
    name = f"alone-{level}"
    ground.deploy(name, level, network={"mode": "none"})
    port = int(ground.plane.url.rpartition(":")[2])
    assert ground.plane.tool(name, "connect", host="127.0.0.1", port=port).startswith("refused: ")
    assert ground.plane.tool(name, "connect", **OUTSIDE).startswith("refused: ")
    ground.remove(name)


def test_only_hosts_that_are_listed_are_reached_and_the_log_says_which_was_not(ground: Ground) -> None:
    name = "picky"
    ground.deploy(name, "namespaced", network={"mode": "allow", "hosts": ["registry.npmjs.org"]})
    assert ground.plane.tool(name, "connect", host="example.com", port=443).startswith("refused: ")
    wait_until(lambda: "example.com" in ground.log(name), 20, "the refusal in its log")
    assert "network.hosts" in ground.log(name)
    ground.remove(name)


@pytest.mark.network
@pytest.mark.parametrize("network", [{"mode": "allow", "hosts": ["registry.npmjs.org"]}, {"mode": "open"}])
def test_a_host_that_is_allowed_is_reached(ground: Ground, network: dict[str, Any]) -> None:
    name = f"outgoing-{network['mode']}"
    ground.deploy(name, "namespaced", network=network)
    assert ground.plane.tool(name, "connect", **OUTSIDE) == "connected"
    ground.remove(name)


def test_nothing_of_the_hosts_own_loopback_is_reached_from_namespaces(ground: Ground) -> None:
    name = "own-loopback"
    ground.deploy(name, "namespaced")
    port = int(ground.plane.url.rpartition(":")[2])
    assert ground.plane.tool(name, "connect", host="127.0.0.1", port=port).startswith("refused: ")
    ground.remove(name)


# -- limits


@pytest.mark.parametrize("level", LEVELS)
def test_each_limit_says_who_holds_it(ground: Ground, level: str) -> None:
    name = f"limited-{level}"
    found = ground.deploy(name, level)
    held = {found["enforcement"][limit] for limit in HELD_BY_GROUPS}
    if ground.user == "root":
        skip_unless("cgroups")
        assert held == {"hard"}
        assert groups_of(found["instance_id"])
    elif met("root"):  # nobody has handed groups to that user
        assert held == {"soft"}
        assert not groups_of(found["instance_id"])
    seen = processes_of(ground.plane, found["pid"])
    ground.remove(name)
    assert_gone(ground.plane, found["instance_id"], seen)


# -- two processes of one instance


@pytest.mark.parametrize("level", LEVELS)
def test_processes_of_one_instance_share_its_home_and_tmp(ground: Ground, level: str) -> None:
    plane, name = ground.plane, f"shared-{level}"
    ground.deploy(name, level, sessions="per-session")
    with plane.client() as http:
        sessions = [_session(http, name) for _ in range(2)]
        assert _tool(http, name, sessions[0], "write", path="/tmp/word", text="moo") == "3"
        assert _tool(http, name, sessions[1], "read", path="/tmp/word") == "moo"
    ground.remove(name)


HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}


def _session(http: Any, name: str) -> str:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    answer = http.post(f"/mcp/{name}", json=body, headers=HEADERS)
    assert answer.status_code == 200, answer.text
    session: str = answer.headers["mcp-session-id"]
    http.post(
        f"/mcp/{name}",
        json={"jsonrpc": "2.0", "method": "notifications/initialized"},
        headers=HEADERS | {"Mcp-Session-Id": session},
    )
    return session


def _tool(http: Any, name: str, session: str, tool: str, **arguments: Any) -> str:
    body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    answer = http.post(f"/mcp/{name}", json=body, headers=HEADERS | {"Mcp-Session-Id": session})
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        data = next(line[5:] for line in answer.text.splitlines() if line.startswith("data:") and "result" in line)
        return str(json.loads(data)["result"]["content"][0]["text"])
    return text_of(answer)


# -- levels that the host cannot give

WITHOUT_BUBBLEWRAP = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0"; exec "$@"')
"""In a mount namespace of its own, where bubblewrap is nothing that could be run."""


@pytest.mark.needs("root", "mount_namespaces", "bubblewrap", "landlock")
def test_a_level_that_the_host_cannot_give_is_refused_and_auto_is_the_next_one() -> None:
    bwrap = bubblewrap.find()
    assert bwrap is not None
    settings = STRONGEST | {"MIN_ISOLATION": "confined"}
    with open_plane(launched_by=lambda _: (*WITHOUT_BUBBLEWRAP, bwrap), **settings) as plane:
        plane.start()
        for level, words in (
            ("namespaced", "this host cannot give namespaced: bubblewrap is not installed"),
            ("process", "the operator demands at least confined"),
        ):
            body = deployment("refused", servers.source("inmate.py"), isolation=level)
            answer = plane.request("POST", "/api/v2/deploy?wait=60", json=body)
            assert answer.status_code == 422, answer.text
            (error,) = answer.json()["errors"]
            assert error["pointer"] == "/isolation"
            assert words in error["message"]
            assert "corral doctor" in answer.json()["hint"]
        plane.deploy("automatic", servers.source("inmate.py"))
        assert plane.instance("automatic")["isolation"] == "confined"
        assert plane.tool("automatic", "pid")


# -- the control plane dies


@pytest.mark.needs("root", "bubblewrap", "landlock", "cgroups")
@pytest.mark.parametrize("together", ["control plane", "control plane and spawner"])
def test_nothing_outlives_a_control_plane_at_any_level_and_groups_are_made_anew(together: str) -> None:
    with open_plane(**STRONGEST) as plane:
        plane.start()
        ids = []
        for level in LEVELS:
            plane.deploy(f"at-{level}", servers.source("inmate.py"), isolation=level)
            assert plane.tool(f"at-{level}", "fork", n=4) == "4"
            ids.append(plane.instance(f"at-{level}")["instance_id"])
        groups = {path: Path(path).stat().st_ino for one in ids for path in groups_of(one)}
        assert groups

        spawner = next(process for process in below(plane.pid) if plane.owner_id in command_line(process.pid))
        descendants = below(plane.pid)
        if together != "control plane":
            os.kill(plane.pid, signal.SIGSTOP)  # it must not notice
            os.kill(spawner.pid, signal.SIGKILL)
        plane.send(signal.SIGKILL)
        plane.wait()
        if together == "control plane":
            plane.wait_gone(descendants)
            assert not any(groups_of(one) for one in ids), "the spawner has removed them"
        else:
            assert any(groups_of(one) for one in ids), "nobody was there to remove them"

        plane.start()
        assert not any(process.is_live for process in descendants)
        for level in LEVELS:
            plane.wait_status(f"at-{level}", "running")
            assert plane.tool(f"at-{level}", "pid")
        now = {path: Path(path).stat().st_ino for one in ids for path in groups_of(one)}
        assert set(now) == set(groups)
        assert all(now[path] != groups[path] for path in groups)
        assert plane.stop() == 0
        assert not any(groups_of(one) for one in ids)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""
