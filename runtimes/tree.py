"""What a runtime may know of a source before it plans: the names of its files, and the text of its manifests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from attrs import field, frozen

MANIFEST_MAX_BYTES = 512 * 1024
"""Of one file; of a longer one only the beginning is seen."""


@frozen(kw_only=True)
class SourceTree:
    """A source as a listing.

    Args:
        files: Paths of regular files below the root, with `/`, without a leading one.
        read: Gives a file's beginning, at most `MANIFEST_MAX_BYTES`; only ever asked for a name in `files`.
    """

    files: frozenset[str]
    read: Callable[[str], bytes] = field(repr=False, eq=False)

    @classmethod
    def of(cls, contents: Mapping[str, bytes | str]) -> SourceTree:
        """A tree that is all in memory."""
        encoded = {name: text.encode() if isinstance(text, str) else text for name, text in contents.items()}
        return cls(files=frozenset(encoded), read=encoded.__getitem__)

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def text(self, name: str) -> str | None:
        """A file's text, up to `MANIFEST_MAX_BYTES`; None if there is no such file, or it is not UTF-8."""
        if name not in self.files:
            return None
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError:
            return None

    def first(self, *names: str) -> str | None:
        """The first of these files that there is."""
        return next((name for name in names if name in self.files), None)

    def at_root(self, pattern: str = "*") -> Iterator[str]:
        """The files of the root folder that fit a pattern, in order of their names."""
        return (name for name in sorted(self.files) if "/" not in name and fnmatchcase(name, pattern))

    def only_file(self, *suffixes: str) -> str | None:
        """The one file of the root with one of these suffixes; None if there are none or several."""
        found = [name for name in self.at_root() if PurePosixPath(name).suffix.lower() in suffixes]
        return found[0] if len(found) == 1 else None
