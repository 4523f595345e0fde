"""Where a source that is not in its request comes from: a repository, an archive's address, an upload. Pure.

An address is judged here as far as its text tells; what a name leads to is looked at when it is fetched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from controlplane.deploy.source.address import ALLOW_HINT, is_allowed
from controlplane.deploy.source.giturl import Address, UrlRefused, read_archive_url, read_repository, read_subdir
from controlplane.model import Origin

if TYPE_CHECKING:
    from controlplane.config import Config
    from controlplane.deploy.refusals import Refusals
    from controlplane.deploy.wanted import Wanted


def repository(wanted: Wanted, config: Config, refusals: Refusals) -> dict[str, Any]:
    """`Spec.origin` of a repository: its address anew, or the one before at another ref or folder."""
    kept = wanted.kept.origin if wanted.kept is not None else None
    subdir = _subdir(wanted, kept, refusals)
    if kept is not None and wanted.source_ref is None:
        return {"origin": evolve(kept, subdir=subdir)}
    address = wanted.source_url or (kept.url if kept else None)
    if address is None:
        refusals.add("/source_url", "is needed for source_type git: the repository's https address")
        return {}
    try:
        found = read_repository(address, ref=wanted.source_ref, allow_ssh=config.source_allow_ssh)
        _check_host(found, config)
    except UrlRefused as refused:
        _refuse(refused, refusals)
        return {}
    return {"origin": Origin(url=found.url, ref=found.ref, subdir=subdir)}


def archive(wanted: Wanted, config: Config, refusals: Refusals) -> dict[str, Any]:
    """`Spec.origin` of an archive; without a digest where the request brings it."""
    kept = wanted.kept.origin if wanted.kept is not None else None
    subdir = _subdir(wanted, kept, refusals)
    if kept is not None:
        return {"origin": evolve(kept, subdir=subdir)}
    given = [name for name in ("source_url", "source_data") if getattr(wanted, name) is not None]
    if wanted.uploaded:
        given.append("a file")
    if not given:
        refusals.add(
            "/source_data", f"is needed for source_type {wanted.source_type}: the archive in base64, or its source_url"
        )
    elif len(given) > 1:
        refusals.add(f"/{given[0]}", f"the archive comes twice: as {' and as '.join(given)}")
    elif wanted.source_url is not None:
        try:
            found = read_archive_url(wanted.source_url)
            _check_host(found, config)
            return {"origin": Origin(url=found.url, subdir=subdir)}
        except UrlRefused as refused:
            _refuse(refused, refusals)
    return {"origin": Origin(subdir=subdir)}


def _refuse(refused: UrlRefused, refusals: Refusals) -> None:
    """An address that is not allowed is the source's fault; anything else about it is the request's."""
    add = refusals.add_source if refused.field == "source_url" else refusals.add
    add(f"/{refused.field}", refused.message, refused.hint)


def _check_host(address: Address, config: Config) -> None:
    """Refuse what can be told without looking a name up; the rest is looked at when it is fetched.

    Raises:
        UrlRefused: the host is an address, or this machine's own name, that may not be fetched from.
    """
    host = address.host
    try:
        allowed = is_allowed(host, allow_private=config.source_allow_private)
    except ValueError:  # a name
        allowed = config.source_allow_private or not (host == "localhost" or host.endswith(".localhost"))
    if not allowed:
        raise UrlRefused(f"the host {host} is not one that may be fetched from", ALLOW_HINT)


def _subdir(wanted: Wanted, kept: Origin | None, refusals: Refusals) -> str | None:
    if wanted.source_subdir is None:
        return kept.subdir if kept else None
    if wanted.source_subdir.startswith("-"):
        refusals.add("/source_subdir", "is an option, not a folder")
        return None
    try:
        return read_subdir(wanted.source_subdir)
    except UrlRefused as refused:
        _refuse(refused, refusals)
        return None
