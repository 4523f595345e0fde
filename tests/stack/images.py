"""Stand-ins for the official images, made of Debian's packages: a test machine may reach no image registry.

What is tested with them is our own: the Dockerfile, the compose file, nginx's configuration, the control plane. How this
machine gets to package registries (certificates, settings of pip) goes into the stand-in for Python, and nowhere else.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stack.engine import run

if TYPE_CHECKING:
    from tests.stack.engine import Engine

BASES = Path(__file__).parent / "bases"
NAMES = {"python": "python:3.13-slim-trixie", "redis": "redis:8", "nginx": "nginx:1.28", "postgres": "postgres:17"}
DEBIAN = "debian:trixie-slim"
BUILD_LIMIT_S = 300
"""For one image; measured 6 s to 40 s."""
CERTIFICATES = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
PIP_SETTINGS = Path("/etc/pip.conf")


def make_images(engine: Engine) -> None:
    """Make what is not there, or has changed; seconds when everything is there."""
    if not engine.has_image(DEBIAN):
        _make_debian(engine)
    with tempfile.TemporaryDirectory(dir=engine.folder) as folder:
        for base, name in NAMES.items():
            context = Path(folder) / base
            shutil.copytree(BASES / base, context)
            if base == "python":
                shutil.copyfile(CERTIFICATES, context / "certificates.crt")
                (context / "pip.conf").write_text(PIP_SETTINGS.read_text() if PIP_SETTINGS.exists() else "")
            engine.docker("build", "--network", "host", "--tag", name, str(context), within_s=BUILD_LIMIT_S)


def _make_debian(engine: Engine) -> None:
    archive = engine.folder / "debian.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", "trixie", str(archive)]
    run(command, os.environ, within_s=BUILD_LIMIT_S)
    engine.docker("import", str(archive), DEBIAN)
    archive.unlink()
