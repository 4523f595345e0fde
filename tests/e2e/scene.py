"""A control plane with somebody to attack: another owner's instance, and things of the host's that are in reach of some."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from attrs import define, field

from controlplane.spawn.confinement import LEVELS
from tests import servers
from tests.e2e import container
from tests.e2e.plane import below, deployment, text_of
from tests.spawn.children import PYTHON

if TYPE_CHECKING:
    import httpx

    from tests.e2e.plane import Plane

ANSWER = b"here\n"
SECRET = "what-nobody-else-may-read"


@define(kw_only=True)
class Scene:
    """Whom and what there is to attack. Pids and paths are as the attackers would see them, were nothing hidden."""

    running: Plane
    client: httpx.Client
    levels: dict[str, Any] = field(factory=dict)
    """Why a level is not to be had here; None where it is."""
    other: int = 0
    other_home: Path = Path()
    own_home: Path = Path()
    plane: int = 0
    spawner: int = 0
    gate: int = 0
    postgres: int = 0
    segment: int = 0
    """Id of a System V segment of Postgres's."""
    loopback_port: int = 0
    udp_port: int = 0
    private_address: str = ""
    private_port: int = 0
    abstract: str = ""
    open_socket: Path = Path()
    closed_socket: Path = Path()
    public_file: Path = Path()
    tmp_file: Path = Path()
    shm_file: Path = Path()
    word: str = field(factory=lambda: f"corral-escape-{secrets.token_hex(4)}")

    @property
    def plane_home(self) -> Path:
        return self.running.home

    @property
    def plane_port(self) -> int:
        return int(self.running.url.rpartition(":")[2])

    @property
    def postgres_socket(self) -> Path:
        return self.plane_home / "run/postgres/.s.PGSQL.5432"

    @property
    def redis_socket(self) -> Path:
        return self.plane_home / "run/valkey/valkey.sock"

    def attempt(self, level: str, what: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Have the attacker at a level try something."""
        params = {"name": "attempt", "arguments": {"what": what, **arguments}}
        answer = self.client.post(f"/mcp/{level}/execute", json={"method": "tools/call", "params": params})
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = json.loads(text_of(answer))
        return said


def _serve(server: socket.socket, answer: bytes) -> None:
    """Answer everybody, until the socket is closed."""
    with suppress(OSError):
        while True:
            if server.type == socket.SOCK_DGRAM:
                _, sender = server.recvfrom(64)
                if sender is None:  # it was shut down
                    return
                server.sendto(answer, sender)
                continue
            client, _ = server.accept()
            with client, suppress(OSError):
                client.recv(64)
                client.sendall(answer)


@contextmanager
def _serving(server: socket.socket) -> Iterator[socket.socket]:
    if server.type == socket.SOCK_STREAM:
        server.listen()
    thread = threading.Thread(target=_serve, args=(server, ANSWER), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        server.close()
        thread.join(5)


def _bound(family: int, kind: int, address: Any) -> socket.socket:
    server = socket.socket(family, kind)
    server.bind(address)
    return server


def _private_address() -> str:
    """Of this host, and not loopback; where it has no such, one that is no less its own."""
    found = (address.address for addresses in psutil.net_if_addrs().values() for address in addresses)
    for text in found:
        with suppress(ValueError):
            address = ipaddress.ip_address(text)
            if address.version == 4 and address.is_private and not address.is_loopback and not address.is_link_local:
                return text
    return "127.0.0.2"


@contextmanager
def set_up(plane: Plane, *, contained: bool = False) -> Iterator[Scene]:
    """The instances and what else there is, in a control plane that has just started, in a container or not."""
    scene = Scene(running=plane, client=plane.client())
    with ExitStack() as stack:
        _offer_sockets(scene, stack)
        _leave_files(scene, stack, plane.folder if contained else None)
        _deploy(scene)
        _find_processes(scene, container.process_in(plane) if contained else None)
        yield scene


def _offer_sockets(scene: Scene, stack: ExitStack) -> None:
    folder = scene.running.folder

    def serve(family: int, kind: int, address: Any) -> socket.socket:
        return stack.enter_context(_serving(_bound(family, kind, address)))

    scene.loopback_port = serve(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)).getsockname()[1]
    scene.udp_port = serve(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)).getsockname()[1]
    scene.private_address = _private_address()
    scene.private_port = serve(socket.AF_INET, socket.SOCK_STREAM, (scene.private_address, 0)).getsockname()[1]
    scene.abstract = scene.word
    serve(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{scene.abstract}")
    scene.open_socket, scene.closed_socket = folder / "open.sock", folder / "closed.sock"
    roots = 0o660 if os.geteuid() == 0 else 0  # where it cannot be root's, it is nobody's
    for path, mode in ((scene.open_socket, 0o666), (scene.closed_socket, roots)):
        serve(socket.AF_UNIX, socket.SOCK_STREAM, str(path))
        path.chmod(mode)


def _leave_files(scene: Scene, stack: ExitStack, shared: Path | None) -> None:
    scene.public_file = scene.running.folder / "public"
    scene.tmp_file, scene.shm_file = Path("/tmp", scene.word), Path("/dev/shm", scene.word)
    tmp, shm = (Path("/tmp"), Path("/dev/shm")) if shared is None else (shared / "tmp", shared / "shm")
    for path in (scene.public_file, tmp / scene.word, shm / scene.word):
        path.write_text("x")
        path.chmod(0o644)
        stack.callback(path.unlink, missing_ok=True)


def _deploy(scene: Scene) -> None:
    """The other's instance at the weakest level, so that only the attacker's own level holds; one attacker for each."""
    plane = scene.running
    assert plane.request("POST", "/users", json={"name": "other", "role": "deployer"}).status_code == 201
    made = plane.request("POST", "/tokens", json={"name": "other", "owner": "other", "role": "deployer"})
    assert made.status_code == 201, made.text
    command = {"command": PYTHON, "args": ["-c", servers.source("escapee.py").decode()]}
    others = plane.client(made.json()["token"])
    body = deployment("other", mcp_config={**command, "env": {"SECRET": SECRET}}, isolation="process")
    answer = others.post("/api/v2/deploy?wait=60", json=body)
    assert answer.status_code == 201, answer.text
    said = others.post("/mcp/other/execute", json={"method": "tools/call", "params": {"name": "own", "arguments": {}}})
    own = json.loads(text_of(said))
    scene.other, scene.other_home = own["pid"], Path(own["home"])
    diary = scene.other_home / "diary"
    diary.write_text(SECRET)
    diary.chmod(0o600)
    os.chown(diary, own["uid"], own["uid"])
    for level in LEVELS:
        answer = plane.request(
            "POST", "/api/v2/deploy?wait=60", json=deployment(level, mcp_config=command, isolation=level)
        )
        scene.levels[level] = None if answer.status_code == 201 else answer.text


def _find_processes(scene: Scene, contained: int | None) -> None:
    plane = contained or scene.running.pid
    lines = {process.pid: Path(f"/proc/{process.pid}/cmdline").read_bytes() for process in below(plane)}

    def first(word: bytes) -> int:
        return next(pid for pid, line in sorted(lines.items()) if word in line)

    postgres = first(b"bin/postgres\0-D")
    scene.plane, scene.postgres = _inside(plane), _inside(postgres)
    scene.spawner, scene.gate = _inside(first(b"spawner.py")), _inside(first(b"controlplane.egress"))
    rows = [line.split() for line in _segments(contained).splitlines()[1:]]
    scene.segment = next(int(row[1]) for row in rows if int(row[4]) == postgres)
    scene.own_home = scene.other_home


def _inside(pid: int) -> int:
    """A process's number where it is at home: in its container, or here."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE)[0])


def _segments(contained: int | None) -> str:
    """System V segments of this host, or of the container that a process is in."""
    if contained is None:
        return Path("/proc/sysvipc/shm").read_text()
    command = ["nsenter", "--target", str(contained), "--ipc", "cat", "/proc/sysvipc/shm"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
