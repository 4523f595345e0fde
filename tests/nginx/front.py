"""A real nginx with the files of `nginx/`, as a plain user, on ports and in a folder of its own.

Only what cannot be the same for two at once is changed: where the control planes are, the ports, and `/tmp`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from attrs import define, field

from tests.e2e.plane import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "nginx"
USER = 65534 if os.geteuid() == 0 else None
"""`nobody`, as no file here is for root."""
START_LIMIT_S = 30
END_LIMIT_S = 30
ANSWER_LIMIT_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@define(eq=False)
class Front:
    """One nginx. `servers` are the ports of its control planes; `local` becomes a file of the operator's own."""

    servers: Sequence[int]
    local: str = ""
    folder: Path = field(init=False)
    port: int = field(factory=free_port, init=False)
    tls_port: int = field(factory=free_port, init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _clients: list[httpx.Client] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="corral-nginx-", dir="/var/tmp"))
        shutil.copytree(SOURCE, self.files)
        (self.folder / "tmp").mkdir()
        self.point_at(self.servers)
        (self.files / "local").mkdir(exist_ok=True)
        (self.files / "local" / "test.conf").write_text(self.local)
        for path in self.files.rglob("*.conf*"):
            self._change(path)
        if USER is not None:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, USER, USER)

    def _change(self, path: Path) -> None:
        text = path.read_text().replace("/tmp/", f"{self.folder}/tmp/").replace("/var/www/acme", f"{self.folder}/acme")
        text = text.replace("listen 8080 ", f"listen 127.0.0.1:{self.port} ")
        path.write_text(text.replace("listen 8443 ", f"listen 127.0.0.1:{self.tls_port} "))

    def point_at(self, ports: Sequence[int]) -> None:
        """Write `servers.conf`, as an operator does."""
        shipped = (SOURCE / "servers.conf").read_text()
        line = re.search(r"^server \S+( .*;)$", shipped, re.MULTILINE)
        assert line is not None, shipped
        text = "".join(f"server 127.0.0.1:{port}{line[1]}\n" for port in ports)
        (self.files / "servers.conf").write_text(text)

    @property
    def files(self) -> Path:
        return self.folder / "nginx"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"https://localhost:{self.tls_port}"

    # -- its life

    @property
    def argv(self) -> list[str]:
        return ["nginx", "-e", "stderr", "-c", str(self.files / "nginx.conf")]

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        """nginx with these arguments, to its end: `-t`, `-T`, `-s reload`."""
        with self._file("said.out").open("w+") as out, self._file("said.err").open("w+") as errors:
            done = subprocess.run(
                [*self.argv, *more],
                stdout=out,
                stderr=errors,
                check=False,
                timeout=START_LIMIT_S,
                user=USER,
                group=USER,
            )
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), errors.read())

    def _file(self, name: str) -> Path:
        """One that nginx can open by way of /dev/stdout, which it could not do with a pipe of root's."""
        path = self.folder / name
        path.touch()
        if USER is not None:
            os.chown(path, USER, USER)
        return path

    def start(
        self,
        argv: Sequence[str] | None = None,
        env: dict[str, str] | None = None,
        until: Callable[[], bool] | None = None,
    ) -> Front:
        """Start it, or what starts it, and wait until it takes connections, or for something else."""
        with self._file("access.log").open("ab") as stdout, self._file("error.log").open("ab") as stderr:
            self.process = subprocess.Popen(
                argv or [*self.argv, "-g", "daemon off;"],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd="/",
                env=env,
                user=USER,
                group=USER,
                extra_groups=[] if USER is not None else None,
            )
        wait_until(until or self.is_up, START_LIMIT_S, "nginx takes connections")
        return self

    def is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.errors
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self) -> None:
        """End it, by its own pid, and remove what it had."""
        for client in self._clients:
            client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(END_LIMIT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what it says

    @property
    def errors(self) -> str:
        return (self.folder / "error.log").read_text(errors="replace")

    @property
    def log_text(self) -> str:
        return (self.folder / "access.log").read_text()

    def log(self, request_id: str) -> dict[str, Any]:
        """The line of one request, which nginx writes after the answer's last byte."""

        def found() -> dict[str, Any] | None:
            lines = [json.loads(line) for line in self.log_text.splitlines() if line.endswith("}")]
            return next((line for line in lines if line["request_id"] == request_id), None)

        line: dict[str, Any] = wait_until(found, ANSWER_LIMIT_S, f"a line of the log about {request_id}")
        return line

    # -- asking it

    def client(self, **options: Any) -> httpx.Client:
        client = httpx.Client(base_url=self.url, timeout=ANSWER_LIMIT_S, **options)
        self._clients.append(client)
        return client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=ANSWER_LIMIT_S, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=ANSWER_LIMIT_S, **options)

    def raw(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own, and return everything that comes until its end."""
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_LIMIT_S) as sock:
            sock.sendall(request)
            received = b""
            with suppress(ConnectionResetError):  # what nginx has not read is no matter
                while data := sock.recv(65536):
                    received += data
            return received


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """An answer of nginx's own must look like Corral's; returns the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document.keys() == {"type", "title", "status", "detail", "code", "request_id", "hint"}
    assert (document["status"], document["code"]) == (status, code)
    assert document["request_id"] == answer.headers["x-request-id"]
    assert all(document.values())
    for name, value in {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    }.items():
        assert answer.headers[name] == value
    assert ("retry-after" in answer.headers) == (status in {429, 502, 503, 504})
    return document
