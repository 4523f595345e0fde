"""The filter line: `text`, `!text`, `-l label`, `-f fuzzy`, as in k9s. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.board.rows import Row

HELP = "word  !not  -l key=value  -f fuzzy"
"""What the line takes, in a line."""

ID_CHARS = 8
"""From so many on, a word may be the beginning of an id; shorter ones are in half of all ids by chance."""

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
    if not stripped:
        return lambda _: True
    with_id = len(stripped) >= ID_CHARS
    return lambda row: has_words(_haystack(row) + ("\n" + row.id if with_id else ""), stripped)


def has_words(haystack: str, text: str) -> bool:
    """Whether all words of a filter hold for a text, in any case: `word` is in it, `!word` is not."""
    lower = haystack.lower()
    return all(_has(lower, word) for word in text.lower().split())


def _has(haystack: str, word: str) -> bool:
    if word.startswith("!"):
        return len(word) == 1 or word[1:] not in haystack
    return word in haystack


def _haystack(row: Row) -> str:
    reason = row.trouble.reason if row.trouble is not None else ""
    return "\n".join((row.name, row.owner, row.status, row.language, reason))


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
