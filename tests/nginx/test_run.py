"""`run.sh`, which a container runs: nginx finds a control plane again that has come back at another address."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import everybody, wait_until
from tests.nginx.front import START_LIMIT_S, Front

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.nginx.upstream import Upstream

pytestmark = pytest.mark.needs("nginx")


@pytest.fixture
def named(upstream: Upstream) -> Iterator[Front]:
    """nginx before a control plane that it knows by a name; where that leads, `getent` reads from a file here."""
    front = Front([upstream.port])
    servers = front.files / "servers.conf"
    servers.write_text(servers.read_text().replace("127.0.0.1:", "localhost:"))
    resolver = front.folder / "bin" / "getent"
    resolver.parent.mkdir()
    resolver.write_text(f'#!/bin/sh\n[ "$1 $2" = "hosts localhost" ] && cat "{front.folder}/address"\n')
    resolver.chmod(0o755)
    yield front
    front.close()


def move(front: Front, address: str) -> None:
    new = front.folder / "address.new"
    new.write_text(f"{address} localhost\n")
    new.replace(front.folder / "address")


def run(front: Front, until: Callable[[], bool] | None = None) -> Front:
    path = f"{front.folder}/bin:{os.environ['PATH']}"
    return front.start([str(front.files / "run.sh")], {"PATH": path}, until)


def workers(front: Front) -> set[int]:
    """The pids of nginx's processes that serve."""
    assert front.process is not None
    children = f"/proc/{front.process.pid}/task/{front.process.pid}/children"
    with open(children) as listed:
        pids = [int(pid) for pid in listed.read().split()]
    return {pid for pid in pids if _title(pid).startswith(b"nginx: worker process\0")}


def _title(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as title:
            return title.read().rstrip(b"\0 ") + b"\0"
    except OSError:
        return b""


def test_nginx_serves_and_is_the_process_that_was_started(named: Front) -> None:
    move(named, "127.0.0.1")

    assert run(named).get("/health").status_code == 200
    assert named.process is not None
    assert _title(named.process.pid).startswith(b"nginx: master process")


def test_nothing_is_left_once_nginx_has_ended(named: Front) -> None:
    move(named, "127.0.0.1")
    mark = f"{named.files}/".encode()
    assert run(named).process is not None

    named.close()

    def left() -> list[int]:
        return [pid for pid in everybody() if mark in _title(pid)]

    wait_until(lambda: not left(), START_LIMIT_S, "the loop has ended too")


def test_nginx_is_reloaded_when_the_name_leads_elsewhere_and_only_then(named: Front) -> None:
    move(named, "127.0.0.1")
    run(named)
    first = wait_until(lambda: workers(named), START_LIMIT_S, "nginx's processes")

    move(named, "127.0.0.2")
    wait_until(lambda: workers(named) and not workers(named) & first, START_LIMIT_S, "other processes of nginx")

    assert named.get("/health").status_code == 200
    assert named.errors.count("nginx reloads") == 1


def test_nginx_waits_until_the_name_is_known(named: Front) -> None:
    run(named, lambda: "waits until" in named.errors)
    assert not named.is_up()

    move(named, "127.0.0.1")
    wait_until(named.is_up, START_LIMIT_S, "nginx takes connections")


def test_addresses_need_no_looking_up(upstream: Upstream) -> None:
    front = Front([upstream.port])
    try:
        assert run(front).get("/health").status_code == 200
    finally:
        front.close()
