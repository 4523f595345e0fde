"""Which names the entries of an archive or a repository may have, and whether they can stand in one tree. Pure.

A name is refused if it could mean another place than it says: on this system,
on another one, or to a person who reads it. Two names collide if a file system
that folds case or normalises Unicode would take them for one; so do two
spellings of one folder.

What no project needs is left out, its names checked all the same: `.git`, which
would be big, and whose hooks and configuration nobody should run; and what
macOS puts beside files (`__MACOSX`, `._name`, `.DS_Store`).
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum

from attrs import Factory, define, field

from controlplane.deploy.source.refusal import Refused, spelled

PART_MAX_BYTES = 255
"""Of one component: what Linux's file systems take."""
PATH_MAX_BYTES = 1024
"""Of a whole name: a quarter of the kernel's limit, so that there is room for the folder that the tree stands in."""
MAX_DEPTH = 40
"""Components of a name. Each costs an open folder while the tree is written; real sources have up to twenty."""
MAX_NODES = 100_000
"""Files, links and folders of one tree, those that are only named on the way included: each costs an inode."""
MAX_FOLDERS = 20_000
"""Of those, folders. Real sources have hundreds; to remove one can take a file system half a millisecond and more."""
NAMES_MAX_BYTES = 8 * 2**20
"""All components together: they are kept in memory, up to four times over."""

_DRIVE = re.compile(r"[A-Za-z]:")
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They show a name in another order than it has."""
_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, lone surrogates (bytes that were no UTF-8), line and paragraph separators."""

Parts = tuple[str, ...]


class Kind(Enum):
    """What an entry is."""

    FILE = "a file"
    FOLDER = "a folder"
    LINK = "a link"


def decoded(raw: bytes) -> str:
    """A name's text.

    Raises:
        Refused: it is not UTF-8, and which other encoding it is in cannot be told.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Refused(
            "is not UTF-8, and its encoding cannot be told", entry=raw, hint="Rename it, or pack with UTF-8 names."
        ) from None


def parts_of(name: str) -> Parts:
    """The components of a name; none of them means the root itself.

    A leading `./` and a slash at the end are as tar and zip write them, and fine.

    Raises:
        Refused: the name could mean another place than it says.
    """
    _check_characters(name, name)
    if name.startswith("/"):
        raise Refused("is an absolute path", entry=name, hint="Pack the folder with names relative to it.")
    if _DRIVE.match(name):
        raise Refused("begins with a drive letter", entry=name, hint="Pack the folder with names relative to it.")
    rest = name
    while rest.startswith("./"):
        rest = rest[2:]
    rest = rest.removesuffix("/")
    if rest in {"", "."} and name:
        return ()
    parts = tuple(rest.split("/"))
    if ".." in parts:
        raise Refused("leads out of the folder it is in", entry=name)
    if "" in parts or "." in parts:
        raise Refused("has an empty part", entry=name)
    _check_lengths(name, parts)
    return parts


def fold(part: str) -> str:
    """What is the same for all names that some file system takes for one (Unicode's canonical caseless match)."""
    if part.isascii():
        return part.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", part).casefold())


@define
class _Node:
    name: str
    kind: Kind
    children: dict[str, _Node] = field(factory=dict)
    """By folded name."""


@define
class EntryNames:
    """The names of one tree, as they are met.

    Args:
        max_nodes: Files, links and folders, those that are left out included.
    """

    max_nodes: int = MAX_NODES
    left_out: dict[str, int] = field(factory=dict, init=False)
    """How many entries of each sort were left out, by what an owner calls it."""
    _folders: int = field(default=0, init=False)
    _root: _Node = field(default=Factory(lambda: _Node("", Kind.FOLDER)), init=False)
    nodes: int = field(default=0, init=False)
    """Files, links and folders so far, those that were only named on the way included."""
    _bytes: int = field(default=0, init=False)

    def add(self, name: str, kind: Kind) -> Parts | None:
        """Take an entry in, and say where it stands; () is the root itself, None that it is left out.

        Raises:
            Refused: it cannot stand in a tree, or not beside the others.
        """
        parts = parts_of(name)
        if kind is not Kind.FOLDER and (not parts or name.endswith("/")):
            raise Refused(f"is {kind.value} with the name of a folder", entry=name)
        if sort := _needless(parts):
            self._count(name)
            self.left_out[sort] = self.left_out.get(sort, 0) + 1
            return None
        node = self._root
        for part in parts[:-1]:
            node = self._child(node, part, Kind.FOLDER, name)
        if parts:
            self._child(node, parts[-1], kind, name, is_last=True)
        return parts

    def only_folder(self) -> str | None:
        """The folder that everything else is in, as in the archives of code hosts; None if there is no such."""
        only = next(iter(self._root.children.values())) if len(self._root.children) == 1 else None
        return only.name if only is not None and only.kind is Kind.FOLDER else None

    def has_target(self, link: Parts, target: str, root: Parts = ()) -> bool:
        """Whether what a link points at is among the entries; to be asked when all are in.

        No link leads through another one, so a target is where its text says.

        Args:
            link: A link that was added.
            target: What it holds.
            root: The folder, of those `link` is in, that it must stay below.

        Raises:
            Refused: it leads out of `root`, or through another link.
        """
        entry = "/".join(link)
        _check_target(entry, target)
        way = self._way_to(link[:-1])
        is_lost = False
        for part in target.split("/"):
            here = way[-1]
            is_lost = is_lost or here is None or here.kind is not Kind.FOLDER
            if part == "..":
                way.pop()
                if len(way) <= len(root):
                    raise Refused(f"is a link out of the source, to {spelled(target)}", entry=entry)
            elif part not in {"", "."}:
                child = here.children.get(fold(part)) if here is not None else None
                if child is not None and child.kind is Kind.LINK:
                    raise Refused(f"is a link through another link, {spelled(child.name)}", entry=entry)
                is_lost = is_lost or child is None or child.name != part
                way.append(child)
        return not is_lost

    def _way_to(self, folder: Parts) -> list[_Node | None]:
        way: list[_Node | None] = [self._root]
        node = self._root
        for part in folder:
            node = node.children[fold(part)]
            way.append(node)
        return way

    def _child(self, above: _Node, part: str, kind: Kind, entry: str, *, is_last: bool = False) -> _Node:
        key = fold(part)
        child = above.children.get(key)
        if child is None:
            self._count(entry, part, is_folder=kind is Kind.FOLDER)
            child = above.children[key] = _Node(part, kind)
        elif child.name != part:
            raise Refused(
                f"differs from {spelled(child.name)} only in case or in how its letters are encoded", entry=entry
            )
        elif child.kind is not kind:
            raise Refused(f"needs {spelled(part)} to be {kind.value}, but that is {child.kind.value}", entry=entry)
        elif is_last and kind is not Kind.FOLDER:
            raise Refused("is in it twice", entry=entry)
        return child

    def _count(self, entry: str, part: str = "", *, is_folder: bool = False) -> None:
        self.nodes += 1
        self._folders += is_folder
        self._bytes += len(part.encode())
        if self.nodes > self.max_nodes or self._folders > MAX_FOLDERS:
            raise Refused(
                f"is one too many: a source has at most {self.max_nodes:,} files and folders, and {MAX_FOLDERS:,} folders",
                entry=entry,
                hint="Leave out what the build fetches anyway, such as node_modules.",
            )
        if self._bytes > NAMES_MAX_BYTES:
            raise Refused(f"is too much: all names together have more than {NAMES_MAX_BYTES:,} bytes", entry=entry)


def _needless(parts: Parts) -> str | None:
    folded = [part.lower() for part in parts]
    if ".git" in folded:
        return "Git's own folder"
    if folded and (folded[0] == "__macosx" or folded[-1] == ".ds_store" or any(p.startswith("._") for p in folded)):
        return "macOS's own files"
    return None


def _check_characters(text: str, entry: str) -> None:
    if "\\" in text:
        raise Refused("has a backslash", entry=entry, hint="Use `/` between folders, and no `\\` in names.")
    if text.isascii() and text.isprintable():
        return
    if any(char in _BIDI or unicodedata.category(char) in _UNSEEN for char in text):
        raise Refused("has a control character, or is not UTF-8", entry=entry)


def _check_lengths(name: str, parts: Parts) -> None:
    if len(parts) > MAX_DEPTH:
        raise Refused(f"is more than {MAX_DEPTH} folders deep", entry=name)
    if len(name.encode()) > PATH_MAX_BYTES:
        raise Refused(f"is longer than {PATH_MAX_BYTES:,} bytes", entry=name)
    if any(len(part.encode()) > PART_MAX_BYTES for part in parts):
        raise Refused(f"has a part of more than {PART_MAX_BYTES} bytes", entry=name)


def _check_target(entry: str, target: str) -> None:
    try:
        _check_characters(target, target)
    except Refused as refused:
        raise Refused(f"is a link to what cannot be: {refused}", entry=entry, hint=refused.hint) from None
    if target.startswith("/") or _DRIVE.match(target):
        raise Refused(f"is a link out of the source, to {spelled(target)}", entry=entry)
    if not target or len(target.encode()) > PATH_MAX_BYTES:
        raise Refused("is a link whose target is empty or too long", entry=entry)
