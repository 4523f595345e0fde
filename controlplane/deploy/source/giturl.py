"""What a `source_url` means, or why it is not taken: a repository (`git`) or the address of an archive. Pure.

https alone; ssh where the operator allows it. What is taken is written anew from its parts, in ASCII, so that Corral,
git and curl read the same host out of it: nothing that one of them might take for an option, another transport,
another user or a path of this machine. Whether the host is one to fetch from is `address`'s business.
"""

from __future__ import annotations

import ipaddress
import re

from attrs import frozen

from controlplane.deploy.source.refusal import spelled

URL_MAX_CHARS = 2048
"""What every server and proxy takes; addresses of release archives with a signature have some 700."""
REF_MAX_CHARS = 255
"""A branch is a file's name on the server."""
SUBDIR_MAX_CHARS = 1024
HOST_MAX_CHARS = 253
"""RFC 1035, without the dot at the end."""
HTTPS_PORT, SSH_PORT = 443, 22
FIRST_FREE_PORT = 1024
"""Ports below it, but for the protocol's own, belong to other protocols."""
HTTPS_ONLY = "give an https address, such as https://github.com/owner/repository"
SSH_LATER = (
    "repositories by ssh are not supported: a key can only be given by ${secret:…}, which this version does not have; "
    "give the https address of a public repository"
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SCP = re.compile(r"git@([A-Za-z0-9.-]+):(?!//)/?(.+)", re.DOTALL)
_BARE_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+/[^:]+", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that makes URL libraries take a host for an IPv4 address (WHATWG URL, "ends in a number")."""
_DOTTED = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}")
_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
"""RFC 3986, path characters."""
_HIDDEN = re.compile(r"%(?:[01][0-9A-F]|7F|2E|2F|5C)", re.IGNORECASE)
"""Control characters, dots, slashes and backslashes in disguise."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class UrlRefused(ValueError):
    """A source's address cannot be used. `field` is the request's field to mend, `hint` what to write instead."""

    def __init__(self, message: str, hint: str | None = None, *, field: str = "source_url") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field


@frozen(kw_only=True)
class Address:
    """A place on another host. `url` is canonical, without a fragment; `host` is without brackets, in lower case."""

    url: str
    scheme: str
    host: str
    port: int

    @property
    def shown(self) -> str:
        """For people: without the query, which may hold a signature."""
        return self.url.partition("?")[0]


@frozen(kw_only=True)
class Repository(Address):
    """A git repository, and what is wanted of it.

    `ref` is a branch, a tag, a name below `refs/` or a full commit id; None: the default branch. `subdir` is a folder;
    None: all of it.
    """

    ref: str | None = None
    subdir: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether `ref` is a commit, which never moves."""
        return self.ref is not None and is_commit(self.ref)


def is_commit(ref: str) -> bool:
    """Whether a ref is a full commit id (SHA-1 or SHA-256), which git never takes for a branch."""
    return _COMMIT.fullmatch(ref) is not None


def read_repository(
    url: str, *, ref: str | None = None, subdir: str | None = None, allow_ssh: bool = False
) -> Repository:
    """Judge a repository's address, with `#ref` in it or `ref` beside it.

    Raises:
        UrlRefused: why not.
    """
    _check_text(url)
    base, hash_mark, fragment = url.partition("#")
    if hash_mark and not fragment:
        raise UrlRefused("there is nothing behind the #", "name a branch, a tag or a commit, or leave the # out")
    if fragment:
        check_ref(fragment, "source_url")
    if ref is not None:
        check_ref(ref, "source_ref")
    if fragment and ref is not None and ref != fragment:
        raise UrlRefused(
            f"source_url asks for {spelled(fragment)}, and source_ref for another", "give one", field="source_ref"
        )
    address = _read(base, ssh="allowed" if allow_ssh else SSH_LATER)
    if "?" in address.url:
        raise UrlRefused("a repository's address has no query", "leave out the ? and what follows")
    wanted = ref or fragment or None
    if wanted and is_commit(wanted.lower()):
        wanted = wanted.lower()
    return Repository(
        url=address.url,
        scheme=address.scheme,
        host=address.host,
        port=address.port,
        ref=wanted,
        subdir=read_subdir(subdir),
    )


def read_archive_url(url: str) -> Address:
    """Judge an archive's address: https alone.

    Raises:
        UrlRefused: why not.
    """
    _check_text(url)
    if "#" in url:
        raise UrlRefused("an archive's address has no #", "only a repository has branches; use source_type git for one")
    return _read(url, ssh="archives are fetched by https alone")


def check_ref(ref: str, field: str = "source_ref") -> None:
    """Judge the name of a branch, tag or commit as git does (git-check-ref-format), and more strictly at its start.

    Raises:
        UrlRefused: why not.
    """
    if reason := _ref_fault(ref):
        raise UrlRefused(
            f"{spelled(ref)} cannot be a branch, tag or commit: {reason}",
            "give it as `git branch` or `git tag` shows it, or a commit's full id",
            field=field,
        )


def read_subdir(subdir: str | None) -> str | None:
    """Judge the folder of a source that counts; None is all of it, and so are `.` and the empty name.

    Raises:
        UrlRefused: why not.
    """
    if subdir is None:
        return None
    parts = subdir.removesuffix("/").split("/")
    while parts and parts[0] in {"", "."} and not subdir.startswith("/"):
        del parts[0]
    if reason := _subdir_fault(subdir, parts):
        raise UrlRefused(
            f"{spelled(subdir)} {reason}",
            "give a folder of the source by its path from the top, such as servers/weather",
            field="source_subdir",
        )
    return "/".join(parts) or None


def _subdir_fault(subdir: str, parts: list[str]) -> str | None:
    if len(subdir) > SUBDIR_MAX_CHARS:
        return f"is longer than {SUBDIR_MAX_CHARS} characters"
    if not subdir.isprintable() or "\\" in subdir:
        return "has a control character or a backslash"
    if subdir.startswith("/") or re.match(r"[A-Za-z]:", subdir):
        return "is an absolute path"
    if ".." in parts:
        return "leads out of the source"
    if "" in parts or "." in parts:
        return "has an empty part"
    if any(part.lower() == ".git" for part in parts):
        return "is git's own folder"
    return None


def _ref_fault(ref: str) -> str | None:
    if not ref or len(ref) > REF_MAX_CHARS:
        return f"it has 1 to {REF_MAX_CHARS} characters"
    if ref[0] in "-+":
        return f"it begins with {ref[0]}"
    if not ref.isprintable() or any(char in " ~^:?*[\\" for char in ref):
        return "it has a space, a control character or one of ~^:?*[\\"
    if ref == "@" or "@{" in ref or ".." in ref or ref.endswith("."):
        return "git reads @, @{, .. and a dot at the end in its own way"
    if any(not part or part.startswith(".") or part.endswith(".lock") for part in ref.split("/")):
        return "a part of it is empty, begins with a dot or ends in .lock"
    return None


def _check_text(url: str) -> None:
    """What no address may have in it, wherever."""
    if not url or len(url) > URL_MAX_CHARS:
        raise UrlRefused(f"an address has 1 to {URL_MAX_CHARS} characters", HTTPS_ONLY)
    if url.startswith("-"):
        raise UrlRefused("that is an option, and no address", HTTPS_ONLY)
    if any(char.isspace() or not char.isprintable() for char in url):
        raise UrlRefused("an address has no spaces and no control characters", HTTPS_ONLY)
    if "\\" in url:
        raise UrlRefused("an address has no backslash", HTTPS_ONLY)
    if not url.isascii() and not url.partition("#")[0].isascii():
        raise UrlRefused("an address is written in ASCII", "write the host's name as xn--…, and the rest in %XX")


def _read(url: str, *, ssh: str) -> Address:
    """Take an address apart and write it anew. `ssh` is `allowed`, or why it is not."""
    found = _SCHEME.fullmatch(url)
    if found is None:
        found = _other_spelling(url)
    scheme, rest = found[1].lower(), found[2]
    if scheme == "ssh":
        if ssh != "allowed":
            raise UrlRefused(ssh, HTTPS_ONLY)
    elif scheme != "https":
        raise UrlRefused(f"{spelled(scheme + '://')} is not fetched from", _scheme_hint(scheme, rest))
    authority, slash, path = rest.partition("/")
    if "?" in authority:
        raise UrlRefused("the address names a host and nothing on it", HTTPS_ONLY)
    host, port = _read_authority(authority, scheme)
    _check_path(slash + path, scheme)
    default = SSH_PORT if scheme == "ssh" else HTTPS_PORT
    user = "git@" if scheme == "ssh" else ""
    name = f"[{host}]" if ":" in host else host
    place = name if port == default else f"{name}:{port}"
    return Address(url=f"{scheme}://{user}{place}/{path}", scheme=scheme, host=host, port=port)


def _other_spelling(url: str) -> re.Match[str]:
    """`git@host:path` is ssh; anything else without a scheme is refused."""
    if "::" in url:
        raise UrlRefused("a transport of git's own (`name::…`) is not fetched from", HTTPS_ONLY)
    if scp := _SCP.fullmatch(url):
        found = _SCHEME.fullmatch(f"ssh://git@{scp[1]}/{scp[2]}")
        assert found is not None
        return found
    hint = f"write https://{url}" if _BARE_HOST.fullmatch(url) else HTTPS_ONLY
    raise UrlRefused("that is no address on another host", hint)


def _scheme_hint(scheme: str, rest: str) -> str:
    if scheme == "git+https":
        return f"write https://{rest}"
    return f"try https://{rest}" if scheme in {"http", "git"} and "@" not in rest else HTTPS_ONLY


def _read_authority(authority: str, scheme: str) -> tuple[str, int]:
    user, at, place = authority.rpartition("@")
    if scheme == "ssh" and user != "git":
        raise UrlRefused("an address by ssh has the user git, and no password", "write ssh://git@host/path")
    if scheme == "https" and at:
        raise UrlRefused(
            "an address has no user and no password in it, for it is shown and kept", "leave out what is before the @"
        )
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?", place)
    if found is None:
        raise UrlRefused("the host and its port cannot be read", HTTPS_ONLY)
    default = SSH_PORT if scheme == "ssh" else HTTPS_PORT
    port = int(found[2]) if found[2] else default
    if port != default and not FIRST_FREE_PORT <= port <= 65535:
        raise UrlRefused(
            f"port {port} is not fetched from", f"{scheme} is on port {default}, or one from {FIRST_FREE_PORT} to 65535"
        )
    return _read_host(found[1].lower()), port


def _read_host(host: str) -> str:
    if host.startswith("["):
        try:
            return ipaddress.IPv6Address(host[1:-1] if "%" not in host else "").compressed
        except ValueError:
            raise UrlRefused(f"{spelled(host)} is no IPv6 address") from None
    labels = host.split(".")
    if len(host) > HOST_MAX_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlRefused(
            f"{spelled(host)} is no name of a host",
            "a name has letters, digits, - and dots; others are written as xn--…" if host else HTTPS_ONLY,
        )
    if _NUMERIC.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host if _DOTTED.fullmatch(host) else ""))
        except ValueError:
            raise UrlRefused(f"{spelled(host)} is no IPv4 address in its usual form") from None
    return host


def _check_path(path: str, scheme: str) -> None:
    place, question, query = path.partition("?")
    if not place.strip("/"):
        raise UrlRefused("the address names a host and nothing on it", HTTPS_ONLY)
    if not _PATH.fullmatch(place) or (question and not _PATH.fullmatch(query.replace("?", ""))):
        raise UrlRefused("a character in the address stands for itself nowhere", "write it as %XX")
    if _HIDDEN.search(place) or any(part in {".", ".."} for part in place.split("/")):
        raise UrlRefused("the address takes a roundabout way", "leave out `..` and %-codes of dots and slashes")
    if scheme == "ssh" and not re.fullmatch(r"[A-Za-z0-9._~+/-]+", place):
        raise UrlRefused("a path by ssh has letters, digits and ._~+- alone", HTTPS_ONLY)
