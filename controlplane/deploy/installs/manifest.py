"""What an install consists of: every folder, file and link by its path, and what each must be. Pure.

Paths and link targets are `os.fsdecode`d: any name that a file system holds
survives, one that is not UTF-8 or has a line break too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from attrs import frozen

VERSION = 1
FOLDER_MODE = 0o755
FILE_MODE = 0o444
PROGRAM_MODE = 0o555


class ManifestUnreadable(ValueError):
    """It is not what this version of Corral writes."""


@frozen
class File:
    """A file's content. `mode` is `FILE_MODE` or `PROGRAM_MODE`."""

    mode: int
    size_bytes: int
    sha256: str


@frozen(kw_only=True)
class Manifest:
    """Paths are relative to the tree, which is not in it itself."""

    folders: frozenset[str]
    files: Mapping[str, File]
    links: Mapping[str, str]
    """Where each symbolic link says it leads."""
    papers: Mapping[str, str]
    """SHA-256 of the small files beside the tree, by name."""

    def __len__(self) -> int:
        return len(self.folders) + len(self.files) + len(self.links)

    def to_json(self) -> bytes:
        document = {
            "version": VERSION,
            "folders": sorted(self.folders),
            "files": {path: [file.mode, file.size_bytes, file.sha256] for path, file in sorted(self.files.items())},
            "links": dict(sorted(self.links.items())),
            "papers": dict(self.papers),
        }
        return json.dumps(document, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, raw: bytes) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            ManifestUnreadable: it is something else.
        """
        try:
            document = json.loads(raw)
            if document["version"] != VERSION:
                raise ManifestUnreadable(f"its version is {document['version']}, not {VERSION}")
            return cls(
                folders=frozenset(document["folders"]),
                files={path: File(*members) for path, members in document["files"].items()},
                links=dict(document["links"]),
                papers=dict(document["papers"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ManifestUnreadable(f"it cannot be read: {error!r}") from None

    def by_folder(self) -> dict[str, list[tuple[str, str]]]:
        """The files and links of each folder as (name, path); folders come after the ones they are in, top ("") first."""
        found: dict[str, list[tuple[str, str]]] = {path: [] for path in ("", *_depth_first(self.folders))}
        for path in (*self.files, *self.links):
            folder, _, name = path.rpartition("/")
            found[folder].append((name, path))
        return found


def is_below(path: str, roots: Iterable[str]) -> bool:
    """Whether a path is one of `roots` or in one of them; "." is the whole tree."""
    return any(root in (".", path) or path.startswith(f"{root}/") for root in roots)


def _depth_first(folders: Iterable[str]) -> list[str]:
    return sorted(folders, key=lambda path: path.split("/"))
