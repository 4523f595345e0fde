"""Bring a Spec's source into a folder: inline, uploaded, from an archive's address or a repository.

What comes from elsewhere is pinned at its first fetch, by commit or digest; a later
fetch for the same revision brings the same, or fails.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

import trio
from attrs import field, frozen

from controlplane.deploy import trees
from controlplane.deploy.build.workplace import BuildHost, open_workplace
from controlplane.deploy.inbox import ARCHIVE_MAX_BYTES
from controlplane.deploy.installs.keys import scope_of
from controlplane.deploy.source import git
from controlplane.deploy.source.archive import ArchiveKind, unpack
from controlplane.deploy.source.download import download
from controlplane.deploy.source.giturl import read_repository
from controlplane.deploy.source.listing import check_names
from controlplane.errors import SourceRejected
from controlplane.model import SourceType
from runtimes import catalog

if TYPE_CHECKING:
    from controlplane.deploy.source.address import Egress
    from controlplane.deploy.source.uploads import Uploads
    from controlplane.model import Instance, Origin, Spec
    from controlplane.supervise.launch import Progress

FETCHED = "fetched"


@frozen(kw_only=True)
class Fetched:
    """A source on the disk, Corral's own. `facts` pin it."""

    tree: Path
    facts: Mapping[str, str]
    notes: tuple[str, ...] = ()


@frozen(kw_only=True)
class Fetching:
    """Fetches sources on this machine."""

    host: BuildHost
    uploads: Uploads
    egress: Egress = field(repr=False)

    async def fetch(self, instance: Instance, scratch: Path, progress: Progress) -> Fetched:
        """Bring the source of an instance's Spec into `scratch`, an empty folder of Corral's own.

        Raises:
            SourceRejected, ArchiveRejected: it cannot be had, or must not be used.
            BuildFailed: git failed.
            Overloaded: the disk is full.
        """
        spec = instance.spec
        match spec.source_type:
            case SourceType.DIRECT:
                fetched = await trio.to_thread.run_sync(_write_inline, spec, scratch)
            case SourceType.GIT:
                fetched = await self._clone(spec, scratch, progress)
            case _:
                fetched = await self._unpack(instance, scratch, progress)
        subdir = spec.origin.subdir if spec.origin is not None else None
        if subdir is None:
            return fetched
        tree = await trio.to_thread.run_sync(_below, fetched.tree, subdir)
        return Fetched(tree=tree, facts=fetched.facts, notes=fetched.notes)

    async def _unpack(self, instance: Instance, scratch: Path, progress: Progress) -> Fetched:
        spec, facts = instance.spec, dict[str, str]()
        assert spec.origin is not None
        if spec.origin.url is None:
            archive = await self._uploaded(instance.owner, spec.origin)
        else:
            archive, facts = await self._download(spec, spec.origin.url, scratch, progress)
        progress.phase("fetch", "unpack the archive")
        kind = cast("ArchiveKind", spec.source_type.value)
        pointer = "/source_data" if spec.origin.url is None else "/source_url"
        unpacked = await trio.to_thread.run_sync(
            lambda: unpack(archive, kind, scratch / FETCHED, cancelled=_check_cancelled, pointer=pointer)
        )
        return Fetched(tree=scratch / FETCHED, facts=facts, notes=unpacked.notes)

    async def _uploaded(self, owner: str, origin: Origin) -> Path:
        assert origin.sha256 is not None
        archive = await self.uploads.verified(scope_of(owner), origin.sha256)
        if archive is None:
            raise SourceRejected(
                "the uploaded archive is not there any more, or was damaged", hint="deploy it again: corral redeploy"
            )
        return archive

    async def _download(self, spec: Spec, url: str, scratch: Path, progress: Progress) -> tuple[Path, dict[str, str]]:
        progress.phase("fetch", "download the archive")
        archive = scratch / "archive"
        got = await download(
            url,
            archive,
            limit_bytes=ARCHIVE_MAX_BYTES,
            timeout_s=self.host.config.fetch_timeout_s,
            egress=self.egress,
        )
        pinned = spec.resolved.facts.get("sha256") if spec.resolved is not None else None
        if pinned is not None and pinned != got.sha256:
            raise SourceRejected(
                "the archive at this address is not the one that it was when this revision was first built",
                hint="take the new one: corral redeploy",
            )
        return archive, {"sha256": got.sha256}

    async def _clone(self, spec: Spec, scratch: Path, progress: Progress) -> Fetched:
        origin = spec.origin
        assert origin is not None
        assert origin.url is not None
        pinned = spec.resolved.facts.get("commit") if spec.resolved is not None else None
        wanted = read_repository(
            origin.url,
            ref=pinned or origin.ref,
            subdir=origin.subdir,
            allow_ssh=self.host.config.source_allow_ssh,
        )
        place_folder = scratch / "git"
        await trio.to_thread.run_sync(_make_inside, scratch, place_folder)
        async with open_workplace(self.host, place_folder, progress) as place:
            got = await git.fetch(wanted, self.egress, place.run, timeout_s=self.host.config.fetch_timeout_s)
            uid = place.uid
        tree = scratch / FETCHED
        await trio.to_thread.run_sync(_take_over, place_folder / "tree", tree, uid)
        return Fetched(tree=tree, facts={"commit": got.commit}, notes=got.notes)


def _write_inline(spec: Spec, scratch: Path) -> Fetched:
    tree = scratch / FETCHED
    tree.mkdir(mode=0o700)
    name = spec.entry_point or catalog.file_name(spec.language)
    fd = os.open(tree / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(spec.source or b"")
    return Fetched(tree=tree, facts={})


def _make_inside(scratch: Path, folder: Path) -> None:
    """The tools' user comes through `scratch`; all else in it stays Corral's own."""
    scratch.chmod(0o711)
    folder.mkdir(mode=0o700)


def _take_over(found: Path, tree: Path, uid: int | None) -> None:
    """Nothing runs as the tools' user any more: what it fetched becomes Corral's, if its names may stand."""
    if uid is not None:
        trees.give(found, uid, os.geteuid())
    check_names(found)
    found.rename(tree)


def _below(tree: Path, subdir: str) -> Path:
    """A folder of the source, reached through no link."""
    here = tree
    for part in PurePosixPath(subdir).parts:
        here = here / part
        try:
            is_folder = stat.S_ISDIR(here.lstat().st_mode)
        except OSError:
            is_folder = False
        if not is_folder:
            raise SourceRejected(f"the source has no folder {subdir!r}", hint="source_subdir names one of its folders")
    return here


def _check_cancelled() -> bool:
    trio.from_thread.check_cancelled()
    return False
