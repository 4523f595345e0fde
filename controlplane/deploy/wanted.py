"""What a request says of the source, made the part of a Spec that is about it; or every reason why not. Pure.

The five types differ in where the files come from; what is said about the files
(language, entry point, dependencies, own build step) is the same for all but a
command. What only looking at the source can tell is left to the build.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from controlplane.deploy.inline import guess
from controlplane.deploy.origins import archive, repository
from controlplane.deploy.wishes import build_command, dependencies, is_path
from controlplane.model import Command, SourceType, Spec
from runtimes import catalog
from runtimes.recipe import CannotPlan, UnknownLanguage, Wish
from runtimes.tree import SourceTree

if TYPE_CHECKING:
    from controlplane.config import Config
    from controlplane.deploy.refusals import Refusals
    from controlplane.wire.deploy import DeployIn, McpConfigIn, RedeployIn

MAX_SOURCE_BYTES = 8 * 2**20
"""One file of inline code, decoded."""
PIECE_CHARS = 2**20
"""Of base64, decoded at once: some 2 ms."""
ARCHIVES = ("zip", "tar")
Type = Literal["mcp_config", "git", "zip", "tar", "direct"]

_LANGUAGE = re.compile(r"[a-z][a-z0-9+#.-]{0,31}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

_NOT_WITH = {
    "mcp_config": (
        "source_url", "source_ref", "source_subdir", "source_data", "entry_point", "dependencies", "build_command",
    ),
    "direct": ("mcp_config", "source_url", "source_ref", "source_subdir"),
    "git": ("mcp_config", "source_data"),
    "zip": ("mcp_config", "source_ref"),
    "tar": ("mcp_config", "source_ref"),
}  # fmt: skip
"""Fields that mean nothing to a type."""


@frozen(kw_only=True)
class Wanted:
    """What is asked for: by a deploy, or by a redeploy on top of what is there.

    `kept` has the source itself where the request brings none; `uploaded`: it comes as a file beside the request.
    """

    source_type: Type
    mcp_config: McpConfigIn | None = None
    source_url: str | None = None
    source_ref: str | None = None
    source_subdir: str | None = None
    source_data: str | None = None
    language: str | None = None
    entry_point: str | None = None
    dependencies: tuple[str, ...] = ()
    build_command: str | None = None
    uploaded: bool = False
    kept: Spec | None = None


def wanted_first(body: DeployIn, *, uploaded: bool) -> Wanted:
    """What a deploy asks for."""
    return Wanted(
        source_type=body.source_type,
        mcp_config=body.mcp_config,
        source_url=body.source_url,
        source_ref=body.source_ref,
        source_subdir=body.source_subdir,
        source_data=body.source_data,
        language=body.language,
        entry_point=body.entry_point,
        dependencies=tuple(body.dependencies),
        build_command=body.build_command,
        uploaded=uploaded,
    )


def wanted_again(body: RedeployIn, before: Spec, *, uploaded: bool) -> Wanted:
    """What a redeploy asks for: of the source all or nothing is new, of what is said about it each field by itself.

    A repository's `source_ref` and `source_subdir` may change by themselves: it is the same repository.
    """
    kind = body.source_type or before.source_type.value
    brings = uploaded or any(part is not None for part in (body.mcp_config, body.source_url, body.source_data))
    about = before if kind == before.source_type.value else None
    packages = body.dependencies if body.dependencies is not None else about.dependencies if about else ()
    return Wanted(
        source_type=kind,
        mcp_config=body.mcp_config,
        source_url=body.source_url,
        source_ref=body.source_ref,
        source_subdir=body.source_subdir,
        source_data=body.source_data,
        language=body.language or _kept_language(body, about),
        entry_point=body.entry_point or (about.entry_point if about else None),
        dependencies=tuple(packages),
        build_command=body.build_command or (about.build_command if about else None),
        uploaded=uploaded,
        kept=None if brings or body.source_type is not None else before,
    )


def _kept_language(body: RedeployIn, before: Spec | None) -> str | None:
    """The language goes on, unless the new source itself says what it is."""
    if before is None:
        return None
    if before.command is not None and body.mcp_config is not None:
        guessed = catalog.of_command(before.command.command) == before.language
        return None if guessed else before.language
    if before.source_type is SourceType.DIRECT and body.entry_point and body.entry_point != before.entry_point:
        return catalog.of_file(body.entry_point) or before.language
    return before.language or None


def plan_source(wanted: Wanted, config: Config, refusals: Refusals) -> dict[str, Any]:
    """The members of a Spec that are about the source.

    An archive that the request brings is not in it yet: `Spec.origin` gets its digest once it is kept.
    """
    for name in _NOT_WITH[wanted.source_type]:
        if getattr(wanted, name) not in (None, ()):
            refusals.add(f"/{name}", f"does not go with source_type {wanted.source_type}")
    if wanted.uploaded and wanted.source_type not in ARCHIVES:
        refusals.add("/source_type", "a file beside the request is an archive: zip or tar")
    match wanted.source_type:
        case "mcp_config":
            members = _command(wanted, refusals)
        case "direct":
            members = _direct(wanted, refusals)
        case "git":
            members = repository(wanted, config, refusals) | _about(wanted, refusals)
        case _:
            members = archive(wanted, config, refusals) | _about(wanted, refusals)
    return {"source_type": SourceType(wanted.source_type), **members}


# -- a command


def _command(wanted: Wanted, refusals: Refusals) -> dict[str, Any]:
    config = wanted.mcp_config
    if config is None:
        if wanted.kept is not None:
            language = _label(wanted.language, refusals) if wanted.language else wanted.kept.language
            return {"command": wanted.kept.command, "language": language}
        refusals.add("/mcp_config", "is needed for source_type mcp_config")
        return {"command": None, "language": ""}
    if config.cwd is not None and ".." in PurePosixPath(config.cwd).parts:
        refusals.add("/mcp_config/cwd", "must not contain ..")
    language = _label(wanted.language, refusals) if wanted.language else catalog.of_command(config.command)
    return {
        "command": Command(command=config.command, args=tuple(config.args), cwd=config.cwd),
        "language": language,
    }


def _label(language: str, refusals: Refusals) -> str:
    """What a command is listed under: any language, by the name that it goes by here."""
    try:
        return catalog.normalize(language)
    except UnknownLanguage:
        name = language.lower()
    if not _LANGUAGE.fullmatch(name):
        refusals.add("/language", "is not the name of a language")
    return name


# -- one file


def _direct(wanted: Wanted, refusals: Refusals) -> dict[str, Any]:
    source = wanted.kept.source if wanted.kept is not None else _inline(wanted.source_data, refusals)
    if wanted.entry_point is not None and not _FILE_NAME.fullmatch(wanted.entry_point):
        refusals.add("/entry_point", "must be a plain file name")
    language = _language_of_file(wanted, source, refusals)
    entry_point = wanted.entry_point or (catalog.file_name(language) if language else None)
    members = {
        "language": language,
        "entry_point": entry_point,
        "source": source,
        "dependencies": dependencies(wanted.dependencies, refusals),
        "build_command": build_command(wanted.build_command, refusals),
    }
    if not refusals.found and source is not None and entry_point is not None:
        _try_plan(members, refusals)
    return members


def _language_of_file(wanted: Wanted, source: bytes | None, refusals: Refusals) -> str:
    named = wanted.language or guess(wanted.entry_point or "", source or b"")
    if named is None:
        refusals.add(
            "/language",
            "is needed: neither the entry point's suffix nor the file's beginning tells",
            f"one of {', '.join(catalog.LANGUAGES)}",
        )
        return ""
    return _runnable(named, refusals)


def _runnable(language: str, refusals: Refusals) -> str:
    try:
        return catalog.normalize(language)
    except UnknownLanguage as error:
        refusals.add("/language", str(error))
        return ""


def _try_plan(members: dict[str, Any], refusals: Refusals) -> None:
    """One file is all there is to see, so what its build would refuse is refused now."""
    tree = SourceTree.of({members["entry_point"]: members["source"]})
    wish = Wish(
        language=members["language"],
        entry_point=members["entry_point"],
        dependencies=members["dependencies"],
        build_command=members["build_command"],
    )
    try:
        catalog.plan(tree, wish)
    except CannotPlan as error:
        refusals.add(f"/{error.field or 'source_data'}", str(error), error.hint)


def _inline(data: str | None, refusals: Refusals) -> bytes | None:
    if data is None:
        refusals.add("/source_data", "is needed for source_type direct: the file, in base64")
        return None
    try:
        source = decoded(data)
    except ValueError as error:
        refusals.add("/source_data", str(error), "base64 -w0 server.py")
        return None
    if len(source) > MAX_SOURCE_BYTES:
        refusals.add("/source_data", f"is {len(source)} bytes; at most {MAX_SOURCE_BYTES}", "send it in an archive")
    return source


def decoded(data: str) -> bytes:
    """What base64 text holds; line breaks in it are skipped.

    Raises:
        ValueError: it is not base64, or empty.
    """
    return b"".join(decoded_pieces(data))


def decoded_pieces(data: str) -> Iterator[bytes]:
    """The same piece by piece: none takes long, however large the whole is.

    Raises:
        ValueError: as `decoded`, perhaps after some pieces.
    """
    rest, is_over, is_empty = "", False, True
    for start in range(0, len(data), PIECE_CHARS):
        text = rest + "".join(data[start : start + PIECE_CHARS].split())
        whole = len(text) - len(text) % 4 if start + PIECE_CHARS < len(data) else len(text)
        rest = text[whole:]
        if not whole:
            continue
        if is_over or whole % 4:
            raise ValueError("is not base64")
        is_over = "=" in text[:whole]
        try:
            piece = base64.b64decode(text[:whole], validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is not base64") from None
        is_empty = is_empty and not piece
        yield piece
    if is_empty:
        raise ValueError("is empty")


def _about(wanted: Wanted, refusals: Refusals) -> dict[str, Any]:
    entry_point = wanted.entry_point
    if entry_point is not None and not is_path(entry_point):
        refusals.add("/entry_point", "must be a path inside the source, with / and without ..")
    return {
        "language": _runnable(wanted.language, refusals) if wanted.language else "",
        "entry_point": entry_point,
        "dependencies": dependencies(wanted.dependencies, refusals),
        "build_command": build_command(wanted.build_command, refusals),
    }
