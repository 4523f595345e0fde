"""The filter line: `text`, `!text`, `-l label`, `-f fuzzy`, as in k9s. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.board.rows import Row

Wanted = Callable[["Row"], bool]


def parse(text: str) -> Wanted:
    """Return whether a row is wanted.

    `word` finds it in name, owner, status, language or reason, in any case; several words must all be there. `!word`
    leaves out what has it. `-l key` and `-l key=value` look at labels (`!=` too), `-f abc` finds the letters of a name in
    their order. Empty wants everything.
    """
    stripped = text.strip()
    if stripped.startswith("-l"):
        return _by_label(stripped[2:].strip())
    if stripped.startswith("-f"):
        return _fuzzily(stripped[2:].strip())
    words = [_word(word) for word in stripped.split()]
    return lambda row: all(wanted(row) for wanted in words)


def _word(word: str) -> Wanted:
    if word.startswith("!"):
        unwanted = word[1:].lower()
        return lambda row: not unwanted or unwanted not in _haystack(row)
    needle = word.lower()
    return lambda row: needle in _haystack(row)


def _haystack(row: Row) -> str:
    reason = row.trouble.reason if row.trouble is not None else ""
    return "\n".join((row.name, row.owner, row.status, row.language, row.id, reason)).lower()


def _by_label(text: str) -> Wanted:
    key, unequal, value = text.partition("!=")
    if unequal:
        return lambda row: row.labels.get(key.strip()) != value.strip()
    key, equal, value = text.partition("=")
    if equal:
        return lambda row: row.labels.get(key.strip()) == value.strip()
    return lambda row: not key.strip() or key.strip() in row.labels


def _fuzzily(text: str) -> Wanted:
    letters = text.lower()

    def wanted(row: Row) -> bool:
        rest = iter(row.name.lower())
        return all(letter in rest for letter in letters)

    return wanted
