"""A new control plane takes over from the one that runs: nothing promised is lost, and callers wait instead of being refused."""

from __future__ import annotations

import fcntl
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from tests.e2e.plane import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.plane import Plane

EX_CONFIG = 78
FLEET = 3
PLAIN_UID = 54117
"""A user without an account."""
ENOUGH = 30
"""Calls and writes before the hand-over, and after it."""
SECRETS = 50
"""Names that are written again and again: half of what a user may have."""
DEPLOYED_MAX = 50
"""That are not deleted again: each is a process."""
PATIENCE_S = 30
"""Of a caller."""


class Traffic:
    """Threads that call and change things all the time; they remember every answer, and what they got none for."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.over = threading.Event()
        self.answered: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.longest_s: dict[str, float] = {}
        self.labels: dict[str, int] = {}
        self.tokens: list[str] = []
        self.secrets: list[str] = []
        self.deployed: list[str] = []
        works = (self._label, self._token, self._secret, self._deploy, self._call, self._call)
        self._threads = [threading.Thread(target=self._keep_on, args=(work,)) for work in works]
        self._threads.append(threading.Thread(target=self._call_anew))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def wait_for_more(self) -> None:
        """Until everybody was answered `ENOUGH` times more."""
        goal = {kind: self.answered[kind] + ENOUGH for kind in ("calls", "calls on new connections", "writes")}
        wait_until(lambda: all(self.answered[kind] >= goal[kind] for kind in goal), 90, f"{goal}, not {self.answered}")

    def _keep_on(self, step: Callable[[httpx.Client, int], None]) -> None:
        with self.plane.client() as client:
            number = 0
            while not self.over.is_set():
                number += 1
                step(client, number)

    def _call_anew(self) -> None:
        """As `curl` does: a connection for each call."""
        number = 0
        while not self.over.is_set():
            number += 1
            with self.plane.client() as client:
                self._call(client, number, "calls on new connections")

    def _ask(self, kind: str, what: Callable[[], httpx.Response]) -> httpx.Response | None:
        """The answer if it is a good one; whatever else comes of it is counted."""
        began = time.monotonic()
        try:
            answer = what()
        except httpx.HTTPError as error:
            self.refused[f"{kind}: {type(error).__name__}"] += 1
            return None
        self.longest_s[kind] = max(self.longest_s.get(kind, 0.0), time.monotonic() - began)
        if answer.is_success:
            self.answered[kind] += 1
            return answer
        self.refused[f"{kind}: {answer.status_code} {answer.json().get('code')}"] += 1
        return None

    def _call(self, client: httpx.Client, number: int, kind: str = "calls") -> None:
        body = {"method": "tools/call", "params": {"name": "echo", "arguments": {"text": str(number)}}}
        answer = self._ask(kind, lambda: client.post(f"/mcp/base{number % FLEET}/execute", json=body))
        assert answer is None or answer.json()["result"]["content"][0]["text"] == str(number)

    def _label(self, client: httpx.Client, number: int) -> None:
        name = f"base{number % FLEET}"
        body = {"labels": {"n": str(number)}}
        if self._ask("writes", lambda: client.patch(f"/instances/{name}", json=body)) is not None:
            self.labels[name] = number

    def _token(self, client: httpx.Client, number: int) -> None:
        body = {"name": str(number), "role": "viewer"}
        if (answer := self._ask("writes", lambda: client.post("/tokens", json=body))) is None:
            return
        if len(self.tokens) < 50:
            self.tokens.append(answer.json()["token"])
        else:
            self._ask("writes", lambda: client.delete(f"/tokens/{answer.json()['token_id']}"))

    def _secret(self, client: httpx.Client, number: int) -> None:
        name = f"S{number % SECRETS}"
        if self._ask("writes", lambda: client.put(f"/secrets/{name}", json={"value": f"value {number}"})) is not None:
            self.secrets = list(dict.fromkeys((*self.secrets, name)))

    def _deploy(self, client: httpx.Client, number: int) -> None:
        name = f"made-{number}"
        body = {"name": name, "source_type": "mcp_config", "mcp_config": {"command": "cat", "args": ["-", name]}}
        answer = self._ask("writes", lambda: client.post("/api/v2/deploy?wait=0", json=body))
        if answer is None:
            return
        if number % 4 == 0 and len(self.deployed) < DEPLOYED_MAX:
            self.deployed.append(name)
        else:
            self._ask("writes", lambda: client.delete(f"/instances/{name}"))


def assert_kept(plane: Plane, traffic: Traffic) -> None:
    """All that was acknowledged, whoever did it."""
    rows = {row["name"]: row for row in plane.instances()}
    assert set(traffic.deployed) <= rows.keys(), "an acknowledged deploy was lost"
    for name, number in traffic.labels.items():
        assert int(rows[name]["labels"]["n"]) >= number, f"an acknowledged change of {name} was lost"
    for token in traffic.tokens:
        with plane.client(token) as client:
            assert client.get("/runtimes").status_code == 200, "an acknowledged token was lost"
    kept: set[str] = set()
    cursor: str | None = ""
    while cursor is not None:
        page = plane.get("/secrets", params={"limit": 100} | ({"cursor": cursor} if cursor else {}))
        kept |= {row["name"] for row in page["secrets"]}
        cursor = page["next_cursor"]
    assert set(traffic.secrets) <= kept, "an acknowledged secret was lost"


def hand_over(planes: Callable[..., Plane], figure: Callable[..., None], *, older: bool) -> Traffic:
    plane = planes()
    for number in range(FLEET):
        plane.deploy(f"base{number}")
    with Traffic(plane) as traffic:
        traffic.wait_for_more()
        if older:
            (plane.home / "run/takeover.sock").unlink()
        began = time.monotonic()
        plane.replace()
        took_s = time.monotonic() - began
        traffic.wait_for_more()
    assert_kept(plane, traffic)
    for number in range(FLEET):
        plane.wait_status(f"base{number}", "running")
    figure("from its start to the new one serving", took_s, "s")
    for kind, longest_s in traffic.longest_s.items():
        figure(f"longest wait for an answer, {kind}", longest_s, "s")
    figure("answered", ", ".join(f"{count} {kind}" for kind, count in traffic.answered.items()))
    figure("refused", ", ".join(f"{kind} × {count}" for kind, count in sorted(traffic.refused.items())) or "none")
    plane.assert_no_orphans()
    for row in plane.instances():
        plane.request("DELETE", f"/instances/{row['name']}")
    return traffic


def test_nothing_promised_is_lost_and_nobody_who_connects_is_refused(
    planes: Callable[..., Plane], figure: Callable[..., None]
) -> None:
    traffic = hand_over(planes, figure, older=False)
    assert not [kind for kind in traffic.refused if "ConnectError" in kind]
    assert not [kind for kind in traffic.refused if kind.startswith("calls on new connections")]


def test_one_that_hands_nothing_over_is_taken_over_from_all_the_same(
    planes: Callable[..., Plane], figure: Callable[..., None]
) -> None:
    hand_over(planes, figure, older=True)


def ends(plane: Plane, *arguments: str, **settings: str) -> tuple[int, str]:
    """Run one that is not to come up; returns its status and what it said."""
    before = len(plane.log)
    process = plane.launch(*arguments, **settings)
    try:
        return process.wait(60), plane.log[before:]
    finally:
        process.kill()
        process.wait()


def psql(plane: Plane, statement: str) -> None:
    """On the embedded Postgres of a control plane that runs."""
    from controlplane.backup import postgres
    from controlplane.embedded import running_database

    url = running_database(plane.home)
    assert url is not None
    postgres.query(url, statement)


def test_what_cannot_start_is_told_so_before_the_old_one_is_touched(planes: Callable[..., Plane]) -> None:
    plane = planes()
    pid = plane.deploy("undisturbed")["pid"]
    psql(plane, "INSERT INTO mcp_schema (version, name) VALUES (99, 'later')")
    status, said = ends(plane, "--replace")
    assert (status, "schema version 99" in said) == (EX_CONFIG, True), said
    psql(plane, "DELETE FROM mcp_schema WHERE version = 99")

    status, said = ends(plane, "--replace", LOG_LEVEL="LOUD")
    assert (status, "LOG_LEVEL" in said) == (EX_CONFIG, True), said

    psql(
        plane,
        "INSERT INTO mcp_secrets (owner, name, box) SELECT 'admin', 'OF_ANOTHER_KEY', decode(repeat('00', 64), 'hex')",
    )
    status, said = ends(plane, "--replace")
    assert status == EX_CONFIG, said
    psql(plane, "DELETE FROM mcp_secrets")

    assert plane.tool("undisturbed", "pid") == str(pid)
    plane.replace()
    plane.wait_status("undisturbed", "running")


def test_while_one_takes_over_a_second_is_told_to_wait_and_the_old_one_is_asked_once(
    planes: Callable[..., Plane],
) -> None:
    plane = planes()
    with open(plane.home / "takeover.lock", "wb") as taking:
        fcntl.flock(taking, fcntl.LOCK_EX)
        status, said = ends(plane, "--replace")
    assert (status, "is taking over" in said) == (EX_CONFIG, True), said
    assert plane.get("/health")["status"] == "healthy"
    plane.replace()


def test_one_that_hangs_is_named_and_goes_on_once_it_can(
    planes: Callable[..., Plane], figure: Callable[..., None]
) -> None:
    plane = planes()
    plane.send(signal.SIGSTOP)
    began = time.monotonic()
    try:
        # Its Postgres still answers, and its sockets would hang whoever asked it for them.
        status, said = ends(plane, "--replace")
    finally:
        plane.send(signal.SIGCONT)
    figure("given up after", time.monotonic() - began, "s")
    assert status == EX_CONFIG
    assert f"process {plane.pid} was asked to stop and still holds" in said
    assert f"kill -KILL {plane.pid}" in said
    assert plane.wait() == 0  # it was asked, and heeds it now
    plane.start()


@pytest.mark.needs("root")
def test_a_plain_users_is_taken_over_with_its_sockets_too(planes: Callable[..., Plane]) -> None:
    plane = planes(uid=PLAIN_UID)
    plane.deploy("kept")
    before = len(plane.log)
    plane.replace()
    plane.wait_status("kept", "running")
    assert "hands nothing over" not in plane.log[before:]
    assert "handed the listening sockets" in plane.log[before:]


def test_where_nothing_runs_it_just_starts(planes: Callable[..., Plane]) -> None:
    plane = planes()
    assert plane.stop() == 0
    plane._process = plane.launch("--replace")
    wait_until(lambda: _serves(plane), 60, "it serves")


def _serves(plane: Plane) -> Any:
    try:
        return httpx.get(f"{plane.url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False
