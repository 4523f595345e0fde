"""What git says, in words for whoever gave the address of a repository: notes on what is left out, and failures. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from controlplane.deploy.source.refusal import spelled
from controlplane.errors import BuildFailed, SourceRejected

if TYPE_CHECKING:
    from controlplane.deploy.source.giturl import Repository

NOTED_NAMES = 10
"""Links, submodules and large files that a note names."""


def notes_of(listed: str) -> tuple[str, ...]:
    """What the owner should know of a tree, from the lines of `_LIST`. Pure."""
    names: dict[str, list[str]] = {"120000": [], "160000": [], "lfs": []}
    for line in listed.splitlines():
        kind, _, rest = line.partition(" ")
        if kind in names:
            names[kind].append(rest if kind == "lfs" else rest.partition("\t")[2])
    sentences = (
        ("120000", "symbolic links are written as small files that hold their target"),
        ("160000", "submodules are not fetched; their folders are empty"),
        ("lfs", "files in Git LFS are not fetched; small files that point at them stand in their place"),
    )
    return tuple(f"{sentence}: {_some(names[kind])}" for kind, sentence in sentences if names[kind])


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NOTED_NAMES])
    return f"{shown}, …" if len(names) > NOTED_NAMES else shown


_SAYINGS: tuple[tuple[str, str, str | None], ...] = (
    (
        r"could not read (Username|Password)|Authentication failed|terminal prompts disabled|error: 40[13]\b",
        "{url} does not exist, or is not public",
        "Corral has no name and password to give: make the repository public, or upload it as an archive",
    ),
    (r"repository '.*' not found|error: 404\b", "there is no repository at {url}", "check the address"),
    (
        r"couldn't find remote ref HEAD",
        "the repository has no default branch",
        "is it empty, or no repository at all? Otherwise name a branch with source_ref",
    ),
    (
        r"couldn't find remote ref",
        "the repository has no branch and no tag {ref}",
        "check source_ref; a commit is given by its full id",
    ),
    (
        r"not our ref|unadvertised object|Needed a single revision|bad object",
        "the repository does not give out the commit {ref}",
        "is it in a branch or a tag still?",
    ),
    (
        r"error: 30\d\b|unable to update url base from redirection",
        "{url} redirects elsewhere, which is not followed",
        "give the address that it leads to; many a server wants .git at its end",
    ),
    (r"does not support shallow", "the server of {url} is a plain file server, and no git server", None),
    (
        r"not valid: is this a git repository|protocol error|bad line length|expected (flush|'version)",
        "there is no git server at {url}",
        "check the address",
    ),
    (
        r"certificate|CAfile|SSL: |SSL_|gnutls_|TLS (connect|handshake)",
        "no secure connection to {host}",
        "is its certificate valid? An authority of your own is trusted once SSL_CERT_FILE of the control plane names it",
    ),
    (
        r"Operation too slow|Connection timed out|timed out",
        "{host} is too slow, or does not answer",
        "try again later, or upload the source as an archive",
    ),
    (
        r"from proxy after CONNECT|CONNECT tunnel failed|resolve proxy|Proxy CONNECT aborted",
        "the proxy of this control plane does not lead to {host}",
        None,
    ),
    (
        r"Could not resolve host|Failed to connect|Couldn't connect|unable to access",
        "{host} cannot be reached",
        "check the address, and try again",
    ),
    (
        r"mismatched algorithms|object.format",
        "the repository has SHA-256 ids",
        "give the commit's full id as source_ref",
    ),
    (
        r"fsck|invalid path|unable to checkout|disallowed|hasDot|transport '.*' not allowed",
        "the repository holds what cannot be checked out safely",
        None,
    ),
    (
        r"early EOF|unexpected disconnect|hung up unexpectedly|RPC failed",
        "{host} broke off",
        "try again, or upload the source as an archive",
    ),
    (
        # the pack outgrew the limit on files, or on memory
        r"File too large|died of signal|No space left|MiB of disk|Disk quota|out of memory|invalid index-pack output",
        "the repository is too large",
        "upload the folder that counts as an archive",
    ),
    (r"Permission denied \(publickey|Host key verification failed", "{host} does not let Corral in by ssh", None),
)
"""What git says, what it means, and what to do; the first that is found counts."""


def explain(failed: BuildFailed, repository: Repository) -> SourceRejected:
    """What git's last words mean, for whoever gave the address. Pure."""
    words = words_of(failed).replace(repository.url, "")  # a repository may be called anything
    for pattern, sentence, hint in _SAYINGS:
        if re.search(pattern, words):
            detail = sentence.format(url=repository.shown, host=repository.host, ref=spelled(repository.ref or ""))
            return SourceRejected(detail, hint=hint, evidence=failed.evidence)
    return SourceRejected(
        f"git could not fetch {repository.shown}: {failed.detail}",
        hint="its last lines are in stderr_tail",
        evidence=failed.evidence,
    )


def words_of(failed: BuildFailed) -> str:
    """What was said of a failure, and git's last lines."""
    return "\n".join([failed.detail, *failed.evidence.get("stderr_tail", ())])
