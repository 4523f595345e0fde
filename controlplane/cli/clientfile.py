"""A client's configuration file: read, changed in memory, and put back whole, with a copy of what was there.

Owns the ways a file can be lost, and refuses each: it is replaced in one step and never written over, keeps its mode
and owner, is left alone when it changed in between or cannot be parsed, and its earlier content stays beside it.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click
from attrs import frozen

from controlplane.cli.exits import CommandFailed, Exit, Problem
from controlplane.cli.inputs import parse_jsonc
from controlplane.cli.jsonc import NotJsonc, with_item, with_member
from controlplane.cli.tomltext import NotToml, parse, with_table

MAX_BYTES = 64 * 1024 * 1024
"""A settings file is smaller; Claude Code's, which holds its history as well, by far."""
NEW_FILE_MODE = 0o600
"""A file that we make may hold a token."""

Form = Literal["json", "toml"]


@frozen
class Found:
    """A file as it was read; `content` is None where there is none yet."""

    path: Path
    content: bytes | None
    form: Form

    @property
    def text(self) -> str:
        return (self.content or b"").decode("utf-8")

    @property
    def others_may_read(self) -> bool:
        """Whether users other than its owner may read it."""
        return self.content is not None and bool(self.path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))

    def server(self, keys: Sequence[str], name: str) -> Any:
        """Return the entry of this name, None without one."""
        level: Any = _document(self)
        for key in (*keys, name):
            level = level.get(key) if isinstance(level, Mapping) else None
        return level


def _refused(path: Path, reason: str, hint: str) -> CommandFailed:
    return CommandFailed(Problem(title=f"{path} was left as it is", detail=reason, hint=hint), Exit.FAILED)


def find(path: Path, form: Form) -> Found:
    """Read a file; a link is followed, so that the file itself is changed and not the link.

    Raises:
        CommandFailed: it cannot be read, or is not what it should be.
    """
    path = Path(os.path.realpath(path))
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b"\xff"
    except FileNotFoundError:
        return Found(path, None, form)
    except OSError as error:
        raise _refused(path, f"it cannot be read: {error.strerror}", "") from error
    found = Found(path, content, form)
    _document(found)
    return found


def _document(found: Found) -> Any:
    mend = "Mend it, or write the entry yourself: without --write it is only shown."
    try:
        text = found.text.removeprefix("\ufeff")
        if found.form == "toml":
            return parse(text)
        document = parse_jsonc((found.content or b""), found.path.name) if text.strip() else {}
    except UnicodeDecodeError as error:
        raise _refused(found.path, "it is not UTF-8 text", mend) from error
    except NotToml as error:
        raise _refused(found.path, f"it cannot be parsed: {error}", mend) from error
    except click.UsageError as error:
        raise _refused(found.path, f"it cannot be parsed: {error.message}", mend) from error
    if not isinstance(document, dict):
        raise _refused(found.path, "it is no JSON object", mend)
    return document


def changed(found: Found, keys: Sequence[str], name: str, entry: Mapping[str, Any], asks: Any = None) -> str:
    """Return the file's text with an entry set.

    Args:
        found: The file.
        keys: The names that lead to its servers.
        name: The entry's name.
        entry: The entry.
        asks: An item for the file's `inputs`, where one is needed.

    Raises:
        CommandFailed: the file stands in a way that cannot be changed safely.
    """
    by_hand = "Write the entry yourself: without --write it is only shown."
    try:
        if found.form == "toml":
            return with_table(found.text, (*keys, name), entry)
        text = with_member(found.text, (*keys, name), dict(entry))
        if asks is not None and asks not in (_document(found).get("inputs") or ()):
            text = with_item(text, ("inputs",), asks)
    except (NotToml, NotJsonc) as error:
        raise _refused(found.path, str(error), by_hand) from error
    written = _document(Found(found.path, text.encode(), found.form))
    if written | {"inputs": None} != _with(_document(found), [*keys, name], entry) | {"inputs": None}:
        raise _refused(found.path, "it is written in a way that was not understood", by_hand)
    return text


def _with(document: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    name, *rest = path
    return {**document, name: _with(document.get(name) or {}, rest, value) if rest else value}


def replace(found: Found, text: str) -> Path | None:
    """Put a file back with another content, in one step; returns where its earlier content is.

    Raises:
        CommandFailed: it cannot be written, or it changed since it was read.
    """
    path = found.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        backup = _copied(found) if found.content is not None else None
        _written(found, text.encode())
    except OSError as error:
        raise _refused(path, f"it cannot be written: {error.strerror}", "") from error
    return backup


def _copied(found: Found) -> Path:
    """Write what was there to a new file beside it, which only its owner may read if that was so."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1, 100):
        suffix = f".{stamp}.bak" if number == 1 else f".{stamp}-{number}.bak"
        backup = found.path.with_name(found.path.name + suffix)
        try:
            _made(backup, found.content or b"", found.path.stat())
        except FileExistsError:
            continue
        return backup
    raise FileExistsError(17, "there are too many copies of it")


def _made(path: Path, content: bytes, like: os.stat_result | None) -> None:
    """Make a new file, like another in mode and owner, and have it on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, NEW_FILE_MODE)
    with open(descriptor, "wb") as file:
        file.write(content)
        if like is not None:
            if os.geteuid() == 0:
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        file.flush()
        os.fsync(descriptor)


def _written(found: Found, content: bytes) -> None:
    path = found.path
    draft = path.with_name(f".{path.name}.{os.getpid()}.corral")
    like = path.stat() if found.content is not None else None
    _made(draft, content, like)
    try:
        if (path.read_bytes() if path.exists() else None) != found.content:
            raise _refused(path, "another program wrote it in the meantime", "Close the client, and run this again.")
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
