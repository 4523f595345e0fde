"""Secrets are planted, told by their server in every way there is, and looked for everywhere else: nothing is found.

Nothing of them may be in the database, in Redis, in any log, answer, event, wire tap, post-mortem or argument, nor in
the environment of any process but the instance's own. The instance's callers get its results and notifications as
they are.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import redis

from tests import servers
from tests.e2e.plane import Plane, below, open_plane, wait_until
from tests.e2e.test_watching import Ear, listening
from tests.services import database_url, own_valkey, postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services import Postgres, Valkey

__all__ = ["database_url", "own_valkey", "postgres_server"]

PLAIN = "planted-in-plain-env-7Qz+/="
TOKEN = 'planted "named" secret\\with-corners-9Kx'
PASSWORD = "pl4nted-in-a-url"
PIN = "zq7X"
"""As short as a secret may be."""
ENVIRONMENT = {
    "TELL": "PLAIN,TOKEN,DATABASE,PIN",
    "PLAIN": PLAIN,
    "TOKEN": "${secret:TOKEN}",
    "DATABASE": "postgres://ada:${secret:PASSWORD}@db.example/x",
    "PIN": "${secret:PIN}",
}
TOLD = [PLAIN, TOKEN, f"postgres://ada:{PASSWORD}@db.example/x", PIN]
KEY = "the-secret-key-of-this-control-plane-0123456789"
HANDSHAKE_LIMIT_S = 60


def forms(secret: str) -> set[bytes]:
    """Everything by which a secret is known: as it is, in JSON, hex, URLs, and base64 at each place."""
    plain = secret.encode()
    found = {plain, json.dumps(secret)[1:-1].encode(), plain.hex().encode(), quote(secret, safe="").encode()}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + plain)
        inner = encoded[-(-before * 8 // 6) : (before + len(plain)) * 8 // 6]
        if len(inner) >= 8:
            found |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


PLANTED = {name: forms(name) for name in (PLAIN, TOKEN, PASSWORD, PIN)}


def assert_clean(where: str, content: bytes | str, more: tuple[str, ...] = ()) -> None:
    """Nothing planted is in there, and none of `more`."""
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    for secret, known in (PLANTED | {word: forms(word) for word in more}).items():
        for form in known:
            at = data.find(form)
            assert at < 0, f"{secret!r} is in {where}: …{data[max(0, at - 120) : at + 80]!r}…"


@contextmanager
def watching(plane: Plane, *paths: str) -> Iterator[list[Ear]]:
    with ExitStack() as stack:
        yield [stack.enter_context(listening(plane, path)) for path in paths]


@pytest.fixture
def plane(database_url: str, own_valkey: Valkey) -> Iterator[Plane]:
    with open_plane(DATABASE_URL=database_url, REDIS_URL=own_valkey.url, SECRET_KEY=KEY, LOG_LEVEL="DEBUG") as opened:
        opened.settings = {**opened.settings, "LOG_DIR": str(opened.folder / "logs")}
        opened.start()
        for name, value in (("TOKEN", TOKEN), ("PASSWORD", PASSWORD), ("PIN", PIN)):
            answer = opened.request("PUT", f"/secrets/{name}", json={"value": value})
            assert answer.status_code == 201, answer.text
            assert_clean("the answer that set it", answer.content)
        yield opened


def deploy(plane: Plane, name: str = "teller", **more: str) -> dict[str, Any]:
    made = plane.deploy(name, servers.source("teller.py"), environment_vars=ENVIRONMENT | more)
    assert_clean("the deploy's answer", json.dumps(made))
    return made


def test_nothing_planted_is_found_anywhere_but_with_the_instances_callers(
    plane: Plane, database_url: str, own_valkey: Valkey, postgres_server: Postgres
) -> None:
    instance_id = deploy(plane)["instance_id"]
    streams = ("/events", f"/mcp/{instance_id}/stream", f"/instances/{instance_id}/wire")
    with watching(plane, *streams) as ears:
        _call_in_every_way(plane)
        for _ in range(3):
            ears[2].of_type("wire", method="tools/call", direction="from_server")
        pid = plane.instance("teller")["pid"]
        _look_at_processes(plane, pid)
        died = plane.execute("teller", "tools/call", {"name": "die", "arguments": {}})
        assert died.status_code == 502
        assert_clean("the answer to a call that it died of", died.content)
        for ear in ears[:2]:
            ear.of_type("post_mortem")
        wait_until(lambda: plane.instance("teller")["pid"] not in (None, pid), HANDSHAKE_LIMIT_S, "another process")
    for path, ear in zip(streams, ears, strict=True):
        assert len(ear.heard) > 5
        assert_clean(path, json.dumps(ear.heard, ensure_ascii=False))
    assert "[redacted:TOKEN]" in json.dumps(ears[1].heard)
    assert "[redacted:" in json.dumps(ears[2].heard)

    _look_at_failed_starts(plane)
    _look_at_answers(plane, instance_id)
    _look_at_storage(plane, database_url, own_valkey, postgres_server)
    logs = list((plane.folder / "logs").rglob("*"))
    assert logs
    for path in logs:
        assert_clean(str(path), path.read_bytes(), (KEY, plane.token))
    assert_clean("its standard output and error", plane.log, (KEY, plane.token))


def _call_in_every_way(plane: Plane) -> None:
    """Its own callers get everything as it is."""
    assert json.loads(plane.tool("teller", "tell")) == TOLD
    refused = plane.execute("teller", "tools/call", {"name": "refuse", "arguments": {}})
    assert refused.json()["error"] == {"code": -32000, "message": " ".join(TOLD), "data": {"env": TOLD}}
    body = {
        "method": "tools/call",
        "params": {"name": "progress", "arguments": {}, "_meta": {"progressToken": 1}},
    }
    streamed = plane.request("POST", "/mcp/teller/execute", json=body, headers={"Accept": "text/event-stream"})
    events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: ")]
    said = [event["params"].get("message") for event in events if event.get("method") == "notifications/progress"]
    assert said == [" ".join(TOLD)], events


def _look_at_processes(plane: Plane, pid: int) -> None:
    """Arguments of everybody, and environments of everybody but the instance's own."""
    own = {pid, *(process.pid for process in below(pid))}
    seen = 0
    for process in (plane.pid, *(process.pid for process in below(plane.pid))):
        assert_clean(f"the arguments of {process}", _proc(process, "cmdline"), (KEY, plane.token))
        assert_clean(f"the title of {process}", _proc(process, "comm"), (KEY, plane.token))
        if process not in own:
            assert_clean(f"the environment of {process}", _proc(process, "environ"))
            seen += 1
    assert seen >= 2
    for folder in Path("/proc").glob("[0-9]*"):
        assert_clean(f"{folder}/cmdline", _proc(int(folder.name), "cmdline"))
    assert TOKEN.encode() in _proc(pid, "environ"), "its own process has it"
    if os.geteuid() == 0:
        words = ["/bin/sh", "-c", "cat /proc/[0-9]*/environ 2>/dev/null; true"]
        looked = subprocess.run(
            words, user=65534, group=65534, extra_groups=[], cwd="/", capture_output=True, timeout=60, check=True
        )
        assert b"PATH=" in looked.stdout, "it can read its own"
        assert_clean("what a stranger can read of /proc/*/environ", looked.stdout)


def _proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _look_at_failed_starts(plane: Plane) -> None:
    """A handshake that it refuses with them, and a deploy that is refused."""
    body = {
        "name": "refuser",
        "source_type": "direct",
        "language": "python",
        "entry_point": "server.py",
        "source_data": base64.b64encode(servers.source("teller.py")).decode(),
        "environment_vars": {**ENVIRONMENT, "REFUSE": "1"},
    }
    refused = plane.request("POST", "/deploy?wait=60", json=body)
    assert (refused.status_code, refused.json()["reason_code"]) == (422, "handshake_refused"), refused.text
    assert_clean("a refused handshake", refused.content)
    as_stream = plane.request(
        "POST", "/instances/refuser/redeploy?wait=60", json={}, headers={"Accept": "text/event-stream"}
    )
    assert '"problem"' in as_stream.text
    assert_clean("the stream of a redeploy", as_stream.content)
    for wrong in ("${secret:NOWHERE}", "${secret:"):
        answer = plane.request("POST", "/deploy", json=body | {"environment_vars": {"A": PLAIN, "B": PLAIN + wrong}})
        assert answer.status_code == 422
        assert_clean("a refused deploy", answer.content)


def _look_at_answers(plane: Plane, instance_id: str) -> None:
    """Every answer to a GET that there is, but call results."""
    document = plane.get("/openapi.json")
    names = {"id": instance_id, "name": "TOKEN", "code": "conflict", "number": "1", "token_id": instance_id}
    looked = 0
    for template, operations in document["paths"].items():
        content = str(operations.get("get", {}).get("responses", {}).get("200", {}).get("content", {}).keys())
        if "get" not in operations or "text/event-stream" in content:
            continue
        path = re.sub(r"\{(\w+)\}", lambda found: names[found[1]], template)
        for asked in {path, path.replace(f"/{instance_id}", "/refuser")}:
            answer = plane.request("GET", asked)
            assert answer.status_code in (200, 404, 405), (asked, answer.text)
            assert_clean(asked, answer.content)
            looked += answer.status_code == 200
    assert looked > 20
    log = plane.get("/instances/teller/logs", params={"limit": 500})
    assert "[redacted:" in json.dumps(log)
    assert "[redacted:" in json.dumps(plane.get("/instances/teller/incarnations"))
    for words in (("inspect", "teller"), ("secret", "ls")):
        shown = plane.corral(*words)
        assert shown.returncode == 0, shown.stderr
        assert_clean(" ".join(words), shown.stdout + shown.stderr)


def _look_at_storage(plane: Plane, database_url: str, own_valkey: Valkey, postgres_server: Postgres) -> None:
    name = database_url.split("/")[3].split("?")[0]

    def is_written() -> bool:
        rows = "SELECT count(*) FROM mcp_incarnations WHERE post_mortem IS NOT NULL"
        return int(postgres_server.sql(name, rows).strip()) >= 2

    wait_until(is_written, HANDSHAKE_LIMIT_S, "the post-mortems in the database")
    dump = postgres_server.dump(name)
    for table in ("mcp_specs", "mcp_secrets", "mcp_instance_logs_", "mcp_events_", "mcp_audit_", "mcp_catalogues"):
        assert f"COPY public.{table}" in dump
    assert "[redacted:" in dump
    assert_clean("the database", dump, (KEY, plane.token))
    with redis.Redis.from_url(own_valkey.url) as connection:
        for key in connection.scan_iter(count=1000):
            assert_clean(f"Redis: the key {key!r}", key, (KEY, plane.token))
            assert_clean(f"Redis: {key!r}", repr(_value(connection, key)), (KEY, plane.token))


def _value(connection: redis.Redis, key: bytes) -> Any:
    match connection.type(key):
        case b"string":
            return connection.get(key)
        case b"hash":
            return connection.hgetall(key)
        case b"list":
            return connection.lrange(key, 0, -1)
        case b"set":
            return connection.smembers(key)
        case b"zset":
            return connection.zrange(key, 0, -1)
        case kind:
            raise AssertionError(f"Redis: {key!r} is a {kind!r}, which this test does not know")


# -- what becomes of a secret that changes


def test_a_new_value_is_in_force_after_a_restart_and_one_that_has_gone_is_a_failed_start(plane: Plane) -> None:
    deploy(plane)
    answer = plane.request("PUT", "/secrets/TOKEN", json={"value": "another-planted-value"})
    assert answer.json()["in_force_after_restart"] == ["teller"]
    assert json.loads(plane.tool("teller", "tell"))[1] == TOKEN
    assert plane.request("POST", "/instances/teller/restart?wait=60").status_code == 200
    assert json.loads(plane.tool("teller", "tell"))[1] == "another-planted-value"
    assert "another-planted-value" not in json.dumps(plane.get("/instances/teller/logs", params={"limit": 500}))

    assert plane.corral("secret", "rm", "TOKEN").returncode == 1
    assert plane.corral("secret", "rm", "TOKEN", "--force").returncode == 0
    redeployed = plane.request("POST", "/instances/teller/redeploy?wait=60", json={})
    assert (redeployed.status_code, redeployed.json()["code"]) == (422, "secret_missing")
    assert plane.instance("teller")["status"] == "running", "the revision in force is not touched"

    failed = plane.request("POST", "/instances/teller/restart?wait=60")
    assert (failed.status_code, failed.json()["code"]) == (422, "secret_missing"), failed.text
    assert "corral secret set TOKEN" in failed.json()["hint"]
    found = plane.instance("teller")
    assert (found["status"], found["restarts"]) == ("failed", 0), "no crash loop"

    assert plane.request("PUT", "/secrets/TOKEN", json={"value": TOKEN}).status_code == 201
    assert plane.request("POST", "/instances/teller/start?wait=60").status_code == 200
    assert json.loads(plane.tool("teller", "tell")) == TOLD


# -- another key, and a wrong one


def test_a_key_is_replaced_while_instances_run_and_a_crash_in_between_costs_nothing(planes: Any) -> None:
    plane = planes()
    assert plane.request("PUT", "/secrets/TOKEN", json={"value": TOKEN}).status_code == 201
    plane.deploy("keeper", environment_vars={"TOKEN": "${secret:TOKEN}", "PLAIN": PLAIN})
    pid, old = plane.instance("keeper")["pid"], (plane.home / "secret-key").read_text()

    done = plane.corral("secret", "rotate-key", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["boxes"] == 2
    assert (plane.home / "secret-key").read_text() != old
    assert not (plane.home / "secret-key.previous").exists()
    assert plane.instance("keeper")["pid"] == pid, "no instance is touched"

    plane.kill()
    now = (plane.home / "secret-key").read_text()
    (plane.home / "secret-key.previous").write_text(now)  # as if it had ended between the two files
    (plane.home / "secret-key").write_text("f" * 64)
    plane.start()
    wait_until(lambda: not (plane.home / "secret-key.previous").exists(), 30, "the old key's end")
    plane.wait_status("keeper", "running")
    environment = json.loads(plane.tool("keeper", "env"))
    assert (environment["TOKEN"], environment["PLAIN"]) == (TOKEN, PLAIN)


def test_a_lost_key_is_told_at_the_start_by_its_id_though_nothing_in_force_needs_it(planes: Any) -> None:
    plane = planes()
    assert plane.request("PUT", "/secrets/TOKEN", json={"value": TOKEN}).status_code == 201
    assert plane.stop() == 0
    kept = (plane.home / "secret-key").read_text()
    (plane.home / "secret-key").unlink()

    process = plane.begin()
    assert process.wait(60) == 78
    assert re.search(r"written with key [0-9a-f]{16}, and the key in use is [0-9a-f]{16}", plane.log)
    (plane.home / "secret-key").write_text(kept)
    plane.start()
    assert [row["name"] for row in plane.get("/secrets")["secrets"]] == ["TOKEN"]


def test_no_key_or_password_of_its_own_is_in_an_argument_and_no_core_dump_keeps_one(planes: Any) -> None:
    plane = planes()
    files = [plane.home / "secret-key", *plane.home.rglob("*.password")]
    own = (plane.token, *(path.read_text().strip() for path in files))
    assert len(own) >= 3
    processes = (plane.pid, *(process.pid for process in below(plane.pid)))
    assert len(processes) > 3
    for process in processes:
        assert_clean(f"the arguments of {process}", _proc(process, "cmdline"), own)
    limits = Path(f"/proc/{plane.pid}/limits").read_text()
    assert re.search(r"^Max core file size\s+0\s+0\s", limits, re.MULTILINE)
