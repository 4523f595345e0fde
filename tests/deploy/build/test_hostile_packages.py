"""A package whose build runs code, from an index of our own: it has no hand in what other owners share."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from controlplane.deploy.installs.keys import SHARED, scope_of
from controlplane.model import Command, Instance, SourceType, Spec
from tests.deploy.build.conftest import Shop, open_shop, with_settings
from tests.deploy.conftest import instance_of

BACKEND = """
import os, pathlib, zipfile

def _trace():
    pathlib.Path(os.environ["UV_CACHE_DIR"], "evil-was-here").write_text("x")

def build_wheel(folder, config_settings=None, metadata_directory=None):
    _trace()
    name = "evil_pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("evil_pkg.py", "")
        wheel.writestr("evil_pkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: evil-pkg\\nVersion: 1.0\\n")
        wheel.writestr("evil_pkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("evil_pkg-1.0.dist-info/RECORD", "")
    return name
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
PROGRAM = "def main():\n    print('genuine')\n"


def wheel() -> bytes:
    """`victim-srv`, with one program."""
    about = "victim_srv-1.0.dist-info"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("victim_srv.py", PROGRAM)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: victim-srv\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/entry_points.txt", "[console_scripts]\nvictim-srv = victim_srv:main\n")
        archive.writestr(f"{about}/RECORD", "")
    return content.getvalue()


def sdist() -> bytes:
    """`evil-pkg`, of which there is no wheel."""
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: evil-pkg\nVersion: 1.0\nDynamic: Requires-Dist\n",
        "pyproject.toml": PYPROJECT,
        "backend.py": BACKEND,
    }
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"evil_pkg-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """The address of an index with both packages."""
    for name, file, content in (
        ("victim-srv", "victim_srv-1.0-py3-none-any.whl", wheel()),
        ("evil-pkg", "evil_pkg-1.0.tar.gz", sdist()),
    ):
        folder = tmp_path / "simple" / name
        folder.mkdir(parents=True)
        (folder / file).write_bytes(content)
        (folder / "index.html").write_text(f'<!DOCTYPE html><a href="{file}">{file}</a>')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


def uvx(*args: str, owner: str) -> Instance:
    spec = Spec(source_type=SourceType.MCP_CONFIG, language="python", command=Command(command="uvx", args=args))
    return evolve(instance_of(spec), owner=owner)


async def test_what_a_packages_build_could_have_forged_is_its_owners_alone(build_host, common_folder, index):
    host = with_settings(build_host, child_env_pass=("UV_DEFAULT_INDEX",))
    host = evolve(host, environ={**host.environ, "UV_DEFAULT_INDEX": index})
    async with open_shop(host, common_folder) as shop:
        await _attack(shop)


async def _attack(shop: Shop) -> None:
    mallory = await shop.build(uvx("--with", "evil-pkg", "victim-srv", owner="mallory"))
    assert mallory.install.key.scope == scope_of("mallory")

    alice = await shop.build(uvx("victim-srv", owner="alice"))
    assert alice.install.key.scope == SHARED
    module = next(alice.install.tree.rglob("victim_srv.py"))
    assert module.read_text() == PROGRAM
    assert not list(alice.install.tree.rglob("evil*"))

    ben = await shop.build(uvx("victim-srv", owner="ben"))
    assert ben.install.key == alice.install.key
