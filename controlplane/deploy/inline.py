"""Which language a single file is in, by its name and its beginning. Pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from runtimes import catalog

HEAD_BYTES = 64 * 1024
"""How far a file is looked into: a header of inline metadata stands near its top."""
_PEP_723 = re.compile(rb"^# /// script[ \t]*\r?$", re.MULTILINE)
_SHEBANG = re.compile(rb"#![ \t]*(\S+)([^\n]*)")
_PHP = b"<?php"
_ELF = b"\x7fELF"


def guess(entry_point: str, source: bytes) -> str | None:
    """The language of one file, by its suffix, its `#!` line, its inline metadata (PEP 723); None if nothing tells.

    Args:
        entry_point: Its name; empty where it has none.
        source: Its content.
    """
    head = source[:HEAD_BYTES]
    return catalog.of_file(entry_point) or _known(_of_shebang(head) or _of_content(head))


def _of_shebang(head: bytes) -> str | None:
    found = _SHEBANG.match(head)
    if found is None:
        return None
    words = [found[1].decode("utf-8", "replace"), *found[2].decode("utf-8", "replace").split()]
    if PurePosixPath(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    language = catalog.of_command(words[0]) if words else "binary"
    return None if language == "binary" else language


def _of_content(head: bytes) -> str | None:
    if _PEP_723.search(head):
        return "python"
    if head.startswith(_PHP):
        return "php"
    return "binary" if head.startswith(_ELF) else None


def _known(language: str | None) -> str | None:
    """Only what can be run from source here counts."""
    return language if language in catalog.LANGUAGES else None
