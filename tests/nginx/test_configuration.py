"""What nginx makes of the files as they are shipped: that it takes them, and that their figures are Corral's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from controlplane.config import Config
from controlplane.web.asgi_routes import KEEPALIVE_S
from controlplane.web.deploys import WAIT_MAX_S
from controlplane.web.guards import CALL_BODY_MAX_BYTES, UPLOAD_BODY_MAX_BYTES
from controlplane.web.hypercorn_server import HEAD_MAX_BYTES, IDLE_S
from controlplane.web.routes import ROUTES
from tests.nginx.front import SOURCE, Front

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("nginx")

UNITS = {"": 1, "k": 2**10, "m": 2**20, "s": 1, "h": 3600}


@pytest.fixture(scope="module")
def configured() -> Iterator[Front]:
    """The files where they can be read, before no control plane; not started."""
    front = Front([1])
    yield front
    front.close()


@pytest.fixture(scope="module")
def dump(configured: Front) -> str:
    """The whole configuration in force, without comments."""
    done = configured.run("-T")
    assert done.returncode == 0, done.stderr
    return re.sub(r"^\s*#.*$", "", done.stdout, flags=re.MULTILINE)


def values(dump: str, directive: str) -> list[str]:
    return re.findall(rf"^\s*{directive} ([^;]+);", dump, re.MULTILINE)


def quantities(dump: str, directive: str) -> list[int]:
    """In bytes or seconds."""
    found = [re.fullmatch("([0-9]+)([a-z]?)", value) for value in values(dump, directive)]
    return [int(match[1]) * UNITS[match[2]] for match in found if match]


def location(dump: str, head: str) -> str:
    found = re.search(rf"^location {re.escape(head)} {{(.*?)^}}", dump, re.MULTILINE | re.DOTALL)
    assert found is not None, head
    return found[1]


def test_nginx_takes_the_files_as_a_plain_user_and_says_nothing_about_them(configured: Front) -> None:
    done = configured.run("-t")

    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "[" in line] == []


def test_everything_that_is_written_is_below_tmp_or_a_standard_stream(dump: str) -> None:
    written = [
        *values(dump, "pid"),
        *(
            path
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            for path in values(dump, f"{name}_temp_path")
        ),
    ]

    assert len(written) == 6
    assert all("/tmp/nginx" in path for path in written)
    assert values(dump, "access_log") == ["/dev/stdout corral"]
    assert values(dump, "error_log") == ["stderr error"]


def test_files_name_each_other_relatively_so_that_they_may_lie_anywhere() -> None:
    for path in SOURCE.rglob("*.conf*"):
        for name in re.findall(r"^\s*include ([^;]+);", path.read_text(), re.MULTILINE):
            assert not name.startswith("/")
            assert "*" in name or (SOURCE / name).exists(), name


def test_bodies_and_heads_may_be_as_large_as_corral_takes_them(dump: str) -> None:
    assert quantities(dump, "client_max_body_size") == [UPLOAD_BODY_MAX_BYTES, CALL_BODY_MAX_BYTES]
    number, size = values(dump, "large_client_header_buffers")[0].split()
    assert int(number) * int(size.removesuffix("k")) * 1024 == HEAD_MAX_BYTES


def test_connections_to_corral_are_let_go_before_it_closes_them(dump: str) -> None:
    pools = re.findall(r"^upstream \w+ {.*?^}", dump, re.MULTILINE | re.DOTALL)

    assert len(pools) == 2
    for pool in pools:
        assert quantities(pool, "keepalive_timeout")[0] < IDLE_S
        assert quantities(pool, "keepalive")[0] > 0


@pytest.mark.parametrize("head", ["/mcp/", "= /events", "~ ^/instances/.+/(?:logs|wire|events)$"])
def test_streams_are_not_held_back_and_may_be_silent_for_two_hours(dump: str, head: str) -> None:
    stream = location(dump, head)

    assert values(stream, "proxy_buffering") == ["off"]
    assert quantities(stream, "proxy_read_timeout") == [7200]
    assert KEEPALIVE_S < 7200


def test_a_deploy_may_be_waited_for_and_a_reload_lets_the_longest_call_end(dump: str) -> None:
    assert quantities(dump, "proxy_read_timeout")[0] > WAIT_MAX_S
    shutdown = re.search(r"worker_shutdown_timeout ([0-9]+)m;", dump)
    assert shutdown is not None
    assert int(shutdown[1]) * 60 >= Config().max_call_timeout_s


def test_one_address_cannot_take_all_connections_of_corral(dump: str) -> None:
    limit = int(values(dump, "limit_conn")[0].split()[1])

    assert limit < Config().max_connections / 2


def test_what_all_workers_keep_open_leaves_corral_room(dump: str) -> None:
    workers = quantities(dump, "worker_processes")[0]

    assert workers * sum(quantities(dump, "keepalive")) < Config().max_connections / 4


def test_nothing_is_asked_of_nginx_that_debian_12_has_not(dump: str) -> None:
    assert not re.search(r"^\s*http2 on;|\sresolve[;\s]", dump, re.MULTILINE)


def test_what_stands_below_an_instance_is_never_taken_for_the_name_in_owner_and_name(dump: str) -> None:
    words = {
        route.path.removeprefix("/instances/{id}/") for route in ROUTES if route.path.startswith("/instances/{id}/")
    }
    words |= {route.path.removeprefix("/mcp/{id}/") for route in ROUTES if route.path.startswith("/mcp/{id}/")}
    known = re.search(r"\(\?:mcp\|instances\).*\(\?!\(\?:([a-z|]+)\)", dump)

    assert known is not None
    assert set(known[1].split("|")) == words


def test_every_stream_that_goes_on_by_itself_has_a_place_where_it_is_not_held_back() -> None:
    streams = {
        route.path for route in ROUTES if route.method == "GET" and route.answers.get(200) == "text/event-stream"
    }
    streams.add("/instances/{id}/logs")  # with `follow`
    here = re.compile(r"/mcp/|/events$|/instances/.+/(?:logs|wire|events)$")

    assert {path for path in streams if not here.match(path)} == set()
