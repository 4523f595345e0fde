"""`systemd/corral-nginx.service`: what it starts serves, and its files in `/tmp` are where nobody else can be first."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.nginx.front import ROOT, SOURCE, Front, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = (ROOT / "systemd" / "corral-nginx.service").read_text()


def said(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


@pytest.fixture
def front() -> Iterator[Front]:
    front = Front([free_port()])
    yield front
    front.close()


def argv(front: Front, name: str) -> list[str]:
    """What the unit runs, with the files of this test."""
    (line,) = said(name)
    program, *arguments = shlex.split(line.replace("/opt/corral/nginx/", f"{front.files}/"))
    assert program == "/usr/sbin/nginx"
    return ["nginx", *arguments]


def test_what_the_unit_starts_serves_and_takes_its_reload(front: Front) -> None:
    front.start(argv(front, "ExecStart"))

    assert httpx.get(f"{front.url}/nothing-behind-it").status_code == 502
    assert argv(front, "ExecReload") == [*front.argv, "-s", "reload"]
    assert front.run("-s", "reload").returncode == 0


def test_nginx_has_a_tmp_of_its_own_under_systemd_and_writes_nowhere_else() -> None:
    assert said("PrivateTmp") == ["yes"]
    text = "".join((SOURCE / name).read_text() for name in ("nginx.conf", "proxy.conf"))
    written = re.findall(r"^(?:pid|\w+_temp_path) (\S+);", text, re.MULTILINE)
    assert len(written) == 6
    assert all(path.startswith("/tmp/") for path in written)


def test_by_hand_the_line_of_the_guide_leaves_nothing_in_the_tmp_of_all() -> None:
    guide = (ROOT / "docs" / "how-to" / "nginx.md").read_text()
    (files,) = re.findall(r'sed -i "s#/tmp/#\$HOME/.corral-nginx/#" (.*)$', guide, re.MULTILINE)
    naming = {
        f"nginx/{path.name}"
        for path in SOURCE.glob("*.conf")
        if re.search(r"^[^#]*/tmp/", path.read_text(), re.MULTILINE)
    }
    assert set(files.split()) == naming
