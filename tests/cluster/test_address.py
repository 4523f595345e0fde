"""Where other control planes reach this one."""

from __future__ import annotations

import socket
from pathlib import Path
from uuid import UUID

import pytest

from controlplane.cluster.address import node_id, node_name, node_url
from controlplane.config import Config

MACHINE = socket.gethostname()


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:4711"),
        ({"host": "10.0.0.7"}, "http://10.0.0.7:4711"),
        ({"host": "fd00::7"}, "http://[fd00::7]:4711"),
        ({"host": "0.0.0.0"}, f"http://{MACHINE}:4711"),
        ({"host": "::"}, f"http://{MACHINE}:4711"),
        ({"host": ""}, f"http://{MACHINE}:4711"),
        ({"host": "0.0.0.0", "node_url": "https://a.example"}, "https://a.example"),
    ],
)
def test_a_node_is_reached_where_it_listens_unless_the_operator_says_otherwise(
    settings: dict[str, str], url: str
) -> None:
    assert node_url(Config(home=Path("/nowhere"), **settings), 4711) == url


def test_its_name_is_one_that_it_serves() -> None:
    assert node_name(Config(home=Path("/nowhere"), node_url="http://a.example:9")) == "a.example"


def test_a_node_is_known_by_its_home() -> None:
    assert node_id("0123456789abcdef0123456789abcdef") == UUID("01234567-89ab-cdef-0123-456789abcdef")
    assert node_id("by hand") == node_id("by hand") != node_id("by another hand")
