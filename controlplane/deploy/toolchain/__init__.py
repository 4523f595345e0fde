"""The tools that instances run on: interpreters, compilers, package managers, in one folder that every instance can read.

A tool of the host is linked. One that lies where another user cannot look (below
a 0700 home, in a private checkout) is carried below CORRAL_HOME: what every
server needs at the start, a whole toolchain when it is first wanted (`provide`).
So instances get one PATH, whoever they run as, and what is said to be there is
what that PATH finds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import field, frozen

from controlplane.deploy.toolchain.bundles import Carrier
from controlplane.deploy.toolchain.find import Found, Refused, Tool, look, search_path
from controlplane.deploy.toolchain.links import link, write_script
from controlplane.deploy.toolchain.reach import is_open, is_reachable
from controlplane.deploy.toolchain.survey import Runtime, advice, languages, report
from controlplane.deploy.toolchain.table import BY_NAME, SYSTEM_PATH, USUAL_PLACES
from controlplane.deploy.toolchain.versions import Answer, Question, VersionBook

__all__ = ["SYSTEM_PATH", "Runtime", "Toolchain", "build", "is_reachable", "of_host"]


@frozen(kw_only=True)
class Toolchain:
    """Where tools are. From any thread.

    Args:
        path: An instance's PATH.
        tools: A name's file on it, None if instances cannot run it. A file that is not there yet comes with `provide`.
        found: What each was found to be.
        by_others: Whether instances run as users of their own.
        carrier: Carries what cannot be run where it is.
        book: Knows the versions.
    """

    path: str
    tools: dict[str, str | None] = field(factory=dict)
    found: Found = field(factory=dict, eq=False, repr=False)
    by_others: bool = False
    carrier: Carrier | None = field(default=None, eq=False, repr=False)
    book: VersionBook = field(eq=False, repr=False)

    @book.default
    def _book_of_this_life(self) -> VersionBook:
        return VersionBook(None, self.path)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that instances cannot run."""
        return [name for name in names if self.tools.get(name) is None]

    def advice(self, names: Iterable[str]) -> str:
        """One sentence on how to get tools that are missing, and what is wrong with those that are there."""
        entries = {name: self.found.get(name) for name in names}
        return advice({name: entry.why if isinstance(entry, Refused) else "" for name, entry in entries.items()})

    def provide(self, names: Iterable[str], check: Callable[[], object] = lambda: None) -> None:
        """Make sure that these tools are where `tools` says. Blocking; run it in a thread.

        The first time it may copy hundreds of megabytes; after that it costs a look. Those who want the same wait for
        one another, so nothing is copied twice. Names that are no tools here are passed over.

        Args:
            names: What is wanted.
            check: Called between files; what it raises gives the work up (`trio.from_thread.check_cancelled`).

        Raises:
            BuildFailed: a tool cannot be read, or the disk is full.
        """
        if self.carrier is None:
            return
        for name in names:
            tool = self.found.get(name)
            if isinstance(tool, Tool) and tool.bundle is not None:
                self.carrier.carry(tool.bundle, check)

    def versions(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """The version of each tool that is there, for keys: the same for as long as the tool's file is. Blocking.

        A tool that does not say is known by a mark of its file instead. Costs a look at each file; one that is new
        or changed is asked, for at most ten seconds.

        Args:
            names: Which; None: all.
        """
        wanted = list(self.tools if names is None else names)
        answers = self._ask(wanted)
        return {name: answers[name].version or _mark(self._file(name)) for name in wanted if name in answers}

    def survey(self) -> tuple[Runtime, ...]:
        """Say for each language whether it can be run here. Blocking."""
        wanted = {name for tools in languages().values() for name in tools}
        there = {name: Tool(name=name, file=self._file(name)) for name, file in self.tools.items() if file is not None}
        return report(there | dict(self.found), self._ask(wanted))

    def _ask(self, names: Iterable[str]) -> dict[str, Answer]:
        there = [name for name in dict.fromkeys(names) if self.tools.get(name) is not None]
        return self.book.ask([self._question(name) for name in there])

    def _question(self, name: str) -> Question:
        """A tool that has yet to be carried is asked where it is, which only Corral's own user can."""
        said, tool, file = self.tools[name] or "", self.found.get(name), self._file(name)
        ready = is_reachable(Path(said), by_others=self.by_others)
        by = [str(self._file(tool.by))] if isinstance(tool, Tool) and tool.by is not None else []
        argv = [said] if ready else [*by, str(file)]
        return Question(name=name, argv=tuple(argv), file=file, as_nobody=self.by_others and ready)

    def _file(self, name: str) -> Path:
        tool = self.found.get(name)
        return tool.file if isinstance(tool, Tool) else Path(self.tools[name] or "")


def build(
    folder: Path,
    *,
    by_others: bool,
    host_path: str,
    system_path: tuple[str, ...] = SYSTEM_PATH,
    usual_places: tuple[str, ...] = USUAL_PLACES,
    environ: Mapping[str, str] = os.environ,
) -> Toolchain:
    """Fill `folder` with links (and copies where needed). Blocking; run it in a thread.

    Args:
        folder: Ours alone; readable by all.
        by_others: Whether instances run as users of their own.
        host_path: The control plane's PATH, searched first.
        system_path: The system's folders, searched after it.
        usual_places: Where installers put tools; searched last, and not on the instances' PATH.
        environ: Corral's own environment, which says where rustup is.

    Raises:
        BuildFailed: what every instance needs cannot be made readable for them.
    """
    bin_folder = folder / "bin"
    bin_folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.chmod(folder, 0o755)
    os.chmod(bin_folder, 0o755)
    on_path = [place for place in search_path(host_path, *system_path) if place != bin_folder]
    found = look([*on_path, *search_path(*usual_places)], by_others=by_others, environ=environ)
    carrier = Carrier(folder)
    bundles = {tool.bundle for tool in found.values() if isinstance(tool, Tool) and tool.bundle is not None}
    carrier.clear({bundle.place(folder) for bundle in bundles})
    tools = {name: _place(found.get(name), name, bin_folder, carrier) for name in BY_NAME}
    reachable = [str(place) for place in on_path if is_open(place, by_others=by_others)]
    path = os.pathsep.join([str(bin_folder), *reachable])
    book = VersionBook(folder / "versions.json", path)
    return Toolchain(path=path, tools=tools, found=found, by_others=by_others, carrier=carrier, book=book)


def of_host(*, by_others: bool, host_path: str, environ: Mapping[str, str] = os.environ) -> Toolchain:
    """What `build` would find, with every tool where it is: to be surveyed, not to run instances on. Changes nothing.

    Args:
        by_others: Whether instances would run as users of their own.
        host_path: The control plane's PATH.
        environ: Its environment, which says where rustup is.
    """
    on_path = search_path(host_path, *SYSTEM_PATH)
    found = look([*on_path, *search_path(*USUAL_PLACES)], by_others=by_others, environ=environ)
    tools = {name: str(tool.file) for name, tool in found.items() if isinstance(tool, Tool)}
    return Toolchain(path=os.pathsep.join(map(str, on_path)), tools=dict(tools), found=found, by_others=by_others)


def _place(tool: Tool | Refused | None, name: str, bin_folder: Path, carrier: Carrier) -> str | None:
    """Put one tool into the folder of links; a link of an earlier life goes where there is no such tool now."""
    names = ("python", "python3") if name == "python" else (name,)
    if not isinstance(tool, Tool):
        for each in names:
            (bin_folder / each).unlink(missing_ok=True)
        return None
    target = tool.file
    if tool.bundle is not None:
        target = tool.bundle.file_in(carrier.folder, tool.file)
        if tool.at_once:
            carrier.carry(tool.bundle, lambda: None)
    if tool.by is not None:
        write_script(bin_folder / name, f'#!/bin/sh\nexec "{bin_folder}/{tool.by}" "{target}" "$@"\n')
        return str(bin_folder / name)
    for each in names:
        link(bin_folder / each, target)
    return str(bin_folder / name)


def _mark(file: Path) -> str:
    status = file.stat()
    return f"unknown-{status.st_size}-{status.st_mtime_ns}"
