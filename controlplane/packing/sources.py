"""What a word names: a folder, an archive, a file, a repository, an address; and what to send of it."""

from __future__ import annotations

import base64
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from attrs import frozen
from rich.filesize import decimal

from controlplane.packing.folder import Packed, pack
from controlplane.packing.refusal import NotThere, Unusable

INLINE_MAX_BYTES = 4 * 2**20
"""A single file up to this size is sent as it is; a larger one, or a program, goes as an archive."""
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
ELF = b"\x7fELF"
_SCP = re.compile(r"[\w.-]+@[\w.-]+:.+")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9-]+")


@frozen(kw_only=True)
class Source:
    """A source as the API takes it.

    Args:
        fields: Members of the deploy request.
        name: What the instance may be called, if nobody says.
        upload: An archive to send beside the request, open at its beginning.
        packed: What went into it, where it was packed here.
    """

    fields: dict[str, Any]
    name: str
    upload: IO[bytes] | None = None
    packed: Packed | None = None

    @property
    def summary(self) -> str:
        """What is being sent, for a person; empty where nothing is."""
        if self.packed is None:
            return ""
        return f"packed {self.packed.files} files, {decimal(self.packed.size_bytes)}"


def source_of(word: str, stack: ExitStack) -> Source:
    """Read what a word names.

    Args:
        word: A folder, a file, or an address.
        stack: Closes what had to be opened.

    Raises:
        Unusable: it is none of these, or cannot be read.
    """
    if "://" in word or _SCP.fullmatch(word):
        return _address(word)
    path = Path(word)
    try:
        if path.is_dir():
            return _folder(path, stack)
        if path.is_file():
            return _file(path, stack)
    except OSError as error:
        raise Unusable(f"{word}: {error.strerror or error}") from error
    raise NotThere(f"{word!r} is no folder, file or address.")


def _address(word: str) -> Source:
    path = urlsplit(word).path if "://" in word else word.partition(":")[2]
    kind = archive_kind(path) or "git"
    return Source(fields={"source_type": kind, "source_url": word}, name=_name_of(path))


def archive_kind(name: str) -> str | None:
    """`zip` or `tar`, by a file's name; None for anything else."""
    lower = name.lower()
    if lower.endswith(".zip"):
        return "zip"
    return "tar" if lower.endswith(TAR_ENDINGS) else None


def _folder(path: Path, stack: ExitStack) -> Source:
    archive = stack.enter_context(tempfile.TemporaryFile(prefix="corral-pack-"))  # noqa: SIM115  (the stack closes it)
    packed = pack(path, archive)
    archive.seek(0)
    return Source(fields={"source_type": "tar"}, name=_name_of(path.resolve().name), upload=archive, packed=packed)


def _file(path: Path, stack: ExitStack) -> Source:
    kind = archive_kind(path.name)
    if kind is not None:
        return Source(
            fields={"source_type": kind}, name=_name_of(path.name), upload=stack.enter_context(path.open("rb"))
        )
    with path.open("rb") as file:
        content = file.read(INLINE_MAX_BYTES + 1)
    if content.startswith(ELF) or len(content) > INLINE_MAX_BYTES:
        return _lone_program(path, content, stack)
    encoded = base64.b64encode(content).decode()
    fields = {"source_type": "direct", "source_data": encoded, "entry_point": path.name}
    return Source(fields=fields, name=_name_of(path.name))


def _lone_program(path: Path, content: bytes, stack: ExitStack) -> Source:
    """Put one file, too large or not text, into an archive of its own."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corral-pack-")))
    copy = folder / path.name
    copy.write_bytes(content if len(content) <= INLINE_MAX_BYTES else path.read_bytes())
    copy.chmod(0o755)
    source = _folder(folder, stack)
    language = {"language": "binary"} if content.startswith(ELF) else {}
    fields = {**source.fields, "entry_point": path.name, **language}
    return Source(fields=fields, name=_name_of(path.name), upload=source.upload, packed=source.packed)


def _name_of(path: str) -> str:
    """A last path segment as an instance's name: without endings, in the characters that names have."""
    name = PurePosixPath(path.rstrip("/")).name.lower()
    for ending in (*TAR_ENDINGS[::-1], ".zip", ".git"):
        name = name.removesuffix(ending)
    stem = PurePosixPath(name).stem or name
    return _NOT_IN_NAMES.sub("-", stem).strip("-")[:63].strip("-") or "server"
