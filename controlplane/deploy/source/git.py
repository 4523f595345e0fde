"""Fetch one commit of a repository: shallow, from the address that was judged, with nothing of it run.

This decides git's commands and environment and reads its answers; who runs them (`Run`: as jobs of a build, of a user
of their own) bounds their memory, and their disk: a pack is one file that grows, so both a limit on files (RLIMIT_FSIZE)
and a look at the whole folder are needed.

What git would do for a person and must not do here: read the machine's or a user's configuration, run hooks, filters,
pagers or credential helpers, ask for a password, follow a redirect, speak another transport than https, fetch
submodules, or write symbolic links. What was left out is told in `Fetched.notes`.

A commit is fetched by its id from any server that speaks protocol version 2 (git 2.18 of 2018), which lets it be asked
for while it exists. An older one names its branches and tags alone; then their last `FALLBACK_DEPTH` commits are
fetched to find it in.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from attrs import frozen

from controlplane.deploy.source.address import Egress, Route, resolve, route_to
from controlplane.deploy.source.gitenv import environment
from controlplane.deploy.source.gitwords import explain, notes_of, words_of
from controlplane.deploy.source.refusal import spelled
from controlplane.errors import BuildFailed, SourceRejected
from runtimes.recipe import Step

if TYPE_CHECKING:
    from controlplane.deploy.source.giturl import Repository

FALLBACK_DEPTH = 200
"""Commits of each branch and tag, from a server that does not give out a commit by its id."""
PIN_VERSION = (2, 37)
"""The first git that connects to a given address (http.curloptResolve)."""
Run = Callable[[Step], Awaitable[str]]
"""Runs a step in the tree and returns its stdout; raises `BuildFailed` with `evidence["stderr_tail"]`."""

_LIST = """\
git ls-files --stage | grep '^1[26]0000 ' | head -n {count}
git ls-files -- ':(attr:filter=lfs)' | head -n {count} | sed 's/^/lfs /'
"""
"""Links, submodules and files that Git LFS keeps elsewhere; no name is ever a word of the shell."""


@frozen(kw_only=True)
class Fetched:
    """What stands in the tree now. `notes` say what the owner should know."""

    commit: str
    notes: tuple[str, ...] = ()


async def fetch(repository: Repository, egress: Egress, run: Run, *, timeout_s: float) -> Fetched:
    """Check a repository's commit out into the empty tree that `run` works in, without its `.git`.

    Asked again with `ref` set to `Fetched.commit`, it comes to the same, whatever became of the branch.

    Args:
        repository: As `giturl.read_repository` took it.
        egress: What may be reached, and by which way.
        run: Runs one command.
        timeout_s: For everything.

    Raises:
        SourceRejected: it cannot be had; the sentence says why, the evidence has git's own words.
    """
    try:
        with trio.fail_after(timeout_s):
            return await _fetch(repository, await _route(repository, egress), egress, run)
    except trio.TooSlowError:
        raise SourceRejected(
            f"fetching {repository.shown} took more than {timeout_s:g} s",
            hint="is its server slow, or the repository large? Try again, or upload it as an archive",
        ) from None
    except BuildFailed as failed:
        raise explain(failed, repository) from None


async def _route(repository: Repository, egress: Egress) -> Route:
    if repository.scheme == "https":
        return await route_to(repository.host, repository.port, egress)
    addresses = await resolve(
        repository.host, repository.port, allow_private=egress.allow_private, resolver=egress.resolver
    )
    return Route(addresses=addresses)


async def _fetch(repository: Repository, route: Route, egress: Egress, run: Run) -> Fetched:
    env = environment(repository, route, ca_file=egress.variable("GIT_SSL_CAINFO", "SSL_CERT_FILE"))

    async def git(name: str, *argv: str) -> str:
        return await run(Step(name=name, argv=("git", *argv), env=env))

    _check_version(await git("see which git this is", "version"))
    await git("make an empty repository", "init", "--quiet", "--template=", *_object_format(repository))
    found = await _fetch_commit(repository, git)
    commit = (await git("find the commit", "rev-parse", "--verify", f"{found}^{{commit}}")).strip()
    if repository.subdir is not None:
        listed = await git(
            "look for the folder", "--literal-pathspecs", "ls-tree", "-d", "--", commit, repository.subdir
        )
        if not listed.startswith("040000 tree "):
            raise SourceRejected(
                f"there is no folder {spelled(repository.subdir)} in the repository", hint="check source_subdir"
            )
    await git("check the files out", "checkout", "--quiet", "--force", "--detach", commit, "--")
    listed = await run(Step(name="look for what is left out", argv=("sh", "-c", _LIST.format(count=100)), env=env))
    await run(Step(name="drop git's own folder", argv=("rm", "-rf", ".git"), env=env))
    return Fetched(commit=commit, notes=notes_of(listed))


async def _fetch_commit(repository: Repository, git: Callable[..., Awaitable[str]]) -> str:
    """Fetch what is wanted; returns what rev-parse finds it by."""
    wanted = repository.ref or "HEAD"
    options = ("--no-tags", "--no-recurse-submodules", "--no-auto-maintenance", "--no-progress", "--force")
    try:
        await git("fetch the commit", "fetch", *options, "--depth=1", "--", repository.url, wanted)
    except BuildFailed as failed:
        if not repository.is_pinned or "unadvertised object" not in words_of(failed):
            raise
    else:
        return "FETCH_HEAD"
    everything = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    depth = f"--depth={FALLBACK_DEPTH}"
    await git("fetch the newest commits to find it in", "fetch", *options, depth, "--", repository.url, *everything)
    return wanted


def _object_format(repository: Repository) -> tuple[str, ...]:
    is_sha256 = repository.is_pinned and len(repository.ref or "") == 64
    return ("--object-format=sha256",) if is_sha256 else ()


def _check_version(answer: str) -> None:
    found = re.search(r"version (\d+)\.(\d+)", answer)
    if found is None or (int(found[1]), int(found[2])) < PIN_VERSION:
        raise SourceRejected(
            f"this host's git ({spelled(answer.strip())}) is too old to be told which address to connect to",
            hint="the operator installs git {}.{} or later; or upload the source as an archive".format(*PIN_VERSION),
        )
