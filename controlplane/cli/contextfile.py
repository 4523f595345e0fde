"""The contexts that a user keeps: control planes by name, each with its address, its token and how to treat it.

Owns the file: only its owner may read it, it is replaced in one step and never written over, and what it says is
checked before anything of it is used.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import asdict, evolve, field, frozen

from controlplane.cli.exits import CommandFailed, Exit, Problem
from controlplane.cli.target import LOCAL

COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
"""The colours that every terminal has by name."""
MAX_BYTES = 64 * 1024
"""Of the file: hundreds of contexts, and still handed to the dashboard in one environment variable (128 KiB)."""
FILE_MODE, FOLDER_MODE = 0o600, 0o700
OTHERS = 0o077
"""The permissions of everybody but the owner."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TOKEN = re.compile(r"[!-~]+")


@frozen(kw_only=True)
class Context:
    """One control plane. With `read_only` the command line changes nothing on it."""

    url: str
    token: str | None = field(default=None, repr=False)
    colour: str = ""
    read_only: bool = False


@frozen
class Contexts:
    """All that are kept, by name, and the one that `context use` chose; None is the control plane on this machine."""

    known: Mapping[str, Context] = field(factory=dict)
    current: str | None = None

    def with_context(self, name: str, context: Context) -> Contexts:
        return evolve(self, known={**self.known, name: context})

    def without(self, name: str) -> Contexts:
        """Return the rest; when it was the current one, the one on this machine is."""
        rest = {other: context for other, context in self.known.items() if other != name}
        return Contexts(rest, None if self.current == name else self.current)


def path_of_contexts(environ: Mapping[str, str]) -> Path:
    """Return where the file is; a relative `XDG_CONFIG_HOME` counts as unset, as its specification has it."""
    named = environ.get("XDG_CONFIG_HOME", "")
    folder = Path(named) if named.startswith("/") else Path.home() / ".config"
    return folder / "corral" / "contexts.json"


# --- What may stand in it ---------------------------------------------------------------------------------------------


def wrong_name(name: str) -> str:
    """Say what is wrong with a context's name; empty for a good one."""
    if name == LOCAL:
        return f"{LOCAL!r} is the control plane on this machine, and is always there"
    return "" if _NAME.fullmatch(name) else f"{name!r} is no name: letters, digits, '.', '_' and '-', at most 63"


def wrong_url(url: str) -> str:
    """Say what is wrong with a control plane's address; empty for a good one.

    An address is shown and a token is not, so none with a password in it is taken.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        return f"{url!r} is not an http:// or https:// URL"
    if "@" in parts.netloc:
        return "the URL holds a user or a password: only the token lets one in"
    return "the URL holds a query or a fragment" if parts.query or parts.fragment else ""


def wrong_token(token: str) -> str:
    """Say what is wrong with a token, without showing it; empty for a good one."""
    return "" if _TOKEN.fullmatch(token) else "the token is empty, or holds what no token holds"


def _wrong(name: str, entry: Any) -> str:
    """Say what is wrong with one context of the file; an unknown member may be a mistyped `read_only`."""
    if wrong_name(name):
        return wrong_name(name)
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
        return f"{name!r} has no url"
    unknown = sorted(set(entry) - {"url", "token", "colour", "read_only"})
    if unknown:
        return f"{name!r} has an unknown member {unknown[0]!r}"
    token, colour = entry.get("token"), entry.get("colour", "")
    if colour not in ("", *COLOURS):
        return f"{name!r} has an unknown colour {colour!r}"
    if not isinstance(entry.get("read_only", False), bool):
        return f"{name!r}: read_only is neither true nor false"
    if token is not None and not isinstance(token, str):
        return f"{name!r}: the token is no text"
    found = wrong_url(entry["url"]) or (wrong_token(token) if token is not None else "")
    return f"{name!r}: {found}" if found else ""


def parse(content: bytes) -> Contexts:
    """Read the file's content.

    Raises:
        ValueError: it is not what the file holds; the message says where, and shows no token.
    """
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(document, dict) or not isinstance(document.get("contexts"), dict):
        raise ValueError('it is no JSON object with "contexts"')
    wrong = next((found for entry in document["contexts"].items() if (found := _wrong(*entry))), "")
    if wrong:
        raise ValueError(wrong)
    current = document.get("current")
    if current is not None and not isinstance(current, str):
        raise ValueError('"current" is no name')
    known = {
        name: Context(**{**entry, "url": entry["url"].rstrip("/")}) for name, entry in document["contexts"].items()
    }
    return Contexts(known, current)


# --- The file ---------------------------------------------------------------------------------------------------------


def _unusable(path: Path, reason: str, hint: str) -> CommandFailed:
    return CommandFailed(
        Problem(title="The contexts cannot be used", detail=f"{path}: {reason}", hint=hint), Exit.USAGE
    )


def read(path: Path) -> Contexts:
    """Read the contexts that are kept; none without a file.

    Raises:
        CommandFailed: others may read the file, or it cannot be read or understood.
    """
    mend = f"Mend it, or move it away; --context {LOCAL} does without it."
    try:
        # A pipe in its place must not hold the command up; what was opened is what is judged.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise _unusable(path, f"it cannot be read: {error.strerror}", mend) from error
    with open(descriptor, "rb", buffering=0) as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _unusable(path, "it is no file", mend)
        if mode & OTHERS:
            raise _unusable(
                path,
                "others can read it or write it, and it holds tokens",
                f"chmod 600 {path}\nOthers may have read the tokens: replace them.",
            )
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _unusable(path, f"it is larger than {MAX_BYTES // 1024} KiB", mend)
    try:
        return parse(content)
    except ValueError as error:
        raise _unusable(path, str(error), mend) from error


@contextmanager
def changing(path: Path) -> Iterator[Path]:
    """Hold the file for a change, from reading it to writing it: of two changes at once, none is lost.

    Raises:
        CommandFailed: its folder cannot be made or opened.
    """
    path = Path(os.path.realpath(path))  # a link is followed, so that the file itself is replaced and not the link
    try:
        path.parent.mkdir(parents=True, mode=FOLDER_MODE, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(path.parent, f"it cannot be made or opened: {error.strerror}", "") from error
    try:
        # Whoever holds it writes a small file and asks nobody anything; the kernel lets go of it with the process.
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(folder)


def write(path: Path, contexts: Contexts) -> None:
    """Put the file in place in one step, for its owner only.

    Raises:
        CommandFailed: it cannot be written, or would be larger than is read again.
    """
    known = {name: asdict(context) for name, context in contexts.known.items()}
    content = json.dumps({"current": contexts.current, "contexts": known}, indent=2).encode() + b"\n"
    if len(content) > MAX_BYTES:
        raise _unusable(path, f"it would be larger than {MAX_BYTES // 1024} KiB", "Remove contexts that nobody uses.")
    draft = path.with_name(f".{path.name}.{os.getpid()}.corral")
    try:
        if path.parent.name == "corral" and path.parent.stat().st_mode & OTHERS:
            path.parent.chmod(FOLDER_MODE)
        _put(draft, content)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise _unusable(path, f"it cannot be written: {error.strerror}", "") from error


def _put(draft: Path, content: bytes) -> None:
    draft.unlink(missing_ok=True)  # left by a process of this id that was killed
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
