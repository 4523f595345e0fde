"""A real control plane, run by a test as a person would: its own home, its own port, embedded Postgres and Valkey.

`planes` is a fixture that makes any number of them, for tests that kill; `plane` is one shared by a module, for
tests that leave it as it was. Each is ended by its own pid, and its end is checked: no process that carries its
owner id, and none that was below it, may be left, and its log may hold no traceback.

Below /var/tmp and not in pytest's folder: instances run as other users and must be able to get to their files.
"""

from __future__ import annotations

import atexit
import base64
import functools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from attrs import define, field, frozen

from tests import servers
from tests.plain_user import launcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
START_LIMIT_S = 60
"""From exec to /readyz; measured 1.6 s for the first start, 0.9 s for the next."""
END_LIMIT_S = 30
"""For the process to end; its own bound is 10 s."""
GONE_LIMIT_S = 20
"""For every process below a dead one to end; the spawner's own bound is 2 s."""
ANSWER_LIMIT_S = 60
POLL_S = 0.01
SERVES_AT = re.compile(r"serves at (http://\S+)")
QUIET = {"RATE_LIMIT_RPS": "0", "DEPLOYS_PER_MINUTE": "100000", "MAX_INSTANCES_PER_USER": "1000"}
"""Tests deploy and call faster than people do."""


def wait_until(condition: Callable[[], Any], within_s: float, what: str) -> Any:
    """Poll until the condition holds, and return what it returned.

    Raises:
        AssertionError: not within the bound.
    """
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(POLL_S)
    return value


@frozen
class Process:
    """A process by pid and start time, as a pid alone may be somebody else's a moment later."""

    pid: int
    start_ticks: int
    ppid: int
    command: str

    @property
    def is_live(self) -> bool:
        now = look(self.pid)
        return now is not None and now.start_ticks == self.start_ticks


def look(pid: int) -> Process | None:
    """A live process; None for none and for a zombie."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return None
    fields = rest.split()
    if fields[0] in "ZX" and fields[17] == "1":
        return None
    return Process(pid, int(fields[19]), int(fields[1]), name.partition("(")[2])


def everybody() -> dict[int, Process]:
    """Every live process of the host."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def below(pid: int) -> list[Process]:
    """The live descendants of a process."""
    children: dict[int, list[Process]] = {}
    for process in everybody().values():
        children.setdefault(process.ppid, []).append(process)
    found: list[Process] = []
    todo = [pid]
    while todo:
        mine = children.get(todo.pop(), [])
        found += mine
        todo += [process.pid for process in mine]
    return found


def marked(owner_id: str) -> list[Process]:
    """The live processes that say they belong to one home: by their environment, or (the spawner) their arguments."""
    variable, word = f"CORRAL_OWNER={owner_id}\0".encode(), owner_id.encode()

    def is_marked(process: Process) -> bool:
        return variable in _bytes(process.pid, "environ") + b"\0" or word in _bytes(process.pid, "cmdline")

    return [process for process in everybody().values() if is_marked(process)]


def _bytes(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    """Whether this process lives; a zombie does not."""
    return look(pid) is not None


@define(eq=False)
class Plane:
    """One control plane and its home; `start`, `kill` and `stop` as often as wanted."""

    folder: Path
    settings: Mapping[str, str]
    launcher: tuple[str, ...] = ()
    """What stands before its command, and becomes it; it makes the control plane another user's."""
    passed_fds: tuple[int, ...] = ()
    """Descriptors that its command gets, under the same numbers."""
    token: str = field(factory=lambda: secrets.token_urlsafe(32))
    url: str = field(default="", init=False)
    """Empty before the first start; the port stays the same from then on."""
    ready_after_s: float = field(default=0.0, init=False)
    """How long the last start took to /readyz."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _clients: list[httpx.Client] = field(factory=list, init=False)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def owner_id(self) -> str:
        return (self.home / "owner-id").read_text().strip()

    @property
    def log(self) -> str:
        """What it wrote on standard output and error in all its lives."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def environment(self) -> dict[str, str]:
        """Of the control plane and of the command line; nothing of the test's own settings gets through."""
        ground = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        port = self.url.rpartition(":")[2] or "0"
        mine = {
            "HOST": "127.0.0.1",
            "PORT": port,
            "CORRAL_HOME": str(self.home),
            "ADMIN_TOKEN": self.token,
            "PYTHONPATH": str(ROOT),  # this checkout, whatever is installed
            "AUTO_ISOLATION": "process",  # most servers here are files of this checkout, which other levels hide
        }
        return ground | mine | QUIET | dict(self.settings)

    # -- lives

    def begin(self) -> subprocess.Popen[bytes]:
        """Start it without waiting for anything."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        self._process = self.launch()
        return self._process

    def launch(self, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        """Run the control plane's program on this home; the process is the caller's."""
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(
                [*self.launcher, sys.executable, "-m", "controlplane", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment | settings,
                cwd=self.folder,  # no .env here
                start_new_session=True,  # a Ctrl-C at the tests is not one at it
                pass_fds=self.passed_fds,
            )

    def replace(self) -> None:
        """Have a new one take over, and wait until it serves and the old one has ended in order."""
        before, old = len(self.log), self._process
        assert old is not None
        new = self.launch("--replace")

        def serves() -> bool:
            assert new.poll() is None, f"it ended with {new.returncode}:\n{self.log[before:]}"
            return SERVES_AT.search(self.log, before) is not None

        try:
            wait_until(serves, START_LIMIT_S, "the new control plane serves")
        except AssertionError:
            new.kill()
            new.wait()
            raise
        self._process = new
        assert old.wait(END_LIMIT_S) == 0, self.log[before:]

    def start(self) -> Plane:
        """Start it and wait for /readyz."""
        before, began = len(self.log), time.monotonic()
        process = self.begin()

        def is_ready() -> bool:
            assert process.poll() is None, f"it ended with {process.returncode}:\n{self.log[-3000:]}"
            found = SERVES_AT.search(self.log, before)
            if found is None:
                return False
            self.url = found[1]
            return httpx.get(f"{self.url}/readyz", timeout=ANSWER_LIMIT_S).status_code == 200

        wait_until(is_ready, START_LIMIT_S, "/readyz")
        self.ready_after_s = time.monotonic() - began
        return self

    def send(self, number: int) -> None:
        """Signal the control plane's process, and no other."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, within_s: float = END_LIMIT_S) -> int:
        """Wait for its end and return the exit status."""
        assert self._process is not None
        return self._process.wait(within_s)

    def kill(self) -> float:
        """SIGKILL it; returns the seconds until nothing that was below it lives."""
        descendants = below(self.pid)
        self.send(signal.SIGKILL)
        self.wait()
        began = time.monotonic()
        self.wait_gone(descendants)
        return time.monotonic() - began

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, wait for its end, check that nothing is left, and return the exit status."""
        descendants = below(self.pid)
        self.send(number)
        status = self.wait()
        self.wait_gone(descendants)
        return status

    def wait_gone(self, descendants: list[Process]) -> None:
        """Wait until none of these lives, and nothing that carries the owner id."""

        def nothing_is_left() -> bool:
            return not [p for p in descendants if p.is_live] and not marked(self.owner_id)

        try:
            wait_until(nothing_is_left, GONE_LIMIT_S, "the end of every process")
        except AssertionError:
            left = {p for p in [*descendants, *marked(self.owner_id)] if p.is_live}
            for process in left:
                os.kill(process.pid, signal.SIGKILL)
            raise AssertionError(f"these outlived their control plane: {left}") from None

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """The end of the test: stop it if it runs, and check that nothing is left of it."""
        for client in self._clients:
            client.close()
        try:
            if self.is_running():
                status = self.stop()
                assert status == 0, f"it ended with {status}:\n{self.log[-3000:]}"
            if (self.home / "owner-id").exists():
                self.wait_gone([])
            assert "Traceback" not in self.log, self.log[-6000:]
        finally:
            if self.is_running():
                self.send(signal.SIGKILL)
                self.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- its API

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """A client of its own; closed with the plane."""
        client = httpx.Client(**self._options(token, options))
        self._clients.append(client)
        return client

    def aclient(self, token: str | None = None, **options: Any) -> httpx.AsyncClient:
        """The same for Trio; the caller's to close (`async with`)."""
        return httpx.AsyncClient(**self._options(token, options))

    def _options(self, token: str | None, options: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return {"base_url": self.url, "headers": headers, "timeout": ANSWER_LIMIT_S, "trust_env": False} | options

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request on a connection of its own: no pooled one that a killed server has left half open."""
        with httpx.Client(**self._options(None, {})) as client:
            return client.request(method, path, **options)

    def get(self, path: str, **options: Any) -> Any:
        """The JSON document at a path, which must be there."""
        answer = self.request("GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def deploy(self, name: str, source: bytes | None = None, *, wait: float = 60, **body: Any) -> dict[str, Any]:
        """Deploy a Python file (the echo server unless another is given); it must come to run."""
        answer = self.request("POST", f"/api/v2/deploy?wait={wait:g}", json=deployment(name, source, **body))
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def execute(self, name: str, method: str, params: Any = None, **options: Any) -> httpx.Response:
        """One call, whatever comes of it."""
        body = {"method": method} | ({} if params is None else {"params": params}) | options
        return self.request("POST", f"/mcp/{name}/execute", json=body)

    def tool(self, name: str, tool: str, **arguments: Any) -> str:
        """Call a tool of the echo server, which must answer; returns its text."""
        answer = self.execute(name, "tools/call", {"name": tool, "arguments": arguments})
        assert answer.status_code == 200, answer.text
        return text_of(answer)

    def instance(self, name: str) -> dict[str, Any]:
        return self.get(f"/instances/{name}")

    def instances(self) -> list[dict[str, Any]]:
        """All of them; more than one page."""
        found: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self.get("/instances", params={"limit": 500} | ({"cursor": cursor} if cursor else {}))
            found += page["instances"]
            cursor = page["next_cursor"]
        return found

    def wait_status(self, name: str, status: str, within_s: float = 60) -> dict[str, Any]:
        """Wait until an instance has a status; returns it."""

        def has_it() -> dict[str, Any] | None:
            found = self.instance(name)
            return found if found["status"] == status else None

        found: dict[str, Any] = wait_until(has_it, within_s, f"{name} {status}")
        return found

    def corral(self, *arguments: str, within_s: float = 60) -> subprocess.CompletedProcess[str]:
        """The command line, against this control plane."""
        return subprocess.run(
            [sys.executable, "-m", "controlplane.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=within_s,
            env=self.environment | {"CORRAL_URL": self.url, "CORRAL_TOKEN": self.token, "COLUMNS": "200"},
            cwd=self.folder,
            check=False,
        )

    # -- what it says about itself

    def metric(self, name: str) -> float:
        """One figure of /metrics, without labels."""
        answer = self.request("GET", "/metrics")
        found = re.search(rf"^{name} (\S+)$", answer.text, re.MULTILINE)
        assert found is not None, f"/metrics has no {name}"
        return float(found[1])

    def orphans(self) -> dict[str, int]:
        """What /stats, /metrics and `corral doctor` say."""
        checks = json.loads(self.corral("doctor", "--json").stdout)["checks"]
        return {
            "stats": self.get("/stats")["orphans"],
            "metrics": int(self.metric("corral_orphans")),
            "doctor": int(next(check["found"] for check in checks if check["name"] == "orphans")),
        }

    def assert_no_orphans(self) -> None:
        """All three agree on none."""
        assert self.orphans() == {"stats": 0, "metrics": 0, "doctor": 0}


def deployment(name: str, source: bytes | None = None, **body: Any) -> dict[str, Any]:
    """The body that deploys a Python file; the echo server unless another is given."""
    if "mcp_config" in body:
        return {"name": name, "source_type": "mcp_config", **body}
    source = servers.source("echo.py") if source is None else source
    data = base64.b64encode(source).decode()
    return {
        "name": name,
        "source_type": "direct",
        "language": "python",
        "entry_point": "server.py",
        "source_data": data,
        **body,
    }


def text_of(answer: httpx.Response) -> str:
    """The text that a tool answered with."""
    text: str = answer.json()["result"]["content"][0]["text"]
    return text


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="corral-e2e-", dir="/var/tmp"))
    folder.chmod(0o711)
    return folder


@functools.cache
def _used_home() -> Path:
    """A home after its first start, without what makes it one of a kind."""
    folder = _new_folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    plane = Plane(folder, {})
    try:
        plane.start()
        assert plane.stop() == 0, plane.log
    finally:
        if plane.is_running():
            plane.send(signal.SIGKILL)
            plane.wait()
    for name in ("owner-id", "secret-key", "credentials"):
        (plane.home / name).unlink()
    return plane.home


STRONGEST = {"AUTO_ISOLATION": "namespaced"}
"""The default of a control plane, as nobody but these tests changes it."""


@contextmanager
def open_plane(
    *,
    first_start: bool = False,
    uid: int | None = None,
    launched_by: Callable[[Path], tuple[str, ...]] | None = None,
    **settings: str,
) -> Iterator[Plane]:
    """A home, and the control plane that will live there; `start` is the caller's.

    Args:
        first_start: Nothing is in the home yet; else what a control plane leaves that has never been used, which
            spares the seconds that a new database takes.
        uid: Run it as this user instead of root; always a first start.
        launched_by: From its folder, what stands before its command; always a first start.
        settings: Variables of its environment, in capitals.
    """
    folder = _new_folder()
    if uid is not None:
        settings = {"HOME": str(folder), **settings}
        shutil.chown(folder, uid, uid)
        (folder / "stage").mkdir()
        launched_by = launched_by or (lambda folder: launcher(uid, folder / "stage"))
    plane = Plane(folder, settings, () if launched_by is None else launched_by(folder))
    if not first_start and launched_by is None:
        subprocess.run(["cp", "-a", _used_home(), plane.home], check=True, timeout=START_LIMIT_S)
    try:
        yield plane
    finally:
        plane.close()


@pytest.fixture
def planes() -> Iterator[Callable[..., Plane]]:
    """Makes a started control plane, as often as wanted; arguments as for `open_plane`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(open_plane(**options)).start()


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    """A running control plane for all tests of a module: leave it running, and remove what was deployed."""
    with open_plane() as opened:
        yield opened.start()
