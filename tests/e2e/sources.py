"""Sources as people have them: a folder, packed in every way, in a repository, and at an address."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import os
import shutil
import ssl
import subprocess
import tarfile
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import field, frozen
from backports import zstd

from tests.deploy.source.https_server import content, make_authority, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.deploy.source.https_server import Server

PRESSED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd.compress}
"""The ways to press a tar, by the ending of its name."""
PLAIN, EXECUTABLE = 0o644, 0o755
AUTHOR = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    **{
        f"GIT_{who}_{what}": text for who in ("AUTHOR", "COMMITTER") for what, text in (("NAME", "A"), ("EMAIL", "a@b"))
    },
}

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    """What is in a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def tar_of(files: Mapping[str, bytes], pressed: str = "", *, mode: int = PLAIN) -> bytes:
    """A tar, pressed as the ending says."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return PRESSED[pressed](whole.getvalue())


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """A zip, as `zip -r` makes it."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = PLAIN << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return whole.getvalue()


def in_base64(data: bytes) -> str:
    """As `source_data` takes it."""
    return base64.b64encode(data).decode()


@frozen
class Origin:
    """An https server on loopback, of an authority of its own, with repositories and files.

    A control plane fetches from it under `settings`.
    """

    server: Server
    bundle: Path
    """Every certificate that the host trusts, and this authority's."""
    _folder: Path = field(repr=False)

    @property
    def settings(self) -> dict[str, str]:
        return {"SOURCE_ALLOW_PRIVATE": "true", "SSL_CERT_FILE": str(self.bundle)}

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.server.port}/{path}"

    def serve(self, path: str, data: bytes) -> str:
        """Put a file there; returns its address."""
        self.server.pages[path] = content(data)
        return self.url(path)

    def publish(self, name: str, files: Mapping[str, bytes], branch: str = "main", tag: str | None = None) -> str:
        """Commit files as all that a branch has; returns the repository's address."""
        bare, work = self.server.repositories / f"{name}.git", self._folder / name
        if not bare.exists():
            _git(self._folder, "init", "--quiet", "--bare", "--initial-branch", "main", str(bare))
            _git(self._folder, "clone", "--quiet", str(bare), str(work))
        _git(work, "checkout", "--quiet", "--orphan", f"new-{branch}")
        _git(work, "rm", "--quiet", "-rf", "--ignore-unmatch", ".")
        for path, data in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_bytes(data)
        _git(work, "add", "--all", "--force")
        _git(work, "commit", "--quiet", "-m", "as it is")
        _git(work, "branch", "--quiet", "--force", "--move", branch)
        if tag is not None:
            _git(work, "tag", "--force", tag)
        _git(work, "push", "--quiet", "--mirror", str(bare))
        return self.url(bare.name)

    def commit_of(self, name: str, ref: str) -> str:
        """The commit that a name stands for."""
        return _git(self.server.repositories / f"{name}.git", "rev-parse", f"{ref}^{{commit}}")


@contextmanager
def open_origin() -> Iterator[Origin]:
    """A server with nothing on it."""
    folder = Path(tempfile.mkdtemp(prefix="corral-origin-", dir="/var/tmp"))
    folder.chmod(0o711)  # instances run as other users, and read the bundle
    try:
        authority = make_authority(folder)
        bundle = folder / "bundle.pem"
        bundle.write_bytes(_trusted_here() + authority.ca.read_bytes())
        bundle.chmod(PLAIN)
        repositories = folder / "repositories"
        repositories.mkdir()
        with serving(authority, repositories) as server:
            yield Origin(server, bundle, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    """One for all tests of a module; its control plane is to be made with its `settings`."""
    with open_origin() as opened:
        yield opened


def _trusted_here() -> bytes:
    """The host's own certificates, in PEM."""
    paths = ssl.get_default_verify_paths()
    for name in (os.environ.get("SSL_CERT_FILE"), paths.cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if name and (path := Path(name)).is_file():
            return path.read_bytes()
    return b""


def _git(folder: Path, *argv: str, **options: Any) -> str:
    command = ["git", "-c", "protocol.file.allow=always", *argv]
    done = subprocess.run(command, cwd=folder, env=AUTHOR, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"git {' '.join(argv)}: {done.stderr}"
    return done.stdout.strip()
