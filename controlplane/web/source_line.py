"""Where a revision's source comes from, in one line that anybody may see. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from controlplane.core.redact import redactor
from controlplane.wire.redact import redact_args

if TYPE_CHECKING:
    from controlplane.model import Origin, Spec

MAX_CHARS = 200
SHORT_DIGEST_CHARS = 12


def source_line(spec: Spec) -> str:
    """A command as one would type it, a repository with its ref, an archive's address, or what a file is called."""
    if spec.command is not None:
        words = [redactor(spec.env)(spec.command.command), *redact_args(spec.command.args, spec.env)]
        return _short(shlex.join(words))
    if spec.origin is not None:
        return _short(_origin(spec.origin))
    return spec.entry_point or ""


def _origin(origin: Origin) -> str:
    folder = f" in {origin.subdir}" if origin.subdir else ""
    if origin.url is None:
        size = "" if origin.size_bytes is None else f", {_size(origin.size_bytes)}"
        return f"upload {(origin.sha256 or '')[:SHORT_DIGEST_CHARS]}{size}{folder}"
    ref = f"#{origin.ref}" if origin.ref else ""
    return f"{_without_secrets(origin.url)}{ref}{folder}"


def _without_secrets(url: str) -> str:
    """No query, which may hold a signature, and no user's name."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _size(size_bytes: int) -> str:
    if size_bytes < 10_000:
        return f"{size_bytes} bytes"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1_000_000 else f"{size_bytes / 1e3:.0f} kB"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_CHARS else f"{line[: MAX_CHARS - 1]}…"
